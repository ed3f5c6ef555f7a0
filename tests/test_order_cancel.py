from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, CANCEL, CANCELLED, LIMIT, NOOP, REJECTED, SELL


def test_a_partial_cancel_keeps_its_place_and_a_full_one_leaves():
    pair = Pair().rest((BUY, 100, 5), (BUY, 100, 5), (BUY, 100, 5))
    assert pair.send(CANCEL, size=3, order_id=0)["size"] == 3
    assert [pair.ahead(order_id) for order_id in range(3)] == [0, 2, 7]
    assert pair.send(CANCEL, order_id=1)["size"] == 5, "size 0 is all of it"
    assert pair.send(CANCEL, size=99, order_id=2)["size"] == 5, "and no more than there is"
    assert pair.levels() == [[(100, 2)], []]
    assert pair.send(CANCEL, order_id=1)["status"] == NOOP


def test_only_the_owner_cancels():
    pair = Pair()
    pair.send(LIMIT, BUY, 100, 5, 4, owner=0)
    assert pair.send(CANCEL, order_id=4)["status"] == NOOP
    assert pair.send(CANCEL, order_id=4, owner=1)["status"] == NOOP
    assert pair.send(CANCEL, order_id=4, size=-1, owner=0)["status"] == REJECTED
    assert pair.send(CANCEL, order_id=4, owner=0)["status"] == CANCELLED


def test_owners_are_told_apart_where_their_ids_share_a_place():
    pair = Pair(orders=1, seats=4)  # a table of four places
    pair.send(LIMIT, BUY, 100, 5, 0, owner=3)
    assert pair.send(CANCEL, order_id=0)["status"] == NOOP
    assert pair.send(CANCEL, order_id=0, owner=3)["status"] == CANCELLED


def test_the_touch_retreats_to_the_next_occupied_price():
    pair = Pair().rest((SELL, 100, 1), (SELL, 100_000, 1), (SELL, 2**29, 1))
    for order_id, touch in ((0, 100_000), (1, 2**29), (2, 0)):
        pair.send(CANCEL, order_id=order_id)
        assert pair.simulator.touch()[1] == touch


@agreed
@given(among_limits(orders(CANCEL, anchors=(0, 0, 1, 2, 3)), orders(CANCEL)))
def test_cancels_equal_the_reference(sequence):
    play(sequence)
