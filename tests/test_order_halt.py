from hypothesis import given
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.events import (
    BUY,
    CANCEL,
    CANCELLED,
    FILL_OR_KILL,
    HALT,
    LIMIT,
    MARKET,
    MODIFY,
    NOOP,
    POST_ONLY,
    REJECTED,
    RESTED,
    SELL,
    SWITCHED,
)  # fmt: skip


def test_a_halted_market_takes_no_orders_but_lets_them_go():
    pair = Pair().rest((BUY, 100, 5), (SELL, 103, 5))
    assert pair.send(HALT, size=1)["status"] == SWITCHED and pair.simulator.halted[0] == 1
    for kind in (LIMIT, MARKET, FILL_OR_KILL, POST_ONLY):
        assert pair.send(kind, BUY, 103, 1, 5)["status"] == REJECTED
    assert pair.send(MODIFY, price=101, size=5, order_id=0)["status"] == REJECTED
    assert pair.send(MODIFY, price=100, size=2, order_id=0)["status"] == RESTED, "less is possible"
    assert pair.send(CANCEL, order_id=1)["status"] == CANCELLED
    assert pair.levels() == [[(100, 2)], []] and pair.fills() == []


def test_trading_goes_on_after_a_halt():
    pair = Pair().rest((SELL, 103, 5))
    assert pair.send(HALT, size=0)["status"] == NOOP
    pair.send(HALT, size=1)
    assert pair.send(HALT, size=1)["status"] == NOOP
    pair.send(HALT, size=0)
    assert pair.send(MARKET, BUY, 0, 5)["filled"] == 5


def test_only_the_background_halts():
    pair = Pair()
    assert pair.send(HALT, size=1, owner=0)["status"] == REJECTED
    assert pair.send(HALT, size=2)["status"] == REJECTED
    assert pair.simulator.halted[0] == 0
    pair.send(HALT, size=1)
    pair.simulator.reset()
    assert pair.simulator.halted[0] == 0


@agreed
@given(
    among_limits(
        orders(MARKET), orders(MODIFY), orders(CANCEL), orders(HALT).map(lambda o: {**o, "size": o["size"] % 2})
    )
)
def test_halts_equal_the_reference(sequence):
    play(sequence)
