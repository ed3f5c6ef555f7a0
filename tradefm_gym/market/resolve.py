"""What an order's price means when it arrives: anchors are resolved against the book that it meets."""

import numpy as np
from numba import njit

from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, MAX_PRICE, MIN_PRICE
from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.events import ABSOLUTE, INSIDE, MID, OPPOSITE
from tradefm_gym.market.layout import BEST, LOT, MID2, TICK

UNKNOWN = -(2**40)  # a price that could not be resolved


@njit(**INLINE)
def is_empty(price):
    """Whether a best price says that its side is empty."""
    return price == EMPTY_BID or price == EMPTY_ASK


@njit(**INLINE)
def is_price(book, price):
    """Whether an order may rest at a price: in range and on the grid."""
    tick = book.limits[0, TICK]
    return MIN_PRICE <= price <= MAX_PRICE and (tick == 1 or price % tick == 0)


@njit(**INLINE)
def is_size(book, size):
    """Whether a size is a multiple of the lot."""
    lot = book.limits[0, LOT]
    return lot == 1 or size % lot == 0


@njit(**INLINE)
def _half(book, mid2, s):
    """A doubled mid as a price of side ``s``, rounded away from the spread."""
    tick = book.limits[0, TICK]
    if s == 0:
        price = mid2 >> 1
        return price if tick == 1 else price - price % tick
    price = (mid2 + 1) >> 1
    return price if tick == 1 else price + -price % tick


@njit(**INLINE)
def reference(book, ledger, m, s):
    """Best price of a side; for an empty one the last mid rounded away from the spread, 0 if none is known.

    An empty side's reference stays a tick beyond the other side's best, which may have moved since.
    """
    price = book.row[m, BEST + s]
    if not is_empty(price):
        return price
    mid2 = ledger.clocks[m, MID2]
    opposite = book.row[m, BEST + 1 - s]
    if mid2 == 0:
        return np.int64(0)
    tick = book.limits[0, TICK]
    if s == 0:
        return min(_half(book, mid2, s), opposite - tick)
    return max(_half(book, mid2, s), opposite + tick)


@njit(**KERNEL)
def _inside(book, ledger, m, s, away):
    """Price that lies ``away`` from the opposite best, or at the own one if that is nearer; 0 if neither is known."""
    aside()
    own, opposite = reference(book, ledger, m, s), reference(book, ledger, m, 1 - s)
    if opposite == 0:
        return own
    price = opposite - (1 - 2 * s) * max(away, np.int64(book.limits[0, TICK]))
    if own == 0:
        return price
    return max(price, own) if s == 0 else min(price, own)


@njit(**INLINE)
def resolve(book, ledger, m, s, anchor, price):
    """The absolute price of an order on side ``s``, UNKNOWN if there is nothing to hold on to."""
    if anchor == ABSOLUTE:
        return price
    inside = (1 - 2 * s) * price  # ticks upwards for a buy
    if anchor == MID:
        mid2 = ledger.clocks[m, MID2]
        return _half(book, mid2, s) + inside if mid2 != 0 else np.int64(UNKNOWN)
    if anchor == INSIDE:
        price = _inside(book, ledger, m, s, price)
        return price if price != 0 else np.int64(UNKNOWN)
    held = reference(book, ledger, m, 1 - s if anchor == OPPOSITE else s)
    if held == 0:
        return np.int64(UNKNOWN)
    return held - inside if anchor == OPPOSITE else held + inside
