import numpy as np
import pytest
from hand_path import idle, path_of, take
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.market.events import BUY, LIMIT, MARKET, SELL
from tradefm_gym.realism.response import agent_rows, agent_samples, inside_rows, sizes_of, taker_rows, taker_samples


def made_path():
    """A buyer of 4 medians moves the mid of 1,000 by one tick, then by three; a seller of half a median follows."""
    events = [idle() for _ in range(12)]
    events[2], events[5] = take(BUY, 1010, 40, 1), take(SELL, 990, 5, 2)
    touches = [(990, 1010)] * 2 + [(990, 1012)] * 2 + [(994, 1012)] * 8
    return path_of(events, touches)


def test_responses_of_takers_are_what_the_definition_says():
    size, mid, flow, block = taker_samples([made_path()], lags=(1, 2, 5, 10))
    assert size.tolist() == [4.0, 0.5]
    assert mid[0] == pytest.approx([10.0, 30.0, 30.0, np.nan], nan_ok=True)
    assert flow[0] == pytest.approx([0.0, 0.0, -0.5, np.nan], nan_ok=True)
    assert mid[1] == pytest.approx([0.0, 0.0, 0.0, np.nan], nan_ok=True)
    assert block.tolist() == [0, 0]


def test_takers_are_classed_by_size_and_blocks_are_stretches_of_the_longest_lag():
    rows = taker_rows([made_path(), made_path()], "real", lags=(1, 5))
    by_name = {(row["quantity"], row["metric"]): row for row in rows}
    large = by_name["mid_response_1_to_4", "lag_1"]
    assert (large["value"], large["n"], large["arm"]) == (pytest.approx(10.0), 2, "real")
    assert large["low"] == large["high"] == pytest.approx(10.0)  # both paths say the same
    assert by_name["mid_response_above_4", "lag_1"]["n"] == 0
    assert np.isnan(by_name["mid_response_above_4", "lag_1"]["value"])
    found = sizes_of([made_path()])
    assert {name: values.tolist() for name, values in found.items()} == {"up_to_1": [0.5], "1_to_4": [4.0]}


class FarFlow(QuietFlow):
    """Posts orders far away, one an event, and so answers nothing; the eighth event sells two lots."""

    def __init__(self, num_envs, bank):
        script = {i: (LIMIT, BUY, 500, 1) for i in range(4_000)} | {7: (MARKET, SELL, 0, 2)}
        super().__init__(num_envs, bank, script)


def test_an_agents_order_moves_a_market_that_does_not_answer_by_what_it_eats():
    bank = quiet_bank([(999 - i, 10) for i in range(9)], [(1001 + i, 10) for i in range(9)])
    flow, seeds = FarFlow(6, bank), np.arange(6, dtype=np.uint64)
    arms = agent_samples(flow, np.arange(6) % 3, seeds, np.full(6, 20), lags=(1, 10))
    assert arms[BUY][0] == pytest.approx(np.full((6, 2), 10.0))  # two levels: one tick of the mid of 1,000
    assert arms[SELL][0] == pytest.approx(np.full((6, 2), -10.0))
    assert arms[0][0] == pytest.approx(np.zeros((6, 2)))
    assert arms[0][1] == pytest.approx(np.tile([0.0, -0.2], (6, 1)))  # the background's own taker
    rows = agent_rows(flow, np.arange(6) % 3, seeds, {"1_to_4": np.full(5, 2.0)}, lags=(1, 10))
    by_name = {(row["arm"], row["quantity"], row["metric"]): row for row in rows}
    for arm in ("agent", "agent_buy", "agent_sell"):
        assert by_name[arm, "mid_response_1_to_4", "lag_10"]["value"] == pytest.approx(10.0)
        assert by_name[arm, "mid_response_1_to_4", "lag_10"]["seeds"] == 6
        assert by_name[arm, "flow_response_1_to_4", "lag_10"]["value"] == pytest.approx(0.0)


def test_inside_is_told_by_lag_and_as_a_share():
    def row(arm, metric, value, low=np.nan, high=np.nan):
        return {
            "quantity": "mid_response_up_to_1", "metric": metric, "arm": arm, "value": value, "low": low, "high": high,
            "n": 200, "seeds": 1,
        }  # fmt: skip

    rows = [
        row("real", "lag_1", 1.0, 0.5, 1.5), row("real", "lag_10", 1.0, 0.5, 1.5), row("real", "lag_1000", 0.0, -1, 1),
        row("real", "lag_5", 1.0), row("agent", "lag_1", 0.6), row("agent", "lag_10", 1.6), row("agent", "lag_1000", 2),
        row("agent", "lag_5", 1.0),
    ]  # fmt: skip
    found = {told["metric"]: told["value"] for told in inside_rows(rows, "real", "agent")}
    assert found == {
        "inside_lag_1": 1.0, "inside_lag_10": 0.0, "inside_lag_1000": 0.0, "inside_lags_1_to_100": 0.5,
    }  # fmt: skip
    assert inside_rows([one | {"n": 199} for one in rows], "real", "agent") == []
