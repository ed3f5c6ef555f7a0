"""Flows as they are written on the command line."""

import pytest

from tradefm_gym.realism.arms import content, parsed


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
