"""N limit order books in flat arrays, and the kernels that work on one of them.

Each side of a book keeps a dense window of P price levels around its best price: a level is a FIFO queue
of pool slots, and a two-level bitmap finds the next occupied one in a few instructions. Level ``price``
lies at ``price mod P``, so the window can move without moving anything. Orders beyond the window (always
worse than all within it) wait in one list per side in order of arrival; when the window moves over them
they return, and since both lists are in order of arrival, time priority within a price is never broken.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import BACKGROUND, ORDER

MIN_PRICE = 1
MAX_PRICE = 2**30 - 1  # two of them still fit the int32 of a doubled mid
EMPTY_BID = 0  # best price of an empty side: worse than any
EMPTY_ASK = 2**30

# A price level: the queue's first and last slot (valid while depth > 0) and the lots in it.
LEVEL = np.dtype([("head", np.int32), ("tail", np.int32), ("depth", np.int64)], align=True)

# Columns of ``row``; those with a side come in pairs, bid first.
BASE = 0  # lowest price of the window
BEST = 2
FAR_HEAD = 4
FAR_TAIL = 6
FAR_COUNT = 8
FREE = 10  # first free slot, linked by ``next``
HIGH_WATER = 11  # slots ever used
LIVE = 12  # resting orders
BACKGROUND_LIVE = 13  # of them background
NEXT_ID = 14  # one more than the largest background id seen
RECENTRED = 15  # times a window was moved
ROW_WIDTH = 16

ANY_AGENT = -2  # as ``without``: leaves background orders only
NOBODY = -3

# Loops over markets, in the calling thread or over all.
SERIAL: dict[str, Any] = {"cache": True, "nogil": True}
PARALLEL: dict[str, Any] = {"cache": True, "nogil": True, "parallel": True}
# Row kernels allocate nothing, so they are compiled without reference counts.
KERNEL: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "_nrt": False,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
INLINE: dict[str, Any] = {**KERNEL, "forceinline": True}

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL = np.uint64(2**64 - 1)


class BookState(NamedTuple):
    """N books. A slot is dead when its size is 0; an id is dead when its entry is 0."""

    orders: np.ndarray  # (N, M) ORDER, the pool
    levels: np.ndarray  # (N, 2, P) LEVEL
    bits: np.ndarray  # (N, 2, P / 64 + 1) uint64: occupied levels; the last word: occupied words
    flow_slots: np.ndarray  # (N, flow_ids up to a power of two) int32: slot + 1 of id mod length
    agent_slots: np.ndarray  # (N, A, agent_ids) int32: slot + 1
    row: np.ndarray  # (N, ROW_WIDTH) int64, the columns above

    @classmethod
    def allocate(cls, num_markets: int, config: MarketConfig) -> "BookState":
        """Empty books."""
        flow_ids = 1 << (config.flow_ids - 1).bit_length()
        book = cls(
            np.zeros((num_markets, config.orders), ORDER),
            np.zeros((num_markets, 2, config.levels), LEVEL),
            np.zeros((num_markets, 2, config.levels // 64 + 1), np.uint64),
            np.zeros((num_markets, flow_ids), np.int32),
            np.zeros((num_markets, config.seats, config.agent_ids), np.int32),
            np.zeros((num_markets, ROW_WIDTH), np.int64),
        )
        book.row[:, FREE] = -1
        book.row[:, BEST + 1] = EMPTY_ASK
        book.row[:, FAR_HEAD : FAR_HEAD + 4] = -1
        return book


# --- Orders: find, rest, reduce, remove -------------------------------------------------------------


@njit(**INLINE)
def find(book, m, owner, order_id):
    """Slot of a live order, -1 if there is none."""
    if owner >= 0:
        if order_id < 0 or order_id >= book.agent_slots.shape[2]:
            return np.int64(-1)
        return np.int64(book.agent_slots[m, owner, order_id]) - 1
    if order_id < 0:
        return np.int64(-1)
    slot = np.int64(book.flow_slots[m, order_id & (book.flow_slots.shape[1] - 1)]) - 1
    if slot >= 0 and book.orders[m, slot]["order_id"] != order_id:
        return np.int64(-1)
    return slot


@njit(**INLINE)
def id_is_free(book, m, owner, order_id):
    """Whether a new order may carry this id."""
    if owner >= 0:
        return 0 <= order_id < book.agent_slots.shape[2] and book.agent_slots[m, owner, order_id] == 0
    return order_id >= 0 and book.flow_slots[m, order_id & (book.flow_slots.shape[1] - 1)] == 0


@njit(**KERNEL)
def next_free_id(book, m):
    """The next background id; skips those whose place an older order still holds."""
    order_id = book.row[m, NEXT_ID]
    for _ in range(book.flow_slots.shape[1]):
        if id_is_free(book, m, np.int64(BACKGROUND), order_id):
            break
        order_id += 1
    return order_id


@njit(**INLINE)
def rest(book, m, order_id, now, price, size, owner, s):
    """Adds an order behind its price level on side ``s`` (0 bid, 1 ask); returns -1 when the pool is full."""
    row = book.row
    slot = row[m, FREE]
    if slot >= 0:
        row[m, FREE] = book.orders[m, slot]["next"]
    else:
        slot = row[m, HIGH_WATER]
        if slot == book.orders.shape[1]:
            return np.int64(-1)
        row[m, HIGH_WATER] = slot + 1
    order = book.orders[m, slot]
    order["order_id"] = order_id
    order["time_ns"] = now
    order["price"] = price
    order["size"] = size
    order["owner"] = owner
    order["side"] = 1 - 2 * s
    best = row[m, BEST + s]
    if s == 0:
        if price > best:
            if best == EMPTY_BID or price >= row[m, BASE] + book.levels.shape[2]:
                _recentre(book, m, s, price)
            row[m, BEST] = price
    elif price < best:
        if best == EMPTY_ASK or price < row[m, BASE + 1]:
            _recentre(book, m, s, price)
        row[m, BEST + 1] = price
    if in_window(book, m, s, price):
        _link(book, m, s, slot, price)
    else:
        _link_far(book, m, s, slot)
    row[m, LIVE] += 1
    if owner >= 0:
        book.agent_slots[m, owner, order_id] = slot + 1
    else:
        book.flow_slots[m, order_id & (book.flow_slots.shape[1] - 1)] = slot + 1
        row[m, BACKGROUND_LIVE] += 1
    return slot


@njit(**INLINE)
def reduce(book, m, slot, size):
    """Takes ``size`` lots off an order, which keeps its place; at nothing left it is removed."""
    order = book.orders[m, slot]
    price = np.int64(order["price"])
    left = np.int64(order["size"]) - size
    order["size"] = left
    s = 0 if order["side"] > 0 else 1
    if in_window(book, m, s, price):
        book.levels[m, s, price & (book.levels.shape[2] - 1)]["depth"] -= size
    if left == 0:
        _remove(book, m, slot)


@njit(**INLINE)
def _remove(book, m, slot):
    """Unlinks an order of size 0, frees its slot and its id, and finds the next best price if it was alone."""
    order = book.orders[m, slot]
    row = book.row
    price = np.int64(order["price"])
    owner = np.int64(order["owner"])
    s = 0 if order["side"] > 0 else 1
    if in_window(book, m, s, price):
        _unlink(book, m, s, slot, price)
    else:
        _unlink_far(book, m, s, slot)
    row[m, LIVE] -= 1
    if owner >= 0:
        book.agent_slots[m, owner, order["order_id"]] = 0
    else:
        book.flow_slots[m, order["order_id"] & (book.flow_slots.shape[1] - 1)] = 0
        row[m, BACKGROUND_LIVE] -= 1
    order["next"] = row[m, FREE]
    row[m, FREE] = slot
    if price == row[m, BEST + s] and book.levels[m, s, price & (book.levels.shape[2] - 1)]["depth"] == 0:
        _retreat(book, m, s)


@njit(**INLINE)
def in_window(book, m, s, price):
    """Whether a price lies in the dense window of its side."""
    return 0 <= price - book.row[m, BASE + s] < book.levels.shape[2]


@njit(**INLINE)
def _link(book, m, s, slot, price):
    """Puts an order at the end of its level's queue."""
    order = book.orders[m, slot]
    level = book.levels[m, s, price & (book.levels.shape[2] - 1)]
    if level["depth"] == 0:
        order["prev"] = -1
        level["head"] = slot
        _mark(book, m, s, price)
    else:
        tail = level["tail"]
        order["prev"] = tail
        book.orders[m, tail]["next"] = slot
    order["next"] = -1
    level["tail"] = slot
    level["depth"] += order["size"]


