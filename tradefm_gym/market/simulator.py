"""MarketSimulator: N books with their clocks, queues, accounts and tapes. It decides what happens.

Flow models propose events (:meth:`~MarketSimulator.feed`), agents send orders
(:meth:`~MarketSimulator.submit`), :meth:`~MarketSimulator.advance` merges both by time and carries them
out one after another. A row is *starved* when it cannot go on without the next background event.

Who comes first where times are equal: agents' orders precede background events; among agents the seats come in an
order that is drawn for each instant anew, all orders being equally likely; orders of one seat stay as they were sent,
and background events as they were fed. Times of agents' orders are times of arrival.

Latency (``order_latency`` and ``data_latency`` of the config) is drawn from the counter-based stream, by the row's seed
and episode (:meth:`~MarketSimulator.seed`), the seat, and the number of its order or of the event. A seat with an order
latency states when it sends; one session is one channel, in which no order overtakes an earlier one. A seat with a data
latency sees :meth:`~MarketSimulator.view`, the market's past.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym.arguments import numbers, rows_mask, shortened, whole
from tradefm_gym.market import book as books
from tradefm_gym.market import kernels, refusals, views
from tradefm_gym.market import ledger as ledgers
from tradefm_gym.market.book import ANY_AGENT, NOBODY, BookState, Room
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    EVENT,
    LAST_ANCHOR,
    LAST_KIND,
    NO_LIMIT,
    ORDER,
    RECORD,
    EventBlock,
)
from tradefm_gym.market.layout import (
    AGENT_END,
    AGENT_HEAD,
    CLOCK,
    COUNT,
    EXECUTED,
    FILLS,
    FLOW_WAITING,
    HALTED,
    LAST_PRICE,
    MID2,
    NEXT_ID,
    OUTSIDE_MID2,
    RECORDS,
)
from tradefm_gym.market.state import MarketState, Snapshot, Tape
from tradefm_gym.market.transit import Transit, events_of

__all__ = ["MarketConfig", "MarketSimulator", "MarketState", "Snapshot", "Tape"]

_NEVER = np.iinfo(np.int64).max
_FEW = 128  # below this many markets a loop stays in the calling thread


class MarketSimulator:
    """N exchanges side by side; one is the case N = 1.

    Row m touches row m only, so its path depends neither on N nor on the number of threads.

    Attributes:
        num_markets: N.
        config: capacities and rules.
        book: BookState of all rows; another one after its arrays had to be widened, so it is not to be kept.
        accounts: (N, A + 1) ACCOUNT, the last column is the background.
        tape: Tape of all rows.
        clock_ns: (N,) int64, time of the last event or ``until_ns``, whichever is later.
        background_count: (N,) int64, background events processed, prints apart.
        mid2: (N,) int64, last known doubled mid of the book; 0 while unknown.
        outside_mid2: (N,) int64, the same without any agent's orders.
        last_price: (N,) int64, ticks, of the last execution or print; 0 before the first.
        executed: (N,) int64, lots executed in the book.
        halted: (N,) int64, 1 while trading is halted.
        counters: (N, len(COUNTERS)) int64, see ``layout.COUNTERS``.
    """

    def __init__(self, num_markets: int, config: MarketConfig | None = None):
        self.num_markets = num_markets = whole("num_markets", num_markets, 1)
        if config is not None and not isinstance(config, MarketConfig):
            raise ValueError(f"config is {shortened(config)}; it must be a MarketConfig or None")
        self.config = config = config if config is not None else MarketConfig()
        self.book: BookState
        self._book_memory, self.book = books.allocate(num_markets, config)
        self._ledger_memory, self._ledger = ledgers.allocate(num_markets, config)
        self.accounts, clocks = self._ledger.accounts, self._ledger.clocks
        self._flow_queue = np.zeros((num_markets, config.flow_queue), EVENT)
        self._agent_queue = np.zeros((num_markets, config.agent_queue * max(1, config.seats)), EVENT)
        self._transit = Transit(num_markets, config, MarketSimulator)
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

    # --- Start ------------------------------------------------------------------------------------------

    def seed(self, seeds: Any = None, episodes: Any = None, mask: np.ndarray | None = None) -> None:
        """Names the draws of rows (latencies, turns of seats); at first 0 and 0. To be called before an episode.

        Args:
            seeds: (N,) or one integer, read as uint64; None keeps them.
            episodes: (N,) or one integer, read as uint32; None keeps them.
            mask: (N,) bool, which rows; None for all.
        """
        self._transit.seed(slice(None) if mask is None else self._mask(mask), seeds, episodes)

    def reset(self, mask: np.ndarray | None = None, seeds: Any = None, episodes: Any = None) -> None:
        """Empties rows: book, accounts, tape, queues, clocks and counters.

        Args:
            mask: (N,) bool, which rows; None for all.
            seeds: as :meth:`seed` reads them.
            episodes: as :meth:`seed` reads them.
        """
        rows = np.arange(self.num_markets) if mask is None else np.flatnonzero(self._mask(mask))
        self._transit.seed(rows, seeds, episodes)
        kernels.clear(self._book_memory, self._ledger_memory, rows)
        self._transit.restart(rows)
        for view in self._transit.views.values():
            view.reset(mask)

    def load(
        self, m: int, orders: np.ndarray, records: np.ndarray, clock_ns: int, mid2: int = 0, next_flow_id: int = 0
    ) -> None:
        """Gives row m a start state; see :class:`MarketState` for the arguments."""
        self.load_rows([m], [MarketState(orders, records, clock_ns, mid2, next_flow_id)])

    def load_rows(self, rows: Sequence[int] | np.ndarray, states: Sequence[MarketState]) -> None:
        """Resets ``rows`` and gives each its start state. Nothing changes if one of the states is refused.

        The rows keep their seeds and episodes, see :meth:`seed`.
        """
        rows = self._rows(rows)
        if len(states) != len(rows):
            raise ValueError(f"states has {len(states)} entries for {len(rows)} rows; allowed is one each.")
        if len(rows) == 0:
            return
        orders = np.concatenate([np.asarray(state.orders, ORDER) for state in states])
        # The ring holds no more than the tail.
        records = np.concatenate([np.asarray(state.records, RECORD)[-self.config.tape :] for state in states])
        order_ends = np.cumsum([len(state.orders) for state in states])
        record_ends = np.cumsum([min(len(state.records), self.config.tape) for state in states])
        scalars = np.array([(state.clock_ns, state.mid2, state.next_flow_id) for state in states], np.int64)
        refusals.check_orders(orders, order_ends, self.config)
        most = int(np.diff(order_ends, prepend=0).max())
        self._widen(Room(most, 0, 0))
        load = kernels.load if len(rows) < _FEW else kernels.load_parallel
        ends = np.empty(len(rows), np.int64)
        while True:
            load(self._book_memory, self._ledger_memory, rows, orders, order_ends, records, record_ends, scalars, ends)
            if not (ends == kernels.CRAMPED).any():
                break
            self._widen()
        self._transit.restart(rows)
        for view in self._transit.views.values():
            view.load_rows(rows, states)

    # --- Events -----------------------------------------------------------------------------------------

    def submit(self, orders: EventBlock) -> None:
        """Queues agents' orders: ``owner`` is the seat, ``time_ns`` the time of arrival.

        For a seat with an order latency ``time_ns`` is the time of sending, a time before the clock counts as now, and
        its orders arrive in the order in which they were submitted. Ties are decided as the module says. Order ids are
        local to the seat, 0 <= id < ``agent_ids``; the id of a live order is refused when the order arrives.

        Raises:
            ValueError: if an order could never be carried out, or the queue has no room; nothing is queued then.
        """
        refusals.check_block("orders", orders, self.num_markets)
        config, queue, transit = self.config, self._agent_queue, self._transit
        settle = None
        if transit.delays_orders:
            orders, settle = transit.stamp(self._clocks, orders)
        refusal = kernels.submit(queue, self._clocks, transit.names, config.seats, config.agent_ids, *orders)
        refusals.check_queued("orders", orders, refusal, config)
        if settle is not None:
            settle()

    def feed(self, block: EventBlock) -> None:
        """Appends background events to the rows' queues, in the order in which they are to happen.

        ``owner`` is BACKGROUND; a time before the clock counts as now. A LIMIT with a negative id gets the
        next free one. What a model generates may have a size, price, side or id that no market takes: that is no
        error here, the tape says REJECTED when it arrives, and ``counters`` count it.

        Raises:
            ValueError: if an owner, kind or anchor is wrong, or the queue has no room; nothing is queued then.
        """
        refusals.check_block("block", block, self.num_markets)
        refusal = kernels.feed(self._flow_queue, self._clocks, block.events, block.count)
        refusals.check_queued("block", block, refusal, self.config)

    def advance(
        self,
        until_count: np.ndarray | None = None,
        until_ns: np.ndarray | None = None,
        until_volume: np.ndarray | None = None,
    ) -> np.ndarray:
        """Carries out events up to the first of the given ends; agents' orders that are due always go first.

        An agents' order due by the clock is carried out even when the end is reached already, and one due by
        the time of the next background event precedes it.

        Args:
            until_count: (N,) int64, ends when ``background_count`` is reached.
            until_ns: (N,) int64, ends before the first event after that time; the clock is then set to it.
            until_volume: (N,) int64, ends when ``executed`` is reached.

        Returns:
            starved: (N,) bool, rows that need background events to go on.
        """
        ends = (
            self._end("until_count", until_count),
            self._end("until_ns", until_ns),
            self._end("until_volume", until_volume),
        )
        views = self._transit.views
        if views:
            self._transit.reserve_waiting(self)
        how = np.empty(self.num_markets, np.int64)
        advance = kernels.advance if self.num_markets < _FEW else kernels.advance_parallel
        while True:
            advance(self._book_memory, self._ledger_memory, self._flow_queue, self._agent_queue, *ends, how)
            if not (how == kernels.CRAMPED).any():
                break
            self._widen()
        if views:
            self._transit.refresh(self)
        return how == kernels.STARVED

    def execute(self, block: EventBlock, strict: bool = False) -> None:
        """Carries out events one after another where they lie, past all queues: the fast way for given messages.

        Anyone's events may stand in one block; they happen in its order, at their own time or at the clock's if
        that is later. Events waiting in the queues stay there.

        Args:
            block: events of the background and of seats, (N, K) EVENT.
            strict: an order that rests nowhere because ``orders`` rest already is an error, not only counted.

        Raises:
            ValueError: for an unknown owner, kind or anchor, and under ``strict``. All before that event was done.
        """
        refusals.check_block("block", block, self.num_markets)
        refusals.check_counts("block", block)
        if self._transit.views:
            self._transit.reserve(self, block.count.astype(np.int64))
        self._carry_out(block, np.zeros(self.num_markets, np.int64), strict)
        if self._transit.views:
            self._transit.refresh(self)

    def _carry_out(self, block: EventBlock, done: np.ndarray, strict: bool = False) -> None:
        """Events of each row from number ``done`` (N,) int64 on."""
        how = np.empty(self.num_markets, np.int64)
        execute = kernels.execute if self.num_markets < _FEW else kernels.execute_parallel
        while True:
            execute(self._book_memory, self._ledger_memory, block.events, block.count, strict, done, how)
            refusals.check_executed(block, done, how, self.config)
            if not (how == kernels.CRAMPED).any():
                return
            self._widen()

    def send(
        self, kind: int, side: int, price: int, size: int, order_id: int = BACKGROUND, owner: int = BACKGROUND,
        time_ns: int = 0, max_rest: int = int(NO_LIMIT), anchor: int = ABSOLUTE, row: int = 0,
    ) -> int:  # fmt: skip
        """Carries out one message at once, past all queues; returns its status (see ``events``).

        Args:
            kind: LIMIT, MARKET, ...; the other fields are those of EVENT.
            side: BUY or SELL.
            price: ticks, or as ``anchor`` says.
            size: lots.
            order_id: of the owner's own; a negative one lets the market name an order of the background.
            owner: a seat, or BACKGROUND.
            time_ns: time of the event; one before the clock counts as now.
            max_rest: lots that may rest.
            anchor: ABSOLUTE, TOUCH, OPPOSITE or MID.
            row: which market.
        """
        config = self.config
        readable = 0 <= kind <= LAST_KIND and 0 <= anchor <= LAST_ANCHOR
        if not (readable and 0 <= row < self.num_markets and BACKGROUND <= owner < config.seats):
            refusals.check_message(row, self.num_markets, kind, owner, anchor, config)
        if self._transit.views:
            self._transit.reserve(self, 1)
        while True:
            status: Any = kernels.send(
                self._book_memory, self._ledger_memory, row, kind, side, price, size, order_id, owner, time_ns,
                max_rest, anchor,
            )  # fmt: skip
            if status >= 0:
                return status
            self._widen()

    # --- Readings ---------------------------------------------------------------------------------------

    def touch(self) -> tuple[np.ndarray, np.ndarray]:
        """Best bid and ask, two (N,) int64 in ticks; 0 for an empty side."""
        return self._touch(NOBODY)

    def touch_excluding(self, owner: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The touch without a seat's resting orders, or without any agent's (None)."""
        return self._touch(self._seat(owner))

    def mid2_excluding(self, owner: int | None) -> np.ndarray:
        """Doubled mid without a seat's resting orders: (N,) int64 ticks, 0 while unknown.

        With a side empty but for them it is the last mid that the background alone had.
        """
        bid, ask = self.touch_excluding(owner)
        return np.where((bid > 0) & (ask > 0), bid + ask, self.outside_mid2)

    def depth(self, levels: int, excluding: int | None = BACKGROUND) -> tuple[np.ndarray, np.ndarray]:
        """Prices (ticks) and sizes (lots) of the best levels, two (N, 2, levels) int64, bids first.

        Args:
            levels: how many; missing ones are 0.
            excluding: a seat whose orders are left out, None for all agents; the default leaves out nobody's.
        """
        levels = whole("levels", levels, 1)
        without = NOBODY if excluding == BACKGROUND else self._seat(excluding)
        prices = np.empty((self.num_markets, 2, levels), np.int64)
        sizes = np.empty_like(prices)
        read = views.read_depth if self.num_markets < _FEW else views.read_depth_parallel
        read(self._book_memory, without, prices, sizes)
        return prices, sizes

    def orders_of(self, owner: int, order_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Price, remaining lots and lots ahead in the queue of an owner's orders.

        Args:
            owner: a seat, or BACKGROUND.
            order_ids: (N,) or (N, k) integers.

        Returns:
            Three int64 arrays of the same shape; for an order that is not live 0, 0 and -1.
        """
        ids = np.asarray(order_ids, np.int64)
        if ids.shape[:1] != (self.num_markets,) or ids.ndim > 2:
            raise ValueError(
                f"order_ids has shape {ids.shape}; allowed is ({self.num_markets},) or with a second axis."
            )
        if owner != BACKGROUND:
            self._seat(owner)
        flat = np.ascontiguousarray(ids.reshape(self.num_markets, -1))
        prices, sizes, ahead = np.empty_like(flat), np.empty_like(flat), np.empty_like(flat)
        read = views.read_orders if self.num_markets < _FEW else views.read_orders_parallel
        read(self._book_memory, owner, flat, prices, sizes, ahead)
        return prices.reshape(ids.shape), sizes.reshape(ids.shape), ahead.reshape(ids.shape)

    def queue_ahead(self, owner: int, order_id: np.ndarray) -> np.ndarray:
        """Lots ahead of an owner's order, shaped as ``order_id`` (N,) or (N, k); -1 if it is not live."""
        return self.orders_of(owner, order_id)[2]

    def in_flight(self, owner: int) -> EventBlock:
        """Orders that a seat has sent and that have not arrived, (N, K) EVENT by time of arrival (``time_ns``)."""
        clocks = self._clocks
        return events_of(self._agent_queue, clocks[:, AGENT_HEAD], clocks[:, AGENT_END], self._seat(owner))

    def view(self, owner: int) -> "MarketSimulator":
        """The market as a seat sees it by now: this one, or with a data latency its past.

        Every reading of a view is the true market's after the last event that the seat has heard of, and its clock
        says when that happened. News come in order: one that would overtake another waits for it. ``advance`` and
        ``execute`` keep a view up to date, and this method does after ``send``. Nothing is to be sent to it.
        """
        seat = self._seat(owner)
        if seat not in self._transit.views:
            return self
        self._transit.refresh(self)
        return self._transit.views[seat]

    def unseen(self, owner: int) -> EventBlock:
        """Orders of a seat that have arrived and whose outcome its view does not show, (N, K) EVENT as they came.

        Together with :meth:`in_flight` these are all orders of which the seat cannot know what became of them.
        """
        return self._transit.unseen(self, self._seat(owner))

    def waiting(self) -> tuple[np.ndarray, np.ndarray]:
        """Background and agents' events not yet carried out, two (N,) int64."""
        return self._clocks[:, FLOW_WAITING].copy(), self._clocks[:, AGENT_END] - self._clocks[:, AGENT_HEAD]

    # --- Copies -----------------------------------------------------------------------------------------

    def snapshot(self, rows: Sequence[int] | np.ndarray | None = None) -> Snapshot:
        """Copies the whole state of rows (default all)."""
        rows = self._rows(rows)
        return Snapshot(self.config, {name: array[rows] for name, array in self._arrays().items()})

    def restore(self, snapshot: Snapshot, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Writes a snapshot into rows (default all); they go on bit for bit as its rows would have."""
        rows = self._rows(rows)
        if snapshot.config != self.config:
            raise ValueError("snapshot was taken from a market of another MarketConfig; allowed is an equal one.")
        stored = len(snapshot.arrays["clocks"])
        if stored != len(rows):
            raise ValueError(f"snapshot holds {stored} rows for {len(rows)}; allowed is one each.")
        kept = snapshot.arrays
        views = self._transit.views
        for prefix, market in (("", self), *((f"view_{seat}_", view) for seat, view in views.items())):
            orders, *others = (kept[f"{prefix}{name}"].shape[1] for name in ("orders", "page_bits", "node_bits", "log"))
            market._widen(Room(orders - 1, *others))
        for name, array in self._arrays().items():
            width = kept[name].shape[1]
            array[rows, :width] = kept[name]
            array[rows, width:] = np.zeros((), array.dtype)
        for market in (self, *views.values()):
            market.book.near[rows] = 0
            books.enter_all(market.book, rows)

    def _arrays(self) -> dict[str, np.ndarray]:
        """All that a row is, but for what follows from the rest: configuration, tables of ids, remembered pages."""
        arrays = {**self.book._asdict(), **self._ledger._asdict()}
        for name in ("rules", "limits", "slots", "spilled", "near"):
            del arrays[name]
        queues = {"flow_queue": self._flow_queue, "agent_queue": self._agent_queue}
        return {**arrays, **queues, **self._transit.arrays()}

    def _widen(self, room: Room | None = None) -> None:
        """Gives the books more room: what is short is doubled, or at least ``room`` is had."""
        self._book_memory, self.book = books.widen(self._book_memory, self.book, self.config, room)

    # --- Checks -----------------------------------------------------------------------------------------

    def _touch(self, without: int) -> tuple[np.ndarray, np.ndarray]:
        out = np.empty((self.num_markets, 2), np.int64)
        read = views.read_touch if self.num_markets < _FEW else views.read_touch_parallel
        read(self._book_memory, without, out)
        return out[:, 0], out[:, 1]

    def _seat(self, owner: int | None) -> int:
        if owner is None:
            return ANY_AGENT
        if isinstance(owner, bool) or not isinstance(owner, (int, np.integer)) or not 0 <= owner < self.config.seats:
            raise ValueError(f"owner is {shortened(owner)}; allowed is a seat, 0 to {self.config.seats - 1}.")
        return int(owner)

    def _rows(self, rows: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if rows is None:
            return np.arange(self.num_markets)
        array = numbers(rows)
        if array is None or (array.size and array.dtype.kind == "f"):  # an empty list becomes floats
            raise ValueError(f"rows is {shortened(rows)}; allowed are integers from 0 to {self.num_markets - 1}.")
        rows = array.astype(np.int64).reshape(-1)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_markets):
            raise ValueError(f"rows reach from {rows.min()} to {rows.max()}; allowed is 0 to {self.num_markets - 1}.")
        if len(np.unique(rows)) != len(rows):
            raise ValueError("rows names a market twice; allowed is once.")
        return rows

    def _mask(self, mask: np.ndarray) -> np.ndarray:
        return rows_mask("mask", np.asarray(mask), self.num_markets)

    def _end(self, name: str, end: np.ndarray | None) -> np.ndarray:
        if end is None:
            return self._never
        if isinstance(end, np.ndarray) and end.dtype == np.int64 and end.shape == (self.num_markets,):
            return np.ascontiguousarray(end)
        array = numbers(end, "iu")
        if array is None or array.shape not in ((), (self.num_markets,)):
            raise ValueError(f"{name} is {shortened(end)}; allowed are {self.num_markets} integers.")
        return np.ascontiguousarray(np.broadcast_to(array, (self.num_markets,)), np.int64)
