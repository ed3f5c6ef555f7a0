"""The arrays of N markets, and copies of their rows: to keep, to put back, to fork."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from tradefm_gym.arguments import numbers, row_numbers, rows_mask, shortened, whole
from tradefm_gym.market import book as books
from tradefm_gym.market import kernels, snapshot_kernels
from tradefm_gym.market import ledger as ledgers
from tradefm_gym.market.book import BookState, Room
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import EVENT
from tradefm_gym.market.layout import (
    CLOCK,
    COUNT,
    EXECUTED,
    FILLS,
    HALTED,
    HIGH_WATER,
    LAST_PRICE,
    LOG_END,
    MID2,
    NEXT_ID,
    OUTSIDE_MID2,
    RECORDS,
)
from tradefm_gym.market.memory import check_size, machine_bytes, size_of
from tradefm_gym.market.prices import NODES_A_PRICE
from tradefm_gym.market.snapshot import Snapshot, check_fits
from tradefm_gym.market.snapshot_parts import each_market, most_pages, prefix_of, put
from tradefm_gym.market.state import Tape
from tradefm_gym.market.transit import Transit

_AN_ORDER = 2048  # bytes of a book for each of its orders, if it has a page of prices for each
_NEVER = np.iinfo(np.int64).max


class MarketCopies:
    """What N markets are, and how they are copied. ``MarketSimulator`` is the class to use."""

    _transit: Transit  # made by the class to use, since views are of it

    def __init__(self, num_markets: int, config: MarketConfig | None = None):
        self.num_markets = num_markets = whole("num_markets", num_markets, 1)
        if config is not None and not isinstance(config, MarketConfig):
            raise ValueError(f"config is {shortened(config)}; it must be a MarketConfig or None")
        self.config = config = config if config is not None else MarketConfig()
        widths = config.flow_queue, config.agent_queue * max(1, config.seats)
        queues = [((num_markets, width), EVENT) for width in widths]
        size = size_of([*books.parts(num_markets, config), *ledgers.parts(num_markets, config), *queues])
        size *= 1 + len(config.late_seats)  # what a late seat sees is a market too
        check_size(f"num_markets is {num_markets}, and so many markets of this configuration take", size)
        self.book: BookState
        self._book_memory, self.book = books.allocate(num_markets, config)
        self._ledger_memory, self._ledger = ledgers.allocate(num_markets, config)
        self.accounts, clocks = self._ledger.accounts, self._ledger.clocks
        self._flow_queue, self._agent_queue = (np.zeros(shape, dtype) for shape, dtype in queues)
        self._never = np.full(num_markets, _NEVER)
        self.tape = Tape(self._ledger.records, self._ledger.fills, clocks[:, RECORDS], clocks[:, FILLS])
        self.counters = self._ledger.counters
        self.clock_ns = clocks[:, CLOCK]
        self.background_count = clocks[:, COUNT]
        self.mid2 = clocks[:, MID2]
        self.outside_mid2 = clocks[:, OUTSIDE_MID2]
        self.last_price = clocks[:, LAST_PRICE]
        self.executed = clocks[:, EXECUTED]
        self.halted = clocks[:, HALTED]
        self._clocks = clocks

    @property
    def next_flow_id(self) -> np.ndarray:
        """(N,) int64, one more than the largest background order id seen."""
        return self.book.row[:, NEXT_ID]

    # --- Copies -----------------------------------------------------------------------------------------

    def __reduce__(self):
        """``pickle`` and ``copy.deepcopy`` go through a snapshot: plain copies would part arrays from their memory."""
        return type(self).from_snapshot, (self.snapshot(),)

    def snapshot(self, rows: Sequence[int] | np.ndarray | None = None) -> Snapshot:
        """The whole state of rows (default all) as a value of its own; see :class:`Snapshot` for files and bytes."""
        return self._copy(self._rows(rows))

    def restore(self, snapshot: Snapshot, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Writes a snapshot into rows (default all); they go on bit for bit as its rows would have.

        Any k rows of a market of any N take a snapshot of k rows, if the configurations are equal.

        Raises:
            ValueError: if the snapshot does not fit, or not into this machine's memory; nothing has changed then.
        """
        rows = self._rows(rows)
        check_fits(snapshot, self.config, self._arrays(), rows)
        markets = {"": self, **{prefix_of(seat): view for seat, view in self._transit.views.items()}}
        kept = {prefix: arrays for prefix, _, arrays in each_market(self.config, snapshot.arrays)}
        for prefix, market in markets.items():  # before anything is written
            market._make_room(kept[prefix])
        for prefix, market in markets.items():
            market._put(kept[prefix], rows)

    def fork(
        self,
        rows: int | Sequence[int] | np.ndarray,
        into: Sequence[int] | np.ndarray,
        market: "MarketCopies | None" = None,
    ) -> None:
        """Copies rows onto other rows, which then go on bit for bit as their parents would.

        Args:
            rows: the parents, one for each of ``into``, or one for all; a parent may have several children.
            into: rows of ``market`` that are overwritten, each once. All parents are read before.
            market: where the children live, a market of an equal configuration; None for this one.

        Raises:
            ValueError: if rows do not exist or configurations differ; nothing has changed then.
        """
        market = self if market is None else market
        if not isinstance(market, MarketCopies):
            raise ValueError(f"market is {shortened(market)}; it must be a MarketSimulator or None")
        children, given = market._rows(into), numbers(rows)
        if given is None or (given.size and given.dtype.kind == "f") or given.shape not in ((), (1,), children.shape):
            raise ValueError(f"rows is {shortened(rows)}; allowed is one, or one for each of {len(children)}.")
        parents = np.ascontiguousarray(np.broadcast_to(given.astype(np.int64), children.shape))
        self._rows(np.unique(parents))
        market.restore(self._copy(parents), children)

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> Self:
        """A market with a row for each of the snapshot's.

        Raises:
            ValueError: if it has no rows, or this machine has not the memory that such a market takes.
        """
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"snapshot is {shortened(snapshot)}; it must be a Snapshot")
        market = cls(len(snapshot), snapshot.config)
        market.restore(snapshot)
        return market

    def _copy(self, rows: np.ndarray) -> Snapshot:
        if self._transit.views:
            self._transit.refresh(self)  # one that nobody has looked at since is in no other state
        return Snapshot.of(self.config, self._arrays(), rows)

    def _make_room(self, kept: Mapping[str, np.ndarray]) -> None:
        """Widens the arrays to what copied rows need, but for pages of prices: there will be memory for them."""
        row = kept["row"]
        most = int(row[:, HIGH_WATER].max(initial=1))
        room = Room(min(1 << (most - 1).bit_length(), self.config.orders), 0, 0, int(row[:, LOG_END].max(initial=0)))
        if self.num_markets * (most * _AN_ORDER + room.log * EVENT.itemsize) > machine_bytes():  # so look closer
            size = self._size(room, most_pages(kept["orders"], row[:, HIGH_WATER]))
            check_size(f"snapshot has a book of {most} orders, and {self.num_markets} with room for that take", size)
        self._widen(room)

    def _size(self, room: Room, pages: int) -> int:
        """Bytes of books with at least ``room`` and so many pages of prices."""
        room = room._replace(pages=pages, nodes=NODES_A_PRICE * pages)
        return size_of(books.parts(self.num_markets, self.config, room))

    def _put(self, kept: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Writes what ``check_fits`` has passed: first the orders, and what follows from them; then the rest."""
        ends, how = np.cumsum(kept["row"][:, HIGH_WATER]), np.empty(len(rows), np.int64)
        while True:
            snapshot_kernels.place(self._book_memory, rows, kept["orders"], ends, how)
            if not (how == kernels.CRAMPED).any():
                break
            self._widen()
        put(self.config, kept, self._own_arrays(), rows)

    def _own_arrays(self) -> dict[str, np.ndarray]:
        """All that a row is but configuration, tables of ids and remembered pages; ``snapshot_parts`` knows how."""
        arrays = {**self.book._asdict(), **self._ledger._asdict(), **self._transit.arrays()}
        for name in ("rules", "limits", "slots", "spilled", "near"):
            del arrays[name]
        return {**arrays, "flow_queue": self._flow_queue, "agent_queue": self._agent_queue}

    def _arrays(self) -> dict[str, np.ndarray]:
        """The same, with those of the views."""
        found = self._own_arrays()
        for seat, view in self._transit.views.items():
            found |= {prefix_of(seat) + name: array for name, array in view._own_arrays().items()}
        return found

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """What loops over markets in other rooms take: see ``market.rows.depart``. Widened books lie elsewhere."""
        return self._book_memory, self._ledger_memory, self._flow_queue, self._agent_queue, self._transit.names

    def widen(self) -> None:
        """Gives the books more room, after such a loop has found a row cramped."""
        self._widen()

    def _widen(self, room: Room | None = None) -> None:
        """Gives the books more room: what is short is doubled, or at least ``room`` is had."""
        self._book_memory, self.book = books.widen(self._book_memory, self.book, self.config, room)

    # --- Which rows -------------------------------------------------------------------------------------

    def _rows(self, rows: Sequence[int] | np.ndarray | None) -> np.ndarray:
        return row_numbers(rows, self.num_markets)

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        return rows_mask("mask", np.asarray(mask), self.num_markets)
