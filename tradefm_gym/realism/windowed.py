"""A day recorded within its best levels only, executed beside its book file: the kernels.

An order that leaves the recorded levels gets no further messages, so ids alone do not rebuild such a book. Two
tests stand in for it. *Step*: a message applied to the recorded book of the row before gives the recorded book
of its own row. *Window*: a book that is carried through the whole day by the messages, from which levels that
leave the recorded ones are dropped and to which levels that enter come from the file, as one order each.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.data import live_orders
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HALT, HIDDEN
from tradefm_gym.market import book as books
from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, BookState, Room, reduce, rest
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import BACKGROUND
from tradefm_gym.market.ids import find
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.prices import NODES_A_PRICE, above, below
from tradefm_gym.market.views import first_at
from tradefm_gym.realism.following import (
    ADDS,
    BOOK,
    CANCELS,
    CANCELS_EQUAL,
    CROSS_SIDELESS,
    CROSSES,
    DUPLICATE,
    FILLED,
    FILLED_SIZE,
    FILLS_EQUAL,
    HALTS,
    HIDDEN_SIZE,
    HIDDENS,
    LOGGED,
    OVERSIZE,
    PRIORITY,
    STEP,
    THROUGH,
    UNKNOWN,
    Following,
    depth_at,
    head_of,
    lots_of,
    match,
    note,
    take,
    takes,
)

# Columns of ``counts``.
STEPS, STEPS_EQUAL, REPLAYED, LEVELS_EQUAL, BEST_EQUAL, CROSSED, FROM_LEVEL, ENTERED, LEFT = range(9)
_COUNTS = 9


class Window(NamedTuple):
    """The carried book, a scratch book, and what was recorded after the row before."""

    following: Following
    scratch: BookState
    before: np.ndarray  # (levels, 4) int64 ask price, ask size, bid price, bid size in ticks and lots
    counts: np.ndarray  # (9,) int64

    @classmethod
    def start(cls, tick: int, lot: int, levels: int) -> "Window":
        """Empty books."""
        orders = 2 * levels + 2  # a recorded book and a message
        config = MarketConfig(seats=0, orders=orders, flow_ids=orders)
        room = Room(orders, orders + 2, NODES_A_PRICE * (orders + 4))  # each at a page of its own, and idle ones
        return cls(
            Following.start(tick, lot),
            books.allocate(1, config, room)[1],
            np.zeros((levels, 4), np.int64),
            np.zeros(_COUNTS, np.int64),
        )


def carry_through(window, rows, book, best, log):
    """Carries n rows through both tests.

    Args:
        window: Window, with room for the adds and for two placeholders a level among its live orders.
        rows: time_ns, event, order_id, side, price, size and source of FeedRows, (n,) each.
        book: (n, levels, 4) int64 recorded after each row, ticks and lots.
        best: how many of the levels count for BEST_EQUAL.
        log: (4 n,) DIFFERENCE out.

    Returns:
        The window, whose book may have been widened, and how many differences were written.
    """
    window.following.extremes[LOGGED] = 0
    adds, done = 4 * book.shape[1] + 1, 0  # a row may bring its own order, and one for each level from the file
    while (done := _carry_through(window, rows, book, best, log, adds, done)) < len(book):
        window = window._replace(following=window.following.widened(adds))
    return window, int(window.following.extremes[LOGGED])


@njit(cache=True, nogil=True)
def _carry_through(window, rows, book, best, log, adds, first):
    """Carries rows from ``first`` on; returns the row before which the book has to be widened, or n."""
    time_ns, event, order_id, side, price, size, source = rows
    state, counts = window.following, window.counts
    for i in range(first, len(time_ns)):
        if not takes(state.book, adds):
            return i
        started = counts[REPLAYED] > 0
        if started:
            counts[STEPS] += 1
            ticks, lots = price[i] // state.units[0], lots_of(state, size[i])
            if _step(window.scratch, window.before, book[i], event[i], side[i], ticks, lots):
                counts[STEPS_EQUAL] += 1
            else:
                note(state, log, STEP, 0, i, time_ns, event, order_id, side, price, size, source)
        _apply(window, log, started, i, time_ns, event, order_id, side, price, size, source)
        equal = _reconcile(window, book[i], started, time_ns[i])
        counts[REPLAYED] += 1
        counts[LEVELS_EQUAL] += equal >= book.shape[1]
        counts[BEST_EQUAL] += equal >= best
        if equal < book.shape[1]:
            note(state, log, BOOK, equal, i, time_ns, event, order_id, side, price, size, source)
        row = state.book.row
        counts[CROSSED] += row[0, BEST] >= row[0, BEST + 1]
        window.before[:] = book[i]
    return len(time_ns)


@njit(cache=True, nogil=True)
def _step(book, before, after, event, side, ticks, lots):
    """Whether a message leads from one recorded book to the next, at every level visible in both."""
    levels = len(before)
    for s in range(2):
        for level in range(levels):
            depth = before[level, 3 - 2 * s]
            if depth > 0:
                rest(book, 0, s * levels + level, 0, before[level, 2 - 2 * s], depth, np.int64(BACKGROUND), s)
    s = 0 if side > 0 else 1
    if event == ADD:
        rest(book, 0, 2 * levels, 0, ticks, lots, np.int64(BACKGROUND), s)
    elif event <= EXECUTION:
        for level in range(levels):
            if before[level, 2 - 2 * s] == ticks and before[level, 3 - 2 * s] > 0:
                slot = find(book, 0, np.int64(BACKGROUND), s * levels + level)
                reduce(book, 0, slot, min(lots, np.int64(book.orders[0, slot]["size"])))
    equal = _side_equal(book, before, after, 0) and _side_equal(book, before, after, 1)
    for order_id in range(2 * levels + 1):
        slot = find(book, 0, np.int64(BACKGROUND), order_id)
        if slot >= 0:
            reduce(book, 0, slot, np.int64(book.orders[0, slot]["size"]))
    return equal


@njit(cache=True, nogil=True)
def _side_equal(book, before, after, s):
    """Whether a side of the book equals ``after`` as far as both recorded books reach."""
    levels, sign = len(before), 1 - 2 * s
    worst = np.int64(-(2**62))  # times the sign: what lies below is not visible in both
    for recorded in (before, after):
        if recorded[levels - 1, 3 - 2 * s] > 0:
            worst = max(worst, sign * recorded[levels - 1, 2 - 2 * s])
    price = _first(book, s)
    for level in range(levels):
        wanted, lots = after[level, 2 - 2 * s], after[level, 3 - 2 * s]
        if lots == 0 or sign * wanted < worst:
            break
        if price != wanted or depth_at(book, s, price) != lots:
            return False
        price = _next(book, s, price)
    return price < 0 or sign * price < worst


@njit(cache=True, nogil=True)
def _first(book, s):
    price = book.row[0, BEST + s]
    return np.int64(-1) if price == EMPTY_BID or price == EMPTY_ASK else price


@njit(cache=True, nogil=True)
def _next(book, s, price):
    return below(book, 0, 0, price - 1) if s == 0 else above(book, 0, 1, price + 1)


@njit(cache=True, nogil=True)
def _apply(window, log, started, i, time_ns, event, order_id, side, price, size, source):
    """Carries out a message by id; one that names no known order acts on the level that came from the file."""
    state, live, kind = window.following, window.following.live, event[i]
    totals = state.totals
    if kind == ADD:
        totals[ADDS] += 1
        if live_orders.find(live, order_id[i]) >= 0:
            note(state, log, DUPLICATE, 0, i, time_ns, event, order_id, side, price, size, source)
        else:
            _rest(state, order_id[i], side[i], price[i], size[i], time_ns[i])
        return
    if kind == HIDDEN or kind == HALT or kind == CROSS:
        totals[HIDDENS] += kind == HIDDEN
        totals[HIDDEN_SIZE] += size[i] if kind == HIDDEN else 0
        totals[HALTS] += kind == HALT
        totals[CROSSES] += kind == CROSS
        totals[CROSS_SIDELESS] += size[i] if kind == CROSS else 0
        return
    fill = kind == EXECUTION
    totals[FILLED if fill else CANCELS] += 1
    totals[FILLED_SIZE] += size[i] if fill else 0
    place = live_orders.find(live, order_id[i])
    known = place >= 0
    if not known:
        window.counts[FROM_LEVEL] += 1
        place = live_orders.find(live, _placeholder(side[i], price[i]))
    if place < 0 or live.price[place] != price[i] or live.side[place] != side[i]:
        # The first message of a file may concern a level that it removes.
        if not started:
            totals[FILLS_EQUAL if fill else CANCELS_EQUAL] += 1
        else:
            note(state, log, UNKNOWN, 0, i, time_ns, event, order_id, side, price, size, source)
        return
    left = live.left[place]
    equal = size[i] <= left and (kind != DELETE or not known or size[i] == left)
    if not equal:
        note(state, log, OVERSIZE, left, i, time_ns, event, order_id, side, price, size, source)
    taken = left if kind == DELETE and known else min(left, size[i])
    totals[FILLS_EQUAL if fill else CANCELS_EQUAL] += equal
    if not fill or not equal:
        take(state, place, taken)
        return
    head = head_of(state, np.int64(0) if side[i] > 0 else np.int64(1))
    if head == place:
        match(state, place, taken, np.int64(0) if side[i] > 0 else np.int64(1), time_ns[i])
        return
    if live.price[head] != live.price[place]:
        note(state, log, THROUGH, live.order_id[head], i, time_ns, event, order_id, side, price, size, source)
    elif known and live.order_id[head] > 0:
        note(state, log, PRIORITY, live.order_id[head], i, time_ns, event, order_id, side, price, size, source)
    take(state, place, taken)


@njit(cache=True, nogil=True)
def _placeholder(side, price):
    """The id of the order that stands for a level from the file: no venue's, since it is negative."""
    return -2 - 2 * price - (side < 0)


