"""Replay: the recorded orders of a day, proposed again in their order, whatever an agent does meanwhile.

Orders match by price and time; what the record says about fills is only compared. A delete removes what
remains of its order, a partial cancel at most its size, and an order that is gone leaves a no-op. What a
taker cannot fill beyond the part that it left resting in the record is dropped and counted, never rested.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit, prange

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.data.day import load_day
from tradefm_gym.data.recorded import RecordedFlow, load
from tradefm_gym.data.splits import FlowCalibration, calibrate, split
from tradefm_gym.flow.protocol import SCALE, SPLITS, ContextBank, StartState, background_orders
from tradefm_gym.market.events import (
    BACKGROUND,
    BUY,
    CANCEL,
    CANCELLED,
    DROPPED,
    EVENT,
    LIMIT,
    ORDER,
    PRINT,
    RECORD,
    REJECTED,
    SELL,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

BLOCK = 64
BUNDLED_DAY = Path(__file__).parent / "contexts" / "day.npz"
_TAPE_TAIL = 1024
_CONTEXTS = (64, 16, 16)  # train, validation, test
_HORIZON = 2048  # events that a start leaves before its part ends


@dataclass(frozen=True, eq=False)
class ReplayDay:
    """A recorded day made ready: what to propose, what the record expects, where episodes may start.

    Attributes:
        events: (n,) EVENT, prices absolute.
        expected: (n,) RECORD, what each did in the record.
        first_seen: (ids,) int64, position of the event that rested the order; n if none did.
        start: (c,) int64, position of the first event of each context.
        stop: (c,) int64, end of the part that the context lies in.
        seed_price: (c, 2, levels) int32 prices of the seeded levels, bids first, 0 beyond; levels is 0 where
            orders are known by id.
        bank: the start states.
        live_orders: most resting orders at once.
        version: hash of the events.
    """

    events: np.ndarray
    expected: np.ndarray
    first_seen: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    seed_price: np.ndarray
    bank: ContextBank
    live_orders: int
    version: str

    @property
    def flow_ids(self) -> int:
        """Background ids in use, those of seeded levels included."""
        return len(self.first_seen) + 2 * self.seed_price.shape[2]


class ReplayFlow:
    """A recorded day as background flow for N markets, in blocks of 64 events.

    Start states lie evenly over the train, validation and test parts of the day (by time, with gaps); each
    leaves ``horizon`` events before its part ends, where the flow ends too.

    Args:
        num_envs: markets N.
        source: a RecordedFlow, the path of a saved day (.npz), of a data folder or of a LOBSTER message file;
            by default the bundled day.
        contexts: how many start states to take from the train, validation and test part.
        horizon: events (prints not counted) that a start leaves, at least 64; half a part where the part has fewer
            than twice that.

    Attributes:
        changed: (N,) int64, recorded events whose outcome differed since the reset; see ``count_outcomes``.
        dropped_events: (N,) int64, takers of which an excess was dropped.
        dropped_lots: (N,) int64, that excess.
        replayed: (N,) int64, recorded events compared so far, prints not counted.
    """

    block = BLOCK

    def __init__(
        self,
        num_envs: int,
        source: RecordedFlow | str | Path | None = None,
        *,
        contexts: tuple[int, int, int] = _CONTEXTS,
        horizon: int = _HORIZON,
    ) -> None:
        self.num_envs = whole("num_envs", num_envs, 1)
        horizon = whole("horizon", horizon, BLOCK)  # a shorter one would end with the first block
        try:
            train, validation, test = contexts
            counts = (whole("", train, 1), whole("", validation, 0), whole("", test, 0))
        except (TypeError, ValueError):
            said = "it must hold three counts of which the first is positive"
            raise ValueError(f"contexts is {shortened(contexts)}; {said}") from None
        if source is not None and not isinstance(source, (RecordedFlow, str, Path)):
            raise ValueError(f"source is {shortened(source)}; it must be a RecordedFlow, a path or None")
        self.day = _prepared(source, counts, horizon)
        self.bank = self.day.bank
        self.name = f"replay:{self.bank.origin}"
        self.version = f"{self.day.version}-{self.bank.digest()}"
        self._removed = np.ascontiguousarray(self.day.expected["size"])
        self._cursor = np.zeros(num_envs, np.int64)  # next event to propose
        self._compared = np.zeros(num_envs, np.int64)  # next event whose outcome is looked for
        self._seen = np.zeros(num_envs, np.int64)  # tape records read
        self._context = np.zeros(num_envs, np.int64)
        self.changed = np.zeros(num_envs, np.int64)
        self.dropped_events = np.zeros(num_envs, np.int64)
        self.dropped_lots = np.zeros(num_envs, np.int64)
        self.replayed = np.zeros(num_envs, np.int64)

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities for every order of the day by its id."""
        return _config(seats, self.day.live_orders, self.day.flow_ids)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows; seeds and episodes change nothing in a record."""
        chosen = np.flatnonzero(rows)
        contexts = np.asarray(contexts, np.int64)[chosen]
        self.bank.load_into(market, chosen, contexts)
        self._context[chosen] = contexts
        self._cursor[chosen] = self._compared[chosen] = self.day.start[contexts]
        self._seen[chosen] = market.tape.record_count[chosen]
        for counter in (self.changed, self.dropped_events, self.dropped_lots, self.replayed):
            counter[chosen] = 0

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next 64 recorded events of the rows ``wanted`` (N,) bool; none where the part of the day has ended."""
        self.count_outcomes(market)
        block = EventBlock.empty(self.num_envs, BLOCK)
        day = self.day
        _propose(
            block.events, block.count, wanted, self._cursor, self._context,
            day.events, self._removed, day.first_seen, day.start, day.stop, day.seed_price,
        )  # fmt: skip
        return block

    @property
    def events_left(self) -> np.ndarray:
        """Events from each start to the end of its part (c,) int64, prints not counted."""
        counted = np.concatenate([[0], np.cumsum(self.day.events["kind"] != PRINT)])
        return counted[self.day.stop] - counted[self.day.start]

    def report(self, market: MarketSimulator) -> dict[str, np.ndarray]:
        """Columns (N,): recorded events replayed so far, and those of them whose outcome changed."""
        self.count_outcomes(market)
        return {"replayed": self.replayed.copy(), "replay_changed": self.changed.copy()}

    def count_outcomes(self, market: MarketSimulator) -> None:
        """Brings ``changed`` and the counters beside it up to the end of the tapes."""
        ring = market.tape.records.shape[1]
        if (market.tape.record_count - self._seen).max() > ring:
            raise ValueError(
                f"the tape of {ring} records was overrun before the flow read it; raise tape in MarketConfig"
            )
        _compare(
            market.tape.records, market.tape.record_count, self._seen, self._compared, self.day.expected,
            self.changed, self.dropped_events, self.dropped_lots, self.replayed,
        )  # fmt: skip


