"""Write a recorded day in the shared schema: a folder with ``meta.json`` and ``events.parquet``."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import one_sentence
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HALT, HIDDEN, PARTIAL_CANCEL, SNAPSHOT, FeedRows

_NAMES = {
    ADD: "add", PARTIAL_CANCEL: "partial_cancel", DELETE: "delete", EXECUTION: "visible_exec", HIDDEN: "hidden_exec",
    CROSS: "cross", HALT: "halt",
}  # fmt: skip
_ROW_GROUP = 1 << 20
_SIDES = ("ask", "bid")


def convert(feed: Feed, out: str | Path) -> dict[str, Any]:
    """Streams a feed into a data folder, its recorded book and snapshots with it.

    Args:
        feed: from :func:`tradefm_gym.data.feed.open_feed`.
        out: the folder; it must not hold anything yet. It appears once all is written.

    Returns:
        What was written to ``meta.json``: that of the source, counts under ``quality``, rows left out under
        ``skipped``.

    Raises:
        FeedError: if the file cannot be read; nothing is left behind.
        OSError: if there is something at ``out`` already, or it cannot be written.
        ImportError: without pyarrow.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError('Writing Parquet needs pyarrow: pip install "tradefm-gym[data]".') from error
    out = Path(out)
    check_new_folder(out)
    with one_sentence(out, "written", "a new folder where it can be"):
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=".", suffix=".partial"))
        try:
            meta = _write(feed, partial)
            (partial / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
            partial.chmod(0o755)
            if out.exists():
                out.rmdir()
            os.replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return meta


def check_new_folder(out: Path) -> None:
    """Refuses a path at which no folder can be made, before anything is worked out that is to be written there.

    Raises:
        OSError: naming the path, and what is allowed.
    """
    with one_sentence(out, "written", "a new folder where it can be"):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise FileExistsError(errno.EEXIST, "it holds something already")
        folder = next(parent for parent in out.absolute().parents if parent.exists())  # others will be made
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"nothing can be written to {folder}")


def _write(feed: Feed, folder: Path) -> dict[str, Any]:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema(
        [
            ("ts_ns", pyarrow.int64()), ("event", pyarrow.int8()), ("order_id", pyarrow.int64()),
            ("side", pyarrow.int8()), ("price", pyarrow.int64()), ("size", pyarrow.int64()), ("flag", pyarrow.int8()),
        ]
    )  # fmt: skip
    quality = _Quality()
    kept: list[np.ndarray] = []
    total = 0
    with ParquetWriter(folder / "events.parquet", schema, compression="zstd") as writer:
        for rows in feed.batches():
            columns = (rows.time_ns, rows.event, rows.order_id, rows.side, rows.price, rows.size, rows.flag)
            writer.write_table(pyarrow.table(list(columns), schema=schema), row_group_size=_ROW_GROUP)
            quality.add(rows)
            total += len(rows)
            if feed.book is not None:
                kept.append(rows.source)
    if total == 0:
        raise FeedError(feed.path, "the feed has no rows")
    if feed.book is not None:
        _write_book(feed, folder, np.concatenate(kept))
    if feed.snapshots is not None:
        shutil.copyfile(feed.path / "snapshots.parquet", folder / "snapshots.parquet")
    known = {key: value for key, value in feed.meta.items() if key not in ("files", "quality", "checks", "replay")}
    return known | {
        "tick_size": feed.tick,
        "source": str(feed.path.name),
        "source_format": feed.format,
        "quality": quality.to_json(),
        "skipped": dict(feed.skips.counts),
    }


def _write_book(feed: Feed, folder: Path, kept: np.ndarray) -> None:
    """The recorded book of the rows that were kept."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    assert feed.book is not None
    writer, first, path = None, 0, folder / "book.parquet"
    try:
        for book in feed.book():
            levels = book.shape[1]
            if writer is None:
                names = [
                    f"{side}_{what}_{level}"
                    for level in range(1, levels + 1)
                    for side in _SIDES
                    for what in ("px", "sz")
                ]
                schema = pyarrow.schema([(name, pyarrow.int64()) for name in names])
                writer = ParquetWriter(path, schema, compression="zstd")
            mine = kept[np.searchsorted(kept, first) : np.searchsorted(kept, first + len(book))] - first
            flat = book[mine].reshape(len(mine), 4 * levels)
            columns = [np.ascontiguousarray(flat[:, k]) for k in range(4 * levels)]
            writer.write_table(pyarrow.table(columns, schema=writer.schema), row_group_size=_ROW_GROUP)
            first += len(book)
    finally:
        if writer is not None:
            writer.close()
    if writer is None or first <= kept[-1]:
        raise FeedError(feed.path, f"the book ends after {first} rows; it has one row an event", int(kept[-1]))
    path.rename(folder / f"book{levels}.parquet")


class _Quality:
    """Counts and ranges, gathered batch by batch."""

    def __init__(self):
        self.rows, self.snapshot_rows, self.size_max = 0, 0, 0
        self.counts = np.zeros(8, np.int64)
        self.times: list[int] = []
        self.prices: list[int] = []

    def add(self, rows: FeedRows) -> None:
        self.rows += len(rows)
        self.snapshot_rows += int((rows.flag & SNAPSHOT != 0).sum())
        self.size_max = max(self.size_max, int(rows.size.max()))
        self.counts += np.bincount(rows.event, minlength=8)[:8]
        self.times = [*self.times[:1], int(rows.time_ns[0]), int(rows.time_ns[-1])]
        priced = rows.price[rows.event != HALT]
        if len(priced):
            self.prices = [min([*self.prices[:1], int(priced.min())]), max([*self.prices[1:], int(priced.max())])]

    def to_json(self) -> dict[str, Any]:
        named = {_NAMES[code]: int(count) for code, count in enumerate(self.counts) if count}
        out = {
            "rows": self.rows,
            "event_counts": named,
            "ts_first_ns": self.times[0],
            "ts_last_ns": self.times[-1],
            "size_max": self.size_max,
            "snapshot_rows": self.snapshot_rows,
        }
        return out | ({"price_min": self.prices[0], "price_max": self.prices[1]} if self.prices else {})
