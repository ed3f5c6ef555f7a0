import json

import numpy as np
import pytest

from tradefm_gym.cli import main
from tradefm_gym.data import load
from tradefm_gym.data.written import feed_rows, write_folder
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.simulating import simulate

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("name", ["zero_intelligence", "hawkes"])
def test_a_written_day_is_read_as_it_happened(name, tmp_path):
    day = simulate(make_flow(name, 1), 2_000, context=3, seed=11)
    write_folder(day, tmp_path / "day")
    again = load(tmp_path / "day")
    assert again.opening == day.opening
    ours, theirs = day.flow, again.flow
    # Takers of one side in one instant count as one, so a day of such is no shorter than what is read.
    assert len(theirs) <= len(ours) and ours["filled"].sum() == theirs["filled"].sum()
    for name in ("kind", "side", "time_ns", "price", "size", "filled", "mid2", "spread", "bid_size", "ask_size"):
        if len(theirs) == len(ours):
            told = ours["filled"] == 0 if name == "price" else slice(None)  # of a taker only what it paid is published
            np.testing.assert_array_equal(ours[name][told], theirs[name][told], err_msg=name)
    np.testing.assert_array_equal(day.touch[-1], again.touch[-1])


def test_the_command_writes_a_day_that_replays_without_a_difference(tmp_path, capsys):
    out = tmp_path / "generated"
    assert main(["simulate", "--out", str(out), "--flow", "hawkes", "--events", "500", "--seed", "2"]) == 0
    meta = json.loads((out / "meta.json").read_text())
    assert meta["provenance"]["flow"] == "hawkes" and meta["provenance"]["seed"] == 2
    assert main(["data", "check", str(out)]) == 0
    assert "unexplained differences: 0" in capsys.readouterr().out
    assert main(["simulate", "--out", str(out), "--flow", "hawkes", "--events", "500"]) == 2
    assert "holds something already" in capsys.readouterr().err


def test_equal_seeds_give_equal_days():
    first, again = (feed_rows(simulate(make_flow("zero_intelligence", 1), 700, 0, 5)) for _ in range(2))
    for name in ("time_ns", "event", "order_id", "side", "price", "size", "flag"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--flow", "nonsense"], "flow 'nonsense' is not known"),
        (["--flow", "hawkes", "--events", "0"], "events is 0"),
        (["--flow", "hawkes", "--context", "100000"], "context is 100000"),
        (["--flow", "replay", "--events", "1000000"], "ends after"),
        (["--flow", "hawkes", "--data", "a/day"], "only tradefm starts from given data"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(arguments, message, tmp_path, capsys):
    assert main(["simulate", "--out", str(tmp_path / "day"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
