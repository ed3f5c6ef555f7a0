"""Markets of a flow with one agent in each, who acts between background events and is read afterwards.

Equal start states and seeds give equal random numbers by proposal index, so two runs differ by what the agent did.
"""

from dataclasses import replace

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import (
    CANCEL,
    DROPPED,
    LIMIT,
    MARKET,
    NO_LIMIT,
    NOOP,
    PRINT,
    REJECTED,
    EventBlock,
)
from tradefm_gym.market.ledger import MONEY
from tradefm_gym.market.simulator import MarketSimulator

_TAIL = 2048  # records of a start state that a flow may still want to read
_AGENT_IDS = 1 << 15
_PAUSE = 4  # background events between two attempts to close
_RECENT = 16  # records, more than an agent leaves after a background event


class AgentMarkets:
    """N markets of a flow, one agent in each, advanced by background events and without fees.

    Args:
        flow: for N markets.
        contexts: (N,) start states.
        seeds: (N,) uint64.
        events: background events that the run takes at most; what the tape has room for.

    Raises:
        ValueError: if there is not one start state and one seed for each market.

    Attributes:
        market: the simulator.
        count: background events since the start.
        median: (N,) float64 lots, median order size of each market.
        spread: (N,) float64 ticks, median spread of each market's asset.
    """

    def __init__(self, flow: FlowModel, contexts: np.ndarray, seeds: np.ndarray, events: int):
        n = flow.num_envs
        contexts, seeds = np.asarray(contexts, np.int64), np.asarray(seeds, np.uint64)
        for name, given in (("contexts", contexts), ("seeds", seeds)):
            if given.shape != (n,):
                raise ValueError(f"{name} has shape {given.shape}; it must be ({n},), one for each market of the flow")
        room = 1 << (2 * events + _TAIL).bit_length()
        config = replace(flow.market_config(1), tape=room, fills=2 * room, agent_ids=_AGENT_IDS)
        self.flow, self.market, self.count = flow, MarketSimulator(n, config), 0
        flow.reset(self.market, np.ones(n, bool), contexts, seeds, np.zeros(n, np.uint32))
        self.median = flow.bank.scale["median_size"][contexts].astype(np.float64)
        self.spread = flow.bank.scale["spread"][contexts].astype(np.float64)
        self._first = self.market.background_count.copy()
        self._records = self.market.tape.record_count.copy()
        self._sent = 0

    def run(self, events: int) -> None:
        """Lets ``events`` background events happen."""
        self.count += events
        until = self._first + self.count
        while (starved := self.market.advance(until_count=until)).any():
            block = self.flow.next_events(self.market, starved)
            if not block.count[starved].all():
                raise ValueError(f"flow {self.flow.name} ended before {self.count} events; it must go on")
            self.market.feed(block)

    def take(self, side: np.ndarray, lots: np.ndarray) -> None:
        """Market orders: (N,) sides, 0 for none, and (N,) lots; they execute at once."""
        self._send(MARKET, side, np.zeros(len(side)), lots, np.full(len(side), self._next_id()), 0)

    def rest(self, side: np.ndarray, price: np.ndarray, lots: np.ndarray) -> int:
        """Limit orders: (N,) sides, 0 for none, (N,) prices in ticks and (N,) lots; returns their id."""
        order_id = self._next_id()
        self._send(LIMIT, np.where(price > 0, side, 0), price, lots, np.full(len(side), order_id), int(NO_LIMIT))
        return order_id

    def cancel(self, order_id: np.ndarray, wanted: np.ndarray) -> None:
        """Cancels where ``wanted`` (N,) bool the orders of (N,) ids."""
        n = len(wanted)
        self._send(CANCEL, wanted.astype(np.int64), np.zeros(n), np.zeros(n), order_id, int(NO_LIMIT))

    def close(self, patience: int) -> None:
        """Sells or buys what the agents hold, at any price.

        Args:
            patience: background events for which they go on with what the book has not taken, every few of them.
        """
        last = self.count + patience
        while True:
            held = self.inventory
            self.take(-np.sign(held), np.abs(held))
            if self.count >= last or not self.inventory.any():
                return
            self.run(min(_PAUSE, last - self.count))

    @property
    def inventory(self) -> np.ndarray:
        """Lots that the agents hold (N,) int64."""
        return self.market.accounts["inventory"][:, 0].copy()

    @property
    def mid(self) -> np.ndarray:
        """Mid without the agents' orders (N,) float64 in ticks; with a side empty the last known one."""
        return 0.5 * self.market.mid2_excluding(None)

    @property
    def equity(self) -> np.ndarray:
        """Cash and holdings at that mid (N,) float64 in tick-lots."""
        return self.market.accounts["cash"][:, 0] / MONEY + self.inventory * self.mid

    @property
    def turnover(self) -> np.ndarray:
        """Lots that the agents have traded (N,) int64."""
        return self.market.accounts["volume"][:, 0].copy()

    def background(self, row: int) -> np.ndarray:
        """Background events of a market since the start, (count,) RECORD, those without effect included."""
        records = self.market.tape.read_records(row, int(self._records[row]))
        return records[(records["owner"] < 0) & (records["kind"] != PRINT)]

    def effective(self, row: int) -> np.ndarray:
        """Those of ``background`` that changed the book or traded, (k,) RECORD."""
        records = self.background(row)
        dropped = (records["status"] == DROPPED) & (records["filled"] == 0)
        return records[~(np.isin(records["status"], (NOOP, REJECTED)) | dropped)]

    def last_taker(self) -> np.ndarray:
        """Side (N,) int64 of the last background event where it took liquidity, else 0."""
        sides, end = np.zeros(self.market.num_markets, np.int64), self.market.tape.record_count
        for row in range(len(sides)):
            records = self.market.tape.read_records(row, max(int(end[row]) - _RECENT, int(self._records[row])))
            events = records[(records["owner"] < 0) & (records["kind"] != PRINT)]
            if len(events) and events[-1]["filled"] > 0 and events[-1]["kind"] != CANCEL:
                sides[row] = events[-1]["side"]
        return sides

    def _next_id(self) -> int:
        self._sent += 1
        return self._sent - 1

    def _send(self, kind: int, side, price, lots, order_id, max_rest: int) -> None:
        """One order in each market where the side is not 0 (a cancel: not 0 either), carried out at once."""
        n = self.market.num_markets
        block = EventBlock.empty(n, 1)
        orders = block.events[:, 0]
        orders["time_ns"], orders["owner"], orders["kind"] = self.market.clock_ns, 0, kind
        orders["order_id"], orders["price"], orders["max_rest"] = order_id, price, max_rest
        orders["side"] = np.where(side == 0, 1, side)
        orders["size"] = lots
        block.count[:] = (np.asarray(side) != 0) & ((kind == CANCEL) | (np.asarray(lots) > 0))
        self.market.submit(block)
        # The end is reached already: only agents' orders are due.
        self.market.advance(until_count=self._first + self.count)
