"""What every background flow offers, and the start states that it offers it from."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tradefm_gym.arguments import row_numbers
from tradefm_gym.data.archive import pack, read_archive, unpack, write_archive
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.market.events import BACKGROUND, ORDER, RECORD, EventBlock
from tradefm_gym.market.layout import BACKGROUND_LIVE
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, StartStates

SPLITS = ("train", "validation", "test")

# What is usual in a start state's market. All figures come from the training part alone, so that
# normalising with them shows an agent nothing of the episode that it is in.
SCALE = np.dtype(
    [
        ("lots_per_event", np.float64),  # lots executed per background event
        ("median_size", np.float64),  # of an order, lots
        ("spread", np.float64),  # median, ticks
        ("touch_size", np.float64),  # median of the lots at a best price
        ("volatility", np.float64),  # standard deviation of the mid's change, ticks per event
        ("event_ns", np.float64),  # mean time between events
        ("tick_bps", np.float64),  # one tick in basis points of the price
    ]
)


class StartState(NamedTuple):
    """One market at rest, from which episodes may start."""

    orders: np.ndarray  # (o,) ORDER, background orders in time priority; links are not read
    records: np.ndarray  # (r,) RECORD, the end of the tape, oldest first
    clock_ns: int
    mid2: int  # doubled book mid, 0 while unknown
    next_id: int  # the first background id that is not in use
    scale: np.ndarray  # () SCALE
    feature_state: np.ndarray | None = None  # () of the flow's own dtype

    @classmethod
    def capture(
        cls,
        market: MarketSimulator,
        row: int,
        scale: np.ndarray,
        tail: int = 1024,
        feature_state: np.ndarray | None = None,
    ) -> "StartState":
        """The present state of a market row, its last ``tail`` records included. Agents' orders are left behind."""
        pool = market.book.orders[row]
        orders = pool[(pool["size"] > 0) & (pool["owner"] == BACKGROUND)]
        # Background ids rise with arrival, so this is time priority.
        orders = orders[np.lexsort((orders["order_id"], orders["time_ns"]))]
        records = market.tape.read_records(row, max(0, int(market.tape.record_count[row]) - tail))
        next_id = int(market.next_flow_id[row])
        return cls(orders, records, int(market.clock_ns[row]), int(market.mid2[row]), next_id, scale, feature_state)


