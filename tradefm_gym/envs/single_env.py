"""The single Gymnasium environment of a session of one role: the N = 1 view of the vector environment."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from tradefm_gym.arguments import known_names, numbers, shortened, whole
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.session_copies import SessionState
from tradefm_gym.envs.starts import MARKET_OPTIONS
from tradefm_gym.envs.tasks import (
    METADATA,
    check_open,
    check_started,
    checked_render_mode,
    draw,
    drawn_seed,
    history_for,
    known_options,
    only_row,
    seed_words,
    task_arguments,
    task_session,
    whole_seed,
)


class SessionEnv(gymnasium.Env):
    """One agent in one market; subclasses name the role (``role_type``) and are its data sheet.

    Args:
        render_mode: None, "ansi" or "rgb_array".
        **task: what the role and ``tasks.market_session`` take.
    """

    metadata: dict[str, Any] = METADATA
    role_type: Callable[..., Role]

    def __init__(self, *, render_mode: str | None = None, **task: Any):
        known_names(type(self).__name__, task, ("render_mode", *task_arguments(self.role_type)))
        self.closed = False
        self.render_mode = checked_render_mode(render_mode)
        self.session = task_session(self.role_type, 1, task)
        self.history = history_for(self.session, self.render_mode)
        self.observation_space = self.session.role.observation_space
        self.action_space = self.session.role.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode: the first one of ``seed``, or the next one of the seed given before."""
        check_open(self, "reset")
        seed = None if seed is None else whole_seed("seed", seed)
        options = known_options(options, (*self.session.role.option_names, *MARKET_OPTIONS))
        if options:
            self.session.check_options(options)
        super().reset(seed=seed)
        if seed is not None or not self.session.seeded[0]:
            self.session.seed(np.array([True]), seed_words([drawn_seed(self.np_random) if seed is None else seed]))
        observation = self.session.reset(options=options)
        if self.history is not None:
            self.history.look()
        return self._shown(observation), only_row(self.session.start_info())

    def step(self, action: np.ndarray | int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One decision and the interval after it."""
        check_open(self, "step")
        if not self.session.running[0]:
            raise ResetNeeded("step was called before reset or after the episode ended; call reset first")
        role = self.session.role
        values = numbers(action, role.action_kinds)
        if values is None or values.shape != self.action_space.shape:
            raise ValueError(f"action is {shortened(action)}; it must be {role.action_rule}")
        result = self.session.step(values[None])
        if self.history is not None:
            self.history.look()
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        info = only_row(self.session.step_info())
        if terminated or truncated:
            info |= only_row(self.session.final_info())
        return self._shown(result.observation), float(result.reward[0]), terminated, truncated, info

    def snapshot(self) -> SessionState:
        """All that the environment is at this moment, as a value (``env.unwrapped.snapshot()``); can be pickled."""
        check_open(self, "snapshot")
        check_started(self.session, "snapshot")
        return self.session.snapshot()

    def restore(self, value: SessionState) -> Any:
        """Goes on from a snapshot of an environment of equal arguments, to the last bit, and in later episodes too.

        What wrappers count (steps, rewards) is theirs, and stays as it is.

        Returns:
            The observation at that moment.

        Raises:
            ValueError: if the snapshot is of another configuration; nothing has changed then.
        """
        check_open(self, "restore")
        self.session.restore(value)
        return self._shown(self.session.observe()[0])

    def action_masks(self) -> np.ndarray:
        """Which of the numbered actions can be done as they say (k,) bool, as MaskablePPO asks for it."""
        check_open(self, "action_masks")
        return self.session.role.action_masks()[0]

    def _shown(self, observation: np.ndarray) -> Any:
        return self.session.role.present(observation[0])

    def fork(self, k: int) -> TradingSession:
        """A session of k markets that all go on from here, to be stepped together: ``step(actions (k, act))``.

        Its ``observe()[0]`` (k, obs) begins with this environment's last observation; each market's future is this
        one's, until their actions differ.
        """
        check_open(self, "fork")
        check_started(self.session, "fork")
        return self.session.branch([0] * whole("k", k, 1))

    def render(self) -> Any:
        """The ladder as text, or the depth over time as a picture (480, 640, 3) uint8, as ``render_mode`` says."""
        return draw(self.session, 0, self.render_mode, self.history)

    def close(self) -> None:
        """Ends the environment: ``reset`` and ``step`` are refused from now on. May be called twice."""
        self.closed = True
