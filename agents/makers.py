"""Reference market makers: a fixed spread, and the quotes of Avellaneda and Stoikov."""

from typing import Any

import numpy as np

from tradefm_gym.envs.observation import block_slices
from tradefm_gym.envs.position_observation import POSITION_BLOCKS

SLICES = block_slices(POSITION_BLOCKS)
_REACH = 4.0  # ticks behind the touch that a distance of 1 reaches at least


def seen(observation: np.ndarray, name: str, place: int = 0) -> np.ndarray:
    """One number of a named block, (n,) float64, of the observation of a maker or a trader."""
    return observation[:, SLICES[name]][:, place].astype(np.float64)


class FixedSpread:
    """Quotes as far from the mid on both sides, whatever it holds.

    Args:
        half_spread: distance of each quote from the mid, in usual spreads of the start context; 0.5 is where the
            touch usually is.
        size: part of the largest quote, from -1 (nothing) to 1 (all).
    """

    name = "fixed_spread"

    def __init__(self, half_spread: float = 0.5, size: float = 0.0):
        self.half_spread, self.size = half_spread, size

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 4) float32 of a market maker; ``info`` has a column ``usual_spread`` (ticks)."""
        half = np.full(len(observation), self.half_spread) * _usual_spread(info)
        return _quotes(observation, info, np.zeros(len(observation)), half, self.size)


class AvellanedaStoikov:
    """Quotes around a reservation price that leans against the inventory (Avellaneda and Stoikov, 2008).

    With q the inventory, T - t the decisions left and s the standard deviation of the mid's move between two
    decisions, the middle of the quotes is the mid less q g s^2 (T - t), and each is away from it by
    g s^2 (T - t) / 2 + log(1 + g / k) / g. Prices count in usual spreads and inventory in limits, so that one pair of
    parameters suits all start contexts; s and the usual spread are those of the start context (``usual_move`` and
    ``usual_spread`` of the reset's info), never of the episode.

    Args:
        risk_aversion: g, for each usual spread and limit.
        decay: k, by which the chance of a fill falls for each usual spread that a quote is farther away. Without
            risk aversion the quotes are 1 / k usual spreads from the mid: 2 is the usual touch.
        size: part of the largest quote, from -1 (nothing) to 1 (all).
    """

    name = "avellaneda_stoikov"

    def __init__(self, risk_aversion: float = 0.05, decay: float = 2.0, size: float = 0.0):
        for name, value in (("risk_aversion", risk_aversion), ("decay", decay)):
            if not value > 0.0:
                raise ValueError(f"{name} is {value!r}; it must be a positive number")
        self.risk_aversion, self.decay, self.size = risk_aversion, decay, size

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 4) float32 of a market maker.

        Args:
            observation: (n, obs) float32.
            info: columns (n,) ``usual_spread`` and ``usual_move`` in ticks, and ``decisions``.
        """
        spread = _usual_spread(info)
        variance = (np.asarray(info["usual_move"], np.float64) / spread) ** 2
        risk = self.risk_aversion * variance * seen(observation, "time_left") * info["decisions"]
        half = 0.5 * risk + np.log1p(self.risk_aversion / self.decay) / self.risk_aversion
        return _quotes(observation, info, -seen(observation, "inventory") * risk * spread, half * spread, self.size)


def making_policies() -> list[Any]:
    """The makers that a learner is measured against."""
    return [FixedSpread(), AvellanedaStoikov()]


def _usual_spread(info: dict[str, np.ndarray]) -> np.ndarray:
    spread = np.asarray(info["usual_spread"], np.float64)
    return np.where(spread > 0.0, spread, 1.0)


def _quotes(
    observation: np.ndarray, info: dict[str, np.ndarray], shift: np.ndarray, half: np.ndarray, size: float
) -> np.ndarray:
    """Actions for two quotes ``half`` ticks on both sides of the mid + ``shift`` ticks.

    The skew takes what it can of the shift, the distances the rest; no quote goes beyond the mid that is left then.
    The spread of the moment is read from the observation, which knows no more than ten usual ones.
    """
    now = np.maximum(seen(observation, "spread") * _usual_spread(info), 1.0)
    reach = np.maximum(now, _REACH)
    skew = np.clip(shift / (0.5 * reach), -1.0, 1.0)
    rest = shift - 0.5 * reach * skew
    bid, ask = (np.maximum(half + sign * rest, 0.0) for sign in (-1.0, 1.0))
    bid, ask = (np.where(away < 0.5 * now, 2.0 * away / now - 1.0, (away - 0.5 * now) / reach) for away in (bid, ask))
    actions = np.stack([bid, ask, skew, np.full(len(now), size)], axis=1)
    return np.clip(actions, -1.0, 1.0).astype(np.float32)
