import numpy as np
import pytest

from tradefm_gym.realism import quantities


def test_durations_are_relative_to_those_around_them():
    """Twice as slow in a second half changes nothing but there where it begins; spells do."""
    even = np.arange(1, 16 * 300 + 2, dtype=np.int64) * 1_000
    assert quantities._relative_durations(even) == pytest.approx(np.ones(300))
    slower = np.concatenate([even, even[-1] + 2 * even])
    told = quantities._relative_durations(slower)
    assert told[:268] == pytest.approx(np.ones(268)) and told[-268:] == pytest.approx(np.ones(268))
    spells = np.append(0, np.cumsum(np.repeat(np.tile([1_000, 3_000], 150), 16)))
    assert np.unique(quantities._relative_durations(spells)[40:-40].round(2)).tolist() == [0.5, 1.5]
    assert quantities._relative_durations(np.zeros(40, np.int64)).tolist() == [0.0, 0.0]
