"""What all roles share: the arrays of a seat in N markets, checked actions, and the reading of tape and book."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from tradefm_gym.arguments import flag, numbers, shortened, whole
from tradefm_gym.envs.clocks import EVENTS, Clock, checked_interval
from tradefm_gym.envs.knowledge import Knowledge, rings
from tradefm_gym.envs.layout import Layout
from tradefm_gym.envs.observation import LEVELS, Block, bounds
from tradefm_gym.envs.recent_events import MOST, fill_recent, recent_block
from tradefm_gym.envs.reward import Interval, Term, gained, read_reward, settings_of
from tradefm_gym.envs.role_steps import RoleSteps
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.envs.seat import (
    HALF_TICK,
    MAX_RESTING,
    OVERRUNS,
    begin_episode,
    catch_up,
    follow_tape,
    overran,
)
from tradefm_gym.envs.stages import outside
from tradefm_gym.flow.protocol import SCALE
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.rows import NOBODY
from tradefm_gym.market.simulator import MarketSimulator

MAX_DECISIONS = 2048  # two order ids each


class SeatRole(RoleSteps, ABC):
    """A seat in each of N markets. Subclasses say what is done, seen and paid; see ``roles.Role``.

    What the seat knows (``seen``) is what its orders and observations are made of; what is so (``state`` and the rest
    of ``true``) is what is paid. Both are one, but for a seat whose market data are late.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode.
        discrete: offer ``presets`` by number instead of the box.
        reward: terms of which the reward is the sum, see ``reward.read_reward``; None for all that the ledger books.
        observation: "flat", or "dict" of the blocks by name.
        blocks: names of the blocks that are seen, in this order; None for ``blocks`` of the class.
        recent_events: events of the tape that are seen besides, see ``recent_events``.

    Raises:
        ValueError: if an argument is not allowed.
        TypeError: if a term of the reward has no such parameter.
    """

    term_names: tuple[str, ...]  # of a class those of its ledger, of an object those of its reward
    known_terms: ClassVar[Mapping[str, Callable[..., Term]]]  # what a reward may be made of
    sign = 1  # of a gain among the terms that are told
    agent_name: str  # what agents of this role are called, with a number behind it
    option_names: tuple[str, ...]  # what a reset may fix
    blocks: tuple[Block, ...]  # of the observation
    optional_blocks: tuple[Block, ...] = ()  # seen when they are chosen; filled by ``_see_<name>``
    presets: np.ndarray  # (k, act) float32, the numbered actions; number 0 is the zero action
    number_rule: str  # what the numbers of an action are, for messages
    state_dtype: np.dtype
    # The role's kernels, ``staticmethod``; what they take is said where they are.
    opening: Callable[..., None]  # actions to the orders that open an interval
    settling: Callable[..., None]  # tape and account to terms and reward
    filling: Callable[..., None]  # state to observation
    spare = 1  # new orders that are read before dead ones leave the list
    chosen_fields: tuple[str, ...] = ("target", "crossing")  # of the state, written by ``opening``

    def __init__(
        self,
        interval: int | None,
        decisions: int,
        discrete: bool,
        reward: Any = None,
        observation: str = "flat",
        blocks: Any = None,
        recent_events: int = 0,
    ):
        self.interval = checked_interval(interval)
        self.clock: Clock = EVENTS
        self.decisions = whole("decisions", decisions, 1, MAX_DECISIONS)
        self.discrete = flag("discrete", discrete)
        self.reward = read_reward(reward, self.known_terms)
        if self.reward is not None:
            self.term_names = tuple(term.name for term in self.reward)
        self.recent_events = whole("recent_events", recent_events, 0, MOST)
        stacked = recent_block(self.recent_events) if self.recent_events else None
        usual = type(self).blocks
        self.observation, self.layout = observation, Layout(usual, self.optional_blocks, observation, blocks, stacked)
        self.blocks, self.low, self.high = self.layout.blocks, self.layout.low, self.layout.high
        self._bounds = bounds(usual)
        self.observation_space: spaces.Box | spaces.Dict = self.layout.space
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
        self.late_news = bool(market.config.data_latencies[seat])
        self.late = self.late_news or bool(market.config.order_latencies[seat])
        self.view: Any = market.view(seat) if self.late_news else market  # what the seat sees
        self.true = self._fresh(n)
        self.state, self.resting, self.prices, self.sizes = self.true
        self.seen = self._fresh(n) if self.late_news else self.true
        self.terms = np.zeros((n, len(self.term_names)), np.int64)  # of the last decision
        self.scale = np.zeros(n, SCALE)
        self.block = EventBlock.empty(n, MAX_RESTING + 2)  # orders, as they are written; a session may lend another
        self._attach_steps(n)
        self._scratch = np.zeros((2, n, 2, LEVELS + 1), np.int64)
        self._before: np.ndarray | None = None  # the state as the last decision left it, of a reward that compares

    def _fresh(self, n: int) -> Knowledge:
        return Knowledge.fresh(n, self.state_dtype, self.spare, self.late)

    def check(self, actions: Any, rows: np.ndarray) -> np.ndarray:
        """Actions as float32 (N, act); a sentence where one is not in the space."""
        if self._is_plain(actions) and outside(actions, rows) == 0:
            return actions
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

    def action_masks(self) -> np.ndarray:
        """Which of ``presets`` can be done as they say now (N, k) bool; number 0 always can.

        Another one is no error: what comes nearest to it is done.
        """
        masks = self._possible(*self.seen)
        masks[:, 0] = True
        return masks

    @abstractmethod
    def _possible(self, state: np.ndarray, resting: np.ndarray, prices: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """``action_masks`` of what a seat knows."""

    def orders(self, rows: np.ndarray, actions: np.ndarray) -> EventBlock:
        """Orders that open the interval; the block is reused by the next call."""
        block, clock = self.block, self.market.clock_ns
        if self.reward is not None:
            self._before = self.state.copy()
        self.opening(*self.seen, actions, rows, clock, self.seat, block.events, block.count)
        if self.late_news:
            for name in self.chosen_fields:
                self.state[name][rows] = self.seen.state[name][rows]
            for name in ("worst_fill", "flow", "bought", "sold"):
                self.state[name][rows] = 0
        return block

    def follow(self, rows: np.ndarray) -> None:
        """Reads the tape in the midst of an interval; see ``Role.follow``."""
        follow_tape(self.state, self.resting, *rings(self.market), rows, self.seat)
        if self.late_news:
            follow_tape(self.seen.state, self.seen.resting, *rings(self.view), rows, self.seat)

    def closing(self, rows: np.ndarray) -> EventBlock:
        """Orders that close the interval; the block is reused by the next call."""
        self._check_tape(rows)
        self._note_account(rows)
        return self._close(self.view, rows)

    def ending(self, rows: np.ndarray) -> np.ndarray:
        """Rows (N,) bool of these whose last interval is over and whose orders take time; see ``Role.ending``."""
        return rows & (self.state["decision"] + 1 == self.state["decisions"]) & self.late

    def finish(self, rows: np.ndarray) -> EventBlock:
        """The order that ends the task; see ``Role.finish``."""
        if self.late_news:  # at the end a seat is told all at once
            self.follow(rows)
            self.seen.take(self.true, rows)
        self._note_account(rows)
        return self._close(self.market, rows)

    @abstractmethod
    def _close(self, market: Any, rows: np.ndarray) -> EventBlock:
        """Orders that close the interval, as what a market (or the view of it) shows of it demands."""

    def _note_account(self, rows: np.ndarray) -> None:
        """Keeps the account before the closing orders where a ledger tells them apart.

        ``_close`` does so in what the seat knows, which is what is so unless its news are late.
        """
        if self.late_news and "closing_cash" in (self.state_dtype.names or ()):
            mine = self.market.accounts[:, self.seat]
            for name in ("cash", "inventory"):
                self.state[f"closing_{name}"][rows] = mine[name][rows]

    def settle(self, rows: np.ndarray) -> Outcome:
        """Books the interval from the account and looks at the book again."""
        n, market, ledger = len(self.state), self.market, type(self).term_names
        outcome = Outcome(np.zeros(n), np.zeros((n, len(ledger)), np.int64), np.zeros(n, np.bool_))
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
        if self.reward is not None:
            outcome = self._rewarded(outcome, rows)
        self.terms = outcome.terms
        if self.late_news:
            self._catch_up(rows, outcome.terminated)
        return outcome

    def _rewarded(self, outcome: Outcome, rows: np.ndarray) -> Outcome:
        """The terms that were chosen in the place of those of the ledger; their sum is the reward."""
        booked = {name: self.sign * outcome.terms[:, i] for i, name in enumerate(type(self).term_names)}
        unit = self.notional(self.state) / 10_000.0
        before = self.state if self._before is None else self._before
        seen = Interval(before, self.state, booked, outcome.terminated, unit, self.held, self.most, self.gained)
        gains = np.stack([np.where(rows, gained(term, seen), 0) for term in self.reward or ()], axis=1)
        reward = 10_000.0 * gains.sum(axis=1).astype(np.float64) / self.notional(self.state)
        return Outcome(reward, self.sign * gains, outcome.terminated)

    @staticmethod
    @abstractmethod
    def held(state: np.ndarray) -> np.ndarray:
        """Lots (N,) that are open; see ``reward.Interval``."""

    @staticmethod
    @abstractmethod
    def most(state: np.ndarray) -> np.ndarray:
        """The most lots (N,) that may be open."""

    @staticmethod
    @abstractmethod
    def gained(state: np.ndarray) -> np.ndarray:
        """All that the ledger has booked, as a gain (N,) int64."""

    def notional(self, state: np.ndarray) -> np.ndarray:
        """What ``most`` was worth at arrival (N,) float64, 1/1000 tick-lots."""
        return (self.most(state) * state["arrival_mid2"] * HALF_TICK).astype(np.float64)

    def _catch_up(self, rows: np.ndarray, over: np.ndarray) -> None:
        """Lets what the seat knows follow its view; in rows in which its task is over, the market."""
        seen = self.seen
        book = (*self._depth(self.view), seen.prices, seen.sizes)
        tape = (*rings(self.view), self.view.accounts)
        catch_up(seen.state, seen.resting, *tape, *book, rows & ~over, self.seat)
        seen.take(self.true, over)

    def _depth(self, market: Any) -> tuple[np.ndarray, np.ndarray]:
        """The best levels, from which the kernels take own orders; those of a late seat may be too many for that."""
        return market.depth(LEVELS + 1, excluding=self.seat) if self.late else market.depth(LEVELS + 1)

    def observe(self) -> np.ndarray:
        """Observations (N, obs) float32, fresh; their blocks are those of ``blocks``."""
        low, high = self._bounds
        state, resting, prices, sizes = self.seen
        out = np.empty((len(state), len(low)), np.float32)
        clock, ahead = self.market.clock_ns, self._queue_ahead()
        self.filling(state, resting, self.scale, prices, sizes, clock, ahead, low, high, out)
        return self._composed(out)

    def _composed(self, out: np.ndarray) -> np.ndarray:
        """The blocks that were chosen, made of the usual ones and of what ``_see_<name>`` gives."""
        return out if self.layout.is_usual else self.layout.compose(out, lambda name: getattr(self, f"_see_{name}")())

    def present(self, observation: np.ndarray) -> Any:
        """Observations (..., obs) in the form that ``observation_space`` has."""
        return self.layout.present(observation)

    def _see_recent_events(self) -> np.ndarray:
        out = np.empty((len(self.state), self.layout.blocks[-1].size))
        tape = self.view.tape
        fill_recent(tape.records, tape.record_count, self._sides(), self.scale, self.seat, out)
        return out

    def _sides(self) -> np.ndarray:
        """From which side the market is seen (N,) int64; without one as a buyer sees it."""
        return np.ones(len(self.state), np.int64)

    def snapshot(self, rows: np.ndarray) -> RowState:
        """What the role keeps of the rows; see ``Role.snapshot``."""
        names = inspect.signature(type(self)).parameters
        settings = ", ".join(f"{name}={settings_of(getattr(self, name, None))}" for name in names)
        return RowState.of(f"role {type(self).__name__}({settings})", self._kept(), rows)

    def restore(self, state: RowState, rows: np.ndarray) -> None:
        """Writes a snapshot to the rows; see ``Role.restore``."""
        self.terms = self.terms.copy()  # what a caller got at the last step stays as it is
        state.put(self._kept(), rows)

    def _kept(self) -> dict[str, np.ndarray]:
        """All arrays (N, ...) that outlive a decision."""
        kept = {name: getattr(self, name) for name in ("state", "resting", "prices", "sizes", "terms", "scale")}
        late = {f"seen_{name}": array for name, array in self.seen._asdict().items()} if self.late_news else {}
        return kept | late

    def _charges(self) -> tuple:
        """What ``settling`` takes besides the fees of the market."""
        return ()

    @abstractmethod
    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of own orders, as ``filling`` reads them."""

    def resting_orders(self, row: int) -> dict[int, int]:
        """Own resting lots by price (ticks) in one row, for pictures."""
        found: dict[int, int] = {}
        for order in self.seen.resting[row, : self.seen.state["own_count"][row]]:
            found[int(order["price"])] = found.get(int(order["price"]), 0) + int(order["size"])
        return found

    def _look_first(self, rows: np.ndarray) -> None:
        """Begins an episode in rows (k,) int64 whose tasks are fixed; refuses start states without a mid."""
        market, tape = self.market, self.market.tape
        self.state["late"][rows] = self.late
        counts = tape.records, tape.record_count, tape.fill_count
        depth = self._scratch[0], self._scratch[1], self.prices, self.sizes
        without, clocks = self.seat if self.late else NOBODY, (market.mid2, market.clock_ns)
        wrong = begin_episode(market.parts[0], without, self.state, self.resting, *counts, *depth, rows, *clocks)
        if wrong >= 0:
            raise ValueError(f"context of row {wrong} has no mid price; a start state needs orders on both sides")

    def _know_first(self, rows: np.ndarray) -> None:
        """Tells the seat of the rows all that is so."""
        if self.late_news:
            self.seen.take(self.true, rows)

    def _check_tape(self, rows: np.ndarray) -> None:
        """An interval must not have overwritten what it wrote; rows in which the role rests may go on without it."""
        for known, market in self._readers():
            tape = market.tape
            rings = tape.records.shape[1], tape.fills.shape[1]
            name = OVERRUNS[overran(known.state, tape.record_count, tape.fill_count, *rings, rows)]
            if name:
                ring = getattr(tape, name).shape[1]
                raise RuntimeError(f"{name} of one interval overran the tape of {ring}; use a longer tape")

    def _readers(self) -> tuple[tuple[Knowledge, Any], ...]:
        """What is known, and from which market's tape."""
        return ((self.true, self.market), (self.seen, self.view)) if self.late_news else ((self.true, self.market),)


def per_row(name: str, value: Any, n: int) -> list[Any]:
    """One value for all rows, or a value for each."""
    if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1:
        if len(value) != n:
            raise ValueError(f"{name} in options has {len(value)} values; it must have one or {n}")
        return list(value)
    return [value] * n
