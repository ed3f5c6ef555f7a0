import math
from dataclasses import replace

import numpy as np
import pytest
from small_tradefm import book_bank, generated_day, records_of_tokens, write_checkpoint

from tradefm_gym.flow.placement import (
    DEPTH,
    IMPROVE,
    JOIN,
    PLACEMENT_WIDTH,
    SPAN,
    SPREAD,
    SWEEP,
    TOUCH,
    WALK,
    _levels_of,
    calibrate_placement,
    density,
    place,
)
from tradefm_gym.flow.stream_state import STREAM_STATE, TABLES, stream_states
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import BUY, DROPPED, FILLED, LIMIT, MARKET, NO_LIMIT, RESTED, SELL, EventBlock
from tradefm_gym.market.features import day_features
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.tokenizer import TradeTokenizer, compose

BIDS, ASKS = (100, 97, 95), (110, 112, 115)


@pytest.fixture(scope="module")
def book():
    market = MarketSimulator(1)
    block = EventBlock.empty(1, 6)
    for i, (side, price) in enumerate([(BUY, p) for p in BIDS] + [(SELL, p) for p in ASKS]):
        order = block.events[0, i]
        order["kind"], order["side"], order["price"], order["size"], order["order_id"] = LIMIT, side, price, 5, i
    block.count[0] = 6
    market.feed(block)
    market.advance(until_count=np.array([6]))
    return market.book


def shares_of(cross=0.0, join=0.0, touch=0.0, improve=(0, 0, 0, 0), sweep=0.0, spread=10, walk=40):
    """Every bin crosses alike, but bin 15 of a buyer's count never does."""
    shares = np.zeros(PLACEMENT_WIDTH)
    shares[:15], shares[JOIN], shares[TOUCH], shares[SWEEP], shares[SPREAD] = cross, join, touch, sweep, spread
    shares[IMPROVE : IMPROVE + 4], shares[WALK] = improve, walk
    return shares


def decided(book, side, low, high, drawn, size=5, bin_=8, strength=1.0, first=0.5, second=0.5, **shares):
    everything = shares_of(**shares)
    return place(book, 0, side, bin_, float(low), float(high), drawn, size, everything, strength, first, second)


def placed(book, side, low, high, drawn, **others) -> int:
    price, max_rest = decided(book, side, low, high, drawn, **others)
    assert max_rest == NO_LIMIT
    return price


def test_unknown_shares_leave_the_draw_alone(book):
    assert place(book, 0, BUY, 8, 90.0, 120.0, 107, 5, np.full(PLACEMENT_WIDTH, -1.0), 1.0, 0.5, 0.5) == (107, NO_LIMIT)


def test_a_bin_crosses_as_often_as_calibrated_and_pays_the_touch(book):
    for first, crosses in ((0.89, True), (0.91, False)):
        for low, high, drawn in ((104, 113, 106), (104, 108, 106)):  # over the touch, and short of it
            assert (placed(book, BUY, low, high, drawn, cross=0.9, first=first) == 110) == crosses
        assert (placed(book, SELL, 98, 106, 104, cross=0.9, first=first) == 100) == crosses


def test_sellers_count_the_bins_from_the_other_end(book):
    assert placed(book, BUY, 104, 113, 106, cross=1.0, bin_=15) < 110
    assert placed(book, BUY, 104, 113, 106, cross=1.0, bin_=0) == 110
    assert placed(book, SELL, 98, 106, 104, cross=1.0, bin_=0) > 100
    assert placed(book, SELL, 98, 106, 104, cross=1.0, bin_=15) == 100


def test_a_draw_beyond_the_touch_stays_there_if_it_crosses_and_stops_before_it_if_not(book):
    assert placed(book, BUY, 104, 118, 114, cross=1.0) == 114
    assert placed(book, BUY, 99, 118, 114, improve=(1, 1, 1, 1)) == 109
    assert placed(book, SELL, 90, 112, 94, improve=(1, 1, 1, 1)) == 101
    assert placed(book, BUY, 113, 118, 114) == 114  # nothing of the bin could rest


