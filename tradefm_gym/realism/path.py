"""What is compared: an unbroken stretch of a market, recorded or generated, event by event with the book after each.

Both come out of the same exchange: a recorded day is executed by its order ids, a flow is rolled out. Events are those
of the background that changed the book or traded; a feed shows no others.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.protocol import SCALE, FlowModel
from tradefm_gym.flow.recorded_starts import market_for, to_events
from tradefm_gym.market.events import CANCEL, DROPPED, FILL, LIMIT, NOOP, PRINT, RECORD, REJECTED, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

LEVELS = 5
BREAK_NS = 600 * 10**9  # a longer silence is a break of the session, at which a path ends
_CHUNK = 2048  # events between two readings of the tape, which holds more


@dataclass(frozen=True, eq=False)
class MarketPath:
    """One stretch of one market.

    Attributes:
        records: (n,) RECORD in order, of the background; prices absolute, a cancel's size is what it removed.
        book: (n, LEVELS, 4) int32 ask price, ask size, bid price, bid size after each; size 0 where nothing rests.
        fills: (f,) FILL of the same stretch.
        start_ns: when it begins.
        start_book: (LEVELS, 4) int32, the book at its beginning.
        scale: () SCALE of the asset, from the training part of its day.
        start: number of the start state that it came from, 0 for a record.
        end_ns: when it ends.
    """

    records: np.ndarray
    book: np.ndarray
    fills: np.ndarray
    start_ns: int
    start_book: np.ndarray
    scale: np.ndarray
    start: int = 0
    end_ns: int = 0

    def __len__(self) -> int:
        return len(self.records)

    @property
    def seconds(self) -> np.ndarray:
        """Times since the beginning (n,) float64."""
        return (self.records["time_ns"] - self.start_ns) / 1e9

    @property
    def takes(self) -> np.ndarray:
        """Which events executed on arrival, (n,) bool."""
        return (self.records["kind"] != CANCEL) & (self.records["filled"] > 0)

    @property
    def cancels(self) -> np.ndarray:
        """Which events are cancels, (n,) bool."""
        return self.records["kind"] == CANCEL

    @property
    def two_sided(self) -> np.ndarray:
        """Whether both sides had orders after each event, (n,) bool."""
        return _two_sided(self.book)

    @property
    def mid(self) -> np.ndarray:
        """Mid after each event (n,) float64 in ticks; with a side empty the last one that was known."""
        return self._mids()[1:]

    @property
    def mid_before(self) -> np.ndarray:
        """Mid that each event met, (n,) float64 in ticks."""
        return self._mids()[:-1]

    @property
    def touch_before(self) -> np.ndarray:
        """Touch that each event met, (n, 4) int32 ask price, ask size, bid price, bid size."""
        return np.concatenate([self.start_book[None, 0], self.book[:-1, 0]])

    def between(self, first: int, last: int) -> "MarketPath":
        """The stretch of the events ``first`` to ``last``, the latter not included."""
        start_ns = int(self.records["time_ns"][first - 1]) if first > 0 else self.start_ns
        end_ns = int(self.records["time_ns"][last - 1]) if last > first else start_ns
        fills = self.fills[(self.fills["time_ns"] > start_ns) & (self.fills["time_ns"] <= end_ns)]
        start_book = self.book[first - 1] if first > 0 else self.start_book
        return replace(
            self, records=self.records[first:last], book=self.book[first:last], fills=fills, start_ns=start_ns,
            start_book=start_book, end_ns=end_ns,
        )  # fmt: skip

    def pieces(self) -> "list[MarketPath]":
        """The path cut at breaks of the session."""
        time = self.records["time_ns"]
        cuts = np.flatnonzero(np.diff(time, prepend=self.start_ns) > BREAK_NS).tolist()
        found = []
        for first, last in zip([0, *cuts], [*cuts, len(self)], strict=True):
            if last > first:
                piece = self.between(first, last)
                # What follows a break begins with its own first event.
                found.append(replace(piece, start_ns=int(time[first])) if first in cuts else piece)
        return found

    def _mids(self) -> np.ndarray:
        book = np.concatenate([self.start_book[None], self.book])
        good = _two_sided(book)
        last = np.maximum.accumulate(np.where(good, np.arange(len(book)), -1))
        first = int(np.argmax(good)) if good.any() else 0
        mid = 0.5 * (book[:, 0, 0].astype(np.float64) + book[:, 0, 2])
        return mid[np.where(last >= 0, last, first)]


def _two_sided(book: np.ndarray) -> np.ndarray:
    return (book[:, 0, 1] > 0) & (book[:, 0, 3] > 0)


def recorded_path(
    recorded: RecordedFlow, scale: np.ndarray, progress: Callable[[int], None] | None = None
) -> MarketPath:
    """The whole of a recorded day after its opening book, with positions as in ``recorded.flow`` less its prints.

    A day that can be replayed by id is executed; one that came with a book file is believed (it has no fills then).

    Args:
        recorded: the day.
        scale: () SCALE.
        progress: told how many records are done.
    """
    flow, opening = recorded.flow, recorded.opening
    visible = flow["kind"] != PRINT
    if recorded.book is not None:
        book = np.zeros((len(recorded), LEVELS, 4), np.int32)
        levels = min(LEVELS, recorded.book.shape[1])
        book[:, :levels] = recorded.book[:, :levels]
        start, fills = book[max(opening - 1, 0)], recorded.fills
        book = book[opening:]
    else:
        book, start, fills = _executed(recorded, progress)
    return MarketPath(
        np.ascontiguousarray(flow[visible]), book[visible], fills, int(flow["time_ns"][0]), start, scale,
        end_ns=int(flow["time_ns"][-1]),
    )  # fmt: skip


def _executed(recorded: RecordedFlow, progress: Callable[[int], None] | None):
    """Book after each record of the flow, the book before it, and the fills."""
    events = to_events(recorded.records)
    rests = int(((events["kind"] == LIMIT) & (events["max_rest"] > 0)).sum())
    market = MarketSimulator(1, market_for(0, rests, int(events["order_id"].max(initial=0)) + 1))
    opening = recorded.opening
    for first in range(0, opening, _CHUNK):
        market.execute(_block(events[first : min(first + _CHUNK, opening)]))
    start = _levels(market)[0]
    book = np.zeros((len(events) - opening, LEVELS, 4), np.int32)
    fills, seen = [], int(market.tape.fill_count[0])
    for i in range(len(book)):
        market.execute(_block(events[opening + i : opening + i + 1]))
        book[i] = _levels(market)[0]
        if i % _CHUNK == 0 or i == len(book) - 1:
            fills.append(market.tape.read_fills(0, seen))
            seen = int(market.tape.fill_count[0])
            if progress is not None:
                progress(i)
    return book, start, np.concatenate([np.zeros(0, FILL), *fills])


def _block(events: np.ndarray) -> EventBlock:
    return EventBlock(np.ascontiguousarray(events)[None], np.array([len(events)], np.int32))


def _levels(market: MarketSimulator) -> np.ndarray:
    """The best levels (N, LEVELS, 4) int32."""
    prices, sizes = market.depth(LEVELS)
    return np.stack([prices[:, 1], sizes[:, 1], prices[:, 0], sizes[:, 0]], axis=-1).astype(np.int32)


def roll_out(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    events: int,
    seconds: float = 0.0,
    most: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[MarketPath]:
    """Lets a flow run freely without agents and writes everything down.

    Args:
        flow: for N markets.
        contexts: (N,) start states.
        seeds: (N,) uint64.
        events: a path ends after at least so many background events, those without effect included,
        seconds: and not before so much time has passed,
        most: but at the latest after so many events (default: as many as that takes).
        progress: told how many events each market has made.

    Returns:
        N paths.
    """
    n = flow.num_envs
    market = MarketSimulator(n, replace(flow.market_config(0), tape=4 * _CHUNK, fills=16 * _CHUNK))
    contexts = np.asarray(contexts, np.int64)
    flow.reset(market, np.ones(n, bool), contexts, np.asarray(seeds, np.uint64), np.zeros(n, np.uint32))
    start_ns, start_book = market.clock_ns.copy(), _levels(market)
    first = market.background_count.copy()
    ends = start_ns + np.int64(seconds * 1e9)
    seen = [market.tape.record_count.copy(), market.tape.fill_count.copy()]
    records, fills = [[] for _ in range(n)], [[] for _ in range(n)]
    books, made, running = [], 0, np.ones(n, bool)

    def collect() -> None:
        for row in range(n):
            records[row].append(market.tape.read_records(row, int(seen[0][row])))
            fills[row].append(market.tape.read_fills(row, int(seen[1][row])))
        seen[0][:], seen[1][:] = market.tape.record_count, market.tape.fill_count
        if progress is not None:
            progress(made)

    until = first.copy()
    while running.any():
        until[running] += 1
        while (starved := market.advance(until_count=until)).any():
            block = flow.next_events(market, starved)
            if not block.count[starved].all():  # a record that has ended
                running &= ~(starved & (block.count == 0))
                until = np.where(running, until, market.background_count)
            market.feed(block)
        books.append(_levels(market))
        made += 1
        running &= (made < events) | (market.clock_ns < ends)
        if most is not None and made >= most:
            running[:] = False
        if made % _CHUNK == 0:
            collect()
    collect()
    book = np.stack(books, axis=1)
    scale = flow.bank.scale[contexts]
    return [
        _path(
            np.concatenate(records[row]), np.concatenate([np.zeros(0, FILL), *fills[row]]), book[row],
            int(start_ns[row]), start_book[row], scale[row], int(contexts[row]),
        )
        for row in range(n)
    ]  # fmt: skip


def _path(records, fills, book, start_ns, start_book, scale, start) -> MarketPath:
    """A path without prints and without what had no effect."""
    counted = records[records["kind"] != PRINT]
    idle = np.isin(counted["status"], (NOOP, REJECTED)) | ((counted["status"] == DROPPED) & (counted["filled"] == 0))
    end_ns = int(records["time_ns"][-1]) if len(records) else start_ns
    return MarketPath(
        counted[~idle].astype(RECORD), book[: len(counted)][~idle], fills, start_ns, start_book, scale.astype(SCALE),
        start, end_ns,
    )  # fmt: skip