def _config(seats: int, live_orders: int, flow_ids: int) -> MarketConfig:
    orders = 1 << (live_orders + live_orders // 4 + 1024).bit_length()
    return MarketConfig(seats=seats, orders=orders, flow_ids=max(1024, flow_ids))


# ---- a recorded day -> start states ------------------------------------------------------------------


def _prepared(source: RecordedFlow | str | Path | None, contexts: tuple[int, int, int], horizon: int) -> ReplayDay:
    if isinstance(source, RecordedFlow):
        return prepare(source, contexts, horizon)
    path = Path(source) if source is not None else BUNDLED_DAY
    if not path.exists():
        raise FileNotFoundError(
            f"replay path {str(path)!r} does not exist; it must be a saved day (.npz), a data folder or a LOBSTER "
            "message file"
        )
    # A changed file is another day; the time of its change is part of the key.
    return _prepared_file(path.resolve(), path.stat().st_mtime_ns, contexts, horizon)


@lru_cache(maxsize=4)
def _prepared_file(path: Path, changed_ns: int, contexts: tuple[int, int, int], horizon: int) -> ReplayDay:
    return prepare(load_day(path) if path.suffix == ".npz" else load(path), contexts, horizon)


def prepare(
    recorded: RecordedFlow,
    contexts: tuple[int, int, int] = _CONTEXTS,
    horizon: int = _HORIZON,
    at: np.ndarray | None = None,
) -> ReplayDay:
    """Chooses the start states of a day and makes them; ``at`` (c,) ascending names the records that they precede.

    Where orders are known by id the day is executed once and the books are kept; elsewhere a book is seeded with
    one order a level from the book file, and later messages about older orders go to the level's order.

    Raises:
        ValueError: if the training part is too short to start in.
    """
    records = recorded.records
    parts = split(recorded)
    ranges = [(part.start, part.stop) for part in (getattr(parts, name) for name in SPLITS)]
    if at is None:
        start, code, stop = _starts(recorded, ranges, contexts, horizon)
    else:
        start = np.asarray(at, np.int64)
        if len(start) == 0 or (np.diff(start) < 0).any() or start[0] <= recorded.opening or start[-1] >= len(records):
            raise ValueError(
                f"at must hold ascending positions between {recorded.opening + 1} and {len(records) - 1}, got {at}"
            )
        code, stop = np.zeros(len(start), np.uint8), np.full(len(start), len(records), np.int64)
    events = to_events(records)
    ids = int(records["order_id"].max(initial=-1)) + 1
    first_seen = np.full(ids, len(records), np.int64)
    rests = np.flatnonzero((records["kind"] == LIMIT) & (records["max_rest"] > 0))
    np.minimum.at(first_seen, records["order_id"][rests], rests)
    scale = scale_of(calibrate(recorded, parts.train))
    origin = f"{recorded.meta.ticker} {recorded.meta.venue} {recorded.meta.date}"
    version = hashlib.sha256(events.tobytes()).hexdigest()[:12]
    if recorded.meta.replay_by_id:
        states, live = _executed_states(events, start, ids, scale)
        seed_price = np.zeros((len(start), 2, 0), np.int32)
    else:
        states, live, seed_price = _seeded_states(recorded, start, ids, scale)
    both = np.array([len(np.unique(state.orders["side"])) == 2 for state in states])
    if at is not None and not both.all():
        raise ValueError(f"at must hold positions with a two-sided book before them, got {start[~both][:8].tolist()}")
    if not both[code == 0].any():
        raise ValueError(f"recorded flow {origin} has no two-sided book in its training part; it cannot be replayed")
    bank = ContextBank.from_states(
        [state for state, good in zip(states, both, strict=True) if good], code[both], origin
    )
    return ReplayDay(events, records, first_seen, start[both], stop[both], seed_price[both], bank, live, version)


def to_events(records: np.ndarray) -> np.ndarray:
    """Proposals (n,) EVENT that repeat records (n,) RECORD: a CANCEL that left nothing becomes a delete."""
    events = np.zeros(len(records), EVENT)
    for field in EVENT.names or ():
        events[field] = records[field]
    deletes = (records["kind"] == CANCEL) & (records["max_rest"] == 0)
    events["size"][deletes] = 0
    events["owner"], events["anchor"] = BACKGROUND, 0
    return events


def scale_of(calibration: FlowCalibration) -> np.ndarray:
    """SCALE () of a calibration."""
    scale = np.zeros((), SCALE)
    for name in ("lots_per_event", "median_size", "spread", "touch_size", "volatility", "event_ns"):
        scale[name] = getattr(calibration, name)
    scale["tick_bps"] = 1e4 / calibration.mid
    return scale


def _starts(
    recorded: RecordedFlow, parts: list[tuple[int, int]], contexts: tuple[int, int, int], horizon: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the starts (c,), the parts that they lie in (c,) uint8, and where those end (c,)."""
    counted = np.concatenate([[0], np.cumsum(recorded.records["kind"] != PRINT)])
    start, code, stop = [], [], []
    for number, ((low, high), wanted) in enumerate(zip(parts, contexts, strict=True)):
        low = max(low, recorded.opening)
        events = int(counted[high] - counted[low]) if high > low else 0
        needed = min(horizon, events // 2)
        # Some of the part goes before its first start, so that a tape has something on it.
        first = low + min(_TAPE_TAIL, (high - low) // 8)
        last = int(np.searchsorted(counted, counted[high] - needed, side="right")) - 1 if events else first - 1
        if needed < BLOCK or last < first:
            if number == 0:
                raise ValueError(
                    f"recorded flow has {events} events in its training part; at least {2 * BLOCK} are needed to replay"
                )
            continue
        positions = np.unique(np.linspace(first, last, wanted).astype(np.int64))
        start.append(positions)
        code.append(np.full(len(positions), number, np.uint8))
        stop.append(np.full(len(positions), high, np.int64))
    return np.concatenate(start), np.concatenate(code), np.concatenate(stop)


def _executed_states(
    events: np.ndarray, start: np.ndarray, ids: int, scale: np.ndarray
) -> tuple[list[StartState], int]:
    """Executes the day in one market without agents; returns its state at each start and the most live orders."""
    rests = int(((events["kind"] == LIMIT) & (events["max_rest"] > 0)).sum())
    market = MarketSimulator(1, _config(1, rests, ids))
    width = market.config.flow_queue
    states, live, done = [], 0, 0
    for position in start.tolist():
        while done < position:
            chunk = events[done : min(done + width, position)]
            market.feed(EventBlock(chunk[None].copy(), np.array([len(chunk)], np.int32)))
            market.advance(until_count=np.array([2**62]))
            done += len(chunk)
            live = max(live, int(background_orders(market)[0]))
        states.append(StartState.capture(market, 0, scale, _TAPE_TAIL)._replace(next_id=ids))
    return states, live


def _seeded_states(
    recorded: RecordedFlow, start: np.ndarray, ids: int, scale: np.ndarray
) -> tuple[list[StartState], int, np.ndarray]:
    """Seeds one order a level from the book file at each start; returns also the prices of the levels."""
    if recorded.book is None:
        raise ValueError("recorded flow is not replayable by id and has no book file; one of the two is needed")
    levels = recorded.book.shape[1]
    seed_price = np.zeros((len(start), 2, levels), np.int32)
    states = []
    for i, position in enumerate(start.tolist()):
        record = recorded.records[position - 1]
        orders = np.zeros((2, levels), ORDER)
        for row, (side, price, size) in enumerate(((BUY, 2, 3), (SELL, 0, 1))):
            orders[row]["side"] = side
            orders[row]["price"] = recorded.book[position - 1, :, price]
            orders[row]["size"] = recorded.book[position - 1, :, size]
            orders[row]["order_id"] = ids + row * levels + np.arange(levels)
        orders["owner"], orders["time_ns"] = BACKGROUND, record["time_ns"]
        present = orders["size"] > 0
        seed_price[i] = np.where(present, orders["price"], 0)
        tail = recorded.records[max(recorded.opening, position - _TAPE_TAIL) : position].astype(RECORD)
        states.append(
            StartState(orders[present], tail, int(record["time_ns"]), int(record["mid2"]), ids + 2 * levels, scale)
        )
    # Levels that leave the file's view keep their orders: room for what an episode may gather.
    return states, 2 * levels + 2 * _HORIZON, seed_price


# ---- kernels ---------------------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def _propose(events, count, wanted, cursor, context, day, removed, first_seen, start, stop, seed_price):
    levels = seed_price.shape[2]
    for m in prange(len(wanted)):
        if not wanted[m]:
            continue
        c = context[m]
        number = min(events.shape[1], stop[c] - cursor[m])
        for k in range(number):
            events[m, k] = day[cursor[m] + k]
            event = events[m, k]
            if levels > 0 and event["kind"] == CANCEL:
                rested = first_seen[event["order_id"]]
                if rested < start[c] or rested == len(day):
                    _redirect(event, removed[cursor[m] + k], seed_price[c], len(first_seen))
        cursor[m] += number
        count[m] = number


@njit(cache=True, nogil=True)
def _redirect(event, size, seed_price, ids):
    """A message about an order that rested before the start goes to the order that stands for its level."""
    row = 0 if event["side"] == BUY else 1
    for level in range(seed_price.shape[1]):
        if seed_price[row, level] == event["price"]:
            event["order_id"] = ids + row * seed_price.shape[1] + level
            event["size"] = size  # the level holds more orders than this one
            return


@njit(cache=True, nogil=True, parallel=True)
def _compare(records, record_count, seen, compared, expected, changed, dropped_events, dropped_lots, replayed):
    for m in prange(len(record_count)):
        while seen[m] < record_count[m]:
            record = records[m, seen[m] % records.shape[1]]
            seen[m] += 1
            if record["owner"] != BACKGROUND:
                continue
            wanted = expected[compared[m]]
            compared[m] += 1
            if record["kind"] == PRINT:
                continue
            replayed[m] += 1
            same = record["filled"] == wanted["filled"] and record["notional"] == wanted["notional"]
            if record["kind"] == CANCEL:
                same = record["status"] == CANCELLED and record["size"] == wanted["size"]
            elif record["status"] == DROPPED:
                # The record's own remainder rests; what is missing beyond it is the excess.
                same = False
                dropped_events[m] += 1
                dropped_lots[m] += np.int64(wanted["size"]) - record["filled"] - record["max_rest"]
            elif record["status"] == REJECTED:
                same = False
            if not same:
                changed[m] += 1
