"""Reference market makers: a fixed spread, and the quotes of Avellaneda and Stoikov and of Gueant and others."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym import MarketMakingRole, TradingSession
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

    def quotes(
        self, variance: np.ndarray, time_left: np.ndarray, decisions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Half of the spread, and the shift of both quotes for each unit of inventory.

        Args:
            variance: s^2, (n,), in the unit of the distances.
            time_left: (n,), part of the episode.
            decisions: (n,), of an episode.

        Returns:
            Two (n,) float64 in that unit.
        """
        risk = self.risk_aversion * variance * time_left * decisions
        return 0.5 * risk + np.log1p(self.risk_aversion / self.decay) / self.risk_aversion, risk

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 4) float32 of a market maker.

        Args:
            observation: (n, obs) float32.
            info: columns (n,) ``usual_spread`` and ``usual_move`` in ticks, and ``decisions``.
        """
        spread = _usual_spread(info)
        variance = (np.asarray(info["usual_move"], np.float64) / spread) ** 2
        half, lean = self.quotes(variance, seen(observation, "time_left"), info["decisions"])
        return _quotes(observation, info, -seen(observation, "inventory") * lean * spread, half * spread, self.size)


class GLFT:
    """The quotes of Gueant, Lehalle and Fernandez-Tapia far from the end: closed form, with inventory limits.

    "Dealing with the inventory risk: a solution to the market making problem", Mathematics and Financial Economics 7
    (2013), proposition 4. Fills of a quote at distance d arrive with intensity A exp(-k d), the mid diffuses with
    standard deviation s, utility is CARA with risk aversion g. With q the inventory in quotes, the middle of both is
    the mid less q w, and each is log(1 + g / k) / g + w / 2 away from it, where
    w = sqrt(s^2 g / (2 k A) (1 + g / k)^(1 + k / g)). Distances count in usual spreads, time in decisions; s and the
    usual spread are those of the start context.

    Args:
        risk_aversion: g, for each usual spread and quote.
        decay: k, for each usual spread.
        intensity: A, quotes that would fill at the mid in one decision.
        size: part of the largest quote, above -1 (nothing) to 1 (all).
    """

    name = "glft"

    def __init__(self, risk_aversion: float = 0.05, decay: float = 2.0, intensity: float = 0.5, size: float = 0.0):
        given = {"risk_aversion": risk_aversion, "decay": decay, "intensity": intensity}
        for name, value in given.items():
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}; it must be a positive number")
        if not -1.0 < size <= 1.0:
            raise ValueError(f"size is {size!r}; it must be above -1 and at most 1")
        self.risk_aversion, self.decay, self.intensity, self.size = risk_aversion, decay, intensity, size

    def quotes(self, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half of the spread without inventory, and the shift for each quote held.

        Args:
            deviation: s, (n,), in the unit of the distances.

        Returns:
            Two (n,) float64 in that unit.
        """
        g, k = self.risk_aversion, self.decay
        growth = math.exp((1.0 + k / g) * math.log1p(g / k))
        lean = np.asarray(deviation, np.float64) * math.sqrt(g / (2.0 * k * self.intensity) * growth)
        return math.log1p(g / k) / g + 0.5 * lean, lean

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 4) float32 of a market maker.

        Args:
            observation: (n, obs) float32.
            info: columns (n,) ``usual_spread`` and ``usual_move`` in ticks, ``inventory_limit`` and ``size`` in lots.
        """
        spread = _usual_spread(info)
        half, lean = self.quotes(np.asarray(info["usual_move"], np.float64) / spread)
        held = seen(observation, "inventory") * info["inventory_limit"] / _quoted(info, self.size)
        return _quotes(observation, info, -held * lean * spread, half * spread, self.size)

    @classmethod
    def fit(
        cls,
        flow: Any = "zero_intelligence",
        risk_aversion: float = 0.05,
        *,
        distances: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
        size: float = 0.0,
        num_envs: int = 32,
        seed: int = 0,
        **task: Any,
    ) -> "GLFT":
        """A policy whose intensities are a line through the logarithms of those measured, see ``fill_intensities``.

        Raises:
            ValueError: if fewer than two distances were met, or those farther away more often.
        """
        away = np.asarray(distances, np.float64)
        found = fill_intensities(flow, away, size=size, num_envs=num_envs, seed=seed, **task)
        met = found > 0
        if met.sum() < 2:
            raise ValueError(f"distances is {distances!r}, of which {int(met.sum())} got fills; at least 2 must")
        slope, start = np.polyfit(away[met], np.log(found[met]), 1)
        if not slope < 0.0:
            raise ValueError(f"distances is {distances!r}; intensities must fall with them, but are {found.tolist()}")
        return cls(risk_aversion, -float(slope), math.exp(float(start)), size)


def fill_intensities(
    flow: Any,
    distances: Sequence[float] | np.ndarray,
    *,
    size: float = 0.0,
    num_envs: int = 32,
    seed: int = 0,
    **task: Any,
) -> np.ndarray:
    """How many of its quotes a maker with a fixed spread gets filled as a maker, for each side and decision.

    Quotes are made anew at every decision, and nearer the limits of the inventory they are smaller or none, which
    counts as not filled.

    Args:
        flow: name of a flow, or one made for ``num_envs`` markets.
        distances: of the quotes from the mid, (D,), usual spreads.
        size: part of the largest quote, above -1 to 1.
        num_envs: markets, one episode each for every distance.
        seed: of the first market.
        **task: arguments of ``MarketMakingRole``.

    Returns:
        (D,) float64.
    """
    session, found = TradingSession(num_envs, MarketMakingRole(**task), flow), []
    everyone = np.ones(num_envs, np.bool_)
    for distance in np.asarray(distances, np.float64).tolist():
        session.seed(everyone, np.arange(seed, seed + num_envs))
        policy, observation, info = FixedSpread(distance, size), session.reset(), session.start_info()
        while session.running.any():
            observation = session.step(policy.act(observation, info), session.running.copy()).observation
        final = session.final_info()
        quoted = 2.0 * _quoted(info, size) * info["decisions"]
        found.append(float((final["traded"] * final["maker_share"]).sum() / quoted.sum()))
    return np.array(found)


def making_policies() -> list[Any]:
    """The makers that a learner is measured against."""
    return [FixedSpread(), AvellanedaStoikov(), GLFT()]


def _quoted(info: dict[str, np.ndarray], size: float) -> np.ndarray:
    """Lots (n,) of a quote."""
    return np.maximum(0.5 * (1.0 + size) * np.asarray(info["size"], np.float64), 1.0)


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
