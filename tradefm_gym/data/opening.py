"""The opening book of a session: orders left by earlier rows, and orders that later rows prove to have rested."""

from dataclasses import replace

import numpy as np

from tradefm_gym.data.rows import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    PARTIAL_CANCEL,
    SNAPSHOT,
    FeedRows,
    dense_ids,
    resting_price,
)
from tradefm_gym.data.takers import rebuild
from tradefm_gym.market.events import BUY, SELL

_FAR = 2**40
_REMOVES = (PARTIAL_CANCEL, DELETE, EXECUTION, CROSS)


def opening_book(rows: FeedRows, start: int, infer: bool, tick: int) -> tuple[FeedRows, int, int]:
    """Replace the first ``start`` rows by the orders that they leave resting, in order of priority.

    With ``infer``, an order that is cancelled or executed later but was never added stands at the head of
    the book: it rested before the feed began, and its later messages tell its side, price and size. This
    completes a state that every participant saw at the time; it is no forecast.

    Args:
        rows: all rows of the day, takers' fills first.
        start: first row of the flow.
        infer: whether to add orders that were never added.
        tick: price units per tick.

    Returns:
        The opening adds (flag SNAPSHOT) followed by the remaining rows; the number of opening adds; the
        number of those that were inferred.
    """
    left = _left_resting(rows, start)
    known = left.concat(rows.take(np.arange(start, len(rows))))
    if not infer:
        return known, len(left), 0
    head = _never_added(rows, start)
    head = head.take(_uncontradicted(head, known, tick))
    return head.concat(known), len(head) + len(left), len(head)


def _as_opening(rows: FeedRows) -> FeedRows:
    """The same orders as adds of the opening book, which no row of the file stands for."""
    n = len(rows)
    return replace(rows, event=np.full(n, ADD, np.int8), flag=np.full(n, SNAPSHOT, np.int8), source=np.full(n, -1))


def _left_resting(rows: FeedRows, start: int) -> FeedRows:
    """The adds before ``start`` that still rest there, with what is left of them, oldest first."""
    early = rows.take(np.arange(start))
    if start == 0:
        return early
    life, born = dense_ids(early)
    removed = np.isin(early.event, _REMOVES) & (life >= 0)
    left = np.where(born >= 0, early.size[born], 0)
    np.subtract.at(left, life[removed], early.size[removed])
    left[life[removed & (early.event == DELETE)]] = 0  # a delete ends an order whatever its size says
    live = np.flatnonzero(left > 0)
    live = live[np.argsort(born[live])]
    return _as_opening(replace(early.take(born[live]), size=left[live]))


def _never_added(rows: FeedRows, start: int) -> FeedRows:
    """Orders first seen by a cancel or a fill from ``start`` on, as opening adds; ``source`` is that first row.

    Venues number orders as they arrive, so the id stands in for the unknown time of arrival.
    """
    life, born = dense_ids(rows)
    index = np.arange(len(rows))
    late = np.isin(rows.event, _REMOVES) & (life >= 0) & (rows.side != 0) & (index >= start)
    size, first = np.zeros(len(born), np.int64), np.full(len(born), len(rows), np.int64)
    np.add.at(size, life[late], rows.size[late])
    np.minimum.at(first, life[life >= 0], index[life >= 0])
    unknown = np.flatnonzero((born < 0) & (size > 0) & (first >= start))
    unknown = unknown[np.argsort(rows.order_id[first[unknown]], kind="stable")]
    head = _as_opening(rows.take(first[unknown]))
    return replace(
        head,
        time_ns=np.full(len(unknown), rows.time_ns[0]),
        price=resting_price(rows, life, born)[unknown],
        size=size[unknown],
        source=first[unknown] - start,
    )


def _uncontradicted(head: FeedRows, known: FeedRows, tick: int) -> np.ndarray:
    """Indices of the inferred orders that nothing passed over before they were first mentioned.

    An order of the other side at its price or beyond, or a taker that paid a worse price, would have
    traded with it; so it came later, by an add that the feed lacks.
    """
    if len(head) == 0:
        return np.zeros(0, np.int64)
    records, fills, touch, row, _ = rebuild(known, tick, 1)
    opening = int((known.flag & SNAPSHOT != 0).sum())
    before = np.maximum(np.searchsorted(np.maximum.accumulate(row), head.source + opening) - 1, 0)
    # In a crossed book somebody's fills are missing or misattributed: such trades are no evidence.
    crossed = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 0] >= touch[:, 2])
    taken = np.flatnonzero((records["filled"] > 0) & ~np.r_[False, crossed[:-1]])
    of_taker = np.full(int(records["order_id"].max()) + 1, -1)
    of_taker[records["order_id"][taken]] = taken
    at_record = of_taker[fills["taker_id"]]
    price = head.price // tick
    clear = np.ones(len(head), bool)
    for own, best, size in ((BUY, 2, 3), (SELL, 0, 1)):  # prices from the order's side: a lower one passes it over
        quoted = np.minimum.accumulate(np.where(touch[:, size] > 0, own * touch[:, best].astype(np.int64), _FAR))
        traded = np.full(len(records), _FAR)
        hit = (fills["taker_side"] == -own) & (at_record >= 0)
        np.minimum.at(traded, at_record[hit], own * fills["price"][hit].astype(np.int64))
        traded = np.minimum.accumulate(traded)
        mine = head.side == own
        at = before[mine]
        clear[mine] = (own * price[mine] < quoted[at]) & (own * price[mine] <= traded[at])
    return np.flatnonzero(clear)
