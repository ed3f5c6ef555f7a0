"""Rebuild takers: from executions of resting orders to the marketable orders that caused them.

A feed of resting orders shows only whom a taker met. All executions against one side with one timestamp
and nothing in between, together with the unfilled remainder that follows as an add on the taker's side,
become **one marketable LIMIT** whose ``max_rest`` is that remainder.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.data.rows import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    HIDDEN,
    PARTIAL_CANCEL,
    FeedRows,
    dense_ids,
)
from tradefm_gym.market.events import (
    BACKGROUND,
    CANCEL,
    CANCELLED,
    FILL,
    FILLED,
    LIMIT,
    PRINT,
    PRINTED,
    RECORD,
    RESTED,
)

# Counters of the rebuild, in this order.
COUNTS = ("takers", "merged_rows", "remainders", "dust_rows", "dead_cancels", "oversize_fills", "crossed_records")
_TAKERS, _MERGED, _REMAINDERS, _DUST, _DEAD, _OVERSIZE, _CROSSED = range(len(COUNTS))

_REMAINING, _SINCE, _LEVEL, _SIDE = range(4)  # columns of the tracked orders; side 0: never added
_ASK, _BID = 0, 1  # rows of the depth
_RECORDS, _FILLS, _NEW_ID, _MID2 = range(4)  # cursors


class _Feed(NamedTuple):
    """The n rows, with the life of the order and the rank of the price of each."""

    time_ns: np.ndarray
    event: np.ndarray
    executes: np.ndarray  # (n,) bool: an execution of a resting order
    life: np.ndarray
    side: np.ndarray
    price: np.ndarray
    level: np.ndarray
    size: np.ndarray
    tick: int
    lot: int


class _Tracker(NamedTuple):
    """What rests, by order and by price level; ``best`` holds the levels of the lowest ask and the highest bid."""

    orders: np.ndarray  # (lives, 4) int64
    depth: np.ndarray  # (2, levels) int64 lots
    best: np.ndarray  # (2,) int64
    levels: np.ndarray  # (levels,) int64 prices, ascending


class _Out(NamedTuple):
    """What the walk writes; see :func:`rebuild`."""

    records: np.ndarray
    fills: np.ndarray
    touch: np.ndarray
    row: np.ndarray
    counts: np.ndarray
    at: np.ndarray  # (4,) int64 cursors


def rebuild(
    rows: FeedRows, tick: int, lot: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Turn feed rows into tape records.

    Args:
        rows: n rows in feed order, takers' fills before their remainders.
        tick: price units per tick.
        lot: raw size units per lot. What remains of an order is rounded up to lots, so its parts always add up.

    Returns:
        ``records`` (m,) RECORD; ``fills`` (f,) FILL, the recorded executions; ``touch`` (m, 4) int32: bid price,
        bid size, ask price, ask size after each record from the orders named so far (size 0: empty side);
        ``row`` (m,) int64: position in ``rows`` of the last row behind each record; counters by name.
    """
    life, born = dense_ids(rows)
    levels, level = np.unique(rows.price, return_inverse=True)
    n = len(rows)
    executes = (rows.event == EXECUTION) | ((rows.event == CROSS) & (rows.side != 0) & (life >= 0))
    level = level.reshape(-1).astype(np.int64)
    feed = _Feed(rows.time_ns, rows.event, executes, life, rows.side, rows.price, level, rows.size, int(tick), int(lot))
    best = np.array([len(levels), -1], np.int64)
    tracker = _Tracker(np.zeros((len(born), 4), np.int64), np.zeros((2, len(levels)), np.int64), best, levels)
    counts, at = np.zeros(len(COUNTS), np.int64), np.array([0, 0, len(born), 0], np.int64)
    out = _Out(np.zeros(n, RECORD), np.zeros(n, FILL), np.zeros((n, 4), np.int32), np.zeros(n, np.int64), counts, at)
    out.records["owner"], out.records["order_id"] = BACKGROUND, -1
    out.fills["maker"], out.fills["taker"] = BACKGROUND, BACKGROUND
    _walk(feed, tracker, out)
    m, f = int(at[_RECORDS]), int(at[_FILLS])
    named: dict[str, int] = dict(zip(COUNTS, counts.tolist(), strict=True))
    return out.records[:m], out.fills[:f], out.touch[:m], out.row[:m], named


@njit(cache=True, nogil=True)
def _walk(feed, tracker, out):
    """Go through the rows once; a run of executions is one step, every other row is one."""
    i = 0
    while i < len(feed.time_ns):
        start = out.at[_RECORDS]
        end = i + 1
        if feed.executes[i]:
            end = _taker(feed, tracker, out, i, _run_end(feed, i))
        elif feed.event[i] == ADD:
            _rest(feed, tracker, out, i)
        elif feed.event[i] == PARTIAL_CANCEL or feed.event[i] == DELETE:
            _cancel(feed, tracker, out, i)
        elif feed.event[i] == HIDDEN:
            _print(feed, out, i)
        _stamp(feed, tracker, out, start)
        i = end


