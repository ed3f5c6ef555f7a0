import math

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the realism extra")
from tradefm_gym.realism.discriminator import discriminate


def windows(random, blocks=40, length=15, shift=0.0, features=3):
    """Windows whose first feature is told apart by ``shift``."""
    values = random.normal(size=(blocks * length, features))
    values[:, 0] += shift
    return values, np.arange(blocks * length) // length


@pytest.mark.parametrize("model", ["boosting", "logistic"])
def test_equal_windows_cannot_be_told_and_distant_ones_always(model):
    random = np.random.default_rng(0)
    real, block = windows(random)
    same, other = windows(random)
    found = discriminate(real, same, block, other, model)
    assert found.low < 0.5 < found.high and found.high - found.low < 0.2
    assert discriminate(real, windows(random, shift=20.0)[0], block, other, model) == pytest.approx((1, 1, 1))


def test_area_is_that_of_two_normal_distributions():
    random = np.random.default_rng(1)
    real, block = windows(random, 100)
    generated, other = windows(random, 60, shift=1.0)
    found = discriminate(real, generated, block, other, "logistic")
    expected = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))
    assert found.low < expected < found.high
    assert found.value == pytest.approx(expected, abs=0.03)


def test_boosting_sees_what_a_line_does_not():
    random = np.random.default_rng(2)
    real, block = windows(random, 60)
    wide = 3 * real[random.permutation(len(real))]
    assert discriminate(real, wide, block, block, "boosting").low > 0.75
    assert discriminate(real, wide, block, block, "logistic").high < 0.65


def test_blocks_that_are_recognisable_give_nothing_away():
    random = np.random.default_rng(3)
    sides = []
    for _ in range(2):
        # All windows of a block are alike; a classifier that had seen some of them would know the others.
        block = np.arange(900) // 15
        sides.append((random.normal(size=(60, 2))[block] + 0.01 * random.normal(size=(900, 2)), block))
    (real, block), (generated, other) = sides
    found = discriminate(real, generated, block, other)
    assert found.low < 0.5 < found.high
    each = np.arange(900)
    assert discriminate(real, generated, each, each).low > 0.9


def test_missing_numbers_are_no_obstacle_and_tell():
    random = np.random.default_rng(4)
    real, block = windows(random)
    generated, other = windows(random)
    real[:, 2] = generated[:, 2] = np.nan
    generated[::50, 1] = np.inf
    for model in ("boosting", "logistic"):
        found = discriminate(real, generated, block, other, model)
        assert found.low < 0.55 and 0.4 < found.value < 0.6
        assert discriminate(np.full((600, 1), np.nan), generated[:, 2:], block, other, model) == (0.5, 0.5, 0.5)
        holes = generated.copy()
        holes[random.random(len(holes)) < 0.5, 1] = np.nan
        assert discriminate(real, holes, block, other, model).low > 0.6


def test_equal_seeds_give_equal_areas_and_classes_of_other_sizes_weigh_the_same():
    random = np.random.default_rng(5)
    real, block = windows(random, 90)
    generated, other = windows(random, 10, shift=1.0)
    one = discriminate(real, generated, block, other, seed=1)
    assert one == discriminate(real, generated, block, other, seed=1)
    assert one != discriminate(real, generated, block, other, seed=2)
    assert 0.6 < one.value < 0.9
    turned = discriminate(generated, real, other, block, seed=1)
    assert turned.value == pytest.approx(one.value, abs=0.06)


def test_labels_of_blocks_are_only_labels_and_few_blocks_make_few_folds():
    random = np.random.default_rng(6)
    real, block = windows(random, 2)
    generated, other = windows(random, 8, shift=20.0)
    assert discriminate(real, generated, block, other, "logistic").value == 1
    assert discriminate(real, generated, 7 - 3 * block, other, "logistic").value == 1


def test_what_makes_no_sense_is_refused():
    window, block = np.zeros((8, 2)), np.arange(8)
    with pytest.raises(ValueError, match="model is 'forest'"):
        discriminate(window, window, block, block, "forest")
    with pytest.raises(ValueError, match="real has 2 features and generated 1"):
        discriminate(window, window[:, :1], block, block)
    with pytest.raises(ValueError, match="generated_block has one block"):
        discriminate(window, window, block, block * 0)
    with pytest.raises(ValueError, match=r"real is .*\(windows, features\)"):
        discriminate(block, window, block, block)
    with pytest.raises(ValueError, match=r"real_block is .* 8 integers"):
        discriminate(window, window, block[:3], block)
    with pytest.raises(ValueError, match="folds is 1"):
        discriminate(window, window, block, block, folds=1)
