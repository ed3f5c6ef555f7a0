"""Does a recorded day replay? Executes it by its own order ids in the exchange and says where the two differ.

Differences that the way of recording explains are listed with the reason and their number; what is left is
unexplained, and none on a good day.
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from tradefm_gym.arguments import whole
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed
from tradefm_gym.data.recorded import continuous_session
from tradefm_gym.data.rows import ADD, EXECUTION, OWN_FILL, SNAPSHOT, FeedRows
from tradefm_gym.realism import following
from tradefm_gym.realism.crossings import Crossings
from tradefm_gym.realism.differences import Differences, Finding
from tradefm_gym.realism.following import TOTALS, Following, Snapshots
from tradefm_gym.realism.reference import Beside, Unread
from tradefm_gym.realism.unknown_orders import Watched

LARGEST_LOTS = 2**30
_LEVELS = 5  # best levels that are compared by default
_LARGEST_SUM = 2.0**62  # totals are int64
_CONTINUOUS = 2  # code of the phase of continuous trading in snapshots
COLUMNS = ("time_ns", "event", "order_id", "side", "price", "size", "source")
_SECOND_NS = 1_000_000_000
_NEAR_NS = (4_000_000_000, 2_000_000_000)  # a snapshot shows the book of about this long before and after its stamp
_VOLUME = "traded volume that is not the venue's"
_TOUCH = "snapshots whose best bid and ask the book has at no time near them"
MOST_LEFT_OUT = 0.01  # share of a day's rows that a check may leave out
_FEWEST, _MOST_WRONG = 20, 0.5  # snapshots for a verdict on them; share that may be of other moments


@dataclass
class Agreement:
    """How often the replayed book equals a recorded one."""

    against: str  # the file compared with
    what: str  # prices or sizes, how many levels, at which moment
    compared: int
    equal: int

    @property
    def share(self) -> float:
        """Share of what was compared; 1 if nothing was."""
        return self.equal / self.compared if self.compared else 1.0


@dataclass
class DayCheck:
    """What executing a recorded day by its ids has shown."""

    path: str
    format: str
    ticker: str
    venue: str
    date: str
    mode: str  # "by id", or "window" where the book file says what enters the recorded levels
    rows: int
    unknown_ids: int  # rows that name an order which no row before adds
    dead_cancels: int  # cancels and fills of orders that had ended
    crossed_states: int  # rows after which the best bid was not below the best ask
    crossed_in_session: int
    fills: int
    fills_differ: int  # whose order, size, side or price is not that of the book
    fills_out_of_priority: int  # equal but for an older order of the level that stood in front
    cancels: int
    cancels_differ: int
    volume: int  # raw size units, each trade once, hidden executions and auctions included
    volume_recorded: int | None  # the venue's own, where the set has it
    totals: dict[str, int]
    inferred_opening: int  # orders that later rows prove to have rested before the first
    agreement: list[Agreement]
    unread: list[Unread]  # what it would have been compared with
    explained: list[Finding]
    unexplained: list[Finding]
    skipped: dict[str, int] = field(default_factory=dict)
    lot: int = 1

    @property
    def unexplained_count(self) -> int:
        """Differences without an explanation: 0 for a good day."""
        return sum(finding.count for finding in self.unexplained)

    @property
    def left_out(self) -> float:
        """Share of the rows that were left out because no feed can have them."""
        skipped = sum(self.skipped.values())
        return skipped / max(1, skipped + self.rows)

    def to_json(self) -> dict:
        """Plain numbers, strings, lists and dicts."""
        values = asdict(self)
        for agreement, plain in zip(self.agreement, values["agreement"], strict=True):
            plain["share"] = agreement.share
        return values | {
            "unexplained_count": self.unexplained_count,
            "left_out": self.left_out,
            "explained_count": sum(finding.count for finding in self.explained),
        }


def check_day(feed: Feed, levels: int | None = None, against: Feed | None = None) -> DayCheck:
    """Executes a feed by its recorded ids in the exchange, streaming.

    Args:
        feed: the day, from :func:`tradefm_gym.data.feed.open_feed`.
        levels: best levels to compare with a recorded book or snapshots; by default five, or as many as they have.
        against: another recording of the same day with a book file, to compare the touch with; by default one
            is looked for beside a set that has neither a book nor snapshots. What is found there, or as the set's
            snapshots, and cannot be read is reported in ``unread``.

    Raises:
        FeedError: if the file cannot be read, or holds a row that no feed can have and reading is not lenient.
        ValueError: if ``levels`` is not positive, or more than are recorded.
    """
    if levels is not None:
        whole("levels", levels, 1)
    if feed.book is not None:
        from tradefm_gym.realism.recorded_book import check_book

        return check_book(feed, levels)
    beside = Beside.of(feed, against)
    lot = 1
    while True:
        try:
            return _check(feed, levels, beside, lot)
        except _LargerLot as found:
            lot = found.lot


def best_levels(levels: int | None, recorded: int) -> int:
    """How many of the recorded levels are compared."""
    return min(_LEVELS, recorded) if levels is None else whole("levels", levels, 1, recorded)


def _check(feed: Feed, levels: int | None, beside: Beside, lot: int) -> DayCheck:
    run = last = _Run(feed, levels, beside, lot)
    run.follow(None)
    opening, watched = None, None
    if run.differences.unknown:  # a second look: what became of the unknown ids, and with them in the opening book
        opening, watched = run.differences.opening(), run.differences.watch()
        last = _Run(feed, levels, beside, lot)
        last.follow(opening, watched)
    explained, unexplained = run.differences.conclude(feed, run.facts, watched)
    for finding in last.crossings.findings(run.facts):
        (explained if finding.reason else unexplained).append(finding)
    if run.volume_recorded is not None and run.volume != run.volume_recorded:
        example = f"{run.volume:,} in the rows, {run.volume_recorded:,} in the snapshots"
        unexplained.append(Finding(_VOLUME, "", 1, -1, example))
    near = last.snapshots.equal[:, 2]
    wrong = len(near) - int(near.sum())
    if len(near) >= _FEWEST and wrong > _MOST_WRONG * len(near):
        unexplained.append(Finding(_TOUCH, "", wrong, -1, f"{wrong:,} of {len(near):,}"))
    return _report(feed, run, last, 0 if opening is None else len(opening), explained, unexplained)


def _report(feed, run, last, inferred, explained, unexplained) -> DayCheck:
    totals: dict[str, int] = dict(zip(TOTALS, run.state.totals.tolist(), strict=True))
    named = totals["fills"] + totals["named_crosses"]
    return DayCheck(
        **describe(feed),
        mode="by id",
        rows=run.rows,
        unknown_ids=run.differences.counts.get(following.UNKNOWN, 0) - run.differences.dead,
        dead_cancels=run.differences.dead,
        crossed_states=last.crossings.rows,
        crossed_in_session=last.crossings.rows_in_session,
        fills=named,
        fills_differ=named - totals["fills_equal"] - run.differences.counts.get(following.PRIORITY, 0),
        fills_out_of_priority=run.differences.counts.get(following.PRIORITY, 0),
        cancels=totals["cancels"],
        cancels_differ=totals["cancels"] - totals["cancels_equal"],
        volume=run.volume,
        volume_recorded=run.volume_recorded,
        totals=totals,
        inferred_opening=inferred,
        agreement=last.agreement(),
        unread=last.beside.unread,
        explained=explained,
        unexplained=unexplained,
        skipped=dict(feed.skips.counts),
        lot=run.lot,
    )


class _LargerLot(Exception):
    """A size does not fit the exchange's lots."""

    def __init__(self, lot: int):
        super().__init__()
        self.lot = lot


