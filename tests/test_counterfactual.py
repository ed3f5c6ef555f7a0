"""The twin without agents: the market itself where nobody trades, and what an agent causes where one does."""

import pickle

import numpy as np
import pytest
from played_sessions import DECISIONS, FLOWS, ROLES, episodes, flow_maker, go_on, session_of
from quiet_flow import QuietFlow, quiet_bank
from small_tradefm import everyone

from tradefm_gym.envs.counterfactual import Twin
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionVectorEnv, TradingEnv
from tradefm_gym.envs.session import TradingSession


@pytest.fixture(scope="module", name="make")
def _make(tmp_path_factory):
    return flow_maker(tmp_path_factory.mktemp("model") / "small")


IDLE = {"market_making": (0.0, 0.0, 0.0, -1.0), "trading": (0.0, 0.0), "execution": (-1.0, 0.0)}


def idle(session, decisions):
    for _ in range(decisions):
        actions = [np.tile(np.float32(IDLE[name_of(role)]), (session.num_envs, 1)) for role in session.roles]
        results = session.step_roles(actions)
    return results


def name_of(role):
    return next(name for name, kind in ROLES.items() if type(role) is kind)


@pytest.mark.parametrize(
    ("flow", "roles"),
    [(flow, (role,)) for flow in FLOWS for role in ROLES] + [(flow, ("trading", "market_making")) for flow in FLOWS],
)
def test_without_an_order_the_twin_is_the_market_itself(make, flow, roles):
    session = session_of(make(flow, 3), roles, counterfactual=True)
    for episode in range(2):
        # An execution's deadline sends what is left, whatever the agent does.
        results = idle(session, DECISIONS - 1 if roles == ("execution",) else DECISIONS + len(roles) - 1)
        assert session.market.accounts["volume"][:, 0].max() == 0
        assert session.tape_hash(0) != session.tape_hash(1)
        for row in range(3):
            assert session.tape_hash(row) == session.twin.session.tape_hash(row)
        assert session.market.snapshot() == session.twin.session.market.snapshot()
        assert session.final_info()["impact_sample_bps"].tolist() == [0.0] * 3
        assert results[-1].terminated.all() == (roles != ("execution",))
        session.reset_roles(np.array([True, episode == 1, True]))
        session.reset_roles()


@pytest.mark.parametrize("flow", FLOWS)
def test_the_twin_is_the_market_of_somebody_who_does_nothing(make, flow):
    session = session_of(make(flow, 3), ("trading",), counterfactual=True)
    without = session_of(make(flow, 3), ("trading",))
    generator = np.random.default_rng(0)
    for reset in (None, np.array([True, False, True]), np.ones(3, bool)):
        if reset is not None:
            for run in (session, without):
                run.reset_roles(reset)
        arrival = session.market.mid2_excluding(None)
        for _ in range(3):
            session.step(generator.uniform(0, 1, (3, 2)).astype(np.float32))
            idle(without, 1)
            assert session.step_info()["twin_mid"].tolist() == (0.5 * without.market.mid2).tolist()
            assert [session.twin.session.tape_hash(m) for m in range(3)] == [without.tape_hash(m) for m in range(3)]
            assert (session.twin.session.market.background_count == session.market.background_count).all()
    moved = session.market.mid2_excluding(None) - without.market.mid2
    assert session.final_info()["impact_sample_bps"].tolist() == (1e4 * moved / arrival).tolist()
    assert len({session.tape_hash(m) for m in range(3)} & {without.tape_hash(m) for m in range(3)}) == 0


def test_a_twin_can_be_made_by_hand_and_follows_each_row(make):
    session, without = session_of(make("hawkes", 3), ("trading",)), session_of(make("hawkes", 3), ("trading",))
    for _ in range(2):
        for run in (session, without):
            run.step(np.ones((3, 2), np.float32))
    twin = Twin(session)
    assert twin.impact_sample_bps().tolist() == [0.0] * 3
    for rows in (everyone(3), np.array([True, False, True]), np.array([True, False, False])):
        session.step(-np.ones((3, 2), np.float32), rows)
    twin.follow()
    without.advance(everyone(3), np.array([48, 16, 32]))
    assert [twin.session.tape_hash(m) for m in range(3)] == [without.tape_hash(m) for m in range(3)]
    assert twin.mid().tolist() == (0.5 * without.market.mid2_excluding(None)).tolist()
    twin.depart([1])
    assert twin.session.tape_hash(1) == session.tape_hash(1) and twin.impact_sample_bps()[1] == 0.0


def test_a_buyer_moves_the_market_on_average():
    n = 64
    session = TradingSession(n, ExecutionRole(decisions=8, side="buy", quantity=4_000), "zero_intelligence",
                             counterfactual=True)  # fmt: skip
    session.seed(everyone(n), np.arange(n))
    session.reset()
    for _ in range(8):
        session.step(np.tile(np.float32([0, 1]), (n, 1)))
    samples = session.final_info()["impact_sample_bps"]
    error = samples.std(ddof=1) / np.sqrt(n)
    assert samples.mean() > 4 * error and samples.std() > 0


def test_a_twin_goes_along_with_snapshots_forks_and_branches(make):
    session = session_of(make("tradefm", 3), counterfactual=True)
    rows = np.arange(3)
    go_on(session, rows, 3, 1)
    value = pickle.loads(pickle.dumps(session.snapshot()))
    branch, other = session.branch([2, 1]), session_of(make("tradefm", 3), seed=60, counterfactual=True)
    plain = session_of(make("tradefm", 3), seed=60)
    other.fork(1, [0])
    session.fork(0, [2], other)
    assert other.twin.session.tape_hash(2) == session.twin.session.tape_hash(0)
    expected = episodes(session, rows)
    assert any(abs(sample) > 0 for sample in session.final_info()["impact_sample_bps"])
    other.restore(value)
    assert episodes(other, rows) == expected
    session.restore(value)
    go_on(session, np.array([2, 1]), 4, 9), go_on(branch, np.array([0, 1]), 4, 9)
    for key in ("twin_mid", "mid"):
        assert branch.step_info()[key].tolist() == session.step_info()[key][[2, 1]].tolist()
    for call in (lambda: other.restore(plain.snapshot()), lambda: plain.fork(0, [0], other)):
        with pytest.raises(ValueError, match="value is of a session without counterfactual; it must be of one with it"):
            call()
    plain.restore(value)
    assert "twin_mid" not in plain.step_info()


def test_environments_take_counterfactual(make):
    env = TradingEnv(flow=make("hawkes", 1), decisions=3, counterfactual=True)
    env.reset(seed=4)
    infos = [env.step(np.float32([0, 0]))[4] for _ in range(3)]
    assert [info["twin_mid"] for info in infos] == [info["mid"] for info in infos]
    assert infos[-1]["impact_sample_bps"] == 0.0 and "impact_sample_bps" not in infos[0]
    vector = ExecutionVectorEnv(3, flow=make("hawkes", 3), decisions=3, counterfactual=True)
    vector.reset(seed=4)
    for _ in range(9):
        info = vector.step(np.ones((3, 2), np.float32))[4]
        assert ("impact_sample_bps" in info) == ("shortfall_bps" in info)
    quiet = QuietFlow(1, quiet_bank([(998, 100)], [(1002, 100)]))
    for flow, value, said in [
        ("hawkes", "yes", "counterfactual is 'yes'; it must be True or False"),
        (quiet, True, "flow 'quiet' has no snapshot and restore; without them a session cannot be copied"),
    ]:
        with pytest.raises(ValueError, match=said):
            TradingEnv(flow=flow, counterfactual=value)
