"""The markets of a session as they would be without its agents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tradefm_gym.arguments import row_numbers

if TYPE_CHECKING:
    from tradefm_gym.envs.session import TradingSession


class Twin:
    """The same markets in which nobody but the background trades, event for event beside a session.

    A row leaves the session at arrival, with the same book, flow and random draws: proposal k of the flow uses the same
    random words in both, whatever the agents have done. So the difference of the two mids after equally many background
    events is what the agents have caused. That is one draw of a random variable, and mostly noise: a flow that reads
    the market goes other ways after the smallest difference, and even one that does not is out of step in its book. An
    impact is the mean over many seeds, with its standard error.

    Where the agents never send an order, both are the same to the last bit.

    Args:
        of: whose markets they are; all rows leave it now.

    Attributes:
        session: the markets without agents, a session of its own.
    """

    def __init__(self, of: "TradingSession"):
        self.of, self.session = of, of.branch()
        of.arrival_mid2[:] = of.market.mid2_excluding(None)

    def depart(self, rows: Sequence[int] | np.ndarray | None = None) -> None:
        """Lets rows (k,) leave the session anew, default all."""
        rows = row_numbers(rows, self.of.num_envs)
        self.of.fork(rows, rows, self.session)
        self.of.arrival_mid2[rows] = self.of.market.mid2_excluding(None)[rows]

    def follow(self) -> None:
        """Lets as many background events happen as have happened in the session."""
        behind = self.of.market.background_count - self.session.market.background_count
        self.session.advance(behind > 0, behind)

    def mid(self) -> np.ndarray:
        """The mids without agents (N,) float64, ticks."""
        return 0.5 * self.session.market.mid2_excluding(None)

    def impact_sample_bps(self) -> np.ndarray:
        """The mid with agents (but for their resting orders) minus that without, (N,) float64.

        In basis points of the arrival mid; a single sample for each row, see above.
        """
        moved = self.of.market.mid2_excluding(None) - self.session.market.mid2_excluding(None)
        return 10_000.0 * moved / np.maximum(self.of.arrival_mid2, 1)  # 0 where no episode has begun
