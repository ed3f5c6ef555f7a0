"""Read any CSV of order events through a column map, which says what its columns and values mean.

A map is a dict, or JSON of one::

    {
      "columns": {"time": "ts", "event": "type", "order_id": "id", "side": "side", "price": "px", "size": "qty"},
      "events": {"new": "add", "cancel": "delete", "fill": "execution", "heartbeat": "skip"},
      "sides": {"B": "buy", "S": "sell"},
      "time": "ns",
      "price_unit": "1e-4",
      "tick_size": 100
    }

Keys beside those: ``header`` (a list of column names for a file without a header), ``delimiter`` (","),
``time`` ("iso", or "s", "ms", "us", "ns": since midnight, or since 1970 where the values are that large),
``zone`` ("UTC", the clock of "midnight" and of ISO times without one), ``size_unit`` ("1": sizes are stored as
multiples of this power of ten), ``sizes`` ("event"; "left" where the size of a row is what is left of its order
after it: a delete at 0 is then a fill), ``fills`` ("resting"; "taker" where the side of an execution is the taker's),
``ticker``, ``venue`` and ``date``. Events are "add", "partial_cancel", "delete", "execution", "hidden", "cross",
"halt" and "skip". A cancel or an execution may leave side, price or size empty: those of its order are taken.
"""

import datetime
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numba import njit

from tradefm_gym.data import arrow_csv, live_orders
from tradefm_gym.data.arrow_csv import MISSING
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.live_orders import LiveOrders
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HALT, HIDDEN, PARTIAL_CANCEL, FeedRows

_EVENTS = {
    "add": ADD, "partial_cancel": PARTIAL_CANCEL, "delete": DELETE, "execution": EXECUTION, "hidden": HIDDEN,
    "cross": CROSS, "halt": HALT, "skip": 7,
}  # fmt: skip
_SKIP = 7
_SIDES = {"buy": 1, "sell": -1, "none": 0, "1": 1, "-1": -1, "0": 0, "+1": 1}
_TIMES = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_COLUMNS = ("time", "event", "order_id", "side", "price", "size")
_OPTIONAL = {
    "events": None, "sides": None, "header": None, "delimiter": ",", "time": "ns", "zone": "UTC", "price_unit": "1e-4",
    "size_unit": "1", "tick_size": 100, "fills": "resting", "sizes": "event",
    "ticker": None, "venue": "unknown", "date": None,
}  # fmt: skip
_DAY_NS = 86_400 * 10**9


class _Map(NamedTuple):
    """A column map that was checked."""

    columns: dict[str, str]
    events: dict[str, int]
    sides: dict[str, int]
    header: list[str] | None
    delimiter: str
    time: str
    zone: str
    price_digits: int
    size_digits: int
    tick: int
    taker: bool
    left: bool
    said: dict[str, Any]


