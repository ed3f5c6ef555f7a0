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
from numba.core.errors import NumbaError

from tradefm_gym.arguments import numbers, shortened
from tradefm_gym.market import kernels, loading, refusals
from tradefm_gym.market.book import Room
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    NO_LIMIT,
    EventBlock,
)
from tradefm_gym.market.layout import FLOW_WAITING
from tradefm_gym.market.readings import FEW, MarketReadings
from tradefm_gym.market.snapshot import Snapshot
from tradefm_gym.market.state import MarketState, StartStates, Tape
from tradefm_gym.market.transit import Transit

__all__ = ["MarketConfig", "MarketSimulator", "MarketState", "Snapshot", "StartStates", "Tape"]

_MANY_EVENTS = 4096  # that wait in all markets together
_FEW_LOADED = 16  # below so many start states the calling thread loads them alone: each is a hundred kilobytes


class MarketSimulator(MarketReadings):
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
        super().__init__(num_markets, config)
        self._sound: tuple[StartStates, np.ndarray] | None = None  # start states, and which were looked at
        self._transit = Transit(self.num_markets, self.config, MarketSimulator)

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
        loading.clear(self._book_memory, self._ledger_memory, rows)
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
        if len(rows) > 0:
            self.load_states(rows, StartStates.of(states), np.arange(len(rows)))

    def load_states(self, rows: np.ndarray, states: StartStates, which: np.ndarray) -> None:
        """As :meth:`load_rows`, of start states that lie in flat arrays.

        Args:
            rows: (k,) int64, all different.
            states: they are looked at when they are first loaded, and not to be changed afterwards.
            which: (k,) int64, the number of each row's.
        """
        if self._sound is None or self._sound[0] is not states:
            self._sound = states, np.zeros(len(states.scalars), np.bool_)
        sound = self._sound[1][which]
        if not sound.all():
            new = np.unique(which[~sound])
            refusals.check_orders(states, new, self.config)
            self._sound[1][new] = True
            self._widen(Room(int(np.diff(states.order_start)[new].max()), 0, 0))
        load = loading.load if len(rows) < _FEW_LOADED else loading.load_parallel
        ends = np.empty(len(rows), np.int64)
        while True:
            load(self._book_memory, self._ledger_memory, rows, which, *states, ends)
            if not ends.any():  # all have ENDED
                break
            self._widen()
        self._transit.restart(rows)
        for view in self._transit.views.values():
            view.load_states(rows, states, which)

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
        advance = kernels.advance_parallel if self._much_waits() else kernels.advance
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
        execute = kernels.execute if self.num_markets < FEW else kernels.execute_parallel
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
        if self._transit.views:
            self._transit.reserve(self, 1)
        while True:
            try:
                status: Any = kernels.send(
                    self._book_memory, self._ledger_memory, row, kind, side, price, size, order_id, owner, time_ns,
                    max_rest, anchor,
                )  # fmt: skip
            except (TypeError, OverflowError, NumbaError):  # something that is no number, or too large for one
                status = kernels.OUTSIDE
            if status >= 0:
                return status
            if status == kernels.OUTSIDE:
                refusals.refuse_message(
                    self.num_markets, self.config, kind=kind, side=side, price=price, size=size, order_id=order_id,
                    owner=owner, time_ns=time_ns, max_rest=max_rest, anchor=anchor, row=row,
                )  # fmt: skip
            self._widen()

    def _much_waits(self) -> bool:
        """Whether what waits is worth the threads: many markets, or many events in some."""
        if FEW > self.num_markets >= _FEW_LOADED:
            return int(self._clocks[:, FLOW_WAITING].sum()) >= _MANY_EVENTS
        return self.num_markets >= FEW

    # --- Checks -----------------------------------------------------------------------------------------

    def _end(self, name: str, end: np.ndarray | None) -> np.ndarray:
        if end is None:
            return self._never
        if isinstance(end, np.ndarray) and end.dtype == np.int64 and end.shape == (self.num_markets,):
            return np.ascontiguousarray(end)
        array = numbers(end, "iu")
        if array is None or array.shape not in ((), (self.num_markets,)):
            raise ValueError(f"{name} is {shortened(end)}; allowed are {self.num_markets} integers.")
        return np.ascontiguousarray(np.broadcast_to(array, (self.num_markets,)), np.int64)
