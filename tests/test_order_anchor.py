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


def test_inside_the_spread_never_across_and_never_behind():
    pair = Pair().rest((BUY, 100, 5), (SELL, 105, 5))
    for ticks, price in ((1, 104), (3, 102), (4, 101), (5, 100), (6, 100), (99, 100), (0, 104), (-7, 104)):
        assert pair.send(LIMIT, BUY, ticks, 1, 2, anchor=INSIDE)["price"] == price
        pair.send(CANCEL, order_id=2)
        assert pair.send(LIMIT, SELL, ticks, 1, 2, anchor=INSIDE)["price"] == 205 - price
        pair.send(CANCEL, order_id=2)
    pair.send(LIMIT, SELL, 101, 5, 3)
    assert pair.send(LIMIT, BUY, 1, 1, 4, anchor=INSIDE)["price"] == 100, "there is no room: it joins the touch"
    assert pair.send(LIMIT, SELL, 1, 1, 5, anchor=INSIDE)["price"] == 101
    pair = Pair().rest((BUY, 100, 5))
    assert pair.send(LIMIT, BUY, 3, 1, 2, anchor=INSIDE)["price"] == 100, "of one side alone its own best is known"
    assert pair.send(LIMIT, SELL, 3, 1, 3, anchor=INSIDE)["price"] == 103


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
