"""The execution role: buy or sell a parent order within a number of decisions, near the arrival mid."""

from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.envs import observation
from tradefm_gym.envs.execution_ledger import STATE, settle_interval
from tradefm_gym.envs.execution_orders import close_interval, open_interval
from tradefm_gym.envs.execution_parent import MAX_QUANTITY, Parent, usual_parent
from tradefm_gym.envs.observation import fill_observations
from tradefm_gym.envs.seat import HALF_TICK, RESTING
from tradefm_gym.envs.seat_role import SeatRole, per_row, rings
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

SIDES = {"buy": 1, "sell": -1, 1: 1, -1: -1}

# The Discrete preset: (deviation from the schedule, aggressiveness). Number 0 is the zero action.
DISCRETE_ACTIONS = np.array(
    [(0.0, 0.0)] + [(a, b) for a in (-1.0, -0.5, 0.0, 0.5, 1.0) for b in (-0.5, 0.0, 0.5, 1.0) if (a, b) != (0.0, 0.0)],
    np.float32,
)


class ExecutionRole(SeatRole):
    """Works a parent order along a schedule that starts as TWAP and that the agent bends.

    Action ``[deviation, aggressiveness]`` in [-1, 1]. The deviation multiplies this decision's slice of the
    schedule: -1 pauses, 0 is the TWAP slice, +1 asks for everything now; the schedule is cumulative and
    keeps fractions of lots. What the schedule wants and is not done yet is worked for one interval: at
    aggressiveness 0 it rests at the touch of its own side, above 0 it improves that price by this part of
    the spread (+1 crosses), below 0 it rests that part of max(4, spread) ticks behind the touch. At the end
    of the interval the rest crosses if the aggressiveness was not negative, else it stays and carries over.
    So the zero action is passive TWAP: post each slice at the touch, cross what is left at its end.

    The cost is the shortfall against the arrival mid in four named terms, differences of the integer
    account: ``spread`` (fills against the mid at the decision), ``timing`` (that mid against the arrival mid:
    impact and drift), ``fees``, and ``unfilled`` (what the book could not fill at the deadline, one spread
    beyond the last visible level). The reward is minus their sum in basis points of the arrival notional.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode; fewer in a thin market, see ``execution_parent.usual_parent``.
        side: "buy" or "sell" (or 1, -1), None to draw it for each episode.
        quantity: lots, None for max(64, 10% of what the horizon usually trades), less in a thin market.
        discrete: offer ``DISCRETE_ACTIONS`` by number instead of the box.

    Raises:
        ValueError: if an argument is not allowed.
    """

    term_names: tuple[str, ...] = ("spread", "timing", "fees", "unfilled")
    agent_name = "executor"
    option_names: tuple[str, ...] = ("side", "quantity")
    blocks = observation.BLOCKS
    presets = DISCRETE_ACTIONS
    number_rule = "two numbers from -1 to 1, deviation and aggressiveness"
    state_dtype = STATE
    opening = staticmethod(open_interval)
    settling = staticmethod(settle_interval)
    filling = staticmethod(fill_observations)

    def __init__(
        self,
        interval: int | None = None,
        decisions: int = 64,
        side: str | int | None = None,
        quantity: int | None = None,
        discrete: bool = False,
    ):
        super().__init__(interval, decisions, discrete)
        self.side = _side(side)
        self.quantity = _quantity(quantity)

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Allocates the state of the market's N rows."""
        super().attach(market, seat)
        self.state["quantity"], self.state["side"] = 1, 1
        self.reasons = np.full(market.num_markets, "", object)

    def plan(self, options: dict[str, Any]) -> list[tuple[int | None, int | None]]:
        """Side and quantity of each row, as ``options`` or the constructor fix them."""
        n = len(self.state)
        sides = [_side(side) for side in per_row("side", options.get("side"), n)]
        quantities = [_quantity(quantity) for quantity in per_row("quantity", options.get("quantity"), n)]
        return [
            (self.side if side is None else side, self.quantity if quantity is None else quantity)
            for side, quantity in zip(sides, quantities, strict=True)
        ]

    def admit(self, bank: ContextBank, contexts: np.ndarray, plan: list | None = None) -> str:
        """Refuses start contexts whose market is too thin for a parent order of the usual size; see ``Role.admit``."""
        thin, paces = [], self.clock.events(self.interval, bank.scale[contexts]).tolist()
        for i, context in enumerate(contexts.tolist()):
            if (self.quantity if plan is None else plan[i][1]) is not None:
                continue
            parent = self._usual_parent(bank.scale[context], paces[i])
            if not parent.quantity:
                raise ValueError(
                    f"quantity is None, but {parent.reason} (start context {context} of {bank.origin!r}); give a "
                    "quantity, or larger decisions or interval, or other start contexts"
                )
            if parent.thin:
                thin.append((context, parent.reason))
        if not thin:
            return ""
        context, reason = thin[0]
        return f"{len(thin)} of {len(contexts)} start contexts of {bank.origin!r} are thin, such as {context}: {reason}"

    def reset(self, rows: np.ndarray, scale: np.ndarray, draws: np.ndarray, plan: list) -> None:
        """Begins an episode in ``rows``; see ``Role.reset``."""
        self.scale[rows] = scale[rows]
        paces = self.clock.events(self.interval, self.scale)
        for m in np.flatnonzero(rows).tolist():
            side, quantity = plan[m]
            self._begin(m, (1 if draws[m, 0] & 1 else -1) if side is None else side, quantity, float(paces[m]))
        self._look_first(rows)

    def _begin(self, m: int, side: int, quantity: int | None, pace: float) -> None:
        scale = self.scale[m]
        decisions, reason = self.decisions, ""
        if quantity is None:
            quantity, decisions, reason, _ = self._usual_parent(scale, pace)
        self.state[m] = np.zeros((), STATE)
        self.resting[m] = np.zeros((), RESTING)
        state = self.state[m]
        state["side"], state["quantity"], state["decisions"] = side, quantity, decisions
        state["spread"] = max(1, round(float(scale["spread"])))
        state["pace"] = pace
        state["variance"] = float(scale["volatility"]) ** 2 * state["pace"]
        state["usual_lots"] = float(scale["lots_per_event"]) * state["pace"]
        self.reasons[m] = reason

    def _usual_parent(self, scale: np.ndarray, pace: float) -> Parent:
        return usual_parent(float(scale["lots_per_event"]), pace, self.decisions, self._said_interval(pace))

    def _said_interval(self, pace: float) -> str:
        return f"{pace:g} events" if self.interval is None else f"{self.interval} {self.clock.unit}"

    def _close(self, market: Any, rows: np.ndarray) -> EventBlock:
        """Cancels and crosses what the interval left over."""
        block, seen = self._block, (self.seen, self.seen_resting)
        clock = self.market.clock_ns
        close_interval(*seen, *rings(market), rows, clock, self.seat, block.events, block.count)
        return block

    def _kept(self) -> dict[str, np.ndarray]:
        return super()._kept() | {"reasons": self.reasons}

    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of the oldest own order (N,) int64; 0 or less where there is none."""
        if not self.seen["resting"].any():
            return np.zeros(len(self.seen), np.int64)
        oldest = np.where(self.seen["resting"] > 0, self.seen_resting["order_id"][:, 0], -1)
        return np.maximum(self.view.queue_ahead(self.seat, oldest), 0)  # one on its way is nowhere

    def headline(self, row: int) -> str:
        """One line that says how far the task of a row is."""
        state = self.state[row]
        verb = "buy" if state["side"] > 0 else "sell"
        return (
            f"{verb} {state['executed']} of {state['quantity']} lots, decision {state['decision']} of "
            f"{state['decisions']}, mid {state['decision_mid2'] / 2:g} (arrival {state['arrival_mid2'] / 2:g})"
        )

    def start_info(self) -> dict[str, np.ndarray]:
        """Side (1 buys), quantity in lots, decisions, why these were cut, and the arrival mid in ticks."""
        state = self.state
        return {
            "side": state["side"].copy(),
            "quantity": state["quantity"].copy(),
            "decisions": state["decisions"].copy(),
            "reason": self.reasons.copy(),
            "arrival_mid": 0.5 * state["arrival_mid2"],
        }

    def step_info(self) -> dict[str, np.ndarray | dict[str, np.ndarray]]:
        """Decisions made, lots executed, the mid without own orders, and the terms of the cost in basis points."""
        state = self.state
        basis_points = 10_000.0 / (state["quantity"] * state["arrival_mid2"] * HALF_TICK).astype(np.float64)
        terms = {name: self.terms[:, i] * basis_points for i, name in enumerate(self.term_names)}
        return {
            "decision": state["decision"].copy(),
            "executed": state["executed"].copy(),
            "arrival_mid": 0.5 * state["arrival_mid2"],
            "mid": 0.5 * state["decision_mid2"],
            "terms": terms,
        }

    def final_info(self) -> dict[str, np.ndarray]:
        """The episode: shortfall, fill rate (part of the parent order) and maker share (part of what was filled).

        The shortfall is in basis points of the arrival notional, and per lot in half of the context's usual
        spread.
        """
        state = self.state
        cost = state["cost"].astype(np.float64)
        half_spread = np.where(self.scale["spread"] > 0, 0.5 * self.scale["spread"], 0.5)
        return {
            "shortfall_bps": 10_000.0 * cost / (state["quantity"] * state["arrival_mid2"] * HALF_TICK),
            "shortfall_half_spreads": cost / (2 * HALF_TICK * state["quantity"] * half_spread),
            "fill_rate": state["executed"] / state["quantity"],
            "maker_share": state["made"] / np.maximum(state["executed"], 1),
        }


def _side(value: Any) -> int | None:
    key = value.item() if isinstance(value, np.generic) else value
    if key is None:
        return None
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key not in SIDES:
        raise ValueError(f"side is {shortened(value)}; it must be 'buy', 'sell', 1, -1 or None")
    return SIDES[key]


def _quantity(value: Any) -> int | None:
    return None if value is None else whole("quantity", value, 1, MAX_QUANTITY)
