"""The native vector environment of Gymnasium: a session of one role, with all three modes of autoreset."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tradefm_gym.arguments import known_names, rows_mask, shortened
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.starts import MARKET_OPTIONS
from tradefm_gym.envs.tasks import (
    METADATA,
    check_open,
    checked_render_mode,
    draw,
    drawn_seed,
    history_for,
    known_options,
    seed_words,
    task_arguments,
    task_session,
    whole_seed,
)

_LISTS = (list, tuple, np.ndarray)


class SessionVectorEnv(VectorEnv):
    """N tasks in N independent markets, stepped together; row m equals the single environment seeded s + m.

    Spaces, rewards and ends of a row are those of the single environment. Subclasses name the role (``role_type``).

    Args:
        num_envs: markets N.
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled", or an ``AutoresetMode``. With "Disabled"
            rows are reset by ``reset(options={"reset_mask": mask})``.
        render_mode: None, "ansi" or "rgb_array"; ``render`` returns a frame for each row.
        **task: what the role and ``tasks.market_session`` take.
    """

    metadata: dict[str, Any] = METADATA
    role_type: Callable[..., Role]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **task: Any,
    ):
        own = ("num_envs", "autoreset_mode", "render_mode")
        known_names(type(self).__name__, task, (*own, *task_arguments(self.role_type)))
        self.render_mode = checked_render_mode(render_mode)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.session = task_session(self.role_type, num_envs, task)
        self.history = history_for(self.session, self.render_mode)
        self.num_envs = self.session.num_envs
        self.single_observation_space = self.session.role.observation_space
        self.single_action_space = self.session.role.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._finished = np.zeros(self.num_envs, np.bool_)  # ended and not reset yet

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins episodes.

        Args:
            seed: s gives row m the seed s + m; a list gives one for each row (None: goes on to its next
                episode); None goes on to the next episode everywhere.
            options: ``context``, ``scenario`` and what the role reads, a value or one for each row, and ``reset_mask``
                (N,) bool, the rows to reset (default all).
        """
        check_open(self, "reset")
        seeds = self._row_seeds(seed)
        given = dict(options) if isinstance(options, Mapping) else options
        mask = given.pop("reset_mask", None) if isinstance(given, dict) else None
        options = known_options(given, (*self.session.role.option_names, *MARKET_OPTIONS))
        self.session.check_options(options)
        mask, options = self._reset_mask(mask), options or {}
        if seed is not None and not isinstance(seed, _LISTS):
            super().reset(seed=seeds[0])
        chosen = mask & (np.array([value is not None for value in seeds]) | ~self.session.seeded)
        words = [0 if not chosen[m] else drawn_seed(self.np_random) if s is None else s for m, s in enumerate(seeds)]
        self.session.seed(chosen, seed_words(words))
        observation = self._begin(mask, options)
        infos: dict[str, Any] = {}
        self._merge(infos, self.session.start_info(), mask)
        return self._shown(observation), infos

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision of every row; rows that ended begin anew as ``autoreset_mode`` says."""
        check_open(self, "step")
        session, waiting = self.session, self._finished
        if not (session.running | waiting).all():
            raise ResetNeeded("step was called before reset; call reset first")
        if self.autoreset_mode == AutoresetMode.DISABLED and waiting.any():
            row = np.flatnonzero(waiting)[0]
            raise ResetNeeded(f"step was called after row {row} ended; call reset with its options['reset_mask'] set")
        result = session.step(actions)
        if self.history is not None:
            self.history.look()
        ended = result.terminated | result.truncated
        observation, infos = result.observation, {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and ended.any():
            final: dict[str, Any] = {}
            self._merge(final, session.step_info() | session.final_info(), ended)
            infos |= {"final_obs": self._final(observation, ended), "final_info": final}
            infos |= {"_final_obs": ended.copy(), "_final_info": ended.copy()}
            self._merge(infos, session.step_info(), ~ended)
            observation = self._begin(ended, {})
            self._merge(infos, session.start_info(), ended)
        else:
            self._merge(infos, session.step_info(), ~waiting)
            self._merge(infos, session.final_info() if ended.any() else {}, ended)
            if waiting.any():  # NEXT_STEP: for rows that ended in the step before, this one is the reset
                observation = self._begin(waiting.copy(), {})
                self._merge(infos, session.start_info(), waiting)
            self._finished = ended
        return self._shown(observation), result.reward, result.terminated.copy(), result.truncated, infos

    def action_masks(self) -> np.ndarray:
        """Which of the numbered actions can be done as they say (N, k) bool."""
        return self.session.role.action_masks()

    def render(self) -> tuple[Any, ...] | None:
        """A frame for each row, as ``render_mode`` says."""
        if self.render_mode is None:
            return None
        return tuple(draw(self.session, row, self.render_mode, self.history) for row in range(self.num_envs))

    def _begin(self, mask: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        observation = self.session.reset(mask, options)
        if self.history is not None:
            self.history.look()
        self._finished = self._finished & ~mask
        return observation

    def _shown(self, observation: np.ndarray) -> Any:
        return self.session.role.present(observation)

    def _final(self, observation: np.ndarray, ended: np.ndarray) -> np.ndarray:
        """The last observations of the rows that ended, in an array of objects (N,)."""
        rows, shown = np.full(self.num_envs, None, object), self._shown(observation[ended])
        for i, m in enumerate(np.flatnonzero(ended).tolist()):
            rows[m] = {name: part[i] for name, part in shown.items()} if isinstance(shown, dict) else shown[i]
        return rows

    def _row_seeds(self, seed: Any) -> list[int | None]:
        """The seed of each row, None where the caller gives none."""
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, _LISTS) or np.shape(seed) == ():
            first = whole_seed("seed", seed, f", None or a list of {self.num_envs}")
            return [first + m for m in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed has {len(seed)} values; it must be an integer, None or a list of {self.num_envs}")
        return [None if value is None else whole_seed(f"seed[{m}]", value) for m, value in enumerate(seed)]

    def _reset_mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return np.ones(self.num_envs, np.bool_)
        mask = rows_mask("options['reset_mask']", mask, self.num_envs)
        if not mask.any():
            raise ValueError("options['reset_mask'] has no true entry; it must have at least one")
        return mask.copy()

    def _merge(self, infos: dict[str, Any], columns: dict[str, Any], mask: np.ndarray) -> None:
        """Adds columns (N, ...) where ``mask``, each with its companion mask, as Gymnasium's own classes do.

        Columns are the caller's own: where all rows count they are taken as they are.
        """
        rows = np.flatnonzero(mask)
        if len(rows):
            self._merge_rows(infos, columns, mask.copy(), rows)

    def _merge_rows(self, infos: dict[str, Any], columns: dict[str, Any], mask: np.ndarray, rows: np.ndarray) -> None:
        for key, column in columns.items():
            known, flagged = infos.get(key), infos.get(f"_{key}")
            if isinstance(column, dict):
                infos[key] = {} if known is None else known
                self._merge_rows(infos[key], column, mask, rows)
            elif len(rows) == self.num_envs:
                infos[key] = column
            else:
                if known is None:
                    plain = column.dtype != object
                    known = infos[key] = np.zeros(column.shape, column.dtype) if plain else np.full(len(mask), None)
                known[rows] = column[rows]
            infos[f"_{key}"] = mask if flagged is None else mask | flagged


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    for known in AutoresetMode:
        if mode is known or (isinstance(mode, str) and mode in (known.value, known.name.lower())):
            return known
    raise ValueError(
        f"autoreset_mode is {shortened(mode)}; it must be one of {', '.join(repr(m.value) for m in AutoresetMode)}"
    )
