"""Read a data folder: ``meta.json`` and ``events.parquet``, with ``book*.parquet`` where there is one."""

import json
from pathlib import Path

import numpy as np

from tradefm_gym.data.rows import FeedRows, Source

_REQUIRED = {"ts_ns", "event", "order_id", "side", "price", "size"}
_META = ("ticker", "venue", "date", "tick_size", "price_unit", "size_unit")


def read(folder: Path) -> Source:
    """Read a folder as raw feed rows.

    Args:
        folder: holds ``meta.json`` and ``events.parquet``.
    """
    meta_path, events_path = folder / "meta.json", folder / "events.parquet"
    if not meta_path.exists():
        raise FileNotFoundError(
            f"path {str(folder)!r} has no meta.json; a data folder holds meta.json and events.parquet."
        )
    if not events_path.exists():
        raise FileNotFoundError(
            f"path {str(folder)!r} has no events.parquet; "
            "sets without order ids (trades and depth only) cannot be loaded."
        )
    try:
        meta = json.loads(meta_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{meta_path} is not JSON: {error}.") from None
    missing = [key for key in _META if key not in meta]
    if missing:
        raise ValueError(f"{meta_path}: keys {missing} are missing; {list(_META)} are required.")
    events = _frame(events_path)
    missing = sorted(_REQUIRED - set(events.columns))
    if missing:
        raise ValueError(f"{events_path}: columns {missing} are missing; {sorted(_REQUIRED)} are required.")
    columns = [events[name].to_numpy() for name in ("ts_ns", "event", "order_id", "side", "price", "size")]
    flag = events["flag"].to_numpy() if "flag" in events.columns else None
    rows = FeedRows.build(*columns, flag)
    books = sorted(folder.glob("book*.parquet"))
    return Source(rows, meta, _book(books[0], len(rows)) if books else None)


def _book(path: Path, expected: int):
    """A reader of book rows, so that the file is read only once the rows that matter are known."""

    def read_rows(index: np.ndarray) -> np.ndarray:
        frame = _frame(path)
        if len(frame) != expected:
            raise ValueError(f"{path}: {len(frame)} rows for {expected} events; the book has one row per event.")
        levels = sum(name.startswith("ask_px_") for name in frame.columns)
        out = np.empty((len(index), levels, 4), np.int64)
        first = 0 if "ask_px_0" in frame.columns else 1
        for level in range(levels):
            for k, name in enumerate(("ask_px", "ask_sz", "bid_px", "bid_sz")):
                out[:, level, k] = frame[f"{name}_{level + first}"].to_numpy()[index]
        return out

    return read_rows


def _frame(path: Path):
    """Read a Parquet file with polars, which is an optional extra."""
    try:
        import polars
    except ImportError as error:
        raise ImportError('Reading Parquet needs polars: pip install "tradefm-gym[data]".') from error
    try:
        return polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise ValueError(f"{path} is not a Parquet file that can be read: {error}") from None
