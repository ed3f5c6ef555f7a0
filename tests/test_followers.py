"""How takers are followed: what a day shows of it, and what agents' takers then bring on."""

import math

import numpy as np
import pytest
from small_tradefm import even_bank, write_checkpoint

from tradefm_gym.flow.followers import (
    AGENT_PRESSURE,
    NEWS_DECAY,
    USUAL,
    add_pressure,
    calibrate_followers,
    followers,
)
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.market.events import BACKGROUND, BUY, LIMIT, MARKET, PRINT, RECORD, SELL
from tradefm_gym.market.features import FAST_DECAY, SLOW_DECAY
from tradefm_gym.market.simulator import MarketSimulator

QUIET = np.zeros(AGENT_PRESSURE)


def day(events: int, echoes: int, every: int = 400, size: int = 100) -> np.ndarray:
    """Adds; every so often one takes ``size`` lots, and ``echoes`` more of its side within the next 16 events."""
    records = np.zeros(events, RECORD)
    records["kind"], records["owner"], records["side"], records["price"], records["size"] = LIMIT, BACKGROUND, 1, 10, 1
    for i, start in enumerate(range(0, events - 100, every)):
        for k in range(echoes + 1):
            records["side"][start + 3 * k] = BUY if i % 2 else SELL
            records["filled"][start + 3 * k] = size
    return records


def response(weights, orders, events):
    """Times by which buyers grew likelier, summed over events that come after ``orders`` of a pressure each.

    The weights are made small for it, so that nothing is cut off.
    """
    agents, total, done, scale = QUIET.copy(), 0.0, 0, 1e-4
    for order in orders:
        add_pressure(agents, order)
    while done < events:
        total += followers(agents, scale * weights) / scale
        add_pressure(agents, 0.0)
        done += 1
    return total


def test_weights_bring_on_what_came_after_the_takers_of_a_long_day():
    """Every taker of one median is the first of four: 3, 2, 1, 0 follow, so 1.5 for each unit of pressure."""
    records = day(400_000, echoes=3)
    weights = np.array(calibrate_followers(records, 100.0))
    usual = 0.5 * records["filled"].mean() / 100.0
    assert usual * response(weights, [1.0], 16) == pytest.approx(1.5, rel=0.05)
    assert usual * response(weights, [1.0], 64) == pytest.approx(1.5, rel=0.08)


def test_a_day_without_takers_says_what_is_usual_and_one_without_echoes_next_to_nothing():
    assert calibrate_followers(day(100, 0)[1:], 100.0) == (0.0, 0.0)  # nobody takes: nobody can grow likelier
    few = np.array(calibrate_followers(day(4_000, 3, every=1_000), 100.0))
    usual = 0.5 * day(4_000, 3, every=1_000)["filled"].mean() / 100.0
    assert usual * response(few, [1.0], 16) == pytest.approx(USUAL[0], rel=1e-6)
    assert usual * response(few, [1.0], 64) == pytest.approx(USUAL[1], rel=1e-6)
    assert max(calibrate_followers(day(400_000, 0), 100.0)) == pytest.approx(0.0, abs=1e-3)


def test_prints_are_no_events():
    records = day(40_000, 3)
    printed = np.insert(records, np.arange(0, 40_000, 7), np.zeros(1, RECORD))
    printed["kind"][printed["owner"] == 0] = PRINT
    assert calibrate_followers(printed, 100.0) == calibrate_followers(records, 100.0)


def test_a_run_is_followed_by_about_twice_what_follows_one_and_a_schedule_by_little():
    weights = np.array([4.0, 2.0])
    one = response(weights, [1.0], 64)
    assert 2.0 < response(weights, [1.0] * 4, 64) / one < 2.5
    agents, total = QUIET.copy(), []
    for event in range(4_096):
        add_pressure(agents, 0.5 if event % 16 == 0 else 0.0)
        total.append(followers(agents, weights))
    alone = response(weights, [0.5], 64)
    assert sum(total[3_072:]) / 64 < 0.15 * alone  # of each of the 64 slices in the last quarter


def test_both_sides_count_alike_and_apart():
    """After a run of buyers another buyer adds next to nothing, a seller as much as the first buyer did."""
    agents = QUIET.copy()
    for _ in range(50):
        add_pressure(agents, 1.0)
    assert 2.5 < agents[2] <= 3.0 and agents[3] == 0.0
    before = agents.copy()
    add_pressure(agents, -2.0)
    np.testing.assert_allclose(agents[:2], before[:2] * (FAST_DECAY, SLOW_DECAY) - 2.0)
    np.testing.assert_allclose(agents[2:], (before[2] * NEWS_DECAY, 2.0))
    for name, sign in (("buyers", 1.0), ("sellers", -1.0)):
        fresh = QUIET.copy()
        add_pressure(fresh, sign)
        assert followers(fresh, np.array([4.0, 2.0])) == sign * 6.0, name


def test_one_order_of_any_size_is_followed_no_further_than_seven_medians():
    for size in (7.0, 63.0, 1e6):
        agents = QUIET.copy()
        add_pressure(agents, -math.log2(1.0 + size))
        np.testing.assert_allclose(agents, (-3.0, -3.0, 0.0, 3.0))
        add_pressure(agents, -5.0)
        assert agents[3] <= 3.0 and -3.0 <= agents[1] < -2.9


def test_nothing_comes_back_by_itself():
    agents = QUIET.copy()
    for _ in range(20):
        add_pressure(agents, 1.0)
    for _ in range(5_000):
        assert followers(agents, np.array([4.0, 2.0])) >= 0.0
        add_pressure(agents, 0.0)


def test_nobody_grows_more_than_twelve_times_likelier():
    assert followers(np.array([3.0, 3.0, 3.0, 0.0]), np.array([50.0, 50.0])) == 12.0
    assert followers(np.array([-3.0, -3.0, 0.0, 3.0]), np.array([50.0, 50.0])) == -12.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.mark.parametrize(("flagged", "expected"), [(True, math.log2(1.0 + 150 / 100)), (False, 0.0)])
def test_only_what_flagged_agents_take_counts(model, flagged, expected):
    flow = TradeFMFlow(model, 2, bank=even_bank(), flag_agents=flagged, following=0.5)
    market = MarketSimulator(2, flow.market_config(1))
    everyone = np.ones(2, bool)
    flow.reset(market, everyone, np.zeros(2, np.int64), np.arange(2, dtype=np.uint64), np.zeros(2, np.uint32))
    market.send(LIMIT, BUY, 9_990, 70, 0, owner=0, row=1)
    market.send(MARKET, SELL, 0, 150, 1, owner=0, row=1)
    flow.next_events(market, everyone)
    np.testing.assert_allclose(flow._agents[1, :AGENT_PRESSURE], (-expected, -expected, 0.0, expected))
    assert not flow._agents[0, :AGENT_PRESSURE].any()
    flow.reset(market, everyone, np.zeros(2, np.int64), np.arange(2, dtype=np.uint64), np.zeros(2, np.uint32))
    assert not flow._agents.any()
