"""Flows as they are written on the command line."""

import numpy as np
import pytest

from tradefm_gym.flow.habits import Habits
from tradefm_gym.flow.stream_state import HABITS
from tradefm_gym.realism.arms import check_parameters, content, parameters_file, parsed


def test_options_of_a_flow_are_read_and_are_part_of_what_it_is(tmp_path):
    spec = parsed("tradefm:mini-1?cancel=nearest&persistence=0/0.001&restoring=0&flag_agents=false")
    said = {"cancel": "nearest", "persistence": (0.0, 0.001), "restoring": 0.0, "flag_agents": False}
    assert spec == ("tradefm", "mini-1", said)
    several = ("tradefm", "tradefm?restoring=0", "tradefm?restoring=0.5")
    assert [content(spec, tmp_path) for spec in several] == [None] * 3  # the day's habits are still to be found
    without = {content(spec, tmp_path) for spec in ("tradefm?habits=false", "tradefm?restoring=0&habits=false")}
    assert len(without) == 2 and None not in without
    turned = ("tradefm?restoring=0&cancel=whole&habits=false", "tradefm?cancel=whole&habits=false&restoring=0")
    assert len({content(spec, tmp_path) for spec in turned}) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tradefm?", "option=value"),
        ("tradefm?restoring", "option=value"),
        ("tradefm?restoring=0&restoring=1", "none twice"),
        ("tradefm?restorin=0", "did you mean 'restoring'"),
        ("hawkes?restoring=0", "has no argument 'restoring'"),
        ("tradefm?habits=3", "habits '3'; allowed are true, false and a file of them"),
    ],
)
def test_options_that_a_flow_does_not_have_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        parsed(spec)


def test_a_flow_is_given_the_habits_of_a_file(tmp_path):
    """Read before all the work, and never fitted."""
    path = tmp_path / "habits.json"
    Habits(np.full(HABITS, 0.25), trimmed=0.5).save(path)
    spec = f"tradefm?habits={path}"
    check_parameters(spec)
    assert parsed(spec).options["habits"] == path and parameters_file(spec, None, tmp_path / "fits") == path
    told = content(spec, tmp_path / "fits")
    Habits(np.full(HABITS, 0.5)).save(path)
    assert told is not None and content(spec, tmp_path / "fits") != told
    assert parameters_file("tradefm?habits=false", None, tmp_path) is None
    Habits(np.zeros(HABITS), report={"model": "another"}).save(path)
    with pytest.raises(ValueError, match="fitted with model 'another'"):
        check_parameters(spec)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("temperature=hot", "temperature is 'hot'; it must be a positive number"),
        ("persistence=2", "persistence is 2.0; allowed are two numbers"),
        ("cancel=all", "cancel is 'all'"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_before_all_the_work(said, message):
    with pytest.raises(ValueError, match=f"flow 'tradefm.{said}': {message}"):
        check_parameters(f"tradefm?{said}")
    check_parameters("tradefm?temperature=0.9&habits=false")
