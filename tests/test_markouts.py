import numpy as np
import pytest
from hand_path import add, idle, path_of, take
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, CANCEL, MARKET, SELL
from tradefm_gym.realism.fill_chances import DEPTHS, agent_fill_rows, fill_probability, fill_rows, resting_orders
from tradefm_gym.realism.markouts import HORIZONS, agent_makers, maker_samples, markout_rows
from tradefm_gym.realism.path import roll_out


def made_path():
    """Orders at the bid and behind it, one filled by a seller after whom the mid falls; another withdrawn."""
    events = [idle() for _ in range(20)]
    events[0], events[1], events[2] = add(BUY, 990, 1), add(BUY, 988, 2), add(SELL, 1005, 3)
    events[4] = take(SELL, 990, 10, 4)
    events[6] = (CANCEL, BUY, 988, 10, 0, 2)
    touches = [(990, 1010)] * 2 + [(990, 1005)] * 2 + [(986, 1005)] * 16
    return path_of(events, touches, fills=[(4, 1, 10)])


def test_markout_of_a_fill_is_the_mids_change_signed_for_the_maker():
    bps, half, _ = maker_samples([made_path()])
    # Mid 997.5 -> 995.5 for a buyer, at once and for good; 100 events do not follow, ten seconds do.
    expected = -2.0 / 997.5 * 1e4
    assert bps[0] == pytest.approx([expected, expected, np.nan, expected, expected], nan_ok=True)
    assert half[0] == pytest.approx(7.5 / 997.5 * 1e4)
    rows = {(row["quantity"], row["metric"]): row for row in markout_rows([made_path()] * 2, "real")}
    assert rows["markout_half_spreads", "after_1_events"]["value"] == pytest.approx(-2.0 / 7.5)
    assert rows["markout_bps", "after_100_events"]["n"] == 0
    assert {metric for _, metric in rows} == set(HORIZONS)


def test_orders_are_classed_by_depth_and_queue_and_followed_to_their_end():
    orders = resting_orders([made_path()])
    assert [DEPTHS[depth] for depth in orders.depth] == ["touch", "behind_2", "inside"]
    assert orders.ahead.tolist() == [10.0, 10.0, 0.0]  # medians of ten lots
    assert orders.filled.tolist() == [True, False, False]
    assert orders.wait_events.tolist() == [4, 5, 17]  # filled, withdrawn, the end of the path
    assert orders.wait_s.tolist() == [4.0, 5.0, 17.0]


def test_fill_probability_counts_withdrawn_orders_out():
    wait, block = np.array([1.0, 2.0, 3.0]), np.arange(3)
    found = fill_probability(wait, np.array([True, False, True]), block, (1, 2, 3))
    assert [estimate.value for estimate in found] == pytest.approx([1 / 3, 1 / 3, 1.0])
    everybody = fill_probability(np.arange(1.0, 101.0), np.ones(100, bool), np.arange(100), (10, 50, 100))
    assert [estimate.value for estimate in everybody] == pytest.approx([0.1, 0.5, 1.0])
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in everybody)


def test_an_agent_at_the_touch_is_run_over_as_the_script_says():
    bank = quiet_bank([(999, 20), (998, 500)], [(1001, 500)])
    flow = QuietFlow(2, bank, {5: (MARKET, SELL, 0, 30)})
    bps, half, row, orders = agent_makers(flow, np.zeros(2, int), np.arange(2, dtype=np.uint64), events=20)
    assert row.tolist() == [0]  # the buyer; row 1 sells
    assert bps[0, :2] == pytest.approx([-5.0, -5.0])  # mid 1,000 -> 999.5
    assert half[0] == pytest.approx(10.0)
    filled = orders[orders[:, 6] > 0]
    # market, arrival at 0, 20 lots ahead, first fill with the sixth event.
    assert filled[:, [0, 1, 3, 4]].tolist() == [[0, 0, 20, 6]]
    told = {row["quantity"] for row in agent_fill_rows(orders, 10.0)}
    assert "fill_probability_touch" in told and "fill_probability_touch_queue_1_to_4" in told


def test_generated_makers_lose_to_takers_and_deeper_orders_are_filled_less():
    flow = ZeroIntelligenceFlow(16)
    paths = roll_out(flow, np.arange(16), np.arange(16, dtype=np.uint64), 600)
    rows = {
        (row["quantity"], row["metric"]): row for row in [*markout_rows(paths, "g", 16), *fill_rows(paths, "g", 16)]
    }
    assert rows["markout_bps", "after_1_events"]["high"] < 0
    chances = [rows[f"fill_probability_{name}", "within_100_events"]["value"] for name in DEPTHS]
    assert chances == sorted(chances, reverse=True)
