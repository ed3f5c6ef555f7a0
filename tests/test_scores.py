import math

import numpy as np
import pytest

from tradefm_gym.realism.scores import comparable, crps, pooled_skill, rank_histogram, ranks, skill, uniformity


def normal_crps(truth, deviation=1.0):
    """The score of the normal distribution itself (Gneiting and Raftery 2007, eq. 21)."""
    z = truth / deviation
    cumulative = np.array([0.5 * (1 + math.erf(one / math.sqrt(2))) for one in z])
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return deviation * (z * (2 * cumulative - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_crps_of_a_handful():
    assert crps(np.array([[0.0, 2.0]]), np.array([1.0])) == pytest.approx([1 - 1])
    assert crps(np.array([[3.0, 0.0, 1.0]]), np.array([5.0])) == pytest.approx([11 / 3 - (3 + 1 + 2) / 3 / 2])
    assert crps(np.full((1, 4), 2.0), np.array([5.0])) == pytest.approx([3.0])


def test_crps_equals_all_pairs():
    random = np.random.default_rng(0)
    ensemble, truth = np.round(random.normal(size=(40, 9)), 1), random.normal(size=40)
    pairs = np.abs(ensemble[:, :, None] - ensemble[:, None, :]).sum(axis=(1, 2)) / (9 * 8)
    expected = np.abs(ensemble - truth[:, None]).mean(axis=1) - pairs / 2
    assert crps(ensemble, truth) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("members", [2, 10, 400])
def test_crps_is_that_of_the_distribution_whatever_the_number_of_members(members):
    random = np.random.default_rng(members)
    truth = np.repeat([-2.0, 0.0, 0.7], 400_000 // members)
    scores = crps(1.5 * random.normal(size=(len(truth), members)), truth).reshape(3, -1)
    error = scores.std(axis=1) / math.sqrt(scores.shape[1])
    assert (np.abs(scores.mean(axis=1) - normal_crps(np.array([-2.0, 0.0, 0.7]), 1.5)) < 4 * error).all()


def test_ranks_are_uniform_if_the_truth_is_like_a_member_also_with_ties():
    random = np.random.default_rng(1)
    for draw in (lambda shape: random.normal(size=shape), lambda shape: random.integers(0, 3, shape)):
        found = ranks(draw((5000, 19)), draw(5000), seed=2)
        assert found.min() == 0 and found.max() == 19
        pytest.importorskip("scipy", reason="needs the realism extra")
        assert uniformity(found, 19) > 0.01
        assert uniformity(found, 19, bins=20) > 0.01


def test_ranks_of_a_handful():
    ensemble = np.array([[1.0, 2.0, 3.0]] * 3)
    assert ranks(ensemble, np.array([0.0, 2.5, 9.0])).tolist() == [0, 2, 3]
    tied = ranks(np.zeros((4000, 3)), np.zeros(4000), seed=3)
    assert np.bincount(tied) == pytest.approx(np.full(4, 1000), abs=120)
    assert (tied == ranks(np.zeros((4000, 3)), np.zeros(4000), seed=3)).all()
    assert (tied != ranks(np.zeros((4000, 3)), np.zeros(4000), seed=4)).any()


def test_ensembles_that_are_too_narrow_or_off_fail_the_test_of_ranks():
    pytest.importorskip("scipy", reason="needs the realism extra")
    random = np.random.default_rng(2)
    truth = random.normal(size=2000)
    for ensemble in (0.7 * random.normal(size=(2000, 20)), 0.2 + random.normal(size=(2000, 20))):
        assert uniformity(ranks(ensemble, truth), 20) < 1e-3


def test_p_value_is_scipys_and_uneven_bins_are_expected_to_be():
    counts, expected = rank_histogram(np.arange(16), 15, bins=10)
    assert counts.sum() == 16 and counts == pytest.approx(expected)
    assert set(counts) == {1, 2}
    assert len(rank_histogram(np.array([0, 1, 1]), 1)[0]) == 2
    stats = pytest.importorskip("scipy.stats", reason="needs the realism extra")
    found = np.random.default_rng(3).integers(0, 12, 300)
    assert uniformity(found, 11, 12) == pytest.approx(stats.chisquare(np.bincount(found, minlength=12)).pvalue)


def test_skill():
    random = np.random.default_rng(4)
    reference = random.exponential(size=600)
    block = np.arange(600) // 10
    assert skill(reference / 4, reference, block) == pytest.approx((0.75, 0.75, 0.75))
    found = skill(random.exponential(size=600), reference, block)
    assert found.low < 0 < found.high
    assert skill(np.zeros(600), reference, block).value == 1
    assert np.isnan(skill(reference, reference, np.zeros(600, int)).low)


def test_pooled_skill_counts_starts_and_not_how_large_scores_are():
    random = np.random.default_rng(5)
    sets = []
    for scale, share in ((1.0, 0.5), (1000.0, 0.9)):
        reference = scale * random.exponential(size=200)
        sets.append((share * reference, reference, np.arange(200) // 10))
    found = pooled_skill(sets)
    assert found.value == pytest.approx(1 - (0.5 + 0.9) / 2)
    assert found.low <= found.value <= found.high
    assert pooled_skill([sets[0]]) == skill(*sets[0])


@pytest.mark.parametrize(("blocks", "told"), [(1, False), (4, False), (5, True)])
def test_skill_has_an_interval_from_five_blocks_on(blocks, told):
    random = np.random.default_rng(6)
    arm, reference = random.exponential(size=(2, 60))
    found = skill(arm, reference, np.arange(60) * blocks // 60)
    assert found.value == pytest.approx(1 - arm.mean() / reference.mean())
    assert np.isfinite(found.low) == np.isfinite(found.high) == told


@pytest.mark.parametrize(
    ("blocks", "told"), [((3, 4), False), ((4, 4), True), ((2, 2, 4), True), ((1, 16), False), ((8,), True)]
)
def test_pooled_skill_has_an_interval_from_eight_blocks_on(blocks, told):
    random = np.random.default_rng(7)
    sets = [(*random.exponential(size=(2, 60)), np.arange(60) * number // 60) for number in blocks]
    found = pooled_skill(sets)
    assert np.isfinite(found.value) and np.isfinite(found.low) == np.isfinite(found.high) == told


def is_comparable(truth, ensemble):
    truth, ensemble = np.asarray(truth, float), np.asarray(ensemble, float)
    return comparable(truth, ensemble, crps(ensemble, truth))


def test_skill_takes_truths_that_differ_and_a_reference_that_errs():
    random = np.random.default_rng(8)
    ensemble = random.exponential(size=(50, 16))
    assert is_comparable(random.exponential(size=50), ensemble)
    for traded in (0, 4, 5):  # of 50 starts: a trade within the horizon
        assert is_comparable(np.arange(50) < traded, ensemble) == (traded == 5)
    assert not is_comparable(3.0 + (np.arange(50) < 4), ensemble)  # the commonest need not be 0
    assert not is_comparable(np.where(np.arange(50) < 40, 3.0, 0.0) * (np.arange(50) < 4), ensemble)
    assert not is_comparable(3.0 + 1e-15 * random.normal(size=50), ensemble)  # they differ by rounding


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e9])
def test_a_score_that_is_rounding_is_none(size):
    truth = size * np.arange(1.0, 51)
    exact = np.repeat(truth[:, None], 16, axis=1)
    assert not comparable(truth, exact, np.full(50, 3.6e-15 * size))
    assert not comparable(truth, exact, np.full(50, -0.1 * size))
    assert comparable(truth, exact, np.full(50, 1e-3 * size))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"ensemble is .* \(3, m\) of numbers, m at least 2"):
        crps(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ValueError, match="ensemble has numbers that are not finite"):
        crps(np.full((3, 2), np.nan), np.zeros(3))
    with pytest.raises(ValueError, match="truth is nan at 1"):
        ranks(np.zeros((2, 2)), np.array([0, np.nan]))
    with pytest.raises(ValueError, match="integers from 0 to 9"):
        rank_histogram(np.array([10]), 9)
    with pytest.raises(ValueError, match=r"reference has mean 0\.0; skill needs a positive one"):
        skill(np.ones(3), np.zeros(3), np.arange(3))
    with pytest.raises(ValueError, match="one-dimensional array of 3"):
        skill(np.ones(3), np.ones(4), np.arange(3))
    with pytest.raises(ValueError, match="sets is empty"):
        pooled_skill([])
