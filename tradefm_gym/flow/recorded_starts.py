"""From a recorded day to the states in which an episode of it may start."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import FlowCalibration, calibrate, split
from tradefm_gym.flow.protocol import SCALE, SPLITS, ContextBank, StartState, background_orders
from tradefm_gym.market.events import (
    BACKGROUND,
    BUY,
    CANCEL,
    EVENT,
    LIMIT,
    ORDER,
    PRINT,
    RECORD,
    SELL,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

BLOCK = 64  # events that a replay proposes at a time
BUNDLED_DAY = Path(__file__).parent / "contexts" / "day.npz"
_TAPE_TAIL = 1024
CONTEXTS = (64, 16, 16)  # train, validation, test
HORIZON = 2048  # events that a start leaves before its part ends


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


def market_for(seats: int, live_orders: int, flow_ids: int) -> MarketConfig:
    """Capacities of a market for a day: its live orders, their ids, and room for what an agent adds."""
    orders = 1 << (live_orders + live_orders // 4 + 1024).bit_length()
    return MarketConfig(seats=seats, orders=orders, flow_ids=max(1024, flow_ids))


def prepare(
    recorded: RecordedFlow,
    contexts: tuple[int, int, int] = CONTEXTS,
    horizon: int = HORIZON,
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
    market = MarketSimulator(1, market_for(1, rests, ids))
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
    return states, 2 * levels + 2 * HORIZON, seed_price
