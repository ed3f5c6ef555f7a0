"""The hyperparameters that the package brings for rl-zoo3 are those that it learns with itself."""

import inspect
from importlib.resources import files

import gymnasium
import pytest

pytest.importorskip("yaml")
pytest.importorskip("stable_baselines3")

import yaml
from stable_baselines3 import PPO
from tradefm_gym.agents.ppo import PPOSettings

import tradefm_gym

IDS = ("TradeFM/Execution-v0", "TradeFM/MarketMaking-v0", "TradeFM/Trading-v0")
FILE = files("tradefm_gym.agents") / "hyperparameters.yml"


def entries():
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def test_every_registered_task_has_its_entry():
    tradefm_gym.register_environments()
    assert tuple(entries()) == IDS == tuple(name for name in gymnasium.registry if name.startswith("TradeFM/"))


@pytest.mark.parametrize("name", IDS)
def test_the_values_are_those_of_the_settings(name):
    settings, entry = PPOSettings(), entries()[name]
    assert entry == {
        "policy": "MlpPolicy",
        "n_timesteps": settings.steps,
        "n_envs": settings.num_envs,
        "n_steps": settings.rollout,
        "batch_size": settings.batch,
        "n_epochs": settings.epochs,
        "learning_rate": f"lin_{settings.learning_rate}",
        "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip,
        "ent_coef": settings.entropy,
        "target_kl": settings.kl_limit,
        "policy_kwargs": f"dict(net_arch=[{settings.width}, {settings.width}])",
    }
    assert set(entry) - {"n_timesteps", "n_envs"} <= set(inspect.signature(PPO).parameters)
