"""What trading does to the owners: cash, inventory, fees and volume, in integers (booked by ``ledger.write_fill``).

Cash is in 1/1000 tick-lots and excludes fees, so that cash and inventory sum to zero over all owners of
a market (the background flow is the last of them). Fees paid to the venue have their own column: a part for each lot
and a part of the notional, which is rounded up to a unit of money for each fill and party.
"""

import numpy as np

from tradefm_gym.market.ledger import MONEY


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
