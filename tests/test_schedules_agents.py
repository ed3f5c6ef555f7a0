"""Reference schedules, what they are fitted with, and quotes and traders of closed form."""

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank
from test_roles_positions import maker
from test_roles_session import quiet
from tradefm_gym.agents import GLFT, POV, VWAP, AlmgrenChriss, PassiveTWAP, ZeroIntelligence, fill_intensities
from tradefm_gym.agents.makers import SLICES

from tradefm_gym import ExecutionRole, TradingSession
from tradefm_gym.market.events import MARKET, SELL

LINEAR_BIDS = [(1000 - i, 10) for i in range(1, 60)]
LINEAR_ASKS = [(1000 + i, 10) for i in range(1, 60)]


def columns(session, decision=0):
    return {
        "seed": session.seeds,
        "decision": np.full(session.num_envs, decision),
        **session.start_info(),
    }


def played(session, policy):
    """Targets of the schedule (lots) after each decision, (decisions, N)."""
    seen, targets = session.reset(), []
    while session.running.any():
        seen = session.step(policy.act(seen, columns(session, len(targets)))).observation
        targets.append(session.role.state["target"].copy())
    return np.array(targets)


def test_the_schedule_of_almgren_and_chriss_is_that_of_their_formula():
    policy = AlmgrenChriss(0.5, 2.0, 10.0, 4.0)
    k = np.arccosh(1.0 + 0.5 * 0.5 * 4.0 / 8.0)
    assert policy.urgency == pytest.approx(k)
    j = np.arange(9)
    np.testing.assert_allclose(policy.remaining(j, np.full(9, 8)), np.sinh(k * (8 - j)) / np.sinh(k * 8), atol=1e-12)
    calm = AlmgrenChriss(0.0).remaining(j, np.full(9, 8))
    np.testing.assert_allclose(calm, 1.0 - j / 8)
    assert np.isfinite(AlmgrenChriss(1e6, 1e3).remaining(j, np.full(9, 8))).all()


@pytest.mark.parametrize("risk_aversion", [0.0, 0.1, 2.0, 1e6])
def test_the_market_gets_that_schedule_to_the_lot(risk_aversion):
    policy = AlmgrenChriss(risk_aversion, 1.0, 10.0)
    session = quiet(ExecutionRole(decisions=12, side="buy", quantity=240))
    targets = played(session, policy)[:, 0]
    done = 1.0 - policy.remaining(np.arange(1, 13), np.full(12, 12))
    np.testing.assert_allclose(targets[:-1], 240 * done[: len(targets) - 1], atol=1.001)


def test_almgren_and_chriss_measure_the_impact_of_their_market():
    # Ten lots at each tick, and what is taken does not come back: x lots cost x / 20 ticks more each, and one side of
    # the book moves by x / 10.
    flow = QuietFlow(8, quiet_bank(LINEAR_BIDS, LINEAR_ASKS))
    fitted = AlmgrenChriss.fit(flow, num_envs=8, side="buy", quantity=120, decisions=16)
    assert (fitted.temporary, fitted.permanent) == pytest.approx((60.0, 60.0), rel=0.15)  # 6 ticks of 10 bps
    assert fitted.volatility < 3.0  # rounding to half ticks


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes"])
def test_almgren_and_chriss_fit_a_market_that_moves(flow):
    fitted = AlmgrenChriss.fit(flow, 0.3, num_envs=16, decisions=32)
    assert fitted.volatility > 0.0
    assert fitted.temporary > 0.5 * fitted.permanent >= 0.0
    assert vars(AlmgrenChriss.fit(flow, 0.3, num_envs=16, decisions=32)) == vars(fitted)


def test_a_market_in_which_size_costs_nothing_fits_no_schedule():
    deep = QuietFlow(4, quiet_bank([(998, 10_000)], [(1002, 10_000)]))
    with pytest.raises(ValueError, match="flow is 'quiet', in which larger orders cost no more"):
        AlmgrenChriss.fit(deep, num_envs=4, quantity=200, decisions=8)


