"""Which order a generated cancel removes: the model names side, depth bin and size, the book knows the orders.

Real cancels remove whole orders, often young ones: of the live orders with the named place and volume bin of ``mini-2``
the newest was the one in 70% of cases (AAPL 2012), 57% (CLX5) and 30% (SSE), where a random one would have been in 63,
20 and 29% (``examples/measure_cancels.py``; no other fits in 48, 6 and 17%). So the k-th newest is taken with
probability 2^-k, which gives 74, 53 and 59%: about right for the first two, too young for Shanghai, whose choice is
nearly random. The tail is too short: 1, 9 and 36% of real ones had at least six newer ones, by the rule at most 1%. The
likeliest ratios instead of 1/2, 0.59, 0.67 and 0.99, give tails of 1, 6 and 51%, but the newest in 69, 37 and 18% only.

That keeps what the model said, as far as the book has it: a cancel of another size would tell the model about an
order that it never saw. A bin without orders has nothing to cancel. Where bins are places relative to the touch, one
behind it means some other order behind it. For the rest the order of the nearest level is taken whose size is
nearest, but only where the side is not thinner than usual (``placement.density``): otherwise the event is a counted
no-op. (Measured with ``mini-1``, which does not see how many orders rest: without that exception 7 of 80 markets like
CLX5 lost a side and mids like AAPL's jumped by up to 1,000 ticks; with no-ops throughout spreads like AAPL's fell from
20 to 8 ticks within 4,096 events, and on.) A no-op is also the cancel of an order that is its touch alone, where the
next level lies farther behind it than the tenth usually does from the mid (``placement``): one of 256 markets like
AAPL's fell by 4% at such a cancel.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.book import NOBODY
from tradefm_gym.market.compiler import KERNEL, SERIAL, aside
from tradefm_gym.market.events import BUY, SELL
from tradefm_gym.market.layout import BEST, HIGH_WATER
from tradefm_gym.market.resolve import is_empty
from tradefm_gym.market.views import level_size, newest_background, next_level

YOUNGEST = 8  # candidates that are told apart by age
_BY_QUEUES = 48  # orders to look at from queue to queue; where more lie in a range, going through the pool is faster


@njit(**SERIAL)
def order_to_cancel(book, m, s, bottom, top, least, most, uniform, kept):
    """Slot of a background order of side ``s`` at a price in [bottom, top], -1 if there is none.

    Args:
        book: BookState.
        m: row.
        s: 0 for bids, 1 for asks.
        bottom: lowest price in ticks.
        top: highest price in ticks.
        least: smallest size in lots that fits; without such an order the one whose size is nearest is taken.
        most: largest size that fits.
        uniform: number in [0, 1) that decides among those that fit, by age.
        kept: (2, YOUNGEST) int64, room to work.
    """
    wanted = min(np.int64(-np.log2(1.0 - uniform)), YOUNGEST - 1) + 1
    found, looked_at = 0, 0
    nearest, distance = np.int64(-1), np.int64(0)
    price = np.int64(book.row[m, BEST + s])
    if not is_empty(price) and (price > top if s == 0 else price < bottom):
        price = next_level(book, m, s, top + 1 if s == 0 else bottom - 1)
    while not is_empty(price) and bottom <= price <= top:
        slot = newest_background(book, m, s, price)
        while slot >= 0:
            order = book.orders[m, slot]
            if order["owner"] < 0:
                size, time = np.int64(order["size"]), np.int64(order["time_ns"])
                if least <= size <= most:
                    found = _keep(book, m, s, kept, found, wanted, slot, time)
                away = least - size if size < least else size - most
                if nearest < 0 or away < distance:
                    nearest, distance = slot, away
            slot = np.int64(order["prev"])
            looked_at += 1
        if looked_at > _BY_QUEUES:
            return _of_pool(book, m, s, bottom, top, least, most, wanted, kept)
        price = next_level(book, m, s, price)
    return kept[0, found - 1] if found > 0 else nearest


@njit(**KERNEL)
def _of_pool(book, m, s, bottom, top, least, most, wanted, kept):
    """What ``order_to_cancel`` finds, by going through the pool as it lies in memory.

    From queue to queue each order has to be waited for: where hundreds lie in a range that takes several times as long.
    """
    aside()
    found, oldest, side = 0, np.int64(-(2**63)), BUY if s == 0 else SELL
    for slot in range(book.row[m, HIGH_WATER]):
        order = book.orders[m, slot]
        size, price, time = np.int64(order["size"]), np.int64(order["price"]), np.int64(order["time_ns"])
        fits = (size >= max(least, 1)) & (size <= most) & (price >= bottom) & (price <= top)
        if fits & (order["side"] == side) & (order["owner"] < 0) & (time >= oldest):  # one branch, seldom taken
            found = _keep(book, m, s, kept, found, wanted, slot, time)
            if found == wanted:
                oldest = kept[1, found - 1]
    return kept[0, found - 1] if found > 0 else _nearest_of_pool(book, m, s, bottom, top, least, most)


@njit(**KERNEL)
def _nearest_of_pool(book, m, s, bottom, top, least, most):
    side, nearest, distance = BUY if s == 0 else SELL, np.int64(-1), np.int64(2**62)
    for slot in range(book.row[m, HIGH_WATER]):
        order = book.orders[m, slot]
        size, price = np.int64(order["size"]), np.int64(order["price"])
        away = max(least - size, size - most)
        lies = (size > 0) & (price >= bottom) & (price <= top) & (order["side"] == side) & (order["owner"] < 0)
        if lies & (away <= distance) and (away < distance or _comes_first(book, m, s, slot, nearest)):
            nearest, distance = slot, away
    return nearest


@njit(cache=True, nogil=True)
def leaves_a_hole(book, m, s, slot, span) -> bool:
    """Whether an order is all that rests at its touch, and the next level lies more than ``span`` ticks behind it.

    Hardly anybody withdraws such an order, and a market in which it happened would gape for thousands of ticks.
    """
    order = book.orders[m, slot]
    price = np.int64(order["price"])
    if price != book.row[m, BEST + s] or level_size(book, m, s, price, NOBODY) > order["size"]:
        return False
    behind = next_level(book, m, s, price)
    return is_empty(behind) or abs(behind - price) > span


@njit(**KERNEL)
def _comes_first(book, m, s, slot, other) -> bool:
    """Whether an order comes before another one: from the touch on, and of one queue the newest first."""
    price, level = np.int64(book.orders[m, slot]["price"]), np.int64(book.orders[m, other]["price"])
    if price != level:
        return bool(price > level if s == 0 else price < level)
    newer = np.int64(book.orders[m, slot]["next"])
    while newer >= 0 and newer != other:
        newer = np.int64(book.orders[m, newer]["next"])
    return bool(newer < 0)


@njit(**KERNEL)
def _keep(book, m, s, kept, found, wanted, slot, time):
    """Insert into the ``wanted`` youngest so far, newest first; returns how many are kept."""
    place = found
    while place > 0 and (
        kept[1, place - 1] < time or (kept[1, place - 1] == time and _comes_first(book, m, s, slot, kept[0, place - 1]))
    ):
        place -= 1
    if place == wanted:
        return found
    found = min(found + 1, wanted)
    for i in range(found - 1, place, -1):
        kept[0, i], kept[1, i] = kept[0, i - 1], kept[1, i - 1]
    kept[0, place], kept[1, place] = slot, time
    return found
