"""How likely a resting order is filled, by its depth, its place in the queue and how long it waits.

The probability is that of a first fill within a wait *if the order is left alone*: most real orders are cancelled long
before, so those are counted out from then on (Kaplan and Meier 1958, on a grid of waits, with half a bin's risk for
what is withdrawn in it). Withdrawals are no accident, though: who leaves because the touch has moved away counts as
one who might have been filled like the others. So arms compare where their orders are withdrawn alike, and beside it
stands the plain share that was filled, cancels and all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.market.events import BUY, LIMIT, MODIFY
from tradefm_gym.realism.averages import averages, figure
from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, dense, estimate, resampled
from tradefm_gym.realism.markouts import BLOCK_EVENTS, filled_at
from tradefm_gym.realism.path import LEVELS, MarketPath

WAITS = {"events": (10, 100, 1000), "s": (1, 10)}
DEPTHS = ("inside", "touch", *(f"behind_{k}" for k in range(1, LEVELS)), f"behind_{LEVELS}_or_more")
QUEUES = {"up_to_1": (0.0, 1.0), "1_to_4": (1.0, 4.0), "above_4": (4.0, np.inf)}  # medians ahead, at the touch
_BINS = 48  # of the grid of waits


class Orders(NamedTuple):
    """Resting orders and their ends, (n,) each."""

    depth: np.ndarray  # int64, an index into ``DEPTHS``
    ahead: np.ndarray  # float64, lots ahead on arrival, in medians
    wait_events: np.ndarray  # float64, to the first fill or to the withdrawal
    wait_s: np.ndarray  # float64
    filled: np.ndarray  # bool, which of the two it was
    block: np.ndarray  # int64


def resting_orders(paths: Sequence[MarketPath]) -> Orders:
    """Orders that came to rest in paths, without having traded on arrival.

    A first cancel or change of an order is its withdrawal, and so is the end of the path. Depth counts better prices
    that were occupied on arrival.
    """
    parts, first = [], 0
    for piece in (piece for path in paths for piece in path.pieces()):
        parts.append(_of_one(piece, first))
        first += len(piece) // BLOCK_EVENTS + 1
    none = np.zeros(0, np.int64)
    empty = Orders(none, np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(0, np.bool_), none)
    return Orders(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))


def fill_rows(paths: Sequence[MarketPath], arm: str, seeds: int = 1) -> list[dict[str, Any]]:
    """Rows ``fill_probability_DEPTH`` and, at the touch, ``fill_probability_touch_queue_SIZE`` of background orders.

    Metrics are ``within_K_events`` and ``within_S_s`` (if left alone) and ``share_within_K_events`` (cancels and all).
    """
    return rows_of(resting_orders(paths), arm, seeds)


def agent_fill_rows(orders: np.ndarray, median: float, arm: str = "agent", seeds: int = 1) -> list[dict[str, Any]]:
    """Rows as ``fill_rows`` of what ``markouts.agent_makers`` says of agents' orders at the touch.

    Args:
        orders: (o, 7) float64.
        median: order size of the asset in lots.
        arm: name.
        seeds: markets behind them.
    """
    row, born, born_s, ahead, until, until_s, filled = orders.T
    depth = np.full(len(orders), DEPTHS.index("touch"), np.int64)
    return rows_of(
        Orders(depth, ahead / median, until - born, until_s - born_s, filled > 0, row.astype(np.int64)), arm, seeds
    )


def rows_of(orders: Orders, arm: str, seeds: int = 1) -> list[dict[str, Any]]:
    """Rows of orders; see ``fill_rows``."""
    classes: dict[str, np.ndarray] = {name: orders.depth == index for index, name in enumerate(DEPTHS)}
    at_touch = orders.depth == DEPTHS.index("touch")
    for name, (low, high) in QUEUES.items():
        classes[f"touch_queue_{name}"] = at_touch & (orders.ahead > low) & (orders.ahead <= high)
    return [row for name, chosen in classes.items() if chosen.any() for row in _rows(name, orders, chosen, arm, seeds)]


def fill_probability(
    wait: np.ndarray, filled: np.ndarray, block: np.ndarray, horizons: Sequence[float], replicates: int = REPLICATES
) -> list[Estimate]:
    """Probability of a fill within each horizon if an order is left alone.

    Args:
        wait: (n,) until the fill or the withdrawal.
        filled: (n,) bool.
        block: (n,) integers, resampled as wholes.
        horizons: ascending, in the unit of ``wait``.
        replicates: of the bootstrap.
    """
    grid = np.unique(np.concatenate([np.geomspace(max(horizons) / 1e4, max(horizons), _BINS), horizons]))
    bin_ = np.searchsorted(grid, wait)  # the last one is beyond the horizons
    place, number = dense(block)
    ended = np.zeros((2, number, len(grid) + 1))
    np.add.at(ended, (filled.astype(np.int64), place, bin_), 1.0)
    (weights,) = resampled([number], replicates)
    withdrawn, fills = weights @ ended[0], weights @ ended[1]
    at_risk = np.cumsum((withdrawn + fills)[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        left = np.clip(1.0 - fills / (at_risk - 0.5 * withdrawn), 0.0, 1.0)
    survived = np.cumprod(left, axis=1)  # NaN from where nobody is left to tell
    return [estimate(1.0 - survived[:, int(np.searchsorted(grid, horizon))]) for horizon in horizons]


def _rows(name: str, orders: Orders, chosen: np.ndarray, arm: str, seeds: int) -> list[dict[str, Any]]:
    quantity, n = f"fill_probability_{name}", int(chosen.sum())
    filled, block = orders.filled[chosen], orders.block[chosen]
    waits: Mapping[str, np.ndarray] = {"events": orders.wait_events[chosen], "s": orders.wait_s[chosen]}
    rows = []
    for unit, horizons in WAITS.items():
        for horizon, one in zip(horizons, fill_probability(waits[unit], filled, block, horizons), strict=True):
            rows.append(figure(quantity, f"within_{horizon}_{unit}", arm, one, n, seeds))
    shares = np.stack([filled & (waits["events"] <= horizon) for horizon in WAITS["events"]], axis=1)
    for horizon, one in zip(WAITS["events"], averages(shares.astype(np.float64), block)[0], strict=True):
        rows.append(figure(quantity, f"share_within_{horizon}_events", arm, one, n, seeds))
    return rows


def _of_one(path: MarketPath, first_block: int) -> Orders:
    records, seconds, n = path.records, path.seconds, len(path)
    rests = (records["kind"] == LIMIT) & (records["filled"] == 0) & (records["price"] > 0) & (records["order_id"] >= 0)
    born = np.flatnonzero(rests)
    ids = records["order_id"]
    end, filled = np.full(len(born), n - 1), np.zeros(len(born), np.bool_)
    fills, at = filled_at(path)
    withdrawn = np.flatnonzero(path.cancels | (records["kind"] == MODIFY))
    # The first end of an order decides; a fill before a withdrawal in the same event.
    key = np.concatenate([fills["maker_id"], ids[withdrawn]])
    when = np.concatenate([at, withdrawn])
    how = np.concatenate([np.ones(len(at), np.bool_), np.zeros(len(withdrawn), np.bool_)])
    order = np.lexsort((~how, when, key))
    key, when, how = key[order], when[order], how[order]
    # Ids may be used again: the first end after the arrival.
    span = np.int64(n + 1)
    place = np.searchsorted(key * span + when, ids[born].astype(np.int64) * span + born, side="right")
    known = place < len(key)
    known[known] = key[place[known]] == ids[born][known]
    end[known], filled[known] = when[place[known]], how[place[known]]
    depth, ahead = _depth_of(path, born)
    return Orders(
        depth, ahead / float(path.scale["median_size"]), (end - born).astype(np.float64), seconds[end] - seconds[born],
        filled, first_block + born // BLOCK_EVENTS,
    )  # fmt: skip


def _depth_of(path: MarketPath, born: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth class and lots ahead of the orders that arrived at events ``born``."""
    before = np.concatenate([path.start_book[None], path.book[:-1]])[born]
    buys = path.records["side"][born] == BUY
    price = np.where(buys[:, None], before[:, :, 2], before[:, :, 0]).astype(np.int64)
    size = np.where(buys[:, None], before[:, :, 3], before[:, :, 1])
    sign = np.where(buys, 1, -1)[:, None]
    gain = sign * (path.records["price"][born].astype(np.int64)[:, None] - price)  # over each level
    occupied = size > 0
    better = (occupied & (gain < 0)).sum(1)
    improves = (better == 0) & ~(occupied & (gain == 0)).any(1)
    ahead = np.where(occupied & (gain == 0), size, 0).sum(1).astype(np.float64)
    return np.where(improves, 0, 1 + np.minimum(better, LEVELS)), ahead
