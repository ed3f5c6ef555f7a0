"""Kernels of snapshots: whether copied orders hang together, and books made of them anew."""

import numpy as np
from numba import njit

from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, MAX_PRICE, MIN_PRICE, empty, has_room, open_book
from tradefm_gym.market.compiler import KERNEL, SERIAL
from tradefm_gym.market.events import BACKGROUND
from tradefm_gym.market.ids import enter
from tradefm_gym.market.kernels import CRAMPED, ENDED, NONE, order_fault
from tradefm_gym.market.layout import BACKGROUND_LIVE, BEST, HIGH_WATER, LIVE, TIGHT
from tradefm_gym.market.prices import level_of, open_page

# What is wrong with a pool of orders.
FAULTS = (
    "",
    "an order that no owner could have",
    "a dead slot with something in it",
    "a queue whose links do not meet",
    "free slots that are not the dead ones",
    "a bid at or above an ask",
)
SOUND, ORDER_WRONG, DEAD_WRONG, LINK_WRONG, FREE_WRONG, CROSSED = range(len(FAULTS))

_ONE = np.uint64(1)


@njit(**SERIAL)
def place(book_memory, rows, orders, ends, how):
    """Books of ``rows`` with orders in the slots where they were, one book's after another's, (n,) ORDER.

    Levels, trees and tables of ids follow from them. ``how`` says of each ENDED, or CRAMPED: widen, and once more.
    """
    for i in range(rows.shape[0]):
        how[i] = _place_row(book_memory, rows[i], orders, ends[i - 1] if i > 0 else 0, ends[i])


@njit(**KERNEL)
def _place_row(book_memory, m, orders, first, end):
    book = open_book(book_memory)
    return _place(book, m, orders, first, end)


@njit(**KERNEL)
def _place(book, m, orders, first, end):
    empty(book, m)
    book.row[m, HIGH_WATER] = end - first
    for k in range(first, end):
        book.orders[m, k - first] = orders[k]
    for slot in range(end - first):
        order = book.orders[m, slot]
        if order["size"] > 0 and order["prev"] < 0:
            if not has_room(book, m):
                return CRAMPED
            _hang(book, m, slot)
    book.row[m, TIGHT] = 1
    return ENDED


@njit(**KERNEL)
def _hang(book, m, head):
    """Gives the queue that begins in a slot its level."""
    row, order = book.row, book.orders[m, head]
    price, s = np.int64(order["price"]), (1 - np.int64(order["side"])) >> 1
    at = level_of(book, m, s, price)
    if at < 0:
        at = open_page(book, m, s, price)
    slot = last = np.int64(head)
    depth = np.int64(0)
    while slot >= 0:
        order = book.orders[m, slot]
        owner = np.int64(order["owner"])
        depth += order["size"]
        row[m, LIVE] += 1
        row[m, BACKGROUND_LIVE] += owner < 0
        enter(book, m, owner, np.int64(order["order_id"]), slot)
        last, slot = slot, np.int64(order["next"])
    level = book.levels[m, at]
    level["head"], level["tail"], level["depth"] = head, last, depth
    book.page_bits[m, at >> 6] |= _ONE << np.uint64(price & 63)
    best = row[m, BEST + s]
    row[m, BEST + s] = price if (price - best) * (1 - 2 * s) > 0 else best


@njit(**SERIAL)
def pool_fault(orders, ends, free, seats, agent_ids):
    """First book whose copied orders no market could have and its fault, or -1 and SOUND.

    Every index is looked at before it is followed, and no walk is longer than the book has slots.
    """
    for i in range(ends.shape[0]):
        first = ends[i - 1] if i > 0 else 0
        found = _pool_fault(orders, first, ends[i] - first, free[i], seats, agent_ids)
        if found != SOUND:
            return i, found
    return -1, SOUND


@njit(**KERNEL)
def _pool_fault(orders, first, count, free, seats, agent_ids):
    dead, queued = np.int64(0), np.int64(0)
    bid, ask = np.int64(EMPTY_BID), np.int64(EMPTY_ASK)
    for slot in range(count):
        order = orders[first + slot]
        if order["next"] < -1 or order["next"] >= count:
            return LINK_WRONG
        if order["size"] == 0:
            dead += 1
            if not _is_bare(order):
                return DEAD_WRONG
            continue
        if not _is_order(order, seats, agent_ids):
            return ORDER_WRONG
        if not _is_linked(orders, first, count, slot):
            return LINK_WRONG
        if order["side"] > 0:
            bid = max(bid, np.int64(order["price"]))
        else:
            ask = min(ask, np.int64(order["price"]))
    # Every link has its counterpart, so a walk from the head of a queue meets no order twice; orders that none
    # of them meets hang in a circle.
    for slot in range(count):
        if orders[first + slot]["size"] > 0 and orders[first + slot]["prev"] < 0:
            at = np.int64(slot)
            while at >= 0:
                queued += 1
                at = np.int64(orders[first + at]["next"])
    if queued + dead != count:
        return LINK_WRONG
    while free >= 0:
        if free >= count or orders[first + free]["size"] != 0 or dead == 0:
            return FREE_WRONG
        dead -= 1
        free = np.int64(orders[first + free]["next"])
    if free != -1 or dead != 0:
        return FREE_WRONG
    return CROSSED if bid >= ask else SOUND


@njit(**KERNEL)
def _is_bare(order):
    return (
        order["order_id"] == 0
        and order["time_ns"] == 0
        and order["price"] == 0
        and order["prev"] == 0
        and order["owner"] == 0
        and order["side"] == 0
    )


@njit(**KERNEL)
def _is_order(order, seats, agent_ids):
    owner = order["owner"]
    return (
        order["size"] > 0
        and MIN_PRICE <= order["price"] <= MAX_PRICE
        and (order["side"] == 1 or order["side"] == -1)
        and BACKGROUND <= owner < seats
        and order["order_id"] >= 0
        and (owner < 0 or order["order_id"] < agent_ids)
    )


@njit(**KERNEL)
def _is_linked(orders, first, count, slot):
    """Whether the one before a live order is at its price, and the one behind it, which is in range, knows it."""
    order = orders[first + slot]
    if order["prev"] < -1 or order["prev"] >= count:
        return False
    if order["prev"] >= 0:
        # If that one does not know it, no walk from a head comes here; if it is of the other side, the book is crossed.
        other = orders[first + np.int64(order["prev"])]
        if other["size"] <= 0 or other["price"] != order["price"]:
            return False
    if order["next"] >= 0:
        other = orders[first + np.int64(order["next"])]
        return other["size"] > 0 and other["prev"] == slot
    return True


@njit(**SERIAL)
def first_wrong(events, seats, agent_ids):
    """Index of the first agents' order that no market takes, -1 if it takes them all."""
    for k in range(events.shape[0]):
        if order_fault(events[k], seats, agent_ids) != NONE:
            return k
    return -1
