"""N limit order books in flat arrays, and the kernels that work on one of them.

An order is a slot of a pool and hangs in the queue of its price level, first come, first served. The last slot is
nobody's: links to the neighbour that an order does not have are written there, which is faster than to ask.
``prices.py`` knows the levels, ``ids.py`` finds an order by its id. The arrays are as wide as the fullest market has
needed so far: a kernel stops before an event for which there is no room, and the caller widens them.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import INLINE, KERNEL, SERIAL, aside
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import EVENT, ORDER
from tradefm_gym.market.ids import enter, forget
from tradefm_gym.market.layout import (
    AGENT_IDS,
    BACKGROUND_LIVE,
    BEST,
    CAPACITY,
    FREE,
    HIGH_NODE,
    HIGH_PAGE,
    HIGH_WATER,
    ID_MASK,
    IDLE,
    LEVEL,
    LIMITS_WIDTH,
    LIVE,
    LIVE_NODES,
    LIVE_PAGES,
    LOG_END,
    LOT,
    ROW_WIDTH,
    SPILLED,
    TICK,
    TIGHT,
)
from tradefm_gym.market.memory import Part, carve, part_of
from tradefm_gym.market.prices import (
    NODES_A_PRICE,
    above,
    below,
    highest,
    level_of,
    lowest,
    occupied,
    open_page,
    retire_page,
)

MIN_PRICE = 1
MAX_PRICE = 2**30 - 1  # two of them still fit the int32 of a doubled mid
EMPTY_BID = 0  # best price of an empty side: worse than any
EMPTY_ASK = 2**30

ANY_AGENT = -2  # as ``without``: leaves background orders only
NOBODY = -3

_LOG = 64  # at first, where there is a log
_NODES = 16  # at first: both trees, wherever the touch lies, and a few more
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_ALL = np.uint64(2**64 - 1)


class BookState(NamedTuple):
    """N books. A slot is dead when its size is 0, a level when its depth is."""

    orders: np.ndarray  # (N, M + 1) ORDER, the pool
    slots: np.ndarray  # (N, 4 M up to a power of two) int32: by owner and id, see ids.py
    spilled: np.ndarray  # (N, half of that) int32
    levels: np.ndarray  # (N, 64 x pages) LEVEL
    page_bits: np.ndarray  # (N, pages) uint64: occupied levels of a page
    children: np.ndarray  # (N, 64 x nodes) uint32: nodes of the next tier, or pages
    node_bits: np.ndarray  # (N, nodes) uint64: children in use; node 0 is the root of the bids, 1 of the asks
    near: np.ndarray  # (N, 64 or more) uint32: for each side pairs (page number + 1, page)
    log: np.ndarray  # (N, L) EVENT: what was carried out and a delayed view has not seen; L = 0 where there is none
    row: np.ndarray  # (N, ROW_WIDTH) int64, columns in layout.py
    limits: np.ndarray  # (1, LIMITS_WIDTH) int64, columns in layout.py


class Room(NamedTuple):
    """How much a market can hold before the arrays have to be widened."""

    orders: int
    pages: int
    nodes: int
    log: int = 0


def parts(num_markets: int, config: MarketConfig, room: Room | None = None) -> list[Part]:
    """Of what books consist: the shapes and dtypes of :class:`BookState`."""
    log = _LOG if any(config.data_latencies) else 0
    room = room or Room(min(128, config.orders), config.levels // 64, _NODES, log)
    slots = 1 << (4 * room.orders - 1).bit_length()
    near = max(64, 4 << (room.pages - 1).bit_length())
    widths = (
        room.orders + 1,
        slots,
        slots // 2,
        64 * room.pages,
        room.pages,
        64 * room.nodes,
        room.nodes,
        near,
        room.log,
        ROW_WIDTH,
    )
    dtypes = (ORDER, np.int32, np.int32, LEVEL, np.uint64, np.uint32, np.uint64, np.uint32, EVENT, np.int64)
    wholes = [((num_markets, width), dtype) for width, dtype in zip(widths, dtypes, strict=True)]
    return [*wholes, ((1, LIMITS_WIDTH), np.int64)]


def allocate(num_markets: int, config: MarketConfig, room: Room | None = None) -> tuple[np.ndarray, BookState]:
    """Empty books, and the block of memory in which they lie."""
    memory, views = carve(parts(num_markets, config, room))
    book = BookState(*views)
    book.limits[0, CAPACITY] = config.orders
    book.limits[0, ID_MASK] = (1 << (config.flow_ids - 1).bit_length()) - 1
    book.limits[0, AGENT_IDS] = config.agent_ids
    book.limits[0, TICK] = config.tick
    book.limits[0, LOT] = config.lot
    _start_rows(book.row)
    return memory, book


def widen(
    memory: np.ndarray, book: BookState, config: MarketConfig, room: Room | None = None
) -> tuple[np.ndarray, BookState]:
    """The same books in wider arrays: of at least ``room``, or with whatever is short doubled."""
    row = book.row
    have = Room(book.orders.shape[1] - 1, book.page_bits.shape[1], book.node_bits.shape[1], book.log.shape[1])
    if room is not None and all(wanted <= had for wanted, had in zip(room, have, strict=True)):
        return memory, book
    if room is None:
        orders = have.orders * (2 if row[:, LIVE].max() >= have.orders else 1)
        pages = have.pages * (2 if row[:, LIVE_PAGES].max() >= have.pages else 1)
        nodes = have.nodes * (2 if row[:, LIVE_NODES].max() + NODES_A_PRICE > have.nodes else 1)
        room = Room(min(orders, config.orders), pages, nodes)
    memory, wider = allocate(len(row), config, Room(*map(max, have, room)))
    for name in BookState._fields:
        old, new = getattr(book, name), getattr(wider, name)
        if name not in ("slots", "spilled", "near"):  # their places depend on their width
            new[:, : old.shape[1]] = old
    enter_all(wider, np.arange(len(row)))
    return memory, wider


@njit(**SERIAL)
def enter_all(book, rows):
    """Fills the tables of ids of some markets anew with their live orders."""
    for i in range(rows.shape[0]):
        _enter_all(book, rows[i])


@njit(**KERNEL)
def _enter_all(book, m):
    book.slots[m] = 0
    book.spilled[m] = 0
    book.row[m, SPILLED] = 0
    for slot in range(book.row[m, HIGH_WATER]):
        order = book.orders[m, slot]
        if order["size"] > 0:
            enter(book, m, np.int64(order["owner"]), np.int64(order["order_id"]), slot)


@njit(inline="always")
def open_book(memory):
    """The books that lie in a block of memory, within a kernel."""
    return BookState(
        part_of(memory, 0, ORDER),
        part_of(memory, 1, np.int32),
        part_of(memory, 2, np.int32),
        part_of(memory, 3, LEVEL),
        part_of(memory, 4, np.uint64),
        part_of(memory, 5, np.uint32),
        part_of(memory, 6, np.uint64),
        part_of(memory, 7, np.uint32),
        part_of(memory, 8, EVENT),
        part_of(memory, 9, np.int64),
        part_of(memory, 10, np.int64),
    )


@njit(**SERIAL)
def _start_rows(row):
    for m in range(row.shape[0]):
        _start_row(row, m)


@njit(**INLINE)
def _start_row(row, m):
    """The row of an empty book."""
    for column in range(ROW_WIDTH):
        row[m, column] = 0
    row[m, BEST + 1] = EMPTY_ASK
    row[m, FREE] = -1
    row[m, HIGH_NODE] = 2
    row[m, LIVE_NODES] = 2
    row[m, TIGHT] = 1


@njit(**KERNEL)
def empty(book, m):
    """Empties a book; only what is in use is touched."""
    row = book.row
    for page in range(row[m, HIGH_PAGE]):
        if book.page_bits[m, page] != _ZERO:
            book.page_bits[m, page] = _ZERO
            for at in range(page << 6, (page + 1) << 6):
                book.levels[m, at]["depth"] = 0
    for slot in range(row[m, HIGH_WATER]):
        book.orders[m, slot]["size"] = 0
    for node in range(row[m, HIGH_NODE]):
        book.node_bits[m, node] = _ZERO
    book.slots[m] = 0
    book.spilled[m] = 0
    book.near[m] = 0
    _start_row(row, m)


@njit(**INLINE)
def has_room(book, m):
    """Whether any event can be carried out without widening the arrays."""
    return book.row[m, TIGHT] == 0 or _look_closer(book, m)


@njit(**KERNEL)
def _look_closer(book, m):
    row = book.row
    pool = book.orders.shape[1] - 1
    fits = (
        (row[m, LIVE] < pool or pool == book.limits[0, CAPACITY])
        and row[m, LIVE_PAGES] < book.page_bits.shape[1]
        and row[m, LIVE_NODES] + NODES_A_PRICE <= book.node_bits.shape[1]
    )
    if fits and book.log.shape[1] == 0:
        row[m, TIGHT] = 0
    return fits


@njit(**INLINE)
def is_ready(book, m, event, now):
    """Whether ``event`` can be carried out without widening the arrays; the log, if there is one, has it then."""
    return book.row[m, TIGHT] == 0 or _look_closer_and_log(book, m, event, now)


@njit(**KERNEL)
def _look_closer_and_log(book, m, event, now):
    if not _look_closer(book, m):
        return False
    if book.log.shape[1] > 0:  # the caller saw to it that there is room
        place = book.row[m, LOG_END]
        book.row[m, LOG_END] = place + 1
        book.log[m, place] = event
        book.log[m, place]["time_ns"] = now
    return True


@njit(**KERNEL)
def log_message(book, m, now, kind, side, price, size, order_id, owner, max_rest, anchor):
    """Notes what lies in no array, as it came, before it is carried out at ``now``."""
    aside()
    event = book.log[m, book.row[m, LOG_END]]
    book.row[m, LOG_END] += 1
    event["time_ns"] = now
    event["order_id"] = order_id
    event["price"] = price
    event["size"] = size
    event["max_rest"] = max_rest
    event["owner"] = owner
    event["kind"] = kind
    event["side"] = side
    event["anchor"] = anchor


# --- Orders: rest, reduce, remove -------------------------------------------------------------------


@njit(**INLINE)
def rest(book, m, order_id, now, price, size, owner, s):
    """Adds an order behind its price level on side ``s`` (0 bid, 1 ask); returns -1 when the pool is full."""
    row = book.row
    slot = row[m, FREE]
    if slot >= 0:
        row[m, FREE] = book.orders[m, slot]["next"]
    else:
        slot = row[m, HIGH_WATER]
        if slot == book.orders.shape[1] - 1:
            return np.int64(-1)
        row[m, HIGH_WATER] = slot + 1
    at = level_of(book, m, s, price)
    if at < 0:
        at = open_page(book, m, s, price)
    elif row[m, IDLE + s] == (price >> 6) + 1:
        row[m, IDLE + s] = 0
    level = book.levels[m, at]
    depth, head, tail = level["depth"], np.int64(level["head"]), np.int64(level["tail"])
    nobody = np.int64(book.orders.shape[1] - 1)
    book.orders[m, tail if depth > 0 else nobody]["next"] = slot
    level["head"] = head if depth > 0 else slot
    level["tail"] = slot
    level["depth"] = depth + size
    book.page_bits[m, at >> 6] |= _ONE << np.uint64(price & 63)
    best = row[m, BEST + s]
    row[m, BEST + s] = price if (price - best) * (1 - 2 * s) > 0 else best
    order = book.orders[m, slot]
    order["prev"] = tail if depth > 0 else np.int64(-1)
    order["next"] = -1
    order["order_id"] = order_id
    order["time_ns"] = now
    order["price"] = price
    order["size"] = size
    order["owner"] = owner
    order["side"] = 1 - 2 * s
    live = row[m, LIVE] + 1
    row[m, LIVE] = live
    if live >= book.orders.shape[1] - 1:
        row[m, TIGHT] = 1
    row[m, BACKGROUND_LIVE] += owner < 0
    enter(book, m, owner, order_id, slot)
    return slot


@njit(**INLINE)
def reduce(book, m, slot, size):
    """Takes ``size`` lots off an order, which keeps its place in the queue; at nothing left it is removed."""
    order = book.orders[m, slot]
    left = np.int64(order["size"]) - size
    order["size"] = left
    price = np.int64(order["price"])
    s = ((1 - np.int64(order["side"])) >> 1) & 1
    at = occupied(book, m, s, price)
    book.levels[m, at]["depth"] -= size
    if left == 0:
        _remove(book, m, slot, s, price, at)


@njit(**INLINE)
def _remove(book, m, slot, s, price, at):
    """Unlinks an order of size 0, frees its slot and its id, and finds the next best price if it was alone."""
    order = book.orders[m, slot]
    row = book.row
    earlier, later = np.int64(order["prev"]), np.int64(order["next"])
    order["next"] = row[m, FREE]
    row[m, FREE] = slot
    owner = np.int64(order["owner"])
    forget(book, m, owner, np.int64(order["order_id"]), slot)
    row[m, LIVE] -= 1
    row[m, BACKGROUND_LIVE] -= owner < 0
    nobody = np.int64(book.orders.shape[1] - 1)
    book.orders[m, earlier if earlier >= 0 else nobody]["next"] = later
    book.orders[m, later if later >= 0 else nobody]["prev"] = earlier
    level = book.levels[m, at]
    head, tail = np.int64(level["head"]), np.int64(level["tail"])
    level["head"] = head if earlier >= 0 else max(later, np.int64(0))
    level["tail"] = tail if later >= 0 else max(earlier, np.int64(0))
    if earlier < 0 and later < 0:
        _close_level(book, m, s, price, at)


@njit(**INLINE)
def _close_level(book, m, s, price, at):
    """Marks a level as empty; if it was the best one, the next takes its place."""
    page = at >> 6
    bit = np.uint64(price & 63)
    left = book.page_bits[m, page] & ~(_ONE << bit)
    book.page_bits[m, page] = left
    if price == book.row[m, BEST + s]:
        # No better level is occupied, so what is left of its page lies behind it.
        if left != _ZERO:
            book.row[m, BEST + s] = (price >> 6 << 6) | (highest(left) if s == 0 else lowest(left))
            return
        retire_page(book, m, s, price)
        found = below(book, m, s, price) if s == 0 else above(book, m, s, price)
        if found < 0:
            found = np.int64(EMPTY_BID) if s == 0 else np.int64(EMPTY_ASK)
        book.row[m, BEST + s] = found
    elif left == _ZERO:
        retire_page(book, m, s, price)
