"""From an order's owner and id to its slot: an open-addressed table of a quarter's load, sized with the pool.

Ids that follow each other are spread evenly over the table. An entry is slot + 1, 0 where there is none.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.layout import AGENT_IDS, ID_MASK, NEXT_ID

_NUMBERS = 2**31 - 1  # what is kept of an id, so that the product stays within int64
_WORD = 2**32 - 1
_SCATTER = 0x9E3779B1  # 2^32 over the golden ratio


@njit(**INLINE)
def _home(mask, last, owner, order_id):
    number = ((order_id & mask) + ((owner + 1) << 20)) & _NUMBERS
    return ((((number * _SCATTER) & _WORD) * (last + 1)) >> 32) & _NUMBERS


@njit(**INLINE)
def find(book, m, owner, order_id):
    """Slot of a live order, -1 if there is none."""
    return np.int64(book.slots[m, find_place(book, m, owner, order_id)]) - 1


@njit(**INLINE)
def find_place(book, m, owner, order_id):
    """Where the table holds a live order, or an empty place if there is none."""
    last = book.slots.shape[1] - 1
    place = _home(book.limits[0, ID_MASK], last, owner, order_id)
    while True:
        slot = np.int64(book.slots[m, place]) - 1
        if slot < 0:
            return place
        order = book.orders[m, slot]
        if order["order_id"] == order_id and order["owner"] == owner:
            return place
        place = (place + 1) & last & _NUMBERS


@njit(**INLINE)
def place_of(book, owner, order_id):
    """Where the table is looked up for an order first."""
    return _home(book.limits[0, ID_MASK], book.slots.shape[1] - 1, owner, order_id)


@njit(**INLINE)
def id_is_free(book, m, owner, order_id):
    """Whether a new order may carry this id; background ids are told apart by their lower bits."""
    return free_place(book, m, owner, order_id) >= 0


@njit(**INLINE)
def free_place(book, m, owner, order_id):
    """Where the table has a place for a new order, -1 if it may not carry this id."""
    if order_id < 0 or (owner >= 0 and order_id >= book.limits[0, AGENT_IDS]):
        return np.int64(-1)
    mask = book.limits[0, ID_MASK]
    last = book.slots.shape[1] - 1
    place = _home(book.limits[0, ID_MASK], last, owner, order_id)
    while True:
        slot = np.int64(book.slots[m, place]) - 1
        if slot < 0:
            return place
        order = book.orders[m, slot]
        if (order["order_id"] ^ order_id) & mask == 0 and order["owner"] == owner:
            return np.int64(-1)
        place = (place + 1) & last & _NUMBERS


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
def enter(book, m, owner, order_id, slot, place):
    """Adds an order whose id is free; ``place`` is that of ``free_place`` if the table has not changed since, or -1."""
    if place >= 0:
        book.slots[m, place] = slot + 1
        return
    last = book.slots.shape[1] - 1
    place = _home(book.limits[0, ID_MASK], last, owner, order_id)
    while book.slots[m, place] != 0:
        place = (place + 1) & last & _NUMBERS
    book.slots[m, place] = slot + 1


@njit(**INLINE)
def forget(book, m, owner, order_id, slot, place):
    """Takes an order out, whose place is known or -1; entries that it had pushed aside move back."""
    last = book.slots.shape[1] - 1
    hole = place
    if hole < 0:
        hole = _home(book.limits[0, ID_MASK], last, owner, order_id)
        while book.slots[m, hole] != slot + 1:
            hole = (hole + 1) & last & _NUMBERS
    place = (hole + 1) & last & _NUMBERS
    if book.slots[m, place] != 0:
        hole = _close_gap(book.orders, book.slots, book.limits[0, ID_MASK], m, hole)
    book.slots[m, hole] = 0


@njit(**KERNEL)
def _close_gap(orders, slots, mask, m, hole):
    last = slots.shape[1] - 1
    place = (hole + 1) & last & _NUMBERS
    while True:
        slot = np.int64(slots[m, place]) - 1
        if slot < 0:
            return hole
        order = orders[m, slot]
        home = _home(mask, last, np.int64(order["owner"]), np.int64(order["order_id"]))
        if (place - home) & last >= (place - hole) & last:
            slots[m, hole] = slot + 1
            hole = place
        place = (place + 1) & last & _NUMBERS
