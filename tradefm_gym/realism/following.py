"""Executing a recorded day by its own order ids, in the exchange's book: the kernels.

Every row acts on the order that it names. An add rests behind its level, a cancel takes lots off its order,
and an execution is sent as a taker through the matching of the exchange, which must find the named order at
the head of the best level. Where it does not, the row is written to a log and the record is believed: the
named order is reduced, so that one difference does not bring about others.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.data import live_orders
from tradefm_gym.data.live_orders import LiveOrders
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HIDDEN, PARTIAL_CANCEL
from tradefm_gym.market import book as books
from tradefm_gym.market import ledger as ledgers
from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, BookState, Room, reduce, rest
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import ABSOLUTE, BACKGROUND, EVENT, LIMIT
from tradefm_gym.market.ids import find
from tradefm_gym.market.layout import BEST, FILLS, LIVE, LIVE_NODES, LIVE_PAGES
from tradefm_gym.market.ledger import Ledger
from tradefm_gym.market.matching import process
from tradefm_gym.market.prices import NODES_A_PRICE, above, below, level_of
from tradefm_gym.market.views import first_at

# What can differ between a row and the book that it meets.
UNKNOWN, DUPLICATE, OVERSIZE, PRICE, PRIORITY, THROUGH, SIZE, SIDE = range(8)
# Beside a recorded book: the replayed levels are not the recorded ones; a message does not lead to its own book.
BOOK, STEP = 8, 9

# A difference, as the log has it.
DIFFERENCE = np.dtype(
    [
        ("row", np.int64),
        ("time_ns", np.int64),
        ("order_id", np.int64),
        ("price", np.int64),
        ("size", np.int64),
        ("found", np.int64),  # what the book has instead: what is left, the resting price, the head's id
        ("newest", np.int64),  # the largest id added before
        ("code", np.int8),
        ("event", np.int8),
        ("side", np.int8),
        ("crossed", np.bool_),  # whether the book was crossed when the row came, or by the add of its order
        ("uncontradicted", np.bool_),  # nothing passed the price over so far: the order may rest since the start
    ],
    align=True,
)

# Totals, in this order.
TOTALS = (
    "adds", "cancels", "fills", "hidden", "crosses", "halts", "filled_size", "hidden_size",
    "cross_bought", "cross_sold", "cross_sideless", "matched", "fills_equal", "cancels_equal", "named_crosses",
)  # fmt: skip
(
    ADDS, CANCELS, FILLED, HIDDENS, CROSSES, HALTS, FILLED_SIZE, HIDDEN_SIZE,
    CROSS_BOUGHT, CROSS_SOLD, CROSS_SIDELESS, MATCHED, FILLS_EQUAL, CANCELS_EQUAL, NAMED_CROSSES,
) = range(len(TOTALS))  # fmt: skip

_NEWEST, _LOWEST_ASK, _HIGHEST_BID, _LOWEST_SOLD, _HIGHEST_BOUGHT, LOGGED = range(6)  # columns of ``extremes``
_FAR = 2**62
# As many orders as the exchange can hold; its memory follows what rests.
_CONFIG = MarketConfig(seats=0, orders=2**24, flow_ids=2**30, tape=64, fills=64)
_TAKER = 2**30 - 1  # an id that no resting order has: theirs are their places among the live ones


class Following(NamedTuple):
    """The book that follows a day, with everything it needs."""

    memory: np.ndarray  # in which the book lies
    book: BookState
    ledger: Ledger
    live: LiveOrders
    event: np.ndarray  # (1,) EVENT, the taker in hand
    totals: np.ndarray  # (len(TOTALS),) int64
    extremes: np.ndarray  # (6,) int64
    units: np.ndarray  # (2,) int64: price units a tick, raw size a lot

    @classmethod
    def start(cls, tick: int, lot: int) -> "Following":
        """An empty book."""
        event = np.zeros(1, EVENT)
        event["owner"], event["anchor"], event["kind"] = BACKGROUND, ABSOLUTE, LIMIT
        event["order_id"] = _TAKER
        memory, book = books.allocate(1, _CONFIG)
        return cls(
            memory, book, ledgers.allocate(1, _CONFIG)[1], LiveOrders.allocate(1024), event,
            np.zeros(len(TOTALS), np.int64), np.array([-1, _FAR, -_FAR, _FAR, -_FAR, 0], np.int64),
            np.array([tick, lot], np.int64),
        )  # fmt: skip

    def with_room(self, adds: int) -> "Following":
        """The same book, with room for ``adds`` more orders among the live ones."""
        return self._replace(live=self.live.with_room(adds))

    def widened(self, adds: int) -> "Following":
        """The same book, whose arrays take ``adds`` more orders at any prices."""
        book = self.book
        orders, pages, nodes = (int(book.row[0, column]) for column in (LIVE, LIVE_PAGES, LIVE_NODES))
        room = Room(2 * (orders + adds), 2 * (pages + adds), 2 * (nodes + NODES_A_PRICE * adds))
        memory, book = books.widen(self.memory, book, _CONFIG, room)
        return self._replace(memory=memory, book=book)


class Snapshots(NamedTuple):
    """The venue's own pictures of the book; each is compared with what the book was around its stamp."""

    time_ns: np.ndarray  # (s,) int64, ascending
    book: np.ndarray  # (s, levels, 4) int64 ask price, ask size, bid price, bid size in ticks and lots; 0: empty
    # (s, 6) bool out: touch prices at the stamp, within its unit of time, near it; all levels with sizes likewise
    equal: np.ndarray
    window_ns: np.ndarray  # (3,) int64: how long before and after the stamp is near; the unit in which stamps count
    at: np.ndarray  # (2,) int64: first snapshot that is not done, time of the last row

    @classmethod
    def empty(cls) -> "Snapshots":
        """None at all."""
        return cls.of(np.zeros(0, np.int64), np.zeros((0, 1, 4), np.int64), (0, 0))

    @classmethod
    def of(cls, time_ns: np.ndarray, book: np.ndarray, window_ns: tuple[int, int], unit_ns: int = 1) -> "Snapshots":
        """Snapshots none of which is compared yet; ``unit_ns`` must not exceed how long after a stamp is near."""
        at = np.array([0, -_FAR], np.int64)
        windows = np.array([*window_ns, unit_ns], np.int64)
        return cls(time_ns, book, np.zeros((len(time_ns), 6), np.bool_), windows, at)


