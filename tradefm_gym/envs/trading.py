"""The directional role: hold the position that one believes in, and pay as little as possible for getting there."""

from typing import Any, ClassVar

import numpy as np

from tradefm_gym.envs import position_step
from tradefm_gym.envs.position_orders import open_target
from tradefm_gym.envs.position_role import PositionRole, lots, position_terms, usual_orders
from tradefm_gym.envs.quoting import steps_inside
from tradefm_gym.envs.seat_role import per_row

POSITION_ORDERS = 5  # by default, in usual orders

# The Discrete preset: (target, aggressiveness). Number 0 is the zero action.
TRADING_ACTIONS = np.array(
    [(0.0, 0.0)] + [(t, a) for t in (-1.0, -0.5, 0.0, 0.5, 1.0) for a in (-0.5, 0.0, 1.0) if (t, a) != (0.0, 0.0)],
    np.float32,
)


class TradingRole(PositionRole):
    """Moves a position to a target at every decision, and is flat at the end.

    Action ``[target, aggressiveness]`` in [-1, 1]. The target is the position wanted, as part of ``max_position``
    (negative: short). What is missing to it is worked for one interval as in ``ExecutionRole``: at aggressiveness 0 it
    rests at the touch of its own side, above 0 it improves that price by this part of the spread (+1 crosses), below 0
    it rests that part of max(4, spread) ticks behind the touch. At the end of the interval the rest crosses if the
    aggressiveness was not negative, else it stays. So the zero action gets flat and stays flat.

    The gain is told in named terms: ``trading`` (lots bought and sold against the mid at the decision: the spread that
    is paid, or earned while resting), ``mark_to_market`` (lots held, marked to the next mid), ``fees``,
    ``liquidation`` (the closing trade against the mid at the last decision), ``unfilled`` (what the book could not take
    of it), and ``penalty``. The first four add up to the change of cash + inventory at the mid without own orders -
    fees, in integers; the reward is the sum of all in basis points of ``max_position`` lots at the arrival mid.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode.
        max_position: lots held at most, of either sign; None: five usual orders of the start context.
        inventory_penalty: 1/1000 ticks for each lot that is held after a decision; no money changes hands.
        penalty_shape: "linear" or "quadratic", see ``PositionRole``.
        discrete: offer ``TRADING_ACTIONS`` by number instead of the box.
        reward: terms of which the reward is the sum: those of ``known_terms``, see ``reward.read_reward``; None for all
            of the above.
        observation: "flat", or "dict" of the blocks by name.
        blocks: names of the blocks that are seen; None for ``POSITION_BLOCKS``.
        recent_events: events of the tape that are seen besides.

    Raises:
        ValueError: if an argument is not allowed.
        TypeError: if a term of the reward has no such parameter.
    """

    term_names: tuple[str, ...] = ("trading", "mark_to_market", "fees", "liquidation", "unfilled", "penalty")
    known_terms: ClassVar = position_terms(term_names)
    agent_name = "trader"
    option_names: tuple[str, ...] = ("max_position",)
    presets = TRADING_ACTIONS
    opening = staticmethod(open_target)
    deciding = (position_step.decide, position_step.decide_parallel)
    quoting = False
    number_rule = "two numbers from -1 to 1, target and aggressiveness"

    def __init__(
        self,
        interval: int | None = None,
        decisions: int = 64,
        max_position: int | None = None,
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
        self.max_position = lots("max_position", max_position)

    def plan(self, options: dict[str, Any]) -> list[int | None]:
        """The limit of each row, as ``options`` or the constructor fix it."""
        wanted = per_row("max_position", options.get("max_position"), len(self.state))
        return [self.max_position if value is None else lots("max_position", value) for value in wanted]

    def limits(self, scale: np.ndarray, fixed: int | None) -> tuple[int, int]:
        """Limit of one row, which is its largest order as well."""
        limit = usual_orders(scale, POSITION_ORDERS) if fixed is None else fixed
        return limit, limit

    def _possible(self, state: np.ndarray, resting: np.ndarray, prices: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Improving the touch takes a price between the touches."""
        return steps_inside(self.presets[:, 1], state["spread"])

    def start_info(self) -> dict[str, np.ndarray]:
        """Limit in lots, and what all have that hold a position."""
        state = self.state
        return {
            "max_position": state["limit"].copy(),
            **super().start_info(),
        }
