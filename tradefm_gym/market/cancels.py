"""Cancels: of one order by its id, and of those that a flow means without naming them."""

import numpy as np
from numba import njit

from tradefm_gym.market.book import MAX_PRICE, reduce
from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.events import (
    BUY,
    CANCEL_NEAREST,
    CANCEL_RANDOM,
    CANCEL_WHOLE,
    CANCELLED,
    NOOP,
    REJECTED,
    SELL,
)
from tradefm_gym.market.ids import find
from tradefm_gym.market.layout import BACKGROUND_LIVE, HIGH_WATER
from tradefm_gym.market.resolve import UNKNOWN, is_size, resolve
from tradefm_gym.market.views import nearest_background


@njit(**INLINE)
def cancel(book, ledger, m, order_id, price, size, owner, side, anchor):
    """Removes orders; returns status, id, price, size and side for the record. A no-op keeps what was asked."""
    if order_id < 0 and (order_id != CANCEL_RANDOM or owner >= 0):
        return _cancel_nearest(book, ledger, m, order_id, price, size, owner, side, anchor)
    if size < 0 or not is_size(book, size) or (order_id < 0 and price < 0):
        return np.int64(REJECTED), order_id, price, size, side
    slot = find(book, m, owner, order_id) if order_id >= 0 else _pick(book, m, price)
    if slot < 0:
        return np.int64(NOOP), order_id, price, size, side
    return _cancel_slot(book, m, slot, size)


@njit(**INLINE)
def _cancel_slot(book, m, slot, size):
    order = book.orders[m, slot]
    lots = np.int64(order["size"])
    if size > 0:
        lots = min(lots, size)
    order_id, price, side = np.int64(order["order_id"]), np.int64(order["price"]), np.int64(order["side"])
    reduce(book, m, slot, lots)
    return np.int64(CANCELLED), order_id, price, lots, side


@njit(**KERNEL)
def _cancel_nearest(book, ledger, m, order_id, price, size, owner, side, anchor):
    """A cancel that names a price and no order; it removes background orders only."""
    aside()
    wrong = order_id != CANCEL_NEAREST and order_id != CANCEL_WHOLE
    if wrong or owner >= 0 or size < 0 or not is_size(book, size) or (side != BUY and side != SELL):
        return np.int64(REJECTED), order_id, price, size, side
    s = np.int64(0) if side > 0 else np.int64(1)
    resolved = resolve(book, ledger, m, s, anchor, price)
    if resolved == UNKNOWN:
        return np.int64(REJECTED), order_id, price, size, side
    price = min(max(resolved, np.int64(0)), np.int64(MAX_PRICE))
    slot = nearest_background(book, m, s, price)
    if slot < 0:
        return np.int64(NOOP), order_id, price, size, side
    if order_id == CANCEL_NEAREST and size > book.orders[m, slot]["size"]:
        return _cancel_several(book, m, s, slot, price, size, side)
    if order_id == CANCEL_WHOLE:
        slot = _nearest_size(book, m, slot, size)
        size = np.int64(0)
    return _cancel_slot(book, m, slot, size)


@njit(**KERNEL)
def _cancel_several(book, m, s, slot, price, size, side):
    """Nearest level to ``price``, newest first, until ``size`` lots are gone or no background order is left."""
    first_id = np.int64(book.orders[m, slot]["order_id"])
    first_price = np.int64(book.orders[m, slot]["price"])
    removed = np.int64(0)
    orders = 0
    while slot >= 0 and removed < size:
        lots = min(size - removed, np.int64(book.orders[m, slot]["size"]))
        reduce(book, m, slot, lots)
        removed += lots
        orders += 1
        slot = nearest_background(book, m, s, price)
    return np.int64(CANCELLED), first_id if orders == 1 else np.int64(-1), first_price, removed, side


@njit(**KERNEL)
def _nearest_size(book, m, slot, size):
    """Background order of a level whose size is nearest to ``size``, the newest of equals; ``slot`` is the last one."""
    found = slot
    while slot >= 0:
        order = book.orders[m, slot]
        if order["owner"] < 0 and abs(order["size"] - size) < abs(book.orders[m, found]["size"] - size):
            found = slot
        slot = np.int64(order["prev"])
    return found


@njit(**INLINE)
def _pick(book, m, number):
    """A live background order: slot ``number`` / 2^31 of those ever used, or the next one that is live."""
    used = book.row[m, HIGH_WATER]
    if book.row[m, BACKGROUND_LIVE] == 0:
        return np.int64(-1)
    slot = (number * used) >> 31
    while book.orders[m, slot]["size"] == 0 or book.orders[m, slot]["owner"] >= 0:
        slot += 1
        if slot == used:
            slot = np.int64(0)
    return slot
