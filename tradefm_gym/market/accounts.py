"""What trading does to the owners: cash, inventory, fees and volume, in integers.

Cash is in 1/1000 tick-lots and excludes fees, so that cash and inventory sum to zero over all owners of
a market (the background flow is the last of them). Fees paid to the venue have their own column.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.events import ACCOUNT

MONEY = 1000  # units of money in one tick-lot


def allocate(num_markets: int, seats: int) -> np.ndarray:
    """(N, A + 1) ACCOUNT of zeros; index ``seats`` is the background flow."""
    return np.zeros((num_markets, seats + 1), ACCOUNT)


@njit(cache=True, nogil=True, forceinline=True)
def settle(accounts, m, maker, taker, taker_side, price, size, maker_fee, taker_fee):
    """Books one fill; ``maker`` and ``taker`` are owners (-1 the background), fees 1/1000 ticks a lot."""
    last = accounts.shape[1] - 1
    provider = accounts[m, maker if maker >= 0 else last]
    remover = accounts[m, taker if taker >= 0 else last]
    cash = taker_side * price * size * MONEY
    lots = taker_side * size
    remover["cash"] -= cash
    remover["inventory"] += lots
    remover["fees"] += taker_fee * size
    remover["volume"] += size
    provider["cash"] += cash
    provider["inventory"] -= lots
    provider["fees"] += maker_fee * size
    provider["volume"] += size


def equity(accounts: np.ndarray, mid2: np.ndarray) -> np.ndarray:
    """Marked to market after fees: (N, A + 1) int64 in 1/1000 tick-lots.

    Args:
        accounts: (N, A + 1) ACCOUNT.
        mid2: doubled mids in ticks, (N,) or (N, A + 1) where each owner has a mark of its own.
    """
    mid2 = np.asarray(mid2, np.int64)
    if mid2.ndim == 1:
        mid2 = mid2[:, None]
    # MONEY is even, so the half tick of a doubled mid stays exact.
    return accounts["cash"] - accounts["fees"] + accounts["inventory"] * mid2 * (MONEY // 2)
