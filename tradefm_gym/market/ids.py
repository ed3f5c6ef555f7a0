"""From an order's owner and id to its slot.

An id has a place of its own in ``slots``, by its last bits: ids that follow each other lie side by side, and hardly
any two orders want the same place. Who comes second goes to ``spilled``, an open-addressed table in which numbers are
scattered. An entry is slot + 1, 0 where there is none.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.layout import AGENT_IDS, ID_MASK, NEXT_ID, SPILLED

_POSITIVE = 2**31 - 1  # what is kept of a number, so that no product leaves int64 and no place is negative
_WORD = 2**32 - 1
_SCATTER = 0x9E3779B1  # 2^32 over the golden ratio
_OWNERS = 97  # how far apart equal ids of two owners lie


@njit(**INLINE)
def _bits(book, owner):
    """The bits by which ids of an owner are told apart: all, or for the background as many as the market was given."""
    return book.limits[0, ID_MASK] if owner < 0 else np.int64(-1)


@njit(**INLINE)
def place_of(book, owner, order_id):
    """An id's place of its own."""
    return ((order_id & _bits(book, owner)) + (owner + 1) * _OWNERS) & (book.slots.shape[1] - 1) & _POSITIVE


@njit(**INLINE)
def find(book, m, owner, order_id):
    """Slot of a live order, -1 if there is none."""
    slot = np.int64(book.slots[m, place_of(book, owner, order_id)]) - 1
    if slot >= 0:
        order = book.orders[m, slot]
        if order["order_id"] == order_id and order["owner"] == owner:
            return slot
    if book.row[m, SPILLED] == 0:
        return np.int64(-1)
    return _find_spilled(book.orders, book.spilled, m, owner, order_id, _bits(book, owner), np.int64(-1))


@njit(**INLINE)
def id_is_free(book, m, owner, order_id):
    """Whether a new order may carry this id."""
    if order_id < 0 or (owner >= 0 and order_id >= book.limits[0, AGENT_IDS]):
        return False
    bits = _bits(book, owner)
    slot = np.int64(book.slots[m, place_of(book, owner, order_id)]) - 1
    if slot >= 0:
        order = book.orders[m, slot]
        if (order["order_id"] ^ order_id) & bits == 0 and order["owner"] == owner:
            return False
    return book.row[m, SPILLED] == 0 or _find_spilled(book.orders, book.spilled, m, owner, order_id, bits, bits) < 0


@njit(**KERNEL)
def next_free_id(book, m):
    """The next background id; skips those whose place an older order still holds."""
    aside()
    order_id = book.row[m, NEXT_ID]
    for _ in range(book.limits[0, ID_MASK] + 1):
        if id_is_free(book, m, np.int64(-1), order_id):
            break
        order_id += 1
    return order_id


@njit(**INLINE)
def enter(book, m, owner, order_id, slot):
    """Adds an order whose id is free."""
    place = place_of(book, owner, order_id)
    if book.slots[m, place] == 0:
        book.slots[m, place] = slot + 1
    else:
        book.row[m, SPILLED] += 1
        _spill(book.spilled, m, owner, order_id & _bits(book, owner), slot)


@njit(**INLINE)
def forget(book, m, owner, order_id, slot):
    """Takes an order out."""
    place = place_of(book, owner, order_id)
    if book.slots[m, place] == slot + 1:
        book.slots[m, place] = 0
    else:
        book.row[m, SPILLED] -= 1
        _unspill(book.orders, book.spilled, m, owner, order_id & _bits(book, owner), slot, book.limits[0, ID_MASK])


# --- Spilled ones: linear probing, and no gap on the way from an entry's home to where it lies ------------------


@njit(**INLINE)
def _home(width, owner, number):
    scattered = (((number + (owner + 1) * _OWNERS) & _POSITIVE) * _SCATTER) & _WORD
    return ((scattered * width) >> 32) & _POSITIVE


@njit(**KERNEL)
def _find_spilled(orders, spilled, m, owner, order_id, bits, compared):
    width = spilled.shape[1]
    place = _home(width, owner, order_id & bits)
    while True:
        slot = np.int64(spilled[m, place]) - 1
        if slot < 0:
            return slot
        order = orders[m, slot]
        if (order["order_id"] ^ order_id) & compared == 0 and order["owner"] == owner:
            return slot
        place = (place + 1) & (width - 1) & _POSITIVE


@njit(**KERNEL)
def _spill(spilled, m, owner, number, slot):
    width = spilled.shape[1]
    place = _home(width, owner, number)
    while spilled[m, place] != 0:
        place = (place + 1) & (width - 1) & _POSITIVE
    spilled[m, place] = slot + 1


@njit(**KERNEL)
def _unspill(orders, spilled, m, owner, number, slot, mask):
    """Entries that this one had pushed aside move back."""
    width = spilled.shape[1]
    last = (width - 1) & _POSITIVE
    hole = _home(width, owner, number)
    while spilled[m, hole] != slot + 1:
        hole = (hole + 1) & last
    place = (hole + 1) & last
    while spilled[m, place] != 0:
        order = orders[m, np.int64(spilled[m, place]) - 1]
        other = np.int64(order["owner"])
        home = _home(width, other, order["order_id"] & mask if other < 0 else order["order_id"])
        if (place - home) & last >= (place - hole) & last:
            spilled[m, hole] = spilled[m, place]
            hole = place
        place = (place + 1) & last
    spilled[m, hole] = 0
