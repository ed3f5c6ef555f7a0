"""Rebuild takers: from executions of resting orders to the marketable orders that caused them.

A feed of resting orders shows only whom a taker met. All executions against one side with one timestamp
and nothing in between, together with the unfilled remainder that follows as an add on the taker's side,
become **one marketable LIMIT** whose ``max_rest`` is that remainder.
"""

from dataclasses import replace

import numpy as np
from numba import njit

from tradefm_gym.data.rows import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    HIDDEN,
    OWN_FILL,
    PARTIAL_CANCEL,
    FeedRows,
    dense_ids,
    resting_price,
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


def fills_first(rows: FeedRows, window_ns: int = 1_000_000_000) -> tuple[FeedRows, int]:
    """Bring a feed whose takers appear as an add and later as fills into the form fills, then remainder.

    Such a feed (Bitstamp) reports each trade twice, once for either order. The two rows are paired by
    opposite side and equal size (two raw units of rounding allowed) within ``window_ns``; the taker is the order added
    later. The maker's rows move to the taker's add, whose size shrinks to what was not filled.

    Returns:
        The rewritten rows and the number of pairs. Rows left without a partner stay executions of a resting order.
    """
    if not (rows.flag & OWN_FILL).any():
        return rows, 0
    life, born = dense_ids(rows)
    price = resting_price(rows, life, born)
    fills = np.flatnonzero(rows.event == EXECUTION)
    key = np.arange(len(rows), dtype=np.float64)
    keep = np.ones(len(rows), bool)
    time_ns, size = rows.time_ns.copy(), rows.size.copy()
    used, pairs = set(), 0
    for k, a in enumerate(fills):
        if a in used:
            continue
        for b in fills[k + 1 : k + 9]:
            if b in used or rows.time_ns[b] - rows.time_ns[a] > window_ns:
                continue
            if rows.side[a] == rows.side[b] or abs(rows.size[a] - rows.size[b]) > 2:
                continue
            maker, taker = (a, b) if born[life[a]] < born[life[b]] else (b, a)
            add = born[life[taker]]
            crosses = (price[life[taker]] - price[life[maker]]) * rows.side[taker] >= 0
            if add < 0 or not crosses or size[add] < min(size[maker], size[taker]):
                continue
            used.update((a, b))
            pairs += 1
            keep[taker] = False
            size[add] = max(0, size[add] - rows.size[taker])
            time_ns[maker] = rows.time_ns[add]
            key[maker] = add - 1 + (1 + pairs) / (len(fills) + 2)
            break
    order = np.argsort(key, kind="stable")
    rows = replace(rows, time_ns=time_ns, size=size)
    return rows.take(order[keep[order]]), pairs


def modified_takers(rows: FeedRows) -> tuple[FeedRows, int]:
    """Turn an order that was modified into a taker into a cancel, its makers' fills and a remainder.

    CME reports the fill of such an order under its own id at the maker's price, that is, at another price
    than the one where it rested, and the modify (delete, then add of the rest) only after the fills.

    Returns:
        The rewritten rows and the number of such orders.
    """
    life, born = dense_ids(rows)
    price = resting_price(rows, life, born)
    executed = (rows.event == EXECUTION) | ((rows.event == CROSS) & (rows.side != 0))
    own = np.flatnonzero(executed & (life >= 0) & (rows.price != price[life]))
    event, size, at = rows.event.copy(), rows.size.copy(), rows.price.copy()
    keep = np.ones(len(rows), bool)
    ended = set()
    for k in own:
        # Improvement on the resting price is no sign of a modify; a worse price than its own limit is.
        if (rows.price[k] - price[life[k]]) * rows.side[k] < 0:
            continue
        if life[k] in ended:
            keep[k] = False
            continue
        ended.add(life[k])
        event[k], at[k] = DELETE, price[life[k]]
        j = k + 1
        while j < len(rows) and rows.time_ns[j] == rows.time_ns[k]:
            if life[j] == life[k]:
                keep[j] = False
                size[k] += rows.size[j]
            j += 1
    rows = replace(rows, event=event, size=size, price=at)
    return rows.take(np.flatnonzero(keep)), len(ended)


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
    levels, rank = np.unique(rows.price, return_inverse=True)
    n = len(rows)
    records = np.zeros(n, RECORD)
    records["owner"], records["order_id"] = BACKGROUND, -1
    fills = np.zeros(n, FILL)
    fills["maker"], fills["taker"] = BACKGROUND, BACKGROUND
    touch = np.zeros((n, 4), np.int32)
    last = np.zeros(n, np.int64)
    counts = np.zeros(len(COUNTS), np.int64)
    orders = np.zeros((len(born), 4), np.int64)  # remaining, time, level, side
    executes = (rows.event == EXECUTION) | ((rows.event == CROSS) & (rows.side != 0) & (life >= 0))
    m, f = _rebuild(
        rows.time_ns,
        rows.event,
        executes,
        life,
        rows.side,
        rows.price,
        rank.reshape(-1).astype(np.int64),
        rows.size,
        np.int64(tick),
        np.int64(lot),
        levels,
        orders,
        np.int64(len(born)),
        records,
        fills,
        touch,
        last,
        counts,
    )
    return records[:m], fills[:f], touch[:m], last[:m], dict(zip(COUNTS, counts.tolist(), strict=True))