def test_the_fit_reads_the_usual_observation_only():
    with pytest.raises(ValueError, match="task has its own blocks or observation"):
        AlmgrenChriss.fit(num_envs=2, blocks=["spread"])


@pytest.mark.parametrize("policy", [VWAP(), POV(0.2)])
def test_volume_schedules_are_those_of_the_role(policy):
    task = {"decisions": 8, "side": "buy", "quantity": 80}

    def session(**more):
        made = TradingSession(4, ExecutionRole(**task, **more), "zero_intelligence")
        made.seed(np.ones(4, bool), np.arange(4))
        return made

    ours = session(**policy.task)
    targets = played(ours, policy)
    np.testing.assert_array_equal(ours.role.state["base"], ours.role.state["schedule"])
    assert not np.array_equal(targets, played(session(), PassiveTWAP()))


def test_quotes_of_gueant_and_others_are_those_of_their_formula():
    policy = GLFT(0.5, 2.0, 0.8)
    half, lean = policy.quotes(np.array([0.5]))
    w = np.sqrt(0.25 * 0.5 / (2 * 2 * 0.8) * 1.25 ** (1 + 4))
    np.testing.assert_allclose(lean, w)
    np.testing.assert_allclose(half, np.log(1.25) / 0.5 + w / 2)
    session = quiet(maker(decisions=40), script={3: (MARKET, SELL, 0, 10)})
    session.reset()
    seen = session.step(np.array([[-1, 0, 0, 1]], np.float32)).observation
    action = policy.act(seen, columns(session))[0]
    empty = seen.copy()
    empty[:, SLICES["inventory"]] = 0
    flat = policy.act(empty, columns(session))[0]
    assert session.role.state["inventory"][0] == 10  # one quote of half the size of 20
    assert flat[0] == flat[1] and flat[2] == 0
    assert action[2] == pytest.approx(-w * 2.0 / 2.0)  # a usual spread is 2 ticks, a skew of 1 is 2 ticks


def test_intensities_fall_with_the_distance_and_make_the_policy():
    distances, task = (0.5, 1.0, 2.0), {"num_envs": 8, "decisions": 32}
    found = fill_intensities("zero_intelligence", distances, **task)
    assert (np.diff(found) < 0).all() and found[0] < 5.0
    policy = GLFT.fit("zero_intelligence", 0.1, distances=distances, **task)
    slope, start = np.polyfit(distances, np.log(found), 1)
    assert (policy.decay, policy.intensity) == pytest.approx((-slope, np.exp(start)))


def test_a_market_without_fills_fits_no_quotes():
    flow = QuietFlow(2, quiet_bank([(998, 100)], [(1002, 100)]))
    with pytest.raises(ValueError, match=r"of which 0 got fills; at least 2 must"):
        GLFT.fit(flow, num_envs=2, decisions=4)


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (AlmgrenChriss, {"risk_aversion": -1.0}, "risk_aversion is -1.0; it must be a finite number of at least 0"),
        (AlmgrenChriss, {"temporary": 1.0, "permanent": 2.0}, "temporary is 1.0; it must be more than half"),
        (AlmgrenChriss, {"volatility": float("nan")}, "volatility is nan"),
        (GLFT, {"intensity": 0.0}, "intensity is 0.0; it must be a positive number"),
        (GLFT, {"size": -1.0}, "size is -1.0; it must be above -1"),
    ],
)
def test_wrong_parameters_are_named(make, arguments, said):
    with pytest.raises(ValueError, match=said):
        make(**arguments)


def test_zero_intelligence_is_a_function_of_seed_and_decision():
    policy, seen = ZeroIntelligence(), np.zeros((3, 45), np.float32)
    info = {"seed": np.array([1, 2, 1], np.uint64), "decision": np.array([0, 0, 0])}
    actions = policy.act(seen, info)
    np.testing.assert_array_equal(actions[0], actions[2])
    assert (actions[0] != actions[1]).all()
    assert (np.abs(actions) <= 1).all()
    assert (ZeroIntelligence(3).act(seen, info) != actions).any()
