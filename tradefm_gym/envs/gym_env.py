"""The Gymnasium faces of a session: the native vector environment, and the single one as its N = 1 view."""

import inspect
import os
import warnings
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tradefm_gym.arguments import known_names, numbers, rows_mask, shortened
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.render import ladder_picture, ladder_text
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.flow.protocol import FlowModel

RENDER_MODES = ("ansi", "rgb_array")
_OPTIONS = ("side", "quantity", "context")
_WORD = 2**64
_LISTS = (list, tuple, np.ndarray)


def execution_session(
    num_envs: int,
    *,
    flow: str | FlowModel = "tradefm",
    clock: str = "events",
    interval: int = 16,
    decisions: int = 64,
    side: str | int | None = None,
    quantity: int | None = None,
    context: int | str | os.PathLike | None = None,
    split: str = "train",
    seats: int = 1,
    engine_batch: int | None = None,
    maker_fee: int = 0,
    taker_fee: int = 0,
    maker_rate: int = 0,
    taker_rate: int = 0,
    discrete: bool = False,
) -> TradingSession:
    """A session of N execution tasks; the arguments are those of ``ExecutionEnv``."""
    role = ExecutionRole(interval, decisions, side, quantity, discrete)
    options: dict[str, Any] = {} if engine_batch is None else {"engine_batch": engine_batch}
    if isinstance(context, (str, os.PathLike)):
        if not os.fspath(context):
            raise ValueError("context is ''; it must be the id of a start context, a path or None")
        options["context"], context = context, None
    for name, value in options.items():
        if not isinstance(flow, str) or flow.partition(":")[0] != "tradefm":
            raise ValueError(
                f"{name} is {shortened(value)}; only flow 'tradefm' reads it, with flow {shortened(flow)} it must be "
                "left out"
            )
    return TradingSession(
        num_envs,
        role,
        flow,
        clock=clock,
        split=split,
        context=context,
        seats=seats,
        maker_fee=maker_fee,
        taker_fee=taker_fee,
        maker_rate=maker_rate,
        taker_rate=taker_rate,
        flow_options=options,
    )


TASK = tuple(name for name in inspect.signature(execution_session).parameters if name != "num_envs")


