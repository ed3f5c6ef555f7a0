"""The example that breaks a day on purpose."""

import os

import pytest

pytest.importorskip("scipy")
pytest.importorskip("tyro")

from broken_day import example
from small_day import beginning

from tradefm_gym.realism.recorded_set import RecordedSet

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
pytestmark = pytest.mark.skipif(not JIT, reason="a whole day")


def test_what_is_broken_is_noticed_and_what_is_not_is_not():
    told = example.noticed(RecordedSet("day", lambda: beginning(72_000), ""))
    assert set(told) == set(example.BREAKS) and told["nothing"] == "no"
    assert "order size" in told["sizes doubled"] and "touch depth" in told["sizes doubled"]
    assert told["spread halved"].startswith("spread")
    assert "inter arrival" in told["waits without memory"]
    assert "taker side" in told["takers buy only"]
    for broken in ("takers' sides at random", "prices apart from takers"):
        assert told[broken].startswith("taker response")
