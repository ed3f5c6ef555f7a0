"""The execution role: buy or sell a parent order within a number of decisions, near the arrival mid."""

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tradefm_gym.arguments import one_of, shortened, whole
from tradefm_gym.envs import execution_step
from tradefm_gym.envs import observation as seen
from tradefm_gym.envs.execution_ledger import STATE, begin_tasks, settle_interval
from tradefm_gym.envs.execution_orders import POV, TWAP, VWAP, close_interval, open_interval
from tradefm_gym.envs.execution_parent import MAX_QUANTITY, PARTICIPATION, Parent, usual_parent
from tradefm_gym.envs.knowledge import rings
from tradefm_gym.envs.observation import Block, fill_observations
from tradefm_gym.envs.quoting import steps_inside
from tradefm_gym.envs.reward import booked, real
from tradefm_gym.envs.reward_terms import EXECUTION
from tradefm_gym.envs.seat import HALF_TICK, RESTING
from tradefm_gym.envs.seat_role import SeatRole, per_row
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.market.book import MAX_PRICE, MIN_PRICE
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

SIDES = {"buy": 1, "sell": -1, 1: 1, -1: -1}
SCHEDULES = {"twap": TWAP, "vwap": VWAP, "pov": POV}
MAX_LIMIT_BPS = 5_000.0
LEAST_PARTICIPATION = 1e-6
_NO_TASK, _NO_ORDER = np.zeros(1, STATE), np.zeros(1, RESTING)

# The Discrete preset: (deviation from the schedule, aggressiveness). Number 0 is the zero action.
DISCRETE_ACTIONS = np.array(
    [(0.0, 0.0)] + [(a, b) for a in (-1.0, -0.5, 0.0, 0.5, 1.0) for b in (-0.5, 0.0, 0.5, 1.0) if (a, b) != (0.0, 0.0)],
    np.float32,
)


class Task(NamedTuple):
    """What is fixed of one row's episode; None: to be drawn or made to measure, or no limit."""

    side: int | None
    quantity: int | None
    participation: float
    limit_bps: float | None
    limit_price: int | None


