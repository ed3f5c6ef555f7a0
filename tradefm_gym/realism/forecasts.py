"""Forecasts: many rollouts from recorded moments, beside what the record did from there on."""

from collections.abc import Callable, Sequence

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.realism.path import MarketPath, roll_out

EVENTS = (16, 64, 256, 1024)
SECONDS = (1, 10, 30)
_SLACK = 1.08  # a rollout makes more events than the longest horizon: those without effect do not count

# quantity: whether it is told at horizons of events, of seconds
OUTCOMES = {
    "return": (True, True),
    "realised_variance": (True, True),
    "mean_spread": (True, True),
    "event_count": (False, True),
    "duration": (True, False),
    "volume": (True, True),
}
COLUMNS = tuple(
    (name, horizon, unit)
    for name, told in OUTCOMES.items()
    for unit, wanted, horizons in (("events", told[0], EVENTS), ("s", told[1], SECONDS))
    if wanted
    for horizon in horizons
)


def outcomes(path: MarketPath) -> np.ndarray:
    """What happened within each horizon, (c,) float64 by ``COLUMNS``.

    ``return`` in basis points; ``realised_variance`` the sum of squared moves of the mid, square basis points;
    ``mean_spread`` in ticks, over events or over time; ``event_count``; ``duration`` in seconds; ``volume`` in medians
    of the order size. A path that is too short counts as it ends.
    """
    mid = np.concatenate([path.mid_before[:1], path.mid]) if len(path) else np.ones(1)
    log_mid = np.log(mid)
    variance = np.concatenate([[0.0], np.cumsum((1e4 * np.diff(log_mid)) ** 2)])
    volume = np.concatenate([[0.0], np.cumsum(np.where(path.cancels, 0, path.records["filled"]))])
    seconds = np.concatenate([[0.0], path.seconds])
    spread = np.concatenate([path.start_book[None], path.book])[:, 0]
    spread = (spread[:, 0] - spread[:, 2]).astype(np.float64)
    good = np.concatenate([[path.start_book[0, 1] > 0 and path.start_book[0, 3] > 0], path.two_sided])
    spread[~good] = np.nan
    spread = _carried(spread)
    over_events = np.concatenate([[0.0], np.cumsum(spread[1:])])
    over_time = np.concatenate([[0.0], np.cumsum(spread[:-1] * np.diff(seconds))])
    found = np.empty(len(COLUMNS))
    for c, (name, horizon, unit) in enumerate(COLUMNS):
        by_time = unit == "s"
        last = int(np.searchsorted(seconds, horizon, side="right")) - 1 if by_time else min(horizon, len(path))
        if name == "return":
            value = 1e4 * (log_mid[last] - log_mid[0])
        elif name == "realised_variance":
            value = variance[last]
        elif name == "mean_spread" and by_time:
            value = (over_time[last] + spread[last] * (horizon - seconds[last])) / horizon
        elif name == "mean_spread":
            value = over_events[last] / max(last, 1)
        elif name == "event_count":
            value = last
        elif name == "duration":
            value = seconds[last]
        else:
            value = volume[last] / float(path.scale["median_size"])
        found[c] = value
    return found


def _carried(values: np.ndarray) -> np.ndarray:
    """NaNs replaced by the last known value, leading ones by the first."""
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros_like(values)
    at = np.maximum.accumulate(np.where(known, np.arange(len(values)), -1))
    return values[np.where(at >= 0, at, int(np.argmax(known)))]


def start_events(path: MarketPath, first: int, last: int, wanted: int) -> np.ndarray:
    """Positions ``(s,)`` in a recorded path of moments from which forecasts can be held against the record.

    Evenly spaced over events ``first`` to ``last``; each leaves the longest horizons before ``last`` or a break.
    """
    time = path.records["time_ns"]
    allowed = np.zeros(len(path), np.bool_)
    ends = np.minimum(np.searchsorted(time, time + np.int64(max(SECONDS) * 1e9), side="right"), len(time) - 1)
    events = np.arange(len(path)) + max(EVENTS)
    whole = (events < last) & (ends < last - 1)
    gap = np.concatenate([[0], np.cumsum(np.diff(time) > 600 * 10**9)])
    allowed[whole] = gap[np.maximum(events, ends)[whole]] == gap[np.arange(len(path))[whole]]
    sided = np.concatenate([[False], path.two_sided[:-1]])
    # A moment is between two events of different times: the record has no state in between.
    moment = np.concatenate([[False], np.diff(time) > 0])
    candidates = np.flatnonzero(allowed & sided & moment)
    candidates = candidates[(candidates >= first) & (candidates < last)]
    if len(candidates) == 0:
        return candidates
    return candidates[np.unique(np.linspace(0, len(candidates) - 1, wanted).astype(np.int64))]


def truths(path: MarketPath, starts: np.ndarray) -> np.ndarray:
    """Outcomes of the record from each start, (s, c)."""
    time = path.records["time_ns"]
    found = []
    for start in starts.tolist():
        end = int(np.searchsorted(time, time[start - 1] + np.int64((max(SECONDS) + 1) * 1e9), side="right"))
        stretch = path.between(start, min(max(start + max(EVENTS), end), len(path)))
        found.append(outcomes(stretch))
    return np.array(found)


def blocks_of(starts: np.ndarray, truth: np.ndarray, most: int = 16) -> np.ndarray:
    """Blocks of consecutive starts that are resampled together, for each column its own.

    Args:
        starts: (s,) int64 ascending, events.
        truth: (s, c) as ``truths`` has it: it tells how many events usually come within a horizon of seconds.
        most: blocks.

    Returns:
        (s, c) int64 from 0. A block spans the column's horizon at least, so starts two blocks apart share no event.
    """
    usual = {
        horizon: float(np.median(truth[:, COLUMNS.index(("event_count", horizon, "s"))])) for horizon in SECONDS
    }  # fmt: skip
    span = max(1, int(starts[-1] - starts[0]) + 1)
    lengths = [horizon if unit == "events" else usual[horizon] for _, horizon, unit in COLUMNS]
    counts = np.array([np.clip(span // max(length, 1), 1, most) for length in lengths], np.int64)
    return (starts - starts[0])[:, None] * counts // span


def ensembles(
    flow: FlowModel,
    contexts: Sequence[int],
    rollouts: int,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Outcomes of rollouts from start states, (s, rollouts, c).

    Args:
        flow: for N markets, N a multiple of nothing: rows are filled start by start.
        contexts: (s,) start states.
        rollouts: per start.
        seed: of the first; every rollout of a start has its own.
        progress: told how many rollouts are done.
    """
    n = flow.num_envs
    rows = np.repeat(np.asarray(contexts, np.int64), rollouts)
    seeds = (np.uint64(seed) << np.uint64(32)) + np.arange(len(rows), dtype=np.uint64)
    found = np.empty((len(rows), len(COLUMNS)))
    for first in range(0, len(rows), n):
        chosen = np.arange(first, min(first + n, len(rows)))
        padded = np.concatenate([chosen, np.full(n - len(chosen), chosen[-1])])
        paths = roll_out(flow, rows[padded], seeds[padded], int(_SLACK * max(EVENTS)), max(SECONDS), 16 * max(EVENTS))
        found[chosen] = [outcomes(path) for path in paths[: len(chosen)]]
        if progress is not None:
            progress(len(chosen))
    return found.reshape(len(contexts), rollouts, len(COLUMNS))