@njit(**INLINE)
def _unlink(book, m, s, slot, price):
    """Takes an order out of its level's queue; the level's depth is the caller's."""
    order = book.orders[m, slot]
    earlier, later = order["prev"], order["next"]
    level = book.levels[m, s, price & (book.levels.shape[2] - 1)]
    if earlier >= 0:
        book.orders[m, earlier]["next"] = later
    else:
        level["head"] = later
    if later >= 0:
        book.orders[m, later]["prev"] = earlier
    else:
        level["tail"] = earlier
    if earlier < 0 and later < 0:
        _unmark(book, m, s, price)


@njit(**KERNEL)
def _link_far(book, m, s, slot):
    row = book.row
    order = book.orders[m, slot]
    tail = row[m, FAR_TAIL + s]
    order["prev"] = tail
    order["next"] = -1
    if tail >= 0:
        book.orders[m, tail]["next"] = slot
    else:
        row[m, FAR_HEAD + s] = slot
    row[m, FAR_TAIL + s] = slot
    row[m, FAR_COUNT + s] += 1


@njit(**KERNEL)
def _unlink_far(book, m, s, slot):
    row = book.row
    earlier, later = book.orders[m, slot]["prev"], book.orders[m, slot]["next"]
    if earlier >= 0:
        book.orders[m, earlier]["next"] = later
    else:
        row[m, FAR_HEAD + s] = later
    if later >= 0:
        book.orders[m, later]["prev"] = earlier
    else:
        row[m, FAR_TAIL + s] = earlier
    row[m, FAR_COUNT + s] -= 1


