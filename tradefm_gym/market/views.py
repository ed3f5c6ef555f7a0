"""Reading a book: levels and queues, with or without somebody's own orders, and where a cancel finds its order.

Row kernels come first, then the batched readers over N markets. ``without`` names whose orders are
overlooked: a seat, ``ANY_AGENT`` or ``NOBODY``.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.market.book import (
    ANY_AGENT,
    BASE,
    BEST,
    EMPTY_ASK,
    EMPTY_BID,
    FAR_COUNT,
    FAR_HEAD,
    FAR_TAIL,
    INLINE,
    KERNEL,
    NOBODY,
    PARALLEL,
    SERIAL,
    above,
    below,
    find,
    in_window,
)


@njit(**INLINE)
def is_empty(price):
    """Whether a best price says that its side is empty."""
    return price == EMPTY_BID or price == EMPTY_ASK


@njit(**INLINE)
def later(book, m, slot):
    """The next order of the same price, -1 at the end. In the far list other prices lie between."""
    price = book.orders[m, slot]["price"]
    slot = np.int64(book.orders[m, slot]["next"])
    while slot >= 0 and book.orders[m, slot]["price"] != price:
        slot = np.int64(book.orders[m, slot]["next"])
    return slot


@njit(**INLINE)
def earlier(book, m, slot):
    """The previous order of the same price, -1 at the front."""
    price = book.orders[m, slot]["price"]
    slot = np.int64(book.orders[m, slot]["prev"])
    while slot >= 0 and book.orders[m, slot]["price"] != price:
        slot = np.int64(book.orders[m, slot]["prev"])
    return slot


@njit(**KERNEL)
def oldest(book, m, s, price):
    """First order in the queue of a price, -1 if there is none."""
    if in_window(book, m, s, price):
        level = book.levels[m, s, price & (book.levels.shape[2] - 1)]
        return np.int64(level["head"]) if level["depth"] > 0 else np.int64(-1)
    slot = book.row[m, FAR_HEAD + s]
    while slot >= 0 and book.orders[m, slot]["price"] != price:
        slot = np.int64(book.orders[m, slot]["next"])
    return slot


@njit(**KERNEL)
def newest_background(book, m, s, price):
    """Last background order in the queue of a price, -1 if there is none."""
    if in_window(book, m, s, price):
        level = book.levels[m, s, price & (book.levels.shape[2] - 1)]
        slot = np.int64(level["tail"]) if level["depth"] > 0 else np.int64(-1)
    else:
        slot = book.row[m, FAR_TAIL + s]
        while slot >= 0 and book.orders[m, slot]["price"] != price:
            slot = np.int64(book.orders[m, slot]["prev"])
    while slot >= 0 and book.orders[m, slot]["owner"] >= 0:
        slot = earlier(book, m, slot)
    return slot


@njit(**KERNEL)
def nearest_background(book, m, s, price):
    """Newest background order of the level nearest to ``price``, -1 if the side has none.

    Levels that hold only agents' orders are passed over; of two equally near the one nearer the touch counts.
    """
    span = book.levels.shape[2]
    base = book.row[m, BASE + s]
    start = min(max(price, base), base + span - 1)
    low = below(book, m, s, start)
    low_slot = np.int64(-1)
    while low >= 0:
        low_slot = newest_background(book, m, s, low)
        if low_slot >= 0:
            break
        low = below(book, m, s, low - 1)
    high = above(book, m, s, start)
    high_slot = np.int64(-1)
    while high >= 0:
        high_slot = newest_background(book, m, s, high)
        if high_slot >= 0:
            break
        high = above(book, m, s, high + 1)
    slot, distance = low_slot, abs(price - low)
    if high_slot >= 0 and (slot < 0 or abs(high - price) < distance or (abs(high - price) == distance and s == 0)):
        slot, distance = high_slot, abs(high - price)
    if book.row[m, FAR_COUNT + s] > 0:
        rim = max(price - (base - 1), 0) if s == 0 else max(base + span - price, 0)
        if slot < 0 or rim < distance:
            far = _nearest_far(book, m, s, price)
            if far >= 0 and (slot < 0 or abs(price - book.orders[m, far]["price"]) < distance):
                slot = far
    return slot


@njit(**KERNEL)
def _nearest_far(book, m, s, price):
    found = np.int64(-1)
    best = np.int64(0)
    distance = np.int64(0)
    slot = book.row[m, FAR_TAIL + s]
    while slot >= 0:
        order = book.orders[m, slot]
        if order["owner"] < 0:
            at = np.int64(order["price"])
            away = abs(price - at)
            nearer = away < distance or (away == distance and (at > best if s == 0 else at < best))
            if found < 0 or nearer:  # from the back, so the first of a price is its newest
                found, best, distance = slot, at, away
        slot = np.int64(order["prev"])
    return found


@njit(**KERNEL)
def next_level(book, m, s, price):
    """The best price worse than ``price``, far orders included; EMPTY_BID or EMPTY_ASK at the end."""
    found = below(book, m, s, price - 1) if s == 0 else above(book, m, s, price + 1)
    if found >= 0:
        return found
    slot = book.row[m, FAR_HEAD + s]
    while slot >= 0:
        at = np.int64(book.orders[m, slot]["price"])
        if s == 0:
            if at < price and at > found:
                found = at
        elif at > price and (found < 0 or at < found):
            found = at
        slot = np.int64(book.orders[m, slot]["next"])
    if found < 0:
        found = np.int64(EMPTY_BID) if s == 0 else np.int64(EMPTY_ASK)
    return found


@njit(**INLINE)
def _overlooked(owner, without):
    return owner == without or (without == ANY_AGENT and owner >= 0)


@njit(**KERNEL)
def level_size(book, m, s, price, without):
    """Lots at a price."""
    if without == NOBODY and in_window(book, m, s, price):
        return book.levels[m, s, price & (book.levels.shape[2] - 1)]["depth"]
    lots = np.int64(0)
    slot = oldest(book, m, s, price)
    while slot >= 0:
        order = book.orders[m, slot]
        if not _overlooked(order["owner"], without):
            lots += order["size"]
        slot = later(book, m, slot)
    return lots


@njit(**KERNEL)
def best_without(book, m, s, without):
    """The best price at which somebody else rests; EMPTY_BID or EMPTY_ASK if nobody does."""
    price = book.row[m, BEST + s]
    while without != NOBODY and not is_empty(price):
        slot = oldest(book, m, s, price)
        while slot >= 0 and _overlooked(book.orders[m, slot]["owner"], without):
            slot = later(book, m, slot)
        if slot >= 0:
            break
        price = next_level(book, m, s, price)
    return price


@njit(**KERNEL)
def _read_touch(book, m, without, out):
    for s in range(2):
        price = best_without(book, m, s, without)
        out[m, s] = 0 if is_empty(price) else price


@njit(**KERNEL)
def _read_depth(book, m, without, prices, sizes):
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
def _read_orders(book, m, owner, order_ids, prices, sizes, ahead):
    for k in range(order_ids.shape[1]):
        slot = find(book, m, owner, order_ids[m, k])
        prices[m, k] = 0
        sizes[m, k] = 0
        ahead[m, k] = -1
        if slot >= 0:
            prices[m, k] = book.orders[m, slot]["price"]
            sizes[m, k] = book.orders[m, slot]["size"]
            lots = np.int64(0)
            slot = earlier(book, m, slot)
            while slot >= 0:
                lots += book.orders[m, slot]["size"]
                slot = earlier(book, m, slot)
            ahead[m, k] = lots


# --- Over all markets, in this thread or over all -----------------------------------------------------


@njit(**SERIAL)
def read_touch(book, without, out):
    """Best prices to ``out`` (N, 2) int64, 0 for an empty side."""
    for m in range(out.shape[0]):
        _read_touch(book, m, without, out)


@njit(**PARALLEL)
def read_touch_parallel(book, without, out):
    """As :func:`read_touch`, over the threads."""
    for m in prange(out.shape[0]):
        _read_touch(book, m, without, out)


@njit(**SERIAL)
def read_depth(book, without, prices, sizes):
    """The first k levels of each side to (N, 2, k) int64; missing levels are 0."""
    for m in range(prices.shape[0]):
        _read_depth(book, m, without, prices, sizes)


@njit(**PARALLEL)
def read_depth_parallel(book, without, prices, sizes):
    """As :func:`read_depth`, over the threads."""
    for m in prange(prices.shape[0]):
        _read_depth(book, m, without, prices, sizes)


@njit(**SERIAL)
def read_orders(book, owner, order_ids, prices, sizes, ahead):
    """Price, remaining lots and lots ahead of live orders, (N, k); dead ones read 0, 0 and -1."""
    for m in range(order_ids.shape[0]):
        _read_orders(book, m, owner, order_ids, prices, sizes, ahead)


@njit(**PARALLEL)
def read_orders_parallel(book, owner, order_ids, prices, sizes, ahead):
    """As :func:`read_orders`, over the threads."""
    for m in prange(order_ids.shape[0]):
        _read_orders(book, m, owner, order_ids, prices, sizes, ahead)
