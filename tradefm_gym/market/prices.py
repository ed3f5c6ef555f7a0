"""The prices of a book: which are occupied, which level is a price's, and what is the next one.

A page holds the levels of 64 neighbouring prices and a word that says which are occupied. Pages hang in a tree
of four tiers (one tree a side), each node with 64 children and a word of its own. So no price is too far from the
touch to have a level, the next occupied price is a few words away however many there are, and memory is taken by
pages in use only. ``near`` remembers where the last pages lie, so that the tree is seldom descended.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.layout import FREE_NODE, FREE_PAGE, HIGH_NODE, HIGH_PAGE, IDLE, LIVE_NODES, LIVE_PAGES, TIGHT

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL = np.uint64(2**64 - 1)
NODES_A_PRICE = 3  # that a new price may need
_POSITIVE = 2**40 - 1
_TIERS = (18, 12, 6, 0)  # shifts of a page's number, which has 24 bits


@njit(**INLINE)
def _near_place(near, s, page):
    half = near.shape[1] >> 1
    return s * half | (page << 1) & (half - 1)


@njit(**INLINE)
def level_of(book, m, s, price):
    """Index of a price's level on side ``s`` (0 bid, 1 ask), -1 while its page is not in use."""
    page = price >> 6
    place = _near_place(book.near, s, page)
    if book.near[m, place] == page + 1:
        return (np.int64(book.near[m, place + 1]) << 6) | (price & 63)
    return _look_up(book.node_bits, book.children, book.near, m, s, price)


@njit(**INLINE)
def occupied(book, m, s, price):
    """As :func:`level_of`, of a price whose page is in use: to know that no index is negative saves looking."""
    return level_of(book, m, s, price) & _POSITIVE


@njit(**INLINE)
def next_of_page(book, m, s, price):
    """The next occupied price that is worse than ``price`` and on its page, -1 if there is none."""
    at = level_of(book, m, s, price)
    if at < 0:
        return np.int64(-1)
    within, word = np.uint64(price & 63), book.page_bits[m, at >> 6]
    if s == 0:
        word &= (_ONE << within) - _ONE
        return (price >> 6 << 6) | highest(word) if word != _ZERO else np.int64(-1)
    word &= (_ALL << within) << _ONE
    return (price >> 6 << 6) | lowest(word) if word != _ZERO else np.int64(-1)


@njit(**KERNEL)
def _look_up(node_bits, children, near, m, s, price):
    """Down the tree; ``near`` then knows the page."""
    aside()
    page = price >> 6
    node = np.int64(s)
    for shift in _TIERS:
        digit = (page >> shift) & 63
        if (node_bits[m, node] >> np.uint64(digit)) & _ONE == _ZERO:
            return np.int64(-1)
        node = np.int64(children[m, (node << 6) | digit])
    place = _near_place(near, s, page)
    near[m, place] = page + 1
    near[m, place + 1] = node
    return (node << 6) | (price & 63)


@njit(**KERNEL)
def open_page(book, m, s, price):
    """Takes a page for a price that has none; returns the level's index. ``book.room`` has seen that there is one."""
    aside()
    page, row = price >> 6, book.row
    node = np.int64(s)
    for shift in _TIERS:
        digit = (page >> shift) & 63
        place = (node << 6) | digit
        if (book.node_bits[m, node] >> np.uint64(digit)) & _ONE == _ZERO:
            book.node_bits[m, node] |= _ONE << np.uint64(digit)
            if shift > 0:
                child = row[m, FREE_NODE] - 1
                if child >= 0:
                    row[m, FREE_NODE] = np.int64(book.children[m, child << 6])
                else:
                    child = row[m, HIGH_NODE]
                    row[m, HIGH_NODE] = child + 1
                row[m, LIVE_NODES] += 1
            else:
                child = row[m, FREE_PAGE] - 1
                if child >= 0:
                    row[m, FREE_PAGE] = np.int64(book.levels[m, child << 6]["head"])
                else:
                    child = row[m, HIGH_PAGE]
                    row[m, HIGH_PAGE] = child + 1
                row[m, LIVE_PAGES] += 1
            book.children[m, place] = child
        node = np.int64(book.children[m, place])
    if row[m, LIVE_PAGES] >= book.page_bits.shape[1] or row[m, LIVE_NODES] + NODES_A_PRICE > book.node_bits.shape[1]:
        row[m, TIGHT] = 1
    return (node << 6) | (price & 63)


@njit(**INLINE)
def retire_page(book, m, s, price):
    """Takes note that the page of a price is empty; the one of which that was noted before is given back."""
    page = price >> 6
    before = book.row[m, IDLE + s] - 1
    book.row[m, IDLE + s] = page + 1
    if before >= 0 and before != page:
        _close_page(book, m, s, before)


