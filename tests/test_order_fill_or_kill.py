import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.config import PREVENTION
from tradefm_gym.market.events import BUY, DROPPED, FILL_OR_KILL, FILLED, LIMIT, SELL


def test_all_or_nothing():
    pair = Pair().rest((SELL, 100, 5), (SELL, 101, 5), (SELL, 103, 5))
    record = pair.send(FILL_OR_KILL, BUY, 102, 11, 3)
    assert (record["status"], record["filled"]) == (DROPPED, 0)
    assert pair.levels() == [[], [(100, 5), (101, 5), (103, 5)]] and pair.simulator.counters[0, 2] == 11
    assert pair.send(FILL_OR_KILL, BUY, 102, 10, 3)["status"] == FILLED
    assert pair.fills() == [(0, 100, 5), (1, 101, 5)]


@pytest.mark.parametrize(
    ("rule", "fills"), [("off", 3), ("cancel_newest", 0), ("cancel_oldest", 2), ("cancel_both", 0)]
)
def test_own_orders_count_as_far_as_they_would_trade(rule, fills):
    pair = Pair(self_trade=rule).rest((SELL, 100, 5))
    pair.send(LIMIT, SELL, 100, 5, 0, owner=0)
    pair.send(LIMIT, SELL, 101, 5, 1)
    pair.send(FILL_OR_KILL, BUY, 101, 15 if rule == "off" else 10, 1, owner=0)
    assert len(pair.fills()) == fills


@agreed
@given(among_limits(orders(FILL_OR_KILL, anchors=(0, 1, 2, 3)), orders(FILL_OR_KILL)), st.sampled_from(PREVENTION))
def test_fill_or_kill_equals_the_reference(sequence, rule):
    play(sequence, self_trade=rule)
