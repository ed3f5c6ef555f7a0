"""Zero intelligence: orders arrive at random, resting orders leave at random, nobody looks at anything.

Limit and market orders come as Poisson streams, every resting order is cancelled at a constant rate
(Smith, Farmer, Gillemot and Krishnamurthy 2003, with prices set from the opposite best as in
Mike and Farmer 2008). All draws and tables are integers, so a path is the same on every machine.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numba import njit, prange

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.flow.burn_in import CONTEXTS, OPENING_NS, burnt_in_bank
from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState, background_orders
from tradefm_gym.flow.row_state import RowState, put_into_flow
from tradefm_gym.flow.zero_intelligence_parameters import (
    FIXED,
    MICRO,
    OFFSET_BITS,
    SIZE_BITS,
    TIME_BITS,
    ZeroIntelligenceParameters,
    lookup_tables,
)
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    BUY,
    CANCEL,
    CANCEL_RANDOM,
    LIMIT,
    MARKET,
    NO_LIMIT,
    OPPOSITE,
    ORDER,
    RECORD,
    SELL,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.rng import FLOW, bits

BLOCK = 64
_MANY = 4096  # events of one call that are worth the threads
_OR_PATH = {ZeroIntelligenceParameters: ", a path", ContextBank: ""}


class ZeroIntelligenceFlow:
    """Zero intelligence for N markets, in blocks of 64 events.

    The rate of cancels follows the background orders that rest when a block is made, carried through the
    block by its own adds and cancels.

    Args:
        num_envs: markets N.
        parameters: rates and marks, or the path of a file of them, as ``tradefm-gym fit zero-intelligence`` writes.
        bank: start states; by default 96 states after 4,096 events of this very flow from a symmetric book.
        block: events proposed at a time.
    """

    name = "zero_intelligence"

    def __init__(
        self,
        num_envs: int,
        parameters: ZeroIntelligenceParameters | str | Path | None = None,
        bank: ContextBank | None = None,
        block: int = BLOCK,
    ) -> None:
        self.num_envs = whole("num_envs", num_envs, 1)
        self.block = whole("block", block, 1, 256)
        if isinstance(parameters, (str, Path)):
            parameters = ZeroIntelligenceParameters.load(parameters)
        for name, value, kind in (("parameters", parameters, ZeroIntelligenceParameters), ("bank", bank, ContextBank)):
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name} is {shortened(value)}; it must be a {kind.__name__}{_OR_PATH[kind]} or None")
        self.parameters = parameters or ZeroIntelligenceParameters()
        self.bank = _burnt_in_bank(self.parameters) if bank is None else bank
        self.version = f"{self.parameters.version()}-{self.bank.digest()}"
        self._tables = lookup_tables(self.parameters)
        self._seeds = np.zeros(num_envs, np.uint64)
        self._episodes = np.zeros(num_envs, np.uint32)
        self._proposals = np.zeros(num_envs, np.int64)  # background proposals made since the reset
        self._clock_ns = np.zeros(num_envs, np.int64)  # time of the last one
        self._block = EventBlock.empty(num_envs, self.block)

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities with ample room for the resting orders at which this flow settles."""
        orders = 1 << max(11, (4 * self.parameters.resting_orders + 1024).bit_length())
        return MarketConfig(seats=seats, orders=orders)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows and starts their Poisson clocks anew (see ``FlowModel.reset``)."""
        chosen = rows.nonzero()[0]
        contexts = np.asarray(contexts)[chosen]
        self.bank.load_into(market, chosen, contexts)
        self._seeds[chosen] = np.asarray(seeds)[chosen]
        self._episodes[chosen] = np.asarray(episodes)[chosen]
        self._proposals[chosen] = 0
        self._clock_ns[chosen] = self.bank.clock_ns[contexts]

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next events of the rows ``wanted`` (N,) bool, a block of them each; the next call writes to it anew."""
        block = self._block
        propose = _propose if self.num_envs * self.block < _MANY else _propose_parallel
        propose(
            block.events,
            block.count,
            wanted,
            background_orders(market),
            self._seeds,
            self._episodes,
            self._proposals,
            self._clock_ns,
            *self._tables,
        )
        return block

    def for_markets(self, num_envs: int) -> "ZeroIntelligenceFlow":
        """Another flow of the same settings (see ``FlowModel.for_markets``)."""
        return ZeroIntelligenceFlow(num_envs, self.parameters, self.bank, self.block)

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What is remembered of rows (see ``FlowModel.snapshot``)."""
        return RowState.of_flow(self, self._kept(), rows)

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into rows (see ``FlowModel.restore``)."""
        put_into_flow(state, self, self._kept(), rows)

    def _kept(self) -> dict[str, np.ndarray]:
        kept = {"seeds": self._seeds, "episodes": self._episodes}
        return kept | {"proposals": self._proposals, "clock_ns": self._clock_ns}


