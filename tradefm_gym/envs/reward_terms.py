"""Terms of rewards that ledgers do not book: benchmarks, risk, utilities and habits. A further one is a class.

All are gains in 1/1000 tick-lots, so that what costs is negative; roles that tell costs turn the sign. Where a term is
made of a figure of the whole episode (an average price, a utility), it is the change of that figure since the last
decision: over an episode such terms add up to it exactly.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from tradefm_gym.envs.reward import MAX_FACTOR, Interval, real
from tradefm_gym.envs.seat import HALF_TICK

_MOST_EXPONENT = 50.0  # beyond it utilities grow no further: e^50 basis points are no reward


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int64)


# --- Benchmarks of an execution -----------------------------------------------------------------------------------


def _mean_mid(state: np.ndarray) -> np.ndarray:
    """The average mid after each decision so far, in 1/1000 ticks; before the first one the arrival mid."""
    made = state["decision"]
    return HALF_TICK * np.where(made > 0, state["mid2_sum"] / np.maximum(made, 1), state["arrival_mid2"])


def _mean_price(state: np.ndarray) -> np.ndarray:
    """The average price at which others have traded so far; the average mid where nobody has."""
    lots = state["market_lots"]
    return np.where(lots > 0, 1000.0 * state["market_notional"] / np.maximum(lots, 1), _mean_mid(state))


def _participant_price(state: np.ndarray) -> np.ndarray:
    """The average price of somebody who takes ``participation`` of what others trade until he is done."""
    lots = state["pov_lots"]
    return np.where(lots > 0, state["pov_notional"] / np.maximum(lots, 1), _mean_price(state))


def _against(price: np.ndarray, state: np.ndarray) -> np.ndarray:
    """What executions so far have gained against a price (N,) in 1/1000 ticks, fees apart."""
    return state["cash"] + _rounded(state["side"] * state["executed"] * price)


class _Slippage:
    """Executions against a price of the episode so far."""

    price: ClassVar[Callable[[np.ndarray], np.ndarray]]

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        price = type(self).price
        return _against(price(interval.after), interval.after) - _against(price(interval.before), interval.before)


@dataclass(frozen=True)
class TwapSlippage(_Slippage):
    """Executions against the average of the mids after each decision (without own orders)."""

    name: ClassVar[str] = "twap_slippage"
    price = staticmethod(_mean_mid)


@dataclass(frozen=True)
class VwapSlippage(_Slippage):
    """Executions against the average price at which others have traded with each other in the episode."""

    name: ClassVar[str] = "vwap_slippage"
    price = staticmethod(_mean_price)


@dataclass(frozen=True)
class PovSlippage(_Slippage):
    """Executions against the average price of somebody who keeps to the role's ``participation`` of others' volume."""

    name: ClassVar[str] = "pov_slippage"
    price = staticmethod(_participant_price)


@dataclass(frozen=True)
class Completion:
    """A bonus, in basis points of the arrival notional, when the whole parent order is done."""

    bonus: float = 1.0
    name: ClassVar[str] = "completion"

    def __post_init__(self):
        real("bonus of term 'completion'", self.bonus, 0.0, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        done = interval.over & (interval.held(interval.after) == 0)
        return np.where(done, _rounded(self.bonus * interval.unit), 0)


# --- Parts of a position's profit ---------------------------------------------------------------------------------


def _move(interval: Interval) -> np.ndarray:
    """How far the mid without own orders moved, in 1/1000 ticks (N,) int64."""
    return (interval.after["decision_mid2"] - interval.before["decision_mid2"]) * HALF_TICK


@dataclass(frozen=True)
class AdverseSelection:
    """Lots traded since the last decision, marked from the mid there to the mid now.

    It is negative where prices run on through quotes. ``spread_captured`` + ``adverse_selection`` + ``holding`` +
    ``fees`` are the profit.
    """

    name: ClassVar[str] = "adverse_selection"

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return (interval.after["inventory"] - interval.before["inventory"]) * _move(interval)


@dataclass(frozen=True)
class Holding:
    """Lots held at the last decision, marked from the mid there to the mid now."""

    name: ClassVar[str] = "holding"

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return interval.before["inventory"] * _move(interval)


# --- Risk ---------------------------------------------------------------------------------------------------------


def _deviation(interval: Interval) -> np.ndarray:
    """Standard deviation of what is open over one interval, by the running variance of the mid, 1/1000 tick-lots."""
    return 1000.0 * interval.held(interval.after) * np.sqrt(interval.after["variance"])


@dataclass(frozen=True)
class LinearInventory:
    """``rate`` 1/1000 ticks for each lot that is open after a decision."""

    rate: float = 10.0
    name: ClassVar[str] = "inventory_linear"

    def __post_init__(self):
        real("rate of term 'inventory_linear'", self.rate, 0.0, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return -_rounded(self.rate * interval.held(interval.after))


@dataclass(frozen=True)
class QuadraticInventory:
    """``rate`` 1/1000 ticks for lots^2 / limit that are open after a decision: as the linear one at the limit."""

    rate: float = 10.0
    name: ClassVar[str] = "inventory_quadratic"

    def __post_init__(self):
        real("rate of term 'inventory_quadratic'", self.rate, 0.0, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        held = interval.held(interval.after).astype(np.float64)
        return -_rounded(self.rate * held * held / interval.most(interval.after))


@dataclass(frozen=True)
class CvarInventory:
    """Expected loss on what is open in the worst ``1 - level`` of the next intervals, were moves normal.

    By the running variance of the mid; of a normal variable that mean is the density at the quantile / (1 - level)
    deviations (Rockafellar and Uryasev 2000).
    """

    level: float = 0.95
    name: ClassVar[str] = "inventory_cvar"

    def __post_init__(self):
        real("level of term 'inventory_cvar'", self.level, 0.5, 0.9999)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        normal = NormalDist()
        deviations = normal.pdf(normal.inv_cdf(self.level)) / (1.0 - self.level)
        return -_rounded(deviations * _deviation(interval))


@dataclass(frozen=True)
class MeanVariance:
    """``aversion`` times the variance of what is open over the next interval, in squared basis points.

    Added to a profit or a shortfall it is the objective of Almgren and Chriss (2000), E + lambda V.
    """

    aversion: float = 0.01
    name: ClassVar[str] = "mean_variance"

    def __post_init__(self):
        real("aversion of term 'mean_variance'", self.aversion, 0.0, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return -_rounded(self.aversion * _deviation(interval) ** 2 / interval.unit)


@dataclass(frozen=True)
class Cara:
    """The change of the utility (1 - exp(-a w)) / a of the wealth w that the ledger has booked, basis points.

    It stands in the place of the ledger's terms, not beside them; for a small ``aversion`` a it is their sum.
    """

    aversion: float = 0.01
    name: ClassVar[str] = "cara"

    def __post_init__(self):
        real("aversion of term 'cara'", self.aversion, 1e-9, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return self._utility(interval, interval.after) - self._utility(interval, interval.before)

    def _utility(self, interval: Interval, state: np.ndarray) -> np.ndarray:
        exponent = np.clip(-self.aversion * interval.gained(state) / interval.unit, -math.inf, _MOST_EXPONENT)
        return _rounded(-np.expm1(exponent) / self.aversion * interval.unit)


# --- Habits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderToTrade:
    """``charge`` basis points for each order and cancel beyond ``ratio`` for each own fill and one more."""

    charge: float = 0.01
    ratio: float = 4.0
    name: ClassVar[str] = "order_to_trade"

    def __post_init__(self):
        real("charge of term 'order_to_trade'", self.charge, 0.0, MAX_FACTOR)
        real("ratio of term 'order_to_trade'", self.ratio, 0.0, MAX_FACTOR)

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return self._charged(interval, interval.before) - self._charged(interval, interval.after)

    def _charged(self, interval: Interval, state: np.ndarray) -> np.ndarray:
        excess = np.maximum(state["messages"] - self.ratio * (1 + state["trades"]), 0.0)
        return _rounded(self.charge * excess * interval.unit)


RISK = {
    term.name: term for term in (LinearInventory, QuadraticInventory, CvarInventory, MeanVariance, Cara, OrderToTrade)
}
EXECUTION = {term.name: term for term in (TwapSlippage, VwapSlippage, PovSlippage, Completion)} | RISK
POSITION = {term.name: term for term in (AdverseSelection, Holding)} | RISK