# --- The window ---------------------------------------------------------------------------------------


@njit(**KERNEL)
def _retreat(book, m, s):
    """Finds the best price after the best level emptied, and draws the window after it."""
    row, span = book.row, book.levels.shape[2]
    best = row[m, BEST + s]
    found = below(book, m, s, best) if s == 0 else above(book, m, s, best)
    if row[m, FAR_COUNT + s] > 0:
        if found < 0:
            found = far_best(book, m, s)
            _recentre(book, m, s, found)
        else:
            # Before the best price reaches the rim, beyond which new orders would pile up in the far list.
            offset = found - row[m, BASE + s]
            if (offset if s == 0 else span - 1 - offset) < span // 8:
                _recentre(book, m, s, found)
    if found < 0:
        found = np.int64(EMPTY_BID) if s == 0 else np.int64(EMPTY_ASK)
    row[m, BEST + s] = found


@njit(**KERNEL)
def _recentre(book, m, s, best):
    """Moves a window so that three quarters of it lie behind ``best``; levels leave and far orders return."""
    row, span = book.row, book.levels.shape[2]
    base = best - 3 * (span // 4) if s == 0 else best - span // 4
    row[m, RECENTRED] += 1
    price = above(book, m, s, row[m, BASE + s])
    while price >= 0:
        if not 0 <= price - base < span:
            level = book.levels[m, s, price & (span - 1)]
            slot = np.int64(level["head"])
            level["depth"] = 0
            _unmark(book, m, s, price)
            while slot >= 0:
                later = np.int64(book.orders[m, slot]["next"])
                _link_far(book, m, s, slot)
                slot = later
        price = above(book, m, s, price + 1)
    row[m, BASE + s] = base
    slot = row[m, FAR_HEAD + s]
    while slot >= 0:
        later = np.int64(book.orders[m, slot]["next"])
        price = np.int64(book.orders[m, slot]["price"])
        if 0 <= price - base < span:
            _unlink_far(book, m, s, slot)
            _link(book, m, s, slot, price)
        slot = later


@njit(**INLINE)
def _mark(book, m, s, price):
    position = price & (book.levels.shape[2] - 1)
    word = position >> 6
    last = book.bits.shape[2] - 1
    book.bits[m, s, word] |= _ONE << np.uint64(position & 63)
    book.bits[m, s, last] |= _ONE << np.uint64(word)


@njit(**INLINE)
def _unmark(book, m, s, price):
    position = price & (book.levels.shape[2] - 1)
    word = position >> 6
    last = book.bits.shape[2] - 1
    left = book.bits[m, s, word] & ~(_ONE << np.uint64(position & 63))
    book.bits[m, s, word] = left
    if left == _ZERO:
        book.bits[m, s, last] &= ~(_ONE << np.uint64(word))


@njit(**KERNEL)
def below(book, m, s, price):
    """The highest occupied price of the window at or below ``price``, -1 if there is none."""
    span = book.levels.shape[2]
    base = book.row[m, BASE + s]
    if price < base:
        return np.int64(-1)
    price = min(price, base + span - 1)
    position = price & (span - 1)
    word = position >> 6
    within = book.bits[m, s, word] & (_ALL >> np.uint64(63 - (position & 63)))
    if within != _ZERO:
        found = price - (position & 63) + _highest(within)
        return found if found >= base else np.int64(-1)
    summary = book.bits[m, s, book.bits.shape[2] - 1]
    lower = summary & ((_ONE << np.uint64(word)) - _ONE)
    wrapped = 0
    if lower == _ZERO:  # around the end of the circle
        lower = summary
        wrapped = span
        if lower == _ZERO:
            return np.int64(-1)
    word = _highest(lower)
    found = price - position - wrapped + word * 64 + _highest(book.bits[m, s, word])
    return found if found >= base else np.int64(-1)


@njit(**KERNEL)
def above(book, m, s, price):
    """The lowest occupied price of the window at or above ``price``, -1 if there is none."""
    span = book.levels.shape[2]
    base = book.row[m, BASE + s]
    if price >= base + span:
        return np.int64(-1)
    price = max(price, base)
    position = price & (span - 1)
    word = position >> 6
    within = book.bits[m, s, word] & (_ALL << np.uint64(position & 63))
    if within != _ZERO:
        found = price - (position & 63) + _lowest(within)
        return found if found < base + span else np.int64(-1)
    summary = book.bits[m, s, book.bits.shape[2] - 1]
    upper = summary & ((_ALL << np.uint64(word)) << _ONE)
    wrapped = 0
    if upper == _ZERO:
        upper = summary
        wrapped = span
        if upper == _ZERO:
            return np.int64(-1)
    word = _lowest(upper)
    found = price - position + wrapped + word * 64 + _lowest(book.bits[m, s, word])
    return found if found < base + span else np.int64(-1)


@njit(**KERNEL)
def far_best(book, m, s):
    """The best price in the far list, -1 if it is empty."""
    found = np.int64(-1)
    slot = book.row[m, FAR_HEAD + s]
    while slot >= 0:
        order = book.orders[m, slot]
        price = np.int64(order["price"])
        if found < 0 or (price > found if s == 0 else price < found):
            found = price
        slot = np.int64(order["next"])
    return found


@njit(**INLINE)
def _highest(word):
    """Index of the highest set bit of a uint64 that is not 0."""
    index = 0
    for width in (32, 16, 8, 4, 2, 1):
        if (word >> np.uint64(width)) != _ZERO:
            word = word >> np.uint64(width)
            index += width
    return index


@njit(**INLINE)
def _lowest(word):
    """Index of the lowest set bit of a uint64 that is not 0."""
    index = 0
    for width in (32, 16, 8, 4, 2, 1):
        if (word & ((_ONE << np.uint64(width)) - _ONE)) == _ZERO:
            word = word >> np.uint64(width)
            index += width
    return index
