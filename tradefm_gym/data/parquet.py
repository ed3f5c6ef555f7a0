"""Read a data folder: ``meta.json`` and ``events.parquet``, with ``book*.parquet`` where there is one."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import BATCH, Feed, ReadOptions, Skips
from tradefm_gym.data.rows import FeedRows

_REQUIRED = {"ts_ns", "event", "order_id", "side", "price", "size"}
_META = ("ticker", "venue", "date", "tick_size", "price_unit", "size_unit")


_COLUMNS = ("ts_ns", "event", "order_id", "side", "price", "size")


def open_folder(folder: Path, options: ReadOptions, events: Path | None = None) -> Feed:
    """A data folder as a feed; ``events`` names its file of events where that is not ``events.parquet``."""
    meta, events = _described(folder, events)
    books = sorted(folder.glob("book*.parquet"), key=lambda path: (len(path.name), path.name))
    snapshots = folder / "snapshots.parquet"
    return Feed(
        folder,
        "parquet",
        meta,
        lambda skips: _rows(events, options.batch, skips),
        options,
        (lambda: _book_rows(books[0], options.batch)) if books else None,
        (lambda: _columns(snapshots)) if snapshots.exists() else None,
    )


def _described(folder: Path, events: Path | None) -> tuple[dict, Path]:
    """The metadata of a folder and its file of events; both must be there."""
    meta_path, events_path = folder / "meta.json", events or folder / "events.parquet"
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
    missing = [key for key in _META if not isinstance(meta, dict) or key not in meta]
    if missing:
        raise ValueError(f"{meta_path}: keys {missing} are missing; {list(_META)} are required.")
    if isinstance(meta["tick_size"], bool) or not isinstance(meta["tick_size"], int):
        raise ValueError(f"{meta_path}: tick_size is {meta['tick_size']!r}; it must be a whole number of price units.")
    return meta, events_path


def _check_names(path: Path, names: list[str]) -> None:
    missing = sorted(_REQUIRED - set(names))
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; {sorted(_REQUIRED)} are required.")


def _rows(path: Path, batch: int, skips: Skips) -> Iterator[FeedRows]:
    """The events of a file in batches."""
    first = 0
    names: list[str] = []
    for table in _tables(path, batch):
        if not names:
            names = table.schema.names
            _check_names(path, names)
        columns = []
        for name in (*_COLUMNS, "flag") if "flag" in names else _COLUMNS:
            column = table.column(name)
            if column.null_count:
                row = first + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise FeedError(path, f"column {name} has missing values; it must hold whole numbers", row)
            columns.append(column.to_numpy(zero_copy_only=False))
        try:
            rows = FeedRows.build(*columns, first=first)
        except ValueError as error:
            raise FeedError(path, str(error)) from None
        yield rows
        first += len(rows)
    if not names:
        raise FeedError(path, "the feed has no rows")


def _book_rows(path: Path, batch: int) -> Iterator[np.ndarray]:
    """The rows of a book file in batches (n, levels, 4)."""
    first = 0
    for table in _tables(path, batch):
        columns = {name: table.column(name).to_numpy(False) for name in table.schema.names}
        yield _levels(path, columns, first)
        first += len(table)


def _levels(path: Path, columns: dict[str, np.ndarray], start: int) -> np.ndarray:
    """(n, levels, 4) int64 from the columns of a book file, from row ``start`` on."""
    names, rows = list(columns), len(next(iter(columns.values()), ()))
    levels = sum(name.startswith("ask_px_") for name in names)
    if levels == 0:
        raise FeedError(path, "no column ask_px_1; a book has four columns a level")
    first = 0 if "ask_px_0" in names else 1
    out = np.empty((rows, levels, 4), np.int64)
    for level in range(levels):
        for k, name in enumerate(("ask_px", "ask_sz", "bid_px", "bid_sz")):
            if f"{name}_{level + first}" not in names:
                raise FeedError(path, f"column {name}_{level + first} is missing; a book has four columns a level")
            out[:, level, k] = _whole(path, f"{name}_{level + first}", columns, start)
    return out


def _whole(path: Path, name: str, columns: dict[str, np.ndarray], start: int) -> np.ndarray:
    """A column, if it is one of whole numbers without gaps (which Parquet readers make NaN)."""
    values = columns[name]
    if values.dtype.kind not in "iuf":
        raise FeedError(path, f"column {name} holds something else than numbers; it must hold whole numbers")
    wrong = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values.astype(np.float64)) >= 2.0**63)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise FeedError(path, f"column {name} is {values[row]}; it must hold whole numbers", start + row)
    return values


def _columns(path: Path) -> dict[str, np.ndarray]:
    """What is read of a file of snapshots; the levels of the book as one array ``book`` (n, levels, 4)."""
    tables = list(_tables(path, BATCH))
    names = tables[0].schema.names if tables else []
    frame = {name: np.concatenate([table.column(name).to_numpy(False) for table in tables]) for name in names}
    known = [name for name in ("ts_ns", "phase", "volume") if name in frame]
    columns = {name: _whole(path, name, frame, 0) for name in known}
    return columns | {"book": _levels(path, frame, 0)}


def _tables(path: Path, batch: int) -> Iterator:
    """The record batches of a Parquet file."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError('Reading Parquet needs pyarrow: pip install "tradefm-gym[data]".') from error
    if path.is_dir():
        raise FeedError(path, "a folder; it must be a Parquet file")
    try:
        with ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(batch)
    except (ArrowException, OSError) as error:
        raise FeedError(path, f"not a Parquet file that can be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
