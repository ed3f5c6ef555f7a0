"""Reading a book: levels and queues, with or without somebody's own orders, and where a cancel finds its order.

Row kernels come first, then the batched readers over N markets. ``without`` names whose orders are
overlooked: a seat, ``ANY_AGENT`` or ``NOBODY``.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.market.book import ANY_AGENT, EMPTY_ASK, EMPTY_BID, NOBODY, open_book
from tradefm_gym.market.compiler import INLINE, KERNEL, PARALLEL, SERIAL
from tradefm_gym.market.features import size_code
from tradefm_gym.market.ids import find
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.prices import above, below, next_of_page, occupied
from tradefm_gym.market.resolve import is_empty


@njit(**INLINE)
def first_at(book, m, s, price):
    """First order in the queue of an occupied price."""
    return np.int64(book.levels[m, occupied(book, m, s, price)]["head"])


@njit(**INLINE)
def touch_of(book, m):
    """Spread in ticks, 0 while a side is empty, and the codes of the lots at the best bid and ask."""
    bid, ask = book.row[m, BEST], book.row[m, BEST + 1]
    bid_size, ask_size = np.int64(0), np.int64(0)
    if bid != EMPTY_BID:
        bid_size = size_code(book.levels[m, occupied(book, m, np.int64(0), bid)]["depth"])
    if ask != EMPTY_ASK:
        ask_size = size_code(book.levels[m, occupied(book, m, np.int64(1), ask)]["depth"])
    return ask - bid if bid != EMPTY_BID and ask != EMPTY_ASK else np.int64(0), bid_size, ask_size


@njit(**KERNEL)
def newest_background(book, m, s, price):
    """Last background order in the queue of an occupied price, -1 if it has none."""
    slot = np.int64(book.levels[m, occupied(book, m, s, price)]["tail"])
    while slot >= 0 and book.orders[m, slot]["owner"] >= 0:
        slot = np.int64(book.orders[m, slot]["prev"])
    return slot


@njit(**KERNEL)
def nearest_background(book, m, s, price):
    """Newest background order of the level nearest to ``price``, -1 if the side has none.

    Levels that hold only agents' orders are passed over; of two equally near the one nearer the touch counts.
    """
    low = below(book, m, s, price)
    low_slot = np.int64(-1)
    while low >= 0:
        low_slot = newest_background(book, m, s, low)
        if low_slot >= 0:
            break
        low = below(book, m, s, low - 1)
    if low == price:
        return low_slot
    high = above(book, m, s, price)
    high_slot = np.int64(-1)
    while high >= 0:
        high_slot = newest_background(book, m, s, high)
        if high_slot >= 0:
            break
        high = above(book, m, s, high + 1)
    if low_slot < 0 or high_slot < 0:
        return max(low_slot, high_slot)
    nearer = high - price < price - low or (high - price == price - low and s == 0)
    return high_slot if nearer else low_slot


@njit(**INLINE)
def next_level(book, m, s, price):
    """The best occupied price worse than ``price``; EMPTY_BID or EMPTY_ASK at the end."""
    following = next_of_page(book, m, s, price)  # mostly it is
    return following if following >= 0 else _next_page(book, m, s, price)


@njit(**KERNEL)
def _next_page(book, m, s, price):
    found = below(book, m, s, price - 1) if s == 0 else above(book, m, s, price + 1)
    if found < 0:
        found = np.int64(EMPTY_BID) if s == 0 else np.int64(EMPTY_ASK)
    return found


@njit(**INLINE)
def _overlooked(owner, without):
    return owner == without or (without == ANY_AGENT and owner >= 0)


@njit(**INLINE)
def level_size(book, m, s, price, without):
    """Lots at an occupied price."""
    if without == NOBODY:
        return np.int64(book.levels[m, occupied(book, m, s, price)]["depth"])
    return _size_without(book, m, s, price, without)


@njit(**KERNEL)
def _size_without(book, m, s, price, without):
    lots = np.int64(0)
    slot = first_at(book, m, s, price)
    while slot >= 0:
        order = book.orders[m, slot]
        if not _overlooked(order["owner"], without):
            lots += order["size"]
        slot = np.int64(order["next"])
    return lots


@njit(**KERNEL)
def best_without(book, m, s, without):
    """The best price at which somebody else rests; EMPTY_BID or EMPTY_ASK if nobody does."""
    price = book.row[m, BEST + s]
    while without != NOBODY and not is_empty(price):
        slot = first_at(book, m, s, price)
        while slot >= 0 and _overlooked(book.orders[m, slot]["owner"], without):
            slot = np.int64(book.orders[m, slot]["next"])
        if slot >= 0:
            break
        price = next_level(book, m, s, price)
    return price


@njit(**KERNEL)
def best_of_size(book, m, s, least):
    """The best price at which the background rests, or down to which agents' orders add up to ``least`` lots."""
    price, lots = book.row[m, BEST + s], np.int64(0)
    while not is_empty(price):
        slot = first_at(book, m, s, price)
        while slot >= 0:
            order = book.orders[m, slot]
            lots += order["size"]
            if order["owner"] < 0 or lots >= least:
                return np.int64(price)
            slot = np.int64(order["next"])
        price = next_level(book, m, s, price)
    return np.int64(price)