class _Run:
    """One reading of a day."""

    def __init__(self, feed: Feed, levels: int | None, beside: Beside, lot: int):
        self.feed, self.levels, self.beside, self.lot = feed, levels, beside, lot
        self.rows = 0
        self.names_orders = False
        self.differences = Differences()
        self.crossings = Crossings()
        self.facts = {"snapshot_rows": 0, "modified": 0, "own_fills": 0, "own_filled": 0}
        self.sizes = 0.0  # sum of all sizes
        self.state = Following.start(feed.tick, lot)
        self.equal = np.zeros(4, np.int64)
        self.volume_recorded: int | None = None
        self.snapshots, self.stamps_from = Snapshots.empty(), ""
        if beside.snapshots is not None:
            self._use_snapshots(beside.snapshots)

    def _use_snapshots(self, columns: dict[str, np.ndarray]) -> None:
        """Those of continuous trading with both sides, in ticks and lots."""
        levels = best_levels(self.levels, columns["book"].shape[1])
        book, time_ns = columns["book"][:, :levels], columns["ts_ns"]
        held = book[:, 0, 1] > 0
        use = held & (book[:, 0, 3] > 0) & (book[:, 0, 0] > book[:, 0, 2])
        if "phase" in columns:
            use &= columns["phase"] == _CONTINUOUS
        if "volume" in columns and len(columns["volume"]):
            before = int(columns["volume"][0])  # a recording that starts within the day lacks this, or a little more
            self.volume_recorded = int(columns["volume"].max()) if before == 0 else None
        # Stamps without a part of a second stand for some moment within theirs.
        unit_ns = _SECOND_NS if len(time_ns) and not (time_ns % _SECOND_NS).any() else 1
        book = book[use].copy()
        for price, size in ((0, 1), (2, 3)):
            empty = book[..., size] <= 0
            book[..., price] = np.where(empty, 0, book[..., price] // self.feed.tick)
            book[..., size] = np.where(empty, 0, -(-book[..., size] // self.lot))
        self.snapshots = Snapshots.of(np.ascontiguousarray(time_ns[use]), np.ascontiguousarray(book), _NEAR_NS, unit_ns)

    def follow(self, opening: FeedRows | None, watched: Watched | None = None) -> None:
        """Carries out the day, after an opening book if one is given."""
        if opening is not None and len(opening):
            self._carry_out(opening, Snapshots.empty())
            self.state.totals[:] = 0
        for rows in self.feed.batches():
            held = in_range(self.feed, rows)
            if not held.all():
                rows = rows.take(held)
            if len(rows) == 0:
                continue
            self._add_up(rows)
            if watched is None:
                self._take(rows)
            else:
                watched.look(rows)
                for part in watched.parts(rows, lambda: self.state):
                    self._take(part)
            self._gather_facts(rows)
            self.names_orders |= bool(((rows.order_id > 0) | (rows.event == ADD)).any())
            self.rows += len(rows)
        if self.rows == 0:
            raise FeedError(self.feed.path, "the feed has no rows")
        if not self.names_orders:
            detail = "no row names an order (order_id is 0 or -1 in all); a set without order ids cannot be executed"
            raise FeedError(self.feed.path, detail)
        following.compare(self.state, self.snapshots, np.int64(2**62))
        self.crossings.finish()

    def _take(self, rows: FeedRows) -> None:
        """Carries out rows, and looks at what differs."""
        touch, log = self._carry_out(rows, self.snapshots)
        self.differences.add(rows, log)
        if self.crossings.session is None:
            self.crossings.session = continuous_session(self.feed.meta, int(rows.time_ns[0]), 2**62)
        self.crossings.add(rows, touch)
        if self.beside.reference is not None:
            self.equal += self.beside.reference.compare(rows, touch, self.feed.tick)

    def _carry_out(self, rows: FeedRows, snapshots: Snapshots) -> tuple[np.ndarray, np.ndarray]:
        largest = int(rows.size.max())
        if largest // self.lot >= LARGEST_LOTS:
            lot = self.lot
            while largest // lot >= LARGEST_LOTS:
                lot *= 10
            raise _LargerLot(lot)
        self.state = self.state.with_room(int((rows.event == ADD).sum()))
        touch = np.zeros((len(rows), 4), np.int64)
        log = np.zeros(2 * len(rows), following.DIFFERENCE)
        columns = tuple(np.ascontiguousarray(getattr(rows, name)) for name in COLUMNS)
        self.state, logged = following.follow(self.state, snapshots, columns, touch, log)
        return touch, log[:logged]

    def _add_up(self, rows: FeedRows) -> None:
        sums = self.sizes + np.cumsum(rows.size, dtype=np.float64)
        self.sizes = float(sums[-1])
        if self.sizes > _LARGEST_SUM:
            row = int(rows.source[np.argmax(sums > _LARGEST_SUM)])
            raise FeedError(self.feed.path, "sizes add up to more than 2^62; they need a larger unit", row)

    def _gather_facts(self, rows: FeedRows) -> None:
        again = (rows.event[1:] == ADD) & (rows.event[:-1] != ADD) & (rows.order_id[1:] == rows.order_id[:-1])
        self.facts["snapshot_rows"] += int((rows.flag & SNAPSHOT != 0).sum())
        self.facts["modified"] += int(again.sum())
        own = (rows.flag & OWN_FILL != 0) & (rows.event == EXECUTION)
        self.facts["own_fills"] += int(own.sum())
        self.facts["own_filled"] += int(rows.size[own].sum())

    @property
    def volume(self) -> int:
        """Raw size that was traded, each trade once."""
        totals: dict[str, int] = dict(zip(TOTALS, self.state.totals.tolist(), strict=True))
        crossed = max(totals["cross_bought"], totals["cross_sold"], totals["cross_sideless"])
        return totals["filled_size"] - self.facts["own_filled"] + totals["hidden_size"] + crossed

    def agreement(self) -> list[Agreement]:
        """What the comparisons with other recordings gave."""
        out = []
        compared, equal = len(self.snapshots.time_ns), self.snapshots.equal.sum(axis=0).tolist()
        if compared:
            near = f"at some row from {_NEAR_NS[0] // 10**9} s before to {_NEAR_NS[1] // 10**9} s after the stamp"
            levels = self.snapshots.book.shape[1]
            seconds = self.snapshots.window_ns[2] == _SECOND_NS
            for k, (what, when) in enumerate(
                (what, when)
                for what in ("best bid and ask", f"prices and sizes of the best {levels} levels")
                for when in ("at the stamp", "at some row of the stamped second", near)
            ):
                if seconds or k % 3 != 1:
                    out.append(Agreement("snapshots", f"{what}, {when}", compared, equal[k]))
        if self.beside.reference is not None:
            bids, asks, both, found = self.equal.tolist()
            for what, equal in (("best bid", bids), ("best ask", asks), ("best bid and ask", both)):
                out.append(Agreement(self.beside.reference.name, f"{what} after the same message", found, equal))
        return out


def describe(feed: Feed) -> dict:
    """What a report says about the feed itself."""
    names = ("ticker", "venue", "date")
    return {"path": str(feed.path), "format": feed.format} | {name: str(feed.meta[name]) for name in names}


def in_range(feed: Feed, rows: FeedRows) -> np.ndarray:
    """Which rows (n,) bool the exchange can hold: it knows prices from one tick up."""
    low = (rows.event == ADD) & (rows.price < feed.tick)
    if low.any():
        row = int(np.argmax(low))
        rule = "the exchange holds prices from one tick up"
        feed.skips.bad(rule, int(rows.source[row]), f"price is {rows.price[row]}; {rule}", int(low.sum()))
    return ~low
