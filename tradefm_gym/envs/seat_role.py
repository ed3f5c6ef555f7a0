"""What all roles share: the arrays of a seat in N markets, checked actions, and the reading of tape and book."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from tradefm_gym.arguments import flag, numbers, shortened, whole
from tradefm_gym.envs.observation import LEVELS, Block, bounds
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.envs.seat import MAX_RESTING, RESTING, begin_episode
from tradefm_gym.flow.protocol import SCALE
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

MAX_INTERVAL = 2**20  # its tape takes some 300 MB a market
MAX_DECISIONS = 2048  # two order ids each


class SeatRole(ABC):
    """A seat in each of N markets. Subclasses say what is done, seen and paid; see ``roles.Role``.

    Args:
        interval: background events between two decisions.
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

    def __init__(self, interval: int, decisions: int, discrete: bool):
        self.interval = whole("interval", interval, 1, MAX_INTERVAL)
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
        self.state = np.zeros(n, self.state_dtype)
        self.state["decisions"] = 1
        self.resting = np.zeros((n, MAX_RESTING + self.spare), RESTING)
        self.prices = np.zeros((n, 2, LEVELS), np.int64)  # the book without own orders
        self.sizes = np.zeros((n, 2, LEVELS), np.int64)
        self.terms = np.zeros((n, len(self.term_names)), np.int64)  # of the last decision
        self.scale = np.zeros(n, SCALE)
        self._block = EventBlock.empty(n, MAX_RESTING + 2)

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
        book = self.resting, self.prices, self.sizes
        self.opening(self.state, *book, actions, rows, clock, self.seat, block.events, block.count)
        return block

    def settle(self, rows: np.ndarray) -> Outcome:
        """Books the interval from the account and looks at the book again."""
        n, market = len(self.state), self.market
        outcome = Outcome(np.zeros(n), np.zeros_like(self.terms), np.zeros(n, np.bool_))
        self.settling(
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
            *self._charges(),
            outcome.terms,
            outcome.reward,
            outcome.terminated,
        )
        self.terms = outcome.terms
        return outcome

    def observe(self) -> np.ndarray:
        """Observations (N, obs) float32, fresh; their blocks are those of ``blocks``."""
        out = np.empty((len(self.state), len(self.low)), np.float32)
        self.filling(
            self.state,
            self.resting,
            self.scale,
            self.prices,
            self.sizes,
            self.market.clock_ns,
            self._queue_ahead(),
            self.interval,
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
        return {name: getattr(self, name) for name in ("state", "resting", "prices", "sizes", "terms", "scale")}

    def _charges(self) -> tuple:
        """What ``settling`` takes besides the fees of the market."""
        return ()

    @abstractmethod
    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of own orders, as ``filling`` reads them."""

    def resting_orders(self, row: int) -> dict[int, int]:
        """Own resting lots by price (ticks) in one row, for pictures."""
        found: dict[int, int] = {}
        for order in self.resting[row, : self.state["own_count"][row]]:
            found[int(order["price"])] = found.get(int(order["price"]), 0) + int(order["size"])
        return found

    def _look_first(self, rows: np.ndarray) -> None:
        """Begins an episode in rows whose tasks are fixed; refuses start states without a mid."""
        market = self.market
        begin_episode(
            self.state,
            self.resting,
            market.tape.records,
            market.tape.record_count,
            market.tape.fill_count,
            *market.depth(LEVELS + 1),
            self.prices,
            self.sizes,
            rows,
            market.mid2,
            market.clock_ns,
            self.interval,
        )
        wrong = rows & (self.state["arrival_mid2"] <= 0)
        if wrong.any():
            row = np.argmax(wrong)
            raise ValueError(f"context of row {row} has no mid price; a start state needs orders on both sides")

    def _check_tape(self, rows: np.ndarray) -> None:
        """An interval must not have overwritten what it wrote; rows in which the role rests may go on without it."""
        tape = self.market.tape
        for name, ring, count in (("fills", tape.fills, tape.fill_count), ("records", tape.records, tape.record_count)):
            if (count - self.state[name])[rows].max(initial=0) > ring.shape[1]:
                raise RuntimeError(f"{name} of one interval overran the tape of {ring.shape[1]}; use a longer tape")


def per_row(name: str, value: Any, n: int) -> list[Any]:
    """One value for all rows, or a value for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != n:
            raise ValueError(f"{name} in options has {len(value)} values; it must have one or {n}")
        return list(value)
    return [value] * n
