"""What is measured of a market's paths, by name, always in the same way for recorded and generated ones.

Sizes count in medians of the asset's order size, prices and depths in basis points of the mid, spreads in ticks, so
that days and venues compare. A sample's block is a stretch of two minutes of one path.
"""

from collections.abc import Sequence

import numpy as np

from tradefm_gym.realism.distances import Sample
from tradefm_gym.realism.path import LEVELS, MarketPath

RETURN_SECONDS = (1, 10, 30, 60, 120)
BLOCK_S = 120.0
# Calm and hectic spells, which single waits do not tell apart: how long 16 events take, over the mean of the 64 such
# stretches around, so that it does not matter how busy a part of the day is.
STRETCH, AROUND = 16, 64
REACH = 10  # events over which the mid answers a taker
# Events from its addition on in which an order may be cancelled for its lifetime to count, and which the path must
# still have: else long paths would show longer lifetimes than short ones of the same market.
WATCHED = 512
LEAST_RETURNS = 30  # of an interval in one path; shorter paths tell nothing of it

QUANTITIES = (
    *(f"log_return_{seconds}s" for seconds in RETURN_SECONDS),
    "spread", "touch_depth", "depth_5", "imbalance", "order_size", "taker_size", "cancel_size", "price_depth",
    "cancel_depth", "inter_arrival", "relative_duration", "event_count_1s", "volume_1s", "taker_side",
    "taker_same_side", "taker_response", "first_fill_wait", "order_lifetime",
)  # fmt: skip


