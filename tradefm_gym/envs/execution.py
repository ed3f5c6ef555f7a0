"""The execution role: buy or sell a parent order within a number of decisions, near the arrival mid."""

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from tradefm_gym.envs import observation
from tradefm_gym.envs.execution_ledger import HALF_TICK, MAX_RESTING, RESTING, STATE, begin_episode, settle_interval
from tradefm_gym.envs.execution_orders import close_interval, open_interval
from tradefm_gym.envs.observation import LEVELS, fill_observations
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.flow.protocol import SCALE
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

SIDES = {"buy": 1, "sell": -1, 1: 1, -1: -1}
LEAST_PARENT = 64  # lots: below it a parent order cannot be divided finely enough to say anything
PARTICIPATION = 0.1  # of the volume that the horizon usually brings
MAX_DECISIONS = 2048  # two order ids each; the schedule's integers hold this many
MAX_QUANTITY = 2**31 - 1
CUT_REASON = "the context usually trades {expected:.0f} lots within the horizon, fewer than 64: one decision a lot"

# The Discrete preset: (deviation from the schedule, aggressiveness). Number 0 is the zero action.
DISCRETE_ACTIONS = np.array(
    [(0.0, 0.0)] + [(a, b) for a in (-1.0, -0.5, 0.0, 0.5, 1.0) for b in (-0.5, 0.0, 0.5, 1.0) if (a, b) != (0.0, 0.0)],
    np.float32,
)