def test_a_sweep_walks_the_book_and_leaves_nothing_resting(book):
    """Five lots rest at 110, 112 and 115, and at 100, 97 and 95."""
    for size, price in ((6, 112), (10, 112), (11, 115), (99, 115)):
        assert decided(book, BUY, 104, 111, 106, size, cross=1.0, sweep=1.0) == (price, 0)
    assert decided(book, BUY, 104, 118, 114, 6, cross=1.0, sweep=1.0) == (114, 0)  # drawn beyond what it needs
    assert decided(book, SELL, 94, 104, 103, 6, cross=1.0, sweep=1.0) == (97, 0)
    assert decided(book, BUY, 104, 118, 106, 5, cross=1.0, sweep=1.0) == (110, NO_LIMIT)  # the touch is enough
    assert decided(book, BUY, 111, 118, 113, 12, sweep=1.0) == (115, 0)  # all of the bin lies beyond the touch
    for first, outcome in ((0.44, (112, 0)), (0.46, (110, NO_LIMIT))):
        assert decided(book, BUY, 104, 118, 106, 6, cross=0.9, sweep=0.5, first=first) == outcome


def test_no_taker_goes_farther_than_the_longest_walk(book):
    assert decided(book, BUY, 104, 111, 106, 99, cross=1.0, sweep=1.0, walk=3) == (113, 0)
    assert decided(book, SELL, 94, 104, 103, 99, cross=1.0, sweep=1.0, walk=4) == (96, 0)
    assert placed(book, BUY, 104, 118, 116, cross=1.0, walk=2) == 112
    assert placed(book, SELL, 90, 104, 92, cross=1.0, walk=0) == 100


def test_density_counts_the_lots_near_the_mid():
    market = MarketSimulator(1)
    for away in range(1, 21):
        for side in (BUY, SELL):
            market.send(LIMIT, side, 1_000 - side * away, 5)
    shares = shares_of()
    shares[SPAN], shares[DEPTH] = 10.0, 50.0
    assert density(market.book, 0, 0, shares) == density(market.book, 0, 1, shares) == 0.0
    shares[DEPTH] = 100.0
    assert density(market.book, 0, 0, shares) == pytest.approx(-math.log(2))
    market.send(LIMIT, BUY, 999, 200)
    assert density(market.book, 0, 0, shares) == pytest.approx(math.log(2.5))
    market.send(MARKET, BUY, 0, 10_000)  # no asks, no mid
    assert density(market.book, 0, 0, shares) == -1.0
    assert density(market.book, 0, 0, np.full(PLACEMENT_WIDTH, -1.0)) == 0.0


def test_strength_multiplies_the_odds_of_crossing(book):
    """Odds of 1 to 1 times 3: three of four cross."""
    for first, crosses in ((0.74, True), (0.76, False)):
        price = placed(book, BUY, 104, 108, 106, cross=0.5, strength=3.0, first=first)
        assert (price == 110) == crosses


@pytest.mark.parametrize("deep", [True, False])
def test_generated_takers_of_more_than_the_touch_rest_as_often_as_calibrated(tmp_path, deep):
    """Eight of ten of these orders cross; three of ten of those leave nothing resting, whatever the book holds."""
    away = (8, 30, 50) if deep else (8,)  # basis points and ticks; the touches lie in bins 6 and 9, the others do not
    orders = [(side, 10_000 - side * ticks, 40) for ticks in away for side in (BUY, SELL)]
    placement = tuple(shares_of(cross=0.8, sweep=0.3, walk=100).tolist())
    flow = TradeFMFlow(write_checkpoint(tmp_path / "small"), 64, bank=book_bank(orders, 100.0, placement))
    sides = np.arange(64) % 2
    tokens = compose(0, sides, np.where(sides, 6, 9), 4, 0)  # 61 to 81 lots
    records = np.concatenate([records_of_tokens(flow, tokens, episode) for episode in range(16)])
    assert records["size"].min() > 60 and records["size"].max() < 82
    takers = records[records["filled"] > 0]
    assert len(takers) / len(records) == pytest.approx(0.8, abs=0.05)
    gone = takers[takers["status"] != RESTED]
    assert len(gone) / len(takers) == pytest.approx(0.3, abs=0.05)
    # It walks the book as far as its size asks; what the book does not have is dropped.
    assert (gone["status"] == (FILLED if deep else DROPPED)).all()
    assert (gone["filled"] == (gone["size"] if deep else 40)).all()
    assert (takers["filled"][takers["status"] == RESTED] == 40).all()


def test_joining_takes_the_touch_or_the_nearest_price_of_the_own_side(book):
    assert placed(book, BUY, 94, 101, 96, join=1.0, touch=1.0) == 100
    assert placed(book, BUY, 94, 101, 96, join=1.0) in (95, 97)
    assert placed(book, BUY, 94, 99, 98, join=1.0, touch=1.0) == 97  # the touch is not in the bin
    assert placed(book, SELL, 109, 116, 113, join=1.0) == 112
    assert placed(book, BUY, 94, 101, 96, join=0.3, touch=1.0, second=0.31) == 96