@dataclass(frozen=True, eq=False)
class ContextBank:
    """Start states of many contexts in flat arrays, divided by id into train, validation and test.

    Attributes:
        orders: (sum o,) ORDER; context i owns ``orders[order_start[i]:order_start[i + 1]]``.
        order_start: (n + 1,) int64.
        records: (sum r,) RECORD, the ends of the tapes.
        record_start: (n + 1,) int64.
        clock_ns: (n,) int64.
        mid2: (n,) int64, doubled ticks.
        next_id: (n,) int64.
        scale: (n,) SCALE.
        split_code: (n,) uint8, an index into ``SPLITS``.
        feature_state: (n,) of the flow's own dtype, or None.
        origin: where the states come from; shown in ``info`` and part of the version.
    """

    orders: np.ndarray
    order_start: np.ndarray
    records: np.ndarray
    record_start: np.ndarray
    clock_ns: np.ndarray
    mid2: np.ndarray
    next_id: np.ndarray
    scale: np.ndarray
    split_code: np.ndarray
    feature_state: np.ndarray | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        for name, dtype in (("orders", ORDER), ("records", RECORD), ("scale", SCALE), ("split_code", np.uint8)):
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"{name} of a context bank has dtype {getattr(self, name).dtype}; it must be {dtype}")
        n = len(self.clock_ns)
        if n == 0:
            raise ValueError("a context bank holds 0 start states; it must hold at least one")
        for name in ("mid2", "next_id", "scale", "split_code"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} of a context bank has {len(getattr(self, name))} rows; it must have {n}")
        if self.feature_state is not None and len(self.feature_state) != n:
            raise ValueError(f"feature_state of a context bank has {len(self.feature_state)} rows; it must have {n}")
        _check_offsets("order_start", self.order_start, n, len(self.orders))
        _check_offsets("record_start", self.record_start, n, len(self.records))
        if len(self.orders) and self.orders["size"].min() < 1:
            raise ValueError(f"orders of a context bank hold size {self.orders['size'].min()}; sizes must be positive")
        if len(self.orders) and (self.orders["order_id"] >= np.repeat(self.next_id, np.diff(self.order_start))).any():
            raise ValueError("orders of a context bank hold an id at or above next_id; ids must lie below it")
        if self.split_code.max() >= len(SPLITS):
            raise ValueError(f"split_code of a context bank holds {self.split_code.max()}; allowed are 0, 1 and 2")

    def __len__(self) -> int:
        return len(self.clock_ns)

    @cached_property
    def states(self) -> StartStates:
        """The same for markets, which share the arrays."""
        scalars = np.stack([self.clock_ns, self.mid2, self.next_id], axis=1).astype(np.int64)
        return StartStates(self.orders, self.order_start, self.records, self.record_start, scalars)

    @classmethod
    def from_states(cls, states: list[StartState], split_code: np.ndarray, origin: str = "") -> "ContextBank":
        """Collects start states; ``split_code`` (n,) says which part each belongs to."""
        features = [state.feature_state for state in states]
        return cls(
            orders=np.concatenate([np.zeros(0, ORDER), *(state.orders for state in states)]),
            order_start=np.cumsum([0, *(len(state.orders) for state in states)], dtype=np.int64),
            records=np.concatenate([np.zeros(0, RECORD), *(state.records for state in states)]),
            record_start=np.cumsum([0, *(len(state.records) for state in states)], dtype=np.int64),
            clock_ns=np.array([state.clock_ns for state in states], np.int64),
            mid2=np.array([state.mid2 for state in states], np.int64),
            next_id=np.array([state.next_id for state in states], np.int64),
            scale=np.array([state.scale for state in states], SCALE),
            split_code=np.asarray(split_code, np.uint8),
            feature_state=np.array(features) if features and features[0] is not None else None,
            origin=origin,
        )

    def split(self, name: str) -> np.ndarray:
        """Ids of the contexts in one part (k,) int64, ascending."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is not known; allowed are {', '.join(SPLITS)}")
        return np.flatnonzero(self.split_code == SPLITS.index(name))

    def state(self, context: int) -> StartState:
        """One start state; its arrays are views."""
        return StartState(
            self.orders[self.order_start[context] : self.order_start[context + 1]],
            self.records[self.record_start[context] : self.record_start[context + 1]],
            int(self.clock_ns[context]),
            int(self.mid2[context]),
            int(self.next_id[context]),
            self.scale[context],
            None if self.feature_state is None else self.feature_state[context],
        )

    def load_into(self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray) -> None:
        """Puts start state ``contexts[i]`` into market row ``rows[i]``, which is reset first.

        Args:
            market: the markets to write to.
            rows: (k,) integers, all different.
            contexts: (k,) integers, ids of this bank.
        """
        rows, contexts = np.asarray(rows, np.int64), np.asarray(contexts, np.int64)
        if rows.shape != contexts.shape or rows.ndim != 1:
            raise ValueError(f"contexts has shape {contexts.shape}; it must be that of rows, {rows.shape}")
        foreign = (contexts < 0) | (contexts >= len(self))
        if foreign.any():
            raise ValueError(f"context {contexts[foreign][0]} does not exist; allowed are 0 to {len(self) - 1}")
        rising = len(rows) == 0 or (0 <= rows[0] and rows[-1] < market.num_markets and (rows[1:] > rows[:-1]).all())
        market.load_states(rows if rising else row_numbers(rows, market.num_markets), self.states, contexts)

    def digest(self) -> str:
        """Twelve hexadecimal digits that name the content."""
        total = hashlib.sha256(self.origin.encode())
        for array in (self.order_start, self.record_start, self.clock_ns, self.mid2, self.next_id, self.split_code):
            total.update(np.ascontiguousarray(array).tobytes())
        # Field by field: the padding of an aligned dtype is not content.
        for array in (self.orders, self.records, self.scale):
            for field in array.dtype.names or ():
                if field not in ("next", "prev"):
                    total.update(np.ascontiguousarray(array[field]).tobytes())
        if self.feature_state is not None:
            _update(total, self.feature_state)
        return total.hexdigest()[:12]

    def save(self, path: str | Path) -> None:
        """Writes the bank to a compressed ``.npz``; an existing file is replaced only when all is written."""
        orders = self.orders.copy()
        orders["next"], orders["prev"] = 0, 0
        columns = pack("orders", orders) | pack("records", self.records) | pack("scale", self.scale)
        for name in ("order_start", "record_start", "clock_ns", "mid2", "next_id", "split_code"):
            columns[name] = getattr(self, name)
        if self.feature_state is not None:
            columns["feature_state"] = self.feature_state
        write_archive(path, columns, {"kind": "context bank", "format": 1, "origin": self.origin})

    @classmethod
    def load(cls, path: str | Path) -> "ContextBank":
        """Reads a bank and checks it.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file holds no sound bank.
        """
        columns, description = read_archive(path, "context bank")
        plain = {}
        for name in ("order_start", "record_start", "clock_ns", "mid2", "next_id", "split_code"):
            if name not in columns:
                raise ValueError(f"path {str(path)!r} lacks the column {name!r} of a context bank")
            plain[name] = columns[name]
        return cls(
            orders=unpack(columns, "orders", ORDER),
            records=unpack(columns, "records", RECORD),
            scale=unpack(columns, "scale", SCALE),
            feature_state=columns.get("feature_state"),
            origin=str(description.get("origin", "")),
            **plain,
        )


class FlowModel(Protocol):
    """Background order flow for N markets: proposes events, never touches a book.

    A flow keeps its own state for each row (a cursor, a clock, a cache) and draws only from
    ``rng.bits(seed, episode, index of the row's background proposals, purpose)``, so that a row's
    proposals do not depend on its neighbours.
    """

    name: str
    version: str  # changes whenever the proposals would
    num_envs: int
    block: int  # the most events that one call proposes for a row
    bank: ContextBank

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities of a market that can hold this flow and ``seats`` agents."""
        ...

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states into the rows (N,) bool and starts their proposals anew.

        Args:
            market: N markets; those rows of it are overwritten.
            rows: (N,) bool.
            contexts: (N,) int64, ids of ``bank``; read where ``rows``.
            seeds: (N,) uint64.
            episodes: (N,) uint32.
        """
        ...

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """Events that may happen next in the rows ``wanted`` (N,) bool; the others get none."""
        ...

    # Only copies of a session need what follows: a flow without it runs, but its sessions cannot be forked.

    def for_markets(self, num_envs: int) -> "FlowModel":
        """Another flow of the same settings and version, for ``num_envs`` markets."""
        ...

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What the flow remembers of some markets, as a value; it goes with a snapshot of those markets.

        Args:
            rows: (k,) integers, which may repeat; None for all.
        """
        ...

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into ``rows`` (k,), default all, whose proposals then go on bit for bit.

        Raises:
            ValueError: if it is of a flow of another name or version, or of another number of markets; nothing has
                changed then.
        """
        ...


def background_orders(market: MarketSimulator) -> np.ndarray:
    """Resting background orders of each market (N,) int64, a view."""
    return market.book.row[:, BACKGROUND_LIVE]


def _update(total: "hashlib._Hash", values: np.ndarray) -> None:
    """Takes the fields of an array in, nested ones as well, and their names."""
    for field in values.dtype.names or ():
        total.update(field.encode())
        _update(total, values[field])
    if values.dtype.names is None:
        total.update(np.ascontiguousarray(values).tobytes())


def _check_offsets(name: str, offsets: np.ndarray, n: int, total: int) -> None:
    if len(offsets) != n + 1 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name} of a context bank must rise from 0 to {total} in {n + 1} steps")
