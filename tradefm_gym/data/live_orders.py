"""Orders that rest right now, found by the id that the feed gave them: a hash table over recycled places.

Memory follows what rests at a time, not what a day brings: a place is free again when its order is gone.
Kernels never grow the table; whoever calls them makes room first, for as many adds as a batch can hold.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

# Columns of ``counts``.
_USED = 0  # places ever used
_FREE = 1  # places on the free list
LIVE = 2  # orders that rest

_WORD = 0xFFFFFFFF
_LOW_MIX, _HIGH_MIX = 0x61C88647, 0x7FEB352D  # odd numbers of 31 bits
_KERNEL: dict[str, Any] = {"cache": True, "nogil": True}


class LiveOrders(NamedTuple):
    """Places of resting orders. ``table`` holds place + 1, 0 where nothing hashes to."""

    table: np.ndarray  # (C,) int32, C a power of two and at least twice the places
    order_id: np.ndarray  # (M,) int64
    side: np.ndarray  # (M,) int8
    price: np.ndarray  # (M,) int64, units of the set
    left: np.ndarray  # (M,) int64 raw size that is left
    pending: np.ndarray  # (M,) int64 executed, but not yet taken off by the feed's own message
    mark: np.ndarray  # (M,) int64, free for the caller's use
    free: np.ndarray  # (M,) int32 places to use again
    counts: np.ndarray  # (3,) int64

    @classmethod
    def allocate(cls, places: int = 1024) -> "LiveOrders":
        """Room for ``places`` orders."""
        places = 1 << max(4, (places - 1).bit_length())
        wide = [np.zeros(places, np.int64) for _ in range(5)]
        return cls(
            np.zeros(4 * places, np.int32),
            wide[0],
            np.zeros(places, np.int8),
            *wide[1:],
            np.zeros(places, np.int32),
            np.zeros(3, np.int64),
        )

    @property
    def capacity(self) -> int:
        """Orders that can rest at a time."""
        return len(self.order_id)

    def with_room(self, adds: int) -> "LiveOrders":
        """The same orders, with room for ``adds`` more; itself where there is room already. Places stay the same."""
        needed = int(self.counts[LIVE]) + adds
        if needed <= self.capacity:
            return self
        larger = LiveOrders.allocate(max(needed, 2 * self.capacity))
        for old, new in zip(self[1:8], larger[1:8], strict=True):
            new[: len(old)] = old
        larger.counts[:] = self.counts
        _rehash(self, larger)
        return larger


@njit(**_KERNEL)
def find(live, order_id):
    """Place of a resting order, -1 if there is none."""
    mask = len(live.table) - 1
    at = _home(order_id, mask)
    while True:
        place = np.int64(live.table[at]) - 1
        if place < 0 or live.order_id[place] == order_id:
            return place
        at = (at + 1) & mask


@njit(**_KERNEL)
def insert(live, order_id, side, price, size):
    """Place of a new order; the id must not rest and there must be room."""
    counts = live.counts
    if counts[_FREE] > 0:
        counts[_FREE] -= 1
        place = np.int64(live.free[counts[_FREE]])
    else:
        place = counts[_USED]
        counts[_USED] += 1
    counts[LIVE] += 1
    live.order_id[place] = order_id
    live.side[place] = side
    live.price[place] = price
    live.left[place] = size
    live.pending[place] = 0
    live.mark[place] = 0
    _enter(live, place)
    return place


@njit(**_KERNEL)
def remove(live, place):
    """Forgets an order; what hashed behind it moves up, so that the table needs no tombstones."""
    mask = len(live.table) - 1
    at = _home(live.order_id[place], mask)
    while np.int64(live.table[at]) - 1 != place:
        at = (at + 1) & mask
    hole = at
    while True:
        at = (at + 1) & mask
        other = np.int64(live.table[at]) - 1
        if other < 0:
            break
        home = _home(live.order_id[other], mask)
        if ((at - home) & mask) >= ((at - hole) & mask):
            live.table[hole] = live.table[at]
            hole = at
    live.table[hole] = 0
    live.free[live.counts[_FREE]] = place
    live.counts[_FREE] += 1
    live.counts[LIVE] -= 1


@njit(**_KERNEL)
def _home(order_id, mask):
    # Word by word, so that the products fit into int64: nothing overflows when the JIT is off.
    mixed = ((order_id & _WORD) * _LOW_MIX) ^ (((order_id >> 32) & _WORD) * _HIGH_MIX)
    return ((mixed ^ (mixed >> 29)) >> 3) & mask


@njit(**_KERNEL)
def _enter(live, place):
    mask = len(live.table) - 1
    at = _home(live.order_id[place], mask)
    while live.table[at] != 0:
        at = (at + 1) & mask
    live.table[at] = place + 1


@njit(cache=True, nogil=True)
def _rehash(old, new):
    for at in range(len(old.table)):
        if old.table[at] != 0:
            _enter(new, np.int64(old.table[at]) - 1)
