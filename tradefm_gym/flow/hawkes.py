"""Compound Hawkes: twelve types of events that excite one another, with sizes and depths as they usually come.

The types are those of Jain, Firoozye, Kochems and Treleaven (arXiv 2312.08927). Times and types are a multivariate
Hawkes process (``hawkes_process``), simulated by thinning (Ogata 1981); what an event brings along is drawn from the
empirical joint distribution of its type. The flow never looks at a book: prices hang on the best prices that they
meet on arrival, and a cancel removes the order nearest to its depth and size, or any order.

The draws of proposal k are named by k: its candidates are the blocks 0, 1, 2, ... of purpose THINNING, each two
uniforms, one for the wait until the candidate and one that accepts it and tells its type; its mark is of purpose FLOW.
So a row depends on nothing but its seed, its episode and its start state. Exponential and logarithm are our own, so
it is the same on every machine.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.flow.burn_in import CONTEXTS, OPENING_NS, burnt_in_bank
from tradefm_gym.flow.hawkes_events import CANCEL_DEEP, CANCEL_TOUCH, EVENT_KIND, LIMIT_DEEP, MARKETABLE, TYPES
from tradefm_gym.flow.hawkes_parameters import BUNDLED, HawkesParameters
from tradefm_gym.flow.hawkes_process import usual_excitement
from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
from tradefm_gym.flow.row_state import RowState, put_into_flow
from tradefm_gym.flow.thinning import edges_in_ns, jumps_of, next_arrival
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    BUY,
    CANCEL_RANDOM,
    CANCEL_WHOLE,
    INSIDE,
    NO_LIMIT,
    OPPOSITE,
    ORDER,
    RECORD,
    SELL,
    TOUCH,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.rng import FLOW, bits

BLOCK = 64


class HawkesState(NamedTuple):
    """What the flow remembers of k markets: all that its proposals depend on besides its parameters."""

    seeds: np.ndarray  # (k,) uint64
    episodes: np.ndarray  # (k,) uint32
    proposals: np.ndarray  # (k,) int64, background proposals made since the reset
    clock_ns: np.ndarray  # (k,) int64, time of the last one
    excitement: np.ndarray  # (k, 12, D) float64, what past events add to the intensities, by decay, per second


class _Tables(NamedTuple):
    baseline: np.ndarray  # (12, B) per second
    edges_ns: np.ndarray  # (B - 1,) int64
    decays: np.ndarray  # (D,) per second
    jumps: np.ndarray  # (12, 12, D): what an event of type j adds to the intensity of type i is jumps[j, i]
    floor: np.ndarray  # (12,) per second
    marks: np.ndarray  # (12, m, 3) int32


class HawkesFlow:
    """Compound Hawkes flow for N markets, in blocks of 64 events.

    Args:
        num_envs: markets N.
        parameters: a HawkesParameters or the path of a file of them, as ``tradefm-gym fit hawkes`` writes; by default
            those fitted to the bundled synthetic day.
        bank: start states; by default 96 states after 4,096 events of this very flow from its usual book. Where they
            carry no memory of this flow's (see ``hawkes_starts``), it starts with its mean excitement.
        block: events proposed at a time; it changes the speed only.
    """

    name = "hawkes"

    def __init__(
        self,
        num_envs: int,
        parameters: HawkesParameters | str | Path | None = None,
        bank: ContextBank | None = None,
        block: int = BLOCK,
    ) -> None:
        self.num_envs = whole("num_envs", num_envs, 1)
        self.block = whole("block", block, 1, 256)
        if bank is not None and not isinstance(bank, ContextBank):
            raise ValueError(f"bank is {shortened(bank)}; it must be a ContextBank or None")
        self.parameters = _parameters(parameters)
        self.bank = _burnt_in_bank(self.parameters) if bank is None else bank
        self.version = f"{self.parameters.version()}-{self.bank.digest()}"
        self._tables = _lookup_tables(self.parameters)
        self._usual = usual_excitement(self.parameters.process)
        self._state = HawkesState(
            np.zeros(num_envs, np.uint64),
            np.zeros(num_envs, np.uint32),
            np.zeros(num_envs, np.int64),
            np.zeros(num_envs, np.int64),
            np.zeros((num_envs, *self._usual.shape)),
        )

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities with ample room for the orders of the usual book and of the start states."""
        parameters = self.parameters
        most = max(len(parameters.bids) + len(parameters.asks), int(np.diff(self.bank.order_start).max()))
        return MarketConfig(seats=seats, orders=1 << (4 * most + 8192).bit_length(), flow_queue=256)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows and goes on from the memory that they carry (see ``FlowModel.reset``)."""
        chosen = rows.nonzero()[0]
        contexts = np.asarray(contexts)[chosen]
        self.bank.load_into(market, chosen, contexts)
        state, memory = self._state, self.bank.feature_state
        state.seeds[chosen] = np.asarray(seeds)[chosen]
        state.episodes[chosen] = np.asarray(episodes)[chosen]
        state.proposals[chosen] = 0
        state.clock_ns[chosen] = self.bank.clock_ns[contexts]
        own = memory is not None and memory.dtype == memory_dtype(self.parameters)
        state.excitement[chosen] = memory["excitement"][contexts] if own and memory is not None else self._usual

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next events of the rows ``wanted`` (N,) bool, a block of them each."""
        block = EventBlock.empty(self.num_envs, self.block)
        _propose(block.events, block.count, wanted, *self._state, *self._tables)
        return block

    def for_markets(self, num_envs: int) -> "HawkesFlow":
        """Another flow of the same settings (see ``FlowModel.for_markets``)."""
        return HawkesFlow(num_envs, self.parameters, self.bank, self.block)

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What is remembered of rows, by the names of ``HawkesState`` (see ``FlowModel.snapshot``)."""
        return RowState.of_flow(self, self._state._asdict(), rows)

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into rows (see ``FlowModel.restore``)."""
        put_into_flow(state, self, self._state._asdict(), rows)

    def memory(self) -> np.ndarray:
        """What start states are to carry: (N,) of ``memory_dtype``."""
        out = np.zeros(self.num_envs, memory_dtype(self.parameters))
        out["excitement"] = self._state.excitement
        return out


