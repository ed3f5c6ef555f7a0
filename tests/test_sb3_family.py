"""What Stable-Baselines3 and sb3-contrib bring along works on our ``VecEnv`` and on the single environment."""

import csv

import gymnasium as gym
import numpy as np
import pytest

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.callbacks import EvalCallback  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402

from tradefm_gym.envs.sb3 import ExecutionVecEnv, MarketMakingVecEnv, TradingVecEnv  # noqa: E402

TASK = {"flow": "zero_intelligence", "decisions": 8}
SMALL = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "device": "cpu", "seed": 0}


def actions_of(num_envs, steps):
    return np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, 2)).astype(np.float32)


def test_vec_normalize_sees_what_the_market_shows(tmp_path):
    plain = ExecutionVecEnv(3, seed=5, **TASK)
    wrapped = vec_env.VecNormalize(ExecutionVecEnv(3, seed=5, **TASK), clip_obs=1e6, clip_reward=1e6)
    seen, ends = [plain.reset()], 0
    wrapped.reset()
    for action in actions_of(3, 20):
        observation, rewards, dones, infos = plain.step(action)
        normalised, _, dones_too, infos_too = wrapped.step(action)
        seen.append(observation)
        np.testing.assert_array_equal(dones, dones_too)
        np.testing.assert_array_equal(wrapped.get_original_reward(), rewards)
        np.testing.assert_allclose(wrapped.unnormalize_obs(normalised), observation, atol=1e-3)
        for m in np.flatnonzero(dones):
            last = wrapped.unnormalize_obs(infos_too[m]["terminal_observation"])
            np.testing.assert_allclose(last, infos[m]["terminal_observation"], atol=1e-3)
            assert not np.allclose(last, observation[m], atol=1e-3)  # that of the next episode
            ends += 1
    assert ends >= 6
    everything = np.concatenate(seen)
    np.testing.assert_allclose(wrapped.obs_rms.mean, everything.mean(axis=0), atol=1e-3)
    wrapped.save(str(tmp_path / "normalise.pkl"))
    again = vec_env.VecNormalize.load(str(tmp_path / "normalise.pkl"), ExecutionVecEnv(3, seed=5, **TASK))
    np.testing.assert_array_equal(again.normalize_obs(everything), wrapped.normalize_obs(everything))


def test_vec_monitor_counts_rewards_and_decisions(tmp_path):
    env = vec_env.VecMonitor(ExecutionVecEnv(3, seed=5, **TASK), str(tmp_path / "monitor.csv"))
    env.reset()
    total, length, told = np.zeros(3), np.zeros(3, int), []
    for action in actions_of(3, 20):
        _, rewards, dones, infos = env.step(action)
        total, length = total + rewards, length + 1
        for m in np.flatnonzero(dones):
            assert infos[m]["episode"]["l"] == length[m] <= 8
            assert infos[m]["episode"]["r"] == pytest.approx(total[m], abs=1e-4)
            assert infos[m]["episode"]["r"] == pytest.approx(-infos[m]["shortfall_bps"], abs=1e-4)
            told.append(infos[m]["episode"])
        total[dones], length[dones] = 0.0, 0
    env.close()
    rows = list(csv.DictReader((tmp_path / "monitor.csv").read_text().splitlines()[1:]))
    assert [int(row["l"]) for row in rows] == [episode["l"] for episode in told] and len(told) >= 6


@pytest.mark.parametrize("face", [ExecutionVecEnv, MarketMakingVecEnv, TradingVecEnv])
def test_what_eval_callback_measured_can_be_measured_again(tmp_path, face):
    def normalised(seed, training):
        return vec_env.VecNormalize(vec_env.VecMonitor(face(4, seed=seed, **TASK)), training=training)

    callback = EvalCallback(
        normalised(100, False),
        n_eval_episodes=8,
        eval_freq=32,  # of 4 environments each: once, after the second rollout
        log_path=str(tmp_path),
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    model = PPO("MlpPolicy", normalised(1, True), **SMALL)
    model.learn(128, callback=callback)
    measured = np.load(tmp_path / "evaluations.npz")
    assert measured["timesteps"].tolist() == [128] and measured["ep_lengths"].max() <= 8
    again = normalised(100, False)
    again.obs_rms = model.get_env().obs_rms
    best = PPO.load(tmp_path / "best_model.zip", device="cpu")
    rewards, lengths = evaluate_policy(best, again, n_eval_episodes=8, return_episode_rewards=True)
    assert rewards == measured["results"][0].tolist() and lengths == measured["ep_lengths"][0].tolist()
    assert np.std(rewards) > 0


def frames_of(path):
    """Of a film: size and number of its frames, frames a second."""
    from moviepy import VideoFileClip

    with VideoFileClip(str(path)) as film:
        return tuple(film.size), film.n_frames, film.fps


def test_record_video_films_whole_episodes(tmp_path):
    pytest.importorskip("moviepy", reason="moviepy, which RecordVideo needs, is not installed")
    env = gym.make("TradeFM/Execution-v0", render_mode="rgb_array", **TASK)
    env = gym.wrappers.RecordVideo(env, str(tmp_path / "films"), episode_trigger=lambda episode: episode == 1)
    lengths = []
    for _ in range(2):
        env.reset(seed=3)
        ended, steps = False, 0
        while not ended:
            _, _, terminated, truncated, _ = env.step([0.0, 0.0])
            ended, steps = terminated or truncated, steps + 1
        lengths.append(steps)
    env.close()
    films = sorted((tmp_path / "films").glob("*.mp4"))
    assert [film.name for film in films] == ["rl-video-episode-1.mp4"]
    assert frames_of(films[0]) == ((640, 480), lengths[1] + 1, 8)


def test_vec_video_recorder_films_all_rows(tmp_path):
    pytest.importorskip("moviepy", reason="moviepy, which VecVideoRecorder needs, is not installed")
    env = ExecutionVecEnv(4, seed=1, render_mode="rgb_array", **TASK)
    film = vec_env.VecVideoRecorder(env, str(tmp_path), lambda step: step == 0, video_length=6)
    film.reset()
    for action in actions_of(4, 8):
        film.step(action)
    film.close()
    assert frames_of(film.video_path) == ((1280, 960), 7, 8)  # four pictures, two by two


@pytest.mark.parametrize("face", [ExecutionVecEnv, MarketMakingVecEnv])  # a trader can do all that is numbered
def test_maskable_ppo_takes_allowed_actions_only(face):
    contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed")
    from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

    shown, env = [], vec_env.VecMonitor(face(4, seed=1, discrete=True, **TASK))
    assert is_masking_supported(env)
    inner = env.unwrapped

    class Watched(vec_env.VecEnvWrapper):
        """Keeps which actions came under which masks."""

        def reset(self):
            return self.venv.reset()

        def step_async(self, actions):
            np.testing.assert_array_equal(get_action_masks(self), inner.action_masks())
            shown.append((np.asarray(actions), inner.action_masks()))
            super().step_async(actions)

        def step_wait(self):
            return self.venv.step_wait()

    model = contrib.MaskablePPO("MlpPolicy", Watched(env), **SMALL)
    model.learn(256)
    evaluate_masked(model, model.get_env(), n_eval_episodes=8, deterministic=False, warn=False)
    actions, masks = (np.concatenate(column) for column in zip(*shown, strict=True))
    assert len(actions) > 256 and 0.5 < masks.mean() < 0.95
    assert masks[np.arange(len(actions)), actions].all()
    assert len(np.unique(actions)) > 3
