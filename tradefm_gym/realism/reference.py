"""What a day is compared with: snapshots of its folder, and the book of another recording of the same day.

Where they are only found beside the day, one that cannot be read does not end its check: the report says why.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, open_feed
from tradefm_gym.data.rows import FeedRows

_KEYS = ("time_ns", "event", "order_id", "side", "price", "size")


_Found = TypeVar("_Found")


@dataclass
class Unread:
    """A file or folder beside a day that it would have been compared with."""

    path: str
    reason: str  # why it could not be read


@dataclass
class Beside:
    """What was found beside a day.

    Attributes:
        reference: another recording with a book file.
        snapshots: the venue's, as columns: ``ts_ns`` (n,), ``book`` (n, levels, 4) and what else there is.
        unread: what could not be read.
    """

    reference: "Reference | None" = None
    snapshots: dict[str, np.ndarray] | None = None
    unread: list[Unread] = field(default_factory=list)

    @classmethod
    def of(cls, feed: Feed, against: Feed | None) -> "Beside":
        """Snapshots of the feed, and ``against``, or a recording of the same ticker, venue and date that lies beside.

        Raises:
            ValueError: if ``against``, which was asked for, has no book or cannot be read.
        """
        found = cls()
        if feed.snapshots is not None:
            found.snapshots = found._read(feed.path / "snapshots.parquet", lambda: _snapshots(feed))
        if against is not None:
            if against.book is None:
                raise ValueError(f"{against.path} has no book file to compare with.")
            found.reference = Reference(against)
        elif feed.snapshots is None and feed.path.is_dir():
            for folder in found._read(feed.path.absolute().parent, lambda: _recordings(feed)) or ():
                found.reference = found._read(folder, lambda folder=folder: Reference(open_feed(folder)))
                if found.reference is not None:
                    break
        return found

    def _read(self, path: Path, read: Callable[[], _Found]) -> _Found | None:
        try:
            return read()
        except (ValueError, OSError, ImportError) as error:
            where, reason = (error.path, error.reason) if isinstance(error, FeedError) else (str(path), str(error))
            self.unread.append(Unread(where, " ".join(reason.split()).rstrip(".")))
            return None


class Reference:
    """The touch of a set with a book file, found by message.

    Attributes:
        name: the file or folder.
    """

    def __init__(self, feed: Feed):
        self.name = feed.path.name
        hashes, books = [], []
        for rows, book in feed.with_book():
            hashes.append(_hash(rows))
            books.append(book[:, 0])
        if not hashes:
            raise FeedError(feed.path, "the feed has no rows")
        found = np.concatenate(hashes)
        self._order = np.argsort(found, kind="stable")
        self._hash, self._book = found[self._order], np.concatenate(books)

    def compare(self, rows: FeedRows, touch: np.ndarray, tick: int) -> np.ndarray:
        """How many messages have the same best bid, ask and both: and how many were found: (4,) int64."""
        wanted = _hash(rows)
        at = np.searchsorted(self._hash, wanted)
        order = np.argsort(wanted, kind="stable")  # equal messages are matched in their order
        ordered = wanted[order]
        first = np.searchsorted(ordered, ordered)
        at[order] += np.arange(len(order)) - first
        hit = at < len(self._hash)
        hit[hit] = self._hash[at[hit]] == wanted[hit]
        book, here = self._book[self._order[at[hit]]], touch[hit]
        bid = np.where(here[:, 1] > 0, here[:, 0] * tick == book[:, 2], book[:, 3] == 0)
        ask = np.where(here[:, 3] > 0, here[:, 2] * tick == book[:, 0], book[:, 1] == 0)
        return np.array([bid.sum(), ask.sum(), (bid & ask).sum(), hit.sum()])


def _hash(rows: FeedRows) -> np.ndarray:
    """A number (n,) uint64 for each message, equal for equal ones."""
    out = np.zeros(len(rows), np.uint64)
    for name in _KEYS:
        out = (out ^ getattr(rows, name).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        out ^= out >> np.uint64(31)
    return out


def _snapshots(feed: Feed) -> dict[str, np.ndarray]:
    """The columns of a feed's snapshots, in the order of their stamps."""
    assert feed.snapshots is not None
    columns = feed.snapshots()
    if "ts_ns" not in columns:
        raise FeedError(feed.path / "snapshots.parquet", "no column ts_ns; snapshots have one and four columns a level")
    order = np.argsort(columns["ts_ns"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _recordings(feed: Feed) -> list[Path]:
    """Folders beside a feed's with the same day and a book."""
    folders = sorted(feed.path.absolute().parent.iterdir())
    return [
        folder
        for folder in folders
        if folder.name != feed.path.name and _same_day(folder, feed.meta) and any(folder.glob("book*.parquet"))
    ]


def _same_day(folder: Path, meta: dict) -> bool:
    try:
        other = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return all(other[name] == meta[name] for name in ("ticker", "venue", "date"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
