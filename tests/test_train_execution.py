import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

from tradefm_gym.agents import Evaluator, PassiveTWAP
from tradefm_gym.agents.ppo import (
    AGGRESSIVENESS,
    DEVIATIONS,
    LearnedPolicy,
    LearningEnv,
    PPOSettings,
    menu_actions,
    new_model,
)

import tradefm_gym
from tradefm_gym import MarketSimulator
from tradefm_gym.data.day import save_day
from tradefm_gym.data.recorded import FlowMeta
from tradefm_gym.envs.sb3 import ExecutionVecEnv
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_execution.py"
TASK = {"flow": "zero_intelligence", "decisions": 8}
SMALL = PPOSettings(
    steps=64, num_envs=4, rollout=8, batch=16, epochs=1, width=8, validate_every=1, validation_episodes=4
)


def example():
    spec = importlib.util.spec_from_file_location("train_execution", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_execution"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_reward_is_re_timed_but_its_sum_is_the_shortfall():
    plain = ExecutionVecEnv(4, seed=1, **TASK)
    learning = LearningEnv(ExecutionVecEnv(4, seed=1, **TASK))
    plain.reset()
    learning.reset()
    generator = np.random.default_rng(0)
    sums, ends, moved = np.zeros((2, 4)), 0, False
    for _ in range(40):
        entries = np.stack([generator.integers(0, 4, 4), generator.integers(0, len(AGGRESSIVENESS), 4)], axis=1)
        scale = learning.venv.env.session.role.scale
        half_spread = 0.5 * scale["spread"] * scale["tick_bps"]
        _, one, done, infos = plain.step(menu_actions(entries))
        _, two, same, _ = learning.step(entries)
        np.testing.assert_array_equal(done, same)
        two = two * half_spread
        moved |= not np.allclose(one, two)
        sums += np.stack([one, two])
        for m in np.flatnonzero(done):
            assert sums[0, m] == pytest.approx(-infos[m]["shortfall_bps"], abs=1e-4)
            assert sums[1, m] == pytest.approx(sums[0, m], abs=1e-4)
            sums[:, m] = 0.0
            ends += 1
    assert ends >= 12
    assert moved


def test_an_untrained_model_is_passive_twap():
    env = LearningEnv(ExecutionVecEnv(4, seed=1, **TASK))
    policy = LearnedPolicy(new_model(env, SMALL))
    evaluator = Evaluator(TASK, 4)
    results = evaluator.run([policy, PassiveTWAP()], evaluator.plan(6))
    np.testing.assert_array_equal(results["ppo"], results["passive_twap"])


def test_the_menu_begins_with_the_zero_action():
    assert DEVIATIONS[0] == AGGRESSIVENESS[0] == 0.0
    actions = menu_actions(np.array([[0, 0], [len(DEVIATIONS) - 1, 1]]))
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 1).all()


def test_a_model_with_other_actions_is_refused(tmp_path):
    from stable_baselines3 import PPO

    PPO("MlpPolicy", ExecutionVecEnv(1, **TASK), n_steps=2, batch_size=2, device="cpu").save(tmp_path / "other.zip")
    with pytest.raises(ValueError, match="it must be the menu"):
        LearnedPolicy.load(tmp_path / "other.zip")


def test_settings_are_checked():
    with pytest.raises(ValueError, match="epochs is 0; it must be at least 1"):
        PPOSettings(epochs=0)
    with pytest.raises(ValueError, match="at least 2 decisions"):
        PPOSettings(num_envs=1, rollout=1)


def test_the_main_job_in_small(tmp_path, capsys):
    job = example()
    arguments = job.Arguments(
        flow="zero_intelligence",
        steps=64,
        num_envs=4,
        episodes=6,
        decisions=8,
        out=tmp_path / "out",
        logs=tmp_path / "runs",
        ppo=SMALL,
    )
    measured = job.main(arguments)
    printed = capsys.readouterr().out
    assert "kept the checkpoint" in printed
    assert [summary.name for summary in measured["flow"].summaries] == [
        "ppo",
        "crossing_twap",
        "passive_twap",
        "post_and_wait",
        "immediate",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.suffix != ".png") == ["model.zip", "results.json"]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["results"]["flow"]["policies"][0]["differences"].keys() == {"crossing_twap", "passive_twap"}
    assert len(content["results"]["flow"]["episodes"]["ppo"]["seed"]) == 6
    assert [entry["decisions"] for entry in content["validation"]] == [0, 32, 64]
    # The model on disk is the one that was measured.
    policy = LearnedPolicy.load(tmp_path / "out" / "model.zip")
    evaluator = Evaluator({**TASK, "interval": 16}, 4)
    again = evaluator.run([policy], evaluator.plan(6, arguments.seed))["ppo"]
    np.testing.assert_array_equal(again, measured["flow"].episodes["ppo"])


def recorded_day(path, events=6000):
    flow = ZeroIntelligenceFlow(1)
    market = MarketSimulator(1, flow.market_config())
    flow.reset(market, np.ones(1, bool), np.zeros(1, np.int64), np.ones(1, np.uint64), np.zeros(1, np.uint32))
    recorder = DayRecorder(market)
    while (starved := market.advance(until_count=np.array([events]))).any():
        market.feed(flow.next_events(market, starved))
    recorder.collect()
    meta = FlowMeta("ZERO", "made up", "2026-01-01", 1, "tick", 1, "lot", True, (0, 10**15), "a test")
    save_day(path, recorder.finish(meta))


def test_the_held_out_part_of_a_day_is_divided_into_stretches(tmp_path):
    job, day = example(), tmp_path / "day.npz"
    recorded_day(day)
    env = LearningEnv(ExecutionVecEnv(2, **TASK))
    policy = LearnedPolicy(new_model(env, SMALL))
    arguments = job.Arguments(data=day, num_envs=3, decisions=8)
    task = {"flow": "zero_intelligence", "decisions": 8, "interval": 16, "context": "of another flow"}
    measured = job.measure_replay(arguments, policy, task, job.Console(quiet=True))
    rows = measured.episodes["ppo"]
    assert measured.description["flow"].startswith("replay:")
    assert measured.description["contexts"] == len(rows) // 2 > 2
    assert measured.description["truncated"] == 0
    np.testing.assert_array_equal(np.unique(rows["context"], return_counts=True)[1], 2)
    np.testing.assert_array_equal(rows, measured.episodes["passive_twap"])
    gaps = -np.diff(
        np.sort(
            tradefm_gym.make_flow(f"replay:{day}", 1, contexts=(1, 1, len(rows) // 2), horizon=128).events_left[2:]
        )[::-1]
    )
    assert gaps.min() >= 128 - 2  # starts lie evenly, to a whole event