@njit(cache=True, nogil=True)
def _rest(state, order_id, side, price, size, now):
    place = live_orders.insert(state.live, order_id, side, price, size)
    s = np.int64(0) if side > 0 else np.int64(1)
    rest(state.book, 0, place, now, price // state.units[0], lots_of(state, size), np.int64(BACKGROUND), s)


@njit(cache=True, nogil=True)
def _reconcile(window, recorded, started, now):
    """Drops what left the recorded levels, takes in what entered them, compares; how many levels are equal.

    What differs is set to what was recorded, so that one difference does not bring about others.
    """
    state, counts = window.following, window.counts
    book, tick, lot = state.book, state.units[0], state.units[1]
    levels = len(recorded)
    equal = levels
    for s in range(2):
        sign = 1 - 2 * s
        side = np.int8(sign)
        full = recorded[levels - 1, 3 - 2 * s] > 0
        worst = sign * recorded[levels - 1, 2 - 2 * s]
        seen_full = started and window.before[levels - 1, 3 - 2 * s] > 0
        seen = sign * window.before[levels - 1, 2 - 2 * s]
        for level in range(levels):  # entering
            ticks, lots = recorded[level, 2 - 2 * s], recorded[level, 3 - 2 * s]
            if lots == 0:
                break
            outside = not started or (seen_full and sign * ticks < seen)
            missing = lots - depth_at(state.book, s, ticks)
            # A level that comes from outside may have got its message already: the rest of it is older.
            if missing > 0 and outside:
                counts[ENTERED] += 1
                _rest(state, _placeholder(side, ticks * tick), side, ticks * tick, missing * lot, now)
        price = _first(book, s)
        for level in range(levels):
            ticks, lots = recorded[level, 2 - 2 * s], recorded[level, 3 - 2 * s]
            while price >= 0 and (lots == 0 or sign * price > sign * ticks):  # a level too many
                if not (full and sign * price < worst):
                    equal = min(equal, level)
                _drop(state, s, price)
                price = _next(book, s, price)
            if lots == 0:
                break
            if depth_at(state.book, s, ticks) != lots:
                equal = min(equal, level)
                _drop(state, s, ticks)
                _rest(state, _placeholder(side, ticks * tick), side, ticks * tick, lots * lot, now)
            price = _next(book, s, ticks)
        while price >= 0:  # beyond the recorded levels
            counts[LEFT] += 1
            _drop(state, s, price)
            price = _next(book, s, price)
    return equal


@njit(cache=True, nogil=True)
def _drop(state, s, ticks):
    """Removes all orders of a level."""
    live = state.live
    while depth_at(state.book, s, ticks) > 0:
        place = np.int64(state.book.orders[0, first_at(state.book, 0, s, ticks)]["order_id"])
        take(state, place, live.left[place])
