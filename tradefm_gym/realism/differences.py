"""Where a recorded day and the book that follows it differ, and what explains it.

An explanation must lie in the data: that an id is older than the first row, that a fill is worse than its
order's limit in a feed that modifies orders, that the add of a cancelled order stands a row later.
"""

from dataclasses import dataclass

import numpy as np

from tradefm_gym.data.feed import Feed
from tradefm_gym.data.rows import ADD, EXECUTION, OTHER_PRICE, OWN_FILL, SNAPSHOT, FeedRows
from tradefm_gym.market.events import BUY
from tradefm_gym.realism.following import (
    BOOK,
    DUPLICATE,
    OVERSIZE,
    PRICE,
    PRIORITY,
    SIDE,
    SIZE,
    STEP,
    THROUGH,
    UNKNOWN,
)
from tradefm_gym.realism.unknown_orders import MOMENT_NS, Ages, Watched

DEAD = "cancel or fill of an order that has ended"

_KINDS = {
    UNKNOWN: "unknown id",
    DUPLICATE: "add of an id that rests already",
    OVERSIZE: "cancel or fill larger than its order",
    PRICE: "cancel or fill at another price than its order",
    PRIORITY: "fill out of time priority",
    THROUGH: "fill behind a better price",
    SIZE: "delete of another size than what is left",
    SIDE: "cancel or fill on another side than its order",
    BOOK: "levels that are not the recorded ones",
    STEP: "message that does not lead to the recorded book",
}
_OPENING = "the order rested before the first row: its id is older than those added, and no row adds it"
_LEVELS = "the order came from outside the file's levels: at least half of them stood before it when its id was given"
_AGELESS = (
    "the order rested before the first row: no row adds it, no price contradicts it, and this feed's ids tell no ages"
)
_SWAPPED = "the add of the order stands in one of the next rows, at the same time"
_LATE = "the add of the order stands in one of the next rows, within a second"
_MODIFIED = "the order was modified to take: the feed reports its fills before the modify"
_REFRESHED = "the order showed a new part at the same time, under the same id"
_QUEUE = "the venue filled another order of the level first: its queue is not in the order of the file's adds"
_STATED = "the feed itself says that the fill was at another price"
_TAKER = "the order was marketable when it was added: its own fills are at the prices of its makers"
_CROSSED = "the book was crossed: who of its best orders trades first is not told"
_REPEATED = "the feed repeats the delete that ended the order, within a second"
# What a day must have shown of its venue's format for a reason to hold.
_NEEDS = {
    _MODIFIED: "modified",  # orders are modified under their ids
    # Each order's changes are published on their own, the taker's too, and unnumbered.
    _REPEATED: "own_fills",
    _LATE: "own_fills",
}


@dataclass
class Finding:
    """Differences of one kind."""

    kind: str
    reason: str  # why they are to be expected; empty if they are not
    count: int
    first_row: int  # number of the row in the file, from 0
    example: str = ""


