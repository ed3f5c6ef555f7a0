"""What trading does to the owners: cash, inventory, fees and volume, in integers (booked by ``ledger.write_fill``).

Cash is in 1/1000 tick-lots and excludes fees, so that cash and inventory sum to zero over all owners of
a market (the background flow is the last of them). Fees paid to the venue have their own column: a part for each lot
and a part of the notional, which is rounded up to a unit of money for each fill and party. What accounts cannot hold
in 64 bits is not traded: the order ends as PREVENTED.
"""

import numpy as np

from tradefm_gym.market.ledger import MONEY


def equity(accounts: np.ndarray, mid2: np.ndarray) -> np.ndarray:
    """Marked to market after fees: (N, A + 1) int64 in 1/1000 tick-lots.

    Args:
        accounts: (N, A + 1) ACCOUNT.
        mid2: doubled mids in ticks, (N,) or (N, A + 1) where each owner has a mark of its own.

    Raises:
        ValueError: if an inventory is worth more than 64 bits hold.
    """
    mid2 = np.asarray(mid2, np.int64)
    if mid2.ndim == 1:
        mid2 = mid2[:, None]
    worth = accounts["inventory"] * np.asarray(mid2, np.float64) * (MONEY // 2)
    worth += accounts["cash"].astype(np.float64) - accounts["fees"]
    most = np.abs(worth).max(initial=0.0)
    if most >= 2.0**63:
        raise ValueError(f"accounts are worth up to {most:.3g} in 1/1000 tick-lots; allowed is less than 2^63.")
    # MONEY is even, so the half tick of a doubled mid stays exact.
    return accounts["cash"] - accounts["fees"] + accounts["inventory"] * mid2 * (MONEY // 2)