class ExecutionEnv(gymnasium.Env):
    """Buy or sell a parent order within 64 decisions at prices near the one at which you came.

    ## Action space
    ``Box(-1, 1, (2,), float32)``: ``[deviation, aggressiveness]``. The deviation multiplies this decision's
    slice of the TWAP schedule (-1 pauses, 0 keeps it, +1 asks for everything now; fractions of lots carry
    over). What the schedule wants is worked for one interval: at aggressiveness 0 it rests at the touch, above 0
    it goes that part of the spread towards the other side (+1 crosses), below 0 it rests that part of
    max(4, spread) ticks behind the touch. At the interval's end the rest crosses if the aggressiveness was
    not negative, else it stays. **The zero action is passive TWAP.** With ``discrete=True``: ``Discrete(20)``,
    the numbers of ``execution.DISCRETE_ACTIONS``; 0 is the zero action.

    ## Observation space
    ``Box(low, high, (41,), float32)``, the named blocks of ``observation.BLOCKS`` in their order, with their
    meaning, units and bounds; ``observation.block_slices()`` finds one. Clipped to the space. Own resting
    orders are taken out of the book before anything is measured, normalisers know the training part only.

    ## Rewards
    Minus the growth of the implementation shortfall against the arrival mid, in basis points of the arrival
    notional: the sum of the terms ``spread``, ``timing``, ``fees`` and ``unfilled`` (``info["terms"]``).
    The integer account is its source; see ``ExecutionRole``.

    ## Starting state
    A start context of the flow (book, tape, clock) drawn from ``split``; side and context are drawn from the
    seed and the number of the episode. ``reset(options=...)`` fixes ``side``, ``quantity`` and ``context``.

    ## Episode end
    Terminates when the parent order is done, or at the deadline: there the rest crosses, and what the book
    cannot fill costs one spread more than its last visible level. Truncates if the flow ends before.

    ## Information
    At reset: flow, flow_version, context, side, quantity, decisions, reason (why the parent order is smaller than
    usual, or there are fewer decisions than asked for), arrival_mid. At each step: decision, executed, arrival_mid,
    mid, terms. At the end all of them, and shortfall_bps, shortfall_half_spreads, fill_rate, maker_share.

    Args:
        flow: background flow: "tradefm", "zero_intelligence", "hawkes", "replay", each also with ":PATH", or a
            ``FlowModel``.
        clock: what separates decisions; "events" so far.
        interval: background events between two decisions.
        decisions: decisions of an episode.
        side: "buy", "sell" (or 1, -1), None to draw it.
        quantity: parent order in lots; None: max(64, 10% of what the horizon usually trades), less where that is
            fewer than 64 lots, see ``execution_parent.usual_parent``.
        context: id of a start context, None to draw one; or, for a TradeFM flow, the path from which it takes its
            start contexts: a context bank (``.npz``) as it is, or a recorded day (a saved day, a data folder or a
            LOBSTER message file) on which the model is warmed up.
        split: part of the contexts: "train", "validation", "test".
        seats: agents' seats in each market.
        engine_batch: rows of the model's batch; results of a TradeFM flow are compared at equal batches.
        maker_fee: 1/1000 ticks a lot; negative is a rebate.
        taker_fee: 1/1000 ticks a lot.
        maker_rate: parts per million of the notional, besides the fee; negative is a rebate.
        taker_rate: parts per million of the notional, besides the fee.
        discrete: number the actions.
        render_mode: None, "ansi" (the ladder as text) or "rgb_array" (a picture of it).

    Raises:
        TypeError: if there is no such argument.
        ValueError: if an argument is not allowed, or without a ``quantity`` the market trades too little for one.

    ## Version history
    v0: first version.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 8}  # noqa: RUF012

    def __init__(self, *, render_mode: str | None = None, **task: Any):
        known_names("ExecutionEnv", task, ("render_mode", *TASK))
        self.closed = False
        self.render_mode = _render_mode(render_mode)
        self.session = execution_session(1, **task)
        self.observation_space = self.session.role.observation_space
        self.action_space = self.session.role.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins an episode: the first one of ``seed``, or the next one of the seed given before."""
        _check_open(self, "reset")
        seed = None if seed is None else whole_seed("seed", seed)
        self.session.check_options(options)
        _warn_unknown(options)
        super().reset(seed=seed)
        if seed is not None or not self.session.seeded[0]:
            self.session.seed(np.array([True]), _words([_drawn(self.np_random) if seed is None else seed]))
        observation = self.session.reset(options=options)
        return observation[0], plain_row(self.session.start_info(), 0)

    def step(self, action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One decision and the interval after it."""
        _check_open(self, "step")
        if not self.session.running[0]:
            raise ResetNeeded("step was called before reset or after the episode ended; call reset first")
        role = self.session.role
        values = numbers(action, role.action_kinds)
        if values is None or values.shape != self.action_space.shape:
            raise ValueError(f"action is {shortened(action)}; it must be {role.action_rule}")
        result = self.session.step(values[None])
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        info = plain_row(self.session.step_info(), 0)
        if terminated or truncated:
            info |= plain_row(self.session.final_info(), 0)
        return result.observation[0], float(result.reward[0]), terminated, truncated, info

    def render(self) -> Any:
        """The ladder as text or as a picture (H, W, 3) uint8, as ``render_mode`` says."""
        return _draw(self.session, 0, self.render_mode)

    def close(self) -> None:
        """Ends the environment: ``reset`` and ``step`` are refused from now on. May be called twice."""
        self.closed = True


class ExecutionVectorEnv(VectorEnv):
    """N execution tasks in N independent markets, stepped together; row m equals ``ExecutionEnv`` seeded s + m.

    Spaces, rewards and ends of a row are those of ``ExecutionEnv``.

    Args:
        num_envs: markets N.
        autoreset_mode: "NextStep" (default), "SameStep" or "Disabled", or an ``AutoresetMode``. With "Disabled"
            rows are reset by ``reset(options={"reset_mask": mask})``.
        render_mode: None, "ansi" or "rgb_array"; ``render`` returns a frame for each row.
        **task: see ``ExecutionEnv``.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 8}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **task: Any,
    ):
        known_names("ExecutionVectorEnv", task, ("num_envs", "autoreset_mode", "render_mode", *TASK))
        self.render_mode = _render_mode(render_mode)
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.session = execution_session(num_envs, **task)
        self.num_envs = self.session.num_envs
        self.single_observation_space = self.session.role.observation_space
        self.single_action_space = self.session.role.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._finished = np.zeros(self.num_envs, np.bool_)  # ended and not reset yet

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begins episodes.

        Args:
            seed: s gives row m the seed s + m; a list gives one for each row (None: goes on to its next
                episode); None goes on to the next episode everywhere.
            options: ``side``, ``quantity`` and ``context``, a value or one for each row, and ``reset_mask``
                (N,) bool, the rows to reset (default all).
        """
        _check_open(self, "reset")
        seeds = self._row_seeds(seed)
        self.session.check_options(options)
        options = dict(options or {})
        mask = self._reset_mask(options.pop("reset_mask", None))
        _warn_unknown(options)
        if seed is not None and not isinstance(seed, _LISTS):
            super().reset(seed=seeds[0])
        chosen = mask & (np.array([value is not None for value in seeds]) | ~self.session.seeded)
        words = [0 if not chosen[m] else _drawn(self.np_random) if s is None else s for m, s in enumerate(seeds)]
        self.session.seed(chosen, _words(words))
        observation = self._begin(mask, options)
        infos: dict[str, Any] = {}
        self._merge(infos, self.session.start_info(), mask)
        return observation, infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision of every row; rows that ended begin anew as ``autoreset_mode`` says."""
        _check_open(self, "step")
        session, waiting = self.session, self._finished
        if not (session.running | waiting).all():
            raise ResetNeeded("step was called before reset; call reset first")
        if self.autoreset_mode == AutoresetMode.DISABLED and waiting.any():
            row = np.flatnonzero(waiting)[0]
            raise ResetNeeded(f"step was called after row {row} ended; call reset with its options['reset_mask'] set")
        result = session.step(actions)
        ended = result.terminated | result.truncated
        observation, infos = result.observation, {}
        if self.autoreset_mode == AutoresetMode.SAME_STEP and ended.any():
            final: dict[str, Any] = {}
            self._merge(final, session.step_info() | session.final_info(), ended)
            infos |= {"final_obs": _objects(observation, ended), "final_info": final}
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
        return observation, result.reward, result.terminated.copy(), result.truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """A frame for each row, as ``render_mode`` says."""
        if self.render_mode is None:
            return None
        return tuple(_draw(self.session, row, self.render_mode) for row in range(self.num_envs))

    def _begin(self, mask: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        observation = self.session.reset(mask, options)
        self._finished = self._finished & ~mask
        return observation

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
        """Adds columns (N,) where ``mask``, each with its companion mask, as Gymnasium's own classes do."""
        if not mask.any():
            return
        for key, column in columns.items():
            if isinstance(column, dict):
                self._merge(infos.setdefault(key, {}), column, mask)
            else:
                empty = np.full(self.num_envs, None) if column.dtype == object else np.zeros_like(column)
                infos[key] = np.where(mask, column, infos.get(key, empty))
            infos[f"_{key}"] = mask | infos.get(f"_{key}", False)


def _check_open(env: ExecutionEnv | ExecutionVectorEnv, called: str) -> None:
    if env.closed:
        raise ClosedEnvironmentError(f"{called} was called after close; make another environment")


def plain_row(columns: dict[str, Any], m: int) -> dict[str, Any]:
    """One row of info columns as plain Python values, without what the masks say is not there."""
    row: dict[str, Any] = {}
    for key, column in columns.items():
        if key.startswith(("_", "final_")) or ((mask := columns.get(f"_{key}")) is not None and not mask[m]):
            continue
        row[key] = plain_row(column, m) if isinstance(column, dict) else column[m : m + 1].tolist()[0]
    return row


def _objects(observation: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows = np.full(len(mask), None, object)
    for m in np.flatnonzero(mask):
        rows[m] = observation[m].copy()
    return rows


def whole_seed(name: str, seed: Any, also: str = " or None") -> int:
    """A seed as Gymnasium has them; ``also`` says what else would have done."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"{name} is {shortened(seed)}; it must be a non-negative integer{also}")
    return int(seed)


def _drawn(generator: np.random.Generator) -> int:
    return int(generator.integers(2**63))


def _words(seeds: list[int]) -> np.ndarray:
    return np.array([seed % _WORD for seed in seeds], np.uint64)


def _warn_unknown(options: dict[str, Any] | None) -> None:
    for key in options or {}:
        if key not in _OPTIONS:
            warnings.warn(f"options has the unknown key {key!r}; known are {', '.join(_OPTIONS)}", stacklevel=3)


def _render_mode(mode: str | None) -> str | None:
    if mode is not None and (not isinstance(mode, str) or mode not in RENDER_MODES):
        raise ValueError(f"render_mode is {shortened(mode)}; it must be None, {' or '.join(map(repr, RENDER_MODES))}")
    return mode


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    for known in AutoresetMode:
        if mode is known or (isinstance(mode, str) and mode in (known.value, known.name.lower())):
            return known
    raise ValueError(
        f"autoreset_mode is {shortened(mode)}; it must be one of {', '.join(repr(m.value) for m in AutoresetMode)}"
    )


def _draw(session: TradingSession, row: int, mode: str | None) -> Any:
    if mode is None:
        return None
    return ladder_text(session, row) if mode == "ansi" else ladder_picture(session, row)
