"""Orders that a day names without adding them: what their ids tell of their age, and where the file has them."""

from collections.abc import Callable, Iterator

import numpy as np
from numba import njit

from tradefm_gym.data.rows import ADD, DELETE, FeedRows
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.resolve import is_empty
from tradefm_gym.market.views import next_level
from tradefm_gym.realism.following import Following

MOMENT_NS = 1_000_000_000
_FIRST_ADDS = 16  # ids ascend but for a few, so that one of so many adds has an id that was new at the first row


class Ages:
    """Whether ids tell which of two orders is older: not where they are drawn, nor where the file numbers them."""

    def __init__(self):
        self.opening = 0  # the largest id of the first adds: what rested before the first row has none above it
        self._largest = self._added = 0  # of the ids seen, of those added
        self._adds = self._newer = 0  # adds; of them those with the largest id so far
        self._gapless = True  # every id is one of those before or the next number: orders are numbered as they appear

    def look(self, rows: FeedRows) -> None:
        """Takes a batch."""
        ids = rows.order_id[rows.order_id > 0]
        before = np.maximum.accumulate(np.r_[self._largest, ids])
        self._gapless &= bool((ids <= before[:-1] + 1).all())
        self._largest = int(before[-1])
        added = ids[rows.event[rows.order_id > 0] == ADD]
        before = np.maximum.accumulate(np.r_[self._added, added])
        self.opening = int(added[: max(0, _FIRST_ADDS - self._adds)].max(initial=self.opening))
        self._adds += len(added)
        self._newer += int((added > before[:-1]).sum())
        self._added = int(before[-1])

    @property
    def told(self) -> bool:
        """Whether a larger id means a younger order, but for modifies and the opening book."""
        return not self._gapless and 2 * self._newer >= self._adds


class Watched:
    """Unknown ids: where the file adds or deletes them, and how much of the book was better when they were given."""

    def __init__(self, log: np.ndarray):
        """Takes the differences (n,) that name unknown ids, in order of the rows."""
        self.ids, first = np.unique(log["order_id"], return_index=True)
        self._first, self._first_ns = np.full((2, len(self.ids)), 2**62, np.int64)  # row and time of the first add
        self._side, self._price = log["side"][first], log["price"][first]
        self._before = np.zeros(len(self.ids), np.int64)
        self._newest = 0  # id added so far
        self._deletes: dict[
            tuple[int, int, int], tuple[int, int]
        ] = {}  # (id, price, size) -> row and time of the first

    def look(self, rows: FeedRows) -> None:
        """Notes the first add of each id."""
        adds = np.flatnonzero(rows.event == ADD)
        at = np.minimum(np.searchsorted(self.ids, rows.order_id[adds]), len(self.ids) - 1)
        hit = self.ids[at] == rows.order_id[adds]
        np.minimum.at(self._first, at[hit], rows.source[adds[hit]])
        np.minimum.at(self._first_ns, at[hit], rows.time_ns[adds[hit]])

        deletes = np.flatnonzero(rows.event == DELETE)
        at = np.minimum(np.searchsorted(self.ids, rows.order_id[deletes]), len(self.ids) - 1)
        for k in deletes[self.ids[at] == rows.order_id[deletes]].tolist():
            key = (int(rows.order_id[k]), int(rows.price[k]), int(rows.size[k]))
            self._deletes.setdefault(key, (int(rows.source[k]), int(rows.time_ns[k])))

    def parts(self, rows: FeedRows, state: Callable[[], Following]) -> Iterator[FeedRows]:
        """A batch in parts, each to be carried out before the next: between them the book is as ids were given.

        Of a venue that numbers orders as they arrive an id was given before the first add of a larger one.
        """
        newest = np.maximum.accumulate(np.r_[self._newest, np.where(rows.event == ADD, rows.order_id, 0)])
        low, high = np.searchsorted(self.ids, newest[[0, -1]], "right").tolist()
        self._newest, done = int(newest[-1]), 0
        for k, row in enumerate(np.searchsorted(newest[1:], self.ids[low:high]).tolist(), low):
            if row > done:
                yield rows.take(np.arange(done, row))
                done = row
            self._before[k] = _levels_before(state(), self._side[k], self._price[k])
        yield rows.take(np.arange(done, len(rows)))

    def repeated(self, log: np.ndarray) -> np.ndarray:
        """Which entries (n,) repeat, within a second, an equal delete of an earlier row."""
        out = np.zeros(len(log), bool)
        for k in np.flatnonzero(log["event"] == DELETE).tolist():
            key = (int(log["order_id"][k]), int(log["price"][k]), int(log["size"][k]))
            row, time_ns = self._deletes.get(key, (2**62, 0))
            out[k] = row < log["row"][k] and log["time_ns"][k] - time_ns <= MOMENT_NS
        return out

    def first_add(self, ids: np.ndarray) -> np.ndarray:
        """Row of the first add of each id, 2^62 where there is none."""
        return self._first[np.searchsorted(self.ids, ids)]

    def first_add_ns(self, ids: np.ndarray) -> np.ndarray:
        """Time of the first add of each id, 2^62 where there is none."""
        return self._first_ns[np.searchsorted(self.ids, ids)]

    def levels_before(self, ids: np.ndarray) -> np.ndarray:
        """Levels of its side that were better than the price of each id when it was given."""
        return self._before[np.searchsorted(self.ids, ids)]


@njit(cache=True, nogil=True)
def _levels_before(state, side, price):
    """Occupied levels of a side that are better than a price in units of the set."""
    s = np.int64(0) if side > 0 else np.int64(1)
    ticks, at, levels = price // state.units[0], state.book.row[0, BEST + s], 0
    while not is_empty(at) and (at - ticks) * (1 - 2 * s) > 0:
        levels += 1
        at = next_level(state.book, 0, s, at)
    return levels
