"""Zero intelligence: orders arrive at random, resting orders leave at random, nobody looks at anything.

Limit and market orders come as Poisson streams, every resting order is cancelled at a constant rate
(Smith, Farmer, Gillemot and Krishnamurthy 2003, with prices set from the opposite best as in
Mike and Farmer 2008). All draws and tables are integers, so a path is the same on every machine.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numba import njit, prange

from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
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
OPENING_NS = 34_200_000_000_000  # 09:30
_BANK_SEED = 0x5EED_B00C
_BANK_EPISODE = 2**32 - 1  # no environment counts that far: the bank's draws are its own
_CONTEXTS = (64, 16, 16)  # train, validation, test
_BURN_IN = 4096
_TAPE_TAIL = 1024

_OFFSET_BITS = 12
_SIZE_BITS = 10
_TIME_BITS = 12
_FIXED = 20  # fractional bits of the unit exponential
_MICRO = 1_000_000  # rates in events per million seconds


def _power_law(levels: int, shift: float, exponent: float) -> tuple[float, ...]:
    return tuple(round((level + shift) ** -exponent, 9) for level in range(levels))


def _lognormal(median: float, sigma: float, quantiles: int = 64) -> tuple[int, ...]:
    normal = NormalDist(np.log(median), sigma)
    return tuple(max(1, round(float(np.exp(normal.inv_cdf((i + 0.5) / quantiles))))) for i in range(quantiles))


@dataclass(frozen=True)
class ZeroIntelligenceParameters:
    """Rates and marks; the defaults resemble a liquid NASDAQ stock of 100 dollars and a few cents of spread."""

    limit_rate: float = 6.0  # limit orders per second, both sides together
    market_rate: float = 0.6  # market orders per second, both sides together
    cancel_rate: float = 0.02  # per resting order and second
    offsets: tuple[float, ...] = _power_law(64, 2.0, 1.3)  # weights of resting 1, 2, ... ticks from the opposite best
    limit_sizes: tuple[int, ...] = _lognormal(100, 0.8)  # equally likely sizes, lots
    market_sizes: tuple[int, ...] = _lognormal(120, 0.9)  # equally likely sizes, lots
    mid: int = 10_000  # price at which the seed book stands, ticks

    def __post_init__(self) -> None:
        # Within these bounds no product of the kernel leaves 63 bits.
        for name, low, high in (("limit_rate", 0.01, 1000), ("market_rate", 1e-6, 1000), ("cancel_rate", 1e-6, 1)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must lie between {low} and {high} per second")
        if self.limit_rate <= self.market_rate:
            raise ValueError(f"limit_rate is {self.limit_rate}; it must exceed market_rate, {self.market_rate}")
        for name in ("offsets", "limit_sizes", "market_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a JSON list is welcome
        if not self.offsets or min(self.offsets) < 0 or not 0 < sum(self.offsets) < np.inf:
            raise ValueError("offsets must be non-negative weights of which at least one is positive")
        for name in ("limit_sizes", "market_sizes"):
            sizes = getattr(self, name)
            if not 0 < len(sizes) <= 1 << _SIZE_BITS or min(sizes) < 1 or max(sizes) > 1 << 24:
                raise ValueError(f"{name} must hold 1 to {1 << _SIZE_BITS} sizes from 1 to {1 << 24} lots")
        if not len(self.offsets) < self.mid < 1 << 30:
            raise ValueError(f"mid is {self.mid}; it must lie between {len(self.offsets)} (offsets) and {1 << 30} ticks")

    @property
    def resting_orders(self) -> int:
        """Resting orders at which arrivals and departures roughly balance."""
        return max(2, round((self.limit_rate - self.market_rate) / self.cancel_rate))

    def version(self) -> str:
        """Twelve hexadecimal digits that name these parameters."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


