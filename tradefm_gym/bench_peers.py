"""Order streams, and other books that take them: a bare one that does nothing else, and those that pip can install.

Two streams of a million messages, shallow (about 100 live orders) and deep (about 1,700), in the form of
``order_stream_<name>.npz``: kind (1 limit order, 2 cancel), side (0 buy, 1 sell), price, size, order_id, and in
``final`` the state in which every engine must end: best bid, best ask, trades, volume, live orders, missed cancels.
Without such files a like stream is drawn from a seed.
"""

import importlib
from functools import cache
from pathlib import Path

import numpy as np
from numba import njit

from tradefm_gym.bench import Work

STREAMS = Path("../shared/bench")  # where the files are looked for
LIVE = {"shallow": 100, "deep": 1_700}
PRICES = 4_096
EMPTY = (0, PRICES - 1, 0, 0, 0, 0)  # ``final`` of an empty book
IDS = 2**20  # more than a stream has

Stream = dict[str, np.ndarray]


# --- Streams -----------------------------------------------------------------------------------------------


@cache
def order_stream(name: str) -> Stream:
    """The stream of this name from a file, or one like it from a seed."""
    path = STREAMS / f"order_stream_{name}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return {key: stored[key] for key in stored.files}
    return draw_stream(LIVE[name], 1_000_000, seed=len(name))


