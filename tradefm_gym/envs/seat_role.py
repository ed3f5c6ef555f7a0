"""What all roles share: the arrays of a seat in N markets, checked actions, and the reading of tape and book."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from tradefm_gym.arguments import flag, numbers, shortened, whole
from tradefm_gym.envs.clocks import EVENTS, Clock, checked_interval
from tradefm_gym.envs.observation import LEVELS, Block, bounds
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.envs.seat import MAX_RESTING, RESTING, begin_episode, catch_up, follow_tape
from tradefm_gym.flow.protocol import SCALE
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

MAX_DECISIONS = 2048  # two order ids each


class SeatRole(ABC):
    """A seat in each of N markets. Subclasses say what is done, seen and paid; see ``roles.Role``.

    What the seat knows (``seen``) is what its orders and observations are made of; what has happened (``state``) is
    what is paid. Both are one, but for a seat whose market data are late.

    Args:
        interval: between two decisions, in units of the session's clock; None for what 16 events usually take.
        decisions: decisions of an episode.
        discrete: offer ``presets`` by number instead of the box.

    Raises:
        ValueError: if an argument is not allowed.
    """

    term_names: tuple[str, ...]
    agent_name: str  # what agents of this role are called, with a number behind it
    option_names: tuple[str, ...]  # what a reset may fix
    blocks: tuple[Block, ...]  # of the observation
    presets: np.ndarray  # (k, act) float32, the numbered actions; number 0 is the zero action
    number_rule: str  # what the numbers of an action are, for messages
    state_dtype: np.dtype
    # The role's kernels, ``staticmethod``; what they take is said where they are.
    opening: Callable[..., None]  # actions to the orders that open an interval
    settling: Callable[..., None]  # tape and account to terms and reward
    filling: Callable[..., None]  # state to observation
    spare = 1  # new orders that are read before dead ones leave the list
    chosen_fields = ("decision", "target", "crossing", "late")  # of the state, written when decisions are made

    def __init__(self, interval: int | None, decisions: int, discrete: bool):
        self.interval = checked_interval(interval)
        self.clock: Clock = EVENTS
        self.decisions = whole("decisions", decisions, 1, MAX_DECISIONS)
        self.discrete = flag("discrete", discrete)
        self.low, self.high = bounds(self.blocks)
        self.observation_space: spaces.Box = spaces.Box(self.low.copy(), self.high.copy(), dtype=np.float32)
        count, width = self.presets.shape
        self.action_space: spaces.Space = (
            spaces.Discrete(count) if self.discrete else spaces.Box(-1.0, 1.0, (width,), np.float32)
        )
        self.action_kinds, self.action_rule = "iuf", self.number_rule
        if self.discrete:
            self.action_kinds, self.action_rule = "iu", f"an integer from 0 to {count - 1}"

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Allocates the state of the market's N rows."""
        n = market.num_markets
        self.market, self.seat = market, seat
        self.late_news = market.config.data_latencies[seat] not in (None, 0)
        self.late = self.late_news or market.config.order_latencies[seat] not in (None, 0)
        self.view: Any = market.view(seat) if self.late_news else market  # what the seat sees
        self.state, self.resting, self.prices, self.sizes = self._fresh(n)
        self.seen, self.seen_resting, self.seen_prices, self.seen_sizes = (
            self._fresh(n) if self.late_news else (self.state, self.resting, self.prices, self.sizes)
        )
        self.terms = np.zeros((n, len(self.term_names)), np.int64)  # of the last decision
        self.scale = np.zeros(n, SCALE)
        self._block = EventBlock.empty(n, MAX_RESTING + 2)

    def _fresh(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """State, own orders and the book without them (prices and sizes) of N rows in which nothing has begun."""
        state = np.zeros(n, self.state_dtype)
        state["decisions"] = 1
        room = MAX_RESTING + (MAX_RESTING if self.late else 0) + self.spare  # what was sent long ago arrives at once
        levels = np.zeros((n, 2, LEVELS), np.int64)
        return state, np.zeros((n, room), RESTING), levels, levels.copy()

    def check(self, actions: Any, rows: np.ndarray) -> np.ndarray:
        """Actions as float32 (N, act); a sentence where one is not in the space."""
        n, (count, width) = len(self.state), self.presets.shape
        values = numbers(actions, self.action_kinds)
        shape = (n,) if self.discrete else (n, width)
        if values is None or values.shape != shape:
            each = f", for each of {n} markets, as an array of shape {shape}"
            raise ValueError(f"action is {shortened(actions)}; it must be {self.action_rule}{each}")
        if self.discrete:
            wrong = rows & ((values < 0) | (values >= count))
        else:
            if values.dtype != np.float32:
                with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
                    values = values.astype(np.float32)
            wrong = rows & ~(np.abs(values) <= 1.0).all(axis=1)  # a NaN fails this too
        if wrong.any():
            row = int(np.argmax(wrong))
            where = f" of row {row}" if n > 1 else ""
            raise ValueError(f"action{where} is {values[row].tolist()}; it must be {self.action_rule}")
        return self.presets[np.where(rows, values, 0)] if self.discrete else values

    def orders(self, rows: np.ndarray, actions: np.ndarray) -> EventBlock:
        """Orders that open the interval; the block is reused by the next call."""
        block, clock = self._block, self.market.clock_ns
        book = self.seen_resting, self.seen_prices, self.seen_sizes
        self.opening(self.seen, *book, actions, rows, clock, self.seat, block.events, block.count)
        if self.late_news:
            for name in self.chosen_fields:
                self.state[name][rows] = self.seen[name][rows]
            for name in ("worst_fill", "flow", "bought", "sold"):
                self.state[name][rows] = 0
        return block

    def follow(self, rows: np.ndarray) -> None:
        """Reads the tape in the midst of an interval; see ``Role.follow``."""
        follow_tape(self.state, self.resting, *rings(self.market), rows, self.seat)
        if self.late_news:
            follow_tape(self.seen, self.seen_resting, *rings(self.view), rows, self.seat)

    def closing(self, rows: np.ndarray) -> EventBlock:
        """Orders that close the interval; the block is reused by the next call."""
        self._check_tape(rows)
        self._note_account(rows)
        return self._close(self.view, rows)

    def ending(self, rows: np.ndarray) -> np.ndarray:
        """Rows (N,) bool of these whose last interval is over and whose orders take time; see ``Role.ending``."""
        return rows & (self.seen["decision"] + 1 == self.seen["decisions"]) & self.late

    def finish(self, rows: np.ndarray) -> EventBlock:
        """The order that ends the task; see ``Role.finish``."""
        if self.late_news:  # at the end a seat is told all at once
            self.follow(rows)
            for seen, true in (
                (self.seen, self.state),
                (self.seen_resting, self.resting),
                (self.seen_prices, self.prices),
                (self.seen_sizes, self.sizes),
            ):
                seen[rows] = true[rows]
        self._note_account(rows)
        return self._close(self.market, rows)

    @abstractmethod
    def _close(self, market: Any, rows: np.ndarray) -> EventBlock:
        """Orders that close the interval, as what a market (or the view of it) shows of it demands."""

    def _note_account(self, rows: np.ndarray) -> None:
        """Keeps what a ledger needs of the account as it is before the closing orders."""

    def settle(self, rows: np.ndarray) -> Outcome:
        """Books the interval from the account and looks at the book again."""
        n, market = len(self.state), self.market
        outcome = Outcome(np.zeros(n), np.zeros_like(self.terms), np.zeros(n, np.bool_))
        self.settling(
            self.state,
            self.resting,
            *rings(market),
            market.accounts,
            *self._depth(market),
            self.prices,
            self.sizes,
            rows,
            self.seat,
            market.config.taker_fee,
            market.config.taker_rate,
            *self._charges(),
            outcome.terms,
            outcome.reward,
            outcome.terminated,
        )
        self.terms = outcome.terms
        if self.late_news:
            self._catch_up(rows, outcome.terminated)
        return outcome

    def _catch_up(self, rows: np.ndarray, over: np.ndarray) -> None:
        """Lets what the seat knows follow its view; in rows in which its task is over, the market."""
        catch_up(
            self.seen,
            self.seen_resting,
            *rings(self.view),
            self.view.accounts,
            *self._depth(self.view),
            self.seen_prices,
            self.seen_sizes,
            rows & ~over,
            self.seat,
        )
        self.seen[over] = self.state[over]
        self.seen_prices[over], self.seen_sizes[over] = self.prices[over], self.sizes[over]

    def _depth(self, market: Any) -> tuple[np.ndarray, np.ndarray]:
        """The best levels, from which the kernels take own orders; those of a late seat may be too many for that."""
        return market.depth(LEVELS + 1, excluding=self.seat) if self.late else market.depth(LEVELS + 1)

    def observe(self) -> np.ndarray:
        """Observations (N, obs) float32, fresh; their blocks are those of ``blocks``."""
        out = np.empty((len(self.state), len(self.low)), np.float32)
        self.filling(
            self.seen,
            self.seen_resting,
            self.scale,
            self.seen_prices,
            self.seen_sizes,
            self.market.clock_ns,
            self._queue_ahead(),
            self.low,
            self.high,
            out,
        )
        return out

    def snapshot(self, rows: np.ndarray) -> RowState:
        """What the role keeps of the rows; see ``Role.snapshot``."""
        names = inspect.signature(type(self)).parameters
        settings = ", ".join(f"{name}={getattr(self, name, None)!r}" for name in names)
        return RowState.of(f"role {type(self).__name__}({settings})", self._kept(), rows)

    def restore(self, state: RowState, rows: np.ndarray) -> None:
        """Writes a snapshot to the rows; see ``Role.restore``."""
        self.terms = self.terms.copy()  # what a caller got at the last step stays as it is
        state.put(self._kept(), rows)

    def _kept(self) -> dict[str, np.ndarray]:
        """All arrays (N, ...) that outlive a decision."""
        names = ["state", "resting", "prices", "sizes", "terms", "scale"]
        if self.late_news:
            names += ["seen", "seen_resting", "seen_prices", "seen_sizes"]
        return {name: getattr(self, name) for name in names}

    def _charges(self) -> tuple:
        """What ``settling`` takes besides the fees of the market."""
        return ()

    @abstractmethod
    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of own orders, as ``filling`` reads them."""

    def resting_orders(self, row: int) -> dict[int, int]:
        """Own resting lots by price (ticks) in one row, for pictures."""
        found: dict[int, int] = {}
        for order in self.seen_resting[row, : self.seen["own_count"][row]]:
            found[int(order["price"])] = found.get(int(order["price"]), 0) + int(order["size"])
        return found

    def _look_first(self, rows: np.ndarray) -> None:
        """Begins an episode in rows whose tasks are fixed; refuses start states without a mid."""
        market = self.market
        self.state["late"][rows] = self.late
        begin_episode(
            self.state,
            self.resting,
            market.tape.records,
            market.tape.record_count,
            market.tape.fill_count,
            *self._depth(market),
            self.prices,
            self.sizes,
            rows,
            market.mid2,
            market.clock_ns,
        )
        if self.late_news:
            self.seen[rows], self.seen_resting[rows] = self.state[rows], self.resting[rows]
            self.seen_prices[rows], self.seen_sizes[rows] = self.prices[rows], self.sizes[rows]
        wrong = rows & (self.state["arrival_mid2"] <= 0)
        if wrong.any():
            row = np.argmax(wrong)
            raise ValueError(f"context of row {row} has no mid price; a start state needs orders on both sides")

    def _check_tape(self, rows: np.ndarray) -> None:
        """An interval must not have overwritten what it wrote; rows in which the role rests may go on without it."""
        for state, market in ((self.state, self.market), (self.seen, self.view)):
            tape = market.tape
            for name in ("fills", "records"):
                ring, count = getattr(tape, name), getattr(tape, f"{name[:-1]}_count")
                if (count - state[name])[rows].max(initial=0) > ring.shape[1]:
                    raise RuntimeError(f"{name} of one interval overran the tape of {ring.shape[1]}; use a longer tape")
            if not self.late_news:
                break


def rings(market: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The tape of a market or a view as kernels take it."""
    tape = market.tape
    return tape.records, tape.record_count, tape.fills, tape.fill_count


def per_row(name: str, value: Any, n: int) -> list[Any]:
    """One value for all rows, or a value for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != n:
            raise ValueError(f"{name} in options has {len(value)} values; it must have one or {n}")
        return list(value)
    return [value] * n
