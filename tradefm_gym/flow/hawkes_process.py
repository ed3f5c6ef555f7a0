"""Multivariate Hawkes processes: what they are, and how likely they make a record of events.

The intensity of type i is ``max(floor_i, baseline_i + sum over past events of phi_ij(age))``, with kernels phi that are
sums of exponentials of a few decays. An amplitude may be negative: then events of one type keep those of another away.
The likelihood is that of this very intensity, the floor included: where an intensity may fall below its floor, the
instants at which it does so are found between any two events, and the integral is exact on both sides of them.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.flow.elementary import decayed

_STEPS = 200  # of a search for one crossing; bisection alone needs about 60
_CLOSE = 1e-13  # of the interval: a crossing that far off changes the integral by the square of that


class HawkesProcess(NamedTuple):
    """M types of events, D decays, B parts of the day."""

    baseline: np.ndarray  # (M, B) float64, per second
    edges: np.ndarray  # (B - 1,) float64, when one part of the day gives way to the next, seconds
    decays: np.ndarray  # (D,) float64 ascending, per second
    amplitudes: np.ndarray  # (M, M, D): events of type i that one of type j brings about (or prevents), by decay
    floor: np.ndarray  # (M,) float64, the least intensity, per second

    @property
    def types(self) -> int:
        """How many types there are."""
        return len(self.floor)


class Observed(NamedTuple):
    """Events in order of time; the first ones are history, by which the others are explained."""

    seconds: np.ndarray  # (n,) float64, not decreasing
    types: np.ndarray  # (n,) int64
    first: int  # index of the first event that counts
    begin: float  # from when on the process is watched; not before the event ``first - 1``
    end: float  # until when

    @property
    def counted(self) -> np.ndarray:
        """Types of the events that count, a view."""
        return self.types[self.first :]

    def counts(self, types: int) -> np.ndarray:
        """Events that count, by type (types,) int64."""
        return np.bincount(self.counted, minlength=types)


def log_likelihood(process: HawkesProcess, observed: Observed) -> float:
    """Logarithm of the likelihood of the events that count, in nats; densities are per second."""
    return _walked(process, observed, False)[0]


def log_likelihood_and_gradient(process: HawkesProcess, observed: Observed) -> tuple[float, np.ndarray, np.ndarray]:
    """Also its derivatives by the baseline (M, B) and by the amplitudes (M, M, D)."""
    value, _, baseline, amplitudes = _walked(process, observed, True)
    return value, baseline, amplitudes


def time_rescaled(process: HawkesProcess, observed: Observed) -> np.ndarray:
    """For each event that counts, the integral of its type's intensity since the one before it of that type.

    If the process is the true one, these are independent unit exponentials (the first of each type, counted from
    ``begin``, included).

    Returns:
        (n - first,) float64.
    """
    return _walked(process, observed, False)[1]


def poisson(observed: Observed, types: int, edges: np.ndarray) -> HawkesProcess:
    """The process without memory that explains the events best: the rate of each type in each part of the day."""
    bounds = np.concatenate([[observed.begin], np.clip(edges, observed.begin, observed.end), [observed.end]])
    rates = np.zeros((types, len(edges) + 1))
    for part, (low, high) in enumerate(pairwise(bounds)):
        seconds = observed.seconds[observed.first :]
        inside = observed.counted[(seconds >= low) & (seconds < high) | ((seconds == high) & (high == observed.end))]
        rates[:, part] = (np.bincount(inside, minlength=types) + 0.5) / max(high - low, 1e-9)
    return HawkesProcess(rates, edges, np.ones(1), np.zeros((types, types, 1)), np.full(types, 1e-12))


def positive_mass(process: HawkesProcess) -> tuple[np.ndarray, np.ndarray]:
    """What the positive part of each kernel integrates to (M, M), and its derivatives by the amplitudes (M, M, D).

    An intensity with a floor stays below that of the process that has only these parts, which is stationary if their
    spectral radius is below one.
    """
    amplitudes = process.amplitudes
    mass, slopes = amplitudes.sum(axis=2), np.ones_like(amplitudes)
    horizon = 60.0 / process.decays[0]
    for i, j in np.argwhere((amplitudes < 0).any(axis=2)).tolist():
        mass[i, j], slopes[i, j] = _positive_part(amplitudes[i, j] * process.decays, process.decays, horizon)
    return mass, slopes


def spectral_radius(process: HawkesProcess) -> float:
    """Largest absolute eigenvalue of what the kernels' positive parts integrate to."""
    return float(np.abs(np.linalg.eigvals(positive_mass(process)[0])).max())


