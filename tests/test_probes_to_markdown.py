"""The example that writes what probes found as tables."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")

from tradefm_gym.realism.rows import Row


@pytest.fixture
def probed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    import probes_to_markdown

    yield probes_to_markdown.Probed
    for name in ("probes_to_markdown", "card_to_markdown"):
        sys.modules.pop(name, None)


def card(name, *rows):
    return {"sets": [name], "rows": [row.to_json() for row in rows]}


def test_days_stand_beside_each_other_and_stars_take_enough_takers(probed):
    real = Row("v_one_d", "mid_response_up_to_1", "lag_1", "real", 1.0, 0.5, 1.5, n=200)
    flow = Row("v_one_d", "mid_response_up_to_1", "lag_1", "tradefm", 1.2, n=9)
    agent = Row("v_one_d", "agent_mid_response_up_to_1", "lag_1", "tradefm", 2.0, n=9)
    few = [replace(row, set="v_two_d", n=199) for row in (real, flow)]
    profit = Row("v_two_d", "exploit_pump", "bps", "tradefm", -12.34, -15.0, -10.0, n=200)
    tables = probed([card("v_one_d", real, flow, agent), card("v_two_d", *few, profit)], "tradefm")
    assert tables.responses()[2:] == [
        "| ONE, up to 1 medians | 1 | 1.00 [0.50, 1.50] (200) | 1.20 * | 2.00 |",
        "| TWO, up to 1 medians | 1 | 1.00 [0.50, 1.50] (199) | 1.20 |  |",
    ]
    assert "| mid after takers of the flow | 1 of 1 | 0 of 0 |" in tables.inside()
    assert "| mid after agents' orders | 0 of 1 | 0 of 0 |" in tables.inside()
    assert tables.attacks()[2] == "| pump |  | -12.3 [-15.0, -10.0] |"
