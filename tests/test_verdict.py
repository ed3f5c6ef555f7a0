"""The rules of the verdict, on rows made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.verdict import RULES, Rule, allowed, judged, near, nearness, overall


def distance(value, arm, n=1_000, quantity="spread"):
    return Row("day", quantity, "ks", arm, value, n=n)


def test_near_is_what_the_day_itself_allows():
    assert allowed(Rows(), "day", "spread") == 0.05
    rows = Rows([distance(0.1, "drift"), distance(0.07, "floor")])
    assert allowed(rows, "day", "spread") == pytest.approx(0.15)
    assert allowed(Rows([distance(0.6, "drift"), distance(0.08, "floor")]), "day", "spread") == 0.25
    assert nearness(rows, distance(0.15, "flow")) == "near"
    assert nearness(rows, replace(distance(0.16, "flow"), low=0.14, high=0.2)) == "unclear"
    assert nearness(rows, replace(distance(0.16, "flow"), low=0.155, high=0.2)) == "far"
    for value in (0.16, 0.9):  # far takes a whole interval
        assert nearness(rows, distance(value, "flow")) == "too few"
    assert nearness(rows, distance(0.01, "flow", n=199)) == "too few"
    blind = Rows([distance(0.3, "floor")])  # the record is as far from itself
    assert nearness(blind, distance(0.9, "flow")) == "too few"
    assert near("spread")(blind, "day", "flow") == ("not measured", "")


def test_without_an_interval_nothing_fails():
    rules = {rule.topic: rule for rule in RULES}
    skill = Row("day", "return_10s", "crps_skill", "flow", -0.9, n=50)
    first = replace(distance(0.1, "flow"), metric="ks_first_quarter")
    last = replace(distance(0.9, "flow"), metric="ks_last_quarter")
    for topic, rows, row in (
        ("spread", [], distance(0.9, "flow")),
        ("forecasts of return 10s against Hawkes flow", [], skill),
        ("wandering of the spread", [first], last),
    ):
        judge = rules[topic].judge
        assert judge(Rows([*rows, row]), "day", "flow") == ("too few", "too few blocks for an interval")
        told = replace(row, low=row.value - 0.05, high=row.value + 0.05)
        assert judge(Rows([*rows, told]), "day", "flow")[0] == "fails"


def test_one_failure_decides_and_a_needed_silence_shows_nothing():
    rules = (
        Rule("spread", "execution", near("spread"), needed=True),
        Rule("depth", "execution", near("depth")),
        Rule("wait", "market making", near("wait"), needed=True),
    )
    good, far = distance(0.01, "flow"), replace(distance(0.5, "flow", quantity="depth"), low=0.4, high=0.6)
    wait = distance(0.01, "flow", quantity="wait")
    assert [one.fit for one in judged([good], "day", "flow", rules)] == ["fit", "not shown"]
    assert [one.fit for one in judged([good, wait], "day", "flow", rules)] == ["fit", "fit"]
    verdicts = judged([good, far, wait], "day", "flow", rules)
    assert [one.fit for one in verdicts] == ["not fit", "not fit"]
    assert overall(verdicts, "flow") == (
        "flow is fit to train neither execution nor market making.",
        "For execution it fails on: depth.",
    )
    assert [one.fit for one in judged([], "day", "flow", rules)] == ["not shown", "not shown"]
    assert overall(judged([good, wait], "day", "flow", rules), "flow")[1] == "No rule fails."
    other = [replace(one, set="other") for one in verdicts]
    assert overall([*verdicts, *other], "flow")[1] == "For execution it fails on: depth [day, other]."


@pytest.mark.parametrize(
    ("value", "low", "high", "drift", "outcome"),
    [
        (1.4, 1.3, 1.6, 1.0, "passes"),
        (0.7, 0.6, 0.8, 1.0, "passes"),
        (2.0, 1.6, 2.4, 1.0, "fails"),
        (0.5, 0.4, 0.6, 1.0, "fails"),
        (2.0, 1.4, 2.6, 1.0, "unclear"),
        (1.65, 1.6, 1.9, 0.6, "passes"),  # as far off as the training part is
        (2.0, 1.8, 2.2, 3.0, "fails"),  # of which no more than 1.75 is forgiven
        (2.0, np.nan, np.nan, 1.0, "too few"),
    ],
)
def test_returns_are_to_be_as_large_as_recorded_ones(value, low, high, drift, outcome):
    judge = next(rule for rule in RULES if rule.topic == "size of returns over 1 s").judge
    row = Row("day", "log_return_1s", "deviation_ratio", "flow", value, low, high, n=500)
    other = replace(row, arm="drift", value=drift)
    assert judge(Rows([row, other]), "day", "flow")[0] == outcome
    assert judge(Rows([replace(row, n=199), other]), "day", "flow")[0] == "too few"
    assert judge(Rows([other]), "day", "flow")[0] == "not measured"


@pytest.mark.parametrize(("real", "drift", "outcome"), [(3, 5, "fails"), (31, 5, "passes"), (3, 31, "passes")])
def test_a_market_may_gape_as_far_as_the_day_does(real, drift, outcome):
    rows = [Row("day", "empty_side", "share", "flow", 0.0, n=1_000)]
    for arm, largest in (("flow", 30.0), ("real", real), ("drift", drift)):
        rows.append(Row("day", "spread", "largest_over_median", arm, largest, n=1_000))
    life = next(rule for rule in RULES if rule.topic == "life of the market")
    assert life.judge(Rows(rows), "day", "flow")[0] == outcome
    assert life.judge(Rows(rows[:2]), "day", "flow")[0] == "fails"  # nothing is known of the day
    assert life.judge(Rows(rows[1:]), "day", "flow")[0] == "not measured"
