"""Where episodes start and what callers fix of them: contexts, options and roles, checked before anything changes."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradefm_gym.arguments import known_names, one_of, shortened
from tradefm_gym.envs.clocks import EVENTS, USUAL_EVENTS, Clock, clock_of
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.sampler import EpisodeSampler, SampledStarts
from tradefm_gym.flow.protocol import SPLITS, FlowModel
from tradefm_gym.market.latency import read_latencies

MARKET_OPTIONS = ("context", "scenario")  # what a reset may fix besides what roles read
MAX_SEATS = 2**15 - 1  # an owner is an int16


class Starts:
    """The start contexts from which a session's episodes are drawn, for all of its roles.

    Args:
        flow: whose contexts they are.
        roles: those that will start from them.
        split: "train", "validation" or "test".
        context: id of the only one, None to draw it.
        sampler: what draws contexts and options instead, or None.

    Attributes:
        contexts: (k,) int64, ids of those in ``split``.
        context: the only one, or None.
        sampler: the argument.

    Raises:
        ValueError: if there is no such split or context.
    """

    def __init__(self, flow: FlowModel, roles: tuple[Role, ...], split: str, context: Any, sampler: Any = None):
        self.flow, self.roles = flow, roles
        self.contexts = flow.bank.split(one_of("split", split, SPLITS))
        if not len(self.contexts):
            raise ValueError(f"split is {split!r}, of which flow {flow.name!r} has no start context")
        self.context = self._checked(context)
        if sampler is not None and not isinstance(sampler, EpisodeSampler):
            raise ValueError(f"sampler is {shortened(sampler)}; it must be an EpisodeSampler or None")
        if sampler is not None and self.context is not None:
            raise ValueError(f"context is {self.context}; beside a sampler, which draws it, it must be None")
        self.sampler = sampler
        self._sampled = None if sampler is None else SampledStarts(sampler, flow.bank, self.contexts)

    def check_sampler(self) -> None:
        """Refuses a sampler that would draw what no role takes; roles know their markets by now."""
        if self.sampler is not None:
            known = sorted({name for role in self.roles for name in role.option_names})
            known_names("the sampler", self.sampler.options, known)
            for options in self.sampler.ends():
                for role in self.roles:
                    role.plan(options)

    def complete(self, options: Any, rows: np.ndarray, seeds: np.ndarray, episodes: np.ndarray) -> Any:
        """Options with what the sampler draws for the rows (N,) bool."""
        return options if self._sampled is None else self._sampled.complete(options, rows, seeds, episodes)

    def info(self, contexts: np.ndarray) -> dict[str, np.ndarray]:
        """Columns (N,) that tell the regimes of contexts, where a sampler may draw by them."""
        return {} if self._sampled is None else {"regime": self._sampled.names(contexts)}

    def check_room(self, room: int) -> None:
        """Looks at all start states that may be drawn, so that no reset fails hours later.

        Args:
            room: orders that a market may hold.

        Warns:
            UserWarning: for each lesser task that a role would get than was asked for.
        """
        bank = self.flow.bank
        drawn = self.contexts if self.context is None else np.array([self.context])
        for lesser in dict.fromkeys(role.admit(bank, drawn) for role in self.roles):
            if lesser:
                warnings.warn(lesser, stacklevel=3)
        resting = np.diff(bank.order_start)[drawn]
        if resting.max() > room:
            deepest = drawn[resting.argmax()]
            raise ValueError(
                f"start context {deepest} of {bank.origin!r} has {resting.max()} resting orders; a market of flow "
                f"{self.flow.name!r} has room for {room}"
            )

    def read(self, options: Any, n: int) -> tuple[list[int], list[Any]]:
        """The context of each of n rows (-1: to be drawn) and each role's plan."""
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise ValueError(f"options is {shortened(options)}; it must be a dict or None")
        own = options.get("roles", [{}] * len(self.roles))
        if not isinstance(own, Sequence) or [isinstance(one, Mapping) for one in own] != [True] * len(self.roles):
            raise ValueError(f"roles in options is {shortened(own)}; it must be a list of {len(self.roles)} dicts")
        fixed = self._fixed(options.get("context"), n)
        plans = [role.plan({**options, **one}) for role, one in zip(self.roles, own, strict=True)]
        if options.get("context") is not None:  # others were admitted by ``check_room``
            contexts = np.array([self.contexts[0] if context < 0 else context for context in fixed])
            for role, plan in zip(self.roles, plans, strict=True):
                role.admit(self.flow.bank, contexts, plan)
        return fixed, plans

    def _fixed(self, wanted: Any, n: int) -> list[int]:
        """The context of each row where the caller or the constructor fixes it, else -1."""
        listed = isinstance(wanted, (list, tuple)) or (isinstance(wanted, np.ndarray) and wanted.ndim > 0)
        values = list(wanted) if listed else [wanted] * n
        if len(values) != n:
            raise ValueError(f"context in options has {len(values)} values; it must have one or {n}")
        checked = [self.context if value is None else self._checked(value) for value in values]
        return [-1 if value is None else value for value in checked]

    def _checked(self, context: Any) -> int | None:
        if context is None:
            return None
        if isinstance(context, bool) or not isinstance(context, (int, np.integer)):
            raise ValueError(f"context is {shortened(context)}; it must be the id of a start context or None")
        if not 0 <= context < len(self.flow.bank):
            raise ValueError(f"context is {context}; flow {self.flow.name!r} has ids 0 to {len(self.flow.bank) - 1}")
        return int(context)


def checked_roles(roles: Any, clock: Any) -> tuple[tuple[Role, ...], int | None, Clock]:
    """The roles of a session, one each for its seats, with the interval and the clock that they have in common."""
    listed = tuple(roles) if isinstance(roles, (list, tuple)) else (roles,)
    if not 1 <= len(listed) <= MAX_SEATS or not all(hasattr(role, "settle") for role in listed):
        raise ValueError(f"roles is {shortened(roles)}; it must be a role, or a list of at least one")
    if len({id(role) for role in listed}) < len(listed):
        raise ValueError(f"roles is {shortened(roles)}; an object may stand in it once, for it keeps its seat's state")
    listed = tuple(copy.copy(role) if getattr(role, "_seated", False) else role for role in listed)
    kept = clock_of(clock, None)
    for role in listed:
        role._seated = True  # type: ignore[attr-defined]  # so that another session takes a copy
        role.clock = kept
        if role.interval is None and kept is EVENTS:
            role.interval = USUAL_EVENTS
    for i, role in enumerate(listed):
        if role.interval != listed[0].interval:
            raise ValueError(
                f"interval of roles[{i}] is {role.interval}; it must be that of roles[0], {listed[0].interval}"
            )
    return listed, listed[0].interval, clock_of(clock, listed[0].interval)


def seat_latencies(name: str, value: Any, roles: int, seats: int) -> Any:
    """Latencies as ``MarketConfig`` takes them; a list may name those of the roles only, who sit on the first seats."""
    listed = isinstance(value, (list, tuple))
    if listed and len(value) == roles:
        value = (*value, *[None] * (seats - roles))
    return read_latencies(name, value, seats)
