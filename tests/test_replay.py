import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tradefm_gym.data.day import load_day, save_day
from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, load
from tradefm_gym.data.splits import split
from tradefm_gym.flow.protocol import SPLITS
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.replay import ReplayFlow
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.flow.zero_intelligence_parameters import ZeroIntelligenceParameters
from tradefm_gym.market.events import BUY, CANCEL, FILL, LIMIT, MARKET, PRINT, RECORD, SELL, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

DATA = Path(os.environ.get("TRADEFM_DATA", Path(__file__).parents[2] / "shared" / "data"))
EVENTS = 24_000


def meta(**changes) -> FlowMeta:
    fields = {
        "ticker": "ZERO", "venue": "made up", "date": "2026-01-01", "tick_size": 1, "price_unit": "tick", "lot": 1,
        "size_unit": "lot", "replay_by_id": True, "session_ns": (0, 10**15), "source": "a test",
    }  # fmt: skip
    return FlowMeta(**(fields | changes))


@pytest.fixture(scope="module")
def day() -> RecordedFlow:
    flow = ZeroIntelligenceFlow(1)
    market = MarketSimulator(1, flow.market_config())
    flow.reset(market, np.ones(1, bool), np.zeros(1, np.int64), np.ones(1, np.uint64), np.zeros(1, np.uint32))
    recorder = DayRecorder(market)
    for target in range(2000, EVENTS + 1, 2000):
        while (starved := market.advance(until_count=np.array([target]))).any():
            market.feed(flow.next_events(market, starved))
        recorder.collect()
    return recorder.finish(meta())


def started(flow: ReplayFlow, contexts) -> MarketSimulator:
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config())
    contexts = np.broadcast_to(np.asarray(contexts, np.int64), n)
    flow.reset(market, np.ones(n, bool), contexts, np.zeros(n, np.uint64), np.zeros(n, np.uint32))
    return market


def run(flow, market, events) -> None:
    """Runs on until each row has seen ``events`` background events or its flow has ended."""
    until = np.broadcast_to(np.asarray(events, np.int64), flow.num_envs)
    while (starved := market.advance(until_count=until)).any():
        block = flow.next_events(market, starved)
        until = np.where(starved & (block.count == 0), market.background_count, until)
        market.feed(block)
    flow.count_outcomes(market)


def test_a_recorded_tape_is_a_sound_day(day):
    records = day.records
    assert EVENTS * 0.99 < len(day.flow) <= EVENTS
    assert set(np.unique(records["kind"])) == {LIMIT, CANCEL}
    first = np.full(records["order_id"].max() + 1, len(records))
    np.minimum.at(first, records["order_id"], np.arange(len(records)))
    assert (np.diff(first) > 0).all()  # ids are dense, by first appearance
    takers = records["filled"] > 0
    assert takers.mean() > 0.03 and records["filled"][takers].sum() == day.fills["size"].sum()
    two_sided = (day.touch[:, [1, 3]] > 0).all(axis=1)
    assert two_sided.all()
    np.testing.assert_array_equal(day.touch[day.opening :, [0, 2]].sum(axis=1), day.flow["mid2"])


def test_a_saved_day_comes_back_the_same(day, tmp_path):
    save_day(tmp_path / "day.npz", day)
    loaded = load_day(tmp_path / "day.npz")
    np.testing.assert_array_equal(loaded.records, day.records)
    np.testing.assert_array_equal(loaded.fills, day.fills)
    np.testing.assert_array_equal(loaded.touch, day.touch)
    assert loaded.meta == day.meta and loaded.opening == day.opening and loaded.book is None
    assert (tmp_path / "day.npz").stat().st_size < 20 * len(day)
    by_path = ReplayFlow(1, tmp_path / "day.npz")
    assert by_path.version == ReplayFlow(1, day).version
    assert by_path.day is make_flow(f"replay:{tmp_path / 'day.npz'}", 3).day  # prepared once
    broken = replace(day, opening=10**6)
    save_day(tmp_path / "broken.npz", broken)
    with pytest.raises(ValueError, match="opening is 1000000"):
        load_day(tmp_path / "broken.npz")


def test_without_an_agent_nothing_changes(day):
    flow = ReplayFlow(3, day)
    contexts = [flow.bank.split(part)[0] for part in SPLITS]
    market = started(flow, contexts)
    run(flow, market, 10**6)
    assert flow.changed.tolist() == [0, 0, 0]
    assert flow.replayed.tolist() == flow.events_left[contexts].tolist()
    assert flow.dropped_lots.sum() == 0 and market.counters.sum() == 0
    for row, context in enumerate(contexts):
        stop = flow.day.stop[context]
        tape = market.tape.read_records(row, max(0, int(market.tape.record_count[row]) - 500))
        expected = day.records[stop - len(tape) : stop]
        for field in ("time_ns", "order_id", "price", "size", "filled", "notional", "mid2", "status"):
            np.testing.assert_array_equal(tape[field], expected[field], err_msg=field)


