"""What can be read of N markets: their touch and depth, orders, and what is under way."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.market import views
from tradefm_gym.market.book import ANY_AGENT, NOBODY
from tradefm_gym.market.copies import MarketCopies
from tradefm_gym.market.events import BACKGROUND, EventBlock
from tradefm_gym.market.layout import AGENT_END, AGENT_HEAD, FLOW_WAITING
from tradefm_gym.market.transit import events_of

FEW = 128  # below this many markets a loop stays in the calling thread


class MarketReadings(MarketCopies):
    """Readings of N markets; none of them changes what happens. ``MarketSimulator`` is the class to use."""

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
        read = views.read_depth if self.num_markets < FEW else views.read_depth_parallel
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
        read = views.read_orders if self.num_markets < FEW else views.read_orders_parallel
        read(self._book_memory, owner, flat, prices, sizes, ahead)
        return prices.reshape(ids.shape), sizes.reshape(ids.shape), ahead.reshape(ids.shape)

    def queue_ahead(self, owner: int, order_id: np.ndarray) -> np.ndarray:
        """Lots ahead of an owner's order, shaped as ``order_id`` (N,) or (N, k); -1 if it is not live."""
        return self.orders_of(owner, order_id)[2]

    def in_flight(self, owner: int) -> EventBlock:
        """Orders that a seat has sent and that have not arrived, (N, K) EVENT by time of arrival (``time_ns``)."""
        clocks = self._clocks
        return events_of(self._agent_queue, clocks[:, AGENT_HEAD], clocks[:, AGENT_END], self._seat(owner))

    def view(self, owner: int) -> "MarketView":
        """The market as a seat sees it by now: this one, or with a data latency its past.

        Every reading of a view is the true market's after the last event that the seat has heard of, and its clock
        says when that happened. News come in order: one that would overtake another waits for it. ``advance`` and
        ``execute`` keep a view up to date, and this method does after ``send``. Nothing can be sent to it.
        """
        seat = self._seat(owner)
        if seat not in self._transit.views:
            return MarketView(self)
        self._transit.refresh(self)
        return MarketView(self._transit.views[seat])

    def unseen(self, owner: int) -> EventBlock:
        """Orders of a seat that have arrived and whose outcome its view does not show, (N, K) EVENT as they came.

        Together with :meth:`in_flight` these are all orders of which the seat cannot know what became of them.
        """
        return self._transit.unseen(self, self._seat(owner))

    def waiting(self) -> tuple[np.ndarray, np.ndarray]:
        """Background and agents' events not yet carried out, two (N,) int64."""
        return self._clocks[:, FLOW_WAITING].copy(), self._clocks[:, AGENT_END] - self._clocks[:, AGENT_HEAD]

    def _touch(self, without: int) -> tuple[np.ndarray, np.ndarray]:
        out = np.empty((self.num_markets, 2), np.int64)
        read = views.read_touch if self.num_markets < FEW else views.read_touch_parallel
        read(self._book_memory, without, out)
        return out[:, 0], out[:, 1]

    def _seat(self, owner: int | None) -> int:
        if owner is None:
            return ANY_AGENT
        if isinstance(owner, bool) or not isinstance(owner, (int, np.integer)) or not 0 <= owner < self.config.seats:
            raise ValueError(f"owner is {shortened(owner)}; allowed is a seat, 0 to {self.config.seats - 1}.")
        return int(owner)


def _refused(name: str) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise TypeError(f"{name} is not for a view, which can only be read; call it on the market itself")

    return refuse


class MarketView(MarketReadings):
    """A market that can only be read. What is read is the market's own: a view keeps no state."""

    def __init__(self, market: MarketReadings):
        self.__dict__ = market.__dict__  # arrays that are widened are other ones, for both

    def __reduce__(self):
        """A copy of a view is a market of its own."""
        return self._transit.make_market.from_snapshot, (self.snapshot(),)

    def fork(
        self,
        rows: int | Sequence[int] | np.ndarray,
        into: Sequence[int] | np.ndarray,
        market: MarketCopies | None = None,
    ) -> None:
        """As that of a market, into another one."""
        super().fork(rows, into, self if market is None else market)  # and restore refuses a view

    seed, reset, load, load_rows, load_states, widen, submit, feed, advance, execute, send, restore = map(
        _refused,
        (
            "seed",
            "reset",
            "load",
            "load_rows",
            "load_states",
            "widen",
            "submit",
            "feed",
            "advance",
            "execute",
            "send",
            "restore",
        ),
    )
