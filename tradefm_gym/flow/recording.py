"""Write a market's tape down as a recorded day, so that what happened once can be replayed."""

import numpy as np

from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, stamp_touch
from tradefm_gym.flow.protocol import StartState
from tradefm_gym.market.events import (
    BACKGROUND,
    CANCEL,
    DROPPED,
    FILLED,
    LIMIT,
    MARKET,
    NOOP,
    RECORD,
    REJECTED,
    RESTED,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator


class DayRecorder:
    """Collects the tape of one market row from now on; call ``collect`` before the ring runs over.

    Only background orders may rest and trade: a day with agents in it could not be replayed without them.
    """

    def __init__(self, market: MarketSimulator, row: int = 0) -> None:
        self._market, self._row = market, row
        self._start = StartState.capture(market, row, np.zeros(()), tail=0)
        self._records: list[np.ndarray] = []
        self._fills: list[np.ndarray] = []
        self._read = [int(market.tape.record_count[row]), int(market.tape.fill_count[row])]

    def collect(self) -> int:
        """Copies what the tape has gained; returns the records collected so far."""
        tape = self._market.tape
        self._records.append(tape.read_records(self._row, self._read[0]))
        self._fills.append(tape.read_fills(self._row, self._read[1]))
        self._read = [int(tape.record_count[self._row]), int(tape.fill_count[self._row])]
        return sum(len(records) for records in self._records)

    def finish(self, meta: FlowMeta) -> RecordedFlow:
        """The recorded day: the opening book, then every event that did something.

        Market orders become limit orders at the worst price that they paid; no-ops are left out; order ids
        are numbered by first appearance.

        Raises:
            ValueError: if an agent took part, or a cancel spilled over several orders.
        """
        self.collect()
        records, fills = np.concatenate(self._records), np.concatenate(self._fills)
        if (records["owner"] != BACKGROUND).any() or (fills["maker"] != BACKGROUND).any():
            raise ValueError("the tape holds events of agents; only a market without agents can be recorded as a day")
        kept = _useful(records)
        _limit_prices(kept, fills)
        orders = self._start.orders
        opening = np.zeros(len(orders), RECORD)
        for field in ("order_id", "price", "size", "side"):
            opening[field] = orders[field]
        opening["time_ns"], opening["owner"] = self._start.clock_ns, BACKGROUND
        opening["max_rest"], opening["kind"], opening["status"] = orders["size"], LIMIT, RESTED
        opening["mid2"] = self._start.mid2
        day = np.concatenate([opening, kept])
        _dense_ids(day, fills)
        touch = _replayed_touch(day)
        touch[: len(opening)] = touch[len(opening) - 1]
        stamp_touch(day, touch)
        return RecordedFlow(day, len(opening), touch, fills, None, np.full(len(day), -1, np.int64), meta)


def _useful(records: np.ndarray) -> np.ndarray:
    """Records (n,) that changed the book or traded, as LIMIT, CANCEL and PRINT; a copy."""
    idle = np.isin(records["status"], (NOOP, REJECTED)) | ((records["status"] == DROPPED) & (records["filled"] == 0))
    kept = records[~idle].copy()
    spilled = (kept["kind"] == CANCEL) & (kept["order_id"] < 0)
    if spilled.any():
        raise ValueError(f"{int(spilled.sum())} cancels removed several orders; record a flow whose cancels name one")
    takers = kept["kind"] == MARKET
    dropped = kept["status"] == DROPPED
    rested = np.where(kept["kind"] == LIMIT, np.minimum(kept["size"] - kept["filled"], kept["max_rest"]), 0)
    kept["size"][dropped] = (kept["filled"] + rested)[dropped]
    kept["status"][dropped] = np.where(rested[dropped] > 0, RESTED, FILLED)
    limits = kept["kind"] != CANCEL
    kept["max_rest"][limits] = rested[limits]
    kept["kind"][takers] = LIMIT
    return kept


def _limit_prices(kept: np.ndarray, fills: np.ndarray) -> None:
    """Gives former market orders, which have no limit, the worst price that they paid."""
    takers = np.flatnonzero((kept["filled"] > 0) & (kept["kind"] == LIMIT))
    last_fill = np.searchsorted(np.cumsum(fills["size"]), np.cumsum(kept["filled"][takers]))
    worst = fills["price"][last_fill]
    unlimited = (kept["max_rest"][takers] == 0) & (kept["order_id"][takers] < 0)
    kept["price"][takers[unlimited]] = worst[unlimited]


def _dense_ids(day: np.ndarray, fills: np.ndarray) -> None:
    """Numbers orders by first appearance and writes what remains after a cancel to its ``max_rest``; in place.

    The market may give the id of a taker that never rested to the next order, so ids are followed in time.
    """
    alive: dict[int, int] = {}  # market id -> dense id
    left: list[int] = []
    f = 0
    for record in day:
        taken = int(record["filled"]) if record["kind"] == LIMIT else 0
        if record["kind"] == LIMIT:
            dense = len(left)
            left.append(int(record["size"]) - taken)
        while taken > 0:
            fill = fills[f]
            f += 1
            taken -= int(fill["size"])
            maker = alive[int(fill["maker_id"])]
            left[maker] -= int(fill["size"])
            fill["maker_id"], fill["taker_id"] = maker, dense
        if record["kind"] == LIMIT:
            if left[dense] > 0:
                alive[int(record["order_id"])] = dense
            record["order_id"] = dense
        elif record["kind"] == CANCEL:
            dense = alive[int(record["order_id"])]
            left[dense] -= int(record["size"])
            record["order_id"], record["max_rest"] = dense, left[dense]


def _replayed_touch(day: np.ndarray) -> np.ndarray:
    """Bid price, bid size, ask price, ask size after each record (n, 4) int32, from executing the day."""
    rested = int((day["max_rest"][day["kind"] == LIMIT] > 0).sum())
    market = MarketSimulator(1, MarketConfig(orders=max(1, rested), flow_ids=max(1, len(day)), flow_queue=1))
    block = EventBlock.empty(1, 1)
    block.count[0] = 1
    touch = np.zeros((len(day), 4), np.int32)
    never = np.array([2**62])
    for i, record in enumerate(day):
        event = block.events[0, 0]
        for field in ("time_ns", "order_id", "price", "size", "max_rest", "kind", "side"):
            event[field] = record[field]
        market.feed(block)
        market.advance(until_count=never)
        prices, sizes = market.depth(1)
        touch[i] = prices[0, 0, 0], sizes[0, 0, 0], prices[0, 1, 0], sizes[0, 1, 0]
    return touch
