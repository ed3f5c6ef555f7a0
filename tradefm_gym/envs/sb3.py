"""Stable-Baselines3's face of a session: its ``VecEnv`` over the native vector environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from tradefm_gym.arguments import flag, known_names, shortened
from tradefm_gym.envs.gym_env import ExecutionVectorEnv, MarketMakingVectorEnv, TradingVectorEnv
from tradefm_gym.envs.tasks import check_open, plain_row, plain_rows, task_arguments, whole_seed
from tradefm_gym.envs.vector_env import SessionVectorEnv

try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
except ImportError as error:
    message = 'tradefm_gym.envs.sb3 needs Stable-Baselines3: pip install "tradefm-gym[sb3]"'
    raise ImportError(message) from error


class SessionVecEnv(VecEnv):
    """N tasks as one Stable-Baselines3 ``VecEnv``, without a process or a loop per environment.

    Subclasses name the vector environment (``vector_type``).

    Each step's infos are fresh dicts: that of a row which ended carries ``terminal_observation``,
    ``TimeLimit.truncated`` and the episode's final info; the others carry ``TimeLimit.truncated`` only,
    unless ``step_infos`` asks for all of it.

    Args:
        num_envs: markets N.
        seed: seed of the first reset; row m gets seed + m.
        step_infos: give every row its whole info at each step (slower).
        render_mode: None, "ansi" or "rgb_array".
        **task: see the single environment.
    """

    vector_type: type[SessionVectorEnv]

    def __init__(
        self,
        num_envs: int = 1,
        *,
        seed: int | None = None,
        step_infos: bool = False,
        render_mode: str | None = None,
        **task: Any,
    ):
        own = ("num_envs", "seed", "step_infos", "render_mode")
        known_names(type(self).__name__, task, (*own, *task_arguments(self.vector_type.role_type)))
        self.step_infos = flag("step_infos", step_infos)
        if seed is not None:
            whole_seed("seed", seed)
        mode = AutoresetMode.SAME_STEP
        self.env = self.vector_type(num_envs, autoreset_mode=mode, render_mode=render_mode, **task)
        super().__init__(self.env.num_envs, self.env.single_observation_space, self.env.single_action_space)
        self.metadata = {**self.env.metadata, **self.metadata}  # the base class knows its render modes only
        self._actions = np.zeros(0, np.float32)
        if seed is not None:
            self.seed(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds of the next reset: row m gets seed + m; drawn where ``seed`` is None."""
        return super().seed(None if seed is None else whole_seed("seed", seed))

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """Options of the next reset, for all rows or one dict for each."""
        each = options if isinstance(options, list) else [{} if options is None else options] * self.num_envs
        if len(each) != self.num_envs or not all(isinstance(one, dict) for one in each):
            raise ValueError(f"options is {shortened(options)}; it must be a dict, or a list of {self.num_envs} dicts")
        super().set_options(options)

    def reset(self) -> Any:
        """Begins an episode in every row, with the seeds and options set before; they are used once."""
        options = {key: [row.get(key) for row in self._options] for row in self._options for key in row}
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observation, infos = self.env.reset(seed=seeds, options=options)
        self.reset_infos = [plain_row(infos, m) for m in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions (N, act) for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Takes the step; rows that ended are reset at once."""
        env, session = self.env, self.env.session
        check_open(env, "step")
        if not session.running.all():
            raise ResetNeeded("step was called before reset; call reset first")
        result = session.step(self._actions)
        done = result.terminated | result.truncated
        observation, rows = result.observation, np.flatnonzero(done).tolist()
        infos: list[dict[str, Any]] = [{"TimeLimit.truncated": False} for _ in range(self.num_envs)]
        if self.step_infos:
            goes_on = np.flatnonzero(~done).tolist()
            for m, info in zip(goes_on, plain_rows(session.step_info(), goes_on), strict=True):
                infos[m] |= info
        self._look()
        if rows:
            finals = plain_rows(session.step_info() | session.final_info(), rows)
            for m, info in zip(rows, finals, strict=True):
                info["terminal_observation"] = session.role.present(observation[m].copy())
                info["TimeLimit.truncated"] = bool(result.truncated[m] and not result.terminated[m])
                infos[m] = info
            observation = session.reset(done)
            for m, info in zip(rows, plain_rows(session.start_info(), rows), strict=True):
                self.reset_infos[m] = info
            self._look()
        return session.role.present(observation), result.reward.astype(np.float32), done, infos

    def _look(self) -> None:
        """Lets pictures over time see the markets."""
        if self.env.history is not None:
            self.env.history.look()

    def action_masks(self) -> np.ndarray:
        """Which of the numbered actions can be done as they say (N, k) bool, for sb3-contrib's MaskablePPO."""
        return self.env.action_masks()

    def close(self) -> None:
        """Ends the environment: ``reset`` and ``step`` are refused from now on. May be called twice."""
        self.env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of each row."""
        if self.env.render_mode != "rgb_array":
            return [None] * self.num_envs
        return list(self.env.render() or ())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute once for each row; rows share the vector environment's."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets an attribute of the vector environment, for all rows at once."""
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError(
                f"indices is {indices!r}; rows share their attributes, it must name all of them or be None"
            )
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Calls a method of the vector environment and gives its result to each row."""
        if method_name == "action_masks":  # of each row its own
            masks = self.action_masks()
            return [masks[m] for m in self._get_indices(indices)]
        result = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Rows are never wrapped one by one."""
        return [False for _ in self._get_indices(indices)]


class ExecutionVecEnv(SessionVecEnv):
    """N execution tasks, see ``SessionVecEnv`` and ``ExecutionEnv``."""

    vector_type = ExecutionVectorEnv


class MarketMakingVecEnv(SessionVecEnv):
    """N market makers, see ``SessionVecEnv`` and ``MarketMakingEnv``."""

    vector_type = MarketMakingVectorEnv


class TradingVecEnv(SessionVecEnv):
    """N traders, see ``SessionVecEnv`` and ``TradingEnv``."""

    vector_type = TradingVectorEnv
