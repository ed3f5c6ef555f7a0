"""Feeds that report takers in their own way, brought into one form: fills first, then the remainder."""

from dataclasses import replace

import numpy as np

from tradefm_gym.data.rows import CROSS, DELETE, EXECUTION, OWN_FILL, FeedRows, dense_ids, resting_price


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
    if len(born) == 0:
        return rows, 0
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