def samples(paths: Sequence[MarketPath], returns: Sequence[int] = RETURN_SECONDS) -> dict[str, Sample]:
    """Samples of every quantity of ``QUANTITIES`` that the paths hold.

    Args:
        paths: of one asset.
        returns: seconds of the return intervals; one is left out where no path holds 30 of it.
    """
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    pieces = [piece for path in paths for piece in path.pieces()]
    for number, piece in enumerate(pieces):
        for name, (values, seconds) in _of_one(piece, returns).items():
            block = number * 100_000 + (seconds // BLOCK_S).astype(np.int64)
            found.setdefault(name, []).append((values, block))
    return {
        name: Sample(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        for name, parts in found.items()
        if sum(len(values) for values, _ in parts)
    }


def returns_on_grid(path: MarketPath, seconds: float) -> np.ndarray:
    """Log returns of the mid on a grid in basis points (k,) float64, the last value carried forward."""
    return 1e4 * np.diff(np.log(mid_on_grid(path, seconds)))


def mid_on_grid(path: MarketPath, seconds: float) -> np.ndarray:
    """Mid at 0, s, 2 s, ... of a path (k + 1,) float64 in ticks."""
    span = (path.end_ns - path.start_ns) / 1e9
    grid = seconds * np.arange(int(span // seconds) + 1)
    at = np.searchsorted(path.seconds, grid, side="right")
    mids = np.concatenate([path.mid_before[:1], path.mid])
    return mids[at]


def _of_one(path: MarketPath, returns: Sequence[int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Values and times in seconds, by quantity."""
    records, book, seconds = path.records, path.book, path.seconds
    median, both = float(path.scale["median_size"]), path.two_sided
    found = {}
    for interval in returns:
        values = returns_on_grid(path, interval)
        if len(values) >= LEAST_RETURNS:
            found[f"log_return_{interval}s"] = (values, interval * np.arange(len(values), dtype=np.float64))
    sizes = book[:, :, [1, 3]].astype(np.float64)
    touch = sizes[:, 0]
    found["spread"] = ((book[:, 0, 0] - book[:, 0, 2])[both].astype(np.float64), seconds[both])
    found["touch_depth"] = (touch[both].mean(1) / median, seconds[both])
    found["depth_5"] = (sizes[both].sum((1, 2)) / (2 * median), seconds[both])
    found["imbalance"] = (((touch[:, 1] - touch[:, 0]) / np.maximum(touch.sum(1), 1))[both], seconds[both])
    adds, takes, cancels = ~path.cancels & ~path.takes, path.takes, path.cancels
    found["order_size"] = (records["size"][~cancels] / median, seconds[~cancels])
    found["taker_size"] = (records["filled"][takes] / median, seconds[takes])
    takers = np.flatnonzero(takes)
    sides = records["side"][takers].astype(np.float64)
    found["taker_side"] = (sides, seconds[takers])
    found["taker_same_side"] = ((sides[1:] == sides[:-1]).astype(np.float64), seconds[takers[1:]])
    response = taker_response(path)[takers]
    found["taker_response"] = (response[np.isfinite(response)], seconds[takers][np.isfinite(response)])
    found["cancel_size"] = (records["size"][cancels] / median, seconds[cancels])
    mid = path.mid_before
    behind = records["side"] * (mid - records["price"]) / mid * 1e4
    found["price_depth"] = (behind[~cancels], seconds[~cancels])
    named = cancels & (records["price"] > 0)
    found["cancel_depth"] = (behind[named], seconds[named])
    found["inter_arrival"] = (np.diff(records["time_ns"]) / 1e9, seconds[1:])
    found["relative_duration"] = (_relative_durations(records["time_ns"]), seconds[STRETCH::STRETCH])
    traded = np.where(cancels, 0, records["filled"]) / median
    whole_seconds = int((path.end_ns - path.start_ns) // 10**9)  # what a path holds of a last second is not one
    if whole_seconds:
        place, seen = seconds.astype(np.int64), seconds < whole_seconds
        for name, weights in (("event_count_1s", np.ones(len(seconds))), ("volume_1s", traded)):
            counts = np.bincount(place[seen], weights[seen], whole_seconds)
            found[name] = (counts, np.arange(whole_seconds, dtype=np.float64))
    if len(path.fills):
        fills = path.fills[np.unique(path.fills["maker_id"], return_index=True)[1]]
        found["first_fill_wait"] = (fills["wait_ns"] / 1e9, (fills["time_ns"] - path.start_ns) / 1e9)
    found["order_lifetime"] = _lifetimes(records, adds, cancels, seconds)
    return found


def taker_response(path: MarketPath) -> np.ndarray:
    """How far the mid moves towards each event's side from just before it to ``REACH`` events after it.

    In basis points, (n,) float64; NaN at the end.
    """
    moved = np.full(len(path), np.nan)
    if len(path) > REACH:
        before, after = path.mid_before[:-REACH], path.mid[REACH:]
        moved[:-REACH] = 1e4 * path.records["side"][:-REACH] * np.log(after / before)
    return moved


def _relative_durations(time_ns: np.ndarray) -> np.ndarray:
    taken = np.diff(time_ns[::STRETCH]).astype(np.float64)
    total, at = np.concatenate([[0.0], np.cumsum(taken)]), np.arange(len(taken))
    first, last = np.maximum(at - AROUND // 2, 0), np.minimum(at + AROUND // 2, len(taken))
    return taken / np.maximum((total[last] - total[first]) / np.maximum(last - first, 1), 1.0)


def _lifetimes(records, adds, cancels, seconds) -> tuple[np.ndarray, np.ndarray]:
    """How long cancelled orders had rested, of those added in the path, within ``WATCHED`` events."""
    added, gone = np.flatnonzero(adds), np.flatnonzero(cancels & (records["order_id"] >= 0))
    if not len(added):
        return np.zeros(0), np.zeros(0)
    ids = records["order_id"][added]
    order = np.argsort(ids, kind="stable")
    wanted = records["order_id"][gone]
    at = np.searchsorted(ids[order], wanted, side="right") - 1
    known = at >= 0
    known[known] = ids[order][at[known]] == wanted[known]
    born = added[order[np.maximum(at, 0)]]
    known &= (born < gone) & (gone <= born + WATCHED) & (born + WATCHED < len(records))
    return seconds[gone[known]] - seconds[born[known]], seconds[gone[known]]


def windows(paths: Sequence[MarketPath], length: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """What a discriminator looks at: windows of ``length`` events, (n, f) float64, and their blocks (n,) int64."""
    rows, blocks = [], []
    for number, path in enumerate(piece for whole in paths for piece in whole.pieces()):
        for first in range(0, len(path) - length + 1, length):
            part = path.between(first, first + length)
            rows.append(_window(part))
            blocks.append(number * 100_000 + int((part.start_ns - path.start_ns) / 1e9 // BLOCK_S))
    return np.array(rows), np.array(blocks, np.int64)


def _window(path: MarketPath) -> np.ndarray:
    median = float(path.scale["median_size"])
    records, mid, book = path.records, path.mid, path.book.astype(np.float64)
    gaps = np.log10(np.diff(records["time_ns"], prepend=path.start_ns) / 1e9 + 1e-6)
    spread = np.where(path.two_sided, book[:, 0, 0] - book[:, 0, 2], np.nan)
    sizes = np.log1p(book[:, :, [1, 3]] / median)
    behind = records["side"] * (path.mid_before - records["price"]) / path.mid_before * 1e4
    moves = np.diff(mid, prepend=path.mid_before[0]) / mid * 1e4
    order = np.log1p(records["size"] / median)
    figures = [
        path.takes.mean(), path.cancels.mean(), (records["side"] > 0).mean(), gaps.mean(), gaps.std(),
        np.nanmean(spread) if path.two_sided.any() else np.nan, np.nanmin(spread) if path.two_sided.any() else np.nan,
        sizes[:, 0].mean(), sizes[:, LEVELS - 1].mean(), np.abs(moves).sum(), moves.sum(), (moves != 0).mean(),
        np.median(behind[~path.cancels]) if (~path.cancels).any() else np.nan, behind.std(),
        order.mean(), order.std(), (records["side"] * records["filled"]).sum() / median,
        np.log1p(records["filled"].sum() / median),
    ]  # fmt: skip
    return np.array(figures, np.float64)
