"""How long orders and market data are on their way: what a seat's latency may be, and how it is read and stored.

In JSON a latency is null (none), an integer (always so many ns) or an object: ``{"median_ns": 200000, "sigma": 0.5}``
is lognormal, perhaps with a ``floor_ns``; ``{"quantiles_ns": [...]}`` gives quantiles at equal steps from 0 to 1,
between which values are interpolated; ``{"samples_ns": [...]}`` are measurements, each as likely as the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened

MAX_NS = 86_400 * 10**9  # a day; longer draws are cut to it
MAX_SIGMA = 10.0
MAX_TABLE = 65_536
MAX_TABLES = 2**24  # entries of all seats together, each with room for the longest table

# Columns of ``table``: how to draw, the median or the fixed value, sigma, the floor, entries, and the entries.
KIND, MEDIAN, SIGMA, FLOOR, LENGTH, ENTRIES = range(6)
NONE, FIXED, LOGNORMAL, QUANTILES, SAMPLES = range(5)


@dataclass(frozen=True)
class Lognormal:
    """exp(sigma x a normal number) times the median, and never less than the floor."""

    median_ns: int
    sigma: float
    floor_ns: int = 0


@dataclass(frozen=True)
class Quantiles:
    """Values below which equal parts of all latencies lie, the least and the largest among them; rising."""

    quantiles_ns: tuple[int, ...]


@dataclass(frozen=True)
class Samples:
    """Measured latencies."""

    samples_ns: tuple[int, ...]


Latency = int | Lognormal | Quantiles | Samples | None


def read_latencies(name: str, value: Any, seats: int) -> Latency | tuple[Latency, ...]:
    """One latency for all seats, or a list or tuple of one each, checked and in the form in which it is kept.

    Raises:
        ValueError: if it is none; the sentence says what is allowed.
    """
    if not isinstance(value, (list, tuple)):
        read = _read(name, value)
    elif len(value) != seats:
        raise ValueError(f"{name} has {len(value)} latencies for {seats} seats; allowed is one each.")
    else:
        read = tuple(_read(f"{name} of seat {seat}", entry) for seat, entry in enumerate(value))
    longest = max((len(_entries(latency)) for latency in (read if isinstance(read, tuple) else (read,))), default=0)
    if seats * longest > MAX_TABLES:
        raise ValueError(f"{name} has {longest} entries for {seats} seats; allowed are {MAX_TABLES} of all together.")
    return read


def each_seat(latencies: Latency | tuple[Latency, ...], seats: int) -> tuple[Latency, ...]:
    """The latency of every seat."""
    return latencies if isinstance(latencies, tuple) else (latencies,) * seats


def table(latencies: tuple[Latency, ...]) -> np.ndarray:
    """The latencies of seats as kernels read them: (A, ENTRIES + longest) float64, which holds these ns exactly."""
    entries = [_entries(latency) for latency in latencies]
    found = np.zeros((len(latencies), ENTRIES + max((len(some) for some in entries), default=0)))
    for row, latency, some in zip(found, latencies, entries, strict=True):
        row[LENGTH], row[ENTRIES : ENTRIES + len(some)] = len(some), some
        if isinstance(latency, Lognormal):
            row[:LENGTH] = LOGNORMAL, latency.median_ns, latency.sigma, latency.floor_ns
        elif some:
            row[KIND] = QUANTILES if isinstance(latency, Quantiles) else SAMPLES
        elif isinstance(latency, int) and latency:
            row[:SIGMA] = FIXED, latency
    return found


def _entries(latency: Latency) -> tuple[int, ...]:
    if isinstance(latency, Quantiles):
        return latency.quantiles_ns
    return latency.samples_ns if isinstance(latency, Samples) else ()


def _read(name: str, value: Any) -> Latency:
    if isinstance(value, (Lognormal, Quantiles, Samples)):
        value = vars(value)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _whole_ns(name, value, ", None or a dict")
    keys = set(value)
    if {"median_ns", "sigma"} <= keys <= {"median_ns", "sigma", "floor_ns"}:
        median, floor = (_whole_ns(f"{key} of {name}", value.get(key, 0)) for key in ("median_ns", "floor_ns"))
        return Lognormal(median, _sigma(name, value["sigma"]), floor)
    if keys == {"quantiles_ns"}:
        entries = _table(f"quantiles_ns of {name}", value["quantiles_ns"])
        falling = next((i for i in range(1, len(entries)) if entries[i] < entries[i - 1]), None)
        if falling is not None:
            raise ValueError(f"quantiles_ns of {name} falls at entry {falling}; allowed are rising values.")
        return Quantiles(entries)
    if keys == {"samples_ns"}:
        return Samples(_table(f"samples_ns of {name}", value["samples_ns"]))
    raise ValueError(
        f"{name} has the keys {shortened(sorted(map(str, keys)))}; allowed are median_ns and sigma, perhaps with "
        "floor_ns, or quantiles_ns, or samples_ns."
    )


def _whole_ns(name: str, value: Any, also: str = "") -> int:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 <= value <= MAX_NS:
        return int(value)
    raise ValueError(f"{name} is {shortened(value)}; allowed are integers from 0 to {MAX_NS} ns{also}.")


def _sigma(name: str, value: Any) -> float:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not 0 <= value <= MAX_SIGMA:  # a NaN fails this too, and an integer that no float is
        raise ValueError(f"sigma of {name} is {shortened(value)}; allowed is a number from 0 to {MAX_SIGMA:g}.")
    return float(value) + 0.0  # a negative zero is the same number and has other bytes


def _table(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple, np.ndarray)) or not 1 <= len(value) <= MAX_TABLE:
        raise ValueError(f"{name} is {shortened(value)}; allowed is a list of 1 to {MAX_TABLE} integers.")
    return tuple(_whole_ns(f"entry {i} of {name}", entry) for i, entry in enumerate(value))
