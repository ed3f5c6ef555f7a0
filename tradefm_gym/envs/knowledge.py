"""What is known of a seat and its book in N markets: as it is, or as the seat sees it where its news are late."""

from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.envs.observation import LEVELS
from tradefm_gym.envs.seat import MAX_RESTING, RESTING


class Knowledge(NamedTuple):
    """State, own orders, and the book without them.

    Attributes:
        state: (N,) of the role's dtype, with ``seat.SEAT_FIELDS``.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks.
        sizes: (N, 2, LEVELS) int64 lots, 0 where there is no level.
    """

    state: np.ndarray
    resting: np.ndarray
    prices: np.ndarray
    sizes: np.ndarray

    @classmethod
    def fresh(cls, num_markets: int, dtype: np.dtype, spare: int, late: bool) -> "Knowledge":
        """Of markets in which nothing has begun.

        Args:
            num_markets: N.
            dtype: of the state.
            spare: new orders that are read before dead ones leave the list.
            late: whether orders take time, so that all that were sent long ago may arrive at once.
        """
        state = np.zeros(num_markets, dtype)
        state["decisions"] = 1
        room = MAX_RESTING * (2 if late else 1) + spare
        levels = np.zeros((num_markets, 2, LEVELS), np.int64)
        return cls(state, np.zeros((num_markets, room), RESTING), levels, levels.copy())

    def take(self, other: "Knowledge", rows: np.ndarray) -> None:
        """Becomes, in rows (N,) bool, what another one is."""
        for own, theirs in zip(self, other, strict=True):
            own[rows] = theirs[rows]


def rings(market: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The tape of a market or of a view, as kernels take it."""
    tape = market.tape
    return tape.records, tape.record_count, tape.fills, tape.fill_count
