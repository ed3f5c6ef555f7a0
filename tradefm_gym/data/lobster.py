"""Read LOBSTER files: a message CSV and, where it lies beside it, its orderbook CSV (both may be compressed)."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.rows import FeedRows, Source
from tradefm_gym.data.streams import blocks, head

_NAME = re.compile(
    r"^(?P<ticker>.+?)_(?P<date>\d{4}-\d{2}-\d{2})_(?P<start>\d+)_(?P<end>\d+)_message_(?P<levels>\d+)\.csv(\.\w+)?$"
)
_ENDINGS = ("", ".gz", ".xz", ".zst")
_LINE = re.compile(rb"\d+(\.\d+)?,[1-7],-?\d+,-?\d+,-?\d+,-?[01](,|\r?\n|$)")


def looks_like(path: Path, start: bytes) -> bool:
    """Whether a file is a LOBSTER message file, by its first line or by its name."""
    return _LINE.match(start) is not None or _NAME.match(path.name) is not None


def open_file(path: Path, options: ReadOptions) -> Feed:
    """A LOBSTER message file as a feed."""
    meta, book = _described(path, options)
    return Feed(
        path,
        "lobster",
        meta,
        lambda skips: _rows(path, options.batch, skips),
        options,
        (lambda: _book_rows(book, options.batch)) if book else None,
        source=lambda: read(path, options),
    )


def read(path: Path, options: ReadOptions | None = None) -> Source:
    """Read a LOBSTER message file as raw feed rows.

    Args:
        path: ``TICKER_DATE_START_END_message_LEVELS.csv``, perhaps compressed: time in seconds after midnight, type
            1-7, order id, size, price in 1/10,000 dollar, direction of the resting order.
        options: ticker and date where the name has none.
    """
    meta, book = _described(path, options or ReadOptions())
    columns = min(6, 1 + head(path).partition(b"\n")[0].count(b","))  # newer files have a seventh, of names
    rows = _as_rows(path, _table(path, np.float64, range(columns)), 0, None)
    return Source(rows, meta, _book(book, len(rows)) if book else None)


def _described(path: Path, options: ReadOptions) -> tuple[dict, Path | None]:
    """What the name of a message file says, or the options, and the orderbook file beside it."""
    name = _NAME.match(path.name)
    meta = {
        "ticker": options.symbol or (name["ticker"] if name else path.name),
        "date": options.date or (name["date"] if name else "unknown"),
        "venue": "NASDAQ",
        "tick_size": 100,
        "price_unit": "1e-4 USD",
        "size_unit": "shares",
        "time_unit": "ns since midnight US/Eastern",
    }
    if name is not None:
        meta["levels"] = int(name["levels"])
    return meta, _beside(path)


def _beside(path: Path) -> Path | None:
    """The orderbook file of a message file, however it is compressed."""
    stem, found, ending = path.name.rpartition(".csv")
    if not found or ending not in _ENDINGS or "message" not in stem:
        return None
    before, _, after = stem.rpartition("message")
    beside = f"{before}orderbook{after}.csv"
    return next((p for p in (path.with_name(beside + e) for e in (ending, *_ENDINGS)) if p.exists()), None)


def _as_rows(path: Path, table: np.ndarray, first: int, skips: Skips | None) -> FeedRows:
    """Rows of a table (n, 6) float64; types that LOBSTER has not raise, or are left out and counted."""
    if table.shape[1] < 6:
        raise ValueError(
            f"{path}: {table.shape[1]} columns; a message file has time, type, order id, size, price, direction."
        )
    table, source = table[:, :6], np.arange(first, first + len(table))
    whole = np.isfinite(table).all(axis=1) & (np.abs(table) < 2**53).all(axis=1)
    whole &= (table[:, 1:] == np.floor(table[:, 1:])).all(axis=1) & (np.abs(table[:, 0]) < 1e9)
    wrong = ~whole if skips is None else ~whole | (np.abs(table[:, 5]) > 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        detail = "a column is no whole number, or too large for one"
        if skips is None:
            raise FeedError(path, detail, row)
        skips.bad(detail, int(source[row]), count=int(wrong.sum()))
        table, source = table[~wrong], source[~wrong]
    kind = table[:, 1].astype(np.int64)
    wrong = (kind < 1) | (kind > 7)
    if wrong.any():
        row = int(np.argmax(wrong))
        if skips is None:
            raise ValueError(f"{path}: type is {kind[row]} in row {row}; LOBSTER types are 1 to 7.")
        detail = f"type is {kind[row]}; LOBSTER types are 1 to 7"
        skips.bad("LOBSTER types are 1 to 7", int(source[row]), detail, int(wrong.sum()))
        table, source, kind = table[~wrong], source[~wrong], kind[~wrong]
    # A double holds seconds of a day to 1e-11, so rounding gives back the nanoseconds of the file exactly.
    time_ns = np.rint(table[:, 0] * 1e9).astype(np.int64)
    order_id, size, price, side = (table[:, k].astype(np.int64) for k in (2, 3, 4, 5))
    wrong = np.abs(side) > 127  # beyond what a side can even be stored as
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FeedError(path, f"side is {side[row]}; sides are +1, -1 or 0", int(source[row]))
    rows = FeedRows.build(time_ns, kind - 1, order_id, side, price, size)
    return rows if skips is None else FeedRows(*list(vars(rows).values())[:-1], source)


def _rows(path: Path, batch: int, skips: Skips) -> Iterator[FeedRows]:
    """The messages of a file in batches."""
    for first, lines in _lines(path, batch):
        table = _parse(lines, np.float64)
        if table is None or table.shape[1] < 6:
            table = _line_by_line(lines, first, skips)
        yield _as_rows(path, table, first, skips)


def _line_by_line(lines: list[str], first: int, skips: Skips) -> np.ndarray:
    """A table (n, 6) of lines that do not form one at once; a bad one raises, or becomes a row of NaN."""
    out = np.full((len(lines), 6), np.nan)
    for k, line in enumerate(lines):
        try:
            out[k] = [float(value) for value in line.split(",")[:6]]
        except ValueError:
            # Counted where rows of NaN are left out; in strict reading this is where it ends.
            if not skips.lenient:
                skips.bad("no message of six numbers", first + k, f"{line.strip()[:60]!r} is no message of six numbers")
    return out


def _book_rows(path: Path, batch: int) -> Iterator[np.ndarray]:
    """The rows of an orderbook file in batches (n, levels, 4)."""
    for first, lines in _lines(path, batch):
        table = _parse(lines, np.int64)
        if table is None or table.shape[1] % 4:
            raise FeedError(path, "not a table of whole numbers with four columns a level", first)
        yield table.reshape(len(table), -1, 4)


def _lines(path: Path, batch: int) -> Iterator[tuple[int, list[str]]]:
    """Lines of text in batches, with the number of the first of each."""
    text = _split(path)
    first = 0
    while lines := list(islice(text, batch)):
        yield first, lines
        first += len(lines)


def _split(path: Path) -> Iterator[str]:
    """The lines of a file; empty ones at its end are none."""
    rest, empty = b"", 0
    for block in blocks(path):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if not line.strip():
                empty += 1
                continue
            yield from ("" for _ in range(empty))
            empty = 0
            yield line.decode("ascii", "replace")
        if len(rest) > 1 << 20:
            raise FeedError(path, "a line is longer than a megabyte; the file is no table")
    if rest.strip():
        yield from ("" for _ in range(empty))
        yield rest.decode("ascii", "replace")


def _parse(lines: list[str], dtype) -> np.ndarray | None:
    try:
        table = np.loadtxt(lines, dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except (ValueError, OverflowError):
        return None
    return table if len(table) == len(lines) else None


def _book(path: Path, expected: int):
    """A reader of book rows: (k,) source rows -> (k, levels, 4) int64."""

    def read_rows(index: np.ndarray) -> np.ndarray:
        table = _table(path, np.int64)
        if len(table) != expected:
            raise ValueError(f"{path}: {len(table)} rows for {expected} messages; the book has one row per message.")
        if table.shape[1] % 4:
            raise ValueError(f"{path}: {table.shape[1]} columns; an orderbook file has four per level.")
        return table.reshape(len(table), -1, 4)[index]

    return read_rows


def _table(path: Path, dtype, columns=None) -> np.ndarray:
    """Read a CSV without a header into a 2-D array, some or all of its columns."""
    if not head(path).strip():
        raise FeedError(path, "the file is empty")
    try:
        return np.loadtxt(_split(path), dtype=dtype, delimiter=",", ndmin=2, usecols=columns)
    except FeedError:
        raise
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: not a table of numbers with equal rows ({error}).") from error
