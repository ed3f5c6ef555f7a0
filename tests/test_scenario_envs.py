"""Environments under stress: options of a reset, what ``info`` says, and copies."""

import pickle

import numpy as np
import pytest

from tradefm_gym import TradingSession, parallel_env
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import INSERTED

TASK = {"flow": "zero_intelligence", "decisions": 16, "quantity": 500}
BURST = {"name": "one_sided_burst", "start": 40}
WORDS = "one_sided_burst(side=buy, start=40, events=128, factor=10, size=1.0)"
IDLE = np.zeros(2, np.float32)


def inserted(session, row=0):
    return int((session.market.tape.read_records(row, 0)["order_id"] == INSERTED).sum())


def test_a_row_is_the_single_environment_and_an_episode_has_its_scenario_once():
    vector = ExecutionVectorEnv(3, autoreset_mode="SameStep", **TASK)
    scenarios = [None, BURST, "busy"]
    _, infos = vector.reset(seed=4, options={"scenario": scenarios})
    assert infos["scenario"].tolist() == ["", WORDS, "busy(start=0)"]
    singles = [ExecutionEnv(**TASK) for _ in range(3)]
    for m, env in enumerate(singles):
        _, info = env.reset(seed=4 + m, options={"scenario": scenarios[m]})
        assert info["scenario"] == infos["scenario"][m]
    for _ in range(15):
        vector.step(np.zeros((3, 2), np.float32))
        for env in singles:
            env.step(IDLE)
    assert [vector.session.tape_hash(m) for m in range(3)] == [env.session.tape_hash(0) for env in singles]
    assert [inserted(vector.session, m) for m in range(3)] == [0, 115, 0]
    *_, infos = vector.step(np.zeros((3, 2), np.float32))  # the end, and the next episode
    assert infos["final_info"]["scenario"][1] == WORDS
    assert infos["scenario"].tolist() == ["", "", ""] and inserted(vector.session, 1) == 0


def test_a_flow_may_bring_its_scenario_along():
    env = ExecutionEnv(**{**TASK, "flow": StressedFlow(ZeroIntelligenceFlow(1), BURST)})
    for options in (None, None, {"scenario": "thin"}):
        _, info = env.reset(seed=1, options=options)
        assert info["scenario"] == ("thin(start=0)" if options else WORDS)
    assert "one_sided_burst" in info["flow_version"]
    branch = env.fork(2)
    assert branch.start_info()["scenario"].tolist() == ["thin(start=0)"] * 2


def test_a_market_under_stress_goes_on_from_its_snapshot_and_beside_its_twin():
    env, other = (ExecutionEnv(counterfactual=True, **TASK) for _ in range(2))
    env.reset(seed=2, options={"scenario": BURST})
    for _ in range(5):  # into the burst
        env.step(IDLE)
    value = pickle.loads(pickle.dumps(env.snapshot()))
    other.reset(seed=77)
    other.restore(value)
    branch = env.fork(2)
    assert 0 < inserted(env.session) < 115
    for _ in range(8):
        env.step(IDLE), other.step(IDLE), branch.step(np.zeros((2, 2), np.float32))
    assert env.session.tape_hash(0) == other.session.tape_hash(0) == branch.tape_hash(1)
    assert inserted(env.session) == inserted(env.session.twin.session) == 115
    assert other.session.start_info()["scenario"][0] == WORDS


def test_agents_of_one_market_meet_one_scenario():
    env = parallel_env(["market_making", "execution"], flow="zero_intelligence", decisions=16)
    _, infos = env.reset(seed=3, options={"scenario": BURST})
    assert {info["scenario"] for info in infos.values()} == {WORDS}
    for _ in range(12):
        env.step({agent: np.zeros(env.action_space(agent).shape, np.float32) for agent in env.agents})
    assert inserted(env.session) == 115


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("storm", "scenario is 'storm'; allowed are one_sided_burst"),
        ({"name": "thin", "pace": 2}, "scenario 'thin' has no parameter 'pace'; allowed are start, events"),
        ([None], "scenario in options has 1 values; it must have one or 2"),
        ([None, 3], "scenario is 3; allowed are"),
        ("control", "scenario 'control' cannot run on flow 'zero_intelligence'"),
    ],
)
def test_a_refused_scenario_changes_nothing(value, said):
    session = TradingSession(2, ExecutionRole(decisions=4, quantity=50), "zero_intelligence")
    session.seed(np.ones(2, bool), np.arange(2, dtype=np.uint64))
    session.reset()
    before = session.tape_hash(0), session.episodes.tolist()
    for call in (session.reset, session.check_options):
        with pytest.raises(ValueError, match=said):
            call(options={"scenario": value})
    assert (session.tape_hash(0), session.episodes.tolist()) == before
