"""Stretches of rows in which the best bid is not below the best ask, and what explains them."""

import numpy as np

from tradefm_gym.data.rows import ADD, CROSS, EXECUTION, FeedRows
from tradefm_gym.realism.differences import Finding

_MOMENT_NS = 1_000_000_000
_KIND = "crossed book"
_AUCTION = "an auction or a pre-open gathers orders without matching them"
_MARKETABLE = "the feed shows a marketable order as an add, and its fills in the rows after it"


class Crossings:
    """Follows the touch row by row and keeps the stretches in which it is crossed or locked.

    Attributes:
        session: continuous session (start, end) in ns; set before the first rows.
        rows: rows after which the book was crossed or locked.
        rows_in_session: of them those within the continuous session.
    """

    def __init__(self):
        self.session: tuple[int, int] | None = None
        self.rows = self.rows_in_session = 0
        self._started: list | None = None  # row, time, event and rows of the stretch that goes on
        self._last_ns = 0
        self._totals: dict[str, list[int]] = {}

    def add(self, rows: FeedRows, touch: np.ndarray) -> None:
        """Takes a batch and the touch (n, 4) after each of its rows."""
        assert self.session is not None
        crossed = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 0] >= touch[:, 2])
        self._last_ns = int(rows.time_ns[-1])
        if not crossed.any() and self._started is None:
            return
        within = (rows.time_ns >= self.session[0]) & (rows.time_ns < self.session[1])
        self.rows += int(crossed.sum())
        self.rows_in_session += int((crossed & within).sum())
        edges = np.flatnonzero(np.diff(np.r_[self._started is not None, crossed].astype(np.int8)))
        for i in edges.tolist():
            if self._started is None:
                self._started = [int(rows.source[i]), int(rows.time_ns[i]), int(rows.event[i]), -i]
            else:
                self._end(int(rows.time_ns[i]), int(rows.event[i]), i)
        if self._started is not None:
            self._started[3] += len(rows)

    def _end(self, time_ns: int, event: int, i: int) -> None:
        assert self._started is not None and self.session is not None
        row, start_ns, started_by, count = self._started
        self._started = None
        within = self.session[0] <= start_ns < self.session[1]
        duration = time_ns - start_ns
        if not within or event == CROSS:
            kind = "auction"
        elif started_by == ADD and duration <= _MOMENT_NS and 0 < event <= EXECUTION:
            kind = "same time" if not duration else "filled" if event == EXECUTION else "moment"
        else:
            kind = "other"
        total = self._totals.setdefault(kind, [0, row])
        total[0] += count + i

    def finish(self) -> None:
        """Ends a stretch that the file leaves open."""
        if self._started is not None:
            self._end(self._last_ns, -1, 0)

    def findings(self, facts: dict[str, int]) -> list[Finding]:
        """Crossed rows by explanation."""
        out = []
        shows_takers = facts["own_fills"] > 0 or "filled" in self._totals
        for kind, (count, row) in self._totals.items():
            marketable = kind in ("same time", "filled") or (kind == "moment" and shows_takers)
            reason = _AUCTION if kind == "auction" else _MARKETABLE if marketable else ""
            out.append(Finding(_KIND, reason, count, row))
        return out