class Differences:
    """Gathers what the kernels log, and explains it."""

    def __init__(self):
        self.ages = Ages()
        self.counts: dict[int, int] = {}
        self.dead = 0  # rows that name an order which has ended
        self.unknown: list[np.ndarray] = []
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, rows: FeedRows, log: np.ndarray, windowed: bool = False) -> None:
        """Takes the log of a batch of rows; beside a recorded book, no later row explains an unknown id."""
        self.ages.look(rows)
        if len(log) == 0:
            return
        for code, count in zip(*np.unique(log["code"], return_counts=True), strict=True):
            self.counts[int(code)] = self.counts.get(int(code), 0) + int(count)
        unknown = log[log["code"] == UNKNOWN]
        if windowed:
            self._put(UNKNOWN, "", unknown)
            for code in (BOOK, STEP):
                self._put(code, "", log[log["code"] == code])
        elif len(unknown):
            self.unknown.append(unknown.copy())
        self._sort(rows, log)

    def _sort(self, rows: FeedRows, log: np.ndarray) -> None:
        """Explains what its own batch explains."""
        place = np.searchsorted(rows.source, log["row"])
        flags = rows.flag[place]
        worse = (log["price"] - log["found"]) * log["side"] > 0
        for code in (DUPLICATE, OVERSIZE, PRICE, PRIORITY, THROUGH, SIZE, SIDE):
            these = log["code"] == code
            if not these.any():
                continue
            if code == PRIORITY:
                self._put(code, _QUEUE, log[these])
            elif code == PRICE:
                stated = these & (flags & OTHER_PRICE != 0)
                fills = these & ~stated & (log["event"] >= EXECUTION)
                self._put(code, _STATED, log[stated])
                self._put(code, _MODIFIED, log[fills & worse])
                taker = these & ~stated & (log["event"] >= EXECUTION) & ~worse
                taker &= log["crossed"] | (flags & OWN_FILL != 0)
                self._put(code, _TAKER, log[taker])
                self._put(code, "", log[these & ~stated & ~(fills & worse) & ~taker])
            elif code == THROUGH:
                self._put(code, _CROSSED, log[these & log["crossed"]])
                self._put(code, "", log[these & ~log["crossed"]])
            elif code == OVERSIZE:
                again = np.array([_added_again(rows, p) for p in place]) & these
                self._put(code, _REFRESHED, log[again])
                self._put(code, _MODIFIED, log[these & ~again & (log["event"] >= EXECUTION)])
                self._put(code, "", log[these & ~again & (log["event"] < EXECUTION)])
            else:
                self._put(code, "", log[these])

    def _put(self, code: int, reason: str, log: np.ndarray, kind: str = "") -> None:
        if len(log) == 0:
            return
        kind = kind or _KINDS[code]
        first = log[0]
        finding = self._findings.get((kind, reason))
        if finding is None:
            example = f"order {first['order_id']}, side {first['side']}, price {first['price']}, size {first['size']}"
            if code in (OVERSIZE, SIZE):
                example += f"; left is {first['found']}"
            elif code in (PRICE, SIDE):
                example += f"; the order has {first['found']}"
            elif code in (PRIORITY, THROUGH):
                example += f"; next in the queue is order {first['found']}"
            finding = self._findings[kind, reason] = Finding(kind, reason, 0, int(first["row"]), example)
        finding.count += len(log)

    def watch(self) -> Watched:
        """The unknown ids, to look for."""
        return Watched(np.concatenate(self.unknown))

    def opening(self) -> FeedRows:
        """Orders that were named before anything contradicts that they rested since the start, oldest id first."""
        log = np.concatenate(self.unknown)
        log = log[self._was_there(log) & (log["side"] != 0)]
        ids, first, inverse = np.unique(log["order_id"], return_index=True, return_inverse=True)
        size = np.zeros(len(ids), np.int64)
        np.add.at(size, inverse.reshape(-1), log["size"])
        head = log[first]
        clear = head["uncontradicted"] & _apart(head)
        head, size = head[clear], size[clear]
        n = len(head)
        rows = FeedRows.build(
            np.full(n, log["time_ns"].min() if len(log) else 0), np.full(n, ADD), head["order_id"], head["side"],
            head["price"], size, np.full(n, SNAPSHOT),
        )  # fmt: skip
        return rows

    def _was_there(self, log: np.ndarray) -> np.ndarray:
        """Which orders (n,) can have rested for a while when a row named them first.

        Of a venue that numbers orders as they arrive: those with ids that it had given by then. Of another: those
        whose price nothing has passed over.
        """
        given = (log["order_id"] <= log["newest"]) | (log["order_id"] <= self.ages.opening)
        return (log["order_id"] > 0) & (given if self.ages.told else log["uncontradicted"])

    def conclude(self, feed: Feed, facts: dict[str, int], watched: Watched | None) -> tuple[list, list]:
        """Everything found, explained and not."""
        if watched is not None:
            self._explain_unknown(feed, facts, watched)
        findings = []
        for finding in self._findings.values():
            if finding.reason in _NEEDS and not facts.get(_NEEDS[finding.reason]):
                finding.reason = ""
            findings.append(finding)
        return [f for f in findings if f.reason], [f for f in findings if not f.reason]

    def _explain_unknown(self, feed: Feed, facts: dict[str, int], watched: Watched) -> None:
        log = np.concatenate(self.unknown)
        added = watched.first_add(log["order_id"])
        never, before = added == 2**62, added < log["row"]
        soon = ~never & ~before & (added - log["row"] <= 64)
        waited_ns = watched.first_add_ns(log["order_id"]) - log["time_ns"]
        swapped, late = soon & (waited_ns == 0), soon & (waited_ns > 0) & (waited_ns <= MOMENT_NS)
        full = feed.full_opening if feed.full_opening is not None else facts["snapshot_rows"] > 0
        rested = entered = never & self._was_there(log) & (not full)
        if self.ages.told:
            rested = rested & (log["order_id"] <= self.ages.opening)
        levels = feed.meta.get("levels")  # what a file's own description says may be anything
        levels = levels if isinstance(levels, int) and levels > 0 else np.inf
        entered = entered & ~rested & (2 * watched.levels_before(log["order_id"]) >= levels)
        self._put(UNKNOWN, _OPENING if self.ages.told else _AGELESS, log[rested])
        self._put(UNKNOWN, _LEVELS, log[entered])
        self._put(UNKNOWN, _SWAPPED, log[swapped])
        self._put(UNKNOWN, _LATE, log[late])
        repeated = before & watched.repeated(log)
        self.dead = int(before.sum())
        self._put(UNKNOWN, _REPEATED, log[repeated], DEAD)
        self._put(UNKNOWN, "", log[before & ~repeated], DEAD)
        self._put(UNKNOWN, "", log[~before & ~swapped & ~late & ~rested & ~entered])


def _added_again(rows: FeedRows, place: int) -> bool:
    """Whether the order of row ``place`` is added in the next rows of the same time."""
    after = slice(place + 1, place + 65)
    same = (rows.order_id[after] == rows.order_id[place]) & (rows.event[after] == ADD)
    return bool((same & (rows.time_ns[after] == rows.time_ns[place])).any())


def _apart(head: np.ndarray) -> np.ndarray:
    """Which of the orders may rest together: in order of mention, none that would cross one before it."""
    clear = np.zeros(len(head), bool)
    bid, ask = -(2**62), 2**62
    for k in np.argsort(head["row"], kind="stable"):
        price = int(head["price"][k])
        if not head["uncontradicted"][k]:
            continue
        if head["side"][k] == BUY and price < ask:
            clear[k], bid = True, max(bid, price)
        elif head["side"][k] != BUY and price > bid:
            clear[k], ask = True, min(ask, price)
    return clear
