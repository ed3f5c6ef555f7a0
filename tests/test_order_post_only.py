from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, POST_ONLY, POST_ONLY_SLIDE, REJECTED, RESTED, SELL


def test_it_is_refused_where_it_would_trade():
    pair = Pair().rest((SELL, 100, 5), (BUY, 97, 5))
    assert pair.send(POST_ONLY, BUY, 100, 5, 2)["status"] == REJECTED
    assert pair.send(POST_ONLY, SELL, 97, 5, 2)["status"] == REJECTED
    assert pair.send(POST_ONLY, BUY, 99, 5, 2)["status"] == RESTED
    assert pair.fills() == [] and pair.levels() == [[(99, 5), (97, 5)], [(100, 5)]]


def test_it_slides_to_the_best_price_that_does_not_trade():
    pair = Pair().rest((SELL, 100, 5), (BUY, 97, 5))
    assert pair.send(POST_ONLY_SLIDE, BUY, 105, 5, 2)["price"] == 99
    assert pair.send(POST_ONLY_SLIDE, SELL, 1, 5, 3)["price"] == 100
    assert pair.send(POST_ONLY_SLIDE, BUY, 98, 5, 4)["price"] == 98, "one that does not cross stays where it is"
    assert pair.ahead(3) == 5 and pair.fills() == []


def test_there_has_to_be_such_a_price():
    pair = Pair().rest((SELL, 1, 5))
    assert pair.send(POST_ONLY_SLIDE, BUY, 3, 5, 1)["status"] == REJECTED
    pair = Pair(tick=5).rest((SELL, 100, 5))
    assert pair.send(POST_ONLY_SLIDE, BUY, 110, 5, 1)["price"] == 95, "a whole tick behind"


@agreed
@given(among_limits(orders(POST_ONLY, anchors=(0, 1, 2, 3)), orders(POST_ONLY_SLIDE, anchors=(0, 1, 2, 3))))
def test_post_only_orders_equal_the_reference(sequence):
    pair = play(sequence)
    records = pair.simulator.tape.read_records(0)
    assert not records["filled"][(records["kind"] == POST_ONLY) | (records["kind"] == POST_ONLY_SLIDE)].any()
