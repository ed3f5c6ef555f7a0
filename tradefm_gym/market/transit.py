"""What is under way in N markets: orders that have not arrived, and news that a seat has not seen.

A seat whose market data are late has a *view*: a second market that lags behind. The true market notes each event
that it carries out in a log, and the view carries out the same events when their news arrive. So it is the true
market's past in all that can be read of a market: book, queues, accounts, tape.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tradefm_gym.arguments import numbers, shortened
from tradefm_gym.market import delays
from tradefm_gym.market.book import Room
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.delays import EPISODE, SEED
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.latency import table
from tradefm_gym.market.layout import AGENT_END, AGENT_HEAD, FLOW_WAITING, LOG_BASE, LOG_END

if TYPE_CHECKING:
    from tradefm_gym.market.copies import MarketCopies
    from tradefm_gym.market.simulator import MarketSimulator


class Transit:
    """Latencies of one simulator: the names of its draws, what was sent, and the views with what they have seen.

    Attributes:
        names: (N, 2) uint64, seed and episode.
        order_delays: (A, .) float64, how long orders take, see ``latency.table``.
        data_delays: (A, .) float64, how long news take.
        delays_orders: whether any seat's orders take time.
        sent: (N, A) int64, orders sent so far; no columns where no order takes time.
        arrived: (N, A) int64, ns, when the last of them arrives.
        make_market: the class of the market and its views.
        views: a market for each seat whose news take time.
        seen: (N, V) int64, events that each view has carried out.
        shown: (N, V) int64, ns, when the last of them came to be seen.
    """

    def __init__(self, num_markets: int, config: MarketConfig, make_market: type["MarketSimulator"]):
        self.make_market = make_market
        self.names = np.zeros((num_markets, 2), np.uint64)
        self.order_delays, self.data_delays = table(config.order_latencies), table(config.data_latencies)
        self.delays_orders = any(config.order_latencies)
        self.sent = np.zeros((num_markets, config.seats if self.delays_orders else 0), np.int64)
        self.arrived = np.zeros_like(self.sent)
        self.views = {seat: make_market(num_markets, config.of_views) for seat in config.late_seats}
        self.seen = np.zeros((num_markets, len(self.views)), np.int64)
        self.shown = np.zeros_like(self.seen)

    def arrays(self) -> dict[str, np.ndarray]:
        """What belongs to the state of the rows besides the views, by name."""
        return {name: getattr(self, name) for name in ("names", "sent", "arrived", "seen", "shown")}

    def seed(self, rows: np.ndarray | slice, seeds: Any, episodes: Any) -> None:
        """Names the draws of rows; None keeps a name."""
        for column, name, given, bits in ((SEED, "seeds", seeds, 64), (EPISODE, "episodes", episodes, 32)):
            if given is None:
                continue
            if isinstance(given, np.ndarray) and given.dtype == f"u{bits // 8}" and given.shape == (len(self.names),):
                self.names[:, column][rows] = given[rows]  # nothing can be wrong with them
                continue
            values = numbers(given, "iu")
            if values is None or values.shape not in ((), (len(self.names),)) or values.min() < 0:
                wanted = f"{len(self.names)} non-negative integers"
                raise ValueError(f"{name} is {shortened(given)}; allowed are {wanted}.")
            if int(values.max()) >= 2**bits:
                raise ValueError(f"{name} reach {values.max()}; allowed is less than 2^{bits}.")
            self.names[rows, column] = np.broadcast_to(values, (len(self.names),))[rows]

    def restart(self, rows: np.ndarray) -> None:
        """Nothing is under way in rows that begin anew."""
        if self.delays_orders:
            self.sent[rows], self.arrived[rows] = 0, 0
        if self.views:
            self.seen[rows], self.shown[rows] = 0, 0

    # --- Orders -----------------------------------------------------------------------------------------

    def stamp(self, clocks: np.ndarray, orders: EventBlock) -> tuple[EventBlock, Callable[[], None]]:
        """The orders at their times of arrival, and what makes this count once they are in the queue."""
        late, sent, arrived = EventBlock(orders.events.copy(), orders.count), self.sent.copy(), self.arrived.copy()
        delays.stamp(clocks, self.names, self.order_delays, sent, arrived, *late)

        def settle() -> None:
            self.sent[:], self.arrived[:] = sent, arrived

        return late, settle

    # --- News -------------------------------------------------------------------------------------------

    def reserve(self, market: "MarketCopies", events: np.ndarray | int) -> None:
        """Sees to it that the log has room for so many (N,) more events."""
        wanted = int((market.book.row[:, LOG_END] + events).max())
        if wanted <= market.book.log.shape[1]:
            return
        self.refresh(market)
        delays.forget_seen(market.book.log, market.book.row, self.seen.min(axis=1))
        wanted = int((market.book.row[:, LOG_END] + events).max())
        if 2 * wanted > market.book.log.shape[1]:  # or most calls would have to move what is left
            market._widen(Room(0, 0, 0, max(2 * wanted, 2 * market.book.log.shape[1])))

    def reserve_waiting(self, market: "MarketCopies") -> None:
        """The same for all that waits in the queues."""
        clocks = market._clocks
        self.reserve(market, clocks[:, FLOW_WAITING] + clocks[:, AGENT_END] - clocks[:, AGENT_HEAD])

    def refresh(self, market: "MarketCopies") -> None:
        """Shows each view what its seat hears of by the market's clocks."""
        first, last = np.empty(market.num_markets, np.int64), np.empty(market.num_markets, np.int32)
        log, row = market.book.log, market.book.row
        for v, (seat, view) in enumerate(self.views.items()):
            news = log, row, market._clocks, self.names, self.data_delays
            delays.find_due(*news, seat, v, self.seen, self.shown, first, last)
            view._carry_out(EventBlock(log, last), first)

    def unseen(self, market: "MarketCopies", seat: int) -> EventBlock:
        """The seat's own events that were carried out and that its view does not show."""
        if seat not in self.views:
            return EventBlock.empty(market.num_markets, 0)
        self.refresh(market)
        first = self.seen[:, list(self.views).index(seat)] - market.book.row[:, LOG_BASE]
        return events_of(market.book.log, first, market.book.row[:, LOG_END], seat)


def events_of(queue: np.ndarray, first: np.ndarray, end: np.ndarray, owner: int) -> EventBlock:
    """An owner's events among places ``first`` to ``end`` of each row of a queue (N, Q) EVENT, in their order."""
    places = np.arange(queue.shape[1])
    chosen = (places >= first[:, None]) & (places < end[:, None]) & (queue["owner"] == owner)
    count = chosen.sum(axis=1)
    block = EventBlock.empty(len(queue), int(count.max(initial=0)))
    block.count[:] = count
    block.events[np.arange(block.events.shape[1]) < count[:, None]] = queue[chosen]
    return block
