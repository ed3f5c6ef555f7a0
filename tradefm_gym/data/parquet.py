"""Read a data folder: ``meta.json`` and ``events.parquet``, with ``book*.parquet`` where there is one."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.rows import FeedRows, Source

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
        lambda: read(folder, events),
    )


def read(folder: Path, events: Path | None = None) -> Source:
    """Read a folder as raw feed rows.

    Args:
        folder: holds ``meta.json`` and ``events.parquet``.
        events: the file of events where that is not ``events.parquet``.
    """
    meta, events_path = _described(folder, events)
    frame = _frame(events_path)
    _check_names(events_path, frame.columns)
    columns = [frame[name].to_numpy() for name in _COLUMNS]
    flag = frame["flag"].to_numpy() if "flag" in frame.columns else None
    try:
        rows = FeedRows.build(*columns, flag)
    except ValueError as error:
        raise FeedError(events_path, str(error)) from None
    books = sorted(folder.glob("book*.parquet"))
    return Source(rows, meta, _book(books[0], len(rows)) if books else None)


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
                raise FeedError(path, f"column {name} has missing values; it must hold whole numbers", first)
            columns.append(column.to_numpy(zero_copy_only=False))
        try:
            rows = FeedRows.build(*columns)
        except ValueError as error:
            raise FeedError(path, f"{error} (counted from row {first})") from None
        yield rows.numbered(first)
        first += len(rows)
    if not names:
        raise FeedError(path, "the feed has no rows")


def _book_rows(path: Path, batch: int) -> Iterator[np.ndarray]:
    """The rows of a book file in batches (n, levels, 4)."""
    for table in _tables(path, batch):
        yield _levels(
            path, table.schema.names, lambda name, table=table: table.column(name).to_numpy(False), len(table)
        )


def _levels(path: Path, names: list[str], column, rows: int) -> np.ndarray:
    """(rows, levels, 4) int64 from the columns of a book file."""
    levels = sum(name.startswith("ask_px_") for name in names)
    if levels == 0:
        raise FeedError(path, "no column ask_px_1; a book has four columns a level")
    first = 0 if "ask_px_0" in names else 1
    out = np.empty((rows, levels, 4), np.int64)
    for level in range(levels):
        for k, name in enumerate(("ask_px", "ask_sz", "bid_px", "bid_sz")):
            if f"{name}_{level + first}" not in names:
                raise FeedError(path, f"column {name}_{level + first} is missing; a book has four columns a level")
            out[:, level, k] = _whole(path, f"{name}_{level + first}", column(f"{name}_{level + first}"))
    return out


def _whole(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """A column, if it is one of numbers without gaps (which Parquet readers make NaN)."""
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise FeedError(path, f"column {name} holds something else than numbers; it must hold whole numbers")
    return values


def _columns(path: Path) -> dict[str, np.ndarray]:
    """What is read of a file of snapshots; the levels of the book as one array ``book`` (n, levels, 4)."""
    frame = _frame(path)
    known = [name for name in ("ts_ns", "phase", "volume") if name in frame.columns]
    columns = {name: _whole(path, name, frame[name].to_numpy()) for name in known}
    return columns | {"book": _levels(path, frame.columns, lambda name: frame[name].to_numpy(), len(frame))}


def _tables(path: Path, batch: int) -> Iterator:
    """The record batches of a Parquet file."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError('Reading Parquet needs pyarrow: pip install "tradefm-gym[data]".') from error
    try:
        with ParquetFile(path, memory_map=True) as file:
            yield from file.iter_batches(batch)
    except (ArrowException, OSError) as error:
        raise FeedError(path, f"not a Parquet file that can be read: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _book(path: Path, expected: int):
    """A reader of book rows, so that the file is read only once the rows that matter are known."""

    def read_rows(index: np.ndarray) -> np.ndarray:
        frame = _frame(path)
        if len(frame) != expected:
            raise ValueError(f"{path}: {len(frame)} rows for {expected} events; the book has one row per event.")
        return _levels(path, frame.columns, lambda name: frame[name].to_numpy()[index], len(index))

    return read_rows


def _frame(path: Path):
    """Read a Parquet file with polars, which is an optional extra."""
    try:
        import polars
    except ImportError as error:
        raise ImportError('Reading Parquet needs polars: pip install "tradefm-gym[data]".') from error
    if path.is_dir():
        raise FeedError(path, "a folder; it must be a Parquet file")
    try:
        return polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise FeedError(path, f"not a Parquet file that can be read: {_first_line(error)}") from None
