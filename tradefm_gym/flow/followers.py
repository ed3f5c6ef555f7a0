"""How takers are followed: measured on a recorded day, and given to agents' takers in a closed loop.

After a taker more takers of its side come than of the other, mostly the next slices of the same parent order. A
network sees the signs of a parent order that is under way; an agent's order out of the blue shows none, and by itself
a network trained on records hardly has it followed. So for each unit of pressure (log2(1 + executed / median size), as
``market.features`` counts it) that agents exert, takers of their side become likelier by a factor, with the two decays
that the pressure has, so that as much flow comes after them within 16 and within 64 events as came after real takers.
A factor keeps to the moments in which the network has anybody take.

What follows is news to the market, and no schedule stays news: nobody but its owner sends the next slices of a parent
order. An order adds less the more agents have taken on its side lately (half as much is remembered after a thousand
events), so that a run of them is followed by about twice what follows one, as runs of real takers are, and a steady
schedule before long by little. Both sides count alike and apart: who sells what he bought meets the followers that he
met on the way up, and nothing comes back by itself that somebody could wait for.
"""

import math

import numpy as np
from numba import njit

from tradefm_gym.market.events import CANCEL, PRINT
from tradefm_gym.market.features import FAST_DECAY, SLOW_DECAY

NEWS_DECAY = 0.5 ** (1 / 1024)  # an event
AGENT_PRESSURE = 4  # sums that a row keeps: fast, slow, and what was followed of buyers and of sellers
LAGS = (16, 64)  # events within which real takers were followed
# Median sizes that follow within those lags for each unit of pressure, and how much assets differ in it: AAPL 2012,
# CLX5 and 600519 (training parts). A day with few takers counts for as much as it tells beside them.
USUAL, DIFFERENCE = (1.0, 2.0), (0.4, 0.8)
_BLOCKS = 16  # stretches of a day that standard errors leave out in turn
_FEWEST = 30  # takers
_FULL = 3.0  # units of pressure of a side that are followed at most, as those of one order of seven median sizes
_MOST = 12.0  # times likelier, at most


def calibrate_followers(records: np.ndarray, median_size: float) -> tuple[float, float]:
    """By how many times its usual one a unit of fast and of slow pressure raises the probability of takers of its side.

    Args:
        records: ``(n,) RECORD`` of a training part, background only.
        median_size: of its adds, lots.

    Returns:
        Two weights with which as many lots follow within ``LAGS`` as in the records (least squares, neither below
        0), drawn towards ``USUAL`` as far as the records leave it open.
    """
    events = records[records["kind"] != PRINT]
    executed = np.where(events["kind"] != CANCEL, events["filled"], 0) / median_size
    takers = np.flatnonzero(executed[: len(executed) - max(LAGS)] > 0)
    wanted = np.array(USUAL)
    if len(takers) >= _FEWEST:
        cumulative = np.concatenate([[0.0], np.cumsum(events["side"] * executed)])
        pressure, side = np.log2(1.0 + executed[takers]), events["side"][takers]
        after = np.stack([side * (cumulative[takers + lag + 1] - cumulative[takers + 1]) for lag in LAGS], axis=1)
        block = np.minimum(takers * _BLOCKS // len(events), _BLOCKS - 1)
        products = np.stack([np.bincount(block, pressure * values, _BLOCKS) for values in after.T])  # (lags, blocks)
        squares = np.bincount(block, pressure**2, _BLOCKS)
        found = products.sum(1) / squares.sum()
        without = (products.sum(1)[:, None] - products) / np.maximum(squares.sum() - squares, 1e-9)
        error = np.sqrt((_BLOCKS - 1) / _BLOCKS * ((without - found[:, None]) ** 2).sum(1))  # jackknife
        wanted += (found - wanted) / (1.0 + (error / DIFFERENCE) ** 2)
    usual = 0.5 * executed.mean()  # of one side, an event
    return _weights(np.maximum(wanted, 0.0) / usual) if usual > 0.0 else (0.0, 0.0)


def _weights(wanted: np.ndarray) -> tuple[float, float]:
    """Non-negative weights of fast and slow pressure by which ``wanted`` (lags,) are added within ``LAGS``."""
    added = np.array([[(1.0 - decay**lag) / (1.0 - decay) for decay in (FAST_DECAY, SLOW_DECAY)] for lag in LAGS])
    scale = np.array(USUAL)  # so that both lags count alike
    added, wanted = added / scale[:, None], wanted / scale
    fast, slow = np.linalg.solve(added, wanted)
    if fast < 0 or slow < 0:  # the best of those with one weight alone
        alone = added[:, 1] if fast < 0 else added[:, 0]
        weight = float(alone @ wanted / (alone @ alone))
        return (0.0, weight) if fast < 0 else (weight, 0.0)
    return float(fast), float(slow)


@njit(cache=True, nogil=True)
def add_pressure(agents, pressure):
    """Lets an event pass in a row's sums ``agents`` (4,); ``pressure`` is signed, 0 if it is no taker of an agent."""
    agents[0] *= FAST_DECAY
    agents[1] *= SLOW_DECAY
    agents[2] *= NEWS_DECAY
    agents[3] *= NEWS_DECAY
    if pressure != 0.0:
        side = 2 if pressure > 0.0 else 3
        left = max(_FULL - agents[side], 0.0)
        news = min(abs(pressure) * left / _FULL, left)
        agents[0] += math.copysign(news, pressure)
        agents[1] += math.copysign(news, pressure)
        agents[side] += news


@njit(cache=True, nogil=True)
def followers(agents, weights) -> float:
    """How many times likelier takers that buy become (negative: that sell), by a row's sums (4,) and weights (2,)."""
    return min(max(weights[0] * agents[0] + weights[1] * agents[1], -_MOST), _MOST)
