"""Codes of raw events: proper distributions, and comparable between tokenizers."""

from dataclasses import replace

import numpy as np
import pytest
from small_tradefm import even_bank

from tradefm_gym.data.recorded import FlowMeta, RecordedFlow
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, LIMIT, RECORD, SELL
from tradefm_gym.market.features import FEATURES, MID_TOUCH, touch_place
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.encoded_day import TOKEN, EncodedDay
from tradefm_gym.realism.tokenizer_drift import quarters
from tradefm_gym.realism.within_bins import plain_share, time_unit, within_bins, within_nats

META = FlowMeta("ZERO", "made up", "2026-01-01", 1, "tick", 1, "lot", True, (0, 10**15), "a test")


@pytest.fixture(scope="module")
def day():
    """Zero intelligence, written down."""
    flow = ZeroIntelligenceFlow(1, bank=even_bank())
    market = MarketSimulator(1, flow.market_config())
    flow.reset(market, np.ones(1, bool), np.zeros(1, np.int64), np.ones(1, np.uint64), np.zeros(1, np.uint32))
    recorder = DayRecorder(market)
    while (starved := market.advance(until_count=np.array([2_000]))).any():
        market.feed(flow.next_events(market, starved))
    recorder.collect()
    return recorder.finish(META)


def shipped(model):
    return TradeTokenizer.load(checkpoint(model)[0])


def ladder(tokenizer, day, values, field):
    """A day of one event over and over, of which one raw value changes: ``price``, ``size`` or ``time``."""
    like = EncodedDay.of(day, tokenizer)
    records = np.zeros(len(values), RECORD)
    records["kind"], records["side"], records["price"], records["size"] = LIMIT, BUY, 990, 3
    records["mid2"], records["spread"] = 2_000, 14  # the touch is 993 and 1,007
    features = np.zeros(len(values), FEATURES)
    seconds = np.full(len(values), 0.01)
    if field == "time":
        seconds = np.asarray(values) * 1e-9
    else:
        records[field] = values
    features["mid"], features["valid"], features["seconds"] = 1_000.0, 1, seconds
    features["volume"] = np.log1p(records["size"] / like.calibration.median_size)
    prices = records["price"]
    if tokenizer.mid_mode == MID_TOUCH:
        features["depth"] = [touch_place(price, BUY, 993.0, 1_007.0) for price in prices]
    else:
        features["depth"] = 1e4 * (prices - 1_000.0) / 1_000.0
    flow = RecordedFlow(records, 0, np.zeros((len(values), 4), np.int32), day.fills[:0], None, records["price"], META)
    inputs = tokenizer.encode(features)
    return replace(like, features=features, index=np.arange(len(values)), inputs=inputs), flow


@pytest.mark.parametrize("model", ["mini-1", "mini-2"])
@pytest.mark.parametrize("field", ["price", "size", "time"])
def test_chances_of_the_raw_values_of_a_bin_sum_to_one(model, field, day):
    tokenizer = shipped(model)
    values = {"price": np.arange(1, 4_000), "size": np.arange(1, 4_000), "time": np.arange(0, 40_000)}[field]
    encoded, flow = ladder(tokenizer, day, values, field)
    flow.records["time_ns"] = np.arange(len(values))
    chances, known = within_bins(encoded, flow)
    assert known[1:].all() and not known[0]
    digit = (encoded.inputs[:, TOKEN] >> {"price": 8, "size": 4, "time": 0}[field]) & 15
    # Of the last bin that was reached, and of open ones, some values were not tried.
    left_out = (0, 15) if field == "price" else (digit[-1],)
    whole = [b for b in np.unique(digit) if b not in left_out]
    assert len(whole) >= 3
    for b in whole:
        for kind in chances[field]:
            assert kind[digit == b].sum() == pytest.approx(1.0, abs=1e-9), b
    for b in np.unique(digit):
        assert all(kind[digit == b].sum() <= 1 + 1e-9 for kind in chances[field])


def test_open_bins_hold_nearly_all_of_what_they_may(day):
    encoded, flow = ladder(shipped("mini-2"), day, np.arange(1_008, 60_000), "price")
    chances, _ = within_bins(encoded, flow)
    beyond = ((encoded.inputs[:, TOKEN] >> 8) & 15) == 0
    assert beyond.all() and all(0.99 < kind.sum() <= 1 for kind in chances["price"])


def test_a_share_is_chosen_that_codes_well_and_costs_are_finite(day):
    codes = {}
    for model in ("mini-1", "mini-2"):
        encoded = EncodedDay.of(day, shipped(model))
        chances, known = within_bins(encoded, day)
        for name, one in chances.items():
            share = plain_share(one, known)
            nats = within_nats(one, share)[known]
            assert np.isfinite(nats).all() and (nats > -1e-9).all()
            assert nats.mean() <= min(within_nats(one, s)[known].mean() for s in (0.01, 0.9)) + 1e-12
            codes[model, name] = nats.mean()
    assert codes["mini-1", "size"] == codes["mini-2", "size"]  # whose edges are the same
    assert codes["mini-1", "price"] != codes["mini-2", "price"]


def test_the_unit_of_time_is_that_of_the_feed(day):
    records = day.records.copy()
    records["time_ns"] = np.arange(len(records)) * 10_000_000
    assert time_unit(replace(day, records=records)) == 10_000_000


def test_quarters_are_of_the_time_of_the_day(day):
    encoded = EncodedDay.of(day, shipped("mini-2"))
    quarter = quarters(encoded)
    time = encoded.features["time_ns"]
    assert quarter[0] == 0 and quarter[-1] == 3 and (np.diff(quarter) >= 0).all()
    middle = (time[-1] + time[0]) / 2
    assert (time[quarter < 2] < middle).all() and (time[quarter >= 2] >= middle - 1).all()


def test_a_sell_is_coded_as_the_buy_in_the_mirror(day):
    tokenizer = shipped("mini-2")
    buys, flow = ladder(tokenizer, day, np.arange(900, 1_100), "price")
    sells = flow.records.copy()
    sells["side"], sells["price"] = SELL, 2_000 - sells["price"]
    features = buys.features.copy()
    features["side"], features["depth"] = 1, [touch_place(price, SELL, 993.0, 1_007.0) for price in sells["price"]]
    mirrored = replace(buys, features=features, inputs=tokenizer.encode(features))
    first, second = within_bins(buys, flow)[0], within_bins(mirrored, replace(flow, records=sells))[0]
    np.testing.assert_allclose(first["price"].decoder, second["price"].decoder)
    np.testing.assert_allclose(first["price"].plain, second["price"].plain)
