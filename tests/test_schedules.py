"""Executions with a limit price, and what the zero action keeps to."""

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank
from small_tradefm import everyone

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.market.events import BUY, LIMIT, SELL

BIDS, ASKS = [(998, 100), (997, 200)], [(1002, 100), (1003, 200)]


def quiet(role, script=None, **bank):
    session = TradingSession(1, role, QuietFlow(1, quiet_bank(BIDS, ASKS, **bank), script), context=0)
    session.seed(everyone(1), np.zeros(1, np.uint64))
    session.reset()
    return session


@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes", "replay"])
def test_nothing_trades_beyond_the_limit(side, flow):
    session = TradingSession(6, ExecutionRole(8, 10, side, 300, limit_bps=1.0), flow)
    session.seed(everyone(6), np.arange(6))
    session.reset()
    state, sign = session.role.state, 1 if side == "buy" else -1
    limit = state["arrival_mid2"] / 2 * (1 + sign * 1e-4)
    np.testing.assert_array_equal(state["limit"], np.floor(limit) if side == "buy" else np.ceil(limit))
    generator = np.random.default_rng(0)
    while session.running.any():
        session.step(generator.uniform(-1, 1, (6, 2)))
    for m in range(6):
        fills = session.market.tape.read_fills(m)
        mine = fills[(fills["maker"] == 0) | (fills["taker"] == 0)]
        assert (sign * mine["price"] <= sign * state["limit"][m]).all()
        assert mine["size"].sum() == state["executed"][m]
    assert 0 < state["executed"].sum() < 1_800  # some of it did not find a price


def test_a_limit_crosses_what_it_allows_and_charges_the_rest():
    session = quiet(ExecutionRole(decisions=2, side="buy", quantity=150, limit_price=1002))
    session.step(np.array([[1.0, 1.0]]))
    assert session.role.state["executed"][0] == 100  # all that there was at 1002
    result = session.step(np.array([[1.0, 1.0]]))
    assert result.terminated[0]
    assert session.role.state["executed"][0] == 100
    assert result.terms[0, 3] == 50 * (1003 + 5 - 1000) * 1000  # the last price seen and the spread
    sold = quiet(ExecutionRole(decisions=2, side="sell", quantity=150, limit_bps=-30))  # not below 1003
    assert sold.role.state["limit"][0] == 1003
    sold.step(np.array([[0.0, 0.0]]))
    assert sold.role.resting[0, 0]["price"] == 1003


def test_limits_are_options_and_seen_when_asked_for():
    env = ExecutionEnv(flow="zero_intelligence", decisions=3, side="buy", blocks=["limit", "mid_move"], limit_bps=5)
    assert env.reset(seed=1)[0].shape == (3,)
    role = env.session.role
    seen = env.reset(seed=1, options={"limit_price": 12_345})[0]
    distance = (12_345 - role.state["decision_mid2"][0] / 2) / role.scale["spread"][0]
    np.testing.assert_allclose(seen[0], np.clip(distance, -10, 10), rtol=1e-6)
    assert role.state["limit"][0] == 12_345
    assert ExecutionEnv(flow="zero_intelligence", blocks=["limit"]).reset(seed=1)[0].tolist() == [10.0]


def targets(session, actions=((0.0, -1.0),) * 10):
    found = []
    for action in actions:
        session.step(np.array([action]))
        found.append(int(session.role.state["target"][0]))
    return found


def test_vwap_keeps_to_the_part_of_the_volume_that_is_expected_to_have_traded():
    # Sixteen lots are usual in an interval. Thrice as many trade in the first one.
    script = {i: (LIMIT, BUY if i % 2 else SELL, 1100 if i % 2 else 900, 3) for i in range(16)}
    role = ExecutionRole(decisions=5, side="buy", quantity=100, schedule="vwap")
    found = targets(quiet(role, script, lots_per_event=1.0), ((0.0, -1.0),) * 5)
    lots, usual = np.array([0, 48, 48, 48, 48]), 16
    expected = (lots + usual) / (lots + usual * (5 - np.arange(5)))
    assert found == np.floor(100 * expected + 1e-6).astype(int).tolist() == [20, 57, 66, 80, 100]
    nobody = quiet(ExecutionRole(decisions=5, side="buy", quantity=100, schedule="vwap"))
    assert targets(nobody, ((0.0, -1.0),) * 5) == [20, 25, 33, 50, 100]  # all volume is still expected


def test_pov_takes_its_part_of_what_others_have_traded():
    script = {i: (LIMIT, BUY if i % 2 else SELL, 1100 if i % 2 else 900, 3) for i in range(32)}
    role = ExecutionRole(decisions=5, side="buy", quantity=100, schedule="pov", participation=0.25)
    session = quiet(role, script)
    assert targets(session, ((0.0, -1.0),) * 5) == [0, 12, 24, 24, 24]
    assert session.role.state["executed"][0] == 100  # the deadline crosses the rest
    assert targets(quiet(role_again(role), script), ((0.0, -1.0), (-0.5, -1.0), (0.0, -1.0), (1.0, -1.0))) == [
        0,
        6,
        18,
        100,
    ]


def role_again(role):
    return ExecutionRole(
        decisions=5, side="buy", quantity=100, schedule=role.schedule, participation=role.participation
    )


def test_the_zero_action_keeps_to_each_schedule():
    for schedule in ("vwap", "pov"):
        role = ExecutionRole(decisions=16, quantity=120, schedule=schedule)
        session = TradingSession(4, role, "zero_intelligence")
        session.seed(everyone(4), np.arange(4))
        session.reset()
        while session.running.any():
            session.step(np.zeros((4, 2)))
            state = session.role.state
            over = state["decision"] == 16
            assert ((state["executed"] == state["target"]) | over).all()
            np.testing.assert_array_equal(state["base"], state["schedule"])
        assert (state["executed"] == 120).all()


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"schedule": "is"}, "schedule is 'is'; it must be one of 'twap', 'vwap', 'pov'"),
        ({"participation": 0}, "participation is 0; it must be a number from 1e-06 to 1"),
        ({"participation": np.nan}, "participation is nan"),
        ({"limit_bps": 9_000}, "limit_bps is 9000; it must be a number from -5000 to 5000"),
        ({"limit_bps": True}, "limit_bps is True"),
        ({"limit_price": 0}, "limit_price is 0; it must be an integer from 1"),
        ({"limit_price": 10, "limit_bps": 3}, "limit_bps is 3 and limit_price 10; one of them must be None"),
    ],
)
def test_wrong_tasks_are_named(task, said):
    with pytest.raises(ValueError, match=said):
        ExecutionEnv(flow="zero_intelligence", **task)
    env = ExecutionEnv(flow="zero_intelligence")
    if "schedule" not in task:
        with pytest.raises(ValueError, match=said):
            env.reset(options=task)
