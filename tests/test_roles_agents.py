import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank
from test_roles_positions import act, maker, own
from test_roles_session import quiet
from tradefm_gym.agents import (
    AvellanedaStoikov,
    FixedSpread,
    Momentum,
    Noise,
    making_policies,
    trading_policies,
)
from tradefm_gym.agents.makers import SLICES

from tradefm_gym import MarketMakingRole, TradingRole, TradingSession, parallel_env
from tradefm_gym.market.events import BUY, MARKET, SELL

EXAMPLE = Path(__file__).parents[1] / "examples" / "two_makers.py"


def columns(session, decision=0):
    start = session.start_info()
    return {"seed": session.seeds, "decision": np.full(session.num_envs, decision), **start}


def quotes(session, policy, seen):
    """The bid and the ask (ticks) that a policy's action leads to."""
    session.step(policy.act(seen, columns(session)))
    prices = {side: price for side, price, _ in own(session)}
    return prices[1], prices[-1]


@pytest.mark.parametrize(
    ("half_spread", "expected"), [(0.5, (999, 1001)), (1.0, (998, 1002)), (2.0, (996, 1004)), (50.0, (994, 1006))]
)
def test_a_fixed_spread_counts_usual_spreads_from_the_mid(half_spread, expected):
    session = quiet(maker())
    assert quotes(session, FixedSpread(half_spread), session.reset()) == expected  # the usual spread is 2


@pytest.mark.parametrize(("half_spread", "expected"), [(0.25, (999, 1001)), (1.5, (997, 1003)), (2.0, (996, 1004))])
def test_a_fixed_spread_holds_where_the_spread_is_not_the_usual_one(half_spread, expected):
    session = TradingSession(1, maker(), QuietFlow(1, quiet_bank([(999, 100)], [(1001, 100)])))
    session.seed(np.ones(1, bool), np.zeros(1, np.uint64))
    assert quotes(session, FixedSpread(half_spread), session.reset()) == expected


def test_quotes_of_avellaneda_and_stoikov_are_those_of_their_formula():
    session = quiet(maker(decisions=20))
    seen = session.reset()
    policy, info = AvellanedaStoikov(0.5, 2.0), columns(session)
    np.testing.assert_allclose((info["usual_spread"][0], info["usual_move"][0]), (2.0, 1.0))
    half = 2.0 * (0.5 * 0.5 * 0.25 * 20 + np.log(1.25) / 0.5)  # ticks: variance (1 / 2)^2, 20 decisions left
    assert 3.25 < half < 3.75
    assert quotes(session, policy, seen) == (996, 1004)  # 3.5 ticks, rounded away from the mid


def test_avellaneda_and_stoikov_lean_against_their_inventory_and_quote_tighter_towards_the_end():
    session = quiet(maker(decisions=40), script={3: (MARKET, SELL, 0, 10)})
    session.reset()
    seen = act(session, -1, 0, 0, 1).observation
    assert session.role.state["inventory"][0] == 10
    policy = AvellanedaStoikov(0.4)
    action = policy.act(seen, columns(session))[0]
    empty = seen.copy()
    empty[:, SLICES["inventory"]] = 0
    flat = policy.act(empty, columns(session))[0]
    assert flat[2] == 0 and flat[0] == flat[1]
    assert action[2] < 0  # long: both quotes go down
    late = empty.copy()
    late[:, SLICES["time_left"]] = 0.05
    assert (policy.act(late, columns(session))[0, :2] < flat[:2]).all()


def test_without_risk_aversion_avellaneda_and_stoikov_quote_a_fixed_spread():
    session = quiet(maker())
    seen, info = session.reset(), columns(session)
    neutral, fixed = AvellanedaStoikov(1e-9, 2.0).act(seen, info), FixedSpread(0.5).act(seen, info)
    np.testing.assert_allclose(neutral, fixed, atol=1e-4)


def test_who_leans_against_the_inventory_carries_less_of_it():
    peaks = {}
    for policy in making_policies():
        session = TradingSession(64, MarketMakingRole(), "zero_intelligence")
        session.seed(np.ones(64, bool), np.arange(64))
        seen = session.reset()
        while session.running.any():
            seen = session.step(policy.act(seen, columns(session))).observation
        peaks[policy.name] = session.final_info()["peak"].mean()
    assert peaks["avellaneda_stoikov"] < 0.9 * peaks["fixed_spread"]


def test_momentum_follows_large_moves_and_holds_on_after_small_ones():
    # The two nearest asks go: the mid rises by 1 tick, which is the usual move.
    session = quiet(TradingRole(decisions=12, max_position=20), script={20: (MARKET, BUY, 0, 300)})
    policy, seen, targets = Momentum(), session.reset(), []
    for _ in range(4):
        action = policy.act(seen, columns(session))
        targets.append(float(action[0, 0]))
        seen = session.step(action).observation
    assert targets == [0.0, 0.0, 1.0, 1.0]
    assert Momentum(2.0).act(session.reset(), {})[0, 0] == 0.0


def test_noise_is_a_function_of_seed_and_decision():
    policy = Noise(hold=4)
    seen = np.zeros((3, 45), np.float32)
    info = {"seed": np.array([1, 2, 1], np.uint64), "decision": np.array([0, 0, 3])}
    first = policy.act(seen, info)
    assert first[0, 0] == first[2, 0] != first[1, 0]
    info["decision"] = np.array([4, 0, 3])
    assert policy.act(seen, info)[0, 0] != first[0, 0]
    assert policy.act(seen, info)[1, 0] == first[1, 0]
    assert Noise(hold=4, seed=5).act(seen, info)[1, 0] != first[1, 0]


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (AvellanedaStoikov, {"risk_aversion": 0}, "risk_aversion is 0; it must be a positive number"),
        (AvellanedaStoikov, {"decay": -1.0}, "decay is -1.0; it must be a positive number"),
        (Noise, {"hold": 0}, "hold is 0; it must be an integer of at least 1"),
    ],
)
def test_wrong_parameters_are_named(make, arguments, said):
    with pytest.raises(ValueError, match=said):
        make(**arguments)


def test_all_policies_act_within_the_space_and_as_opponents():
    makers, traders = making_policies(), trading_policies()
    roles = [{"role": "market_making", "policy": policy} for policy in makers]
    roles += [{"role": "trading", "policy": policy} for policy in traders]
    env = parallel_env(["execution", *roles], flow="hawkes", decisions=20)
    env.reset(seed=2)
    while env.agents:
        env.step({"executor_0": np.zeros(2, np.float32)})
    assert not env.session.active[0].any()
    assert (env.session.market.accounts["volume"][0, 1:3] > 0).all()


def test_the_example_runs(capsys):
    spec = importlib.util.spec_from_file_location("two_makers", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["two_makers"] = module
    spec.loader.exec_module(module)
    module.main(module.Arguments(markets=4, decisions=6))
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("fixed_spread", "avellaneda_stoikov", "momentum", "noise"))
