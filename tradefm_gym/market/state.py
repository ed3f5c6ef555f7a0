"""What a market hands out and takes in: its tape and start states (snapshots are in ``snapshot.py``)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tradefm_gym.market.events import ORDER, RECORD


class Tape(NamedTuple):
    """The history of N markets: rings and counts that only grow. Entry i of row m lies at ``i % R``.

    Readers keep a cursor; when a count has run more than the ring's length ahead of it, entries are lost.
    """

    records: np.ndarray  # (N, R) RECORD
    fills: np.ndarray  # (N, R') FILL
    record_count: np.ndarray  # (N,) int64
    fill_count: np.ndarray  # (N,) int64

    def read_records(self, m: int, start: int | None = None) -> np.ndarray:
        """Records of row m from number ``start`` (None: the oldest kept) on, (n,) RECORD; an overrun is an error."""
        return _read_ring(self.records[m], int(self.record_count[m]), start, "records")

    def read_fills(self, m: int, start: int | None = None) -> np.ndarray:
        """Fills of row m from number ``start`` (None: the oldest kept) on, (n,) FILL; an overrun is an error."""
        return _read_ring(self.fills[m], int(self.fill_count[m]), start, "fills")


class MarketState(NamedTuple):
    """A start state of one market: what rests, what was on the tape, and when it is."""

    orders: np.ndarray  # (n,) ORDER of the background in order of arrival; ids, times, prices, sizes, sides count
    records: np.ndarray  # (r,) RECORD, the tape so far
    clock_ns: int = 0
    mid2: int = 0  # doubled mid, used while a side is empty
    next_flow_id: int = 0  # at least one more than the largest id in ``orders``


class StartStates(NamedTuple):
    """Many start states in flat arrays; state i owns ``orders[order_start[i]:order_start[i + 1]]``."""

    orders: np.ndarray  # (sum n,) ORDER, as in ``MarketState``
    order_start: np.ndarray  # (k + 1,) int64
    records: np.ndarray  # (sum r,) RECORD
    record_start: np.ndarray  # (k + 1,) int64
    scalars: np.ndarray  # (k, 3) int64: ``clock_ns``, ``mid2`` and ``next_flow_id``

    @classmethod
    def of(cls, states: Sequence[MarketState]) -> "StartStates":
        """Collects start states."""
        orders = [np.asarray(state.orders, ORDER) for state in states]
        records = [np.asarray(state.records, RECORD) for state in states]
        return cls(
            np.concatenate(orders),
            np.cumsum([0, *map(len, orders)]),
            np.concatenate(records),
            np.cumsum([0, *map(len, records)]),
            np.array([(state.clock_ns, state.mid2, state.next_flow_id) for state in states], np.int64),
        )


def _read_ring(ring: np.ndarray, count: int, start: int | None, name: str) -> np.ndarray:
    oldest = max(0, count - len(ring))
    if start is None:
        start = oldest
    if not oldest <= start <= count:
        raise ValueError(f"start is {start}; the tape holds {name} {oldest} to {count}.")
    return ring[np.arange(start, count) % len(ring)]
