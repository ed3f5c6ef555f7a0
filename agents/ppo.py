"""PPO from Stable-Baselines3 on the execution task: settings, training and the trained policy.

Three things make a small budget of decisions enough. The policy chooses from a short menu on which "rest at
the touch and wait" and "rest, then cross" are two entries, since in the box they are a hair's breadth apart. It
begins at the zero action, passive TWAP. And the reward is re-timed (see ``LearningEnv``): same sum over
an episode, far less noise in what follows an action.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env.base_vec_env import VecEnvWrapper
from tradefm_gym.agents.evaluation import Evaluator
from tradefm_gym.agents.policies import AT_THE_TOUCH_AND_WAIT

from tradefm_gym.envs.sb3 import ExecutionVecEnv

# The menu: one entry of each column, and how likely an untrained policy takes it. Entry 0 of both is the
# zero action, passive TWAP. "Everything now" begins rare: else few episodes would see their second half.
DEVIATIONS = np.array([0.0, -1.0, -0.5, 0.17, 0.33, 0.5, 1.0], np.float32)
AGGRESSIVENESS = np.array([0.0, AT_THE_TOUCH_AND_WAIT, -0.25, -0.5, 0.34, 0.67, 1.0], np.float32)
DEVIATION_PRIOR = (0.5, 0.12, 0.12, 0.12, 0.08, 0.05, 0.01)
AGGRESSIVENESS_PRIOR = (0.4, 0.25, 0.1, 0.05, 0.1, 0.05, 0.05)


@dataclass(frozen=True)
class PPOSettings:
    """Hyperparameters; the defaults fit a quarter of an hour on two CPU cores."""

    steps: int = 98_304  # decisions
    num_envs: int = 64
    rollout: int = 32  # decisions of each market between two updates
    batch: int = 1024  # decisions
    epochs: int = 8
    learning_rate: float = 1e-3  # falls to 0 linearly
    gamma: float = 1.0  # the task has a deadline and its cost is a plain sum
    gae_lambda: float = 0.97  # what an order does to the price lasts for many decisions
    clip: float = 0.2
    entropy: float = 0.0
    kl_limit: float = 0.03  # an update stops beyond 1.5 times this
    width: int = 64  # of two hidden layers, policy and value apart
    validate_every: int = 12  # rollouts
    validation_episodes: int = 96

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "rollout", "batch", "epochs", "width", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_envs * self.rollout < 2:
            raise ValueError("num_envs times rollout is 1; an update needs at least 2 decisions")


class LearningEnv(VecEnvWrapper):
    """The execution task as PPO learns it: the menu as action space, the reward re-timed and in half-spreads.

    What is not executed yet is marked to the mid: the potential -side (mid - arrival mid) x remaining part.
    Its differences are added to the reward. It is 0 at both ends of an episode, so with a discount of 1
    every episode's sum, and the best policy, stay what they are. But a move of the price is now paid when it
    happens, for the whole remainder, instead of lot by lot when these are executed, and is no longer taken for
    the doing of later actions.
    """

    def __init__(self, venv: ExecutionVecEnv):
        super().__init__(venv, action_space=spaces.MultiDiscrete([len(DEVIATIONS), len(AGGRESSIVENESS)]))
        self._session = venv.env.session
        self._potential = np.zeros(venv.num_envs)
        self._half_spread = np.ones(venv.num_envs)

    def reset(self) -> np.ndarray:
        """Begins an episode in every row."""
        observation = self.venv.reset()
        self._potential[:] = 0.0
        self._half_spread = self._usual_half_spread()
        return np.asarray(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Takes entries of the menu (N, 2)."""
        self.venv.step_async(menu_actions(actions))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """The step with the reward re-timed."""
        observation, reward, done, infos = self.venv.step_wait()
        # Rows that ended stand at the start of their next episode by now: there the potential is 0, as it is
        # at the end of the last one.
        potential = self._mark()
        retimed = (reward + potential - self._potential) / self._half_spread
        self._potential, self._half_spread = potential, self._usual_half_spread()
        return np.asarray(observation), retimed.astype(np.float32), done, infos

    def _usual_half_spread(self) -> np.ndarray:
        """Of each row's start context (N,), basis points."""
        scale = self._session.role.scale
        return np.maximum(0.5 * scale["spread"] * scale["tick_bps"], 1e-9)

    def _mark(self) -> np.ndarray:
        """Minus the unrealised shortfall of what remains (N,), basis points of the arrival notional."""
        start, now = self._session.start_info(), self._session.step_info()
        remaining = 1.0 - now["executed"] / start["quantity"]
        return -1e4 * start["side"] * remaining * (now["mid"] / now["arrival_mid"] - 1.0)