class ZeroIntelligenceFlow:
    """Zero intelligence for N markets, in blocks of 64 events.

    The rate of cancels follows the background orders that rest when a block is made, carried through the
    block by its own adds and cancels.

    Args:
        num_envs: markets N.
        parameters: rates and marks.
        bank: start states; by default 96 states after 4,096 events of this very flow from a symmetric book.
    """

    name = "zero_intelligence"
    block = BLOCK

    def __init__(
        self,
        num_envs: int,
        parameters: ZeroIntelligenceParameters | None = None,
        bank: ContextBank | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
        self.num_envs = num_envs
        self.parameters = parameters or ZeroIntelligenceParameters()
        self.bank = _burnt_in_bank(self.parameters) if bank is None else bank
        self.version = f"{self.parameters.version()}-{self.bank.digest()}"
        self._tables = _tables(self.parameters)
        self._seeds = np.zeros(num_envs, np.uint64)
        self._episodes = np.zeros(num_envs, np.uint32)
        self._proposals = np.zeros(num_envs, np.int64)  # background proposals made since the reset
        self._clock_ns = np.zeros(num_envs, np.int64)  # time of the last one
        self._next_id = np.zeros(num_envs, np.int64)

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities with ample room for the resting orders at which this flow settles."""
        orders = 1 << max(11, (4 * self.parameters.resting_orders + 1024).bit_length())
        return MarketConfig(seats=seats, orders=orders, levels=4096)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows and starts their Poisson clocks anew (see ``FlowModel.reset``)."""
        chosen = np.flatnonzero(rows)
        contexts = np.asarray(contexts)[chosen]
        self.bank.load_into(market, chosen, contexts)
        self._seeds[chosen] = np.asarray(seeds)[chosen]
        self._episodes[chosen] = np.asarray(episodes)[chosen]
        self._proposals[chosen] = 0
        self._clock_ns[chosen] = self.bank.clock_ns[contexts]
        self._next_id[chosen] = self.bank.next_id[contexts]

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next 64 events of the rows ``wanted`` (N,) bool."""
        block = EventBlock.empty(self.num_envs, BLOCK)
        _propose(
            block.events,
            block.count,
            wanted,
            market.background_orders,
            self._seeds,
            self._episodes,
            self._proposals,
            self._clock_ns,
            self._next_id,
            *self._tables,
        )
        return block


def _quantile_table(weights: np.ndarray, log2: int) -> np.ndarray:
    """Indices of ``weights`` (w,) so that a uniform choice among the 2^log2 entries follows the weights."""
    cumulative = np.cumsum(np.asarray(weights, np.float64))
    points = (np.arange(1 << log2) + 0.5) / (1 << log2) * cumulative[-1]
    return np.searchsorted(cumulative, points, side="right").astype(np.int32)


def _tables(parameters: ZeroIntelligenceParameters) -> tuple[np.ndarray, ...]:
    """Rates (3,) int64 and the lookup tables of offsets, sizes and waiting times, all integers."""
    rates = (parameters.limit_rate, parameters.market_rate, parameters.cancel_rate)
    offsets = _quantile_table(np.array(parameters.offsets), _OFFSET_BITS) + np.int32(1)
    sizes = np.zeros((2, 1 << _SIZE_BITS), np.int32)
    for kind, choices in enumerate((parameters.limit_sizes, parameters.market_sizes)):
        sizes[kind] = np.array(choices, np.int32)[_quantile_table(np.ones(len(choices)), _SIZE_BITS)]
    knots = -np.log1p(-np.arange(1 << _TIME_BITS) / (1 << _TIME_BITS))
    knots = np.append(knots, knots[-1] + 2.0)  # beyond the last knot the mean excess is 1: keep it
    waits = np.round(knots * (1 << _FIXED)).astype(np.int64)
    return np.round(np.array(rates) * _MICRO).astype(np.int64), offsets, sizes, waits


def _seed_bank(parameters: ZeroIntelligenceParameters) -> ContextBank:
    """One symmetric book around ``mid``: orders spread over the levels as the flow would spread them."""
    each_side = max(1, parameters.resting_orders // 2)
    offsets = _tables(parameters)[1]
    sizes = np.array(parameters.limit_sizes, np.int32)
    spread = offsets[(np.arange(each_side) * len(offsets) + len(offsets) // 2) // each_side]
    orders = np.zeros(2 * each_side, ORDER)
    orders["order_id"] = np.arange(2 * each_side)
    orders["owner"], orders["time_ns"] = BACKGROUND, OPENING_NS
    orders["side"] = np.tile([BUY, SELL], each_side)
    orders["price"] = parameters.mid - orders["side"] * np.repeat(spread, 2)
    # A stride that is coprime to the number of sizes mixes them over the levels.
    orders["size"] = np.repeat(sizes[(np.arange(each_side) * 37) % len(sizes)], 2)
    state = StartState(
        orders, np.zeros(0, RECORD), OPENING_NS, 2 * parameters.mid, len(orders), np.ones((), SCALE)
    )
    return ContextBank.from_states([state], np.zeros(1, np.uint8), "symmetric seed book")


@lru_cache(maxsize=8)
def _burnt_in_bank(parameters: ZeroIntelligenceParameters) -> ContextBank:
    """States of 96 markets after 4,096 events; the scale is measured on the training ones alone."""
    count = sum(_CONTEXTS)
    flow = ZeroIntelligenceFlow(count, parameters, _seed_bank(parameters))
    market = MarketSimulator(count, flow.market_config())
    everyone, zeros = np.ones(count, bool), np.zeros(count, np.int64)
    seeds = np.arange(count, dtype=np.uint64) + np.uint64(_BANK_SEED)
    flow.reset(market, everyone, zeros, seeds, np.full(count, _BANK_EPISODE, np.uint32))
    training = slice(0, _CONTEXTS[0])
    touches = []
    for target in range(BLOCK, _BURN_IN + 1, BLOCK):
        while (starved := market.advance(until_count=np.full(count, target))).any():
            market.feed(flow.next_events(market, starved))
        if target > _BURN_IN // 2:
            touches.append(_touch_of(market, training))
    tapes = [market.tape.last_records(row, _BURN_IN // 2) for row in range(count)]
    scale = _measure_scale(tapes[training], np.concatenate(touches, axis=1))
    states = [
        StartState(
            market.resting_orders(row),
            tapes[row][-_TAPE_TAIL:],
            int(market.clock_ns[row]),
            int(market.mid2[row]),
            int(flow._next_id[row]),
            scale,
        )
        for row in range(count)
    ]
    split_code = np.repeat(np.arange(3, dtype=np.uint8), _CONTEXTS)
    return ContextBank.from_states(states, split_code, f"zero intelligence {parameters.version()}, burnt in")


def _measure_scale(tapes: list[np.ndarray], touches: np.ndarray) -> np.ndarray:
    """SCALE () of tapes (RECORD arrays) and of spreads and touch sizes sampled beside them (3, s)."""
    scale = np.zeros((), SCALE)
    events = sum(len(tape) for tape in tapes)
    steps = np.concatenate([np.diff(tape["mid2"]) / 2 for tape in tapes])
    adds = np.concatenate([tape["size"][tape["kind"] == LIMIT] for tape in tapes])
    scale["lots_per_event"] = sum(int(tape["filled"].sum()) for tape in tapes) / events
    scale["median_size"] = np.median(adds)
    scale["spread"] = np.median(touches[0])
    scale["touch_size"] = np.median(touches[1:])
    scale["volatility"] = steps.std()
    scale["event_ns"] = np.mean([(tape["time_ns"][-1] - tape["time_ns"][0]) / (len(tape) - 1) for tape in tapes])
    scale["tick_bps"] = 1e4 / (np.mean([tape["mid2"].mean() for tape in tapes]) / 2)
    return scale


def _touch_of(market: MarketSimulator, rows: slice) -> np.ndarray:
    """Spread, bid size and ask size (3, r) of the rows that have both sides."""
    prices, sizes = market.depth(1)  # (N, 2, 1) each, bids first
    prices, sizes = prices[rows, :, 0], sizes[rows, :, 0]
    both = (sizes > 0).all(axis=1)
    return np.stack([prices[both, 1] - prices[both, 0], sizes[both, 0], sizes[both, 1]])


@njit(cache=True, nogil=True)
def _propose_row(
    events, live, seed, episode, first, clock_ns, next_id, rates, offsets, sizes, waits
):  # fmt: skip
    """Fills ``events`` (K,) EVENT; returns the time of the last one and the next free id."""
    for k in range(len(events)):
        kind_bits, mark_bits, size_bits, time_bits = bits(seed, episode, first + k, FLOW)
        event = events[k]
        resting_rate = rates[2] * live
        total = rates[0] + rates[1] + resting_rate
        index = np.int64(time_bits) >> (32 - _TIME_BITS)
        fraction = np.int64(time_bits) & ((1 << (32 - _TIME_BITS)) - 1)
        wait = waits[index] + ((waits[index + 1] - waits[index]) * fraction >> (32 - _TIME_BITS))
        clock_ns += wait * (np.int64(1_000_000_000) * _MICRO // total) >> _FIXED
        pick = (np.int64(kind_bits) >> 2) * total >> 30
        event["time_ns"] = clock_ns
        event["side"] = BUY if np.int64(kind_bits) & 1 else SELL
        if pick < resting_rate:
            event["kind"] = CANCEL
            event["order_id"] = CANCEL_RANDOM
            event["anchor"] = ABSOLUTE
            event["price"] = np.int64(mark_bits) >> 1
            live -= 1
        elif pick < resting_rate + rates[1]:
            event["kind"] = MARKET
            event["order_id"] = next_id
            event["size"] = sizes[1, np.int64(size_bits) >> (32 - _SIZE_BITS)]
            event["max_rest"] = 0
            next_id += 1
        else:
            event["kind"] = LIMIT
            event["order_id"] = next_id
            event["anchor"] = OPPOSITE
            event["price"] = offsets[np.int64(mark_bits) >> (32 - _OFFSET_BITS)]
            event["size"] = sizes[0, np.int64(size_bits) >> (32 - _SIZE_BITS)]
            event["max_rest"] = NO_LIMIT
            next_id += 1
            live += 1
    return clock_ns, next_id


@njit(cache=True, nogil=True, parallel=True)
def _propose(
    events, count, wanted, live, seeds, episodes, proposals, clock_ns, next_id, rates, offsets, sizes, waits
):  # fmt: skip
    for m in prange(len(wanted)):
        if wanted[m]:
            clock_ns[m], next_id[m] = _propose_row(
                events[m], live[m], seeds[m], episodes[m], proposals[m], clock_ns[m], next_id[m],
                rates, offsets, sizes, waits,
            )  # fmt: skip
            proposals[m] += events.shape[1]
            count[m] = events.shape[1]
