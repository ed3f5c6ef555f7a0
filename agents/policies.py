"""Reference policies for the execution task: honest schedules, and noise, behind one small protocol."""

from typing import Protocol

import numpy as np

# Behind the touch by a part of the spread that rounds to no tick: rests at the touch and is not crossed at
# the interval's end, as an aggressiveness of exactly 0 would be.
AT_THE_TOUCH_AND_WAIT = -1e-6


class Policy(Protocol):
    """Chooses actions for a batch of markets; rows never depend on each other.

    Attributes:
        name: short name, used in tables and files.
    """

    name: str

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 2) float32 in [-1, 1]: deviation from the schedule and aggressiveness.

        Args:
            observation: (n, obs) float32.
            info: columns (n,): ``seed`` uint64 and ``decision`` int64 (0 for the first), and ``side``,
                ``quantity``, ``decisions`` and ``context``, int64.
        """
        ...


class ConstantPolicy:
    """The same action at every decision.

    Args:
        name: short name.
        deviation: part by which the slice differs from TWAP's, in [-1, 1].
        aggressiveness: from resting behind the touch (-1) to crossing (1).
    """

    def __init__(self, name: str, deviation: float, aggressiveness: float):
        self.name = name
        self.action = np.array([deviation, aggressiveness], np.float32)

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """The action for each of the n rows."""
        return np.tile(self.action, (len(observation), 1))


class PassiveTWAP(ConstantPolicy):
    """Posts each slice at the touch and crosses what is left of it at its end: the zero action."""

    def __init__(self) -> None:
        super().__init__("passive_twap", 0.0, 0.0)


class CrossingTWAP(ConstantPolicy):
    """Crosses the spread with each slice at once, up to the opposite touch.

    What the opposite touch cannot fill rests at that price and crosses at the end of the interval.
    """

    def __init__(self) -> None:
        super().__init__("crossing_twap", 0.0, 1.0)


class PostAndWait(ConstantPolicy):
    """Posts the whole parent order at the touch, follows the touch, and crosses at the deadline."""

    def __init__(self) -> None:
        super().__init__("post_and_wait", 1.0, AT_THE_TOUCH_AND_WAIT)


class Immediate(ConstantPolicy):
    """Crosses with the whole parent order at the first decision; the rest sweeps the book one interval later."""

    def __init__(self) -> None:
        super().__init__("immediate", 1.0, 1.0)


class Random:
    """Uniform actions, drawn from the row's seed and decision only.

    Args:
        seed: mixed with the rows' seeds.
    """

    name = "random"

    def __init__(self, seed: int = 0):
        self.seed = seed

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """One draw for each row; equal seed and decision give an equal action, wherever the row stands."""
        pairs = zip(info["seed"].tolist(), info["decision"].tolist(), strict=True)
        draws = [np.random.default_rng([self.seed, *pair]).uniform(-1.0, 1.0, 2) for pair in pairs]
        return np.array(draws, np.float32).reshape(-1, 2)


def reference_policies() -> list[Policy]:
    """The schedules that a learner is measured against."""
    return [CrossingTWAP(), PassiveTWAP(), PostAndWait(), Immediate()]
