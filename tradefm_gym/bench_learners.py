"""How fast learners go through the environments: Stable-Baselines3's face and PPO, and the PPO in one file.

Part of the suite "env". PPO learns as in ``agents``: rollouts of 32 decisions, four epochs of minibatches of a quarter
of what 256 markets bring, two hidden layers of 64. Networks are computed in one thread, as there.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from tradefm_gym.bench import Benchmark, Work
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.session import TradingSession

_FLOW = "zero_intelligence"
DECISIONS = 64  # of an episode
MANY = 256  # markets
_ROLLOUT = 32  # decisions of each between two updates
_EPOCHS = 4
_WIDTH = 64


def whole_episodes(num_envs: int) -> np.ndarray:
    """Actions (64, N, 2) float32 for an episode: the schedule is kept, at random prices, so that none ends early."""
    actions = np.random.default_rng(0).uniform(-1, 1, (DECISIONS, num_envs, 2)).astype(np.float32)
    actions[..., 0] = 0.0
    return actions


def learner_benchmarks() -> list[Benchmark]:
    """The figures of learners, with their targets."""
    steps, overhead = "steps/s", 1.15
    shares = [
        Benchmark(
            f"sb3-ppo-n{num_envs}",
            steps,
            2,
            partial(_stable_baselines, _execution, num_envs),
            0.9,
            is_share=True,
            beside=partial(_stable_baselines, _cart_pole, num_envs),
            repeats=5,
        )
        for num_envs in (8, MANY)
    ]
    return [
        Benchmark(
            f"sb3-face-n{MANY}",
            "us",
            2,
            partial(face_steps, MANY),
            overhead,
            is_share=True,
            beside=partial(session_steps, MANY),
            per_second=1e6,
            repeats=15,  # of some 30 ms each
        ),
        *shares,
        Benchmark("ppo-single-file", steps, 2, single_file_steps, 40_000, repeats=5),
    ]


def face_steps(num_envs: int, quick: bool) -> Work:
    """``step`` of Stable-Baselines3's face, which resets rows as they end and tells how they ended."""
    face = _execution(num_envs)
    actions, rounds = whole_episodes(num_envs), 1 if quick else 4
    face.reset()

    def run() -> int:
        for _ in range(rounds):
            for action in actions:
                face.step(action)
        return rounds * DECISIONS * num_envs

    return Work(run)


def session_steps(num_envs: int, quick: bool) -> Work:
    """``step`` of the bare session, and ``reset`` of the rows that ended."""
    session = TradingSession(num_envs, ExecutionRole(), _FLOW)
    actions, rounds = whole_episodes(num_envs), 1 if quick else 4
    session.seed(np.ones(num_envs, np.bool_), np.arange(num_envs))
    session.reset()

    def run() -> int:
        for _ in range(rounds):
            for action in actions:
                result = session.step(action)
                ended = result.terminated | result.truncated
                if ended.any():
                    session.reset(ended)
        return rounds * DECISIONS * num_envs

    return Work(run)


def single_file_steps(quick: bool) -> Work:
    """Decisions of ``agents/cleanrl_ppo.py`` with its own settings: playing and learning, start-up left out."""
    _one_thread()
    from tradefm_gym.agents.cleanrl_ppo import Arguments, Learner

    arguments = Arguments(num_envs=MANY, rollout=_ROLLOUT, epochs=_EPOCHS, width=_WIDTH)
    learner, updates = Learner(arguments), 2 if quick else 8

    def run() -> int:
        for _ in range(updates):
            learner.improve(arguments.learning_rate)
        return updates * _ROLLOUT * MANY

    return Work(run)


def _stable_baselines(make: Callable, num_envs: int, quick: bool) -> Work:
    """Decisions of Stable-Baselines3's PPO, playing and learning, on the environments that ``make(num_envs)`` makes."""
    _one_thread()
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecMonitor

    model = PPO(
        "MlpPolicy",
        VecMonitor(make(num_envs)),
        n_steps=_ROLLOUT,
        batch_size=_ROLLOUT * num_envs // 4,
        n_epochs=_EPOCHS,
        policy_kwargs={"net_arch": [_WIDTH, _WIDTH]},
        seed=0,
        device="cpu",
    )
    updates = (1 if quick else 4) * max(2, MANY // num_envs // 4)
    decisions = _ROLLOUT * num_envs * updates

    def run() -> int:
        model.learn(decisions, reset_num_timesteps=False)
        return decisions

    return Work(run)


def _execution(num_envs: int):
    from tradefm_gym.envs.sb3 import ExecutionVecEnv

    return ExecutionVecEnv(num_envs, seed=0, flow=_FLOW)


def _cart_pole(num_envs: int):
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([partial(gymnasium.make, "CartPole-v1")] * num_envs)


def _one_thread() -> None:
    """Torch's idle threads would spin on the cores that the markets need."""
    import torch

    torch.set_num_threads(1)