class ExecutionRole:
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
        interval: background events between two decisions.
        decisions: decisions of an episode; fewer where the context trades less than 64 lots.
        side: "buy" or "sell" (or 1, -1), None to draw it for each episode.
        quantity: lots, None for max(64, 10% of what the horizon usually trades).
        discrete: offer ``DISCRETE_ACTIONS`` by number instead of the box.
    """

    term_names: tuple[str, ...] = ("spread", "timing", "fees", "unfilled")

    def __init__(
        self,
        interval: int = 16,
        decisions: int = 64,
        side: str | int | None = None,
        quantity: int | None = None,
        discrete: bool = False,
    ):
        self.interval = _whole("interval", interval, 1, 2**31 - 1)
        self.decisions = _whole("decisions", decisions, 1, MAX_DECISIONS)
        self.side = _side(side)
        self.quantity = _quantity(quantity)
        self.discrete = bool(discrete)
        self.observation_space: spaces.Box = spaces.Box(
            observation.LOW.copy(), observation.HIGH.copy(), dtype=np.float32
        )
        self.action_space: spaces.Space = (
            spaces.Discrete(len(DISCRETE_ACTIONS)) if discrete else spaces.Box(-1.0, 1.0, (2,), np.float32)
        )

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Allocates the state of the market's N rows."""
        n = market.num_markets
        self.market, self.seat = market, seat
        self.state = np.zeros(n, STATE)
        self.state["quantity"], self.state["decisions"], self.state["side"] = 1, 1, 1
        self.resting = np.zeros((n, MAX_RESTING + 1), RESTING)  # one more: a new order is read before dead ones go
        self.prices = np.zeros((n, 2, LEVELS), np.int64)  # the book without own orders
        self.sizes = np.zeros((n, 2, LEVELS), np.int64)
        self.reasons = np.full(n, "", object)
        self.terms = np.zeros((n, len(self.term_names)), np.int64)  # of the last decision
        self.scale = np.zeros(n, SCALE)
        self._block = EventBlock.empty(n, MAX_RESTING + 2)

    def plan(self, options: dict[str, Any]) -> list[tuple[int | None, int | None]]:
        """Side and quantity of each row, as ``options`` or the constructor fix them."""
        n = len(self.state)
        sides = [_side(side) for side in _per_row("side", options.get("side"), n)]
        quantities = [_quantity(quantity) for quantity in _per_row("quantity", options.get("quantity"), n)]
        return [
            (self.side if side is None else side, self.quantity if quantity is None else quantity)
            for side, quantity in zip(sides, quantities, strict=True)
        ]

    def reset(self, rows: np.ndarray, scale: np.ndarray, draws: np.ndarray, plan: list) -> None:
        """Begins an episode in ``rows``; see ``Role.reset``."""
        chosen = np.flatnonzero(rows)
        self.scale[rows] = scale[rows]
        for m in chosen.tolist():
            side, quantity = plan[m]
            self._begin(m, (1 if draws[m, 0] & 1 else -1) if side is None else side, quantity)
        market, depth = self.market, self.market.depth(LEVELS + 1)
        begin_episode(
            self.state,
            market.tape.records,
            market.tape.record_count,
            market.tape.fill_count,
            *depth,
            self.prices,
            self.sizes,
            rows,
            market.mid2,
            market.clock_ns,
            self.interval,
        )
        if (self.state["arrival_mid2"][rows] <= 0).any():
            row = chosen[self.state["arrival_mid2"][rows] <= 0][0]
            raise ValueError(f"context of row {row} has no mid price; a start state needs orders on both sides")

    def _begin(self, m: int, side: int, quantity: int | None) -> None:
        scale = self.scale[m]
        decisions, reason = self.decisions, ""
        if quantity is None:
            expected = float(scale["lots_per_event"]) * decisions * self.interval
            if expected >= LEAST_PARENT:
                quantity = min(max(LEAST_PARENT, math.floor(PARTICIPATION * expected)), MAX_QUANTITY)
            else:
                quantity = max(1, math.floor(expected))
                if quantity < decisions:
                    decisions = quantity
                    reason = CUT_REASON.format(expected=expected)
        self.state[m] = np.zeros((), STATE)
        self.resting[m] = np.zeros((), RESTING)
        state = self.state[m]
        state["side"], state["quantity"], state["decisions"] = side, quantity, decisions
        state["spread"] = max(1, round(float(scale["spread"])))
        state["variance"] = float(scale["volatility"]) ** 2 * self.interval
        self.reasons[m] = reason

    def check(self, actions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Actions as float32 (N, 2); a sentence where one is not in the space."""
        n = len(self.state)
        if self.discrete:
            numbers = np.asarray(actions)
            if numbers.shape != (n,) or numbers.dtype.kind not in "iu":
                raise ValueError(f"action has shape {numbers.shape} and dtype {numbers.dtype}; it must be {n} integers")
            wrong = rows & ((numbers < 0) | (numbers >= len(DISCRETE_ACTIONS)))
            if wrong.any():
                raise ValueError(
                    f"action {numbers[wrong][0]} is not allowed; it must be 0 to {len(DISCRETE_ACTIONS) - 1}"
                )
            return DISCRETE_ACTIONS[np.where(rows, numbers, 0)]
        values = np.asarray(actions, np.float32)
        if values.shape != (n, 2):
            raise ValueError(
                f"action has shape {values.shape}; it must be {(n, 2)}: deviation and aggressiveness a row"
            )
        if not (np.abs(values[rows]) <= 1.0).all():  # a NaN fails this too
            wrong = values[rows][~(np.abs(values[rows]) <= 1.0).all(axis=1)][0]
            raise ValueError(f"action {wrong.tolist()} is not allowed; each entry must be a number from -1 to 1")
        return values

    def orders(self, rows: np.ndarray, actions: np.ndarray) -> EventBlock:
        """Orders that open the interval; the block is reused by the next call."""
        block = self._block
        clock = self.market.clock_ns
        open_interval(
            self.state,
            self.resting,
            self.prices,
            self.sizes,
            actions,
            rows,
            clock,
            self.seat,
            block.events,
            block.count,
        )
        return block

    def closing(self, rows: np.ndarray) -> EventBlock:
        """Cancels and crosses what the interval left over; the block is reused by the next call."""
        block, tape = self._block, self.market.tape
        for name, ring, count in (("fills", tape.fills, tape.fill_count), ("records", tape.records, tape.record_count)):
            if (count - self.state[name]).max() > ring.shape[1]:
                raise RuntimeError(f"{name} of one interval overran the tape of {ring.shape[1]}; use a longer tape")
        close_interval(
            self.state,
            self.resting,
            tape.records,
            tape.record_count,
            tape.fills,
            tape.fill_count,
            rows,
            self.market.clock_ns,
            self.seat,
            block.events,
            block.count,
        )
        return block

    def settle(self, rows: np.ndarray) -> Outcome:
        """Books the interval from the account and looks at the book again."""
        n, market = len(self.state), self.market
        outcome = Outcome(np.zeros(n), np.zeros_like(self.terms), np.zeros(n, np.bool_))
        settle_interval(
            self.state,
            self.resting,
            market.tape.records,
            market.tape.record_count,
            market.tape.fills,
            market.tape.fill_count,
            market.accounts,
            *market.depth(LEVELS + 1),
            self.prices,
            self.sizes,
            rows,
            self.seat,
            market.config.taker_fee,
            outcome.terms,
            outcome.reward,
            outcome.terminated,
        )
        self.terms = outcome.terms
        return outcome

    def observe(self) -> np.ndarray:
        """Observations (N, obs) float32, fresh; the blocks are those of ``observation.BLOCKS``."""
        out = np.empty((len(self.state), observation.SIZE), np.float32)
        fill_observations(
            self.state,
            self.scale,
            self.prices,
            self.sizes,
            self.market.clock_ns,
            self._queue_ahead(),
            self.interval,
            observation.LOW,
            observation.HIGH,
            out,
        )
        return out

    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of the oldest own order (N,) int64; 0 or less where there is none."""
        if not self.state["resting"].any():
            return np.zeros(len(self.state), np.int64)
        oldest = np.where(self.state["resting"] > 0, self.resting["order_id"][:, 0], -1)
        return self.market.queue_ahead(self.seat, oldest)

    def resting_orders(self, row: int) -> dict[int, int]:
        """Own resting lots by price (ticks) in one row, for pictures."""
        state = self.state[row]
        return {int(state["own_price"]): int(state["resting"])} if state["resting"] else {}

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


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; it must be an integer from {least} to {most}")
    return int(value)


def _side(value: Any) -> int | None:
    key = value.item() if isinstance(value, np.generic) else value
    if key is None:
        return None
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key not in SIDES:
        raise ValueError(f"side is {value!r}; it must be 'buy', 'sell', 1, -1 or None")
    return SIDES[key]


def _quantity(value: Any) -> int | None:
    return None if value is None else _whole("quantity", value, 1, MAX_QUANTITY)


def _per_row(name: str, value: Any, n: int) -> list[Any]:
    """One value for all rows, or a value for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != n:
            raise ValueError(f"{name} in options has {len(value)} values; it must have one or {n}")
        return list(value)
    return [value] * n
