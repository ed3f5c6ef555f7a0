"""The closed loop over N markets, without the interface of any library."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, NamedTuple

import numba
import numpy as np

from tradefm_gym import rng
from tradefm_gym.arguments import numbers, one_of, rows_mask, shortened, whole
from tradefm_gym.envs.roles import Role
from tradefm_gym.flow.protocol import SPLITS, FlowModel
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.market.config import MAX_RATE
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

CLOCKS = ("events",)
_CONTEXT_DRAW, _ROLE_DRAW = 0, 1  # indices of the episode's own bits
_TAPE_ROOM = 4  # entries of the tape for each background event of an interval
MAX_SEATS = 2**15 - 1  # an owner is an int16
MAX_FEE = 2**31


_FEW = 64  # up to this many markets a session keeps to the calling thread


def _few_stay_in_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    """Runs a session's method without further threads where markets are few.

    A step takes dozens of short parallel loops. Two quiet cores would save a third of it; but each loop ends by
    waiting for all threads, and with one core held by another process that made a step thirty times slower.
    """

    @wraps(method)
    def wrapped(self, *args, **kwargs):
        if self.num_envs > _FEW:
            return method(self, *args, **kwargs)
        threads = numba.get_num_threads()
        numba.set_num_threads(1)
        try:
            return method(self, *args, **kwargs)
        finally:
            numba.set_num_threads(threads)

    return wrapped


class StepResult(NamedTuple):
    """One decision of N rows; rows that took no part hold zeros (their observation is their last state).

    Attributes:
        observation: (N, obs) float32.
        reward: (N,) float64.
        terms: (N, k) int64, 1/1000 tick-lots, named by ``role.term_names``.
        terminated: (N,) bool.
        truncated: (N,) bool, the flow had nothing more to offer.
    """

    observation: np.ndarray
    reward: np.ndarray
    terms: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class TradingSession:
    """N markets, one background flow and one agent's seat in each.

    A row's randomness is a pure function of its seed and its episode, so nothing about the other rows (how
    many, when they reset) can reach it.

    Args:
        num_envs: markets N.
        role: the agent's seat; it is attached to this session's market.
        flow: name of a flow, or a ``FlowModel`` made for N markets.
        clock: what a decision waits for; "events" = ``role.interval`` background events.
        split: part of the flow's start contexts to draw from: "train", "validation" or "test".
        context: id of the start context, None to draw it for each episode.
        seats: agents' seats in each market; the role takes seat 0.
        maker_fee: 1/1000 ticks a lot (negative: a rebate).
        taker_fee: 1/1000 ticks a lot.
        maker_rate: parts per million of the notional, besides the fee (negative: a rebate).
        taker_rate: parts per million of the notional, besides the fee.
        flow_options: passed on to the flow when it is given by name.

    Raises:
        ValueError: if an argument is not allowed, or the flow's start contexts do not suit the role or the market.
        TypeError: if ``flow_options`` has a name that the flow does not know.

    Warns:
        UserWarning: once, if in some start contexts the task is a lesser one than was asked for.
    """

    def __reduce__(self):
        """A session cannot be copied or pickled: its flow remembers what a market's snapshot does not hold."""
        raise TypeError(
            "a TradingSession cannot be copied or pickled; make another one and reset it with the same seed"
        )

    def __init__(
        self,
        num_envs: int,
        role: Role,
        flow: str | FlowModel = "tradefm",
        *,
        clock: str = "events",
        split: str = "train",
        context: int | None = None,
        seats: int = 1,
        maker_fee: int = 0,
        taker_fee: int = 0,
        maker_rate: int = 0,
        taker_rate: int = 0,
        flow_options: dict[str, Any] | None = None,
    ):
        if not isinstance(clock, str) or clock not in CLOCKS:
            said = shortened(clock)
            raise ValueError(f"clock is {said}; it must be 'events' (wall-time and volume clocks do not exist yet)")
        if flow_options is not None and not isinstance(flow_options, Mapping):
            raise ValueError(f"flow_options is {shortened(flow_options)}; it must be a dict or None")
        one_of("split", split, SPLITS)
        self.num_envs, self.role, self.split = whole("num_envs", num_envs, 1), role, split
        seats = whole("seats", seats, 1, MAX_SEATS)
        fees = {"maker_fee": maker_fee, "taker_fee": taker_fee}
        fees = {name: whole(name, fee, -MAX_FEE, MAX_FEE) for name, fee in fees.items()}
        rates = {"maker_rate": maker_rate, "taker_rate": taker_rate}
        fees |= {name: whole(name, rate, -MAX_RATE, MAX_RATE) for name, rate in rates.items()}
        self.flow = make_flow(flow, self.num_envs, **(flow_options or {}))
        self.contexts = self.flow.bank.split(split)
        if not len(self.contexts):
            raise ValueError(f"split is {split!r}, of which flow {self.flow.name!r} has no start context")
        config, room = self.flow.market_config(seats), _TAPE_ROOM * role.interval
        config = replace(
            config, tape=max(config.tape, room), fills=max(config.fills, room)
        )  # the role reads one interval
        self.context = self._check_context(context)
        self._check_starts(config.orders)
        self.market = MarketSimulator(self.num_envs, replace(config, **fees))
        role.attach(self.market, seat=0)
        n = self.num_envs
        self.seeds = np.zeros(n, np.uint64)
        self.episodes = np.zeros(n, np.uint32)
        self.context_of = np.zeros(n, np.int64)
        self.running = np.zeros(n, np.bool_)  # rows within an episode
        self.seeded = np.zeros(n, np.bool_)
        self._next_episode = np.zeros(n, np.uint32)

    def seed(self, rows: np.ndarray, seeds: np.ndarray) -> None:
        """Gives rows (N,) bool new seeds (N,) uint64; their next reset begins episode 0."""
        rows, values = rows_mask("rows", rows, self.num_envs), numbers(seeds, "iu")
        if values is None or values.shape != rows.shape or values.min() < 0:
            raise ValueError(f"seeds is {shortened(seeds)}; it must be {self.num_envs} non-negative integers")
        self.seeds[rows] = values[rows].astype(np.uint64)
        self.seeded |= rows
        self._next_episode[rows] = 0

    def check_options(self, options: dict[str, Any] | None) -> None:
        """Raises what ``reset`` would raise for these options, and changes nothing."""
        self._read_options(options)

    @_few_stay_in_thread
    def reset(self, rows: np.ndarray | None = None, options: dict[str, Any] | None = None) -> np.ndarray:
        """Begins the next episode in the rows.

        Args:
            rows: (N,) bool, default all.
            options: what to fix, a value or one for each row: ``context`` (an id) and what the role reads.

        Returns:
            Observations (N, obs) float32 of all rows, fresh.
        """
        n = self.num_envs
        rows = np.ones(n, np.bool_) if rows is None else rows_mask("rows", rows, n)
        fixed, plan = self._read_options(options)  # all checks come before the first change
        self.episodes[rows] = self._next_episode[rows]
        self._next_episode[rows] += np.uint32(1)
        draws = np.zeros((n, 4), np.uint32)
        for m in np.flatnonzero(rows).tolist():
            draws[m] = self._bits(m, _ROLE_DRAW)
            if fixed[m] >= 0:
                self.context_of[m] = fixed[m]
            else:
                self.context_of[m] = self.contexts[(self._bits(m, _CONTEXT_DRAW)[0] * len(self.contexts)) >> 32]
        self.market.seed(self.seeds, self.episodes, rows)
        self.flow.reset(self.market, rows, self.context_of, self.seeds, self.episodes)
        self.role.reset(rows, self.flow.bank.scale[self.context_of], draws, plan)
        self.running |= rows
        return self.role.observe()

    @_few_stay_in_thread
    def step(self, actions: np.ndarray, rows: np.ndarray | None = None) -> StepResult:
        """One decision and the interval after it.

        Args:
            actions: (N, act); those of rows that take no part are not read.
            rows: (N,) bool, default all that are within an episode.
        """
        rows = self.running.copy() if rows is None else rows_mask("rows", rows, self.num_envs) & self.running
        checked = self.role.check(actions, rows)
        self.submit(self.role.orders(rows, checked))
        exhausted = self.advance(rows, self.role.interval)
        self.submit(self.role.closing(rows))
        self.advance(rows, 0)
        reward, terms, terminated = self.role.settle(rows)
        truncated = exhausted & ~terminated
        self.running &= ~(terminated | truncated)
        return StepResult(self.role.observe(), reward, terms, terminated, truncated)

    def start_info(self) -> dict[str, Any]:
        """Columns (N,): the flow and its version, the start context, and the role's task."""
        n = self.num_envs
        return {
            "flow": np.full(n, self.flow.name, object),
            "flow_version": np.full(n, self.flow.version, object),
            "context": self.context_of.copy(),
            **self.role.start_info(),
        }

    def step_info(self) -> dict[str, Any]:
        """Columns (N,) of the last decision."""
        return self.role.step_info()

    def final_info(self) -> dict[str, Any]:
        """Columns (N,) of whole episodes, those of their start included."""
        report = getattr(self.flow, "report", None)  # what a replayed day has to say for itself
        return self.start_info() | self.role.final_info() | (report(self.market) if report else {})

    def submit(self, orders: EventBlock) -> None:
        """Hands orders of seats to the markets; they are due when they say."""
        if orders.count.any():
            self.market.submit(orders)

    def advance(self, rows: np.ndarray, events: int) -> np.ndarray:
        """Lets ``events`` background events happen in the rows, and all agents' orders that fall due.

        Returns:
            (N,) bool, rows whose flow ended before that.
        """
        market, flow = self.market, self.flow
        until = market.background_count + np.where(rows, events, 0)
        exhausted = np.zeros(self.num_envs, np.bool_)
        while (starved := market.advance(until_count=until)).any():
            block = flow.next_events(market, starved)
            ended = starved & (block.count == 0)
            if ended.any():
                exhausted |= ended
                until = np.where(ended, market.background_count, until)
            market.feed(block)
        return exhausted

    def tape_hash(self, row: int) -> str:
        """Names all that happened in a row since its start state was loaded (what the ring still holds)."""
        tape, total = self.market.tape, hashlib.sha256()
        for ring, count in ((tape.records, tape.record_count), (tape.fills, tape.fill_count)):
            written = int(count[row])
            kept = ring[row, np.arange(max(0, written - ring.shape[1]), written) % ring.shape[1]]
            # Field by field: the padding of an aligned dtype is not content.
            for field in kept.dtype.names:
                total.update(np.ascontiguousarray(kept[field]).tobytes())
        return total.hexdigest()

    def _bits(self, m: int, index: int) -> tuple[int, ...]:
        return tuple(int(word) for word in rng.bits(self.seeds[m], self.episodes[m], index, rng.EPISODE))

    def _check_context(self, context: Any) -> int | None:
        if context is None:
            return None
        if isinstance(context, bool) or not isinstance(context, (int, np.integer)):
            raise ValueError(f"context is {shortened(context)}; it must be the id of a start context or None")
        if not 0 <= context < len(self.flow.bank):
            raise ValueError(f"context is {context}; flow {self.flow.name!r} has ids 0 to {len(self.flow.bank) - 1}")
        return int(context)

    def _check_starts(self, room: int) -> None:
        """Looks at all start states that may be drawn, so that no reset fails hours later."""
        bank = self.flow.bank
        drawn = self.contexts if self.context is None else np.array([self.context])
        if lesser := self.role.admit(bank, drawn):
            warnings.warn(lesser, stacklevel=3)
        resting = np.diff(bank.order_start)[drawn]
        if resting.max() > room:
            deepest = drawn[resting.argmax()]
            raise ValueError(
                f"start context {deepest} of {bank.origin!r} has {resting.max()} resting orders; a market of flow "
                f"{self.flow.name!r} has room for {room}"
            )

    def _read_options(self, options: Any) -> tuple[list[int], Any]:
        """The context of each row (-1: to be drawn) and the role's plan, checked."""
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise ValueError(f"options is {shortened(options)}; it must be a dict or None")
        fixed = self._fixed_contexts(options.get("context"))
        plan = self.role.plan(dict(options))
        if options.get("context") is not None:  # others were admitted by the constructor
            contexts = np.array([self.contexts[0] if context < 0 else context for context in fixed])
            self.role.admit(self.flow.bank, contexts, plan)
        return fixed, plan

    def _fixed_contexts(self, wanted: Any) -> list[int]:
        """The context of each row where the caller or the constructor fixes it, else -1."""
        listed = isinstance(wanted, (list, tuple)) or (isinstance(wanted, np.ndarray) and wanted.ndim > 0)
        values = list(wanted) if listed else [wanted] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"context in options has {len(values)} values; it must have one or {self.num_envs}")
        checked = [self.context if value is None else self._check_context(value) for value in values]
        return [-1 if value is None else value for value in checked]
