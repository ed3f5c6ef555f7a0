"""What probes say of flows of which the answer is known, and how it is judged and shown."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from followed_market import FollowedFlow
from hand_path import add, idle, path_of, take
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.market.events import BUY, SELL
from tradefm_gym.realism import exploits, probes
from tradefm_gym.realism.markouts import HORIZONS
from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.probe_tables import of_a_probe, probe_tables
from tradefm_gym.realism.probes import PROBES, against_record, attacks, chosen, parent_orders, resting_orders
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.sections import Subject
from tradefm_gym.realism.verdict import LEAST_SEEDS, RULES, judged

ATTACKED = tuple(rule for rule in RULES if rule.topic == "attacks that pay")
MARKOUT = tuple(rule for rule in RULES if rule.topic == "markout of passive fills")
LADDER = quiet_bank([(999 - i, 10) for i in range(80)], [(1001 + i, 10) for i in range(80)])


def subject(make_flow=None, path=None, arm="flow", agents=4):
    return Subject(
        "day", arm, Measured(), Measured(), make_flow=make_flow, paths=lambda: [path] if path else [], agents=agents
    )


def outcomes(rows, rules):
    return [[found.outcome for found in one.findings] for one in judged(rows, "day", "flow", rules)]


def fits(rows, rules):
    return [one.fit for one in judged(rows, "day", "flow", rules)]


def test_an_attack_that_pays_fails_both_uses(monkeypatch):
    audit = partial(exploits.audit_rows, attacks={"own_quote": exploits.own_quote})
    monkeypatch.setattr(exploits, "audit_rows", audit)
    rows = attacks(subject(FollowedFlow))
    assert {row.quantity for row in rows} == {"exploit_own_quote"} and {row.seeds for row in rows} == {4}
    assert fits(rows, ATTACKED) == ["not fit", "not fit"]
    assert judged(rows, "day", "flow", ATTACKED)[0].why == "attacks that pay (own quote paid)"
    (table,) = probe_tables(Rows(rows), "day", ["flow"])
    (cell,) = table.lines[0][1]
    assert cell.mark == "paid" and cell.value.endswith("paid")


def test_that_no_attack_pays_takes_an_audit_of_enough_seeds():
    assert outcomes([], ATTACKED) == [["not measured"], ["not measured"]]
    assert fits([], ATTACKED) == ["not shown", "not shown"]
    few = [Row("day", f"exploit_{name}", "paid", "flow", 0.0, n=4, seeds=LEAST_SEEDS - 1) for name in exploits.ATTACKS]
    assert outcomes(few, ATTACKED)[0] == ["too few"] and fits(few, ATTACKED) == ["not shown", "not shown"]
    enough = [replace(row, seeds=LEAST_SEEDS) for row in few]
    assert fits(enough, ATTACKED) == ["fit", "fit"]
    assert fits([*enough[:-1], replace(enough[-1], value=1.0)], ATTACKED) == ["not fit", "not fit"]


def markouts(arm, value, low, high, n=500):
    return [Row("day", "markout_bps", horizon, arm, value, low, high, n=n) for horizon in HORIZONS]


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        (markouts("flow", -1.1, -1.2, -1.0), "passes"),
        (markouts("flow", -1.6, -1.8, -1.4), "unclear"),
        (markouts("flow", -1.8, -1.9, -1.7), "fails"),
        (markouts("flow", -1.8, np.nan, np.nan), "unclear"),
        (markouts("flow", -1.1, -1.2, -1.0)[:-1] + markouts("flow", -1.8, -1.9, -1.7)[-1:], "fails"),
        ([], "not measured"),
    ],
)
def test_markouts_are_held_against_the_recorded_band(rows, outcome):
    rows = markouts("real", -1.0, -1.5, -0.5) + rows
    rows += against_record(rows, "day", "flow")
    execution, making = outcomes(rows, MARKOUT)
    assert execution == [] and making == [outcome]


def test_too_few_recorded_fills_decide_nothing():
    rows = markouts("real", -1.0, -1.5, -0.5, n=199) + markouts("flow", -9.0, -9.1, -8.9)
    found = against_record(rows, "day", "flow")
    assert np.isnan([row.value for row in found]).all()
    assert outcomes(rows + found, MARKOUT)[1] == ["too few"]


def test_responses_of_takers_and_of_agents_are_held_against_the_same_band():
    real = Row("day", "mid_response_up_to_1", "lag_10", "real", 1.0, 0.5, 1.5, n=200)
    takers = replace(real, arm="flow", value=1.2)
    agents = replace(takers, quantity="agent_mid_response_up_to_1", value=3.0)
    other = replace(real, set="other", low=9.0, high=9.0)
    found = against_record([real, takers, agents, other], "day", "flow")
    told = {(row.quantity, row.metric): row.value for row in found}
    assert told == {
        ("mid_response_up_to_1", "inside_lag_10"): 1.0, ("mid_response_up_to_1", "inside_lags_1_to_100"): 1.0,
        ("agent_mid_response_up_to_1", "inside_lag_10"): 0.0,
        ("agent_mid_response_up_to_1", "inside_lags_1_to_100"): 0.0,
    }  # fmt: skip
    table = next(one for one in probe_tables(Rows([real, takers, agents]), "day", ["flow"]) if one.lines)
    assert [line for line, _ in table.lines] == [
        "up to 1: recorded", "up to 1: flow takers", "up to 1: flow agents",
    ]  # fmt: skip
    assert [[cell.mark for cell in cells if cell.value != "-"] for _, cells in table.lines] == [[""], ["near"], ["far"]]


def test_records_and_flows_are_asked_alike():
    events = [add(BUY, 990, 1), idle(), take(SELL, 990, 10, 2)] + [idle() for _ in range(12)]
    path = path_of(events, [(990, 1010)] * 2 + [(986, 1010)] * 13, fills=[(2, 1, 10)])
    real = resting_orders(subject(path=path, arm="real"))
    flow = resting_orders(subject(lambda n: QuietFlow(n, LADDER), path))
    names = {(row.quantity, row.metric) for row in real}
    assert names <= {(row.quantity, row.metric) for row in flow}
    assert ("agent_markout_bps", "after_1_events") in {(row.quantity, row.metric) for row in flow}


def test_every_row_of_a_probe_has_its_place():
    rows = parent_orders(subject(lambda n: QuietFlow(n, LADDER), agents=6))
    assert all(of_a_probe(row) for row in rows) and {row.seeds for row in rows} == {6}
    (table,) = probe_tables(Rows(rows), "day", ["flow"])
    told = dict(table.lines)
    assert told["impact of 4 medians at its end, bps"][0].value == "20.000"  # half a tick of 1,000 for each
    assert not of_a_probe(Row("day", "spread", "ks", "flow", 0.1))
    assert probe_tables(Rows(), "day", ["flow"]) == []


def test_probes_are_named():
    assert chosen(["impact", "reaction"]) == ("reaction", "impact")
    assert chosen(list(PROBES)[::-1]) == tuple(PROBES)
    with pytest.raises(ValueError, match="probes names 'markout'; allowed are reaction, markouts, exploits, impact"):
        chosen(["markout"])


def test_a_mean_profit_that_is_not_shown_to_be_one_is_no_pass():
    paid = Row("day", "exploit_pump", "paid", "flow", 0.0, n=200, seeds=LEAST_SEEDS)
    for low, value, high, starts, outcome in (
        (-9.0, -5.0, -1.0, 5.0, "passes"),
        (-2.0, 40.0, 90.0, 5.0, "unclear"),
        (-9.0, -5.0, -1.0, 4.0, "too few"),
    ):
        profit = replace(paid, metric="profit", value=value, low=low, high=high)
        rows = [paid, profit, replace(paid, metric="starts", value=starts)]
        assert outcomes(rows, ATTACKED) == [[outcome], [outcome]]


def test_start_states_are_used_alike():
    flow = FollowedFlow(10)
    contexts, _ = probes._starts(flow, 10)
    assert np.ptp(np.bincount(contexts, minlength=len(flow.bank))) <= 1
