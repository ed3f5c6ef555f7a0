"""How a session is copied: as a value to keep and to put back, onto other rows, and as another session."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tradefm_gym.arguments import numbers, row_numbers, shortened
from tradefm_gym.envs.clocks import EVENTS, Clock
from tradefm_gym.envs.counterfactual import Twin
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.starts import Starts
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.simulator import MarketSimulator, Snapshot

Rows = int | Sequence[int] | np.ndarray


@dataclass(frozen=True, eq=False)
class SessionState:
    """The state of k markets of a session at one moment, with all that goes on in them; can be pickled.

    Attributes:
        market: books, accounts, tapes, queues, clocks.
        parts: what the session, its flow and its roles remember, in this order.
        twin: the state of the markets without agents, of a session with ``counterfactual``.
    """

    market: Snapshot
    parts: tuple[RowState, ...]
    twin: "SessionState | None" = None

    def __len__(self):
        return len(self.market)

    def __repr__(self):
        return f"<SessionState of {len(self)} markets>"


class SessionCopies:
    """What a session is, and how it is copied. ``TradingSession`` is the class to use."""

    num_envs: int
    roles: tuple[Role, ...]
    flow: FlowModel
    clock: Clock
    stress: StressedFlow
    market: MarketSimulator
    split: str
    context: int | None
    seeds: np.ndarray
    episodes: np.ndarray
    context_of: np.ndarray
    running: np.ndarray
    active: np.ndarray
    seeded: np.ndarray
    arrival_mid2: np.ndarray
    twin: Twin | None
    _next_episode: np.ndarray
    _starts: Starts

    def __reduce__(self):
        """A session holds tables and weights that no copy needs; its state is what goes to files and processes."""
        raise TypeError(
            "a TradingSession cannot be copied or pickled; its snapshot() can, and branch() makes another one"
        )

    def snapshot(self, rows: Rows | None = None) -> SessionState:
        """The whole state of rows (default all) as a value: market, flow with a model's caches, roles, seeds, episodes.

        Raises:
            ValueError: if there are no such rows, or the flow or a role cannot be copied.
        """
        chosen = row_numbers(rows, self.num_envs)
        twin = None if self.twin is None else self.twin.session.snapshot(chosen)
        return SessionState(self.market.snapshot(chosen), self._parts(chosen), twin)

    def restore(self, value: SessionState, rows: Rows | None = None) -> None:
        """Puts a snapshot into rows (default all), which go on bit for bit as its rows would have.

        Observations, rewards, infos, tapes and the episodes after this one are the same. Any k rows of a session of any
        N take a snapshot of k rows, if flow, roles, market, ``split`` and ``context`` are equal. What it says
        of a twin is left out where there is none. (A TradeFM flow that runs on torch keeps its last bits only in the
        same rows of an equal ``engine_batch``.)

        Raises:
            ValueError: if the snapshot does not fit; nothing has changed then.
        """
        chosen = row_numbers(rows, self.num_envs)
        if not isinstance(value, SessionState):
            raise ValueError(f"value is {shortened(value)}; it must be a SessionState")
        self._check(value.parts, len(chosen))
        if self.twin is not None:
            self.twin.session.restore(_of_twin(value.twin), chosen)
        self.market.restore(value.market, chosen)
        self._put(value.parts, chosen)

    def fork(self, rows: Rows, into: Rows, session: "SessionCopies | None" = None) -> None:
        """Copies rows onto other rows, which then go on bit for bit as their parents would.

        Args:
            rows: the parents, one for each of ``into``, or one for all; a parent may have several children.
            into: rows of ``session`` that are overwritten, each once. All parents are read before.
            session: where the children live, a session of equal flow, roles and market; None for this one.

        Raises:
            ValueError: if rows do not exist or the sessions differ; nothing has changed then.
        """
        target = self if session is None else session
        if not isinstance(target, SessionCopies):
            raise ValueError(f"session is {shortened(session)}; it must be a TradingSession or None")
        children, given = row_numbers(into, target.num_envs), numbers(rows, "iu")
        if given is None or given.shape not in ((), (1,), children.shape):
            raise ValueError(f"rows is {shortened(rows)}; allowed is one, or one for each of {len(children)}.")
        parents = row_numbers(np.broadcast_to(given, children.shape), self.num_envs, repeats=True)
        parts = self._parts(parents)
        target._check(parts, len(children))
        if target.twin is not None:
            _of_twin(self.twin)
        self.market.fork(parents, children, target.market)
        target._put(parts, children)
        if self.twin is not None and target.twin is not None:
            self.twin.session.fork(parents, children, target.twin.session)

    def branch(self, rows: Rows | None = None) -> Self:
        """Another session of equal settings, whose markets go on from ``rows`` of this one.

        Args:
            rows: (k,) the parents, which may repeat; default all. ``[0] * k`` gives k copies of row 0.

        Raises:
            ValueError: if there are no such rows, or the flow or a role cannot be copied.
        """
        parents = row_numbers(rows, self.num_envs, repeats=True)
        if not len(parents):
            raise ValueError(f"rows is {shortened(rows)}; it must name at least one")
        self._parts(parents[:0])  # refuses what cannot be copied before anything is made
        if not hasattr(self.flow, "for_markets"):
            raise ValueError(f"flow {self.flow.name!r} has no for_markets; without it no other session can be made")
        config = self.market.config
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when this session was made
            other = type(self)(
                len(parents), [copy.copy(role) for role in self.roles], self.flow.for_markets(len(parents)),
                split=self.split, context=self.context, seats=config.seats, maker_fee=config.maker_fee,
                taker_fee=config.taker_fee, maker_rate=config.maker_rate, taker_rate=config.taker_rate,
                clock=self.clock.name, order_latency_ns=config.order_latency, data_latency_ns=config.data_latency,
                sampler=self._starts.sampler,
                counterfactual=self.twin is not None,
            )  # fmt: skip
        self.fork(parents, np.arange(len(parents)), other)
        return other

    def _parts(self, rows: np.ndarray) -> tuple[RowState, ...]:
        for what, part in [(f"flow {self.flow.name!r}", self.flow), *((shortened(role), role) for role in self.roles)]:
            if not (hasattr(part, "snapshot") and hasattr(part, "restore")):
                raise ValueError(f"{what} has no snapshot and restore; without them a session cannot be copied")
        settings = f"split {self.split!r} and context {self.context}"
        if self.clock is not EVENTS:
            settings += f" and clock {self.clock.name!r}"
        if self._starts.sampler is not None:
            settings += f" and {self._starts.sampler!r}"
        own = RowState.of(f"a session of {settings}", self._own_arrays(), rows)
        return own, self.flow.snapshot(rows), *(role.snapshot(rows) for role in self.roles)

    def _check(self, parts: tuple[RowState, ...], count: int) -> None:
        wanted = self._parts(np.zeros(0, np.int64))
        if len(parts) != len(wanted):
            raise ValueError(f"value is of a session of {len(parts) - 2} roles; it must be of {len(self.roles)}")
        for part, like in zip(parts, wanted, strict=True):
            part.check(like, count)

    def _put(self, parts: tuple[RowState, ...], rows: np.ndarray) -> None:
        own, flow, *roles = parts
        own.put(self._own_arrays(), rows)
        self.flow.restore(flow, rows)
        for role, state in zip(self.roles, roles, strict=True):
            role.restore(state, rows)

    def _own_arrays(self) -> dict[str, np.ndarray]:
        names = ("seeds", "episodes", "context_of", "running", "seeded", "arrival_mid2")
        arrays = {name: getattr(self, name) for name in names}
        arrays |= {"active": self.active.T, "next_episode": self._next_episode}
        return arrays | self.stress.kept()


def _of_twin(theirs: Any) -> Any:
    """The twin, or its state, that a session with one needs."""
    if theirs is None:
        raise ValueError("value is of a session without counterfactual; it must be of one with it, as this one is")
    return theirs
