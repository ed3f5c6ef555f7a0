"""Read LOBSTER files: a message CSV and, where it lies beside it, its orderbook CSV (both may be gzipped)."""

import re
from pathlib import Path

import numpy as np

from tradefm_gym.data.rows import FeedRows, Source

_NAME = re.compile(
    r"^(?P<ticker>.+?)_(?P<date>\d{4}-\d{2}-\d{2})_(?P<start>\d+)_(?P<end>\d+)_message_(?P<levels>\d+)\.csv(\.gz)?$"
)


def read(path: Path) -> Source:
    """Read a LOBSTER message file as raw feed rows.

    Args:
        path: ``TICKER_DATE_START_END_message_LEVELS.csv`` or ``.csv.gz``: time in seconds after midnight, type 1-7,
            order id, size, price in 1/10,000 dollar, direction of the resting order.
    """
    name = _NAME.match(path.name)
    if name is None:
        raise ValueError(
            f"path {path.name!r} is no LOBSTER message file; "
            "its name must read TICKER_DATE_START_END_message_LEVELS.csv[.gz]."
        )
    table = _table(path, np.float64)
    if table.shape[1] < 6:
        raise ValueError(
            f"{path}: {table.shape[1]} columns; a message file has time, type, order id, size, price, direction."
        )
    kind = table[:, 1].astype(np.int64)
    if ((kind < 1) | (kind > 7)).any():
        row = int(np.argmax((kind < 1) | (kind > 7)))
        raise ValueError(f"{path}: type is {kind[row]} in row {row}; LOBSTER types are 1 to 7.")
    # A double holds seconds of a day to 1e-11, so rounding gives back the nanoseconds of the file exactly.
    time_ns = np.rint(table[:, 0] * 1e9).astype(np.int64)
    order_id, size, price, side = (table[:, k].astype(np.int64) for k in (2, 3, 4, 5))
    rows = FeedRows.build(time_ns, kind - 1, order_id, side, price, size)
    meta = {
        "ticker": name["ticker"],
        "date": name["date"],
        "venue": "NASDAQ",
        "tick_size": 100,
        "price_unit": "1e-4 USD",
        "size_unit": "shares",
    }
    beside = path.with_name(path.name.replace("_message_", "_orderbook_"))
    other = beside.with_name(beside.name.removesuffix(".gz") if beside.suffix == ".gz" else beside.name + ".gz")
    found = next((p for p in (beside, other) if p.exists()), None)
    return Source(rows, meta, _book(found, len(rows)) if found else None)


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


def _table(path: Path, dtype) -> np.ndarray:
    """Read a CSV without a header into a 2-D array (NumPy opens .gz itself)."""
    try:
        return np.loadtxt(path, dtype=dtype, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers with equal rows ({error}).") from error
