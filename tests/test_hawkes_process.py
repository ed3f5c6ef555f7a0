"""Likelihood, gradient, simulation and maximum likelihood of Hawkes processes."""

import math
from itertools import pairwise

import numpy as np
import pytest
from market_checks import JIT

from tradefm_gym.flow.elementary import decayed, waiting
from tradefm_gym.flow.goodness import goodness_of_fit, kolmogorov_smirnov
from tradefm_gym.flow.hawkes_process import (
    HawkesProcess,
    Observed,
    excitement,
    log_likelihood,
    log_likelihood_and_gradient,
    poisson,
    positive_mass,
    spectral_radius,
    time_rescaled,
    usual_excitement,
)
from tradefm_gym.flow.thinning import simulate


def random_case(seed, events=50, parts=2):
    """A process of three types that inhibit one another often, and events that need not be its own."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.uniform(0, 20, events))
    seconds[20] = seconds[21]  # a tie
    process = HawkesProcess(
        rng.uniform(0.2, 0.6, (3, parts)),
        np.array([9.0, 15.0, 18.0][: parts - 1]),
        np.array([0.5, 4.0, 40.0]),
        rng.normal(0, 0.25, (3, 3, 3)),
        np.full(3, 0.05),
    )
    return process, Observed(seconds, rng.integers(0, 3, events), 10, float(seconds[9] + seconds[10]) / 2, 21.0)


# --- The plain twin: every intensity from all events before it ---------------------------------------------------


def plain_intensity(process, observed, i, t, part, strictly_before):
    total = process.baseline[i, part]
    for index in range(strictly_before):
        age, j = t - observed.seconds[index], observed.types[index]
        for d, decay in enumerate(process.decays):
            total += process.amplitudes[i, j, d] * decay * math.exp(-decay * age)
    return total


def plain_integral(process, observed, i, low, high, part, before):
    """Integral of the floored intensity between two events: the interval is cut where a fine scan sees crossings."""
    floor = process.floor[i]

    def over(t):
        return plain_intensity(process, observed, i, t, part, before) - floor

    def antiderivative(t):
        total = (process.baseline[i, part] - floor) * t
        for index in range(before):
            age, j = t - observed.seconds[index], observed.types[index]
            for d, decay in enumerate(process.decays):
                total -= process.amplitudes[i, j, d] * math.exp(-decay * age)
        return total

    span = high - low
    points = sorted({0.0, span, *np.linspace(0, span, 25), *np.geomspace(span * 1e-4, span, 25)})
    cuts = [low]
    for a, b in pairwise(low + np.array(points)):
        if (over(a) < 0) != (over(b) < 0):
            for _ in range(60):
                middle = (a + b) / 2
                a, b = (middle, b) if (over(middle) < 0) == (over(a) < 0) else (a, middle)
            cuts.append(a)
    total = floor * span
    for a, b in pairwise([*cuts, high]):
        if over((a + b) / 2) > 0:
            total += antiderivative(b) - antiderivative(a)
    return total


def plain(process, observed):
    """Log-likelihood, and the integral of each type's intensity between its events."""
    value, residuals, since = 0.0, [], np.zeros(process.types)
    now = observed.begin
    for k in range(observed.first, len(observed.seconds) + 1):
        until = observed.seconds[k] if k < len(observed.seconds) else observed.end
        bounds = [now, *(edge for edge in process.edges if now < edge < until), until]
        for low, high in pairwise(bounds):
            if high > low:
                part = sum(edge <= low for edge in process.edges)
                for i in range(process.types):
                    integral = plain_integral(process, observed, i, low, high, part, k)
                    since[i] += integral
                    value -= integral
        if k < len(observed.seconds):
            i = observed.types[k]
            part = sum(edge <= until for edge in process.edges)
            value += math.log(max(plain_intensity(process, observed, i, until, part, k), process.floor[i]))
            residuals.append(since[i])
            since[i] = 0.0
        now = until
    return value, np.array(residuals)