@njit(cache=True, nogil=True)
def compare(state, snapshots, until_ns):
    """Compares the book, which stays as it is until ``until_ns``, with the snapshots of that time."""
    at, time_ns = snapshots.at, snapshots.time_ns
    before, after, unit = snapshots.window_ns
    while at[0] < len(time_ns) and time_ns[at[0]] + after < at[1]:
        at[0] += 1
    j = at[0]
    while j < len(time_ns) and time_ns[j] - before < until_ns:
        stamped = at[1] <= time_ns[j] < until_ns
        within = time_ns[j] < until_ns and at[1] < time_ns[j] + unit
        if within or not snapshots.equal[j, 5]:
            touch, whole = _equal(state, snapshots.book[j])
            snapshots.equal[j, 0] |= stamped and touch
            snapshots.equal[j, 1] |= within and touch
            snapshots.equal[j, 2] |= touch
            snapshots.equal[j, 3] |= stamped and whole
            snapshots.equal[j, 4] |= within and whole
            snapshots.equal[j, 5] |= whole
        j += 1
    at[1] = until_ns


@njit(cache=True, nogil=True)
def _equal(state, recorded):
    """Whether the best prices equal a recorded book (levels, 4), and whether all its levels and sizes do."""
    book = state.book
    touch, whole = True, True
    for s in range(2):
        price = book.row[0, BEST + s]
        price = price if price != EMPTY_BID and price != EMPTY_ASK else np.int64(-1)
        for level in range(len(recorded)):
            wanted, lots = recorded[level, 2 - 2 * s], recorded[level, 3 - 2 * s]
            depth = depth_at(book, s, price) if price >= 0 else 0
            if level == 0:
                touch = touch and ((lots == 0 and price < 0) or (lots > 0 and price == wanted))
            if depth != lots or (lots > 0 and price != wanted):
                whole = False
                break
            if price < 0:
                break
            price = below(book, 0, 0, price - 1) if s == 0 else above(book, 0, 1, price + 1)
    return touch, whole