class ExecutionRole(SeatRole):
    """Works a parent order along a schedule that starts as TWAP and that the agent bends.

    Action ``[deviation, aggressiveness]`` in [-1, 1]. The deviation multiplies this decision's slice of the
    schedule: -1 pauses, 0 is the TWAP slice, +1 asks for everything now; the schedule is cumulative and
    keeps fractions of lots. What the schedule wants and is not done yet is worked for one interval: at
    aggressiveness 0 it rests at the touch of its own side, above 0 it improves that price by this part of
    the spread (+1 crosses), below 0 it rests that part of max(4, spread) ticks behind the touch. At the end
    of the interval the rest crosses if the aggressiveness was not negative, else it stays and carries over.
    So the zero action is passive TWAP: post each slice at the touch, cross what is left at its end.

    With another ``schedule`` the slices are others. "vwap": the part of the episode's volume that will have traded by
    the end of the interval, as it is expected now (what others have traded so far, and the usual volume of what
    remains). "pov": ``participation`` times what others have traded since the last decision; what it leaves at the
    deadline crosses. With a limit no order goes beyond it, at the deadline neither: what is left then is ``unfilled``.

    The cost is the shortfall against the arrival mid in four named terms, differences of the integer
    account: ``spread`` (fills against the mid at the decision), ``timing`` (that mid against the arrival mid:
    impact and drift), ``fees``, and ``unfilled`` (what the book could not fill at the deadline, one spread
    beyond the last visible level). The reward is minus their sum in basis points of the arrival notional.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode; fewer in a thin market, see ``execution_parent.usual_parent``.
        side: "buy" or "sell" (or 1, -1), None to draw it for each episode.
        quantity: lots, None for max(64, ``participation`` of what the horizon usually trades), less in a thin market.
        discrete: offer ``DISCRETE_ACTIONS`` by number instead of the box.
        schedule: what the zero action keeps to: "twap", "vwap" or "pov".
        participation: part of others' volume that POV takes, and of the usual one that a usual order is.
        limit_bps: no lot costs more than this many basis points beyond the arrival mid (in ticks, rounded to the safe
            side); None for no limit.
        limit_price: the same as a price in ticks.
        reward: terms of which the reward is the sum: those of ``known_terms``, see ``reward.read_reward``; None for the
            four above.
        observation: "flat", or "dict" of the blocks by name.
        blocks: names of the blocks that are seen; None for ``observation.BLOCKS``. There is a block "limit", too.
        recent_events: events of the tape that are seen besides.

    Raises:
        ValueError: if an argument is not allowed.
        TypeError: if a term of the reward has no such parameter.
    """

    term_names: tuple[str, ...] = ("spread", "timing", "fees", "unfilled")
    agent_name = "executor"
    option_names: tuple[str, ...] = ("side", "quantity", "participation", "limit_bps", "limit_price")
    known_terms: ClassVar = {name: booked(name) for name in term_names} | {
        "shortfall": booked(*term_names, name="shortfall"),
        **EXECUTION,
    }
    sign = -1
    blocks = seen.BLOCKS
    optional_blocks = (
        Block("limit", 1, -10.0, 10.0, "distance of the limit price from the mid / usual spread; 10 without a limit"),
    )
    presets = DISCRETE_ACTIONS
    number_rule = "two numbers from -1 to 1, deviation and aggressiveness"
    state_dtype = STATE
    opening = staticmethod(open_interval)
    settling = staticmethod(settle_interval)
    filling = staticmethod(fill_observations)
    deciding = (execution_step.decide, execution_step.decide_parallel)
    chosen_fields = (*SeatRole.chosen_fields, "schedule", "base")

    def __init__(
        self,
        interval: int | None = None,
        decisions: int = 64,
        side: str | int | None = None,
        quantity: int | None = None,
        discrete: bool = False,
        schedule: str = "twap",
        participation: float = PARTICIPATION,
        limit_bps: float | None = None,
        limit_price: int | None = None,
        reward: Any = None,
        observation: str = "flat",
        blocks: Any = None,
        recent_events: int = 0,
    ):
        super().__init__(interval, decisions, discrete, reward, observation, blocks, recent_events)
        self.side = _side(side)
        self.quantity = _quantity(quantity)
        self.schedule = one_of("schedule", schedule, tuple(SCHEDULES))
        self.participation = _participation(participation)
        self.limit_bps, self.limit_price = _limits(limit_bps, limit_price)

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Allocates the state of the market's N rows."""
        super().attach(market, seat)
        for known in (self.true, self.seen):
            known.state["quantity"], known.state["side"], known.state["arrival_mid2"] = 1, 1, 2
        self.reasons = np.full(market.num_markets, "", object)

    def plan(self, options: dict[str, Any]) -> list[Task]:
        """The task of each row, as ``options`` or the constructor fix it."""
        n = len(self.state)
        if not options or all(options.get(name) is None for name in self.option_names):
            return [self._task(dict.fromkeys(self.option_names))] * n
        given = {name: per_row(name, options.get(name), n) for name in self.option_names}
        return [self._task({name: values[m] for name, values in given.items()}) for m in range(n)]

    def _task(self, given: dict[str, Any]) -> Task:
        """What is given of one row (None: not), filled up with what the constructor fixes."""
        side, quantity, participation = _side(given["side"]), _quantity(given["quantity"]), given["participation"]
        limits = _limits(given["limit_bps"], given["limit_price"])
        return Task(
            self.side if side is None else side,
            self.quantity if quantity is None else quantity,
            self.participation if participation is None else _participation(participation),
            *((self.limit_bps, self.limit_price) if limits == (None, None) else limits),
        )

    def admit(self, bank: ContextBank, contexts: np.ndarray, plan: list | None = None) -> str:
        """Refuses start contexts whose market is too thin for a parent order of the usual size; see ``Role.admit``."""
        thin, paces = [], self.clock.events(self.interval, bank.scale[contexts]).tolist()
        for i, context in enumerate(contexts.tolist()):
            if (self.quantity if plan is None else plan[i].quantity) is not None:
                continue
            part = self.participation if plan is None else plan[i].participation
            parent = self._usual_parent(float(bank.scale[context]["lots_per_event"]), paces[i], part)
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
        chosen = rows.nonzero()[0]
        usual = self.scale[chosen] = scale[chosen]
        paces, tasks = self.clock.events(self.interval, usual), [plan[m] for m in chosen.tolist()]
        parents = [
            self._parent(*one) for one in zip(tasks, usual["lots_per_event"].tolist(), paces.tolist(), strict=True)
        ]
        orders = [
            (task.side or 0, parent.quantity, parent.decisions) for task, parent in zip(tasks, parents, strict=True)
        ]
        participation = np.array([task.participation for task in tasks], np.float64)
        begin_tasks(
            self.state, self.resting, chosen, draws, usual, np.array(orders, np.int64).reshape(-1, 3), paces,
            participation, SCHEDULES[self.schedule], _NO_TASK, _NO_ORDER,
        )  # fmt: skip
        self.reasons[chosen] = [parent.reason for parent in parents]
        self._look_first(chosen)
        for m, task in zip(chosen.tolist(), tasks, strict=True):
            if task.limit_bps is not None or task.limit_price is not None:
                self.state[m]["limit"] = _limit_ticks(task, self.state[m])
        self._know_first(rows)

    def _parent(self, task: Task, lots_per_event: float, pace: float) -> Parent:
        if task.quantity is not None:
            return Parent(task.quantity, self.decisions, "", False)
        return self._usual_parent(lots_per_event, pace, task.participation)

    def _usual_parent(self, lots_per_event: float, pace: float, participation: float) -> Parent:
        said = f"{pace:g} events" if self.interval is None else f"{self.interval} {self.clock.unit}"
        return usual_parent(lots_per_event, pace, self.decisions, participation, said)

    @staticmethod
    def held(state: np.ndarray) -> np.ndarray:
        """Lots (N,) that are still to be traded."""
        return state["quantity"] - state["executed"]

    @staticmethod
    def most(state: np.ndarray) -> np.ndarray:
        """The parent order, lots (N,)."""
        return state["quantity"]

    @staticmethod
    def gained(state: np.ndarray) -> np.ndarray:
        """Minus the shortfall so far (N,) int64."""
        return -state["cost"]

    def _possible(self, state: np.ndarray, resting: np.ndarray, prices: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Improving the touch takes a price between the touches, crossing an opposite touch within the limit."""
        side, aggressiveness = state["side"][:, None], self.presets[:, 1]
        inside = steps_inside(aggressiveness, state["spread"])
        opposite = np.where(side > 0, prices[:, 1, :1], prices[:, 0, :1])
        limit = state["limit"][:, None]
        beyond = (limit > 0) & (side * opposite > side * limit)
        return np.where(aggressiveness < 1.0, inside, ~beyond)

    def _see_limit(self) -> np.ndarray:
        state, spread = self.seen.state, np.maximum(self.scale["spread"], 1.0)
        distance = state["side"] * (state["limit"] - 0.5 * state["decision_mid2"]) / spread
        return np.where(state["limit"] > 0, distance, 10.0)[:, None]

    def _sides(self) -> np.ndarray:
        return self.state["side"]

    def _close(self, market: Any, rows: np.ndarray) -> EventBlock:
        """Cancels and crosses what the interval left over."""
        block, seen = self.block, (self.seen.state, self.seen.resting)
        clock = self.market.clock_ns
        close_interval(*seen, *rings(market), rows, clock, self.seat, block.events, block.count)
        return block

    def _kept(self) -> dict[str, np.ndarray]:
        return super()._kept() | {"reasons": self.reasons}

    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of the oldest own order (N,) int64; 0 or less where there is none."""
        if not self.seen.state["resting"].any():
            return np.zeros(len(self.seen.state), np.int64)
        oldest = np.where(self.seen.state["resting"] > 0, self.seen.resting["order_id"][:, 0], -1)
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
        terms = dict(zip(self.term_names, self.terms.T * basis_points, strict=True))
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


def _participation(value: Any) -> float:
    return real("participation", value, LEAST_PARTICIPATION, 1.0)


def _limits(bps: Any, price: Any) -> tuple[float | None, int | None]:
    """A limit in one of its two forms."""
    if bps is not None and price is not None:
        raise ValueError(f"limit_bps is {shortened(bps)} and limit_price {shortened(price)}; one of them must be None")
    bps = None if bps is None else real("limit_bps", bps, -MAX_LIMIT_BPS, MAX_LIMIT_BPS)
    return bps, None if price is None else whole("limit_price", price, MIN_PRICE, MAX_PRICE)


def _limit_ticks(task: Task, state: np.ndarray) -> int:
    """The worst price (ticks) that a row may trade at; 0 for any."""
    if task.limit_bps is None:
        return task.limit_price or 0
    side = int(state["side"])
    price = 0.5 * int(state["arrival_mid2"]) * (1.0 + side * task.limit_bps / 10_000.0)
    return min(max(math.floor(price) if side > 0 else math.ceil(price), MIN_PRICE), MAX_PRICE)