@njit(cache=True, nogil=True)
def _rebuild(
    time_ns,
    event,
    executes,
    life,
    side,
    price,
    rank,
    size,
    tick,
    lot,
    levels,
    orders,
    new_id,
    records,
    fills,
    touch,
    last,
    counts,
):
    """Walk the rows once; see :func:`rebuild`. Returns the numbers of records and of fills written."""
    n = len(time_ns)
    depth = np.zeros((2, len(levels)), np.int64)  # lots by side (0 sell, 1 buy) and level
    best = np.array([len(levels), -1], np.int64)
    mid2 = np.int64(0)
    m = 0
    f = 0
    i = 0
    while i < n:
        end = i + 1
        if executes[i]:
            end = _run_end(time_ns, event, executes, side, price, i)
            start, first_fill = m, f
            filled, notional, remainder, limit = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
            taker_side = -side[i]
            parts = 0
            for k in range(i, end):
                if executes[k]:
                    lots = _reduce(orders, depth, best, levels, life[k], size[k], lot, counts)
                    limit = price[k] // tick
                    parts += 1
                    if lots == 0:
                        counts[_DUST] += 1
                        continue
                    filled += lots
                    notional += lots * limit
                    fill = fills[f]
                    fill["time_ns"], fill["maker_id"], fill["price"], fill["size"] = time_ns[k], life[k], limit, lots
                    fill["wait_ns"] = time_ns[k] - orders[life[k], 1] if orders[life[k], 3] != 0 else 0
                    fill["taker_side"] = taker_side
                    f += 1
            after = end - 1
            taker_id = np.int64(-1)
            nxt = end
            if nxt < n and event[nxt] == ADD and side[nxt] == taker_side and time_ns[nxt] == time_ns[i]:
                if (price[nxt] // tick - limit) * taker_side >= 0:
                    limit = price[nxt] // tick
                    taker_id = life[nxt]
                    remainder = _add(orders, depth, best, life[nxt], time_ns[nxt], rank[nxt], side[nxt], size[nxt], lot)
                    parts += 1
                    after = nxt
                    end = nxt + 1
                    counts[_REMAINDERS] += 1
            if filled > 0:
                if taker_id < 0:
                    taker_id = new_id
                    new_id += 1
                for k in range(first_fill, f):
                    fills[k]["taker_id"] = taker_id
                record = records[m]
                record["time_ns"], record["order_id"], record["price"] = time_ns[i], taker_id, limit
                record["size"], record["max_rest"] = filled + remainder, remainder
                record["kind"], record["side"] = LIMIT, taker_side
                record["status"] = RESTED if remainder > 0 else FILLED
                record["filled"], record["notional"] = filled, notional
                last[m] = after
                m += 1
                counts[_TAKERS] += 1
                counts[_MERGED] += parts - 1
            # Hidden executions inside the run follow the taker; they do not touch the book.
            for k in range(i, end):
                if event[k] == HIDDEN:
                    _print(records[m], time_ns[k], side[k], price[k], size[k], tick, lot)
                    last[m] = k
                    m += 1
            mid2 = _finish(records, touch, depth, best, levels, tick, start, m, mid2, counts)
            i = end
            continue
        start = m
        record = records[m]
        if event[i] == ADD:
            lots = _add(orders, depth, best, life[i], time_ns[i], rank[i], side[i], size[i], lot)
            if lots > 0:
                record["kind"], record["side"], record["order_id"] = LIMIT, side[i], life[i]
                record["size"], record["max_rest"], record["status"] = lots, lots, RESTED
                record["time_ns"], record["price"] = time_ns[i], price[i] // tick
                last[m] = i
                m += 1
        elif event[i] == PARTIAL_CANCEL or event[i] == DELETE:
            known = orders[life[i], 3] != 0
            quantity = orders[life[i], 0] if known and event[i] == DELETE else size[i]
            if known and orders[life[i], 0] == 0:
                counts[_DEAD] += 1
            else:
                if known:
                    quantity = min(quantity, orders[life[i], 0])
                lots = _reduce(orders, depth, best, levels, life[i], quantity, lot, counts)
                if lots == 0:
                    counts[_DUST] += 1
                else:
                    record["kind"], record["side"], record["order_id"] = CANCEL, side[i], life[i]
                    record["size"], record["status"] = lots, CANCELLED
                    record["max_rest"] = (orders[life[i], 0] + lot - 1) // lot
                    record["time_ns"], record["price"] = time_ns[i], price[i] // tick
                    last[m] = i
                    m += 1
        elif event[i] == HIDDEN:
            _print(record, time_ns[i], side[i], price[i], size[i], tick, lot)
            last[m] = i
            m += 1
        mid2 = _finish(records, touch, depth, best, levels, tick, start, m, mid2, counts)
        i = end
    return m, f


@njit(cache=True, nogil=True)
def _run_end(time_ns, event, executes, side, price, i):
    """One past the last execution of the run that starts at ``i``; hidden executions in between do not end it."""
    end = i + 1
    worst = price[i]
    j = i + 1
    while j < len(time_ns) and time_ns[j] == time_ns[i]:
        if executes[j]:
            # A sweep only gets worse: a better price on the same side belongs to another taker.
            if side[j] != side[i] or (price[j] - worst) * side[i] > 0:
                break
            worst = price[j]
            end = j + 1
        elif event[j] != HIDDEN:
            break
        j += 1
    # Prints directly after the run stay with it only when the taker's remainder follows them.
    if j < len(time_ns) and j > end and time_ns[j] == time_ns[i] and event[j] == ADD and side[j] == -side[i]:
        end = j
    return end


@njit(cache=True, nogil=True)
def _add(orders, depth, best, life, time_ns, level, side, size, lot):
    """Rest an order; returns its lots."""
    lots = (size + lot - 1) // lot
    orders[life, 0], orders[life, 1], orders[life, 2], orders[life, 3] = size, time_ns, level, side
    if lots > 0:
        row = 1 if side > 0 else 0
        depth[row, level] += lots
        best[row] = max(best[1], level) if side > 0 else min(best[0], level)
    return lots


@njit(cache=True, nogil=True)
def _reduce(orders, depth, best, levels, life, size, lot, counts):
    """Take ``size`` raw units from an order; returns the lots that this removes."""
    if orders[life, 3] == 0:  # an order that was never added: nothing to keep, one lot at least
        return max(np.int64(1), (size + lot - 1) // lot)
    before = (orders[life, 0] + lot - 1) // lot
    over = size - orders[life, 0]
    if over > 0:
        counts[_OVERSIZE] += 1
    orders[life, 0] = max(np.int64(0), -over)
    lots = before - (orders[life, 0] + lot - 1) // lot
    row = 1 if orders[life, 3] > 0 else 0
    depth[row, orders[life, 2]] -= lots
    if row == 1:
        while best[1] >= 0 and depth[1, best[1]] == 0:
            best[1] -= 1
    else:
        while best[0] < len(levels) and depth[0, best[0]] == 0:
            best[0] += 1
    return lots + (over // lot if over > 0 else 0)


@njit(cache=True, nogil=True)
def _print(record, time_ns, side, price, size, tick, lot):
    """Write an execution of hidden liquidity; its side is the aggressor's, 0 where the feed gives none."""
    lots = max(np.int64(1), (size + lot - 1) // lot)
    record["kind"], record["side"], record["time_ns"], record["size"] = PRINT, -side, time_ns, lots
    record["price"] = (2 * price + tick) // (2 * tick)
    record["status"], record["filled"] = PRINTED, lots
    record["notional"] = (2 * lots * price + tick) // (2 * tick)  # exact to half a tick-lot at the midpoint


@njit(cache=True, nogil=True)
def _finish(records, touch, depth, best, levels, tick, start, stop, mid2, counts):
    """Stamp records ``start`` to ``stop`` with the touch and the doubled mid after them; returns the mid."""
    bid, ask = best[1], best[0]
    two_sided = bid >= 0 and ask < len(levels)
    if two_sided and levels[bid] < levels[ask]:
        mid2 = (levels[bid] + levels[ask]) // tick
    for k in range(start, stop):
        if two_sided and levels[bid] >= levels[ask]:
            counts[_CROSSED] += 1
        if bid >= 0:
            touch[k, 0], touch[k, 1] = levels[bid] // tick, depth[1, bid]
        if ask < len(levels):
            touch[k, 2], touch[k, 3] = levels[ask] // tick, depth[0, ask]
        records[k]["mid2"] = mid2
    return mid2
