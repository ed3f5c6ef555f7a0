from dataclasses import asdict, replace

import numpy as np
import pytest
from flow_paths import fingerprint, run, started, tape
from numba import get_num_threads, set_num_threads

from tradefm_gym.data.day import load_day
from tradefm_gym.flow.protocol import background_orders
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow, _propose_row
from tradefm_gym.flow.zero_intelligence_parameters import (
    FIXED,
    ZeroIntelligenceParameters,
    lookup_tables,
)
from tradefm_gym.market.events import BACKGROUND, CANCEL, EVENT, LIMIT, MARKET, NOOP, PRINT

GOLDEN = "da532b87fb1b4059"  # the default flow, row 3 of seed 7 from context 3, 1,024 events


def start(num_envs, contexts=0, seed=7, episode=0, **options):
    flow = ZeroIntelligenceFlow(num_envs, **options)
    return flow, started(flow, contexts, seed, episode)


@pytest.fixture(scope="module")
def many():
    flow, market = start(64, np.arange(64))
    run(flow, market, 1024)
    return market


def test_golden_tape(many):
    assert fingerprint(tape(many, 3, 1024)) == GOLDEN


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_row_does_not_depend_on_its_neighbours(many, num_envs, threads):
    before = get_num_threads()
    set_num_threads(min(threads, before))
    try:
        flow, market = start(num_envs, np.arange(num_envs) + 2, seed=9)
        run(flow, market, 1024)
    finally:
        set_num_threads(before)
    for row in range(num_envs):
        np.testing.assert_array_equal(tape(market, row, 1024), tape(many, row + 2, 1024))


def test_the_length_of_a_step_changes_nothing(many):
    flow, market = start(2, np.arange(2))
    run(flow, market, 1024, step=128)
    np.testing.assert_array_equal(tape(market, 1, 1024), tape(many, 1, 1024))


def test_seed_and_episode_both_matter(many):
    prints = {fingerprint(tape(many, row, 512)) for row in range(64)}
    for seed, episode in ((7, 1), (8, 0)):
        flow, market = start(1, 0, seed=seed, episode=episode)
        run(flow, market, 1024)
        prints.add(fingerprint(tape(market, 0, 512)))
    assert len(prints) == 66


def test_resetting_one_row_restarts_it_alone():
    flow, market = start(3, [0, 1, 2])
    run(flow, market, 256)
    first = tape(market, 1, 256)
    others = [tape(market, row, 256).copy() for row in (0, 2)]
    flow.reset(
        market,
        np.array([False, True, False]),
        np.array([0, 1, 2]),
        np.array([7, 8, 9], np.uint64),
        np.zeros(3, np.uint32),
    )
    assert market.background_count.tolist() == [256, 0, 256]
    while (starved := market.advance(until_count=np.full(3, 256, np.int64))).any():
        assert not starved[[0, 2]].any()
        market.feed(flow.next_events(market, starved))
    np.testing.assert_array_equal(tape(market, 1, 256), first)
    for row, other in zip((0, 2), others, strict=True):
        np.testing.assert_array_equal(tape(market, row, 256), other)


def test_markets_stay_alive_and_steady_for_20000_events():
    flow, market = start(8, np.arange(8))
    empty, spreads, resting = [], [], []
    for target in range(100, 20_001, 100):
        while (starved := market.advance(until_count=np.full(8, target, np.int64))).any():
            market.feed(flow.next_events(market, starved))
        prices, sizes = market.depth(1)
        empty.append((sizes == 0).any())
        spreads.append(prices[:, 1, 0] - prices[:, 0, 0])
        resting.append(background_orders(market).copy())
    spreads, resting = np.array(spreads, float), np.array(resting)
    usual = flow.bank.scale["spread"][0]
    assert not any(empty)
    assert spreads.min() >= 1
    assert 0.5 * usual <= np.median(spreads) <= 2 * usual
    settled = flow.parameters.resting_orders
    assert 0.5 * settled < resting.min() and resting.max() < 2 * settled
    early, late = resting[:100].mean(), resting[100:].mean()
    assert abs(late / early - 1) < 0.2
    assert np.abs(market.mid2 / 2 - flow.parameters.mid).max() < 2000
    assert (market.accounts["inventory"].sum(axis=1) == 0).all()


