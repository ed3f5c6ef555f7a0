from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, DROPPED, FILLED, MARKET, NOOP, SELL


def test_a_market_order_takes_what_there_is_at_any_price():
    pair = Pair().rest((SELL, 100, 5), (SELL, 2**29, 5), (BUY, 90, 5))
    assert pair.send(MARKET, BUY, 0, 7)["status"] == FILLED
    assert pair.fills() == [(0, 100, 5), (1, 2**29, 2)]
    record = pair.send(MARKET, SELL, 0, 9)
    assert (record["status"], record["filled"], record["price"]) == (DROPPED, 5, 90), "it never rests"
    assert pair.send(MARKET, SELL, 0, 1)["status"] == NOOP


@agreed
@given(among_limits(orders(MARKET)))
def test_market_orders_equal_the_reference(sequence):
    play(sequence)
