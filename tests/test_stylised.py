import math

import numpy as np
import pytest

from tradefm_gym.realism.stylised import SIGN_LAGS, agreement, facts


def autoregression(random, number, persistence):
    noise = random.normal(size=number)
    found = np.empty(number)
    found[0] = noise[0]
    for i in range(1, number):
        found[i] = persistence * found[i - 1] + math.sqrt(1 - persistence**2) * noise[i]
    return found


def clustered(random, number):
    """Returns of slowly changing volatility: no autocorrelation, tails, absolute values that remember."""
    return np.exp(0.6 * autoregression(random, number, 0.97)) * random.normal(size=number)


def naive(stretches, interval=1, lag=None):
    """Kurtosis of sums, or autocorrelation at a lag, stretch by stretch."""
    joined = np.concatenate(stretches)
    if lag is not None:
        mean = joined.mean()
        pairs = np.concatenate([(s[:-lag] - mean) * (s[lag:] - mean) for s in stretches if len(s) > lag])
        return pairs.mean() / joined.var()
    summed = np.concatenate([s[: len(s) // interval * interval].reshape(-1, interval).sum(axis=1) for s in stretches])
    centred = summed - summed.mean()
    return (centred**4).mean() / (centred**2).mean() ** 2 - 3


@pytest.fixture(scope="module")
def stretches():
    random = np.random.default_rng(0)
    return [0.01 * clustered(random, number) + 0.002 for number in (900, 7, 400, 1500)]


def test_values_equal_the_naive_ones_stretch_by_stretch(stretches):
    found = facts(stretches, lags=10)
    absolute = [np.abs(stretch) for stretch in stretches]
    for lag in range(1, 11):
        assert found[f"return_autocorrelation_{lag}"].value == pytest.approx(naive(stretches, lag=lag))
        assert found[f"absolute_autocorrelation_{lag}"].value == pytest.approx(naive(absolute, lag=lag))
    assert found["return_autocorrelation_rest"].value == pytest.approx(
        np.mean([naive(stretches, lag=lag) for lag in range(2, 11)])
    )
    assert found["absolute_autocorrelation_far"].value == pytest.approx(
        np.mean([naive(absolute, lag=lag) for lag in range(6, 11)])
    )
    for interval in (1, 2, 5, 10, 30, 60):
        assert found[f"excess_kurtosis_{interval}"].value == pytest.approx(naive(stretches, interval))
    assert found["kurtosis_left"].value == pytest.approx(naive(stretches, 60) / naive(stretches, 1))
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_statsmodels_and_scipy_say_the_same():
    stattools = pytest.importorskip("statsmodels.tsa.stattools", reason="needs the realism extra")
    stats = pytest.importorskip("scipy.stats", reason="needs the realism extra")
    random = np.random.default_rng(1)
    returns, volumes = clustered(random, 4000), random.exponential(size=4000)
    found = facts([returns], [volumes], lags=5)
    expected = stattools.acf(returns, nlags=5, adjusted=True)
    for lag in range(1, 6):
        # statsmodels divides by n - lag as well.
        assert found[f"return_autocorrelation_{lag}"].value == pytest.approx(expected[lag], abs=1e-12)
    assert found["excess_kurtosis_1"].value == pytest.approx(stats.kurtosis(returns))
    assert found["volume_volatility_correlation"].value == pytest.approx(np.corrcoef(np.abs(returns), volumes)[0, 1])


def test_nothing_reaches_across_a_seam():
    # Each stretch alternates; across the seam two equal returns meet.
    found = facts([np.array([1.0, -1.0] * 50), np.array([-1.0, 1.0] * 50)], lags=2, intervals=(1, 2), block=10)
    assert found["return_autocorrelation_1"].value == pytest.approx(-1)
    assert found["return_autocorrelation_2"].value == pytest.approx(1)
    assert np.isnan(found["excess_kurtosis_2"].value)  # all sums are 0
    short = facts([np.array([1.0, -1.0, 0.5])] * 20, lags=4, intervals=(1, 5), block=3)
    assert np.isnan(short["return_autocorrelation_3"]).all() and np.isnan(short["excess_kurtosis_5"]).all()


def test_autoregression_is_covered():
    held = 0
    for trial in range(40):
        returns = autoregression(np.random.default_rng(trial), 6000, 0.5)
        found = facts([returns], lags=3, intervals=(1, 2), seed=trial)
        held += found["return_autocorrelation_2"].low <= 0.25 <= found["return_autocorrelation_2"].high
    assert held >= 33


def test_kurtosis_is_excess_and_falls_as_one_over_the_interval():
    random = np.random.default_rng(2)
    found = facts([random.laplace(size=200_000)], intervals=(1, 2, 10))
    for interval, estimate in ((1, 3.0), (2, 1.5), (10, 0.3)):  # 3 for Laplace, 3 / q for sums of q
        assert found[f"excess_kurtosis_{interval}"].value == pytest.approx(estimate, abs=0.2)
    assert found["kurtosis_left"].low < 0.1 < found["kurtosis_left"].high
    gaussian = facts([random.normal(size=100_000)], intervals=(1, 2))["excess_kurtosis_1"]
    assert gaussian.low < 0 < gaussian.high and abs(gaussian.value) < 0.1


@pytest.mark.parametrize("exponent", [2.0, 3.0, 4.0])
def test_tail_exponent_of_a_pareto_law(exponent):
    random = np.random.default_rng(3)
    size = (1 + random.pareto(exponent, 60_000)) * random.choice([-1, 1], 60_000)
    found = facts([size])["tail_exponent"]
    assert found.value == pytest.approx(exponent, rel=0.08)
    assert found.low < exponent < found.high and found.high - found.low < 0.3 * exponent
    ordered = np.sort(np.abs(size))[::-1]
    assert found.value == pytest.approx(3000 / np.log(ordered[:3000] / ordered[3000]).sum())


def test_volume_and_volatility():
    random = np.random.default_rng(4)
    activity = np.exp(0.5 * autoregression(random, 5000, 0.9))
    returns = [activity * random.normal(size=5000)]
    assert facts(returns, [activity])["volume_volatility_correlation"].low > 0.3
    other = facts(returns, [random.exponential(size=5000)])["volume_volatility_correlation"]
    assert other.low < 0 < other.high
    assert "volume_volatility_correlation" not in facts(returns)


def test_long_memory_of_signs():
    # Orders split into runs of Pareto lengths: correlation ~ lag ** -(exponent - 1) (Lillo, Mike and Farmer 2005).
    random = np.random.default_rng(5)
    lengths = np.ceil(random.random(200_000) ** (-1 / 1.5)).astype(np.int64)
    signs = np.repeat(random.choice([-1, 1], len(lengths)), np.minimum(lengths, 5000))[:300_000]
    found = facts([random.normal(size=500)], signs=[signs], sign_block=5000)
    # Exactly: two trades a lag apart are of one order as often as orders have more than that left.
    longer = np.append(1.0, np.arange(1.0, 5000) ** -1.5)  # share of orders of at least 1, 2, ... trades
    exact = {lag: longer[lag:].sum() / longer.sum() for lag in SIGN_LAGS}
    for lag in SIGN_LAGS:
        assert found[f"sign_autocorrelation_{lag}"].value == pytest.approx(exact[lag], abs=0.05)
    slope = np.polyfit(np.log(SIGN_LAGS), np.log(list(exact.values())), 1)[0]
    assert -slope == pytest.approx(0.5, abs=0.1)  # orders of at most 5000 trades forget in the end
    assert found["sign_decay_exponent"].low < -slope < found["sign_decay_exponent"].high
    assert found["sign_decay_exponent"].value == pytest.approx(-slope, abs=0.12)
    independent = facts([random.normal(size=500)], signs=[random.choice([-1, 1], 50_000)])
    assert independent["sign_autocorrelation_1"].low < 0 < independent["sign_autocorrelation_1"].high


def test_decay_exponent_of_an_exact_power_law():
    from tradefm_gym.realism.stylised import _decay_exponent

    lags = np.array([1, 2, 5, 10])
    rows = np.stack([0.3 * lags**-0.4, [0.3, 0.2, -0.1, 0.1], 0.5 * lags**-1.0])
    rows[2, 3] = -1  # what comes after it does not count
    with np.errstate(divide="ignore", invalid="ignore"):
        assert _decay_exponent(rows, lags) == pytest.approx([0.4, np.nan, 1.0], nan_ok=True)


def test_the_same_market_agrees_with_itself_and_gaussian_noise_does_not():
    random = np.random.default_rng(6)
    real = facts([clustered(random, 20_000)])
    again = agreement(real, facts([clustered(random, 20_000)], seed=1))
    assert set(again) == {"no_autocorrelation", "slow_decay", "heavy_tails", "convergence_to_gaussian"}
    assert all(fact.agrees for fact in again.values())
    noise = agreement(real, facts([random.normal(size=20_000)]))
    assert not noise["slow_decay"].agrees and not noise["heavy_tails"].agrees
    assert noise["no_autocorrelation"].agrees
    bouncing = agreement(real, facts([autoregression(random, 20_000, -0.5)]))
    assert not bouncing["no_autocorrelation"].agrees
    part = noise["heavy_tails"].parts[0]
    assert part.name == "tail_exponent" and not part.within_interval


def test_agreement_is_by_interval_or_by_a_factor_of_two_with_the_sign():
    from tradefm_gym.realism.bootstrap import Estimate

    real = facts([np.random.default_rng(7).normal(size=2000)], lags=2, intervals=(1, 2))
    for value, near, inside in ((1.9, True, False), (0.5, True, False), (2.1, False, False), (-1, False, False)):
        fixed = dict.fromkeys(real, Estimate(1.0, 0.9, 1.1))
        found = agreement(fixed, dict.fromkeys(real, Estimate(value, value, value)))["heavy_tails"]
        assert (found.agrees, found.parts[0].within_factor, found.parts[0].within_interval) == (near, near, inside)
    zero = dict.fromkeys(real, Estimate(0.0, -0.1, 0.1))
    assert agreement(zero, dict.fromkeys(real, Estimate(0.05, 0, 0)))["heavy_tails"].agrees
    nothing = dict.fromkeys(real, Estimate(np.nan, np.nan, np.nan))
    assert not agreement(zero, nothing)["heavy_tails"].agrees
    assert not agreement(nothing, zero)["heavy_tails"].agrees
    assert agreement(zero, nothing)["heavy_tails"].measurable
    untold = agreement(zero | {"tail_exponent": nothing["tail_exponent"]}, zero)
    assert {fact: one.measurable for fact, one in untold.items()} == {
        "no_autocorrelation": True, "slow_decay": True, "heavy_tails": False, "convergence_to_gaussian": True,
    }  # fmt: skip


def test_agreement_needs_the_same_lags_but_no_volumes():
    random = np.random.default_rng(8)
    returns = [random.normal(size=400)]
    with pytest.raises(ValueError, match="take both with equal lags and intervals"):
        agreement(facts(returns), facts(returns, lags=5))
    agreement(facts(returns, [np.abs(returns[0])]), facts(returns))


def test_constant_and_short_series_have_no_facts():
    found = facts([np.full(500, 0.1)], signs=[np.ones(2000)])
    for name in ("return_autocorrelation_1", "absolute_autocorrelation_1", "excess_kurtosis_1", "kurtosis_left"):
        assert np.isnan(found[name]).all()
    assert np.isnan(found["tail_exponent"]).all() and np.isnan(found["sign_autocorrelation_1"]).all()
    one = facts([np.random.default_rng(9).normal(size=100)])["return_autocorrelation_1"]
    assert np.isfinite(one.value) and np.isnan(one.low)  # one block
    assert np.isnan(facts([np.array([1.0])])["return_autocorrelation_1"].value)
    mostly_still = facts([np.append(np.zeros(990), np.arange(10.0))])["tail_exponent"]
    assert np.isnan(mostly_still.value)  # the largest 5% begin at 0


def test_what_makes_no_sense_is_refused():
    returns = [np.arange(10.0)]
    with pytest.raises(ValueError, match="at least one stretch"):
        facts([])
    with pytest.raises(ValueError, match="returns is nan at 1"):
        facts([np.array([0, np.nan])])
    with pytest.raises(ValueError, match="volumes has 2 stretches and returns 1"):
        facts(returns, [returns[0], returns[0]])
    with pytest.raises(ValueError, match=r"volumes is .* one-dimensional array of 10"):
        facts(returns, [np.zeros(3)])
    with pytest.raises(ValueError, match="signs has values other than 1 and -1"):
        facts(returns, signs=[np.zeros(3)])
    with pytest.raises(ValueError, match=r"intervals is \(2, 1\); it must ascend"):
        facts(returns, intervals=(2, 1))
    with pytest.raises(ValueError, match="lags is 1"):
        facts(returns, lags=1)
    with pytest.raises(ValueError, match="block is 0"):
        facts(returns, block=0)