@njit(cache=True, nogil=True)
def _run_end(feed, i):
    """One past the last execution of the run that starts at ``i``; hidden executions in between do not end it."""
    end = i + 1
    worst = feed.price[i]
    j = i + 1
    while j < len(feed.time_ns) and feed.time_ns[j] == feed.time_ns[i]:
        if feed.executes[j]:
            # A sweep only gets worse: a better price on the same side belongs to another taker.
            if feed.side[j] != feed.side[i] or (feed.price[j] - worst) * feed.side[i] > 0:
                break
            worst = feed.price[j]
            end = j + 1
        elif feed.event[j] != HIDDEN:
            break
        j += 1
    # Prints directly after the run belong to it only when the taker's remainder may follow them.
    if j > end and j < len(feed.time_ns) and feed.event[j] == ADD and feed.side[j] == -feed.side[i]:
        end = j if feed.time_ns[j] == feed.time_ns[i] else end
    return end


@njit(cache=True, nogil=True)
def _taker(feed, tracker, out, i, end):
    """Write the order behind the executions of rows ``i`` to ``end``; returns one past the last row that it used."""
    side = -feed.side[i]
    first_fill = out.at[_FILLS]
    filled, notional, remainder, worst, parts = np.int64(0), np.int64(0), np.int64(0), np.int64(0), 0
    for k in range(i, end):
        if feed.executes[k]:
            lots = _fill(feed, tracker, out, k)
            worst = feed.price[k] // feed.tick
            filled += lots
            notional += lots * worst
            parts += 1
    last, order_id, limit = end - 1, np.int64(-1), worst
    # An add on the taker's side at the price paid or beyond can only be what the taker had left.
    if end < len(feed.time_ns) and feed.event[end] == ADD and feed.side[end] == side:
        if feed.time_ns[end] == feed.time_ns[i] and (feed.price[end] // feed.tick - worst) * side >= 0:
            remainder, order_id, limit = _add(feed, tracker, end), feed.life[end], feed.price[end] // feed.tick
            last = end
            end += 1
            parts += 1
            out.counts[_REMAINDERS] += 1
    if filled + remainder > 0:
        if order_id < 0:
            order_id = out.at[_NEW_ID]
            out.at[_NEW_ID] += 1
        for k in range(first_fill, out.at[_FILLS]):
            out.fills[k]["taker_id"] = order_id
        record = _record(out, last, feed.time_ns[i], LIMIT, side, limit, filled + remainder)
        record["order_id"], record["max_rest"] = order_id, remainder
        record["filled"], record["notional"] = filled, notional
        record["status"] = RESTED if remainder > 0 else FILLED
        out.counts[_TAKERS] += filled > 0
        out.counts[_MERGED] += parts - 1
    # Hidden executions inside the run follow the taker; they do not touch the book.
    for k in range(i, end):
        if feed.event[k] == HIDDEN:
            _print(feed, out, k)
    return end


@njit(cache=True, nogil=True)
def _fill(feed, tracker, out, k):
    """Execute row ``k`` against its resting order and write the fill; returns its lots."""
    lots = _reduce(feed, tracker, out, feed.life[k], feed.size[k])
    if lots == 0:
        out.counts[_DUST] += 1
        return lots
    fill = out.fills[out.at[_FILLS]]
    out.at[_FILLS] += 1
    fill["time_ns"], fill["maker_id"], fill["size"] = feed.time_ns[k], feed.life[k], lots
    fill["price"], fill["taker_side"] = feed.price[k] // feed.tick, -feed.side[k]
    if tracker.orders[feed.life[k], _SIDE] != 0:
        fill["wait_ns"] = feed.time_ns[k] - tracker.orders[feed.life[k], _SINCE]
    return lots


@njit(cache=True, nogil=True)
def _rest(feed, tracker, out, i):
    """Write an order that rests in full."""
    lots = _add(feed, tracker, i)
    if lots > 0:
        record = _record(out, i, feed.time_ns[i], LIMIT, feed.side[i], feed.price[i] // feed.tick, lots)
        record["order_id"], record["max_rest"], record["status"] = feed.life[i], lots, RESTED


@njit(cache=True, nogil=True)
def _cancel(feed, tracker, out, i):
    """Write a cancel; a delete removes what is left of a tracked order, whatever its size says."""
    life = feed.life[i]
    quantity = feed.size[i]
    if tracker.orders[life, _SIDE] != 0:
        if tracker.orders[life, _REMAINING] == 0:
            out.counts[_DEAD] += 1
            return
        quantity = tracker.orders[life, _REMAINING] if feed.event[i] == DELETE else quantity
        quantity = min(quantity, tracker.orders[life, _REMAINING])
    lots = _reduce(feed, tracker, out, life, quantity)
    if lots == 0:
        out.counts[_DUST] += 1
        return
    record = _record(out, i, feed.time_ns[i], CANCEL, feed.side[i], feed.price[i] // feed.tick, lots)
    record["order_id"], record["status"] = life, CANCELLED
    record["max_rest"] = -(-tracker.orders[life, _REMAINING] // feed.lot)


@njit(cache=True, nogil=True)
def _print(feed, out, i):
    """Write an execution of hidden liquidity; its side is the aggressor's, 0 where the feed gives none."""
    lots = max(np.int64(1), -(-feed.size[i] // feed.lot))
    # Midpoint prices fall between ticks: the price is rounded, the notional stays exact to half a tick-lot.
    price = (2 * feed.price[i] + feed.tick) // (2 * feed.tick)
    record = _record(out, i, feed.time_ns[i], PRINT, -feed.side[i], price, lots)
    record["status"], record["filled"] = PRINTED, lots
    record["notional"] = (2 * lots * feed.price[i] + feed.tick) // (2 * feed.tick)


@njit(cache=True, nogil=True)
def _record(out, row, time_ns, kind, side, price, size):
    """Start the next record and return it."""
    m = out.at[_RECORDS]
    out.at[_RECORDS] += 1
    out.row[m] = row
    record = out.records[m]
    record["time_ns"], record["kind"], record["side"] = time_ns, kind, side
    record["price"], record["size"] = price, size
    return record


@njit(cache=True, nogil=True)
def _add(feed, tracker, i):
    """Track the order that row ``i`` adds; returns its lots."""
    life, level, lots = feed.life[i], feed.level[i], -(-feed.size[i] // feed.lot)
    tracker.orders[life, _REMAINING], tracker.orders[life, _SINCE] = feed.size[i], feed.time_ns[i]
    tracker.orders[life, _LEVEL], tracker.orders[life, _SIDE] = level, feed.side[i]
    if lots > 0:
        if feed.side[i] > 0:
            tracker.depth[_BID, level] += lots
            tracker.best[_BID] = max(tracker.best[_BID], level)
        else:
            tracker.depth[_ASK, level] += lots
            tracker.best[_ASK] = min(tracker.best[_ASK], level)
    return lots


@njit(cache=True, nogil=True)
def _reduce(feed, tracker, out, life, size):
    """Take ``size`` raw units from an order; returns the lots that this removes."""
    order, best = tracker.orders[life], tracker.best
    if order[_SIDE] == 0:  # an order that was never added: nothing to keep, one lot at least
        return max(np.int64(1), -(-size // feed.lot))
    before = -(-order[_REMAINING] // feed.lot)
    over = max(np.int64(0), size - order[_REMAINING])
    order[_REMAINING] -= size - over
    lots = before - -(-order[_REMAINING] // feed.lot)
    if order[_SIDE] > 0:
        tracker.depth[_BID, order[_LEVEL]] -= lots
        while best[_BID] >= 0 and tracker.depth[_BID, best[_BID]] == 0:
            best[_BID] -= 1
    else:
        tracker.depth[_ASK, order[_LEVEL]] -= lots
        while best[_ASK] < len(tracker.levels) and tracker.depth[_ASK, best[_ASK]] == 0:
            best[_ASK] += 1
    out.counts[_OVERSIZE] += over > 0
    return lots + over // feed.lot


@njit(cache=True, nogil=True)
def _stamp(feed, tracker, out, start):
    """Give the records from ``start`` on the touch and the doubled mid after them; a crossed touch moves no mid."""
    bid, ask, levels = tracker.best[_BID], tracker.best[_ASK], tracker.levels
    two_sided = bid >= 0 and ask < len(levels)
    crossed = two_sided and bid >= ask
    if two_sided and not crossed:
        out.at[_MID2] = (levels[bid] + levels[ask]) // feed.tick
    for k in range(start, out.at[_RECORDS]):
        out.counts[_CROSSED] += crossed
        if bid >= 0:
            out.touch[k, 0], out.touch[k, 1] = levels[bid] // feed.tick, tracker.depth[_BID, bid]
        if ask < len(levels):
            out.touch[k, 2], out.touch[k, 3] = levels[ask] // feed.tick, tracker.depth[_ASK, ask]
        out.records[k]["mid2"] = out.at[_MID2]
