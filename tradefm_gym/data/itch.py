"""Read NASDAQ TotalView-ITCH 5.0: length-prefixed binary messages, as the exchange's daily files hold them.

Offsets and lengths are those of the specification; all numbers are big-endian. A stock's messages are told by
its locate code, which the stock directory, or the first order with its name, gives.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.data import live_orders
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.live_orders import LiveOrders
from tradefm_gym.data.mbo import ROW, as_rows
from tradefm_gym.data.rows import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    HALT,
    HIDDEN,
    NO_SIDE,
    OTHER_PRICE,
    PARTIAL_CANCEL,
    FeedRows,
)
from tradefm_gym.data.streams import blocks

# Length of each message by its type.
LENGTHS = {
    "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40,
    "E": 31, "C": 36, "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
}  # fmt: skip
_LENGTH = np.zeros(256, np.int64)
for _letter, _size in LENGTHS.items():
    _LENGTH[ord(_letter)] = _size

# Columns of ``state``.
_LOCATE = 0  # locate code of the stock, -1 while it is not known
_STOCK = 1  # its eight letters as a number, 0 while any will do
_MESSAGES = 2  # messages read so far
_STARTED = 3  # whether the day's start of messages was seen
_ROWS = 4  # rows written by this call
_ISSUES = 5  # issues written by this call
_OTHER = 6  # the eight letters of another stock, where any would have done

# What can be wrong with a message.
_ISSUE = ("", "message types are those of ITCH 5.0", "a message has the length of its type", "sides are B and S",
          "an order must be added before it is named")  # fmt: skip
_TYPE, _SIZE, _SIDE, _UNKNOWN = 1, 2, 3, 4

_DATES = (
    (re.compile(r"(?<!\d)((?:19|20)\d{2})-?(0[1-9]|1[0-2])-?(\d{2})(?!\d)"), (1, 2, 3)),  # 2019-01-30, 20190130
    (re.compile(r"(?<!\d)(\d{2})(\d{2})(20\d{2})(?!\d)"), (3, 1, 2)),  # 01302019
    (re.compile(r"(?<!\d)(\d{2})(\d{2})(\d{2})(?!\d)"), (3, 1, 2)),  # 013019
)


class _Out(NamedTuple):
    rows: np.ndarray  # ROW
    issues: np.ndarray  # (n, 3) int64: message, issue, value


def looks_like(start: bytes) -> bool:
    """Whether a file starts with a message of ITCH 5.0 after its length."""
    return len(start) > 2 and 0 < int.from_bytes(start[:2], "big") == _LENGTH[start[2]]


def open_file(path: Path, options: ReadOptions) -> Feed:
    """An ITCH file as a feed; with several stocks in it ``options.symbol`` says which."""
    symbol = options.symbol
    if symbol is not None and not (0 < len(symbol) <= 8 and symbol.isascii()):
        raise FeedError(path, f"symbol is {symbol!r}; a NASDAQ symbol has one to eight letters")
    if symbol is None:
        symbol = _only_stock(path)
    meta = {
        "ticker": symbol,
        "venue": "NASDAQ",
        "date": options.date or _date(path.name),
        "tick_size": 100,
        "price_unit": "1e-4 USD",
        "size_unit": "shares",
        "time_unit": "ns since midnight US/Eastern",
    }
    feed = Feed(path, "itch", meta, lambda skips: _rows(feed, symbol, skips), options)
    return feed


def _date(name: str) -> str:
    for pattern, (year, month, day) in _DATES:
        if found := pattern.search(name):
            return f"{'20' if len(found[year]) == 2 else ''}{found[year]}-{found[month]}-{found[day]}"
    return "unknown"


def _only_stock(path: Path) -> str:
    """The stock of a file's first order, read from no more of the file than needed."""
    state, live = _start(0), LiveOrders.allocate()
    for data in _whole_messages(path, None):
        out = _room(len(data))
        _parse(np.frombuffer(data, np.uint8), state, live.with_room(len(data) // 36 + 1), out, _LENGTH)
        if state[_STOCK] != 0:
            return int(state[_STOCK]).to_bytes(8, "big", signed=True).decode("ascii", "replace").strip()
    raise FeedError(path, "the file holds no order of any stock")


def _start(stock: int) -> np.ndarray:
    state = np.zeros(8, np.int64)
    state[_LOCATE], state[_STOCK] = -1, stock
    return state


def _room(length: int) -> _Out:
    return _Out(np.zeros(length // 10 + 2, ROW), np.zeros((length // 2 + 1, 3), np.int64))


def _rows(feed: Feed, symbol: str, skips: Skips) -> Iterator[FeedRows]:
    state = _start(int.from_bytes(symbol.ljust(8).encode(), "big", signed=True))
    live, any_stock = LiveOrders.allocate(), feed.options.symbol is None
    for data in _whole_messages(feed.path, skips):
        live = live.with_room(len(data) // 36 + 1)
        out = _room(len(data))
        _parse(np.frombuffer(data, np.uint8), state, live, out, _LENGTH)
        feed.full_opening = bool(state[_STARTED])
        for message, issue, value in out.issues[: state[_ISSUES]].tolist():
            skips.bad(_ISSUE[issue], message, f"{_said(issue, value)}; {_ISSUE[issue]}")
        if any_stock and state[_OTHER] != 0:
            other = int(state[_OTHER]).to_bytes(8, "big", signed=True).decode("ascii", "replace").strip()
            raise FeedError(feed.path, f"the file holds several stocks ({symbol}, {other}, ...); name one of them")
        yield as_rows(out.rows[: state[_ROWS]])
    if state[_LOCATE] < 0:
        raise FeedError(feed.path, f"the file holds no order of the symbol {symbol!r}")


def _said(issue: int, value: int) -> str:
    if issue in (_TYPE, _SIDE):
        return f"{'type' if issue == _TYPE else 'side'} is {chr(value)!r}"
    return f"length is {value}" if issue == _SIZE else f"order {value} is not on the book"


def _whole_messages(path: Path, skips: Skips | None) -> Iterator[bytes]:
    """The file in pieces that end with a message."""
    rest, done = b"", 0
    for block in blocks(path):
        data = rest + block
        end = _last_end(np.frombuffer(data, np.uint8))
        rest = data[end:]
        done += end
        if end:
            yield data[:end]
    if rest and skips is not None:
        detail = f"the file ends within a message, {len(rest)} bytes after byte {done:,}"
        if not skips.lenient:
            raise FeedError(path, detail)
        skips.bad("the file ends within a message", -1)


@njit(cache=True, nogil=True)
def _last_end(data):
    """Where the last whole message ends."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + (np.int64(data[at]) << 8) + data[at + 1]
        if end > len(data):
            break
        at = end
    return at


@njit(cache=True, nogil=True)
def _number(data, at, size):
    value = np.int64(0)
    for k in range(size):
        value = (value << 8) | np.int64(data[at + k])
    return value


@njit(cache=True, nogil=True)
def _parse(data, state, live, out, lengths):
    """Writes the rows of the stock's messages; ``data`` ends with a message."""
    state[_ROWS] = state[_ISSUES] = 0
    at = 0
    while at < len(data):
        length = _number(data, at, 2)
        at += 2
        if length > 0:  # 0 ends a session
            kind = data[at]
            if lengths[kind] == 0:
                _issue(state, out, _TYPE, kind)
            elif lengths[kind] != length:
                _issue(state, out, _SIZE, length)
            else:
                _message(data, at, kind, state, live, out)
            state[_MESSAGES] += 1
        at += length


@njit(cache=True, nogil=True)
def _issue(state, out, issue, value):
    entry = out.issues[state[_ISSUES]]
    state[_ISSUES] += 1
    entry[0], entry[1], entry[2] = state[_MESSAGES], issue, value


@njit(cache=True, nogil=True)
def _row(state, out, data, at, event, order_id, side, price, size, flag):
    row = out.rows[state[_ROWS]]
    state[_ROWS] += 1
    row["time_ns"], row["row"], row["event"] = _number(data, at + 5, 6), state[_MESSAGES], event
    row["order_id"], row["side"], row["price"], row["size"], row["flag"] = order_id, side, price, size, flag


@njit(cache=True, nogil=True)
def _message(data, at, kind, state, live, out):
    """One message of a known type and length; those of other stocks are passed over."""
    locate = _number(data, at + 1, 2)
    if kind == ord("S"):
        state[_STARTED] |= data[at + 11] == ord("O")
        return
    if kind == ord("R"):
        if state[_STOCK] != 0 and _number(data, at + 11, 8) == state[_STOCK]:
            state[_LOCATE] = locate
        return
    if kind == ord("A") or kind == ord("F"):
        if not _is_mine(data, at + 24, locate, state):
            return
    elif locate != state[_LOCATE]:
        return
    order_id = _number(data, at + 11, 8)
    if kind == ord("A") or kind == ord("F"):
        side = 1 if data[at + 19] == ord("B") else -1
        if side < 0 and data[at + 19] != ord("S"):
            _issue(state, out, _SIDE, data[at + 19])
            return
        _add(state, out, live, data, at, order_id, side, _number(data, at + 32, 4), _number(data, at + 20, 4))
    elif kind == ord("P"):  # its side has been B for all since 2014: it says nothing
        _row(state, out, data, at, HIDDEN, 0, 0, _number(data, at + 32, 4), _number(data, at + 20, 4), 0)
    elif kind == ord("Q"):
        shares = _number(data, at + 11, 8)
        if shares > 0:  # a cross that paired nothing
            _row(state, out, data, at, CROSS, 0, 0, _number(data, at + 27, 4), shares, NO_SIDE)
    elif kind == ord("H"):
        trading = data[at + 19]
        price = 1 if trading == ord("T") else 0 if trading == ord("Q") else -1
        _row(state, out, data, at, HALT, 0, 0, price, 0, 0)
    elif kind == ord("E") or kind == ord("C") or kind == ord("X") or kind == ord("D") or kind == ord("U"):
        place = live_orders.find(live, order_id)
        if place < 0:
            _issue(state, out, _UNKNOWN, order_id)
        else:
            _change(data, at, kind, order_id, place, state, live, out)


@njit(cache=True, nogil=True)
def _is_mine(data, name, locate, state):
    """Whether an order is one of the stock; where any stock will do, the first one becomes it."""
    stock = _number(data, name, 8)
    if state[_STOCK] == 0:
        state[_STOCK] = stock
    if stock != state[_STOCK]:
        state[_OTHER] = stock
        return False
    state[_LOCATE] = locate
    return True


@njit(cache=True, nogil=True)
def _add(state, out, live, data, at, order_id, side, price, size):
    if live_orders.find(live, order_id) < 0:
        live_orders.insert(live, order_id, side, price, size)
    _row(state, out, data, at, ADD, order_id, side, price, size, 0)


@njit(cache=True, nogil=True)
def _change(data, at, kind, order_id, place, state, live, out):
    """An execution, cancel, delete or replace of an order that rests."""
    side, price, left = live.side[place], live.price[place], live.left[place]
    if kind == ord("D") or kind == ord("U"):
        _row(state, out, data, at, DELETE, order_id, side, price, left, 0)
        live_orders.remove(live, place)
        if kind == ord("U"):
            _add(state, out, live, data, at, _number(data, at + 19, 8), side, _number(data, at + 31, 4),
                 _number(data, at + 27, 4))  # fmt: skip
        return
    size, event, flag, paid = _number(data, at + 19, 4), EXECUTION, 0, price
    if kind == ord("X"):
        event = DELETE if size == left else PARTIAL_CANCEL
    elif kind == ord("C"):
        paid = _number(data, at + 32, 4)
        flag = OTHER_PRICE if paid != price else 0
        if data[at + 31] == ord("N"):  # part of a cross, which a message of its own prints
            event, flag = CROSS, NO_SIDE
    _row(state, out, data, at, event, order_id, side, paid, size, flag)
    live.left[place] = left - min(left, size)
    if live.left[place] == 0:
        live_orders.remove(live, place)