def excitement(process: HawkesProcess, seconds: np.ndarray, types: np.ndarray, until: np.ndarray) -> np.ndarray:
    """What past events add to each type's intensity, by decay, right after the first ``until[c]`` events.

    Args:
        process: whose kernels they excite.
        seconds: (n,) float64, ascending.
        types: (n,) int64.
        until: (c,) int64, ascending.

    Returns:
        (c, M, D) float64, per second.
    """
    out = np.zeros((len(until), *process.amplitudes.shape[1:]))
    _remember(seconds, types, until, process.decays, process.amplitudes, out)
    return out


def usual_excitement(process: HawkesProcess) -> np.ndarray:
    """Its mean (M, D), were the floor never reached."""
    width = process.types
    rates = np.linalg.solve(np.eye(width) - process.amplitudes.sum(axis=2), process.baseline.mean(axis=1))
    return np.einsum("ijd,j->id", process.amplitudes, np.maximum(rates, process.floor))


def _walked(process: HawkesProcess, observed: Observed, gradient: bool):
    residuals = np.zeros(len(observed.seconds) - observed.first)
    by_baseline, by_amplitudes = np.zeros_like(process.baseline), np.zeros_like(process.amplitudes)
    value = _walk(*observed, *process, gradient, residuals, by_baseline, by_amplitudes)
    return float(value), residuals, by_baseline, by_amplitudes


def _positive_part(heights: np.ndarray, decays: np.ndarray, horizon: float) -> tuple[float, np.ndarray]:
    weights, work = np.zeros(len(decays)), np.zeros((len(decays) + 2, len(decays) + 2))
    _above(0.0, heights, decays, horizon, weights, work)
    return float((heights / decays * weights).sum()), weights


@njit(cache=True, nogil=True)
def _walk(
    seconds, types, first, begin, end, baseline, edges, decays, amplitudes, floor,
    gradient, residuals, by_baseline, by_amplitudes,
):  # fmt: skip
    """Goes through the events once; returns the log-likelihood, and fills the last three arrays."""
    width, many = len(floor), len(decays)
    sources = np.zeros((width, many))  # of each type's past events, by decay
    targets = np.zeros((width, many))  # what they add to each type's intensity
    since = np.zeros(width)  # integral of the intensity since the last event of the type
    exposure = np.zeros(baseline.shape[1])
    common = np.zeros((width, many))  # derivative of an integral that the floor did not touch, by source and decay
    kept, weights = np.zeros(many), np.zeros(many)
    work = np.zeros((many + 2, many + 2))
    total, now, part = 0.0, begin, 0
    for k in range(first):
        _fade(sources, targets, decays, kept, seconds[k] - now if k > 0 else 0.0)
        _excite(sources, targets, decays, amplitudes, types[k])
        now = seconds[k]
    if first > 0:
        _fade(sources, targets, decays, kept, begin - now)
    now = begin
    while part < len(edges) and edges[part] <= now:
        part += 1
    for k in range(first, len(seconds) + 1):
        until = seconds[k] if k < len(seconds) else end
        while now < until:
            stop = min(until, edges[part]) if part < len(edges) else until
            total -= _integrate(
                sources, targets, baseline, part, stop - now, decays, floor, since, exposure, common, kept, weights,
                work, gradient, by_baseline, by_amplitudes,
            )  # fmt: skip
            now = stop
            if part < len(edges) and now >= edges[part]:
                part += 1
        if k < len(seconds):
            i = types[k]
            residuals[k - first], since[i] = since[i], 0.0
            intensity = baseline[i, part]
            for d in range(many):
                intensity += targets[i, d]
            total += np.log(max(intensity, floor[i]))
            if gradient and intensity > floor[i]:
                by_baseline[i, part] += 1.0 / intensity
                for j in range(width):
                    for d in range(many):
                        by_amplitudes[i, j, d] += sources[j, d] * decays[d] / intensity
            _excite(sources, targets, decays, amplitudes, i)
    for i in range(width):
        by_baseline[i] -= exposure
        by_amplitudes[i] -= common
    return total


