from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import BUY, DROPPED, FILLED, LIMIT, SELL


def test_immediate_or_cancel_takes_what_it_can_and_never_rests():
    pair = Pair().rest((SELL, 100, 5), (SELL, 102, 5))
    record = pair.send(LIMIT, BUY, 101, 8, 2, max_rest=0)
    assert (record["status"], record["filled"]) == (DROPPED, 5)
    assert pair.levels() == [[], [(102, 5)]]
    assert pair.send(LIMIT, BUY, 102, 5, 3, max_rest=0)["status"] == FILLED
    assert pair.simulator.counters[0, 1:3].tolist() == [1, 3]


@agreed
@given(among_limits(orders(LIMIT, max_rest=(0,)), orders(LIMIT, max_rest=(0,))))
def test_immediate_or_cancel_equals_the_reference(sequence):
    play(sequence)
