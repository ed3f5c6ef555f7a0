"""What is forecast, and from when, on paths of which every figure is known."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hand_path import SECOND, add, idle, path_of, take

from tradefm_gym.market.events import BUY, CANCEL, SELL
from tradefm_gym.realism.forecasts import COLUMNS, EVENTS, blocks_of, outcomes, start_events, truths
from tradefm_gym.realism.path import MarketPath

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


def column(name, horizon, unit):
    return COLUMNS.index((name, horizon, unit))


def told(path: MarketPath) -> dict:
    return dict(zip(COLUMNS, outcomes(path).tolist(), strict=True))


def long_path(events: int, gap_ns: int = SECOND, start=(990, 1010)) -> MarketPath:
    """Cancels of nothing at even times."""
    path = path_of([idle()] * 2, [start] * 2, start)
    records = np.repeat(path.records[:1], events)
    records["time_ns"] = (1 + np.arange(events)) * gap_ns
    book = np.repeat(path.book[:1], events, axis=0)
    return replace(path, records=records, book=book, end_ns=int(records["time_ns"][-1]))


def test_outcomes_of_five_events():
    """One event a second: the mid goes 1000, 1000, 1001, 1001, 999, 999 and the spread 20, 20, 18, 18, 14, 14."""
    events = [add(BUY, 980, 1), take(BUY, 1010, 30, 2), (CANCEL, SELL, 1040, 70, 70, 3), take(SELL, 990, 15, 4), idle()]
    path = path_of(events, [(990, 1010), (992, 1010), (992, 1010), (992, 1006), (992, 1006)])
    found = told(path)
    up, down = 1e4 * np.log(1001 / 1000), 1e4 * np.log(999 / 1001)
    for horizon in EVENTS:  # a path that is too short counts as it ends
        assert found["return", horizon, "events"] == pytest.approx(up + down)
        assert found["realised_variance", horizon, "events"] == pytest.approx(up**2 + down**2)
        assert found["mean_spread", horizon, "events"] == pytest.approx((20 + 18 + 18 + 14 + 14) / 5)
        assert found["duration", horizon, "events"] == 5.0
        assert found["volume", horizon, "events"] == 4.5  # 45 lots in medians of 10; a cancel's are none
    assert [found["event_count", horizon, "s"] for horizon in (1, 10, 30)] == [1, 5, 5]
    assert found["return", 1, "s"] == found["realised_variance", 1, "s"] == found["volume", 1, "s"] == 0
    assert found["mean_spread", 1, "s"] == 20
    assert found["return", 10, "s"] == pytest.approx(up + down)
    assert found["realised_variance", 10, "s"] == pytest.approx(up**2 + down**2)
    assert found["mean_spread", 10, "s"] == pytest.approx((2 * 20 + 2 * 18 + 6 * 14) / 10)
    assert found["volume", 10, "s"] == 4.5


def test_outcomes_stop_at_their_horizon():
    """The mid rises a tick an event, each of which trades one median."""
    count = 40
    path = path_of(
        [take(BUY, 1010, 10, i) for i in range(count)], [(990 + i, 1010 + i) for i in range(1, count + 1)]
    )  # fmt: skip
    found = told(path)
    mids = 1000.0 + np.arange(count + 1)
    squares = np.cumsum(np.append(0.0, (1e4 * np.diff(np.log(mids))) ** 2))
    for last, horizon, unit in ((16, 16, "events"), (count, 64, "events"), (1, 1, "s"), (10, 10, "s"), (30, 30, "s")):
        assert found["return", horizon, unit] == pytest.approx(1e4 * np.log(mids[last] / 1000))
        assert found["realised_variance", horizon, unit] == pytest.approx(squares[last])
        assert found["volume", horizon, unit] == last
    assert found["duration", 16, "events"] == 16 and found["event_count", 30, "s"] == 30


def test_a_spread_without_a_side_is_the_last_that_was_known():
    path = path_of([idle()] * 3, [(990, 1010), (990, 1020), (990, 1010)])
    path.book[1, 0, 1] = 0
    assert told(path)["mean_spread", 16, "events"] == 20
    assert told(path)["return", 16, "events"] == 0


def test_truths_begin_with_the_event_that_starts():
    """The event of each start trades as many medians as its number says, and nothing else does."""
    path, starts = long_path(1500), np.array([3, 100, 101])
    path.records["kind"][starts], path.records["filled"][starts] = add(BUY, 0, 0)[0], 10 * starts
    path.book[100:, 0, [0, 2]] += 5  # the mid before is what an event met
    found = truths(path, starts)
    assert found.shape == (3, len(COLUMNS))
    assert found[:, column("volume", 1, "s")].tolist() == [3, 100, 101]
    assert found[:, column("volume", 16, "events")].tolist() == [3, 201, 101]
    assert found[:, column("volume", 1024, "events")].tolist() == [204, 201, 101]
    assert found[:, column("return", 1, "s")] == pytest.approx([0, 1e4 * np.log(1005 / 1000), 0])
    assert found[:, column("event_count", 30, "s")].tolist() == [30, 30, 30]
    assert found[:, column("duration", 1024, "events")].tolist() == [1024, 1024, 1024]


def test_truths_hold_the_seconds_that_outlast_the_events():
    found = truths(long_path(4000, SECOND // 100), np.array([10]))  # 30 s are 3,000 events
    assert found[0, column("event_count", 30, "s")] == 3000
    assert found[0, column("duration", 1024, "events")] == pytest.approx(10.24)


def test_forecasts_start_where_the_longest_horizon_is_left():
    path = long_path(3000)
    found = start_events(path, 1000, 2000, 10**6)
    assert found.tolist() == []  # no event from 1,000 on leaves 1,024
    found = start_events(path, 500, 3000, 10**6)
    assert (found[0], found[-1]) == (500, 3000 - 1024 - 1) and (np.diff(found) == 1).all()
    assert start_events(path, 500, 3000, 3).tolist() == [500, (500 + 1975) // 2, 1975]
    slow = long_path(3000, 100 * SECOND)
    assert start_events(slow, 500, 3000, 2)[-1] == 1975
    fast = long_path(9000, SECOND // 100)  # 30 s are 3,000 events; the one after them is there, and is not the last
    assert start_events(fast, 0, 9000, 2).tolist() == [1, 9000 - 3000 - 3]


def test_forecasts_start_between_events_of_a_two_sided_market_without_a_break():
    path = long_path(4000)
    path.records["time_ns"][600] = path.records["time_ns"][599]  # no moment between them
    path.book[699, 0, 1] = 0  # one side is empty after event 699
    path.records["time_ns"][2000:] += 601 * SECOND
    found = start_events(path, 500, 4000, 10**6)
    missing = set(range(500, 4000 - 1024)) - set(found.tolist())
    assert missing == {600, 700, *range(2000 - 1024, 2000)}


def test_blocks_are_as_long_as_the_horizon_of_their_column():
    starts = np.arange(0, 4096, 64)
    truth = np.zeros((len(starts), len(COLUMNS)))
    truth[:, column("event_count", 1, "s")] = 2
    truth[:, column("event_count", 10, "s")] = 600
    truth[:10, column("event_count", 10, "s")] = 10**6  # the median counts
    truth[:, column("event_count", 30, "s")] = 5000
    blocks = blocks_of(starts, truth)
    assert blocks.shape == truth.shape and (np.diff(blocks, axis=0) >= 0).all() and (blocks[0] == 0).all()
    span = 4033  # events from the first start to the last
    expected = {("events", 16): 16, ("events", 64): 16, ("events", 256): 15, ("events", 1024): 3}
    expected |= {("s", 1): 16, ("s", 10): span // 600, ("s", 30): 1}
    for c, (_, horizon, unit) in enumerate(COLUMNS):
        number = expected[unit, horizon]
        assert len(np.unique(blocks[:, c])) == number == blocks[-1, c] + 1
        length = {1: 2, 10: 600, 30: 5000}[horizon] if unit == "s" else horizon
        for block in range(number - 1):  # two blocks apart no event is shared
            beyond = starts[blocks[:, c] >= block + 2]
            if len(beyond):
                assert beyond[0] >= starts[blocks[:, c] == block][-1] + length
    assert blocks_of(starts, truth, most=4)[:, column("return", 16, "events")].max() == 3
    assert (blocks_of(starts[:1], truth[:1]) == 0).all()
