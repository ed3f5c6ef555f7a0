import math
import subprocess
import sys
import time

import numpy as np
import pytest

from tradefm_gym.realism.distances import (
    Sample,
    compare,
    compare_given,
    covered,
    deviation_floor,
    deviation_ratio,
    floor,
    floor_given,
    over_horizon,
    paired_ratio,
)


def sample(values, length=10):
    values = np.asarray(values, float)
    return Sample(values, np.arange(len(values)) // length)


def slow(values, persistence, random):
    """An autoregression with the distribution of a standard normal: (values,)."""
    noise = random.normal(size=values)
    found = np.empty(values)
    found[0] = noise[0]
    for i in range(1, values):
        found[i] = persistence * found[i - 1] + math.sqrt(1 - persistence**2) * noise[i]
    return found


def naive(real, generated, wanted):
    """The value of a metric from copies of the samples, as its textbook definition has it."""
    grid = np.unique(np.concatenate([real, generated]))
    gap = np.abs([(real <= x).mean() - (generated <= x).mean() for x in grid])
    if wanted == "ks":
        return gap.max()
    return (gap[:-1] * np.diff(grid)).sum()


def test_known_values_on_a_handful():
    found = compare(sample([1, 2, 3, 4], 1), sample([1, 2, 3, 8], 1))
    assert found["ks"].value == pytest.approx(0.25)
    assert found["w1"].value == pytest.approx(1 / np.std([1, 2, 3, 4]))
    # A quarter of each side lies where the other side has nothing.
    assert found["js"].value == pytest.approx(0.25)


def test_equal_samples_are_at_distance_0_and_disjoint_ones_at_1():
    one = sample(np.random.default_rng(0).normal(size=300))
    assert all(estimate.value == 0 for estimate in compare(one, one).values())
    apart = compare(one, Sample(one.values + 100, one.block))
    assert apart["ks"].value == pytest.approx(1)
    assert apart["w1"].value == pytest.approx(100 / one.values.std())


@pytest.mark.parametrize("kind", ["continuous", "ties"])
def test_values_equal_the_textbook_and_scipy(kind):
    random = np.random.default_rng(1)
    a, b = random.normal(size=700), 1.3 * random.normal(size=450) + 0.1
    if kind == "ties":
        a, b = np.round(a), np.round(b)
    found = compare(sample(a), sample(b))
    assert found["ks"].value == pytest.approx(naive(a, b, "ks"), abs=1e-12)
    assert found["w1"].value == pytest.approx(naive(a, b, "w1") / a.std(), abs=1e-12)
    stats = pytest.importorskip("scipy.stats", reason="needs the realism extra")
    assert found["ks"].value == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)
    assert found["w1"].value == pytest.approx(stats.wasserstein_distance(a, b) / a.std(), abs=1e-12)


