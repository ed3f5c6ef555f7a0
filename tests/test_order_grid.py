import pytest
from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import (
    BUY,
    CANCEL,
    CANCELLED,
    LIMIT,
    MARKET,
    MID,
    MODIFY,
    POST_ONLY_SLIDE,
    REJECTED,
    RESTED,
    SELL,
)  # fmt: skip
from tradefm_gym.market.simulator import MarketConfig


def test_prices_are_multiples_of_the_tick():
    pair = Pair(tick=5)
    assert pair.send(LIMIT, BUY, 103, 1, 0)["status"] == REJECTED
    assert pair.send(LIMIT, BUY, 100, 1, 0)["status"] == RESTED
    assert pair.send(MODIFY, price=99, size=1, order_id=0)["status"] == REJECTED
    assert pair.send(LIMIT, SELL, 115, 1, 1)["status"] == RESTED
    assert pair.send(LIMIT, BUY, 0, 1, 2, anchor=MID)["price"] == 105, "the mid 107.5 rounded to the grid"
    assert pair.send(LIMIT, SELL, 0, 1, 3, anchor=MID)["price"] == 110


def test_sizes_are_multiples_of_the_lot():
    pair = Pair(lot=10)
    assert pair.send(LIMIT, BUY, 100, 15, 0)["status"] == REJECTED
    assert pair.send(MARKET, BUY, 100, 5, 0)["status"] == REJECTED
    assert pair.send(LIMIT, BUY, 100, 50, 0)["status"] == RESTED
    assert pair.send(CANCEL, size=7, order_id=0)["status"] == REJECTED
    assert pair.send(CANCEL, size=20, order_id=0)["status"] == CANCELLED
    assert pair.send(MODIFY, price=100, size=25, order_id=0)["status"] == REJECTED
    pair.send(LIMIT, BUY, 99, 50, 1, max_rest=25)
    assert pair.levels() == [[(100, 30), (99, 20)], []], "only whole lots rest"


def test_both_are_positive():
    with pytest.raises(ValueError, match="tick is 0"):
        MarketConfig(tick=0)
    with pytest.raises(ValueError, match="lot is -1"):
        MarketConfig(lot=-1)


@agreed
@given(
    among_limits(
        orders(LIMIT, anchors=(0, 1, 2, 3, 4), max_rest=(3, 8, 2**31 - 1)),
        orders(MODIFY),
        orders(CANCEL),
        orders(POST_ONLY_SLIDE),
    )
)
def test_grids_equal_the_reference(sequence):
    pair = play(sequence, tick=5, lot=2)
    live = pair.simulator.book.orders[0]
    live = live[live["size"] > 0]
    assert not (live["price"] % 5).any() and not (live["size"] % 2).any()