@njit(cache=True, nogil=True)
def _remember(seconds, types, until, decays, amplitudes, out):
    """What the first ``until[c]`` events have left behind, at the last of them: ``out`` (c, M, D)."""
    width, many = amplitudes.shape[0], len(decays)
    sources, targets = np.zeros((width, many)), np.zeros((width, many))
    kept = np.zeros(many)
    k = 0
    for c in range(len(until)):
        while k < until[c]:
            _fade(sources, targets, decays, kept, seconds[k] - seconds[k - 1] if k > 0 else 0.0)
            _excite(sources, targets, decays, amplitudes, types[k])
            k += 1
        out[c] = targets


@njit(cache=True, nogil=True)
def _fade(sources, targets, decays, kept, span):
    for d in range(len(decays)):
        kept[d] = decayed(decays[d] * span)
    for j in range(len(sources)):
        for d in range(len(decays)):
            sources[j, d] *= kept[d]
            targets[j, d] *= kept[d]


@njit(cache=True, nogil=True)
def _excite(sources, targets, decays, amplitudes, j):
    for d in range(len(decays)):
        sources[j, d] += 1.0
        for i in range(len(targets)):
            targets[i, d] += amplitudes[i, j, d] * decays[d]


@njit(cache=True, nogil=True)
def _integrate(
    sources, targets, baseline, part, span, decays, floor, since, exposure, common, kept, weights, work,
    gradient, by_baseline, by_amplitudes,
):  # fmt: skip
    """Integral of all intensities over ``span`` seconds without events, after which the state has faded."""
    width, many = len(floor), len(decays)
    for d in range(many):
        kept[d] = decayed(decays[d] * span)
    exposure[part] += span
    for j in range(width):
        for d in range(many):
            common[j, d] += sources[j, d] * (1.0 - kept[d])
    total = 0.0
    for i in range(width):
        over = baseline[i, part] - floor[i]
        lowest, integral = over, baseline[i, part] * span
        for d in range(many):
            height = targets[i, d]
            lowest += height if height < 0.0 else height * kept[d]
            integral += height * (1.0 - kept[d]) / decays[d]
        if lowest < 0.0:
            length = _above(over, targets[i], decays, span, weights, work)
            integral = floor[i] * span + over * length
            for d in range(many):
                integral += targets[i, d] / decays[d] * weights[d]
            if gradient:  # ``common`` counts the whole interval: give back what lies below the floor
                by_baseline[i, part] += span - length
                for j in range(width):
                    for d in range(many):
                        by_amplitudes[i, j, d] += sources[j, d] * (1.0 - kept[d] - weights[d])
        since[i] += integral
        total += integral
    for j in range(width):
        for d in range(many):
            sources[j, d] *= kept[d]
            targets[j, d] *= kept[d]
    return total