def test_kinds_follow_their_rates(many):
    parameters = ZeroIntelligenceParameters()
    records = np.concatenate([tape(many, row, 1024) for row in range(64)])
    kinds = np.bincount(records["kind"], minlength=3) / len(records)
    assert records["owner"].max() == BACKGROUND
    assert kinds[MARKET] / kinds[LIMIT] == pytest.approx(parameters.market_rate / parameters.limit_rate, rel=0.1)
    # Departures balance arrivals where the book is stationary.
    assert kinds[CANCEL] == pytest.approx(kinds[LIMIT] - kinds[MARKET], rel=0.15)
    assert (records["status"] == NOOP).mean() < 0.002
    assert np.mean(records["side"][records["kind"] == LIMIT]) == pytest.approx(0, abs=0.02)
    waits = np.concatenate([np.diff(tape(many, row, 1024)["time_ns"]) for row in range(64)])
    assert waits.std() == pytest.approx(waits.mean(), rel=0.1)  # as an exponential
    assert (waits >= 0).all()


def test_blocks_keep_the_mean_depth_of_single_draws():
    # In a block the rate of cancels follows the block's own adds and cancels, but not what its takers remove: on
    # average 1.6% fewer orders rest than with single draws. Fewer markets than these would not tell that from noise.
    means = []
    for block in (64, 1):
        flow, market = start(64, np.arange(64), seed=100, block=block)
        run(flow, market, 1024, 64)
        seen = []
        for target in range(1088, 8193, 64):
            while (starved := market.advance(until_count=np.full(64, target, np.int64))).any():
                market.feed(flow.next_events(market, starved))
            sizes = market.depth(20)[1]
            seen.append((sizes.sum(axis=(1, 2)).mean(), sizes[..., 0].mean(), background_orders(market).mean()))
        means.append(np.mean(seen, axis=0))
    assert means[0] == pytest.approx(means[1], rel=0.02)


def test_tables_have_the_moments_they_stand_for():
    parameters = ZeroIntelligenceParameters(offsets=(1.0, 0.0, 3.0), limit_sizes=(5,), market_sizes=(1, 2, 3, 4))
    rates, offsets, sizes, waits = lookup_tables(parameters)
    assert rates.tolist() == [6_000_000, 900_000, 25_000]
    assert np.unique(offsets).tolist() == [1, 3]
    assert np.mean(offsets == 3) == pytest.approx(0.75)
    assert set(sizes[0]) == {5} and sizes[1].mean() == pytest.approx(2.5)
    means = (waits[1:] + waits[:-1]) / 2 / (1 << FIXED)
    assert means.mean() == pytest.approx(1.0, rel=1e-3)
    assert ((waits[1:] + waits[:-1]) ** 2 / 4).mean() / (1 << 2 * FIXED) == pytest.approx(2.0, rel=5e-3)


def test_the_bank_is_made_once_and_holds_its_parts():
    flow = ZeroIntelligenceFlow(1)
    assert flow.bank is ZeroIntelligenceFlow(5).bank
    assert [len(flow.bank.split(part)) for part in ("train", "validation", "test")] == [64, 16, 16]
    scale = flow.bank.scale[0]
    assert 0 < scale["lots_per_event"] < scale["median_size"]
    assert 1 <= scale["spread"] < 20
    assert scale["tick_bps"] == pytest.approx(1.0, rel=0.05)
    assert scale["event_ns"] == pytest.approx(1e9 / (2 * flow.parameters.limit_rate), rel=0.1)
    assert (flow.bank.scale == scale).all()
    other = ZeroIntelligenceFlow(1, replace(flow.parameters, market_rate=0.5))
    assert other.version != flow.version