def test_replicates_equal_samples_that_are_copied_block_by_block():
    from tradefm_gym.realism.bootstrap import resampled
    from tradefm_gym.realism.pooled import Pooled, Side

    random = np.random.default_rng(2)
    sides = [Side(np.round(random.normal(size=60), 1), np.arange(60) // 10, 6) for _ in range(2)]
    weights = resampled([6, 6], 20, seed=1)
    found = Pooled(*sides, unit=1.0, bins=8).distances(*weights)
    for row in range(21):
        copies = [np.repeat(s.values, w[row].astype(int)[s.block]) for s, w in zip(sides, weights, strict=True)]
        for metric in ("ks", "w1"):
            assert found[metric][row] == pytest.approx(naive(*copies, metric), abs=1e-12)


def test_js_has_a_bin_for_each_atom_and_for_what_lies_between():
    spreads = np.repeat([1.0, 2.0, 3.0], [80, 15, 5])
    moved = np.repeat([1.0, 2.0, 4.0], [80, 15, 5])
    assert compare(sample(spreads), sample(moved))["js"].value == pytest.approx(0.05)
    for stranger in (0.5, 1.5, 2.5, 9.0):
        strange = np.repeat([1.0, 2.0, stranger], [80, 15, 5])
        assert compare(sample(spreads), sample(strange))["js"].value == pytest.approx(0.05)
    # Also where the other values are too many for a bin each.
    random = np.random.default_rng(3)
    mixed = np.where(random.random(4000) < 0.5, 0.0, random.exponential(size=4000))
    gone = np.where(mixed == 0, 1e-6, mixed)
    # Values right above an atom share a bin with what lies above it, but not with the atom.
    assert compare(sample(mixed), sample(gone), bins=16)["js"].value > 0.4


def test_js_bins_of_a_continuous_sample_are_equally_full_and_reach_everywhere():
    from tradefm_gym.realism.pooled import cells

    random = np.random.default_rng(4)
    real, generated = random.normal(size=3200), 3 * random.normal(size=5000)
    ours, theirs = cells(real, generated, 32)
    assert set(np.bincount(ours)[1::2]) == {100} and not np.bincount(ours)[::2].any()
    assert not (theirs % 2 == 0).any()
    order = np.argsort(generated)
    assert (np.diff(theirs[order]) >= 0).all()
    # Two normals of deviations 1 and 3: the divergence by quadrature, which bins can only lessen.
    x = np.linspace(-30, 30, 200_001)
    p, q = np.exp(-(x**2) / 2), np.exp(-(x**2) / 18) / 3
    m = (p + q) / 2
    bits = lambda f: np.where(f > 0, f * np.log2(np.where(m > 0, np.where(f > 0, f, 1) / np.where(m > 0, m, 1), 1)), 0)  # noqa: E731
    exact = (bits(p) + bits(q)).sum() / 2 * (x[1] - x[0]) / math.sqrt(2 * math.pi)
    assert exact * 0.85 < compare(sample(real), sample(generated))["js"].value < exact * 1.05


def test_strong_serial_correlation_shows_in_the_floor_and_the_intervals():
    random = np.random.default_rng(5)
    held, own_ks = [], []
    for trial in range(12):
        real, other = (Sample(slow(12_000, 0.99, random), np.arange(12_000) // 300) for _ in range(2))
        own, found = floor(real, 80, trial), compare(real, other, 80, trial)
        held += [found[metric].low <= own[metric].value <= found[metric].high for metric in ("ks", "w1")]
        held += [own[metric].low <= found[metric].value <= own[metric].high for metric in ("ks", "w1")]
        own_ks.append(own["ks"].value)
    assert np.mean(held) > 0.7
    assert np.mean(own_ks) > 0.06
    independent = Sample(random.normal(size=12_000), np.arange(12_000) // 300)
    assert floor(independent)["ks"].value < 0.025
    # Taken for independent, the same samples would seem to differ.
    alone = compare(*(Sample(part.values, np.arange(12_000)) for part in (real, other)), 80)
    assert alone["w1"].high - alone["w1"].low < 0.3 * (found["w1"].high - found["w1"].low)


def flow(random, blocks=60, length=200):
    """Spreads in ticks, sizes and gaps between orders, each with a memory of its own."""
    number = blocks * length
    spreads = 1 + np.floor(np.exp(0.8 * slow(number, 0.95, random)))
    sizes = np.round(100 * np.exp(slow(number, 0.8, random)))
    gaps = np.exp(slow(number, 0.9, random))
    return spreads, sizes, gaps, np.arange(number) // length


@pytest.fixture(scope="module")
def recorded():
    return flow(np.random.default_rng(6))


@pytest.fixture(scope="module")
def faithful():
    return flow(np.random.default_rng(7))


def test_halved_spreads_and_doubled_sizes_are_flagged(recorded, faithful):
    for column, wrong in ((0, lambda x: np.ceil(x / 2)), (1, lambda x: 2 * x)):
        real, good = Sample(recorded[column], recorded[3]), Sample(faithful[column], faithful[3])
        bad = Sample(wrong(faithful[column]), faithful[3])
        own, near, far = floor(real), compare(real, good), compare(real, bad)
        for metric in ("ks", "w1", "js"):
            assert near[metric].value < 1.5 * own[metric].high
            assert far[metric].low > 1.5 * own[metric].high
            assert far[metric].low > 1.5 * near[metric].high
            assert paired_ratio(real, bad, good, metric).low > 1
            assert paired_ratio(real, good, bad, metric).high < 1


def test_shuffled_times_are_flagged_by_what_follows_what_though_not_by_their_distribution(recorded, faithful):
    def pairs(gaps, block):
        inside = block[1:] == block[:-1]
        return Sample(gaps[:-1][inside], block[1:][inside]), Sample(gaps[1:][inside], block[1:][inside])

    shuffled = np.random.default_rng(8).permutation(faithful[2])
    real, good, bad = pairs(*recorded[2:]), pairs(*faithful[2:]), pairs(shuffled, faithful[3])
    own = floor_given(*real)
    near, far = compare_given(*real, *good), compare_given(*real, *bad)
    for metric in ("ks", "w1", "js"):
        assert near[metric].value < 1.5 * own[metric].high
        assert far[metric].low > 2 * own[metric].high
    assert compare(real[1], bad[1])["ks"].value < 1.5 * floor(real[1])["ks"].high


def test_conditional_distance_is_the_average_over_bins_of_the_condition():
    # X is 0 three times as often as 1; Y given 0 is right, Y given 1 is off by 5.
    x = np.tile([0.0, 0.0, 0.0, 1.0], 100)
    y = np.random.default_rng(9).normal(size=400)
    block = np.arange(400) // 20
    found = compare_given(Sample(x, block), Sample(y, block), Sample(x, block), Sample(y + 50 * x, block))
    assert found["ks"].value == pytest.approx(0.25)
    assert found["w1"].value == pytest.approx(0.25 * 50 / y.std())
    # The share of the condition is the real one, not the generated one.
    rare = np.tile([0.0, 1.0], 200)
    again = compare_given(Sample(x, block), Sample(x, block), Sample(rare, block), Sample(rare, block))
    assert again["ks"].value == 0


def test_unvisited_conditions_are_left_out_and_told():
    x = np.tile([0.0, 0.0, 0.0, 1.0], 100)
    block = np.arange(400) // 20
    real, never = Sample(x, block), Sample(np.zeros(400), block)
    assert covered(real, real) == 1 and covered(real, never) == 0.75
    assert compare_given(real, real, never, never)["ks"].value == 0
    with pytest.raises(ValueError, match="generated_x visits no bin of real_x"):
        compare_given(real, real, Sample(np.full(400, 0.5), block), never)
    with pytest.raises(ValueError, match="real_x and real_y have different blocks"):
        compare_given(real, Sample(x, block + 1), never, never)


def test_distance_over_the_horizon_grows_with_the_drift():
    random = np.random.default_rng(10)
    real = Sample(random.normal(size=2000), np.arange(2000) // 20)
    stretches = [Sample(drift + random.normal(size=1000), np.arange(1000) // 10) for drift in (0.0, 0.5, 1.0)]
    found = over_horizon(real, stretches)
    assert [len(estimates) for estimates in found.values()] == [3, 3, 3]
    for estimates in found.values():
        assert estimates[0].high < estimates[1].low < estimates[1].high < estimates[2].low
    assert over_horizon([real] * 3, stretches) == found
    with pytest.raises(ValueError, match="generated has 3 stretches, real 2"):
        over_horizon([real] * 2, stretches)


def test_paired_ratio_cancels_the_luck_of_the_real_sample():
    random = np.random.default_rng(11)
    real = Sample(slow(6000, 0.99, random), np.arange(6000) // 200)
    a, b = (Sample(2 + slow(6000, 0.5, random) + shift, np.arange(6000) // 200) for shift in (0.0, 0.2))
    ratio = paired_ratio(real, a, b, "w1")
    of_a, of_b = compare(real, a)["w1"], compare(real, b)["w1"]
    assert ratio.value == pytest.approx(of_a.value / of_b.value)
    assert ratio.high - ratio.low < 0.5 * (of_a.high / of_b.low - of_a.low / of_b.high)
    with pytest.raises(ValueError, match="metric is 'kl'"):
        paired_ratio(real, a, b, "kl")


def test_degenerate_samples():
    many, constant = sample(np.arange(40.0)), sample(np.full(40, 0.1))
    found = compare(constant, many)
    assert np.isnan(found["w1"]).all() and found["ks"].value == pytest.approx(39 / 40)
    assert compare(constant, constant)["ks"] == (0, 0, 0)
    single = compare(many, sample(np.arange(8.0)))
    assert single["ks"].value == pytest.approx(0.8) and np.isnan(single["ks"].low)
    with pytest.raises(ValueError, match="real has one block"):
        floor(sample(np.arange(8.0)))
    with pytest.raises(ValueError, match=r"values is .*non-empty"):
        sample([])
    with pytest.raises(ValueError, match="values is inf at 1"):
        sample([0, np.inf])
    with pytest.raises(ValueError, match="bins is 1"):
        compare(many, many, bins=1)


def test_equal_seeds_give_equal_intervals():
    random = np.random.default_rng(12)
    one, other = sample(random.normal(size=400)), sample(random.normal(size=400))
    assert compare(one, other, seed=3) == compare(one, other, seed=3)
    assert compare(one, other, seed=3) != compare(one, other, seed=4)


def test_large_samples_take_seconds():
    random = np.random.default_rng(13)
    block = np.arange(100_000) // 500
    one, other = (Sample(random.normal(size=100_000), block) for _ in range(2))
    start = time.perf_counter()
    compare(one, other)
    assert time.perf_counter() - start < 20


BARE = """
import sys
for name in ("scipy", "sklearn", "statsmodels", "threadpoolctl"):
    sys.modules[name] = None
import numpy as np
from tradefm_gym.realism import discriminator, distances, scores, stylised
window, block = np.arange(8.0)[:, None], np.arange(8)
for call in (
    lambda: scores.uniformity(block, 9), lambda: discriminator.discriminate(window, window, block, block)
):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_importing_needs_no_extra_and_a_missing_one_is_named():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    assert done.stdout.count('pip install "tradefm-gym[realism]"') == 2


def test_the_ratio_of_deviations_is_that_of_the_samples_scales():
    random = np.random.default_rng(3)
    real = Sample(random.normal(size=4_000), np.arange(4_000) // 200)
    wide = Sample(2 * random.normal(size=4_000), np.arange(4_000) // 200)
    found = deviation_ratio(real, wide)
    assert found.low < 2.0 < found.high and 1.9 < found.low and found.high < 2.1
    assert deviation_ratio(real, real).value == 1.0
    halves = deviation_floor(real)
    even, odd = (real.values[(real.block % 2) == i] for i in (0, 1))
    assert halves.value == pytest.approx(np.sqrt((odd**2).mean() / (even**2).mean()))
