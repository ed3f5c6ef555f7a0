"""The market making role: quote on both sides, earn the spread and carry as little inventory as that takes."""

from typing import Any, ClassVar

import numpy as np

from tradefm_gym.envs import position_step
from tradefm_gym.envs.position_orders import open_quotes
from tradefm_gym.envs.position_role import PositionRole, lots, position_terms, usual_orders
from tradefm_gym.envs.seat_role import per_row

SIZE_ORDERS, LIMIT_ORDERS = 2, 10  # by default, in usual orders

# The Discrete preset: (bid distance, ask distance, skew, size). Number 0 is the zero action, number 1 quotes nothing.
MAKING_ACTIONS = np.array(
    [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, -1.0)]
    + [(d, d, s, 0.0) for d in (-0.5, 0.0, 0.5, 1.0) for s in (-0.5, 0.0, 0.5) if (d, s) != (0.0, 0.0)]
    + [(near, far, 0.0, 0.0) for near in (-0.5, 0.0) for far in (1.0,)]
    + [(far, near, 0.0, 0.0) for near in (-0.5, 0.0) for far in (1.0,)],
    np.float32,
)


class MarketMakingRole(PositionRole):
    """Quotes a bid and an ask at every decision, and is flat at the end.

    Action ``[bid distance, ask distance, skew, size]`` in [-1, 1]. A distance of 0 is the touch of the book without own
    orders, -1 the mid, between them it is that part of the half-spread; +1 is max(4, spread) ticks behind the touch.
    The skew moves both quotes up by that part of max(4, spread) / 2 ticks. Distances are rounded to half ticks, prices
    then away from the mid; they never cross: quotes are post-only. The size is from nothing (-1) over half (0) to all
    (+1) of ``size`` lots on each side, less where more could carry the inventory beyond its limit. So the zero action
    joins both touches with half of the largest size. What rests at a wanted price keeps its place in the queue.

    The gain is told in named terms: ``spread`` (lots bought below and sold above the mid at the decision),
    ``inventory`` (lots held, marked to the next mid), ``fees``, ``liquidation`` (the closing trade against the mid
    at the last decision), ``unfilled`` (what the book could not take of it), and ``penalty``. The first four add up
    to the change of cash + inventory at the mid without own orders - fees, in integers; the reward is the sum of all
    in basis points of ``inventory_limit`` lots at the arrival mid.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode.
        size: largest quote on each side, lots; None: two usual orders of the start context, or the limit if less.
        inventory_limit: lots held at most, of either sign; None: ten usual orders, or the size if more.
        inventory_penalty: 1/1000 ticks for each lot that is held after a decision; no money changes hands.
        penalty_shape: "linear" or "quadratic", see ``PositionRole``.
        discrete: offer ``MAKING_ACTIONS`` by number instead of the box.
        reward: terms of which the reward is the sum: those of ``known_terms``, see ``reward.read_reward``; None for all
            of the above.
        observation: "flat", or "dict" of the blocks by name.
        blocks: names of the blocks that are seen; None for ``POSITION_BLOCKS``.
        recent_events: events of the tape that are seen besides.

    Raises:
        ValueError: if an argument is not allowed.
        TypeError: if a term of the reward has no such parameter.
    """

    term_names: tuple[str, ...] = ("spread", "inventory", "fees", "liquidation", "unfilled", "penalty")
    known_terms: ClassVar = position_terms(term_names)
    agent_name = "maker"
    option_names: tuple[str, ...] = ("size", "inventory_limit")
    presets = MAKING_ACTIONS
    opening = staticmethod(open_quotes)
    deciding = (position_step.decide, position_step.decide_parallel)
    quoting = True
    number_rule = "four numbers from -1 to 1, distance of the bid and of the ask, skew and size"

    def __init__(
        self,
        interval: int | None = None,
        decisions: int = 64,
        size: int | None = None,
        inventory_limit: int | None = None,
        inventory_penalty: int = 0,
        penalty_shape: str = "linear",
        discrete: bool = False,
        reward: Any = None,
        observation: str = "flat",
        blocks: Any = None,
        recent_events: int = 0,
    ):
        super().__init__(
            interval, decisions, inventory_penalty, penalty_shape, discrete, reward, observation, blocks, recent_events
        )
        self.size, self.inventory_limit = _fitting(lots("size", size), lots("inventory_limit", inventory_limit))

    def plan(self, options: dict[str, Any]) -> list[tuple[int | None, int | None]]:
        """Size and limit of each row, as ``options`` or the constructor fix them."""
        n = len(self.state)
        sizes = [lots("size", value) for value in per_row("size", options.get("size"), n)]
        limits = per_row("inventory_limit", options.get("inventory_limit"), n)
        limits = [lots("inventory_limit", value) for value in limits]
        return [
            _fitting(self.size if size is None else size, self.inventory_limit if limit is None else limit)
            for size, limit in zip(sizes, limits, strict=True)
        ]

    def limits(self, scale: np.ndarray, fixed: tuple[int | None, int | None]) -> tuple[int, int]:
        """Limit and largest quote of one row."""
        size, limit = fixed
        if limit is None:
            limit = max(usual_orders(scale, LIMIT_ORDERS), size or 1)
        return limit, min(usual_orders(scale, SIZE_ORDERS), limit) if size is None else size

    def _possible(self, state: np.ndarray, resting: np.ndarray, prices: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """A distance below 0 takes a price between the touches."""
        distance, spread = self.presets[:, :2].min(axis=1), state["spread"][:, None]
        inside = np.floor((1.0 + distance) * spread + 0.5)  # of the bid from the mid, half ticks; see position_orders
        return (distance >= 0.0) | ((spread - inside) // 2 >= 1)

    def start_info(self) -> dict[str, np.ndarray]:
        """Limit and largest quote in lots, and what all have that hold a position."""
        state = self.state
        return {
            "inventory_limit": state["limit"].copy(),
            "size": state["size"].copy(),
            **super().start_info(),
        }


def _fitting(size: int | None, limit: int | None) -> tuple[int | None, int | None]:
    if size is not None and limit is not None and size > limit:
        raise ValueError(f"size is {size}; it must be at most inventory_limit, {limit}")
    return size, limit
