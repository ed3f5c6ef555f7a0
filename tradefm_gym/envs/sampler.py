"""Draws the settings of episodes: start context, regime and whatever a reset may fix, for domain randomisation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradefm_gym import rng
from tradefm_gym.arguments import one_of, shortened
from tradefm_gym.envs.regimes import REGIMES, regimes
from tradefm_gym.envs.seat_role import per_row
from tradefm_gym.flow.protocol import ContextBank

_FIRST_DRAW = 2**20  # index of an episode's bits; those before it draw contexts and tasks
_WORD = 2**32


@dataclass(frozen=True)
class Between:
    """Numbers from ``low`` to ``high``, equally likely on a logarithmic scale; integers if both ends are.

    Raises:
        ValueError: if it is no range of positive numbers.
    """

    low: float
    high: float

    def __post_init__(self):
        for name, value in (("low", self.low), ("high", self.high)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name} of Between is {shortened(value)}; it must be a positive number")
        if self.low > self.high:
            raise ValueError(f"low of Between is {self.low}; it must be at most high, {self.high}")

    def at(self, part: float) -> float | int:
        """The value below which ``part`` of all lie."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        value = math.exp(math.log(self.low) + part * (math.log(self.high + whole) - math.log(self.low)))
        return min(math.floor(value), int(self.high)) if whole else min(value, self.high)


class EpisodeSampler:
    """Draws each episode's settings from its seed and number alone, so that they come back with the seed.

    What a caller of ``reset`` fixes stays fixed. A session, an environment and a vector environment take it as their
    ``sampler``; ``info`` then has the context's ``regime`` beside its id and the task, to keep metrics apart.

    Args:
        contexts: ids of start contexts to choose from; None for all of the split.
        regimes: names of ``regimes.REGIMES``; one is drawn, then a context of it, so that rare ones count as much.
        **options: what the roles let a reset fix (such as ``side``, ``quantity``, ``participation``): a list of equally
            likely values, or a ``Between``.

    Raises:
        ValueError: if one is no list, is empty, or names a regime that does not exist.
    """

    def __init__(self, contexts: Sequence[int] | None = None, regimes: Sequence[str] | None = None, **options: Any):
        self.contexts = None if contexts is None else tuple(_listed("contexts", contexts))
        self.regimes = () if regimes is None else tuple(_listed("regimes", regimes))
        for name in self.regimes:
            one_of("regimes", name, REGIMES)
        self.options = {
            name: choice if isinstance(choice, Between) else tuple(_listed(name, choice))
            for name, choice in options.items()
        }

    def __repr__(self):
        options = "".join(f", {name}={choice!r}" for name, choice in self.options.items())
        return f"EpisodeSampler(contexts={self.contexts!r}, regimes={self.regimes!r}{options})"

    def ends(self) -> list[dict[str, Any]]:
        """Options of all values that may be drawn (of a ``Between`` its ends), for whoever checks them."""
        values = [(name, (c.low, c.high) if isinstance(c, Between) else c) for name, c in self.options.items()]
        return [{name: value} for name, some in values for value in some]

    def draw(self, seed: int, episode: int) -> dict[str, Any]:
        """The options of an episode, by name."""
        drawn = {}
        for i, (name, choice) in enumerate(self.options.items()):
            part = rng.bits(seed, episode, _FIRST_DRAW + 2 + i, rng.EPISODE)[0] / _WORD
            drawn[name] = choice.at(part) if isinstance(choice, Between) else choice[int(part * len(choice))]
        return drawn


class SampledStarts:
    """A sampler over the contexts of a bank.

    Args:
        sampler: what to draw.
        bank: start states.
        contexts: (k,) ids of those that may be drawn at all.

    Raises:
        ValueError: if no context is of a regime.
    """

    def __init__(self, sampler: EpisodeSampler, bank: ContextBank, contexts: np.ndarray):
        self.sampler = sampler
        known = regimes(bank, contexts)
        self._names = {
            context: " ".join(name for name in REGIMES if known[name][i]) for i, context in enumerate(contexts.tolist())
        }
        allowed = np.ones(len(contexts), np.bool_)
        if sampler.contexts is not None:
            allowed = np.isin(contexts, sampler.contexts)
            missing = sorted(set(sampler.contexts) - set(contexts.tolist()))
            if missing:
                raise ValueError(f"contexts of the sampler has {missing[0]}, which is no start context of this split")
        self._pools = [contexts[allowed & known[name]] for name in sampler.regimes] or [contexts[allowed]]
        for name, pool in zip(sampler.regimes, self._pools, strict=False):
            if not len(pool):
                raise ValueError(f"regimes has {name!r}, of which there is no start context here")

    def complete(self, options: Any, rows: np.ndarray, seeds: np.ndarray, episodes: np.ndarray) -> Any:
        """Options of a reset with what is drawn for the rows (N,) bool; what is given there already stays."""
        if options is not None and not isinstance(options, Mapping):
            return options  # for others to refuse
        n, given = len(rows), dict(options or {})
        names = ("context", *self.sampler.options)
        columns = {name: per_row(name, given.get(name), n) for name in names}
        for m in np.flatnonzero(rows).tolist():
            seed, episode = seeds[m], episodes[m]
            drawn = {"context": self._context(seed, episode), **self.sampler.draw(seed, episode)}
            for name in names:
                columns[name][m] = drawn[name] if columns[name][m] is None else columns[name][m]
        return given | columns

    def names(self, contexts: np.ndarray) -> np.ndarray:
        """The regimes of contexts (N,), (N,) object; "" for those of another split."""
        return np.array([self._names.get(context, "") for context in contexts.tolist()], object)

    def _context(self, seed: int, episode: int) -> int:
        words = rng.bits(seed, episode, _FIRST_DRAW, rng.EPISODE)
        pool = self._pools[(int(words[0]) * len(self._pools)) >> 32]
        return int(pool[(int(words[1]) * len(pool)) >> 32])


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, (str, Mapping)) or not isinstance(values, (Sequence, np.ndarray)) or not len(values):
        raise ValueError(f"{name} of the sampler is {shortened(values)}; it must be a list of at least one, or None")
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
