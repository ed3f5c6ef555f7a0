import numpy as np
import pytest
from small_tradefm import generated_day, write_checkpoint

from tradefm_gym.flow.placement import PLACEMENT_WIDTH, STREAM_STATE, calibrate_placement, place
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import BUY, LIMIT, SELL, EventBlock
from tradefm_gym.market.features import day_features
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.tokenizer import TradeTokenizer

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


def placed(book, side, low, high, drawn, shares, improve=(0, 0, 0, 0), first=0.5, second=0.5, spread=10) -> int:
    everything = np.array([*shares, *improve, spread], np.float64)
    return place(book, 0, side, float(low), float(high), drawn, everything, first, second)


def test_unknown_shares_leave_the_draw_alone(book):
    assert placed(book, BUY, 90, 120, 107, (-1, -1, -1, -1)) == 107


def test_a_bin_over_the_opposite_touch_crosses_as_often_as_calibrated(book):
    for share, first, crosses in ((0.9, 0.89, True), (0.9, 0.91, False)):
        price = placed(book, BUY, 104, 113, 106, (share, 0, 0, 0), first=first)
        assert (price >= 110) == crosses
        price = placed(book, SELL, 98, 106, 104, (share, 0, 0, 0), first=first)
        assert (price <= 100) == crosses


def test_a_draw_beyond_the_touch_stays_there_if_it_crosses_and_stops_before_it_if_not(book):
    always = (1, 1, 1, 1)
    assert placed(book, BUY, 104, 118, 114, (1, 1, 0, 0)) == 114
    assert placed(book, BUY, 104, 118, 114, (0, 0, 0, 0), always) == 109
    assert placed(book, SELL, 90, 104, 94, (0, 0, 0, 0), always) == 101
    assert placed(book, BUY, 113, 118, 114, (0, 0, 0, 0)) == 114  # nothing of the bin could rest


def test_joining_takes_the_touch_or_the_nearest_price_of_the_own_side(book):
    assert placed(book, BUY, 94, 101, 96, (0, 0, 1, 1)) == 100
    assert placed(book, BUY, 94, 101, 96, (0, 0, 1, 0)) in (95, 97)
    assert placed(book, BUY, 94, 99, 98, (0, 0, 1, 1)) == 97  # the touch is not in the bin
    assert placed(book, SELL, 109, 116, 113, (0, 0, 1, 0)) == 112
    assert placed(book, BUY, 94, 101, 96, (0, 0, 0.3, 1), second=0.31) == 96


@pytest.mark.parametrize(("usual", "bucket"), [(20, 0), (19, 1), (10, 1), (9, 2), (5, 2), (4, 3)])
def test_improving_depends_on_the_spread(book, usual, bucket):
    improve = [0.0, 0.0, 0.0, 0.0]
    improve[bucket] = 0.6
    for second, improves in ((0.59, True), (0.61, False)):
        price = placed(book, BUY, 98, 108, 106, (0, 0, 0, 0), improve, second=second, spread=usual)
        assert price == (106 if improves else 100)
    price = placed(book, SELL, 102, 108, 104, (0, 0, 0, 0), improve, second=0.61, spread=usual)
    assert price == 110  # a bin inside the spread leaves nothing but the touch


def test_an_empty_bin_keeps_the_draw(book):
    assert placed(book, BUY, 80, 90, 85, (1, 1, 1, 1)) == 85
    assert placed(book, BUY, 103.2, 103.4, 103, (1, 1, 1, 1)) == 103  # narrower than a tick


def test_shares_and_start_states_of_a_generated_day(tmp_path):
    """Zero intelligence recorded as a day: warm-up from it must stand where the record stands."""
    tokenizer = TradeTokenizer.load(write_checkpoint(tmp_path / "small"))
    day = generated_day(6_000)
    part = range(day.opening, len(day) // 2)
    features, index, _ = day_features(day.records, part, 100.0)
    shares = calibrate_placement(day, part, features, index, tokenizer.depth_edges, 2.0)
    assert len(shares) == PLACEMENT_WIDTH and shares[-1] == 2.0
    assert all(0 < share < 1 for share in shares[:-1])
    bank = recorded_bank(day, tokenizer.depth_edges, contexts=(6, 2, 2))
    assert bank.feature_state.dtype == STREAM_STATE
    assert (np.diff(bank.feature_state["stream"]["event_ns"][bank.split_code == 0]) >= 0).all()
    for context in range(len(bank)):
        tail = bank.state(context).records
        assert bank.feature_state[context]["stream"]["event_ns"] <= tail["time_ns"][0]