@njit(cache=True, nogil=True)
def depth_at(book, s, price):
    """Lots at a price of side ``s``, 0 where nothing rests."""
    at = level_of(book, 0, s, price)
    return np.int64(book.levels[0, at]["depth"]) if at >= 0 else np.int64(0)


@njit(cache=True, nogil=True)
def takes(book, adds):
    """Whether the arrays of the book take ``adds`` more orders, wherever their prices lie."""
    row = book.row
    return (
        row[0, LIVE] + adds < book.orders.shape[1]
        and row[0, LIVE_PAGES] + adds <= book.page_bits.shape[1]
        and row[0, LIVE_NODES] + NODES_A_PRICE * adds <= book.node_bits.shape[1]
    )


def follow(state, snapshots, rows, touch, log):
    """Carries out n rows; writes the touch after each and what differs.

    Args:
        state: Following, with room for the adds among its live orders.
        snapshots: Snapshots to compare with.
        rows: time_ns, event, order_id, side, price, size and source of FeedRows, (n,) each.
        touch: (n, 4) int64 out: bid price, bid lots, ask price, ask lots, prices in ticks, 0 for an empty side.
        log: (2 n,) DIFFERENCE out.

    Returns:
        The state, whose book may have been widened, and how many differences were written.
    """
    state.extremes[LOGGED] = 0
    done = 0
    while (done := _follow(state, snapshots, rows, touch, log, done)) < len(touch):
        state = state.widened(1)
    return state, int(state.extremes[LOGGED])


@njit(cache=True, nogil=True)
def _follow(state, snapshots, rows, touch, log, first):
    """Carries out rows from ``first`` on; returns the row before which the book has to be widened, or n."""
    time_ns, event, order_id, side, price, size, source = rows
    for i in range(first, len(time_ns)):
        kind = event[i]
        if kind == ADD and not takes(state.book, 1):
            return i
        compare(state, snapshots, time_ns[i])
        if kind == ADD:
            _add(state, log, i, time_ns, event, order_id, side, price, size, source)
        elif kind == PARTIAL_CANCEL or kind == DELETE:
            _cancel(state, log, i, time_ns, event, order_id, side, price, size, source)
        elif kind == EXECUTION or (kind == CROSS and order_id[i] > 0):
            _execute(state, log, i, time_ns, event, order_id, side, price, size, source)
        elif kind == HIDDEN:
            state.totals[HIDDENS] += 1
            state.totals[HIDDEN_SIZE] += size[i]
        elif kind == CROSS:
            state.totals[CROSSES] += 1
            state.totals[CROSS_SIDELESS] += size[i]
        else:
            state.totals[HALTS] += 1
        write_touch(state, touch, i)
    return len(time_ns)


@njit(cache=True, nogil=True)
def note(state, log, code, found, i, time_ns, event, order_id, side, price, size, source):
    """Writes row i to the log: its difference and what the book has instead."""
    entry = log[state.extremes[LOGGED]]
    state.extremes[LOGGED] += 1
    entry["row"], entry["time_ns"], entry["order_id"] = source[i], time_ns[i], order_id[i]
    entry["price"], entry["size"], entry["found"], entry["code"] = price[i], size[i], found, code
    entry["event"], entry["side"], entry["newest"] = event[i], side[i], state.extremes[_NEWEST]
    entry["crossed"] = state.book.row[0, BEST] >= state.book.row[0, BEST + 1]
    ticks = price[i] // state.units[0]
    if side[i] > 0:
        entry["uncontradicted"] = ticks < state.extremes[_LOWEST_ASK] and price[i] <= state.extremes[_LOWEST_SOLD]
    else:
        entry["uncontradicted"] = ticks > state.extremes[_HIGHEST_BID] and price[i] >= state.extremes[_HIGHEST_BOUGHT]