def test_parameters_survive_json_and_refuse_nonsense():
    parameters = ZeroIntelligenceParameters(offsets=[1, 2])
    assert ZeroIntelligenceParameters(**asdict(parameters)) == parameters
    for change, message in (
        ({"limit_rate": -1.0}, "limit_rate is -1.0; it must lie between"),
        ({"market_rate": 7.0}, "limit_rate is 6.0; it must exceed market_rate"),
        ({"cancel_rate": float("nan")}, "cancel_rate is nan"),
        ({"offsets": ()}, "offsets must be non-negative weights"),
        ({"limit_sizes": (0,)}, "limit_sizes must hold"),
        ({"mid": 10}, "mid is 10; it must lie between"),
    ):
        with pytest.raises(ValueError, match=message):
            ZeroIntelligenceParameters(**change)
    with pytest.raises(ValueError, match="num_envs is 0"):
        ZeroIntelligenceFlow(0)


def test_fitted_parameters_survive_their_file(tmp_path):
    parameters = ZeroIntelligenceParameters(limit_rate=5.0)
    parameters.save(tmp_path / "zi.json", {"provenance": {"ticker": "ABCD"}})
    assert ZeroIntelligenceParameters.load(tmp_path / "zi.json") == parameters
    flow = make_flow(f"zero_intelligence:{tmp_path / 'zi.json'}", 1)
    assert flow.parameters == parameters
    text = (tmp_path / "zi.json").read_text()
    for old, new, said in (
        ('"format":1', '"format":2', "has format 2; this version reads format 1"),
        ("zero intelligence", "something", "holds 'parameters of something'"),
        ('"limit_rate":5.0', '"limit_rate":-5.0', "limit_rate is -5.0"),
        ('"limit_rate"', '"limit"', "is unsound: parameters has the unknown key 'limit'; known are limit_rate, "),
        ('"limit_rate":5.0', '"limit_rate":"5"', "limit_rate is '5'; it must be a number"),
        ('"limit_rate":5.0', '"limit_rate":[5]', r"limit_rate is \[5\]; it must be a number"),
        ('"limit_rate":5.0', '"limit_rate":NaN', "limit_rate is nan"),
        ('"mid":10000', '"mid":1e4', "mid is 10000.0; it must be a whole number"),
        ('"parameters"', '"parameter"', "lacks 'parameters'"),
        ('"format"', '"more":1,"format"', "has the unknown key 'more'"),
    ):
        (tmp_path / "bad.json").write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=said):
            ZeroIntelligenceParameters.load(tmp_path / "bad.json")
    with pytest.raises(FileNotFoundError, match="does not exist; it must name parameters of zero intelligence"):
        ZeroIntelligenceFlow(1, str(tmp_path / "none.json"))


def test_a_day_that_cannot_be_fitted_says_what_it_lacks():
    day = load_day(BUNDLED_DAY)
    records, touch = day.records.copy(), day.touch.copy()
    records["price"] *= 2_000  # as with a tick that is stated 2,000 times too small
    touch[:, [0, 2]] *= 2_000
    with pytest.raises(ValueError, match=r"all rest \d+,000 ticks or more .* 1 to 1,024 ticks from it \(is the tick"):
        ZeroIntelligenceParameters.fit(replace(day, records=records, touch=touch))
    takers, cancels = day.records["filled"] > 0, day.records["kind"] == CANCEL
    for what, rows, field, value in (("takers", takers, "kind", PRINT), ("deletes", cancels, "max_rest", 1)):
        records = day.records.copy()
        records[field][rows] = value
        with pytest.raises(ValueError, match=f"recorded flow has no {what} in its training part; it must have some"):
            ZeroIntelligenceParameters.fit(replace(day, records=records))


def test_the_kernel_agrees_with_its_python_source():
    tables = lookup_tables(ZeroIntelligenceParameters())
    compiled, plain = np.zeros(200, EVENT), np.zeros(200, EVENT)
    arguments = (np.int64(3), np.uint64(2**63 + 5), np.uint32(9), np.int64(2**40), np.int64(10**15), *tables)
    end = _propose_row(compiled, *arguments)
    assert end == getattr(_propose_row, "py_func", _propose_row)(plain, *arguments)
    np.testing.assert_array_equal(compiled, plain)
    assert (np.diff(compiled["time_ns"]) >= 0).all()
    assert set(compiled["kind"]) == {LIMIT, MARKET, CANCEL}