@njit(**KERNEL)
def _read_touch(book_memory, m, without, out):
    book = open_book(book_memory)
    for s in range(2):
        price = best_without(book, m, s, without)
        out[m, s] = 0 if is_empty(price) else price


@njit(**KERNEL)
def read_depth_row(book_memory, m, without, prices, sizes):
    """The best levels of one row to row m of prices and sizes (N, 2, k) int64, 0 where there is none."""
    book = open_book(book_memory)
    for s in range(2):
        price = book.row[m, BEST + s]
        k = 0
        while k < prices.shape[2] and not is_empty(price):
            lots = level_size(book, m, s, price, without)
            if lots > 0:
                prices[m, s, k] = price
                sizes[m, s, k] = lots
                k += 1
            price = next_level(book, m, s, price)
        for rest in range(k, prices.shape[2]):
            prices[m, s, rest] = 0
            sizes[m, s, rest] = 0


@njit(**KERNEL)
def lots_ahead(book, m, slot):
    """Lots before an order in the queue of its price."""
    lots = np.int64(0)
    slot = np.int64(book.orders[m, slot]["prev"])
    while slot >= 0:
        lots += book.orders[m, slot]["size"]
        slot = np.int64(book.orders[m, slot]["prev"])
    return lots


@njit(**KERNEL)
def queue_ahead_row(book_memory, m, owner, order_id):
    """Lots ahead of an owner's order in one row, -1 if it is not live."""
    book = open_book(book_memory)
    slot = find(book, m, owner, order_id)
    return lots_ahead(book, m, slot) if slot >= 0 else np.int64(-1)


@njit(**KERNEL)
def _read_orders(book_memory, m, owner, order_ids, prices, sizes, ahead):
    book = open_book(book_memory)
    for k in range(order_ids.shape[1]):
        slot = find(book, m, owner, order_ids[m, k])
        prices[m, k] = 0
        sizes[m, k] = 0
        ahead[m, k] = -1
        if slot >= 0:
            prices[m, k] = book.orders[m, slot]["price"]
            sizes[m, k] = book.orders[m, slot]["size"]
            ahead[m, k] = lots_ahead(book, m, slot)


# --- Over all markets, in this thread or over all -----------------------------------------------------


@njit(**SERIAL)
def read_touch(book_memory, without, out):
    """Best prices to ``out`` (N, 2) int64, 0 for an empty side."""
    for m in range(out.shape[0]):
        _read_touch(book_memory, m, without, out)


@njit(**PARALLEL)
def read_touch_parallel(book_memory, without, out):
    """As :func:`read_touch`, over the threads."""
    for m in prange(out.shape[0]):
        _read_touch(book_memory, m, without, out)


@njit(**SERIAL)
def read_depth(book_memory, without, prices, sizes):
    """The first k levels of each side to (N, 2, k) int64; missing levels are 0."""
    for m in range(prices.shape[0]):
        read_depth_row(book_memory, m, without, prices, sizes)


@njit(**PARALLEL)
def read_depth_parallel(book_memory, without, prices, sizes):
    """As :func:`read_depth`, over the threads."""
    for m in prange(prices.shape[0]):
        read_depth_row(book_memory, m, without, prices, sizes)


@njit(**SERIAL)
def read_orders(book_memory, owner, order_ids, prices, sizes, ahead):
    """Price, remaining lots and lots ahead of live orders, (N, k); dead ones read 0, 0 and -1."""
    for m in range(order_ids.shape[0]):
        _read_orders(book_memory, m, owner, order_ids, prices, sizes, ahead)


@njit(**PARALLEL)
def read_orders_parallel(book_memory, owner, order_ids, prices, sizes, ahead):
    """As :func:`read_orders`, over the threads."""
    for m in prange(order_ids.shape[0]):
        _read_orders(book_memory, m, owner, order_ids, prices, sizes, ahead)
