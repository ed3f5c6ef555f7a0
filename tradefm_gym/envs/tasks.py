"""From the arguments of an environment to its session, and what faces of all libraries check and say alike."""

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from tradefm_gym.arguments import shortened
from tradefm_gym.envs.depth_history import DepthHistory
from tradefm_gym.envs.depth_picture import depth_picture
from tradefm_gym.envs.render import ladder_text
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.sampler import EpisodeSampler
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.flow.protocol import FlowModel

RENDER_MODES = ("ansi", "rgb_array")
METADATA: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": 8}
_WORD = 2**64
_FEES = ("maker_fee", "taker_fee", "maker_rate", "taker_rate")
_LATE = ("order_latency_ns", "data_latency_ns")
MARKET = ("clock", "context", "split", "engine_batch", *_FEES, *_LATE, "sampler")  # arguments beside the flow


def market_session(
    num_envs: int,
    roles: Role | Sequence[Role],
    *,
    flow: str | FlowModel = "tradefm",
    clock: str = "events",
    context: int | str | os.PathLike | None = None,
    split: str = "train",
    seats: int | None = None,
    engine_batch: int | None = None,
    maker_fee: int = 0,
    taker_fee: int = 0,
    maker_rate: int = 0,
    taker_rate: int = 0,
    order_latency_ns: Any = None,
    data_latency_ns: Any = None,
    sampler: EpisodeSampler | None = None,
    counterfactual: bool = False,
) -> TradingSession:
    """A session of these roles; the other arguments are those of ``ExecutionEnv``."""
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
        roles,
        flow,
        clock=clock,
        split=split,
        context=context,
        seats=seats,
        maker_fee=maker_fee,
        taker_fee=taker_fee,
        maker_rate=maker_rate,
        taker_rate=taker_rate,
        order_latency_ns=order_latency_ns,
        data_latency_ns=data_latency_ns,
        sampler=sampler,
        counterfactual=counterfactual,
        flow_options=options,
    )


def role_arguments(role_type: Callable[..., Role]) -> tuple[str, ...]:
    """What a role's constructor takes."""
    return tuple(inspect.signature(role_type).parameters)


def task_arguments(role_type: Callable[..., Role]) -> tuple[str, ...]:
    """What an environment of one role takes besides what is its face's own."""
    own = [name for name in role_arguments(role_type) if name != "discrete"]
    market = ("context", "split", "seats", "engine_batch", *_FEES, *_LATE, "sampler", "counterfactual", "discrete")
    return ("flow", "clock", *own, *market)


def task_session(role_type: Callable[..., Role], num_envs: int, task: dict[str, Any]) -> TradingSession:
    """A session of N tasks of one role; ``task`` holds some of ``task_arguments``."""
    own = role_arguments(role_type)
    role = role_type(**{name: value for name, value in task.items() if name in own})
    return market_session(num_envs, role, **{name: value for name, value in task.items() if name not in own})


def known_options(options: Any, names: tuple[str, ...], stacklevel: int = 3) -> Any:
    """The options of a reset that exist; others are warned of. What is no dict is for the session to refuse."""
    if not isinstance(options, Mapping):
        return options
    for key in options:
        if key not in names:
            warnings.warn(f"options has the unknown key {key!r}; known are {', '.join(names)}", stacklevel=stacklevel)
    return {key: value for key, value in options.items() if key in names}


def check_open(env: Any, called: str) -> None:
    """Refuses to go on with an environment that was closed."""
    if env.closed:
        raise ClosedEnvironmentError(f"{called} was called after close; make another environment")


def check_started(session: TradingSession, called: str) -> None:
    """Refuses to copy a market in which no episode has begun."""
    if not session.seeded[0]:
        raise ResetNeeded(f"{called} was called before reset; call reset first")


def plain_row(columns: dict[str, Any], m: int) -> dict[str, Any]:
    """One row of info columns as plain Python values (arrays where it has several), without what is masked out."""
    row: dict[str, Any] = {}
    for key, column in columns.items():
        if key.startswith(("_", "final_")) or ((mask := columns.get(f"_{key}")) is not None and not mask[m]):
            continue
        if isinstance(column, dict):
            row[key] = plain_row(column, m)
        else:
            row[key] = column[m : m + 1].tolist()[0] if column.ndim == 1 else column[m].copy()
    return row


def only_row(columns: dict[str, Any]) -> dict[str, Any]:
    """Info columns of a single market as plain Python values (arrays where it has several)."""
    return {
        key: only_row(column) if isinstance(column, dict) else column.item() if column.ndim == 1 else column[0].copy()
        for key, column in columns.items()
    }


def whole_seed(name: str, seed: Any, also: str = " or None") -> int:
    """A seed as Gymnasium has them; ``also`` says what else would have done."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"{name} is {shortened(seed)}; it must be a non-negative integer{also}")
    return int(seed)


def drawn_seed(generator: np.random.Generator) -> int:
    """A seed where the caller gives none."""
    return int(generator.integers(2**63))


def seed_words(seeds: list[int]) -> np.ndarray:
    """Seeds of any size as uint64."""
    return np.array([seed % _WORD for seed in seeds], np.uint64)


def plain_rows(columns: dict[str, Any], rows: list[int]) -> list[dict[str, Any]]:
    """``plain_row`` of several rows, of columns without masks; each a dict of its own."""
    parts: list[list[Any]] = []
    for column in columns.values():
        if isinstance(column, dict):
            parts.append(plain_rows(column, rows))
        else:
            chosen = column[rows]
            parts.append(chosen.tolist() if column.ndim == 1 else [one.copy() for one in chosen])
    return [dict(zip(columns, values, strict=True)) for values in zip(*parts, strict=True)]


def checked_render_mode(mode: Any) -> str | None:
    """One of RENDER_MODES, or None."""
    if mode is not None and (not isinstance(mode, str) or mode not in RENDER_MODES):
        raise ValueError(f"render_mode is {shortened(mode)}; it must be None, {' or '.join(map(repr, RENDER_MODES))}")
    return mode


def history_for(session: TradingSession, mode: str | None) -> DepthHistory | None:
    """What pictures over time are made of; None for other modes, which then cost nothing at each step."""
    return DepthHistory(session) if mode == "rgb_array" else None


def draw(session: TradingSession, row: int, mode: str | None, history: DepthHistory | None) -> Any:
    """One market as ``render_mode`` says; ``history`` is what ``history_for`` made."""
    if history is not None:
        history.look()  # a state may have been restored since the last step
        return depth_picture(history.columns(row))
    return ladder_text(session, row) if mode == "ansi" else None