def column_map(text: str) -> dict[str, Any]:
    """A column map from JSON, or from the file that ``text`` names.

    Raises:
        ValueError: if it is neither.
    """
    source = text
    if not text.lstrip().startswith("{"):
        try:
            source = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"columns is {text!r}; it must be JSON, or name a file of it ({error}).") from None
    try:
        values = json.loads(source)
    except ValueError as error:
        raise ValueError(f"columns is no JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"columns is a {type(values).__name__}; it must be a JSON object.")
    return values


def open_file(path: Path, options: ReadOptions) -> Feed:
    """A CSV as a feed; ``options.columns`` is its column map."""
    assert options.columns is not None
    layout = _checked(options.columns)
    present = layout.header or arrow_csv.header(path, layout.delimiter)
    missing = [name for name in layout.columns.values() if name not in present]
    if missing:
        raise FeedError(path, f"the columns {missing} of the map are missing; the file has {present[:12]}")
    midnight = _midnight(path, layout, options)
    day = "unknown"
    if midnight is not None:
        day = datetime.datetime.fromtimestamp(midnight // 10**9, ZoneInfo(layout.zone)).date().isoformat()
    meta = {
        "ticker": options.symbol or layout.said["ticker"] or path.name,
        "venue": layout.said["venue"],
        "date": options.date or layout.said["date"] or day,
        "tick_size": layout.tick,
        "price_unit": layout.said["price_unit"],
        "size_unit": layout.said["size_unit"],
        "time_unit": f"ns since midnight {layout.zone}",
    }
    return Feed(path, "csv", meta, lambda skips: _rows(path, layout, midnight or 0, skips), options)


def _checked(values: Mapping[str, Any]) -> _Map:
    """The map with its defaults; what is wrong with it is said by key."""
    unknown = sorted(set(values) - {"columns", *_OPTIONAL})
    if unknown:
        raise ValueError(f"the column map has the keys {unknown}; known are {['columns', *_OPTIONAL]}.")
    columns = values.get("columns")
    if not isinstance(columns, dict) or not {"time", "order_id", "price", "size"} <= set(columns) <= set(_COLUMNS):
        raise ValueError(
            f"columns of the column map is {columns!r}; it must name a column for each of {list(_COLUMNS)}."
        )
    said = {key: values.get(key, default) for key, default in _OPTIONAL.items()}
    events = said["events"] or {str(code): name for name, code in _EVENTS.items() if code != _SKIP}
    sides = said["sides"] or {"1": "buy", "-1": "sell", "0": "none"}
    for name, given, known in (("events", events, _EVENTS), ("sides", sides, _SIDES)):
        if not isinstance(given, dict) or not all(str(value) in known for value in given.values()):
            raise ValueError(f"{name} of the column map is {given!r}; its values are {list(known)}.")
    if said["time"] not in ("iso", *_TIMES):
        raise ValueError(
            f"time of the column map is {said['time']!r}; allowed are 'iso', {', '.join(map(repr, _TIMES))}."
        )
    try:
        ZoneInfo(said["zone"])
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f"zone of the column map is {said['zone']!r}; it must name a time zone.") from None
    if said["fills"] not in ("resting", "taker"):
        raise ValueError(f"fills of the column map is {said['fills']!r}; allowed are 'resting' and 'taker'.")
    if said["sizes"] not in ("event", "left"):
        raise ValueError(f"sizes of the column map is {said['sizes']!r}; allowed are 'event' and 'left'.")
    tick, delimiter, header = said["tick_size"], said["delimiter"], said["header"]
    if isinstance(tick, bool) or not isinstance(tick, int) or tick < 1:
        raise ValueError(f"tick_size of the column map is {tick!r}; it must be a positive number of price units.")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or not delimiter.isascii() or delimiter in '\r\n"':
        raise ValueError(f"delimiter of the column map is {delimiter!r}; it must be one character.")
    if header is not None and not (isinstance(header, list) and all(isinstance(name, str) for name in header)):
        raise ValueError(f"header of the column map is {header!r}; it must be a list of names.")
    return _Map(
        {key: str(name) for key, name in columns.items()},
        {str(key): _EVENTS[value] for key, value in events.items()},
        {str(key): _SIDES[str(value)] for key, value in sides.items()},
        header,
        delimiter,
        said["time"],
        said["zone"],
        _digits("price_unit", said["price_unit"]),
        _digits("size_unit", said["size_unit"]),
        tick,
        said["fills"] == "taker",
        said["sizes"] == "left",
        {
            key: said[key] if said[key] is None else str(said[key])
            for key in ("ticker", "venue", "date", "price_unit", "size_unit")
        },
    )


def _digits(name: str, unit: Any) -> int:
    """Decimal places of a unit that is a power of ten."""
    try:
        value = Decimal(str(unit).split()[0])
    except (InvalidOperation, IndexError):
        value = Decimal(0)
    digits = -value.adjusted() if value > 0 else 99
    if not -6 <= digits <= 12 or value != Decimal(1).scaleb(-digits):
        raise ValueError(f"{name} of the column map is {unit!r}; it must be a power of ten from 1e-12 to 1e6.")
    return digits


def _midnight(path: Path, layout: _Map, options: ReadOptions) -> int | None:
    """Nanoseconds since 1970 at the midnight before the first row; None where times count from midnight already."""
    text: dict
    for _, text in _text(path, layout, Skips(str(path), True), 1 << 16):
        values, wrong = _times(text["time"], layout)
        good = values[~wrong & (values != MISSING)]
        if len(good) == 0:
            continue
        if layout.time != "iso" and good[0] < 400 * _DAY_NS:
            return None
        zone = ZoneInfo(layout.zone)
        try:
            day = datetime.datetime.fromtimestamp(int(good[0]) // 10**9, zone).date()
            if options.date is not None:
                day = datetime.date.fromisoformat(options.date)
            return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9
        except (ValueError, OverflowError, OSError) as error:
            raise FeedError(path, f"the date cannot be told ({error})") from None
    return None


def _text(path: Path, layout: _Map, skips: Skips, block: int = 1 << 21) -> Iterator[tuple[np.ndarray, dict]]:
    names = list(dict.fromkeys(layout.columns.values()))
    for rows, text in arrow_csv.text_batches(path, names, skips, layout.delimiter, layout.header, block):
        by_name = dict(zip(names, text.values(), strict=True))
        yield rows, {key: by_name[name] for key, name in layout.columns.items()}


def _times(text, layout: _Map) -> tuple[np.ndarray, np.ndarray]:
    if layout.time == "iso":
        return arrow_csv.moments(text, layout.zone)
    return arrow_csv.whole(text, _TIMES[layout.time])


def _rows(path: Path, layout: _Map, midnight: int, skips: Skips) -> Iterator[FeedRows]:
    live = LiveOrders.allocate()
    for number, text in _text(path, layout, skips):
        n = len(number)
        read = {
            "time": _times(text["time"], layout),
            "order_id": arrow_csv.whole(text["order_id"], 0),
            "price": arrow_csv.whole(text["price"], layout.price_digits),
            "size": arrow_csv.whole(text["size"], layout.size_digits),
            "event": arrow_csv.codes(text["event"], layout.events) if "event" in text else _all(n, ADD),
            "side": arrow_csv.codes(text["side"], layout.sides) if "side" in text else _all(n, int(MISSING)),
        }  # fmt: skip
        keep = (read["event"][0] != _SKIP) | read["event"][1]
        for name in _COLUMNS:
            values, wrong = read[name]
            if name in ("time", "event"):
                wrong = wrong | (values == MISSING)
            wrong = wrong & keep
            if wrong.any():
                row = int(np.argmax(wrong))
                shown = arrow_csv.said(text[name], row) if name in text else None
                rule = f"column {layout.columns.get(name, name)} is not what the column map says of {name}"
                skips.bad(
                    rule,
                    int(number[row]),
                    f"column {layout.columns.get(name, name)} is {shown!r}, no {name} of the column map",
                    int(wrong.sum()),
                )
                keep &= ~wrong
        columns = {name: np.ascontiguousarray(values[keep]) for name, (values, _) in read.items()}
        columns["time"] -= midnight
        event, side, number = columns["event"].astype(np.int8), columns["side"], number[keep]
        given = side != MISSING
        if layout.taker:
            side = np.where(given & np.isin(event, (EXECUTION, HIDDEN, CROSS)), -side, side)
        live = live.with_room(int((event == ADD).sum()))
        order_id = np.where(columns["order_id"] == MISSING, 0, columns["order_id"])
        lost = _complete(live, event, order_id, side, columns["price"], columns["size"], layout.left)
        if lost.any():
            row = int(np.argmax(lost))
            what = "the size is what is left" if layout.left else "side, price or size is empty"
            detail = f"{what}, and order {order_id[row]} is not on the book to tell the rest"
            skips.bad(f"{what}, but the order is not on the book", int(number[row]), detail, int(lost.sum()))
        good = ~lost
        rows = FeedRows.build(columns["time"], event, order_id, side.astype(np.int8), columns["price"], columns["size"])
        rows = FeedRows(*list(vars(rows).values())[:-1], number)
        yield rows if good.all() else rows.take(good)


def _all(n: int, value: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(n, value, np.int64), np.zeros(n, bool)


@njit(cache=True, nogil=True)
def _complete(live, event, order_id, side, price, size, sizes_left):
    """Fills in what a row leaves to its order, in place; which rows (n,) name no order to take it from.

    With ``sizes_left`` a size is what is left of the order, and becomes what the row took off it.
    """
    lost = np.zeros(len(event), np.bool_)
    for i in range(len(event)):
        kind = event[i]
        if kind == HALT or kind == HIDDEN:
            side[i] = 0 if side[i] == MISSING else side[i]
            price[i] = 0 if price[i] == MISSING else price[i]
            size[i] = 0 if size[i] == MISSING else size[i]
            continue
        empty = side[i] == MISSING or price[i] == MISSING or size[i] == MISSING
        place = live_orders.find(live, order_id[i])
        if kind == ADD:
            lost[i] = empty
            if not empty and place < 0 and size[i] > 0:
                live_orders.insert(live, order_id[i], side[i], price[i], size[i])
            continue
        if place < 0:
            if kind == CROSS and side[i] == MISSING:
                side[i] = 0
            lost[i] = side[i] == MISSING or price[i] == MISSING or size[i] == MISSING
            lost[i] |= sizes_left and (kind != DELETE or size[i] == 0)
            continue
        if sizes_left and size[i] != MISSING:
            if kind == DELETE and size[i] == 0:
                event[i] = kind = EXECUTION
            size[i] = live.left[place] if kind == DELETE else live.left[place] - size[i]
        side[i] = live.side[place] if side[i] == MISSING else side[i]
        price[i] = live.price[place] if price[i] == MISSING else price[i]
        size[i] = live.left[place] if size[i] == MISSING else size[i]
        live.left[place] -= max(np.int64(0), min(live.left[place], size[i]))
        if kind == DELETE or live.left[place] == 0:
            live_orders.remove(live, place)
    return lost
