"""Maximum likelihood for Hawkes processes (needs scipy: the extra ``fit``)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tradefm_gym.flow.hawkes_process import (
    HawkesProcess,
    Observed,
    log_likelihood,
    log_likelihood_and_gradient,
    positive_mass,
    spectral_radius,
)

MOST_RADIUS = 0.95
_RADIUS_AIM = 0.945  # the penalty holds it here, a little below what is allowed
_FLOOR_SHARE = 0.01  # of a type's mean rate: its least intensity
_LOWEST = 1e-9  # per second, of a baseline
_NEVER = 1e-12  # per second, the floor of a type that never happens: one event in 30,000 years
_STRONGEST = 5.0  # events that one event may bring about, or prevent, at one decay
_MEMORY = 20  # pairs that L-BFGS-B keeps


@dataclass(frozen=True)
class Form:
    """What a fit may vary.

    Attributes:
        decays: (D,) ascending, per second.
        edges: (B - 1,) seconds at which the baseline changes.
        symmetric: types 2 k and 2 k + 1 are the two sides of one kind, and mirrored pairs share their parameters.
        inhibition: amplitudes may be negative.
        missing: types that never happen, both sides of a kind if ``symmetric``: their baselines, and the amplitudes to
            and from them, are 0.
    """

    decays: tuple[float, ...]
    edges: tuple[float, ...] = ()
    symmetric: bool = True
    inhibition: bool = True
    missing: tuple[int, ...] = ()

    def shapes(self, types: int) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """Shapes of the free baselines and amplitudes."""
        rows = types // 2 if self.symmetric else types
        return (rows, len(self.edges) + 1), (rows, types, len(self.decays))

    def unfold(self, free: np.ndarray, floor: np.ndarray) -> HawkesProcess:
        """The process whose free parameters are ``free`` (p,): baselines, then amplitudes."""
        baseline_shape, amplitude_shape = self.shapes(len(floor))
        cut = baseline_shape[0] * baseline_shape[1]
        baseline, amplitudes = free[:cut].reshape(baseline_shape), free[cut:].reshape(amplitude_shape)
        if self.symmetric:
            mirrored = amplitudes[:, np.arange(len(floor)) ^ 1]
            baseline = np.repeat(baseline, 2, axis=0)
            amplitudes = np.stack([amplitudes, mirrored], axis=1).reshape(len(floor), len(floor), -1)
        edges, decays = np.array(self.edges, np.float64), np.array(self.decays, np.float64)
        return HawkesProcess(np.ascontiguousarray(baseline), edges, decays, np.ascontiguousarray(amplitudes), floor)

    def fold(self, baseline: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Derivatives by the free parameters (p,), given those by all of them."""
        if self.symmetric:
            baseline = baseline[::2] + baseline[1::2]
            amplitudes = amplitudes[::2] + amplitudes[1::2][:, np.arange(amplitudes.shape[1]) ^ 1]
        return np.concatenate([baseline.ravel(), amplitudes.ravel()])

    def varied(self, types: int) -> np.ndarray:
        """Which free parameters vary (p,) bool; those of types that never happen stay 0."""
        happens = ~np.isin(np.arange(types), self.missing)
        rows = happens[:: 2 if self.symmetric else 1]
        baseline_shape, amplitude_shape = self.shapes(types)
        baseline = np.broadcast_to(rows[:, None], baseline_shape)
        amplitudes = np.broadcast_to((rows[:, None] & happens)[:, :, None], amplitude_shape)
        return np.concatenate([baseline.ravel(), amplitudes.ravel()])

    def free(self, process: HawkesProcess) -> np.ndarray:
        """The inverse of ``unfold`` (p,)."""
        step = 2 if self.symmetric else 1
        return np.concatenate([process.baseline[::step].ravel(), process.amplitudes[::step].ravel()])


@dataclass(frozen=True)
class Fit:
    """A fitted process, its log-likelihood in nats on the events that it was fitted to, and what it took."""

    process: HawkesProcess
    form: Form
    log_likelihood: float
    evaluations: int


