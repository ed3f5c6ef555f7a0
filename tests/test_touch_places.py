"""Prices as places relative to the touch, and what a model is told of the book."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tradefm import SHARES, book_bank, everyone, records_of_tokens
from test_features import random_records

from tradefm_gym.flow.placement import CLEAR, SPAN, SWEEP, place_by_touch, usual_touch
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.market.events import BUY, CANCEL, CANCELLED, LIMIT, NO_LIMIT, SELL
from tradefm_gym.market.features import (
    BEHIND,
    EMPTY_SIZE,
    MID_TOUCH,
    OWN_TOUCH,
    new_state,
    observe,
    price_at,
    prices_of,
    size_code,
    size_codes,
    touch_place,
)
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.config import PRESETS, random_weights, save_checkpoint
from tradefm_gym.model.token_events import mirror
from tradefm_gym.model.tokenizer import TradeTokenizer, compose

SIDES = st.sampled_from([BUY, SELL])


@settings(deadline=None)  # the first call compiles
@given(side=SIDES, price=st.integers(1, 20_000), bid=st.integers(1, 19_000), spread=st.integers(1, 500))
def test_a_place_names_one_price(side, price, bid, spread):
    place = touch_place(price, side, float(bid), float(bid + spread))
    assert 0.0 <= place < 16.0
    assert price_at(place, side, float(bid), float(bid + spread)) == price


@settings(deadline=None)  # the first call compiles
@given(side=SIDES, price=st.integers(1, 5_000), bid=st.integers(1, 4_000), spread=st.integers(1, 100))
def test_both_sides_count_alike(side, price, bid, spread):
    place = touch_place(price, side, float(bid), float(bid + spread))
    mirrored = touch_place(10_000 - price, -side, float(10_000 - bid - spread), float(10_000 - bid))
    assert place == mirrored


@settings(deadline=None)  # the first call compiles
@given(side=SIDES, behind=st.integers(0, 2_000))
def test_the_prices_of_a_digit_are_those_that_it_names(side, behind):
    bid, ask = 10_000.0, 10_007.0
    price = (bid if side == BUY else ask) - side * behind
    digit = int(touch_place(price, side, bid, ask))
    low, high = prices_of(digit, side, bid, ask)
    assert digit == OWN_TOUCH if behind == 0 else digit >= BEHIND
    assert low <= price <= high
    assert int(touch_place(low, side, bid, ask)) == digit == int(touch_place(high, side, bid, ask)) or digit == 15


@pytest.mark.parametrize(("price", "digit"), [(100, 6), (101, 5), (103, 4), (106, 3), (108, 2), (110, 1), (111, 0)])
def test_places_at_and_before_the_touch(price, digit):
    assert int(touch_place(price, BUY, 100.0, 110.0)) == digit


@settings(deadline=None)  # the first call compiles
@given(lots=st.integers(0, 2**31 - 1))
def test_size_codes_are_eighths_of_octaves(lots):
    code = size_code(lots)
    assert code == size_codes(np.array([lots]))[0]
    if lots == 0:
        assert code == 0
    else:
        octave, eighth = divmod(code - 1, 8)
        assert 2**octave * (1 + eighth / 8) <= lots < 2**octave * (1 + (eighth + 1) / 8)


def touched_records(seed: int, count: int = 3_000):
    """Random records that tell a touch."""
    records, rng = random_records(seed, count), np.random.default_rng(seed + 100)
    records["spread"] = 2 * rng.integers(1, 12, count) + records["mid2"] % 2
    records["bid_size"], records["ask_size"] = rng.integers(0, 90, (2, count))
    return records


@pytest.fixture(scope="module")
def tokenizer():
    features = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=MID_TOUCH, usual_spread=8.0), touched_records(0))[0]
    return TradeTokenizer.calibrate([features], "touch", pressure=True, book=True)


@pytest.fixture(scope="module", name="model")
def _model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("touch") / "small"
    config = replace(PRESETS["test"], **tokenizer.told)
    save_checkpoint(folder, config, random_weights(config, 1))
    tokenizer.save(folder / "tokenizer.json")
    return folder


def test_features_tell_the_book_after_the_event():
    records = touched_records(3, 50)
    records["kind"], records["status"], records["owner"] = LIMIT, 1, -1
    features, _ = observe(new_state(1, 128.0, mid_mode=MID_TOUCH, usual_spread=4.0), records)
    assert np.array_equal(features["spread"], records["spread"])
    np.testing.assert_allclose(features["wide"], np.log2(records["spread"] / 4.0))
    known = records["bid_size"] > 0
    np.testing.assert_allclose(features["bid"][known], (records["bid_size"][known] - 1.0) / 8 - 7.0)
    assert (features["bid"][~known] == EMPTY_SIZE).all()


def test_inputs_lie_within_the_sizes_of_the_network(tokenizer):
    features = observe(new_state(1, 100.0, (0.1, 1.0), mid_mode=MID_TOUCH, usual_spread=8.0), touched_records(5))[0]
    inputs = tokenizer.encode(features)
    config = replace(PRESETS["test"], **tokenizer.told)
    assert (inputs >= 0).all() and (inputs < np.array(config.input_sizes)).all()
    assert config.input_sizes[:3] == (48, 98, 512)


def test_a_mirrored_day_is_the_mirror_image(tokenizer):
    records = touched_records(7)
    mirrored = records.copy()
    mirrored["side"] = -records["side"]
    mirrored["price"], mirrored["mid2"] = 30_000 - records["price"], 60_000 - records["mid2"]
    mirrored["bid_size"], mirrored["ask_size"] = records["ask_size"], records["bid_size"]
    mirrored["notional"] = 30_000 * records["filled"].astype(np.int64) - records["notional"]
    state = new_state(1, 100.0, (0.1, 1.0), mid_mode=MID_TOUCH, usual_spread=8.0)
    ours, theirs = observe(state.copy(), records)[0], observe(state.copy(), mirrored)[0]
    assert np.array_equal(tokenizer.encode(mirror(ours, tokenizer.mid)), tokenizer.encode(theirs))


@pytest.mark.parametrize(("side", "digit", "price"), [(0, 6, 99), (1, 6, 107), (0, 7, 98), (1, 5, 106), (0, 1, 107)])
def test_a_token_becomes_an_order_at_its_place(model, side, digit, price):
    bank = book_bank([(BUY, 99, 50), (SELL, 107, 50), (BUY, 97, 20), (SELL, 110, 20)])
    flow = TradeFMFlow(model, 1, bank=bank, deterministic=True)
    record = records_of_tokens(flow, [compose(0, side, digit, 4, 8)])[0]
    assert record["price"] == price and record["kind"] == LIMIT
    assert (record["filled"] > 0) == (digit == 1)


def test_a_cancel_takes_an_order_of_its_place(model):
    bank = book_bank([(BUY, 99, 50), (SELL, 107, 50), (BUY, 97, 20), (SELL, 110, 20), (SELL, 111, 30)])
    flow = TradeFMFlow(model, 1, bank=bank, deterministic=True)
    record = records_of_tokens(flow, [compose(1, 1, 9, 4, 8)])[0]  # 3 to 4 ticks behind the best ask
    assert record["kind"] == CANCEL and record["status"] == CANCELLED and record["price"] in (110, 111)


def test_the_tape_tells_what_the_model_is_told(model):
    bank = book_bank([(side, 1_000 - side * away, 40) for away in range(2, 30) for side in (BUY, SELL)])
    flow = TradeFMFlow(model, 2, bank=bank)
    market = MarketSimulator(2, flow.market_config())
    flow.reset(market, everyone(2), np.zeros(2, np.int64), np.arange(2).astype(np.uint64), np.zeros(2, np.uint32))
    for target in range(1, 200):
        while (starved := market.advance(until_count=np.full(2, target))).any():
            market.feed(flow.next_events(market, starved))
        prices, sizes = market.depth(1)
        for row in range(2):
            record = market.tape.read_records(row)[-1]
            both = (sizes[row, :, 0] > 0).all()
            assert record["spread"] == (prices[row, 1, 0] - prices[row, 0, 0] if both else 0)
            assert (record["bid_size"], record["ask_size"]) == tuple(size_codes(sizes[row, :, 0]))


def test_a_network_for_another_book_is_refused(tmp_path, tokenizer):
    config = replace(PRESETS["test"], pressures=tokenizer.pressures)
    save_checkpoint(tmp_path / "other", config, random_weights(config, 0))
    tokenizer.save(tmp_path / "other" / "tokenizer.json")
    with pytest.raises(ValueError, match="spreads are 16 and a network of 1"):
        TradeFMFlow(tmp_path / "other")


def test_a_taker_of_about_what_the_touch_shows_takes_just_that_as_often_as_calibrated():
    market = MarketSimulator(1)
    for order_id, (side, price, size) in enumerate([(BUY, 99, 50), (SELL, 107, 50), (SELL, 108, 90)]):
        market.send(LIMIT, side, price, size, order_id)
    shares = np.array(SHARES)
    shares[SWEEP] = 0.0
    cases = ((0.6, 40, 0.59, 50), (0.6, 40, 0.61, 40), (0.6, 70, 0.0, 50), (1.0, 20, 0.0, 20))
    for clear, drawn, uniform, size in cases:
        shares[CLEAR] = clear
        taken = place_by_touch(market.book, 0, BUY, 1, 107.0, 107.0, 107, drawn, shares, 10.0, 0.0, 0.9, uniform)
        assert taken == (107, size, NO_LIMIT)


@pytest.mark.parametrize(("drawn", "uniform", "size"), [(400, 0.69, 50), (400, 0.71, 400), (20, 0.0, 20)])
def test_a_taker_of_more_than_the_touch_shows_takes_just_that_as_often_as_its_habits_say(drawn, uniform, size):
    market = MarketSimulator(1)
    for order_id, (side, price, lots) in enumerate([(BUY, 99, 50), (SELL, 107, 50), (SELL, 108, 900)]):
        market.send(LIMIT, side, price, lots, order_id)
    shares = np.array(SHARES)
    shares[SWEEP] = shares[CLEAR] = 0.0
    taken = place_by_touch(market.book, 0, BUY, 1, 107.0, 107.0, 107, drawn, shares, 10.0, 0.7, 0.9, uniform)
    assert taken == (107, size, NO_LIMIT)


@pytest.mark.parametrize(("behind", "trimmed", "size"), [(131, 0.7, 50), (148, 0.7, 49), (148, 0.0, 50)])
def test_with_habits_the_last_lot_before_a_hole_is_left(behind, trimmed, size):
    """The tenth level usually lies 40 ticks from the mid."""
    market, shares = MarketSimulator(1), np.array(SHARES)
    for order_id, (side, price, lots) in enumerate([(BUY, 99, 50), (SELL, 107, 50), (SELL, behind, 900)]):
        market.send(LIMIT, side, price, lots, order_id)
    shares[SWEEP], shares[CLEAR], shares[SPAN] = 0.0, 1.0, 40.0
    taken = place_by_touch(market.book, 0, BUY, 1, 107.0, 107.0, 107, 45, shares, 10.0, trimmed, 0.9, 0.0)
    assert taken == (107, size, NO_LIMIT)


@pytest.mark.parametrize(("away", "usual"), [(8 * 40, 8 * 40), (8 * 40 + 1, 8)])
@pytest.mark.parametrize("side", [BUY, SELL])
def test_what_is_left_of_a_book_that_gapes_is_no_touch(side, away, usual):
    """Beyond 40 usual spreads of 8 ticks, where 1,001 was paid last."""
    market, state = MarketSimulator(1), new_state(1, 10.0, mid_mode=MID_TOUCH, usual_spread=8.0)[0]
    for order_id, (own, price) in enumerate([(side, 1_000), (-side, 1_000 + side * away)]):
        market.send(LIMIT, own, price, 50, order_id)
    assert usual_touch(market.book, 0, state, 10.0) == tuple(sorted((1_000, 1_000 + side * away)))  # nothing paid yet
    state["value"], state["weight"] = 1_001.0 * 7.0, 7.0
    assert usual_touch(market.book, 0, state, 10.0) == tuple(sorted((1_000, 1_000 + side * usual)))


@pytest.mark.parametrize("episode", range(4))
def test_a_cancel_whose_place_is_empty_goes_behind_the_touch_and_not_to_it(model, episode):
    bank = book_bank([(BUY, 99, 50), (SELL, 107, 40), (BUY, 97, 20), (SELL, 130, 20), (SELL, 131, 30)])
    record = records_of_tokens(TradeFMFlow(model, 1, bank=bank), [compose(1, 1, 7, 4, 8)], episode)[0]
    assert record["kind"] == CANCEL and record["status"] == CANCELLED and record["price"] in (130, 131)


def test_agents_make_a_touch_once_they_show_a_median_order(model):
    """A buyer at the touch joins the background's, not an agent's lot before it, but does join ten of them."""
    bank = book_bank([(BUY, 99, 50), (SELL, 107, 40), (BUY, 97, 20), (SELL, 130, 20)], median_size=10.0)
    for lots, price in ((9, 99), (10, 101)):
        flow = TradeFMFlow(model, 1, bank=bank)
        market = MarketSimulator(1, flow.market_config(2))
        flow.reset(market, np.ones(1, bool), np.zeros(1, np.int64), np.zeros(1, np.uint64), np.zeros(1, np.uint32))
        market.send(LIMIT, BUY, 102, lots - 5, 0, owner=0)  # both agents together
        market.send(LIMIT, BUY, 101, 5, 0, owner=1)
        assert usual_touch(market.book, 0, flow.feature_state(0)["stream"], 10.0) == (price, 107)


def test_a_taker_pays_the_touch_behind_an_agent_s_lot():
    market = MarketSimulator(1)
    market.send(LIMIT, SELL, 107, 50, 0)
    market.send(LIMIT, SELL, 104, 3, 0, owner=0)
    shares = np.array(SHARES)
    shares[SWEEP], shares[CLEAR] = 0.0, 1.0
    taken = place_by_touch(market.book, 0, BUY, 1, 107.0, 107.0, 107, 40, shares, 10.0, 0.0, 0.9, 0.5)
    assert taken == (107, 50, NO_LIMIT)
