"""What was seen of the markets of a session at its last decisions, for pictures of the depth over time."""

from collections import deque
from typing import NamedTuple

import numpy as np

from tradefm_gym.envs.session import TradingSession

COLUMNS = 100  # decisions that are kept
LEVELS = 24  # a side


class Column(NamedTuple):
    """One market after a decision, and what was traded in it since the decision before.

    Attributes:
        prices: (2, LEVELS) int64, ticks, bids first; 0 where there is no level.
        sizes: (2, LEVELS) int64, lots.
        own: resting lots of all agents by price.
        mid2: doubled mid, 0 while unknown.
        trades: (k, 3) int64, price, lots and side of the agents: 1 bought, -1 sold, 0 both or neither.
        inventories: (A,) int64, lots of each role.
    """

    prices: np.ndarray
    sizes: np.ndarray
    own: dict[int, int]
    mid2: int
    trades: np.ndarray
    inventories: np.ndarray


class DepthHistory:
    """The last ``COLUMNS`` decisions of every market; ``look`` is called after each reset and step."""

    def __init__(self, session: TradingSession):
        self.session = session
        self._columns = [deque[Column](maxlen=COLUMNS) for _ in range(session.num_envs)]
        self._fills = np.zeros(session.num_envs, np.int64)  # cursors of the tape
        self._records = np.zeros(session.num_envs, np.int64)
        self._episodes: list[tuple[int, int]] = [(0, -1)] * session.num_envs

    def look(self) -> None:
        """Adds a column in each row where something happened; forgets those before a reset or a restored state."""
        session, tape = self.session, self.session.market.tape
        prices, sizes = session.market.depth(LEVELS)
        for row in range(session.num_envs):
            episode = int(session.seeds[row]), int(session.episodes[row])
            fills, records = int(tape.fill_count[row]), int(tape.record_count[row])
            back = fills < self._fills[row] or records < self._records[row]
            if back or episode != self._episodes[row]:
                self._columns[row].clear()
                self._fills[row] = fills
            elif records == self._records[row] and self._columns[row]:
                continue
            self._columns[row].append(self._column(row, prices[row].copy(), sizes[row].copy(), fills))
            self._fills[row], self._records[row], self._episodes[row] = fills, records, episode

    def columns(self, row: int) -> list[Column]:
        """Those of one market, oldest first; the last is the market as it is now."""
        return list(self._columns[row])

    def _column(self, row: int, prices: np.ndarray, sizes: np.ndarray, fills: int) -> Column:
        session, market = self.session, self.session.market
        inventories = market.accounts["inventory"][row, : len(session.roles)].copy()
        return Column(
            prices, sizes, resting(session, row), int(market.mid2[row]), self._trades(row, fills), inventories
        )

    def _trades(self, row: int, fills: int) -> np.ndarray:
        """Since the last look, as far as the ring still has them."""
        ring, agents = self.session.market.tape.fills[row], len(self.session.roles)
        first = max(int(self._fills[row]), fills - len(ring))
        found = ring[np.arange(first, fills) % len(ring)]
        took = ((found["taker"] >= 0) & (found["taker"] < agents)).astype(np.int64)
        made = ((found["maker"] >= 0) & (found["maker"] < agents)).astype(np.int64)
        return np.stack([found["price"], found["size"], (took - made) * found["taker_side"]], axis=1).astype(np.int64)


def resting(session: TradingSession, row: int) -> dict[int, int]:
    """Resting lots of all roles by price."""
    own: dict[int, int] = {}
    for role in session.roles:
        for price, lots in role.resting_orders(row).items():
            own[price] = own.get(price, 0) + lots
    return own