@pytest.mark.parametrize(("seed", "parts"), [(1, 1), (2, 2), (3, 3)])
def test_the_likelihood_equals_its_plain_twin(seed, parts):
    process, observed = random_case(seed, 32, parts)
    value, residuals = plain(process, observed)
    assert (residuals > 0).any() and spectral_radius(process) > 0
    assert log_likelihood(process, observed) == pytest.approx(value, rel=1e-9)
    np.testing.assert_allclose(time_rescaled(process, observed), residuals, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(4, 8 if JIT else 5))
def test_the_gradient_equals_finite_differences(seed):
    process, observed = random_case(seed)
    value, by_baseline, by_amplitudes = log_likelihood_and_gradient(process, observed)
    assert value == log_likelihood(process, observed)
    for name, slopes in (("baseline", by_baseline), ("amplitudes", by_amplitudes)):
        for place in np.ndindex(slopes.shape):
            sides = []
            for step in (1e-6, -1e-6):
                moved = getattr(process, name).copy()
                moved[place] += step
                sides.append(log_likelihood(process._replace(**{name: moved}), observed))
            assert slopes[place] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-4), (name, place)


def test_the_positive_mass_is_what_lies_above_zero():
    process, _ = random_case(9)
    mass, slopes = positive_mass(process)
    ages = np.concatenate([[0.0], np.geomspace(1e-7, 100, 200_000)])
    for i, j in np.ndindex(3, 3):
        terms = process.amplitudes[i, j][:, None] * process.decays[:, None] * np.exp(-process.decays[:, None] * ages)
        values = np.maximum(terms.sum(axis=0), 0)
        assert mass[i, j] == pytest.approx(np.trapezoid(values, ages), abs=1e-5)
        assert mass[i, j] == pytest.approx((slopes[i, j] * process.amplitudes[i, j]).sum(), abs=1e-12)
    plain = HawkesProcess(
        np.ones((2, 1)), np.zeros(0), np.ones(1), np.array([[[0.5], [0.2]], [[0.3], [0.1]]]), np.ones(2)
    )
    assert spectral_radius(plain) == pytest.approx(0.3 + math.sqrt(0.04 + 0.06))


def test_exponential_and_logarithm_are_exact_to_the_last_places():
    values = np.concatenate([np.linspace(0, 5, 300), np.geomspace(1e-12, 700, 300)])
    assert max(abs(decayed(x) / math.exp(-x) - 1) for x in values) < 5e-16
    assert decayed(0.0) == 1.0 and decayed(1e4) == 0.0
    uniforms = np.concatenate([np.linspace(1e-3, 1, 300), 2.0 ** -np.arange(54)])
    assert max(abs(waiting(u) - -math.log(u)) / max(-math.log(u), 1e-300) for u in uniforms if u < 1) < 1e-15
    assert waiting(1.0) == 0.0


def test_excitement_is_what_the_past_adds():
    process, observed = random_case(10)
    until = np.array([0, 5, 5, 50])
    found = excitement(process, observed.seconds, observed.types, until)
    for row, count in zip(found, until, strict=True):
        t = observed.seconds[count - 1] if count else 0.0
        for i in range(3):
            expected = plain_intensity(process, observed, i, t, 0, count) - process.baseline[i, 0]
            assert row[i].sum() == pytest.approx(expected, abs=1e-12)


def two_kinds(inhibition=True):
    """Two kinds with two sides each, so that mirrored parameters are equal."""
    amplitudes = np.zeros((4, 4, 2))
    values = {(0, 0): (0.2, 0.1), (0, 1): (0.05, 0.1), (0, 2): (0.1, 0.0), (0, 3): (0.05, 0.15),
              (1, 0): (0.1, 0.05), (1, 1): (0.15, 0.0), (1, 2): (0.25, 0.2),
              (1, 3): (-0.2 * inhibition, 0.05)}  # fmt: skip
    for (kind, j), pair in values.items():
        amplitudes[2 * kind, j] = amplitudes[2 * kind + 1, j ^ 1] = pair
    baseline = np.repeat([[0.5], [0.8]], 2, axis=0)
    return HawkesProcess(baseline, np.zeros(0), np.array([1.0, 30.0]), amplitudes, 0.02 * baseline[:, 0])