def _seed_bank(parameters: ZeroIntelligenceParameters) -> ContextBank:
    """One symmetric book around ``mid``: orders spread over the levels as the flow would spread them."""
    each_side = max(1, parameters.resting_orders // 2)
    offsets = lookup_tables(parameters)[1]
    sizes = np.array(parameters.limit_sizes, np.int32)
    spread = offsets[(np.arange(each_side) * len(offsets) + len(offsets) // 2) // each_side]
    orders = np.zeros(2 * each_side, ORDER)
    orders["order_id"] = np.arange(2 * each_side)
    orders["owner"], orders["time_ns"] = BACKGROUND, OPENING_NS
    orders["side"] = np.tile([BUY, SELL], each_side)
    orders["price"] = parameters.mid - orders["side"] * np.repeat(spread, 2)
    # A stride that is coprime to the number of sizes mixes them over the levels.
    orders["size"] = np.repeat(sizes[(np.arange(each_side) * 37) % len(sizes)], 2)
    state = StartState(orders, np.zeros(0, RECORD), OPENING_NS, 2 * parameters.mid, len(orders), np.ones((), SCALE))
    return ContextBank.from_states([state], np.zeros(1, np.uint8), "symmetric seed book")


@lru_cache(maxsize=8)
def _burnt_in_bank(parameters: ZeroIntelligenceParameters) -> ContextBank:
    """States of 96 markets that ran on this flow from a symmetric book."""
    flow = ZeroIntelligenceFlow(sum(CONTEXTS), parameters, _seed_bank(parameters))
    return burnt_in_bank(flow, f"zero intelligence {parameters.version()}, burnt in")


@njit(cache=True, nogil=True)
def _propose_row(
    events, live, seed, episode, first, clock_ns, rates, offsets, sizes, waits
):  # fmt: skip
    """Fills ``events`` (K,) EVENT; returns the time of the last one."""
    for k in range(len(events)):
        kind_bits, mark_bits, size_bits, time_bits = bits(seed, episode, first + k, FLOW)
        event = events[k]
        resting_rate = rates[2] * live
        total = rates[0] + rates[1] + resting_rate
        index = np.int64(time_bits) >> (32 - TIME_BITS)
        fraction = np.int64(time_bits) & ((1 << (32 - TIME_BITS)) - 1)
        wait = waits[index] + ((waits[index + 1] - waits[index]) * fraction >> (32 - TIME_BITS))
        clock_ns += wait * (np.int64(1_000_000_000) * MICRO // total) >> FIXED
        pick = (np.int64(kind_bits) >> 2) * total >> 30
        event["time_ns"] = clock_ns
        event["side"] = BUY if np.int64(kind_bits) & 1 else SELL
        if pick < resting_rate:
            event["kind"] = CANCEL
            event["order_id"] = CANCEL_RANDOM
            event["anchor"] = ABSOLUTE
            event["price"] = np.int64(mark_bits) >> 1
            event["size"], event["max_rest"] = 0, NO_LIMIT
            live -= 1
        elif pick < resting_rate + rates[1]:
            event["kind"] = MARKET
            event["order_id"], event["anchor"], event["price"] = -1, ABSOLUTE, 0  # the market numbers them
            event["size"] = sizes[1, np.int64(size_bits) >> (32 - SIZE_BITS)]
            event["max_rest"] = 0
        else:
            event["kind"] = LIMIT
            event["order_id"] = -1
            event["anchor"] = OPPOSITE
            event["price"] = offsets[np.int64(mark_bits) >> (32 - OFFSET_BITS)]
            event["size"] = sizes[0, np.int64(size_bits) >> (32 - SIZE_BITS)]
            event["max_rest"] = NO_LIMIT
            live += 1
    return clock_ns


@njit(cache=True, nogil=True)
def _propose_for(
    events, count, wanted, live, seeds, episodes, proposals, clock_ns, rates, offsets, sizes, waits, m,
):  # fmt: skip
    count[m] = 0
    if wanted[m]:
        clock_ns[m] = _propose_row(
            events[m], live[m], seeds[m], episodes[m], proposals[m], clock_ns[m], rates, offsets, sizes, waits,
        )  # fmt: skip
        proposals[m] += events.shape[1]
        count[m] = events.shape[1]


@njit(cache=True, nogil=True)
def _propose(
    events, count, wanted, live, seeds, episodes, proposals, clock_ns, rates, offsets, sizes, waits
):  # fmt: skip
    for m in range(len(wanted)):
        _propose_for(
            events, count, wanted, live, seeds, episodes, proposals, clock_ns, rates, offsets, sizes, waits, m,
        )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True)
def _propose_parallel(
    events, count, wanted, live, seeds, episodes, proposals, clock_ns, rates, offsets, sizes, waits
):  # fmt: skip
    for m in prange(len(wanted)):
        _propose_for(
            events, count, wanted, live, seeds, episodes, proposals, clock_ns, rates, offsets, sizes, waits, m,
        )  # fmt: skip
