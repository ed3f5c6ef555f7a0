from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, FILLED, LIMIT, REJECTED, RESTED, SELL


def test_a_sweep_through_orders_and_levels():
    pair = Pair().rest((SELL, 100, 5), (SELL, 100, 5), (SELL, 101, 5))
    record = pair.send(LIMIT, BUY, 101, 12, 3)
    assert [size for *_, size in pair.fills()] == [5, 5, 2]
    assert (record["status"], record["filled"], record["notional"]) == (FILLED, 12, 10 * 100 + 2 * 101)
    assert pair.levels() == [[], [(101, 3)]], "the book is not crossed"


def test_what_is_left_of_a_sweep_rests_at_its_own_price():
    pair = Pair().rest((SELL, 100, 5), (SELL, 102, 5), (SELL, 103, 5))
    assert pair.send(LIMIT, BUY, 102, 20, 3)["status"] == RESTED
    assert pair.levels() == [[(102, 10)], [(103, 5)]]


def test_fills_say_who_traded_at_whose_price_and_how_long_the_maker_waited():
    pair = Pair()
    pair.send(LIMIT, SELL, 100, 5, 7, owner=1, time_ns=10)
    pair.send(LIMIT, SELL, 100, 5, 3, time_ns=30)
    pair.send(LIMIT, BUY, 105, 8, 2, owner=0, time_ns=100)
    fills = pair.simulator.tape.read_fills(0)
    assert fills[["maker", "maker_id", "taker", "taker_id", "taker_side", "price", "size", "wait_ns"]].tolist() == [
        (1, 7, 0, 2, BUY, 100, 5, 90),
        (-1, 3, 0, 2, BUY, 100, 3, 70),
    ]


def test_orders_of_one_price_are_served_in_order_of_arrival():
    pair = Pair().rest((BUY, 100, 1), (BUY, 101, 1), (BUY, 100, 2), (BUY, 100, 4))
    assert [pair.ahead(order_id) for order_id in range(4)] == [0, 0, 1, 3]
    pair.send(LIMIT, SELL, 100, 3, 4)
    assert pair.fills() == [(1, 101, 1), (0, 100, 1), (2, 100, 1)]
    assert pair.ahead(2) == 0 and pair.ahead(3) == 1


def test_prices_reach_from_one_to_two_to_the_thirtieth():
    pair = Pair().rest((BUY, 1, 3), (SELL, 2**30 - 1, 4), (BUY, 0, 1), (SELL, 2**30, 1), (BUY, 5, 0), (BUY, 5, -1))
    assert pair.simulator.tape.read_records(0)["status"].tolist() == [RESTED, RESTED] + [REJECTED] * 4


@agreed
@given(among_limits(orders(LIMIT, max_rest=(0, 3, 2**31 - 1))))
def test_limit_orders_equal_the_reference(sequence):
    play(sequence)
