"""Another recording of the same day, whose book file says what the touch was after the same messages."""

import json
from pathlib import Path

import numpy as np

from tradefm_gym.data.feed import Feed, open_feed
from tradefm_gym.data.rows import FeedRows

_KEYS = ("time_ns", "event", "order_id", "side", "price", "size")


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
        found = np.concatenate(hashes)
        self._order = np.argsort(found, kind="stable")
        self._hash, self._book = found[self._order], np.concatenate(books)

    @classmethod
    def of(cls, feed: Feed, against: Feed | None) -> "Reference | None":
        """The given feed, or one of the same ticker, venue and date that lies beside ``feed``; None without one."""
        if against is not None:
            if against.book is None:
                raise ValueError(f"{against.path} has no book file to compare with.")
            return cls(against)
        if feed.snapshots is not None or not feed.path.is_dir():
            return None
        for folder in sorted(feed.path.absolute().parent.iterdir()):
            if folder.name != feed.path.name and _same_day(folder, feed.meta) and any(folder.glob("book*.parquet")):
                return cls(open_feed(folder))
        return None

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


def _same_day(folder: Path, meta: dict) -> bool:
    try:
        other = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return all(other[name] == meta[name] for name in ("ticker", "venue", "date"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
