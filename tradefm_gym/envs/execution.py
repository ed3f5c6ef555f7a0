"""The execution role: buy or sell a parent order within a number of decisions, near the arrival mid."""

from typing import Any

import numpy as np
from gymnasium import spaces

from tradefm_gym.arguments import flag, numbers, shortened, whole
from tradefm_gym.envs import observation
from tradefm_gym.envs.execution_ledger import HALF_TICK, MAX_RESTING, RESTING, STATE, begin_episode, settle_interval
from tradefm_gym.envs.execution_orders import close_interval, open_interval
from tradefm_gym.envs.execution_parent import MAX_QUANTITY, Parent, usual_parent
from tradefm_gym.envs.observation import LEVELS, fill_observations
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.flow.protocol import SCALE, ContextBank
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

SIDES = {"buy": 1, "sell": -1, 1: 1, -1: -1}
MAX_INTERVAL = 2**20  # its tape takes some 300 MB a market
MAX_DECISIONS = 2048  # two order ids each; the schedule's integers hold this many

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
        decisions: decisions of an episode; fewer in a thin market, see ``execution_parent.usual_parent``.
        side: "buy" or "sell" (or 1, -1), None to draw it for each episode.
        quantity: lots, None for max(64, 10% of what the horizon usually trades), less in a thin market.
        discrete: offer ``DISCRETE_ACTIONS`` by number instead of the box.

    Raises:
        ValueError: if an argument is not allowed.
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
        self.interval = whole("interval", interval, 1, MAX_INTERVAL)
        self.decisions = whole("decisions", decisions, 1, MAX_DECISIONS)
        self.side = _side(side)
        self.quantity = _quantity(quantity)
        self.discrete = flag("discrete", discrete)
        self.observation_space: spaces.Box = spaces.Box(
            observation.LOW.copy(), observation.HIGH.copy(), dtype=np.float32
        )
        self.action_space: spaces.Space = (
            spaces.Discrete(len(DISCRETE_ACTIONS)) if self.discrete else spaces.Box(-1.0, 1.0, (2,), np.float32)
        )
        self.action_kinds, self.action_rule = "iuf", "two numbers from -1 to 1, deviation and aggressiveness"
        if self.discrete:
            self.action_kinds, self.action_rule = "iu", f"an integer from 0 to {len(DISCRETE_ACTIONS) - 1}"

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

    def admit(self, bank: ContextBank, contexts: np.ndarray, plan: list | None = None) -> str:
        """Refuses start contexts whose market is too thin for a parent order of the usual size; see ``Role.admit``."""
        thin = []
        for i, context in enumerate(contexts.tolist()):
            if (self.quantity if plan is None else plan[i][1]) is not None:
                continue
            parent = self._usual_parent(bank.scale[context])
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
            quantity, decisions, reason, _ = self._usual_parent(scale)
        self.state[m] = np.zeros((), STATE)
        self.resting[m] = np.zeros((), RESTING)
        state = self.state[m]
        state["side"], state["quantity"], state["decisions"] = side, quantity, decisions
        state["spread"] = max(1, round(float(scale["spread"])))
        state["variance"] = float(scale["volatility"]) ** 2 * self.interval
        self.reasons[m] = reason

    def _usual_parent(self, scale: np.ndarray) -> Parent:
        return usual_parent(float(scale["lots_per_event"]), self.interval, self.decisions)

    def check(self, actions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Actions as float32 (N, 2); a sentence where one is not in the space."""
        n = len(self.state)
        values = numbers(actions, self.action_kinds)
        shape = (n,) if self.discrete else (n, 2)
        if values is None or values.shape != shape:
            each = f", for each of {n} markets, as an array of shape {shape}"
            raise ValueError(f"action is {shortened(actions)}; it must be {self.action_rule}{each}")
        if self.discrete:
            wrong = rows & ((values < 0) | (values >= len(DISCRETE_ACTIONS)))
        else:
            if values.dtype != np.float32:
                with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                    values = values.astype(np.float32)
            wrong = rows & ~(np.abs(values) <= 1.0).all(axis=1)  # a NaN fails this too
        if wrong.any():
            row = int(np.argmax(wrong))
            where = f" of row {row}" if n > 1 else ""
            raise ValueError(f"action{where} is {values[row].tolist()}; it must be {self.action_rule}")
        return DISCRETE_ACTIONS[np.where(rows, values, 0)] if self.discrete else values

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
            market.config.taker_rate,
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


def _side(value: Any) -> int | None:
    key = value.item() if isinstance(value, np.generic) else value
    if key is None:
        return None
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key not in SIDES:
        raise ValueError(f"side is {shortened(value)}; it must be 'buy', 'sell', 1, -1 or None")
    return SIDES[key]


def _quantity(value: Any) -> int | None:
    return None if value is None else whole("quantity", value, 1, MAX_QUANTITY)


def _per_row(name: str, value: Any, n: int) -> list[Any]:
    """One value for all rows, or a value for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != n:
            raise ValueError(f"{name} in options has {len(value)} values; it must have one or {n}")
        return list(value)
    return [value] * n
