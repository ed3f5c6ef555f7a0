from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, FILLED, LIMIT, MARKET, MODIFY, NOOP, REJECTED, RESTED, SELL


def resting():
    return Pair().rest((BUY, 100, 5), (BUY, 100, 6), (BUY, 100, 7), (SELL, 103, 4))


def test_a_smaller_size_keeps_the_place():
    pair = resting()
    assert pair.send(MODIFY, price=100, size=2, order_id=0)["status"] == RESTED
    assert [pair.ahead(order_id) for order_id in range(3)] == [0, 2, 8]
    assert pair.send(MODIFY, price=100, size=2, order_id=0)["status"] == RESTED, "nor does an equal one lose it"
    assert pair.ahead(0) == 0


def test_a_larger_size_goes_to_the_end():
    pair = resting()
    pair.send(MODIFY, price=100, size=6, order_id=0, time_ns=50)
    assert [pair.ahead(order_id) for order_id in range(3)] == [13, 0, 6]
    pair.send(MARKET, SELL, 0, 14, time_ns=80)
    assert pair.simulator.tape.read_fills(0)["wait_ns"].tolist() == [80, 80, 30], "it waits anew"


def test_another_price_goes_to_the_end_of_its_queue():
    pair = resting()
    pair.send(MODIFY, price=101, size=1, order_id=1)
    pair.send(MODIFY, price=100, size=1, order_id=1)
    assert [pair.ahead(order_id) for order_id in range(3)] == [0, 12, 5]


def test_a_price_that_crosses_trades_and_the_rest_stays():
    pair = resting()
    record = pair.send(MODIFY, price=103, size=6, order_id=2)
    assert (record["status"], record["filled"], record["notional"]) == (RESTED, 4, 412)
    assert pair.levels() == [[(103, 2), (100, 11)], []] and pair.fills() == [(3, 103, 4)]
    pair.send(LIMIT, SELL, 104, 9, 4)
    assert pair.send(MODIFY, price=104, size=9, order_id=2)["status"] == FILLED


def test_what_cannot_be_leaves_the_order_alone():
    pair = resting()
    for price, size in ((0, 5), (2**30, 5), (100, 0), (100, -3)):
        assert pair.send(MODIFY, price=price, size=size, order_id=0)["status"] == REJECTED
    assert pair.send(MODIFY, price=100, size=1, order_id=9)["status"] == NOOP
    assert pair.send(MODIFY, price=100, size=1, order_id=0, owner=1)["status"] == NOOP
    assert pair.ahead(1) == 5


@agreed
@given(among_limits(orders(MODIFY, anchors=(0, 0, 1, 2, 3)), orders(MODIFY)))
def test_changes_equal_the_reference(sequence):
    play(sequence)