def memory_dtype(parameters: HawkesParameters) -> np.dtype:
    """The dtype of a start state's ``feature_state``."""
    return np.dtype([("excitement", np.float64, (len(TYPES), len(parameters.process.decays)))])


def _parameters(given: HawkesParameters | str | Path | None) -> HawkesParameters:
    if isinstance(given, HawkesParameters):
        return given
    if given is None:
        return _loaded(BUNDLED, 0)
    if not isinstance(given, (str, Path)):
        raise ValueError(f"parameters is {shortened(given)}; it must be a HawkesParameters, a path or None")
    path = Path(given)
    return _loaded(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=8)
def _loaded(path: Path, _: int) -> HawkesParameters:
    return HawkesParameters.load(path)


def _lookup_tables(parameters: HawkesParameters) -> _Tables:
    process = parameters.process
    edges_ns, jumps = edges_in_ns(process), jumps_of(process)
    return _Tables(process.baseline, edges_ns, process.decays, jumps, process.floor, parameters.marks)


def seed_bank(parameters: HawkesParameters) -> ContextBank:
    """The usual book, as the one start state of a bank."""
    bids, asks = parameters.bids, parameters.asks
    orders = np.zeros(len(bids) + len(asks), ORDER)
    orders["side"] = np.repeat([BUY, SELL], [len(bids), len(asks)])
    orders["price"] = parameters.mid - orders["side"] * np.concatenate([bids, asks])[:, 0]
    orders["size"] = np.concatenate([bids, asks])[:, 1]
    orders["order_id"] = np.arange(len(orders))
    orders["owner"], orders["time_ns"] = BACKGROUND, OPENING_NS
    mid2 = 2 * parameters.mid + int(asks[:, 0].min()) - int(bids[:, 0].min())
    state = StartState(orders, np.zeros(0, RECORD), OPENING_NS, mid2, len(orders), np.ones((), SCALE))
    return ContextBank.from_states([state], np.zeros(1, np.uint8), "usual book")


@lru_cache(maxsize=8)
def _burnt_in_bank(parameters: HawkesParameters) -> ContextBank:
    """States of 96 markets that ran on this flow from its usual book, and what it remembers in each."""
    flow = HawkesFlow(sum(CONTEXTS), parameters, seed_bank(parameters))
    return burnt_in_bank(flow, f"hawkes {parameters.version()}, burnt in", flow.memory)


@njit(cache=True, nogil=True)
def _write(event, clock_ns, chosen, mark, word):
    """Fills an EVENT of a type from its mark; ``word`` is a random one of 32 bits."""
    kind = chosen // 2
    event["time_ns"] = clock_ns
    event["kind"] = EVENT_KIND[kind]
    event["anchor"] = OPPOSITE if kind == MARKETABLE or kind == LIMIT_DEEP else INSIDE if mark[0] > 0 else TOUCH
    event["side"] = BUY if chosen % 2 == 0 else SELL
    event["price"] = mark[0]
    event["size"] = mark[1]
    event["order_id"] = CANCEL_WHOLE if kind == CANCEL_TOUCH or kind == CANCEL_DEEP else -1
    event["max_rest"] = mark[2] if kind == MARKETABLE else NO_LIMIT
    if kind == CANCEL_DEEP and mark[0] == 0:
        event["order_id"] = CANCEL_RANDOM
        event["anchor"] = ABSOLUTE
        event["price"] = word >> 1
        event["size"] = 0


@njit(cache=True, nogil=True)
def _propose_row(
    events, seed, episode, first, clock_ns, excitement, baseline, edges_ns, decays, jumps, floor, marks
):  # fmt: skip
    """Fills ``events`` (K,) EVENT; returns the time of the last one."""
    kept = np.zeros(len(decays))
    for k in range(len(events)):
        index = first + k
        clock_ns, chosen = next_arrival(
            seed, episode, index, clock_ns, excitement, kept, baseline, edges_ns, decays, floor
        )  # fmt: skip
        excitement += jumps[chosen]
        first_word, second_word, _, _ = bits(seed, episode, index, FLOW)
        mark = marks[chosen, np.int64(first_word) * marks.shape[1] >> 32]
        _write(events[k], clock_ns, chosen, mark, np.int64(second_word))
    return clock_ns


@njit(cache=True, nogil=True, parallel=True)
def _propose(
    events, count, wanted, seeds, episodes, proposals, clock_ns, excitement,
    baseline, edges_ns, decays, jumps, floor, marks,
):  # fmt: skip
    for m in prange(len(wanted)):
        if wanted[m]:
            clock_ns[m] = _propose_row(
                events[m], seeds[m], episodes[m], proposals[m], clock_ns[m], excitement[m],
                baseline, edges_ns, decays, jumps, floor, marks,
            )  # fmt: skip
            proposals[m] += events.shape[1]
            count[m] = events.shape[1]
