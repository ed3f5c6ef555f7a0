from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, CANCEL, INSIDE, LIMIT, MID, OPPOSITE, REJECTED, SELL, TOUCH


def test_at_the_touch_and_away_from_the_opposite_one():
    pair = Pair().rest((BUY, 100, 5), (SELL, 106, 5))
    assert pair.send(LIMIT, BUY, 0, 1, 2, anchor=TOUCH)["price"] == 100
    assert pair.send(LIMIT, SELL, -2, 1, 3, anchor=TOUCH)["price"] == 108
    assert pair.send(LIMIT, BUY, 2, 1, 4, anchor=OPPOSITE)["price"] == 104
    assert pair.send(LIMIT, SELL, 0, 1, 5, anchor=OPPOSITE)["filled"] == 1


def test_at_the_mid_rounded_away_from_the_spread():
    pair = Pair().rest((BUY, 100, 5), (SELL, 105, 5))
    assert pair.send(LIMIT, BUY, -1, 1, 2, anchor=MID)["price"] == 101
    pair.send(CANCEL, order_id=2)
    assert pair.send(LIMIT, SELL, 0, 1, 3, anchor=MID)["price"] == 103
    pair.send(CANCEL, order_id=3)
    assert pair.send(LIMIT, BUY, 3, 5, 4, anchor=MID)["filled"] == 5, "beyond the mid far enough it crosses"


def test_inside_by_a_share_of_the_spread_and_never_across():
    pair = Pair().rest((BUY, 100, 5), (SELL, 105, 5))  # ticks 101 to 104 lie inside
    for share, price in ((0, 101), (16_383, 101), (16_384, 102), (32_768, 103), (65_535, 104), (2**30, 104), (-1, 101)):
        assert pair.send(LIMIT, BUY, share, 1, 2, anchor=INSIDE)["price"] == price
        pair.send(CANCEL, order_id=2)
        assert pair.send(LIMIT, SELL, share, 1, 2, anchor=INSIDE)["price"] == 205 - price
        pair.send(CANCEL, order_id=2)
    pair.send(LIMIT, SELL, 101, 5, 3)
    assert pair.send(LIMIT, BUY, 40_000, 1, 4, anchor=INSIDE)["price"] == 100, "there is no room: it joins the touch"
    assert pair.send(LIMIT, SELL, 40_000, 1, 5, anchor=INSIDE)["price"] == 101


def test_without_any_price_there_is_nothing_to_hold_on_to():
    pair = Pair()
    for anchor in (TOUCH, OPPOSITE, MID, INSIDE):
        assert pair.send(LIMIT, BUY, 0, 1, 0, anchor=anchor)["status"] == REJECTED
    pair.rest((BUY, 100, 1), (SELL, 103, 1))
    pair.send(CANCEL, order_id=0)
    pair.send(CANCEL, order_id=1)
    assert pair.send(LIMIT, BUY, 0, 1, 0, anchor=MID)["price"] == 101, "the last mid stands for an empty book"


@agreed
@given(among_limits(orders(LIMIT, anchors=(1, 2, 3, 4, 4)), orders(CANCEL)))
def test_anchored_orders_equal_the_reference(sequence):
    play(sequence)
