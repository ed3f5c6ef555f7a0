"""Replay: the recorded orders of a day, proposed again in their order, whatever an agent does meanwhile.

Orders match by price and time; what the record says about fills is only compared. A delete removes what
remains of its order, a partial cancel at most its size, and an order that is gone leaves a no-op. What a
taker cannot fill beyond the part that it left resting in the record is dropped and counted, never rested.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit, prange

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.data.day import load_day
from tradefm_gym.data.recorded import RecordedFlow, load
from tradefm_gym.flow.recorded_starts import BLOCK, BUNDLED_DAY, CONTEXTS, HORIZON, ReplayDay, market_for, prepare
from tradefm_gym.flow.row_state import RowState, put_into_flow
from tradefm_gym.market.events import (
    BACKGROUND,
    BUY,
    CANCEL,
    CANCELLED,
    DROPPED,
    INSERTED,
    PRINT,
    REJECTED,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator


class ReplayFlow:
    """A recorded day as background flow for N markets, in blocks of 64 events.

    Start states lie evenly over the train, validation and test parts of the day (by time, with gaps); each
    leaves ``horizon`` events before its part ends, where the flow ends too.

    Args:
        num_envs: markets N.
        source: a RecordedFlow, the path of a saved day (.npz), of a data folder or of a LOBSTER message file;
            by default the bundled day. A ReplayDay has its start states already.
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
    recorded = True

    def __init__(
        self,
        num_envs: int,
        source: RecordedFlow | ReplayDay | str | Path | None = None,
        *,
        contexts: tuple[int, int, int] = CONTEXTS,
        horizon: int = HORIZON,
    ) -> None:
        self.num_envs = whole("num_envs", num_envs, 1)
        horizon = whole("horizon", horizon, BLOCK)  # a shorter one would end with the first block
        try:
            train, validation, test = contexts
            counts = (whole("", train, 1), whole("", validation, 0), whole("", test, 0))
        except (TypeError, ValueError):
            said = "it must hold three counts of which the first is positive"
            raise ValueError(f"contexts is {shortened(contexts)}; {said}") from None
        if source is not None and not isinstance(source, (RecordedFlow, ReplayDay, str, Path)):
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
        return market_for(seats, self.day.live_orders, self.day.flow_ids)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows; seeds and episodes change nothing in a record."""
        chosen = rows.nonzero()[0]
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

    def for_markets(self, num_envs: int) -> "ReplayFlow":
        """Another flow over the same day (see ``FlowModel.for_markets``)."""
        return ReplayFlow(num_envs, self.day)

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What is remembered of rows, the counters included (see ``FlowModel.snapshot``)."""
        return RowState.of_flow(self, self._kept(), rows)

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into rows (see ``FlowModel.restore``)."""
        put_into_flow(state, self, self._kept(), rows)

    def _kept(self) -> dict[str, np.ndarray]:
        names = ("_cursor", "_compared", "_seen", "_context", "changed", "dropped_events", "dropped_lots", "replayed")
        return {name.removeprefix("_"): getattr(self, name) for name in names}

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


def _prepared(
    source: RecordedFlow | ReplayDay | str | Path | None, contexts: tuple[int, int, int], horizon: int
) -> ReplayDay:
    if isinstance(source, ReplayDay):
        return source
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
            if record["owner"] != BACKGROUND or record["order_id"] == INSERTED:
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