def fit(
    observed: Observed,
    types: int,
    form: Form,
    start: HawkesProcess | None = None,
    floor: np.ndarray | None = None,
    tolerance: float = 1e-8,
    iterations: int = 300,
    progress: Callable[[str], None] | None = None,
) -> Fit:
    """The process of a form that makes the observed events most likely, its spectral radius below 0.95.

    Args:
        observed: events and the window in which they count.
        types: how many types there are.
        form: what is free.
        start: where the search starts, of the same form (a shorter list of decays will do: the others start at 0);
            by default half of the events are excited, by all types alike.
        floor: (types,) least intensities; by default 1% of the mean rate of each type, next to nothing of missing ones.
        tolerance: relative change of the likelihood per event at which the search ends.
        iterations: of the search at most, for each strength of the penalty on the spectral radius.
        progress: told what goes on, once an iteration.

    Raises:
        ImportError: if scipy is not installed.
    """
    counts = np.maximum(observed.counts(types), 0.5)
    if form.symmetric:
        counts = np.repeat(counts.reshape(-1, 2).mean(axis=1), 2)
    rates = counts / (observed.end - observed.begin)
    if floor is None:
        floor = np.where(np.isin(np.arange(types), form.missing), _NEVER, _FLOOR_SHARE * rates)
    first = _default_start(rates, form) if start is None else _extended(start, form)
    free = form.free(first) * form.varied(types)
    search = _Search(observed, form, floor, _scales(rates, form), progress)
    for penalty in (3e2, 3e3, 3e4):  # nothing where the radius is small enough
        free = search.minimise(free, penalty, tolerance, iterations)
        radius = spectral_radius(form.unfold(free, floor))
        if radius < MOST_RADIUS:
            break
    process = form.unfold(free, floor)
    if radius >= MOST_RADIUS:  # the penalty is soft: what is left is taken off all kernels alike
        process = process._replace(amplitudes=process.amplitudes * (_RADIUS_AIM / radius))
    return Fit(process, form, log_likelihood(process, observed), search.evaluations)


def standard_errors(fitted: Fit, observed: Observed, step: float = 1e-4) -> np.ndarray:
    """Standard errors of the free parameters (p,), from the observed information.

    The information is the negative second derivative of the log-likelihood, by central differences of its gradient,
    over the parameters that do not lie on a bound; those that do get NaN.
    """
    form, floor = fitted.form, fitted.process.floor
    free = form.free(fitted.process)
    lower, upper = _bounds(len(floor), form)
    inner = np.flatnonzero((free > lower + 1e-9) & (free < upper))
    information = np.zeros((len(inner), len(inner)))
    for row, p in enumerate(inner):
        width = step * max(abs(free[p]), 0.05)
        sides = []
        for sign in (1, -1):
            moved = free.copy()
            moved[p] += sign * width
            _, *by = log_likelihood_and_gradient(form.unfold(moved, floor), observed)
            sides.append(form.fold(by[0], by[1])[inner])
        information[row] = (sides[1] - sides[0]) / (2 * width)
    errors = np.full(len(free), np.nan)
    errors[inner] = np.sqrt(np.maximum(np.diag(np.linalg.pinv((information + information.T) / 2)), 0.0))
    return errors


class _Search:
    """Penalised likelihood of scaled parameters, as scipy minimises it."""

    def __init__(self, observed, form, floor, scales, progress) -> None:
        self.observed, self.form, self.floor, self.scales = observed, form, floor, scales
        self.progress, self.evaluations, self.penalty, self.value = progress, 0, 0.0, 0.0

    def minimise(self, free: np.ndarray, penalty: float, tolerance: float, iterations: int) -> np.ndarray:
        """The best free parameters, from ``free`` on."""
        from scipy.optimize import minimize

        self.penalty = penalty
        lower, upper = _bounds(len(self.floor), self.form)
        bounds = np.stack([lower, upper], axis=1) / self.scales[:, None]
        limits = {"maxiter": iterations, "maxfun": 2 * iterations}
        options = {"maxcor": _MEMORY, "ftol": tolerance, "gtol": 1e-7, **limits}
        found = minimize(
            self._loss, free / self.scales, jac=True, method="L-BFGS-B", bounds=bounds, options=options,
            callback=self._told,
        )  # fmt: skip
        return np.clip(found.x * self.scales, lower, upper)

    def _loss(self, scaled: np.ndarray) -> tuple[float, np.ndarray]:
        process = self.form.unfold(scaled * self.scales, self.floor)
        value, *by = log_likelihood_and_gradient(process, self.observed)
        events = len(self.observed.counted)
        loss, slope = -value / events, -self.form.fold(by[0], by[1]) / events
        self.evaluations += 1
        self.value = value / events
        radius, by_amplitudes = _radius_and_slope(process)
        if radius > _RADIUS_AIM:
            over = radius - _RADIUS_AIM
            loss += self.penalty * over**2
            slope += 2 * self.penalty * over * self.form.fold(np.zeros_like(process.baseline), by_amplitudes)
        return loss, slope * self.scales

    def _told(self, _: np.ndarray) -> None:
        if self.progress is not None:
            self.progress(f"{len(self.form.decays)} decays, {self.evaluations} evaluations, {self.value:.4f} nats")


