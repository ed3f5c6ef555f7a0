"""Rewards put together from named terms: what a term is given, what it says, and how a role's ``reward`` is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from tradefm_gym.arguments import known_names, shortened

MAX_FACTOR = 1e6


class Interval(NamedTuple):
    """One decision and what it brought, for N markets.

    Attributes:
        before: (N,) the role's state as the ledger left it a decision ago.
        after: (N,) the same now.
        booked: by name, the ledger's own terms as gains (N,) int64, 1/1000 tick-lots.
        over: (N,) bool, the task is over.
        unit: (N,) float64, one basis point of the notional in 1/1000 tick-lots.
        held: what a state (N,) has open, lots (N,) int64: those held, or those that are still to be traded.
        most: what it may have open at most, lots (N,) int64.
        gained: all that the ledger has booked so far, as a gain (N,) int64, 1/1000 tick-lots.
    """

    before: np.ndarray
    after: np.ndarray
    booked: Mapping[str, np.ndarray]
    over: np.ndarray
    unit: np.ndarray
    held: Callable[[np.ndarray], np.ndarray]
    most: Callable[[np.ndarray], np.ndarray]
    gained: Callable[[np.ndarray], np.ndarray]


class Term(Protocol):
    """One part of a reward. It keeps nothing: what it pays follows from the two states."""

    @property
    def name(self) -> str:
        """What it is called among the terms."""
        ...

    def gain(self, interval: Interval) -> np.ndarray:
        """What is gained, or less than 0 lost (N,) int64, 1/1000 tick-lots."""
        ...


@dataclass(frozen=True)
class Booked:
    """The sum of terms that the ledger books anyway."""

    name: str
    parts: tuple[str, ...]

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return sum((interval.booked[part] for part in self.parts), np.zeros(len(interval.over), np.int64))


@dataclass(frozen=True)
class Weighted:
    """A term times a number, rounded to integers."""

    term: Term
    weight: float

    @property
    def name(self) -> str:
        """That of the term."""
        return self.term.name

    def gain(self, interval: Interval) -> np.ndarray:
        """See ``Term.gain``."""
        return np.rint(self.weight * self.term.gain(interval)).astype(np.int64)


def gained(term: Term, interval: Interval) -> np.ndarray:
    """What a term says, if that is what a term may say.

    Raises:
        ValueError: if it is not an integer for each market.
    """
    values = np.asarray(term.gain(interval))
    if values.dtype.kind not in "iu" or values.shape != interval.over.shape:
        said = f"an array of shape {values.shape} and dtype {values.dtype}"
        raise ValueError(f"gain of term {term.name!r} is {said}; it must be {len(interval.over)} integers")
    return values.astype(np.int64)


def settings_of(value: Any) -> str:
    """A setting as snapshots name it: terms that say nothing of themselves by their class and what they hold."""
    if isinstance(value, tuple) and any(callable(getattr(one, "gain", None)) for one in value):
        return f"({', '.join(settings_of(one) for one in value)})"
    if callable(getattr(value, "gain", None)) and type(value).__repr__ is object.__repr__:
        held = ", ".join(f"{name}={one!r}" for name, one in sorted(getattr(value, "__dict__", {}).items()))
        return f"{type(value).__qualname__}({held})"
    return repr(value)


def booked(*parts: str, name: str = "") -> Callable[[], Term]:
    """What makes a ``Booked``, for a table of terms."""
    return lambda: Booked(name or parts[0], parts)


def read_reward(value: Any, known: Mapping[str, Callable[..., Term]]) -> tuple[Term, ...] | None:
    """The terms that a ``reward`` names.

    Args:
        value: None for what the ledger books, or a list of terms: a name, a dict of ``term`` (a name) with the term's
            parameters and perhaps a ``weight``, or an object that is a ``Term``.
        known: what makes the terms of a role, by name.

    Raises:
        ValueError: if it is none of these, or a term stands there twice.
        TypeError: if a term has no such parameter.
    """
    if value is None:
        return None
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"reward is {shortened(value)}; it must be None or a list of terms")
    terms = tuple(_read(entry, known) for entry in value)
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"reward has the term {name!r} {names.count(name)} times; it must have each once")
    return terms


def real(name: str, value: Any, least: float, most: float) -> float:
    """A number from ``least`` to ``most``."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not least <= value <= most:  # a NaN fails this too
        raise ValueError(f"{name} is {shortened(value)}; it must be a number from {least:g} to {most:g}")
    return float(value)


def _read(entry: Any, known: Mapping[str, Callable[..., Term]]) -> Term:
    if not isinstance(entry, (str, Mapping)) and callable(getattr(entry, "gain", None)):
        if not isinstance(getattr(entry, "name", None), str):
            raise ValueError(f"reward has the term {shortened(entry)}, which has no name; a term must have one, a str")
        return entry
    words = dict(entry) if isinstance(entry, Mapping) else {"term": entry}
    name, weight = words.pop("term", None), words.pop("weight", None)
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"reward has the term {shortened(name)}; this role knows {', '.join(known)}")
    make = known[name]
    known_names(f"term {name!r} of reward", words, tuple(getattr(make, "__dataclass_fields__", ())))
    term = make(**words)
    return term if weight is None else Weighted(term, real(f"weight of term {name!r}", weight, -MAX_FACTOR, MAX_FACTOR))
