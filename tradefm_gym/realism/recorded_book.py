"""Checks a day that comes with a recorded book, one row of it an event; see :mod:`tradefm_gym.realism.windowed`."""

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed
from tradefm_gym.data.rows import ADD
from tradefm_gym.realism import following, windowed
from tradefm_gym.realism.differences import Differences, Finding
from tradefm_gym.realism.following import TOTALS
from tradefm_gym.realism.recorded_day import (
    COLUMNS,
    LARGEST_LOTS,
    Agreement,
    DayCheck,
    best_levels,
    describe,
    in_range,
)
from tradefm_gym.realism.windowed import Window

_FROM_LEVEL = "the order came with its level from outside the recorded ones, or rested before the first row"


def check_book(feed: Feed, levels: int | None, lot: int = 1) -> DayCheck:
    """Carries a day through its recorded book.

    Args:
        feed: a feed with a book.
        levels: best levels that count for the second figure, see ``check_day``; all count for the first.
        lot: raw size units a lot.
    """
    window, differences, rows_seen = None, Differences(), 0
    for rows, book in feed.with_book():
        held = in_range(feed, rows)
        rows, book = (rows, book) if held.all() else (rows.take(held), book[held])
        if len(rows) == 0:
            continue
        if rows.size.max() // lot >= LARGEST_LOTS or book[..., [1, 3]].max() // lot >= LARGEST_LOTS:
            return check_book(feed, levels, lot * 10)
        if window is None:
            window = Window.start(feed.tick, lot, book.shape[1])
        elif book.shape[1] != len(window.before):
            raise FeedError(feed.path, f"the book has {book.shape[1]} levels after {len(window.before)}")
        adds = int((rows.event == ADD).sum())
        # Each row may bring a placeholder a level and side at the most, and they come and go.
        room = window.following.with_room(adds + 2 * len(rows) + 4 * book.shape[1])
        window = window._replace(following=room)
        log = np.zeros(4 * len(rows), following.DIFFERENCE)
        columns = tuple(np.ascontiguousarray(getattr(rows, name)) for name in COLUMNS)
        recorded, best = _in_ticks(book, feed.tick, lot), best_levels(levels, book.shape[1])
        window, logged = windowed.carry_through(window, columns, recorded, best, log)
        differences.add(rows, log[:logged], windowed=True)
        rows_seen += len(rows)
    if window is None:
        raise FeedError(feed.path, "the feed has no rows")
    return _report(feed, window, differences, rows_seen, best_levels(levels, len(window.before)), lot)


def _report(feed: Feed, window: Window, differences: Differences, rows: int, levels: int, lot: int) -> DayCheck:
    totals: dict[str, int] = dict(zip(TOTALS, window.following.totals.tolist(), strict=True))
    counts = window.counts
    explained, unexplained = differences.conclude(feed, {"modified": 0}, None)
    if counts[windowed.FROM_LEVEL]:
        explained.append(Finding("unknown id", _FROM_LEVEL, int(counts[windowed.FROM_LEVEL]), -1))
    if counts[windowed.CROSSED]:
        unexplained.append(Finding("crossed book", "", int(counts[windowed.CROSSED]), -1))
    recorded, every = "recorded book", len(window.before)
    step = "each message applied to the recorded book of the row before, at every level visible in both"
    carried = "prices and sizes of the best {} levels, carried through the day with entering levels from the file"
    return DayCheck(
        **describe(feed),
        mode="window",
        rows=rows,
        unknown_ids=int(counts[windowed.FROM_LEVEL]),
        dead_cancels=0,
        crossed_states=int(counts[windowed.CROSSED]),
        crossed_in_session=int(counts[windowed.CROSSED]),
        fills=totals["fills"],
        fills_differ=totals["fills"] - totals["fills_equal"],
        fills_out_of_priority=differences.counts.get(following.PRIORITY, 0),
        cancels=totals["cancels"],
        cancels_differ=totals["cancels"] - totals["cancels_equal"],
        volume=totals["filled_size"] + totals["hidden_size"] + totals["cross_sideless"],
        volume_recorded=None,
        totals=totals,
        inferred_opening=0,
        agreement=[
            Agreement(recorded, step, int(counts[windowed.STEPS]), int(counts[windowed.STEPS_EQUAL])),
            Agreement(recorded, carried.format(every), rows, int(counts[windowed.LEVELS_EQUAL])),
            Agreement(recorded, carried.format(levels), rows, int(counts[windowed.BEST_EQUAL])),
        ][: 3 if levels < every else 2],
        unread=[],
        explained=explained,
        unexplained=unexplained,
        skipped=dict(feed.skips.counts),
        lot=lot,
    )


def _in_ticks(book: np.ndarray, tick: int, lot: int) -> np.ndarray:
    """Raw book rows (n, levels, 4) in ticks and lots; empty levels become 0 and 0."""
    out = np.zeros(book.shape, np.int64)
    for price, size in ((0, 1), (2, 3)):
        held = book[..., size] > 0
        out[..., price] = np.where(held, book[..., price] // tick, 0)
        out[..., size] = np.where(held, -(-book[..., size] // lot), 0)
    return out