def test_starts_lie_in_their_parts_and_leave_their_horizon(day):
    flow = ReplayFlow(1, day, horizon=500, contexts=(10, 3, 2))
    parts = split(day)
    assert [len(flow.bank.split(part)) for part in SPLITS] == [10, 3, 2]
    for part in SPLITS:
        ids, span = flow.bank.split(part), getattr(parts, part)
        assert (flow.day.start[ids] >= span.start).all() and (flow.day.stop[ids] == span.stop).all()
        assert (flow.events_left[ids] >= 500).all()
        assert (flow.bank.clock_ns[ids] <= day.records["time_ns"][flow.day.start[ids]]).all()
    # The scale is that of the training part alone: what happens later does not move it.
    later = replace(day, records=day.records.copy())
    later.records["size"][parts.train.stop :] *= 3
    assert (ReplayFlow(1, later, horizon=500, contexts=(10, 0, 0)).bank.scale[0] == flow.bank.scale[0]).all()


def test_a_short_part_gets_a_shorter_horizon(day):
    flow = ReplayFlow(1, day, horizon=10**6)
    parts = split(day)
    for part in SPLITS:
        ids = flow.bank.split(part)
        assert (flow.events_left[ids] >= len(getattr(parts, part)) // 2).all()


def test_a_flow_ends_where_its_part_ends(day):
    flow = ReplayFlow(2, day)
    contexts = [flow.bank.split("train")[-1], flow.bank.split("test")[-1]]
    market = started(flow, contexts)
    run(flow, market, 10**6)
    assert market.background_count.tolist() == flow.events_left[contexts].tolist()
    assert flow.next_events(market, np.ones(2, bool)).count.tolist() == [0, 0]


def test_rows_do_not_depend_on_each_other(day):
    many, alone = ReplayFlow(5, day), ReplayFlow(1, day)
    contexts = np.array([4, 90, 17, 4, 70])
    crowd, single = started(many, contexts), started(alone, 17)
    run(many, crowd, 700)
    run(alone, single, 700)
    np.testing.assert_array_equal(crowd.tape.read_records(2), single.tape.read_records(0))
    np.testing.assert_array_equal(crowd.tape.read_records(0), crowd.tape.read_records(3))


def agent_order(market, kind, side, price, size) -> None:
    block = EventBlock.empty(1, 1)
    event = block.events[0, 0]
    event["owner"], event["kind"], event["side"], event["price"], event["size"] = 0, kind, side, price, size
    event["time_ns"] = market.clock_ns[0]
    block.count[0] = 1
    market.submit(block)


def test_an_agent_that_takes_changes_what_follows_and_nothing_extra_rests(day):
    flow = ReplayFlow(1, day)
    market = started(flow, 0)
    agent_order(market, MARKET, BUY, 0, 3000)
    run(flow, market, 2000)
    assert 0 < flow.changed[0] < 1500
    assert flow.replayed[0] == 2000
    dropped = dict(zip(("noop", "dropped", "dropped_lots"), market.counters[0, :3].tolist(), strict=True))
    assert dropped["dropped"] == flow.dropped_events[0] and dropped["dropped_lots"] == flow.dropped_lots[0]
    assert market.accounts["inventory"].sum() == 0 and market.accounts["inventory"][0, 0] == 3000
    # Every recorded order leaves with its own delete: none is left that the record does not know.
    pool = market.book.orders[0]
    live = pool[pool["size"] > 0]
    rested = np.zeros(len(flow.day.first_seen), np.int64)
    limits = day.records["kind"] == LIMIT
    rested[day.records["order_id"][limits]] = day.records["max_rest"][limits]
    assert (live["size"] <= rested[live["order_id"]]).all()


def test_an_agent_that_stands_in_the_way_is_traded_with(day):
    flow = ReplayFlow(1, day)
    market = started(flow, 0)
    bid, ask = market.touch()
    agent_order(market, LIMIT, SELL, int(ask[0]) - 1 if ask[0] - bid[0] > 1 else int(ask[0]), 5000)
    run(flow, market, 2000)
    assert market.accounts["inventory"][0, 0] < 0
    assert flow.changed[0] > 0


def two_order_day() -> RecordedFlow:
    """Bids and asks that come and go, then partial cancels, a delete, a print and a taker, again and again."""
    rows = []

    def add(kind, side, price, size, order, rest, filled=0):
        record = np.zeros((), RECORD)
        record["kind"], record["side"], record["price"], record["size"], record["order_id"] = (
            kind,
            side,
            price,
            size,
            order,
        )
        record["max_rest"], record["filled"], record["notional"] = rest, filled, filled * price
        record["owner"], record["time_ns"], record["mid2"] = -1, 10**9 * len(rows), 201
        rows.append(record)

    add(LIMIT, BUY, 100, 50, 0, 50)
    add(LIMIT, SELL, 101, 50, 1, 50)
    order = 2
    for _ in range(200):
        add(LIMIT, BUY, 99, 10, order, 10)
        add(CANCEL, BUY, 99, 4, order, 6)  # partial
        add(PRINT, BUY, 100, 3, -1, 0, filled=3)
        add(CANCEL, BUY, 99, 6, order, 0)  # delete
        add(LIMIT, SELL, 101, 20, order + 1, 20)
        add(CANCEL, SELL, 101, 20, order + 1, 0)
        add(LIMIT, SELL, 100, 5, order + 2, 0, filled=5)  # a taker, then its maker's replacement
        add(LIMIT, BUY, 100, 5, order + 3, 5)
        order += 4
    records = np.array(rows)
    touch = np.tile(np.array([100, 50, 101, 50], np.int32), (len(records), 1))
    return RecordedFlow(records, 2, touch, np.zeros(0, FILL), None, np.zeros(len(records), np.int64), meta())


def test_deletes_take_what_remains_and_partial_cancels_at_most_their_size():
    flow = ReplayFlow(1, two_order_day(), contexts=(4, 1, 1), horizon=100)
    events = flow.day.events
    cancels = events[events["kind"] == CANCEL]
    assert cancels["size"][:3].tolist() == [4, 0, 0]
    market = started(flow, 0)
    run(flow, market, 200)
    assert flow.changed[0] == 0
    prints = market.tape.read_records(0)
    prints = prints[prints["kind"] == PRINT]
    assert len(prints) > 20 and (prints["filled"] == 3).all() and (prints["price"] == 100).all()


def test_the_excess_of_a_taker_is_dropped_and_counted():
    flow = ReplayFlow(1, two_order_day(), contexts=(4, 1, 1), horizon=100)
    market = started(flow, 0)
    agent_order(market, MARKET, SELL, 0, int(market.depth(1)[1][0, 0, 0]))
    run(flow, market, 100)
    assert flow.dropped_events[0] > 0 and flow.dropped_lots[0] == 5 * flow.dropped_events[0]
    # The taker's excess rests nowhere: all asks are those of the record.
    assert market.depth(2)[0][0, 1].tolist()[0] == 101


def test_bad_sources_are_named(day, tmp_path):
    with pytest.raises(FileNotFoundError, match="replay path '/nowhere' does not exist"):
        make_flow("replay:/nowhere", 1)
    with pytest.raises(ValueError, match="num_envs is 0"):
        ReplayFlow(0, day)
    with pytest.raises(ValueError, match="horizon is 0"):
        ReplayFlow(1, day, horizon=0)
    with pytest.raises(ValueError, match="contexts is"):
        ReplayFlow(1, day, contexts=(0, 1, 1))
    with pytest.raises(ValueError, match="no book file"):
        ReplayFlow(1, replace(day, meta=meta(replay_by_id=False)))
    short = replace(day, records=day.records[: day.opening + 90], touch=day.touch[: day.opening + 90])
    with pytest.raises(ValueError, match="at least 128 are needed"):
        ReplayFlow(1, short)


def test_a_market_with_agents_cannot_be_recorded(day):
    flow = ReplayFlow(1, day)
    market = started(flow, 0)
    recorder = DayRecorder(market)
    agent_order(market, MARKET, BUY, 0, 10)
    run(flow, market, 64)
    with pytest.raises(ValueError, match="only a market without agents"):
        recorder.finish(meta())


def test_fitted_parameters_resemble_those_that_made_the_day(day):
    made, fitted = ZeroIntelligenceParameters(), ZeroIntelligenceParameters.fit(day)
    assert fitted.limit_rate == pytest.approx(made.limit_rate, rel=0.05)
    assert fitted.market_rate == pytest.approx(made.market_rate, rel=0.1)
    assert fitted.cancel_rate == pytest.approx(made.cancel_rate, rel=0.1)
    weights = np.array(fitted.offsets) / sum(fitted.offsets)
    expected = np.array(made.offsets) / sum(made.offsets)
    np.testing.assert_allclose(weights[:8], expected[:8], atol=0.02)
    assert np.median(fitted.limit_sizes) == pytest.approx(np.median(made.limit_sizes), rel=0.05)
    assert ZeroIntelligenceFlow(1, fitted).bank.scale["spread"][0] == pytest.approx(
        ZeroIntelligenceFlow(1).bank.scale["spread"][0], abs=1
    )


# The most recorded outcomes that may change in each part without an agent: 0 where the record is complete.
REAL = {"sse_600519_20230207": 0.0, "nasdaq_aapl_20120621_l50_1h": 0.002, "nasdaq_goog_20120621_l10": 0.06}


@pytest.mark.parametrize("name", REAL)
def test_real_days_replay(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"no data folder {name}")
    pytest.importorskip("polars")
    flow = ReplayFlow(8, load(DATA / name))
    contexts = np.linspace(0, len(flow.bank) - 1, 8).astype(np.int64)
    market = started(flow, contexts)
    run(flow, market, np.minimum(flow.events_left[contexts], 2048))
    assert (flow.replayed > 400).all()
    assert flow.changed.sum() <= REAL[name] * flow.replayed.sum()
    for row, context in enumerate(contexts.tolist()):
        orders = flow.bank.state(context).orders
        buys = orders["side"] == BUY
        assert orders["price"][buys].max() < orders["price"][~buys].min()
        assert market.counters[row, 5] == 0  # nothing was rejected
