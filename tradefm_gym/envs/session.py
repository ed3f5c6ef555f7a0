"""The closed loop over N markets with one or several agents in each, without the interface of any library."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any

import numpy as np

from tradefm_gym import rng
from tradefm_gym.arguments import flag, numbers, rows_mask, shortened, whole
from tradefm_gym.envs.clocks import EVENTS
from tradefm_gym.envs.counterfactual import Twin
from tradefm_gym.envs.roles import Outcome, Role, StepResult
from tradefm_gym.envs.sampler import EpisodeSampler
from tradefm_gym.envs.session_copies import SessionCopies
from tradefm_gym.envs.session_time import SessionTime
from tradefm_gym.envs.stages import CLOSING
from tradefm_gym.envs.starts import MAX_SEATS, Starts, checked_roles, seat_latencies
from tradefm_gym.flow.halves import go_on
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.scenarios import Scenario, read_scenarios
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.config import MAX_RATE
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.threads import has_patient_loops, loops_in_one_thread

_CONTEXT_DRAW, _ROLE_DRAW = 0, 1  # indices of the episode's own bits; role i has _ROLE_DRAW + i
_TAPE_ROOM = 4  # entries of the tape for each background event of an interval
_ROLE_ROOM = 256  # and for each further role
MAX_FEE = 2**31
_FEW, _FEW_IMPATIENT = 8, 64  # up to this many markets a session keeps to the calling thread
_MUCH = 4096  # or more, if all of them together take no more events in an interval


def few_markets() -> int:
    """Up to how many markets loops over them stay in the calling thread."""
    return _FEW if has_patient_loops() else _FEW_IMPATIENT


def _few_stay_in_thread(method: Callable[..., Any]) -> Callable[..., Any]:
    """Keeps the loops of a session's method to one thread where markets are few; the engine's helpers stay at work.

    Two quiet cores save hardly anything with eight markets, and a third with 64; but where loops end by waiting for all
    threads (see ``threads``), one core held by another process made a step twenty times slower.
    """

    @wraps(method)
    def wrapped(self, *args, **kwargs):
        if self.num_envs > few_markets():
            return method(self, *args, **kwargs)
        with loops_in_one_thread():
            return method(self, *args, **kwargs)

    return wrapped


class TradingSession(SessionTime, SessionCopies):
    """N markets, one background flow and one seat for each of A roles in every market.

    A row's randomness is a pure function of its seed and its episode, so nothing about the other rows (how
    many, when they reset) can reach it.

    All roles decide at the same time and then one interval passes; by which clock, ``clocks`` says. Orders arrive when
    their seat's latency says, and what a seat sees of the market is as old as its news. Of the orders of one instant
    cancels come first, so that nobody is caught with an order that it has just taken back, or with both it and the one
    that replaces it; then the seats have turns in an order that the exchange draws anew for each row and instant from
    the counter-based stream (``rng.TURN``), all orders being equally likely. So no seat has an advantage from its place
    among the roles.

    Roles finish and leave one by one (``active``); a row's episode ends when all have finished, or with the flow.
    A session of one role is driven by ``reset`` and ``step``, any other by ``reset_roles`` and ``step_roles``.

    Args:
        num_envs: markets N.
        roles: one role, or a sequence of them; role i takes seat i of every market of this session. Their intervals
            must be equal, and no object may stand there twice. One that sits in another session already is copied.
        flow: name of a flow, or a ``FlowModel`` made for N markets.
        clock: what a decision waits for, and the unit of the roles' ``interval``: "events" (of the background), "time"
            (ns) or "volume" (lots traded).
        split: part of the flow's start contexts to draw from: "train", "validation" or "test".
        context: id of the start context, None to draw it for each episode.
        seats: agents' seats in each market, at least one for each role; None: just those.
        maker_fee: 1/1000 ticks a lot (negative: a rebate).
        taker_fee: 1/1000 ticks a lot.
        maker_rate: parts per million of the notional, besides the fee (negative: a rebate).
        taker_rate: parts per million of the notional, besides the fee.
        order_latency_ns: how long orders are on their way, in a form that ``MarketConfig`` takes: None, ns, a dict such
            as ``{"median_ns": 200_000, "sigma": 0.5}``, or a list of such of each role or seat. A late seat may hold no
            more than its limits even if all that is on its way is met to the last lot, and its last interval is longer:
            by the time that its last orders take.
        data_latency_ns: how old the market is that seats see, likewise. Rewards and infos are those of the market.
        sampler: draws the start context and options of each episode for which ``reset`` does not fix them; see
            ``EpisodeSampler``.
        counterfactual: run each market a second time without its agents, see ``Twin``; ``step_info`` then has the mid
            there (``twin_mid``, ticks), and ``final_info`` the difference (``impact_sample_bps``, basis points of the
            arrival mid): a single sample, noise unless averaged over many seeds. Takes twice the time.
        flow_options: passed on to the flow when it is given by name.

    Raises:
        ValueError: if an argument is not allowed, or the flow's start contexts do not suit a role or the market.
        TypeError: if ``flow_options`` has a name that the flow does not know.

    Warns:
        UserWarning: once, if in some start contexts the task is a lesser one than was asked for.
    """

    def __init__(
        self,
        num_envs: int,
        roles: Role | Sequence[Role],
        flow: str | FlowModel = "tradefm",
        *,
        clock: str = "events",
        split: str = "train",
        context: int | None = None,
        seats: int | None = None,
        maker_fee: int = 0,
        taker_fee: int = 0,
        maker_rate: int = 0,
        taker_rate: int = 0,
        order_latency_ns: Any = None,
        data_latency_ns: Any = None,
        sampler: EpisodeSampler | None = None,
        counterfactual: bool = False,
        flow_options: dict[str, Any] | None = None,
    ):
        if flow_options is not None and not isinstance(flow_options, Mapping):
            raise ValueError(f"flow_options is {shortened(flow_options)}; it must be a dict or None")
        self.num_envs, self.split = whole("num_envs", num_envs, 1), split
        self.roles, self.interval, self.clock = checked_roles(roles, clock)
        count = len(self.roles)
        seats = count if seats is None else whole("seats", seats, count, MAX_SEATS)
        fees = {"maker_fee": maker_fee, "taker_fee": taker_fee}
        fees = {name: whole(name, fee, -MAX_FEE, MAX_FEE) for name, fee in fees.items()}
        rates = {"maker_rate": maker_rate, "taker_rate": taker_rate}
        fees |= {name: whole(name, rate, -MAX_RATE, MAX_RATE) for name, rate in rates.items()}
        latencies = {"order_latency_ns": order_latency_ns, "data_latency_ns": data_latency_ns}
        late = {name[:-3]: seat_latencies(name, value, count, seats) for name, value in latencies.items()}
        self.flow = make_flow(flow, self.num_envs, **(flow_options or {}))
        self.stress = self.flow if isinstance(self.flow, StressedFlow) else StressedFlow(self.flow)
        self._starts = Starts(self.flow, self.roles, split, context, sampler)
        self.contexts, self.context = self._starts.contexts, self._starts.context
        events = self.interval if self.clock is EVENTS and self.interval else 0  # by other clocks roles read in parts
        config, room = self.flow.market_config(seats), _TAPE_ROOM * events + _ROLE_ROOM * (count - 1)
        config = replace(config, tape=max(config.tape, room), fills=max(config.fills, room))  # roles read one interval
        self._starts.check_room(config.orders)
        self.market = MarketSimulator(self.num_envs, replace(config, **fees, **late))
        self._late = any((*self.market.config.order_latencies, *self.market.config.data_latencies))
        for seat, role in enumerate(self.roles):
            role.attach(self.market, seat)
        self._share_blocks()
        self._starts.check_sampler()
        n = self.num_envs
        # Of a market with a late view all that happens is logged, for which only the market's own methods see to room.
        in_time = count == 1 and self.clock is EVENTS and not self._late
        self._alone = in_time and getattr(self.roles[0], "has_steps", False)
        self._in_threads = n > few_markets() or n * (self.interval or 0) > _MUCH
        self._flow_names = np.full(n, self.flow.name, object), np.full(n, self.flow.version, object)
        self.seeds = np.zeros(n, np.uint64)
        self.episodes = np.zeros(n, np.uint32)
        self.context_of = np.zeros(n, np.int64)
        self.running = np.zeros(n, np.bool_)  # rows within an episode
        self.active = np.zeros((count, n), np.bool_)  # (A, N), roles whose task in a row is not over
        self.seeded = np.zeros(n, np.bool_)
        self._next_episode = np.zeros(n, np.uint32)
        self.arrival_mid2 = np.zeros(n, np.int64)  # doubled mids without agents' orders, where the twin departed
        self.twin = None  # while it is made: it has none itself
        self.twin = Twin(self) if flag("counterfactual", counterfactual) else None

    @property
    def role(self) -> Role:
        """The first role: of a session of one, the role."""
        return self.roles[0]

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
        self._starts.read(options, self.num_envs)
        self._scenarios(options)

    def _scenarios(self, options: dict[str, Any] | None) -> list[Scenario | None]:
        return read_scenarios((options or {}).get("scenario"), self.flow, self.num_envs)

    def reset(self, rows: np.ndarray | None = None, options: dict[str, Any] | None = None) -> np.ndarray:
        """As ``reset_roles``, in a session of one role: its observations (N, obs) float32."""
        return self.reset_roles(rows, options)[0]

    @_few_stay_in_thread
    def reset_roles(
        self, rows: np.ndarray | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, ...]:
        """Begins the next episode in the rows.

        Args:
            rows: (N,) bool, default all.
            options: what to fix, a value or one for each row: ``context`` (an id), ``scenario`` (a name, or a dict of
                ``name`` and parameters, see ``flow.scenarios``) and what roles read. ``roles``, a sequence of A dicts,
                fixes what single roles read.

        Returns:
            For each role its observations (N, obs) float32 of all rows, fresh.
        """
        n = self.num_envs
        rows = np.ones(n, np.bool_) if rows is None else rows_mask("rows", rows, n)
        options = self._starts.complete(options, rows, self.seeds, self._next_episode)
        fixed, plans = self._starts.read(options, n)  # all checks come before the first change
        scenarios = self._scenarios(options)
        self.episodes[rows] = self._next_episode[rows]
        self._next_episode[rows] += np.uint32(1)
        chosen = rows.nonzero()[0]
        drawn = self.contexts[(self._bits(chosen, _CONTEXT_DRAW)[:, 0].astype(np.int64) * len(self.contexts)) >> 32]
        wanted = np.array(fixed)[chosen]
        self.context_of[chosen] = np.where(wanted >= 0, wanted, drawn)
        self.market.seed(self.seeds, self.episodes, rows)
        self.stress.choose(chosen, [scenarios[m] for m in chosen.tolist()])
        self.stress.reset(self.market, rows, self.context_of, self.seeds, self.episodes)
        scale = self.flow.bank.scale[self.context_of]
        for i, (role, plan) in enumerate(zip(self.roles, plans, strict=True)):
            draws = np.zeros((n, 4), np.uint32)
            draws[chosen] = self._bits(chosen, _ROLE_DRAW + i)
            role.reset(rows, scale, draws, plan)
        self.running |= rows
        self.active |= rows
        if self.twin is not None:
            self.twin.depart(chosen.tolist())
        return self.observe()

    def observe(self) -> tuple[np.ndarray, ...]:
        """What each role may see now, A arrays (N, obs) float32, fresh."""
        return tuple(role.observe() for role in self.roles)

    def step(self, actions: np.ndarray, rows: np.ndarray | None = None) -> StepResult:
        """One decision and the interval after it, in a session of one role.

        Args:
            actions: (N, act); those of rows that take no part are not read.
            rows: (N,) bool, default all that are within an episode.
        """
        if len(self.roles) > 1:
            raise ValueError(f"step was called on a session of {len(self.roles)} roles; call step_roles")
        return self.step_roles((actions,), rows)[0]

    def step_roles(
        self, actions: Sequence[np.ndarray | None], rows: np.ndarray | None = None
    ) -> tuple[StepResult, ...]:
        """One decision of every role and the interval after it.

        Args:
            actions: for each role (N, act), or None if its task is over in all rows; what belongs to rows in which it
                takes no part is not read.
            rows: (N,) bool, default all that are within an episode.
        """
        rows = self.running.copy() if rows is None else rows_mask("rows", rows, self.num_envs) & self.running
        if len(actions) != len(self.roles):
            raise ValueError(
                f"actions has {len(actions)} entries; it must have one for each of {len(self.roles)} roles"
            )
        results = (self._step_alone(rows, actions[0]),) if self._alone else self._step_together(rows, actions)
        for result, still in zip(results, self.active, strict=True):
            still &= ~(result.terminated | result.truncated)
        self.running &= self.active[0] if len(results) == 1 else self.active.any(axis=0)
        if self.twin is not None:
            self.twin.follow()
        return results

    def _step_alone(self, rows: np.ndarray, action: Any) -> StepResult:
        """A step of a session of one role that has it in one loop; what happens is what happens otherwise."""
        role: Any = self.roles[0]
        role.begin_step(rows, action)
        starved = role.carry_on(threads=self._in_threads)
        truncated = np.zeros(self.num_envs, np.bool_)
        if starved.any():
            go_on = self._go_on if self._in_threads else self._go_on_in_thread
            truncated = go_on(role, starved) & rows
        outcome, observation = role.end_step()
        truncated &= ~outcome.terminated
        return StepResult(observation, outcome.reward, outcome.terms, outcome.terminated, truncated)

    def _go_on(self, role: Any, starved: np.ndarray) -> np.ndarray:
        """Lets the flow propose until the role's decision is over; rows (N,) bool whose flow ended before."""
        advance = partial(role.carry_on, threads=self._in_threads)
        return go_on(self.market, self.stress, role.until_count, starved, advance)

    @_few_stay_in_thread
    def _go_on_in_thread(self, role: Any, starved: np.ndarray) -> np.ndarray:
        return self._go_on(role, starved)

    @_few_stay_in_thread
    def _step_together(self, rows: np.ndarray, actions: Sequence[np.ndarray | None]) -> tuple[StepResult, ...]:
        roles, active, checked = self.roles, self.active & rows, []
        for role, action, taking in zip(roles, actions, active, strict=True):
            left = action is None and len(roles) > 1 and not taking.any()
            checked.append(np.zeros((self.num_envs, 1), np.float32) if left else role.check(action, taking))
        self._send([role.orders(taking, act) for role, taking, act in zip(roles, active, checked, strict=True)])
        exhausted = self._pass_interval(rows)
        self._send([role.closing(taking) for role, taking in zip(roles, active, strict=True)])
        self.advance(rows, 0)
        if self._late:
            self._finish(active)
        results = []
        for role, taking in zip(roles, active, strict=True):
            (reward, terms, terminated), observation = self._outcome(role, taking)
            truncated = exhausted & taking & ~terminated
            results.append(StepResult(observation, reward, terms, terminated, truncated))
        return tuple(results)

    def _outcome(self, role: Any, taking: np.ndarray) -> tuple[Outcome, np.ndarray]:
        """What a decision brought that is over but for the books, and what is seen now."""
        if not getattr(role, "has_steps", False):
            return role.settle(taking), role.observe()
        role.begin_step(taking, role.still, CLOSING)
        role.carry_on(threads=self._in_threads)
        return role.end_step()

    def start_info(self, role: int = 0) -> dict[str, Any]:
        """Columns (N, ...): flow and version, context, scenario, the task of the role of this number, its mask."""
        return {
            "flow": self._flow_names[0].copy(),
            "flow_version": self._flow_names[1].copy(),
            "context": self.context_of.copy(),
            **self._starts.info(self.context_of),
            "scenario": self.stress.running(),
            **self.roles[role].start_info(),
            **self._mask_info(role),
        }

    def step_info(self, role: int = 0) -> dict[str, Any]:
        """Columns (N,) of the last decision."""
        twin = {} if self.twin is None else {"twin_mid": self.twin.mid()}
        return self.roles[role].step_info() | self._mask_info(role) | twin

    def _mask_info(self, role: int) -> dict[str, np.ndarray]:
        """Of a role with numbered actions which of them can be done, in the form that ``Discrete.sample`` takes."""
        seat = self.roles[role]
        return {"action_mask": seat.action_masks().astype(np.int8)} if seat.discrete else {}

    def final_info(self, role: int = 0) -> dict[str, Any]:
        """Columns (N,) of whole episodes, those of their start included."""
        report = getattr(self.stress.flow, "report", None)  # what a replayed day has to say for itself
        info = self.start_info(role) | self.roles[role].final_info() | (report(self.market) if report else {})
        return info if self.twin is None else info | {"impact_sample_bps": self.twin.impact_sample_bps()}

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

    def _bits(self, rows: np.ndarray, index: int) -> np.ndarray:
        """Random words (k, 4) uint32 of the episodes of rows (k,)."""
        return rng.bits_of(self.seeds, self.episodes, rows, index, rng.EPISODE)
