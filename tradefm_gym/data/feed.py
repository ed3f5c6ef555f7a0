"""A recorded feed as a stream: what a file is, what is known about it, and its rows in batches.

:func:`open_feed` recognises a format by the content of the file. Whatever the format, rows arrive as
``FeedRows`` in the venue's order, screened: a row that no feed can have is an error with file, row and reason
or, where the caller is lenient, left out and counted.
"""

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.data.clock import AHEAD, LATE, judge
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.rows import ADD, EXECUTION, HALT, FeedRows, Source

BATCH = 1 << 17  # rows that a reader hands over at a time, about


@dataclass(frozen=True)
class ReadOptions:
    """How to read a file; what a format does not need it ignores."""

    lenient: bool = False  # count and leave out rows that no feed can have
    symbol: str | None = None  # the instrument, where a file holds several
    date: str | None = None  # YYYY-MM-DD, where a file does not say
    tick_size: int | None = None  # price units a tick, instead of what the file says or lets guess
    columns: Mapping[str, Any] | None = None  # the column map of a generic CSV; see data/table.py
    batch: int = BATCH

    def __post_init__(self):
        if self.date is not None and not _is_date(self.date):
            raise ValueError(f"date is {shortened(self.date)}; it must be a day from 1970 to 2200, as YYYY-MM-DD")
        if self.symbol == "":
            raise ValueError("symbol is ''; it must name an instrument")


def _is_date(text: Any) -> bool:
    try:
        day = datetime.date.fromisoformat(text)
    except (ValueError, TypeError):
        return False
    return day.isoformat() == text and 1970 <= day.year < 2200


@dataclass
class Skips:
    """Rows left out, by reason, with the first row of each."""

    where: str
    lenient: bool
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def bad(self, reason: str, row: int, detail: str = "", count: int = 1) -> None:
        """Raises for a bad row, or counts it where the reader is lenient."""
        if not self.lenient:
            raise FeedError(self.where, detail or reason, row)
        self.first.setdefault(reason, row)
        self.counts[reason] = self.counts.get(reason, 0) + count


Rows = Callable[[Skips], Iterator[FeedRows]]
BookRows = Callable[[], Iterator[np.ndarray]]


