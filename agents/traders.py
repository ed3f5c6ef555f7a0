"""Reference traders: one that follows the market, and two that know nothing."""

from typing import Any

import numpy as np
from tradefm_gym.agents.makers import seen
from tradefm_gym.agents.policies import Random


class Momentum:
    """Goes with the last move of the mid where it was a large one, and holds on to its target where it was not.

    Args:
        threshold: how large, in moves that are usual between two decisions.
        aggressiveness: from resting behind the touch (-1) to crossing (1).
    """

    name = "momentum"

    def __init__(self, threshold: float = 1.0, aggressiveness: float = 0.0):
        self.threshold, self.aggressiveness = threshold, aggressiveness

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 2) float32 of a trader; ``info`` is not read."""
        move = seen(observation, "mid_move", 1)
        target = np.where(np.abs(move) >= self.threshold, np.sign(move), seen(observation, "target"))
        return np.stack([target, np.full(len(move), self.aggressiveness)], axis=1).astype(np.float32)


class Noise:
    """Wants a position that is drawn from the row's seed and kept for some decisions.

    Args:
        hold: decisions.
        aggressiveness: from resting behind the touch (-1) to crossing (1).
        seed: mixed with the rows' seeds.
    """

    name = "noise"

    def __init__(self, hold: int = 8, aggressiveness: float = 0.0, seed: int = 0):
        if isinstance(hold, bool) or not isinstance(hold, int) or hold < 1:
            raise ValueError(f"hold is {hold!r}; it must be an integer of at least 1")
        self.hold, self.aggressiveness, self.seed = hold, aggressiveness, seed

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 2) float32 of a trader; ``info`` has columns (n,) ``seed`` and ``decision``."""
        pairs = zip(info["seed"].tolist(), (info["decision"] // self.hold).tolist(), strict=True)
        targets = [np.random.default_rng([self.seed, *pair]).uniform(-1.0, 1.0) for pair in pairs]
        return np.array([(target, self.aggressiveness) for target in targets], np.float32).reshape(-1, 2)


class ZeroIntelligence(Random):
    """Buys or sells at a random price at every decision, knowing its limit and nothing else.

    Gode and Sunder, "Allocative efficiency of markets with zero-intelligence traders", Journal of Political Economy
    101 (1993). The target is uniform over all positions within the limit, the price from behind the own touch to
    crossing; both are drawn from the row's seed and decision.

    Args:
        seed: mixed with the rows' seeds.
    """

    name = "zero_intelligence"


def trading_policies() -> list[Any]:
    """The traders that a learner is measured against."""
    return [Momentum(), Noise(), ZeroIntelligence()]
