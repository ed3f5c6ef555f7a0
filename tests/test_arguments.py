import numpy as np
import pytest

from tradefm_gym.arguments import flag, known_names, numbers, one_of, rows_mask, shortened, whole


def test_values_are_shown_short_and_on_one_line():
    assert shortened("buy") == "'buy'"
    assert shortened(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert shortened(np.zeros((64, 2), np.float32)) == "an array of shape (64, 2) and dtype float32"
    long = shortened("x" * 500 + "end")
    assert len(long) == 80
    assert long.startswith("'xxx")
    assert long.endswith("xxend'")


def test_integers_are_pythons_or_numpys_and_no_truth_values():
    assert whole("size", np.int16(3), 0, 9) == 3
    assert type(whole("size", np.int16(3), 0, 9)) is int
    for value in (True, np.True_, 1.0, "1", None, [1], np.array(1), -1, 10, 2**80, np.nan):
        with pytest.raises(ValueError, match=r"^size is .*; it must be an integer from 0 to 9$"):
            whole("size", value, 0, 9)
    with pytest.raises(ValueError, match=r"^size is 0; it must be an integer of at least 1$"):
        whole("size", 0, 1)


def test_flags_are_truth_values_only():
    assert flag("fast", np.False_) is False
    for value in ("yes", "False", 0, 1, None, [True], np.array([True])):
        with pytest.raises(ValueError, match=r"^fast is .*; it must be True or False$"):
            flag("fast", value)


def test_words_are_words():
    assert one_of("split", "train", ("train", "test")) == "train"
    for value in ("Train", None, 3, ["train"], np.array(["train", "test"]), b"train"):
        with pytest.raises(ValueError, match=r"^split is .*; it must be one of 'train', 'test'$"):
            one_of("split", value, ("train", "test"))


def test_arrays_of_numbers_are_told_from_others():
    for value in (3, [1, 2.5], np.zeros(2, np.float16), np.uint8(1)):
        assert numbers(value) is not None
    for value in ("3", None, 1j, [True], [[1], [2, 3]], [10**400], {}, np.array([1.0], object), [b"1"]):
        assert numbers(value) is None
    assert numbers(2.0, "iu") is None


def test_masks_are_boolean_arrays_of_the_right_length():
    mask = np.array([True, False])
    assert rows_mask("rows", mask, 2) is mask
    for value in ([True, False], mask[:1], mask.astype(int), mask[None], None):
        with pytest.raises(ValueError, match=r"^rows is .*; it must be a boolean array of length 2$"):
            rows_mask("rows", value, 2)


def test_unknown_names_come_with_those_that_exist_and_the_nearest():
    known_names("Thing", ["width"], ("width", "height"))
    with pytest.raises(
        TypeError, match=r"^Thing has no argument 'wdth'; allowed are width, height; did you mean 'width'\?$"
    ):
        known_names("Thing", ["wdth"], ("width", "height"))
    with pytest.raises(TypeError, match=r"^Thing has no argument 'foo'; allowed are width, height$"):
        known_names("Thing", ["width", "foo"], ("width", "height"))