@dataclass
class Feed:
    """A file that is recognised, its rows not yet read.

    Attributes:
        path: the file or folder.
        format: its name, such as "itch".
        meta: ticker, venue, date, tick_size, price_unit, size_unit, and what else the source tells.
        rows: reads the rows from the start, in batches, not yet screened.
        book: reads the recorded book in batches (n, levels, 4) int64 of ask price, ask size, bid price and bid size,
            one row an event, in raw units; None where there is none.
        snapshots: reads the venue's snapshots as columns; None where there are none.
        options: how the file is read.
        skips: what was left out by the last complete reading.
        full_opening: whether the feed starts with all that rests, None where that is not known.
        slack_ns: stamps may step back by less than this, and count as the latest then.
    """

    path: Path
    format: str
    meta: dict[str, Any]
    rows: Rows
    options: ReadOptions
    book: BookRows | None = None
    snapshots: Callable[[], dict[str, np.ndarray]] | None = None
    full_opening: bool | None = None
    slack_ns: int = 1
    skips: Skips = field(init=False)

    def __post_init__(self):
        self.skips = Skips(str(self.path), self.options.lenient)

    @property
    def tick(self) -> int:
        """Price units a tick."""
        tick = int(self.meta["tick_size"] if self.options.tick_size is None else self.options.tick_size)
        if tick <= 0:
            raise FeedError(self.path, f"tick_size is {tick}; it must be a positive number of price units")
        return tick

    def batches(self) -> Iterator[FeedRows]:
        """Reads the file from its start: screened rows in feed order, time never decreasing.

        Raises:
            FeedError: for a file or a row that cannot be; a lenient reader counts such rows in ``skips``.
        """
        self.skips = Skips(str(self.path), self.options.lenient)
        tick = self.tick
        yield from in_order(
            (screen(rows, tick, self.skips) for rows in self.rows(self.skips)), self.slack_ns, self.skips
        )

    def with_book(self) -> Iterator[tuple[FeedRows, np.ndarray]]:
        """Batches of rows as in :meth:`batches`, and the recorded book after each row: (n, levels, 4) int64.

        Raises:
            FeedError: also where the book has not one row an event.
        """
        assert self.book is not None
        ahead, first = np.zeros((0, 0, 4), np.int64), 0  # rows of the book from row ``first`` of the file on
        books = self.book()
        for rows in self.batches():
            last = int(rows.source[-1])
            while first + len(ahead) <= last:
                part = next(books, None)
                if part is None:
                    detail = f"the book ends after {first + len(ahead)} rows; it has one row an event"
                    raise FeedError(self.path, detail, last)
                if len(ahead) and part.shape[1] != ahead.shape[1]:
                    raise FeedError(self.path, f"the book has {part.shape[1]} levels after {ahead.shape[1]}")
                ahead = np.concatenate([ahead, part]) if len(ahead) else part
            yield rows, ahead[rows.source - first]
            ahead, first = ahead[last + 1 - first :], last + 1
        left_out = self.options.lenient and sum(self.skips.counts.values()) > 0  # perhaps the last rows
        if not left_out and (len(ahead) or next(books, None) is not None):
            detail = f"the book goes on after the last event, row {first - 1}; it has one row an event"
            raise FeedError(self.path, detail)

    def gather(self) -> Source:
        """All rows of the file at once."""
        parts = list(self.batches())
        if not parts:
            raise FeedError(self.path, "the feed has no rows")
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        rows = FeedRows(*(np.concatenate(column) for column in columns))
        events = int(rows.source[-1]) + 1
        book = None if self.book is None else lambda index: self._book_of(index, events)
        return Source(rows, {**self.meta, "tick_size": self.tick}, book)

    def _book_of(self, index: np.ndarray, events: int) -> np.ndarray:
        assert self.book is not None
        parts = list(self.book())
        rows = sum(map(len, parts))
        if rows < events or (rows > events and not self.options.lenient):
            raise FeedError(self.path, f"the book has {rows} rows for {events} events; it has one row an event")
        if len({part.shape[1] for part in parts}) > 1:
            raise FeedError(self.path, "the book has rows of different numbers of levels")
        return np.concatenate(parts)[index]


def screen(rows: FeedRows, tick: int, skips: Skips) -> FeedRows:
    """The rows that a feed can have, each looked at alone; others raise or are counted.

    Args:
        rows: n rows in feed order.
        tick: price units a tick.
        skips: says whether to raise, and counts.
    """
    bad = np.zeros(len(rows), bool)
    for name, wrong, rule in _rules(rows, tick):
        wrong &= ~bad
        if wrong.any():
            row = int(np.argmax(wrong))
            value, count = getattr(rows, name)[row], int(wrong.sum())
            skips.bad(rule, int(rows.source[row]), f"{name} is {value}; {rule} ({count} such rows)", count)
            bad |= wrong
    return rows.take(np.flatnonzero(~bad)) if bad.any() else rows


def in_order(batches: Iterable[FeedRows], slack_ns: int, skips: Skips) -> Iterator[FeedRows]:
    """The rows whose time does not decrease, in batches that are not empty; others raise or are counted.

    Args:
        batches: rows in feed order. The last few of each wait for those after them, which say whether they are wrong.
        slack_ns: what stamps may step back; see :class:`Feed`.
        skips: says whether to raise, and counts.
    """
    held: FeedRows | None = None
    latest = -(2**62)
    for batch in chain(batches, (None,)):
        if batch is not None:
            held = batch if held is None else held.concat(batch)
        if held is None:
            continue
        count = len(held) if batch is None else max(0, len(held) - AHEAD)
        rows, held = held.take(np.arange(count)), held.take(np.arange(count, len(held)))
        after = np.r_[rows.time_ns, held.time_ns]
        if count and (after[0] < latest or (np.diff(after) < 0).any()):
            faults, earlier = np.zeros(count, np.int8), latest
            latest = int(judge(after, np.int64(latest), np.int64(slack_ns), faults))
            if faults.any():
                _refuse(rows, after, faults, earlier, skips)
            rows = replace(rows, time_ns=after[:count]).take(np.flatnonzero(faults == 0))
        elif count:
            latest = int(rows.time_ns[-1])
        if len(rows):
            yield rows