@njit(cache=True, nogil=True)
def lots_of(state, size):
    """Lots that a raw size fills, the last one perhaps in part."""
    return -(-size // state.units[1])


@njit(cache=True, nogil=True)
def _add(state, log, i, time_ns, event, order_id, side, price, size, source):
    state.totals[ADDS] += 1
    if live_orders.find(state.live, order_id[i]) >= 0:
        note(state, log, DUPLICATE, 0, i, time_ns, event, order_id, side, price, size, source)
        return
    state.extremes[_NEWEST] = max(state.extremes[_NEWEST], order_id[i])
    place = live_orders.insert(state.live, order_id[i], side[i], price[i], size[i])
    s = np.int64(0) if side[i] > 0 else np.int64(1)
    lots, ticks = lots_of(state, size[i]), price[i] // state.units[0]
    state.live.mark[place] = ticks >= state.book.row[0, BEST + 1] if s == 0 else ticks <= state.book.row[0, BEST]
    rest(state.book, 0, place, time_ns[i], ticks, lots, np.int64(BACKGROUND), s)


@njit(cache=True, nogil=True)
def _cancel(state, log, i, time_ns, event, order_id, side, price, size, source):
    live = state.live
    state.totals[CANCELS] += 1
    place = live_orders.find(live, order_id[i])
    if place < 0:
        note(state, log, UNKNOWN, 0, i, time_ns, event, order_id, side, price, size, source)
        return
    left = live.left[place]
    equal = True
    if live.side[place] != side[i]:
        equal = False
        note(state, log, SIDE, live.side[place], i, time_ns, event, order_id, side, price, size, source)
    elif live.price[place] != price[i]:
        equal = False
        note(state, log, PRICE, live.price[place], i, time_ns, event, order_id, side, price, size, source)
    if size[i] > left or (event[i] == DELETE and size[i] != left):
        equal = False
        code = OVERSIZE if size[i] > left else SIZE
        note(state, log, code, left, i, time_ns, event, order_id, side, price, size, source)
    state.totals[CANCELS_EQUAL] += equal
    take(state, place, left if event[i] == DELETE else min(left, size[i]))


@njit(cache=True, nogil=True)
def _execute(state, log, i, time_ns, event, order_id, side, price, size, source):
    live, extremes = state.live, state.extremes
    cross = event[i] == CROSS
    if cross:
        state.totals[CROSSES] += 1
        state.totals[NAMED_CROSSES] += 1
        if side[i] > 0:
            state.totals[CROSS_BOUGHT] += size[i]
        elif side[i] < 0:
            state.totals[CROSS_SOLD] += size[i]
        else:
            state.totals[CROSS_SIDELESS] += size[i]
    else:
        state.totals[FILLED] += 1
        state.totals[FILLED_SIZE] += size[i]
    place = live_orders.find(live, order_id[i])
    if place < 0:
        note(state, log, UNKNOWN, 0, i, time_ns, event, order_id, side, price, size, source)
    else:
        left = live.left[place]
        s = np.int64(0) if live.side[place] > 0 else np.int64(1)
        equal = True
        if side[i] != 0 and live.side[place] != side[i]:
            equal = False
            note(state, log, SIDE, live.side[place], i, time_ns, event, order_id, side, price, size, source)
        if size[i] > left:
            equal = False
            note(state, log, OVERSIZE, left, i, time_ns, event, order_id, side, price, size, source)
        elif not cross and live.price[place] != price[i]:
            equal = False
            note(state, log, PRICE, live.price[place], i, time_ns, event, order_id, side, price, size, source)
            log[state.extremes[LOGGED] - 1]["crossed"] |= live.mark[place] != 0
        taken = min(left, size[i])
        if not cross and equal:
            head = head_of(state, s)
            if head == place:
                equal = match(state, place, taken, s, time_ns[i])
            else:
                equal = False
                found = live.order_id[head]
                code = PRIORITY if live.price[head] == live.price[place] else THROUGH
                note(state, log, code, found, i, time_ns, event, order_id, side, price, size, source)
                take(state, place, taken)
        else:
            take(state, place, taken)
        state.totals[FILLS_EQUAL] += equal
    row = state.book.row
    if not cross and row[0, BEST] < row[0, BEST + 1]:  # in a crossed book such trades are no evidence
        if side[i] > 0:
            extremes[_LOWEST_SOLD] = min(extremes[_LOWEST_SOLD], price[i])
        elif side[i] < 0:
            extremes[_HIGHEST_BOUGHT] = max(extremes[_HIGHEST_BOUGHT], price[i])


@njit(cache=True, nogil=True)
def head_of(state, s):
    """Place of the order that the next taker meets on side ``s``."""
    book = state.book
    slot = first_at(book, 0, s, book.row[0, BEST + s])
    return book.orders[0, slot]["order_id"]


@njit(cache=True, nogil=True)
def match(state, place, size, s, now):
    """Sends a taker of ``size`` through the exchange; whether it fills the order at ``place``, and only that."""
    live = state.live
    before = lots_of(state, live.left[place])
    lots = before - lots_of(state, live.left[place] - size)
    ticks = live.price[place] // state.units[0]
    if lots == 0:  # a part of a lot
        live.left[place] -= size
        return True
    taker = state.event[0]
    taker["time_ns"], taker["price"], taker["size"], taker["max_rest"] = now, ticks, lots, 0
    taker["side"] = -1 if s == 0 else 1
    fills = state.ledger.clocks[0, FILLS]
    process(state.book, state.ledger, 0, taker, now)
    fill = state.ledger.fills[0, fills % state.ledger.fills.shape[1]]
    equal = state.ledger.clocks[0, FILLS] == fills + 1
    equal = equal and fill["maker_id"] == place and fill["size"] == lots and fill["price"] == ticks
    state.totals[MATCHED] += equal
    live.left[place] -= size
    if live.left[place] == 0:
        live_orders.remove(live, place)
    return equal


@njit(cache=True, nogil=True)
def take(state, place, size):
    """Takes ``size`` off an order wherever it stands."""
    live = state.live
    lots = lots_of(state, live.left[place])
    live.left[place] -= size
    lots -= lots_of(state, live.left[place])
    if lots > 0:
        reduce(state.book, 0, find(state.book, 0, np.int64(BACKGROUND), place), lots)
    if live.left[place] == 0:
        live_orders.remove(live, place)


@njit(cache=True, nogil=True)
def write_touch(state, touch, i):
    """Writes the best prices and sizes after row i, and keeps the extremes of an uncrossed book."""
    book, extremes = state.book, state.extremes
    bid, ask = book.row[0, BEST], book.row[0, BEST + 1]
    bids, asks = bid != EMPTY_BID, ask != EMPTY_ASK
    touch[i, 0] = bid if bids else 0
    touch[i, 1] = depth_at(book, 0, bid) if bids else 0
    touch[i, 2] = ask if asks else 0
    touch[i, 3] = depth_at(book, 1, ask) if asks else 0
    if not (bids and asks and bid >= ask):
        if asks:
            extremes[_LOWEST_ASK] = min(extremes[_LOWEST_ASK], ask)
        if bids:
            extremes[_HIGHEST_BID] = max(extremes[_HIGHEST_BID], bid)