@pytest.mark.parametrize(("usual", "bucket"), [(20, 0), (19, 1), (10, 1), (9, 2), (5, 2), (4, 3)])
def test_improving_depends_on_the_spread(book, usual, bucket):
    improve = [0.0, 0.0, 0.0, 0.0]
    improve[bucket] = 0.6
    for second, improves in ((0.59, True), (0.61, False)):
        price = placed(book, BUY, 98, 108, 106, improve=improve, second=second, spread=usual)
        assert price == (106 if improves else 100)
    # A bin inside the spread: in a narrow one as often as calibrated, else at its own touch; in a wide one always.
    inside = placed(book, SELL, 102, 108, 104, improve=improve, second=0.61, spread=usual)
    assert inside == (110 if bucket < 2 else 104)


def test_an_empty_bin_keeps_the_draw(book):
    assert placed(book, BUY, 80, 90, 85, join=1.0, touch=1.0) == 85
    assert placed(book, BUY, 103.2, 103.4, 103, cross=1.0) == 103  # narrower than a tick


def test_shares_and_start_states_of_a_generated_day(tmp_path):
    """Zero intelligence recorded as a day: warm-up from it must stand where the record stands."""
    tokenizer = TradeTokenizer.load(write_checkpoint(tmp_path / "small"))
    day = generated_day(6_000)
    part = range(day.opening, len(day) // 2)
    features, index, _ = day_features(day.records, part, 100.0)
    shares = calibrate_placement(day, part, features, index, tokenizer.depth_edges, 2.0)
    assert (
        len(shares) == PLACEMENT_WIDTH
        and shares[SPREAD] == 2.0
        and shares[WALK] >= 0
        and shares[SPAN] >= 0
        and shares[DEPTH] >= 0
    )
    assert all(0 < share < 1 for share in shares[JOIN:SPREAD])
    assert all(0 <= share <= 1 for share in shares[:JOIN])
    assert max(shares[:6]) == 0.0 and min(shares[10:16]) == 1.0  # deep orders rest, orders beyond the touch cross
    bank = recorded_bank(day, tokenizer, contexts=(6, 2, 2))
    assert bank.feature_state.dtype == STREAM_STATE
    assert (np.diff(bank.feature_state["stream"]["event_ns"][bank.split_code == 0]) >= 0).all()
    for context in range(len(bank)):
        tail = bank.state(context).records
        assert bank.feature_state[context]["stream"]["event_ns"] <= tail["time_ns"][0]


def test_a_day_whose_file_shows_the_touch_only_is_calibrated(tmp_path):
    """How far a side usually reaches is not to be seen there: nothing is said of its density."""
    tokenizer, day = TradeTokenizer.load(write_checkpoint(tmp_path / "small")), generated_day(3_000)
    prices, sizes = _levels_of(day, len(day.records))
    book = np.stack([prices[:, 0], sizes[:, 0], prices[:, 1], sizes[:, 1]], axis=2)
    part = range(day.opening, len(day) // 2)
    features, index, _ = day_features(day.records, part, 100.0)
    found = [
        calibrate_placement(replace(day, book=some), part, features, index, tokenizer.depth_edges, 2.0)
        for some in (None, book, book[:, :1])
    ]
    assert found[0] == found[1]
    assert found[2][SPAN] == found[2][DEPTH] == 0.0 and all(0 < share < 1 for share in found[2][JOIN:SPREAD])


def test_banks_tell_what_lies_inside_the_bins_and_flows_read_it(tmp_path):
    folder = write_checkpoint(tmp_path / "small")
    tokenizer, day = TradeTokenizer.load(folder), generated_day(6_000)
    bank = recorded_bank(day, tokenizer, contexts=(2, 1, 1))
    tables = bank.feature_state["tables"]
    assert (
        tables.shape == (len(bank), *TABLES) and (tables == tables[0]).all() and (tables[0] != tokenizer.tables).any()
    )
    flow = TradeFMFlow(folder, 2, bank=bank)
    unknown = replace(bank, feature_state=stream_states(bank.feature_state["stream"]))
    for bank_, expected in ((bank, tables[0]), (unknown, tokenizer.tables)):
        flow.bank = bank_
        flow._starts.clear()
        market = MarketSimulator(2, flow.market_config(1))
        flow.reset(market, np.ones(2, bool), np.arange(2), np.arange(2, dtype=np.uint64), np.zeros(2, np.uint32))
        np.testing.assert_array_equal(flow.feature_state(1)["tables"], expected)
        np.testing.assert_array_equal(flow._decoding.tables[1], expected)