def _refuse(rows: FeedRows, after: np.ndarray, faults: np.ndarray, latest: int, skips: Skips) -> None:
    """Says what is wrong with the first of the rows that stand out; ``latest`` is the time of the last good one."""
    row = int(np.argmax(faults != 0))
    if faults[row] == LATE:
        other = f"after {int(after[:row][faults[:row] == 0].max(initial=latest))}"
    else:
        other = f"before {after[row + 1 :][after[row + 1 :] < after[row]][0]}"
    detail = f"time_ns is {rows.time_ns[row]} {other}; time must not decrease"
    skips.bad("time must not decrease", int(rows.source[row]), detail, int((faults != 0).sum()))


def _rules(rows: FeedRows, tick: int):
    """(column, which rows break it, rule) of every rule that looks at one row."""
    order = rows.event <= EXECUTION
    yield "time_ns", (rows.time_ns < -(2**61)) | (rows.time_ns > 2**61), "times lie within 2^61 ns"
    yield "event", (rows.event < ADD) | (rows.event > HALT), "event codes are 0 to 6"
    yield "side", np.abs(rows.side) > 1, "sides are +1, -1 or 0"
    yield "side", (rows.side == 0) & order, "orders need a side of +1 or -1"
    yield "size", (rows.size <= 0) & (rows.event != HALT), "sizes must be positive"
    # Executions of hidden orders may happen at the midpoint; orders on the book may not.
    yield "price", (rows.price % tick != 0) & order, f"prices are multiples of {tick}"
    yield "price", (np.abs(rows.price) // tick >= 2**29) & (rows.event != HALT), "prices must stay below 2^29 ticks"


def open_feed(path: str | Path, options: ReadOptions | None = None) -> Feed:
    """Recognises a file or folder by its content.

    Args:
        path: a data folder (``meta.json`` and ``events.parquet``); a LOBSTER message file, whose orderbook file is
            found by its name; Databento MBO (``.dbn``, or its CSV); NASDAQ ITCH 5.0; or any CSV, with
            ``options.columns``. Files may be compressed with gzip, xz or zstandard.
        options: how to read it.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        FeedError: if it is none of these, and why.
        ImportError: if a format needs an extra that is not installed; the message names it.
    """
    from tradefm_gym.data import dbn, itch, lobster, parquet, table
    from tradefm_gym.data.streams import head

    path, options = Path(path), options or ReadOptions()
    if not path.exists():
        raise FileNotFoundError(f"path {str(path)!r} does not exist; give a data folder or a file of a known format.")
    if path.is_dir():
        return parquet.open_folder(path, options)
    start = head(path)
    if len(start) == 0:
        raise FeedError(path, "the file is empty")
    if start.startswith(b"PAR1"):
        return parquet.open_folder(path.parent, options, path)
    if start.startswith(b"DBN"):
        return dbn.open_file(path, options)
    if itch.looks_like(start):
        return itch.open_file(path, options)
    if options.columns is not None:
        return table.open_file(path, options)
    if lobster.looks_like(path, start):
        return lobster.open_file(path, options)
    if dbn.is_csv(start):
        return dbn.open_csv(path, options)
    raise FeedError(
        path,
        "the file is none of the known formats (Parquet, Databento, ITCH 5.0, LOBSTER); "
        "a CSV of another layout needs a column map",
    )
