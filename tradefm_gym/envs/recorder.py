"""Gymnasium wrappers that record episodes, for ``tradefm-gym view`` and for studies of one's own.

Nothing of what is seen or paid changes. Wrappers around a recorder may change actions and rewards; recorded is what
reaches the environment and comes from it. ``parallel_recorder`` has the one of markets of several agents.
"""

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.envs.episode import Episode
from tradefm_gym.envs.recording import Recording
from tradefm_gym.envs.single_env import SessionEnv
from tradefm_gym.envs.vector_env import SessionVectorEnv


class EpisodeRecorder(gymnasium.Wrapper):
    """Records what happens in a single environment.

    Args:
        env: ``TradeFM/Execution-v0`` or another one of a single agent.
        folder: where each finished episode is written as ``SEED-EPISODE.npz``; None: only where ``save`` says.

    Raises:
        ValueError: if it is another environment.
    """

    def __init__(self, env: gymnasium.Env, folder: str | os.PathLike | None = None):
        super().__init__(env)
        if not isinstance(env.unwrapped, SessionEnv):
            raise ValueError(f"env is {shortened(env)}; it must be one of TradeFM's environments of a single agent")
        self.session = env.unwrapped.session
        self.recording = Recording(self.session, type(env.unwrapped).__name__, folder)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode, and forgets the one before."""
        answer = self.env.reset(seed=seed, options=options)
        self.recording.begin()
        return answer

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision; the episode is written at its end if there is a folder."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.recording.decided(action, float(reward), terminated or truncated)
        return observation, float(reward), terminated, truncated, info

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the episode as far as it has come."""
        return self.recording.save(path)

    def episode(self) -> Episode:
        """The episode as far as it has come.

        Raises:
            ValueError: if none has begun.
        """
        return self.recording.episode()


class VectorEpisodeRecorder(VectorWrapper):
    """Records what happens in one row of a vector environment.

    Args:
        env: a vector environment of ``TradeFM/Execution-v0`` or another id. Its ``autoreset_mode`` may not be
            "SameStep": there the next episode has begun before anybody could look at the end of the last one.
        folder: where each finished episode is written as ``SEED-EPISODE.npz``; None: only where ``save`` says.
        row: which market.

    Raises:
        ValueError: if it is another environment or mode, or has no such row.
    """

    def __init__(self, env: VectorEnv, folder: str | os.PathLike | None = None, *, row: int = 0):
        super().__init__(env)
        face = env.unwrapped
        if not isinstance(face, SessionVectorEnv):
            raise ValueError(f"env is {shortened(env)}; it must be one of TradeFM's vector environments")
        if face.autoreset_mode == AutoresetMode.SAME_STEP:
            raise ValueError("autoreset_mode of env is 'SameStep'; it must be 'NextStep' or 'Disabled' to be recorded")
        self.row = whole("row", row, 0, face.num_envs - 1)
        self.session = face.session
        self.recording = Recording(self.session, _single(face), folder, row=self.row)
        self._next_step, self._ended = face.autoreset_mode == AutoresetMode.NEXT_STEP, False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes; that of the recorded row is forgotten if it is among them."""
        mask = (options or {}).get("reset_mask")
        answer = self.env.reset(seed=seed, options=options)  # pyright: ignore[reportArgumentType]
        if mask is None or mask[self.row]:
            self._begin()
        return answer

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision of every row; the recorded one's episode is written at its end if there is a folder."""
        answer = self.env.step(actions)
        row = self.row
        if self._ended:  # only "NextStep" gets here: this step was the reset
            self._begin()
        else:
            self._ended = self._next_step and bool(answer[2][row] or answer[3][row])
            self.recording.decided(actions[row], float(answer[1][row]), bool(answer[2][row] or answer[3][row]))
        return answer

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the recorded row's episode as far as it has come."""
        return self.recording.save(path)

    def episode(self) -> Episode:
        """The recorded row's episode as far as it has come.

        Raises:
            ValueError: if none has begun.
        """
        return self.recording.episode()

    def _begin(self) -> None:
        self._ended = False
        self.recording.begin()


def _single(env: SessionVectorEnv) -> str:
    """The class of an equal single environment: their episodes can be compared."""
    return type(env).__name__.replace("VectorEnv", "Env")
