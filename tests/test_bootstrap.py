import numpy as np
import pytest

from tradefm_gym.realism.bootstrap import dense, estimate, labels, mean_of, resampled, series, sums


def test_the_first_row_is_the_sample_and_each_replicate_draws_as_many_blocks():
    one, other = resampled([7, 3], 50, seed=4)
    assert one.shape == (51, 7) and other.shape == (51, 3)
    assert (one[0] == 1).all() and (other[0] == 1).all()
    assert (one.sum(axis=1) == 7).all() and (other.sum(axis=1) == 3).all()
    assert len(np.unique(one[1:], axis=0)) > 20


def test_draws_of_a_sample_do_not_depend_on_the_others():
    first, _ = resampled([7, 3], 50, seed=4)
    again, _, _ = resampled([7, 9, 2], 50, seed=4)
    assert (first == again).all()
    assert not (first == resampled([7], 50, seed=5)[0]).all()


def test_a_single_block_gives_no_interval():
    one, other = resampled([7, 1])
    assert one.shape == (1, 7) and other.shape == (1, 1)
    found = estimate(np.array([3.0]))
    assert found.value == 3.0 and np.isnan(found.low) and np.isnan(found.high)


def test_percentiles_hold_the_value_and_leave_out_what_is_undefined():
    replicates = np.arange(201.0)
    assert estimate(np.append(100.0, replicates)) == (100.0, 5.0, 195.0)
    assert estimate(np.append(1.0, replicates)) == (1.0, 1.0, 195.0)
    assert estimate(np.append(100.0, np.append(replicates, [np.nan] * 150))) == (100.0, 5.0, 195.0)
    assert np.isnan(estimate(np.append(100.0, np.append(replicates, [np.nan] * 250))).low)
    assert np.isnan(estimate(np.append(np.nan, replicates))).all()


def test_intervals_cover_the_mean_of_blocks_that_move_together():
    random = np.random.default_rng(0)
    covered = plain = 0
    for trial in range(100):
        values = (random.normal(size=60)[:, None] + 0.3 * random.normal(size=(60, 20))).ravel()
        for of_block, count in ((np.repeat(np.arange(60), 20), True), (np.arange(1200), False)):
            place, number = dense(of_block)
            (weights,) = resampled([number], 200, trial)
            size, total = (weights @ sums(place, number, [np.ones_like(values), values])).T
            found = estimate(total / size)
            if count:
                covered += found.low <= 0 <= found.high
            else:
                plain += found.low <= 0 <= found.high
    assert covered >= 86
    assert plain < 60  # as if all values were news


def test_dense_labels_keep_their_order():
    place, number = dense(np.array([30, 10, 30, 20]))
    assert place.tolist() == [2, 0, 2, 1] and number == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "values is .*non-empty one-dimensional array"),
        (np.zeros((2, 2)), "non-empty one-dimensional array"),
        (["a"], "of numbers"),
        ([1.0, np.nan], "values is nan at 1; all of it must be finite"),
    ],
)
def test_series_are_checked(value, message):
    with pytest.raises(ValueError, match=message):
        series("values", value)


def test_labels_and_options_are_checked():
    with pytest.raises(ValueError, match=r"block is .* 3 integers"):
        labels("block", np.zeros(3), 3)
    with pytest.raises(ValueError, match=r"block is .* 3 integers"):
        labels("block", np.zeros(2, int), 3)
    with pytest.raises(ValueError, match="replicates is 0"):
        resampled([3], 0)


@pytest.mark.parametrize("blocks", [5, 8, 30])
def test_an_interval_of_few_blocks_covers_the_mean_as_often_as_one_of_many(blocks):
    """Percentiles alone leave it out in 17% of samples of five blocks."""
    random, runs, missed, plainly = np.random.default_rng(blocks), 600, 0, 0
    for seed in range(runs):
        values = random.normal(size=blocks)
        found = mean_of(values, np.arange(blocks), seed=seed)
        missed += not found.low <= 0.0 <= found.high
        means = resampled([blocks], seed=seed)[0] @ values / blocks
        plain = estimate(means)
        plainly += not plain.low <= 0.0 <= plain.high
        assert plain.value == pytest.approx(found.value) and found.low <= plain.low and found.high >= plain.high
    assert missed / runs < 0.09 and (blocks > 8 or plainly / runs > 0.1)