@pytest.mark.skipif(not JIT, reason="many events")
def test_a_simulation_has_the_rates_of_its_process():
    process = two_kinds(inhibition=False)
    observed = simulate(process, 60_000, seed=5)
    rates = np.linalg.solve(np.eye(4) - process.amplitudes.sum(axis=2), process.baseline[:, 0])
    np.testing.assert_allclose(observed.counts(4) / observed.end, rates, rtol=0.04)
    mean = excitement(process, observed.seconds, observed.types, np.arange(100, 60_000, 7)).mean(axis=0)
    assert usual_excitement(process).sum() == pytest.approx((process.amplitudes.sum(axis=2) @ rates).sum())
    assert mean.sum() > usual_excitement(process).sum(), "events come where intensities are high"


@pytest.mark.skipif(not JIT, reason="many events")
def test_time_rescaling_accepts_its_own_process_and_rejects_others():
    process = two_kinds()._replace(edges=np.array([1500.0]), baseline=np.repeat([[0.5, 0.9], [0.8, 0.3]], 2, axis=0))
    observed = simulate(process, 12_000, seed=11)
    names = ("a", "b", "c", "d")
    for row in goodness_of_fit(process, observed, names):
        assert row.p_value > 0.01 and row.ks < 0.04, row
        assert row.mean == pytest.approx(1, abs=0.05)
        np.testing.assert_allclose(row.observed[2:-1], row.expected[2:-1], rtol=0.15)
    wrong = poisson(observed, 4, process.edges)
    for row in goodness_of_fit(wrong, observed, names):
        assert row.p_value < 1e-4, row
        assert row.mean == pytest.approx(1, abs=0.05), "a Poisson process has the mean right, and only that"
    doubled = process._replace(decays=3 * process.decays)
    assert min(row.p_value for row in goodness_of_fit(doubled, observed, names)) < 1e-4
    assert goodness_of_fit(process, observed._replace(types=observed.types % 2), names)[3].ks is None


def test_the_distance_of_kolmogorov_and_smirnov():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(2)
    for sample in (rng.exponential(size=400), rng.exponential(size=60) * 1.2, rng.uniform(size=50)):
        distance, p_value = kolmogorov_smirnov(sample)
        reference = stats.kstest(sample, "expon")
        assert distance == pytest.approx(reference.statistic, abs=1e-12)
        assert p_value == pytest.approx(reference.pvalue, abs=0.02)


@pytest.mark.skipif(not JIT, reason="many events")
def test_a_fit_recovers_what_was_simulated_within_its_standard_errors():
    pytest.importorskip("scipy")
    from tradefm_gym.flow.hawkes_fit import Form, fit, standard_errors

    truth = two_kinds()
    observed = simulate(truth, 25_000, seed=3)
    form = Form(tuple(truth.decays.tolist()), symmetric=True, inhibition=True)
    fitted = fit(observed, 4, form, floor=truth.floor)
    assert fitted.log_likelihood >= log_likelihood(truth, observed)
    errors = standard_errors(fitted, observed)
    away = (form.free(fitted.process) - form.free(truth)) / errors
    assert np.isfinite(away).all()
    assert np.abs(away).max() < 3.5
    assert 0.4 < (away**2).mean() < 1.8, "as squares of standard normals, 18 of them"
    assert fitted.process.amplitudes[2, 3, 0] < -3 * np.nanmax(errors) * 0.5, "inhibition is found as such"


@pytest.mark.skipif(not JIT, reason="many events")
def test_a_fit_stays_stationary():
    pytest.importorskip("scipy")
    from tradefm_gym.flow.hawkes_fit import MOST_RADIUS, Form, fit

    # A rate that grows exponentially is explained best by events that bring about more than one event each.
    seconds = 200 * np.log1p(np.arange(6000) / 20)
    observed = Observed(seconds, np.random.default_rng(4).integers(0, 2, 6000), 0, 0.0, float(seconds[-1]))
    for inhibition in (False, True):
        fitted = fit(observed, 2, Form((0.05, 0.5), inhibition=inhibition))
        assert 0.9 < spectral_radius(fitted.process) < MOST_RADIUS
        assert fitted.log_likelihood > log_likelihood(poisson(observed, 2, np.zeros(0)), observed) + 500