def draw_stream(live: int, count: int, seed: int) -> Stream:
    """Six in ten messages are limit orders, a sixth of them marketable; the others cancel a live order.

    Args:
        live: how many orders rest on average.
        count: number of messages.
        seed: draws the same stream again.
    """
    generator = np.random.default_rng(seed)
    stream = {"kind": np.zeros(count, np.int8), "side": generator.integers(0, 2, count).astype(np.int8)}
    stream["price"] = np.zeros(count, np.int32)
    stream["size"] = generator.integers(1, 101, count).astype(np.int32)
    stream["order_id"] = np.zeros(count, np.int32)
    away = generator.geometric(1 / max(4, live // 20), count)
    final = np.array(EMPTY)
    _draw(*(stream[key] for key in stream), live, away, generator.random((count, 3)), _new_book(count), final)
    return {**stream, "final": final}


@njit(nogil=True)
def _draw(kinds, sides, prices, sizes, ids, live, away, uniforms, book, final):
    next_id = 0
    for i in range(len(kinds)):
        cancels = uniforms[i, 0] < 0.4 + 0.4 * (final[4] - live) / live
        if cancels and final[4] > 0:
            # Recent orders are cancelled soonest, so some of those tried are gone already.
            order_id = next_id - 1 - int(uniforms[i, 1] ** 3 * min(next_id, 8 * live))
            while order_id > 0 and book[3, order_id] == 0:
                order_id -= 1
            if book[3, order_id] > 0:
                kinds[i], ids[i], sides[i] = 2, order_id, book[4, order_id]
                prices[i], sizes[i] = book[2, order_id], book[3, order_id]
                _step(2, sides[i], prices[i], sizes[i], order_id, book, final)
                continue
        inside = -(uniforms[i, 1] * 3) if uniforms[i, 2] < 1 / 6 else away[i]
        opposite = final[1] if sides[i] == 0 else final[0]
        if final[0] == 0 or final[1] == PRICES - 1:
            opposite = PRICES // 2
        price = opposite - inside if sides[i] == 0 else opposite + inside
        kinds[i], prices[i], ids[i] = 1, min(max(price, 1), PRICES - 2), next_id
        _step(1, sides[i], prices[i], sizes[i], next_id, book, final)
        next_id += 1


# --- The limit: a bare book --------------------------------------------------------------------------------


def _new_book(orders: int) -> np.ndarray:
    """Rows next, prev, price, size, side of each id, and behind them the heads and tails of all levels."""
    book = np.full((9, max(orders, PRICES)), -1, np.int32)
    book[2:5] = 0
    return book


@njit(nogil=True, _nrt=False, forceinline=True)
def _step(kind, side, price, size, order_id, book, final):
    """One message. ``final`` as in the streams: best bid, best ask, trades, volume, live orders, missed cancels."""
    if kind == 2:
        if book[3, order_id] == 0:
            final[5] += 1
        else:
            _take_out(book, final, order_id)
        return
    other = 1 - side
    while size > 0 and (price >= final[1] if side == 0 else price <= final[0] and final[0] > 0):
        maker = book[5 + other, final[other]]
        lots = min(size, book[3, maker])
        final[2] += 1
        final[3] += lots
        size -= lots
        if lots == book[3, maker]:
            _take_out(book, final, maker)
        else:
            book[3, maker] -= lots
    if size > 0:
        tail = book[7 + side, price]
        book[0, order_id], book[1, order_id] = -1, tail
        book[2, order_id], book[3, order_id], book[4, order_id] = price, size, side
        if tail >= 0:
            book[0, tail] = order_id
        else:
            book[5 + side, price] = order_id
            if price > final[0] if side == 0 else price < final[1]:
                final[side] = price
        book[7 + side, price] = order_id
        final[4] += 1


@njit(nogil=True, _nrt=False, forceinline=True)
def _take_out(book, final, order_id):
    later, earlier, price, side = book[0, order_id], book[1, order_id], book[2, order_id], book[4, order_id]
    book[3, order_id] = 0
    final[4] -= 1
    if earlier >= 0:
        book[0, earlier] = later
    else:
        book[5 + side, price] = later
    if later >= 0:
        book[1, later] = earlier
    else:
        book[7 + side, price] = earlier
        step = -1 if side == 0 else 1
        while 0 < final[side] < PRICES - 1 and book[5 + side, final[side]] < 0:
            final[side] += step


@njit(nogil=True, _nrt=False)
def _bare_run(kinds, sides, prices, sizes, ids, book, final):
    for i in range(len(kinds)):
        size = np.int32(sizes[i])
        _step(kinds[i], np.int64(sides[i]), np.int64(prices[i]), size, np.int64(ids[i]), book, final)


@njit(nogil=True)
def _bare_loop(kinds, sides, prices, sizes, ids, book, final):
    _bare_run(kinds, sides, prices, sizes, ids, book, final)


def bare_work(name: str, quick: bool) -> Work:
    """The bare book on a whole stream."""
    stream = order_stream(name)
    columns = [np.ascontiguousarray(stream[key]) for key in ("kind", "side", "price", "size", "order_id")]
    book, final = _new_book(IDS), np.zeros(6, np.int64)

    def rewind() -> None:
        book[:] = _new_book(IDS)
        final[:] = EMPTY

    def run() -> int:
        _bare_loop(*columns, book, final)
        return checked(name, final)

    return Work(run, rewind)


def checked(name: str, final) -> int:
    """The number of messages, if the engine ended where it must."""
    stream = order_stream(name)
    if [int(value) for value in final] != stream["final"].tolist():
        raise ValueError(f"stream {name} must end in {stream['final'].tolist()}, not in {list(map(int, final))}")
    return len(stream["kind"])


# --- Peers -------------------------------------------------------------------------------------------------


def _tuples(name: str) -> list[tuple]:
    stream = order_stream(name)
    rows = zip(*(stream[key].tolist() for key in ("kind", "side", "price", "size", "order_id")), strict=True)
    return list(rows)


class SortedBook:
    """A price-time book on ``sortedcontainers``: sorted prices with a queue each."""

    def __init__(self):
        sorted_dict = importlib.import_module("sortedcontainers").SortedDict
        self.sides = sorted_dict(), sorted_dict()  # bids by minus price, asks by price: the best one is the first
        self.live = {}  # id -> [side, key, size]
        self.trades = self.volume = self.missed = 0

    def handle(self, kind: int, side: int, price: int, size: int, order_id: int) -> None:
        """One message of a stream."""
        if kind == 2:
            order = self.live.pop(order_id, None)
            if order is None:
                self.missed += 1
                return
            queue = self.sides[order[0]][order[1]]
            del queue[order_id]
            if not queue:
                del self.sides[order[0]][order[1]]
            return
        opposite, own_key = self.sides[1 - side], price if side else -price
        while size and opposite:
            key, queue = opposite.peekitem(0)
            if key > -own_key:
                break
            maker, order = next(iter(queue.items()))
            lots = min(size, order[2])
            order[2] -= lots
            size -= lots
            self.trades += 1
            self.volume += lots
            if not order[2]:
                del self.live[maker], queue[maker]
                if not queue:
                    del opposite[key]
        if size:
            order = self.live[order_id] = [side, own_key, size]
            self.sides[side].setdefault(own_key, {})[order_id] = order

    def final(self) -> list[int]:
        """The state that a stream's ``final`` tells."""
        bids, asks = self.sides
        return [-bids.peekitem(0)[0], asks.peekitem(0)[0], self.trades, self.volume, len(self.live), self.missed]


def sorted_work(name: str, quick: bool) -> Work:
    """:class:`SortedBook` on a whole stream, one call a message."""
    rows, books = _tuples(name), []

    def run() -> int:
        handle = books[0].handle
        for row in rows:
            handle(*row)
        return checked(name, books[0].final())

    return Work(run, lambda: books.__setitem__(slice(None), [SortedBook()]))


def bourse_work(name: str, quick: bool) -> Work:
    """A bourse book on a whole stream, one call a message."""
    core, rows = importlib.import_module("bourse").core, _tuples(name)

    def run() -> int:
        book, names = core.OrderBook(0, True), {}
        for time, (kind, side, price, size, order_id) in enumerate(rows):
            book.set_time(time)  # or orders of one price have no order
            if kind == 1:
                names[order_id] = book.place_order(side == 0, size, 0, price=price)
            else:
                book.cancel_order(names[order_id])
        if list(book.bid_ask()) != order_stream(name)["final"].tolist()[:2]:
            raise ValueError(f"stream {name} ends elsewhere in bourse")
        return len(rows)

    return Work(run)