@njit(**KERNEL)
def _close_page(book, m, s, page):
    """Gives back an empty page, and the nodes that led to it alone."""
    aside()
    row = book.row
    node = keep = np.int64(s)
    kept = 18
    for shift in _TIERS:
        digit = (page >> shift) & 63
        if shift == 18 or book.node_bits[m, node] != _ONE << np.uint64(digit):
            keep, kept = node, shift
        node = np.int64(book.children[m, (node << 6) | digit])
    digit = (page >> kept) & 63
    book.node_bits[m, keep] &= ~(_ONE << np.uint64(digit))
    node = np.int64(book.children[m, (keep << 6) | digit])
    while kept > 0:
        kept -= 6
        child = np.int64(book.children[m, (node << 6) | ((page >> kept) & 63)])
        book.node_bits[m, node] = _ZERO
        book.children[m, node << 6] = row[m, FREE_NODE]
        row[m, FREE_NODE] = node + 1
        row[m, LIVE_NODES] -= 1
        node = child
    book.levels[m, node << 6]["head"] = row[m, FREE_PAGE]
    row[m, FREE_PAGE] = node + 1
    row[m, LIVE_PAGES] -= 1
    place = _near_place(book.near, s, page)
    if book.near[m, place] == page + 1:
        book.near[m, place] = 0


@njit(**KERNEL)
def below(book, m, s, price):
    """The highest occupied price at or below ``price``, -1 if there is none."""
    aside()
    price = min(price, np.int64(2**30 - 1))
    while price >= 0:
        at = level_of(book, m, s, price)
        if at >= 0:
            within = book.page_bits[m, at >> 6] & (_ALL >> np.uint64(63 - (price & 63)))
            if within != _ZERO:
                return (price >> 6 << 6) | highest(within)
        # The lowest tier that has a smaller child, then that child's last page.
        page = price >> 6
        node, found, tier = np.int64(s), np.int64(-1), 0
        lower = _ZERO
        for shift in _TIERS:
            digit = (page >> shift) & 63
            word = book.node_bits[m, node]
            smaller = word & ((_ONE << np.uint64(digit)) - _ONE)
            if smaller != _ZERO:
                found, tier, lower = node, shift, smaller
            if (word >> np.uint64(digit)) & _ONE == _ZERO:
                break
            node = np.int64(book.children[m, (node << 6) | digit])
        if found < 0:
            break
        digit = highest(lower)
        page = (page >> (tier + 6) << 6) | digit
        node = np.int64(book.children[m, (found << 6) | digit])
        while tier > 0:
            tier -= 6
            digit = highest(book.node_bits[m, node])
            page = (page << 6) | digit
            node = np.int64(book.children[m, (node << 6) | digit])
        if book.page_bits[m, node] != _ZERO:
            return (page << 6) | highest(book.page_bits[m, node])
        price = (page << 6) - 1  # this one is idle
    return np.int64(-1)


@njit(**KERNEL)
def above(book, m, s, price):
    """The lowest occupied price at or above ``price``, -1 if there is none."""
    aside()
    price = max(price, np.int64(0))
    while price < 2**30:
        at = level_of(book, m, s, price)
        if at >= 0:
            within = book.page_bits[m, at >> 6] & (_ALL << np.uint64(price & 63))
            if within != _ZERO:
                return (price >> 6 << 6) | lowest(within)
        page = price >> 6
        node, found, tier = np.int64(s), np.int64(-1), 0
        upper = _ZERO
        for shift in _TIERS:
            digit = (page >> shift) & 63
            word = book.node_bits[m, node]
            larger = word & ((_ALL << np.uint64(digit)) << _ONE)
            if larger != _ZERO:
                found, tier, upper = node, shift, larger
            if (word >> np.uint64(digit)) & _ONE == _ZERO:
                break
            node = np.int64(book.children[m, (node << 6) | digit])
        if found < 0:
            break
        digit = lowest(upper)
        page = (page >> (tier + 6) << 6) | digit
        node = np.int64(book.children[m, (found << 6) | digit])
        while tier > 0:
            tier -= 6
            digit = lowest(book.node_bits[m, node])
            page = (page << 6) | digit
            node = np.int64(book.children[m, (node << 6) | digit])
        if book.page_bits[m, node] != _ZERO:
            return (page << 6) | lowest(book.page_bits[m, node])
        price = (page + 1) << 6
    return np.int64(-1)


# --- Words --------------------------------------------------------------------------------------------


def highest(word):
    """Index of the highest set bit of a uint64 that is not 0."""
    return int(word).bit_length() - 1


def lowest(word):
    """Index of the lowest set bit of a uint64 that is not 0."""
    return (int(word) & -int(word)).bit_length() - 1


@intrinsic
def _leading_zeros(_, word):
    def generate(__, builder, ___, arguments):
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def _trailing_zeros(_, word):
    def generate(__, builder, ___, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


_INLINE: Any = {"forceinline": True, "_nrt": False}


@overload(highest, jit_options=_INLINE)
def _highest(word):
    return lambda word: 63 - _leading_zeros(word)


@overload(lowest, jit_options=_INLINE)
def _lowest(word):
    return lambda word: _trailing_zeros(word)