class LearnedPolicy:
    """A trained model as a policy; always its most likely action.

    Args:
        model: trained on ``LearningEnv``'s spaces.
        name: short name.
    """

    def __init__(self, model: BaseAlgorithm, name: str = "ppo"):
        self.model, self.name = model, name

    @classmethod
    def load(cls, path: str | Path, name: str = "ppo") -> "LearnedPolicy":
        """Reads a ``model.zip`` that ``train_ppo`` wrote."""
        model = PPO.load(path, device="cpu")
        wanted = spaces.MultiDiscrete([len(DEVIATIONS), len(AGGRESSIVENESS)])
        if model.action_space != wanted:
            raise ValueError(f"model {str(path)!r} acts in {model.action_space}; it must be the menu {wanted}")
        return cls(model, name)

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 2) float32."""
        with _one_thread():
            return menu_actions(self.model.predict(observation, deterministic=True)[0])


def menu_actions(entries: np.ndarray) -> np.ndarray:
    """Actions (n, 2) float32 of menu entries (n, 2)."""
    return np.stack([DEVIATIONS[entries[:, 0]], AGGRESSIVENESS[entries[:, 1]]], axis=1)


def new_model(env: LearningEnv, settings: PPOSettings, seed: int = 0, logs: str | Path | None = None) -> PPO:
    """An untrained model whose most likely action is the zero action everywhere."""
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=settings.rollout,
        batch_size=min(settings.batch, settings.num_envs * settings.rollout),
        n_epochs=settings.epochs,
        learning_rate=lambda left: settings.learning_rate * left,
        gamma=settings.gamma,
        gae_lambda=settings.gae_lambda,
        clip_range=settings.clip,
        ent_coef=settings.entropy,
        target_kl=settings.kl_limit,
        policy_kwargs={"net_arch": [settings.width, settings.width]},
        tensorboard_log=str(logs) if logs is not None and find_spec("tensorboard") else None,
        seed=seed,
        device="cpu",
    )
    with torch.no_grad():
        model.policy.action_net.bias[:] = torch.log(torch.tensor(DEVIATION_PRIOR + AGGRESSIVENESS_PRIOR))
    return model


@dataclass(frozen=True)
class Training:
    """What a training left behind.

    Attributes:
        policy: the checkpoint that was best on the validation contexts.
        history: (decisions so far, mean shortfall on the validation episodes in bps), oldest first.
        best: decisions after which the checkpoint was taken.
    """

    policy: LearnedPolicy
    history: list[tuple[int, float]]
    best: int


def train_ppo(
    task: dict[str, Any],
    settings: PPOSettings,
    model_path: str | Path,
    *,
    seed: int = 0,
    logs: str | Path | None = None,
    progress: Callable[[int, float | None], None] | None = None,
) -> Training:
    """Trains on the train contexts and keeps the checkpoint that is best on the validation contexts.

    Args:
        task: arguments of ``ExecutionEnv``, without ``split``.
        settings: hyperparameters.
        model_path: a .zip file; replaced whenever a better checkpoint is found.
        seed: of the network, the actions and the episodes.
        logs: folder for TensorBoard, None for none.
        progress: called with the decisions so far and the last validation's mean shortfall in bps.
    """
    validation = Evaluator({**task, "split": "validation"}, settings.num_envs)
    # Seeds far apart: no episode of the training is one of an evaluation.
    venv = ExecutionVecEnv(settings.num_envs, seed=(seed + 1) << 32, **{**task, "split": "train"})
    env = LearningEnv(venv)
    try:
        with _one_thread():
            model = new_model(env, settings, seed, logs)
            keeper = _Keeper(validation, settings, Path(model_path), seed, progress)
            model.learn(settings.steps, callback=keeper, tb_log_name="ppo")
            keeper.validate()
    finally:
        env.close()
    return Training(LearnedPolicy.load(model_path), keeper.history, keeper.best[1])


class _Keeper(BaseCallback):
    """Validates now and then, and keeps the best checkpoint on disk."""

    def __init__(
        self,
        validation: Evaluator,
        settings: PPOSettings,
        path: Path,
        seed: int,
        progress: Callable[[int, float | None], None] | None,
    ):
        super().__init__()
        self.validation, self.path, self.progress = validation, path, progress
        self.plan = validation.plan(settings.validation_episodes, seed)
        self.every, self.rollouts = settings.validate_every, 0
        self.history: list[tuple[int, float]] = []
        self.best = (np.inf, 0)

    def _on_rollout_start(self) -> None:
        if self.rollouts % self.every == 0:
            self.validate()
        self.rollouts += 1

    def _on_step(self) -> bool:
        if self.progress is not None:
            self.progress(self.num_timesteps, self.history[-1][1] if self.history else None)
        return True

    def validate(self) -> None:
        """Measures the present policy on the validation episodes."""
        policy = LearnedPolicy(self.model)
        episodes = self.validation.run([policy], self.plan)[policy.name]
        shortfall = float(episodes["shortfall_bps"].mean())
        self.history.append((self.num_timesteps, shortfall))
        for name in ("shortfall_bps", "shortfall_half_spreads", "maker_share", "steps"):
            self.logger.record(f"validation/{name}", float(episodes[name].mean()))
        if shortfall < self.best[0]:
            self.best = (shortfall, self.num_timesteps)
            _save(self.model, self.path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The network is tiny, and torch's idle threads spin on the cores that the market's threads need."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _save(model: BaseAlgorithm, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{path.name}")
    model.save(temporary)
    os.replace(temporary, path)