@njit(cache=True, nogil=True)
def _above(constant, heights, decays, span, weights, work):
    """Where ``constant + sum of heights * exp(-decays * t)`` is positive within [0, span].

    Returns the length of it; ``weights`` (D,) get the integrals of ``decays * exp(-decays * t)`` over it.
    """
    many = len(decays)
    weights[:] = 0.0
    highest = constant
    for d in range(many):
        highest += max(heights[d], 0.0)
    if highest <= 0.0:
        return 0.0
    crossings = _crossings(constant, heights, decays, span, work)
    length, low = 0.0, 0.0
    for c in range(crossings + 1):
        high = work[0, c] if c < crossings else span
        middle = 0.5 * (low + high)
        value = constant
        for d in range(many):
            value += heights[d] * decayed(decays[d] * middle)
        if value > 0.0:
            length += high - low
            for d in range(many):
                weights[d] += decayed(decays[d] * low) - decayed(decays[d] * high)
        low = high
    return length


@njit(cache=True, nogil=True)
def _crossings(constant, heights, decays, span, work):
    """Instants within (0, span) where the sum changes its sign, ascending in ``work[0]``; returns how many.

    A sum crosses at most as often as its coefficients change their sign. Between two crossings of a sum lies one of
    its derivative, and the derivative, divided by its slowest exponential, is a sum with one term less: so they are
    found from the shortest sum up.
    """
    many = len(decays)
    work[1, 0] = constant
    for d in range(many):
        work[1, d + 1] = heights[d]
    changes, last = 0, constant  # of sign, from the slowest term to the fastest: at least as many as crossings
    for d in range(many):
        if heights[d] != 0.0:
            changes += (heights[d] < 0.0) != (last < 0.0) and last != 0.0
            last = heights[d]
    starts, ends = _sum(work, 1, decays, 0.0) < 0.0, _sum(work, 1, decays, span) < 0.0
    if changes < 2 and starts == ends:
        return 0
    if changes < 3 and starts != ends:
        work[0, 0] = _crossing(work, 1, decays, 0.0, span, starts)
        return 1
    for level in range(1, many):  # row level + 1: coefficients of the sum that has lost its first ``level`` terms
        slowest = decays[level - 2] if level > 1 else 0.0
        for d in range(level, many + 1):
            work[level + 1, d] = -work[level, d] * (decays[d - 1] - slowest)
    found = 0
    for level in range(many, 0, -1):
        low, kept = 0.0, 0
        below = _sum(work, level, decays, 0.0)
        for c in range(found + 1):
            high = work[0, c] if c < found else span
            above = _sum(work, level, decays, high)
            if (below < 0.0) != (above < 0.0):
                work[0, kept] = _crossing(work, level, decays, low, high, below < 0.0)  # kept <= c: read already
                kept += 1
            low, below = high, above
        found = kept
    return found


@njit(cache=True, nogil=True)
def _sum(work, level, decays, t):
    """The sum of a level at ``t``, divided by its slowest exponential."""
    slowest = decays[level - 2] if level > 1 else 0.0
    total = work[level, level - 1]
    for d in range(level, len(decays) + 1):
        total += work[level, d] * decayed((decays[d - 1] - slowest) * t)
    return total


@njit(cache=True, nogil=True)
def _crossing(work, level, decays, low, high, rises):
    """The one crossing of a sum between ``low`` and ``high``: Newton's steps, halving where they leave."""
    slowest = decays[level - 2] if level > 1 else 0.0
    limit = _CLOSE * (high - low)
    t = low
    for _ in range(_STEPS):
        value, slope = work[level, level - 1], 0.0
        for d in range(level, len(decays) + 1):
            rate = decays[d - 1] - slowest
            term = work[level, d] * decayed(rate * t)
            value += term
            slope -= rate * term
        if (value < 0.0) == rises:
            low = t
        else:
            high = t
        step = t - value / slope if slope != 0.0 else low
        if not low < step < high:
            step = 0.5 * (low + high)
        if abs(step - t) <= limit or high - low <= limit:
            return step
        t = step
    return t