def _radius_and_slope(process: HawkesProcess) -> tuple[float, np.ndarray]:
    """Spectral radius of the kernels' positive parts, and its derivatives by the amplitudes (M, M, D)."""
    mass, slopes = positive_mass(process)
    values, right = np.linalg.eig(mass)
    top = int(np.argmax(np.abs(values)))
    left_values, left = np.linalg.eig(mass.T)
    beside = int(np.argmin(np.abs(left_values - values[top])))
    u, v = np.abs(left[:, beside].real), np.abs(right[:, top].real)  # of a matrix without negative entries
    return float(np.abs(values[top])), np.outer(u, v)[:, :, None] * slopes / max(float(u @ v), 1e-12)


def _default_start(rates: np.ndarray, form: Form) -> HawkesProcess:
    baseline = np.repeat(0.5 * rates[:, None], len(form.edges) + 1, axis=1)
    each = 0.5 * rates / rates.sum() / len(form.decays)  # every event excites half an event, types by their rates
    amplitudes = np.repeat(np.repeat(each[:, None, None], len(rates), axis=1), len(form.decays), axis=2)
    return HawkesProcess(baseline, np.array(form.edges), np.array(form.decays), amplitudes, rates)


def _extended(start: HawkesProcess, form: Form) -> HawkesProcess:
    """A process with the form's decays and parts of the day, equal to ``start`` where that has them."""
    amplitudes = np.zeros((*start.amplitudes.shape[:2], len(form.decays)))
    for d, decay in enumerate(start.decays.tolist()):
        if decay in form.decays:
            amplitudes[:, :, form.decays.index(decay)] = start.amplitudes[:, :, d]
    if not form.inhibition:
        amplitudes = np.maximum(amplitudes, 0.0)
    baseline = start.baseline
    if baseline.shape[1] != len(form.edges) + 1:
        baseline = np.repeat(baseline.mean(axis=1, keepdims=True), len(form.edges) + 1, axis=1)
    return start._replace(baseline=baseline, amplitudes=amplitudes)


def _scales(rates: np.ndarray, form: Form) -> np.ndarray:
    """Sizes of the free parameters (p,): of the order of their uncertainty, so that all directions look alike."""
    typical = np.sqrt(rates[:, None] / rates[None, :])  # rare causes are uncertain, frequent effects vary more
    amplitudes = np.repeat(0.1 * typical[:, :, None], len(form.decays), axis=2)
    baseline = np.repeat(0.1 * rates[:, None], len(form.edges) + 1, axis=1)
    step = 2 if form.symmetric else 1
    return np.concatenate([baseline[::step].ravel(), amplitudes[::step].ravel()])


def _bounds(types: int, form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest free parameters, (p,) each."""
    baseline, amplitudes = (int(np.prod(shape)) for shape in form.shapes(types))
    weakest = -_STRONGEST if form.inhibition else 0.0
    lower = np.concatenate([np.full(baseline, _LOWEST), np.full(amplitudes, weakest)])
    upper = np.concatenate([np.full(baseline, np.inf), np.full(amplitudes, _STRONGEST)])
    varied = form.varied(types)
    return np.where(varied, lower, 0.0), np.where(varied, upper, 0.0)
