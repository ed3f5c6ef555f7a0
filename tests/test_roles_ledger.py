"""What roles earn adds up, whatever they do to each other."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_day import cpu_flow
from test_roles_session import drawn, play, session_of

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.seat import HALF_TICK
from tradefm_gym.envs.seat_role import SeatRole
from tradefm_gym.envs.trading import TradingRole

FLOWS = ("zero_intelligence", "hawkes", "replay")


def company(decisions=12, interval=16, **task):
    """One role of each kind, and a second maker who numbers its actions."""
    clock = {"decisions": decisions, "interval": interval}
    return [
        ExecutionRole(**clock, quantity=200),
        MarketMakingRole(**clock, **task),
        TradingRole(**clock, **task),
        MarketMakingRole(**clock, discrete=True),
    ]


def equity(session, seat):
    """Cash + inventory at the role's mid - fees of each row, 1/1000 tick-lots."""
    account, state = session.market.accounts[:, seat], session.roles[seat].state
    return account["cash"] + account["inventory"] * state["decision_mid2"] * HALF_TICK - account["fees"]


def check_ledger(session, generator):
    """Whole episodes under random actions, looked at after every decision; the results of each."""
    session.reset_roles()
    market, seats = session.market, range(1, len(session.roles))
    before = [equity(session, seat) for seat in seats]
    profit = [np.zeros(session.num_envs, np.int64) for _ in seats]
    while session.running.any():
        active = session.active.copy()
        results = session.step_roles(drawn(session, generator))
        assert not market.accounts["cash"].sum(axis=1).any()
        assert not market.accounts["inventory"].sum(axis=1).any()
        for i, seat in enumerate(seats):
            role, terms = session.roles[seat], results[seat].terms
            now = equity(session, seat)
            np.testing.assert_array_equal(terms[:, :4].sum(axis=1), np.where(active[seat], now - before[i], 0))
            assert (terms[:, 4:] <= 0).all()
            profit[i] += terms.sum(axis=1)
            notional = role.state["limit"] * role.state["arrival_mid2"] * HALF_TICK
            np.testing.assert_allclose(results[seat].reward, 1e4 * terms.sum(axis=1) / notional, rtol=1e-12)
            both = (role.sizes[:, :, 0] > 0).all(axis=1) & active[seat]
            mid2 = market.mid2_excluding(seat)
            np.testing.assert_array_equal(role.state["decision_mid2"][both], mid2[both])
            assert (np.abs(role.state["inventory"]) <= role.state["limit"]).all()
            np.testing.assert_array_equal(role.state["inventory"], market.accounts["inventory"][:, seat])
            before[i] = np.where(active[seat], now, before[i])
        yield active, results
    for i, seat in enumerate(seats):
        state = session.roles[seat].state
        np.testing.assert_array_equal(state["profit"], profit[i])
        np.testing.assert_array_equal(state["executed"], market.accounts["volume"][:, seat])


@pytest.mark.parametrize("flow", FLOWS)
def test_the_ledger_reconciles_at_every_step_for_every_role(flow):
    fees = {"maker_fee": -150, "taker_fee": 250, "maker_rate": -3, "taker_rate": 7}
    session = session_of(8, company(40), cpu_flow(flow), 11, **fees)
    for _ in check_ledger(session, np.random.default_rng(2)):
        pass
    for seat in (1, 2, 3):
        left = session.market.accounts["inventory"][:, seat]
        assert (left == 0).mean() > 0.8  # now and then others have emptied the book
        assert (session.roles[seat].state["executed"] > 0).any()


