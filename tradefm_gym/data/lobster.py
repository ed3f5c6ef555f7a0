"""Read LOBSTER files: a message CSV and, where it lies beside it, its orderbook CSV (both may be compressed)."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.rows import FeedRows
from tradefm_gym.data.streams import blocks

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
    )


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


def _as_rows(table: np.ndarray, first: int, skips: Skips) -> FeedRows:
    """Rows of a table (n, 6) float64; what LOBSTER has not raises, or is left out and counted."""
    source = np.arange(first, first + len(table))
    for name, column, is_right, rule in _RULES:
        right = is_right(table)
        if not right.all():
            row = int(np.argmin(right))
            value = f"{table[row, column]:.15g}" if name else ",".join(f"{value:.15g}" for value in table[row])
            skips.bad(rule, int(source[row]), f"{name or 'the message'} is {value}; {rule}", int((~right).sum()))
            table, source = table[right], source[right]
    # A double holds seconds of a day to 1e-11, so rounding gives back the nanoseconds of the file exactly.
    time_ns = np.rint(table[:, 0] * 1e9).astype(np.int64)
    kind, order_id, size, price, side = (table[:, k].astype(np.int64) for k in range(1, 6))
    return replace(FeedRows.build(time_ns, kind - 1, order_id, side, price, size), source=source)


def _is_whole(table: np.ndarray) -> np.ndarray:
    whole = np.isfinite(table).all(axis=1) & (np.abs(table) < 2**53).all(axis=1) & (np.abs(table[:, 0]) < 1e9)
    return whole & (table[:, 1:] == np.floor(table[:, 1:])).all(axis=1)


# Name and place of a column, which rows of a table are right, and what they have to be.
_RULES = (
    ("", 0, _is_whole, "its columns are whole numbers below 2^53 after a time in seconds"),
    ("type", 1, lambda table: (table[:, 1] >= 1) & (table[:, 1] <= 7), "LOBSTER types are 1 to 7"),
    ("side", 5, lambda table: np.abs(table[:, 5]) <= 1, "sides are +1, -1 or 0"),
)


def _rows(path: Path, batch: int, skips: Skips) -> Iterator[FeedRows]:
    """The messages of a file in batches."""
    for first, lines in _lines(path, batch):
        table = _parse(lines, np.float64, range(6))  # newer files have a seventh, of names
        if table is None:
            table = _line_by_line(lines, first, skips)
        yield _as_rows(table, first, skips)


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
            columns = lines[0].count(",") + 1
            wrong = (k for k, line in enumerate(lines) if columns % 4 or not _are_whole(line, columns))
            detail = "the orderbook has no row of whole numbers here, four a level and as many as before"
            raise FeedError(path, detail, first + next(wrong, 0))
        yield table.reshape(len(table), -1, 4)


def _are_whole(line: str, count: int) -> bool:
    values = line.split(",")
    try:
        return len(values) == count and all(-(2**63) <= int(value) < 2**63 for value in values)
    except ValueError:
        return False


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


def _parse(lines: list[str], dtype, columns=None) -> np.ndarray | None:
    """Some or all columns of lines as a table; None where they form none, one a line."""
    try:
        table = np.loadtxt(lines, dtype=dtype, delimiter=",", ndmin=2, comments=None, usecols=columns)
    except (ValueError, OverflowError):
        return None
    return table if len(table) == len(lines) else None