@given(st.integers(0, 2**32), st.integers(-500, 500), st.integers(0, 500), st.sampled_from(["linear", "quadratic"]))
@settings(max_examples=15, deadline=None)
def test_the_ledger_reconciles_in_random_markets(seed, maker_fee, penalty, shape):
    roles = company(10, 8, inventory_penalty=penalty, penalty_shape=shape)
    session = session_of(2, roles, "zero_intelligence", seed, maker_fee=maker_fee, taker_fee=700)
    for active, results in check_ledger(session, np.random.default_rng(seed)):
        for seat in (1, 2):
            state = session.roles[seat].state
            over = state["decision"] == state["decisions"]
            held = np.abs(state["inventory"])
            charged = penalty * (held if shape == "linear" else held**2 // state["limit"])
            expected = np.where(active[seat] & ~over, -charged, 0)
            np.testing.assert_array_equal(results[seat].terms[:, 5], expected)


def test_the_ledger_reconciles_in_the_models_markets():
    session = session_of(2, company(6, 8), "tradefm", 5, flow_options={"engine_batch": 2})
    for _ in check_ledger(session, np.random.default_rng(1)):
        pass


def test_terms_are_what_the_fills_on_the_tape_say():
    session = session_of(6, company(24), "zero_intelligence", 3, maker_fee=-100, taker_fee=300)
    market, total = session.market, np.zeros((4, 6, 2), np.int64)
    mids, cursor = {}, np.zeros(6, np.int64)
    generator = np.random.default_rng(4)
    session.reset_roles()
    cursor[:] = market.tape.fill_count
    while session.running.any():
        mids = [role.state["decision_mid2"].copy() for role in session.roles]
        results = session.step_roles(drawn(session, generator))
        total[:] = 0
        for m in range(6):
            for fill in market.tape.read_fills(m, int(cursor[m])):
                for owner, side, fee in (
                    (fill["maker"], -int(fill["taker_side"]), -100),
                    (fill["taker"], int(fill["taker_side"]), 300),
                ):
                    if owner > 0:
                        gain = side * (int(mids[owner][m]) - 2 * int(fill["price"])) * HALF_TICK * int(fill["size"])
                        total[owner, m] += gain, -fee * int(fill["size"])
        cursor[:] = market.tape.fill_count
        for seat in (1, 2, 3):
            terms = results[seat].terms
            np.testing.assert_array_equal(terms[:, 0] + terms[:, 3], total[seat, :, 0])
            np.testing.assert_array_equal(terms[:, 2], total[seat, :, 1])


def test_a_market_of_agents_is_a_zero_sum_game_with_the_background():
    session = session_of(4, company(16), "zero_intelligence", 9)
    for _ in play(session, 5):
        pass
    mark = session.market.mid2
    accounts = session.market.accounts
    worth = accounts["cash"] + accounts["inventory"] * mark[:, None] * HALF_TICK
    assert not worth.sum(axis=1).any()
    assert worth[:, :4].any()


def trajectory_hash(flow, num_envs, rows=range(2)):
    """All that four roles saw, did and earned in rows of whole episodes, as one hash."""
    session = session_of(num_envs, company(), cpu_flow(flow), 70)
    generators = [np.random.default_rng(m) for m in range(num_envs)]
    seen, total = session.reset_roles(), hashlib.sha256()
    while session.running[list(rows)].any():
        actions = [np.stack(column) for column in zip(*(row_actions(session, g) for g in generators), strict=True)]
        results = session.step_roles(actions)
        for array in (*seen, *(one for result in results for one in result)):
            total.update(np.ascontiguousarray(array[list(rows)]).tobytes())
        seen = tuple(result.observation for result in results)
    return hashlib.sha256("".join([total.hexdigest(), *(session.tape_hash(m) for m in rows)]).encode()).hexdigest()


def row_actions(session, generator):
    return [
        generator.integers(0, role.action_space.n)
        if role.discrete
        else generator.uniform(-1, 1, role.action_space.shape).astype(np.float32)
        for role in session.roles
    ]


@pytest.mark.parametrize("flow", FLOWS)
def test_equal_hashes_for_any_number_of_markets_and_in_other_processes(flow):
    expected = trajectory_hash(flow, 2)
    assert trajectory_hash(flow, 5) == expected
    if flow == "replay":  # its day is written anew by each process
        return
    code = f"import json, test_roles_ledger as t; print(json.dumps(t.trajectory_hash({flow!r}, 3)))"
    environment = os.environ | {"NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected


def test_observations_stay_in_their_spaces():
    session = session_of(4, company(30, 32), "hawkes", 1)
    seen = session.reset_roles()
    generator = np.random.default_rng(0)
    while session.running.any():
        for role, observation in zip(session.roles, seen, strict=True):
            assert observation.dtype == np.float32
            assert all(row in role.observation_space for row in observation)
            assert sum(block.size for block in role.blocks) == observation.shape[1]
        seen = [result.observation for result in session.step_roles(drawn(session, generator))]


@pytest.mark.parametrize("make", [MarketMakingRole, TradingRole])
def test_presets_are_distinct_and_the_first_is_the_zero_action(make):
    role: SeatRole = make(discrete=True)
    assert role.action_space.n == len(role.presets) == len({tuple(action) for action in role.presets.tolist()})
    assert not role.presets[0].any()
    assert (np.abs(role.presets) <= 1).all()
