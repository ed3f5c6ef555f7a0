import pytest
from hypothesis import given
from hypothesis import strategies as st
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market.config import PREVENTION
from tradefm_gym.market.events import (
    BUY,
    CANCEL,
    CANCELLED,
    FILL_OR_KILL,
    FILLED,
    LIMIT,
    MARKET,
    MODIFY,
    PREVENTED,
    RESTED,
    SELL,
)  # fmt: skip
from tradefm_gym.market.simulator import MarketConfig


def meets_itself(rule):
    """A stranger's ask, then seat 0's own, then another stranger's; seat 0 buys across all three."""
    pair = Pair(self_trade=rule)
    pair.send(LIMIT, SELL, 100, 2, 0)
    pair.send(LIMIT, SELL, 101, 3, 0, owner=0)
    pair.send(LIMIT, SELL, 102, 4, 1)
    return pair, pair.send(LIMIT, BUY, 102, 8, 1, owner=0)


def test_off_lets_it_trade():
    pair, record = meets_itself("off")
    assert pair.fills() == [(0, 100, 2), (0, 101, 3), (1, 102, 3)] and record["status"] == FILLED
    assert pair.simulator.accounts[0, 0]["inventory"] == 5


def test_the_newest_is_cancelled():
    pair, record = meets_itself("cancel_newest")
    assert pair.fills() == [(0, 100, 2)] and (record["status"], record["filled"]) == (PREVENTED, 2)
    assert pair.levels() == [[], [(101, 3), (102, 4)]] and pair.simulator.counters[0, 3:5].tolist() == [1, 6]


def test_the_oldest_is_cancelled_and_the_tape_says_so():
    pair, record = meets_itself("cancel_oldest")
    assert pair.fills() == [(0, 100, 2), (1, 102, 4)] and record["status"] == RESTED
    assert pair.levels() == [[(102, 2)], []]
    withdrawn = pair.simulator.tape.read_records(0)[-2]
    assert withdrawn[["kind", "status", "owner", "order_id", "price", "size"]].tolist() == (
        CANCEL, CANCELLED, 0, 0, 101, 3,
    )  # fmt: skip


def test_both_are_cancelled():
    pair, record = meets_itself("cancel_both")
    assert pair.fills() == [(0, 100, 2)] and record["status"] == PREVENTED
    assert pair.levels() == [[], [(102, 4)]] and pair.simulator.counters[0, 3:5].tolist() == [2, 9]


def test_each_seat_has_its_own_rule():
    for owner, fills in ((0, 1), (1, 0)):
        pair = Pair(self_trade=("off", "cancel_newest"))
        pair.send(LIMIT, SELL, 100, 1, 0, owner=owner)
        pair.send(MARKET, BUY, 0, 1, 1, owner=owner)
        assert len(pair.fills()) == fills
    pair.send(MARKET, BUY, 0, 1, 1, owner=0)
    assert len(pair.fills()) == 1, "another seat may trade with it"


def test_rules_are_named_and_one_for_each_seat():
    with pytest.raises(ValueError, match="self_trade is 'cancel_all'"):
        MarketConfig(self_trade="cancel_all")
    with pytest.raises(ValueError, match="self_trade has 1 rules for 2 seats"):
        MarketConfig(seats=2, self_trade=("off",))
    config = MarketConfig(seats=2, self_trade=("off", "cancel_both"))
    assert MarketConfig.from_json({**config.to_json(), "self_trade": ["off", "cancel_both"]}) == config


@agreed
@given(
    among_limits(orders(MARKET), orders(MODIFY), orders(FILL_OR_KILL), longest=40),
    st.tuples(st.sampled_from(PREVENTION), st.sampled_from(PREVENTION)),
)
def test_prevention_equals_the_reference(sequence, rules):
    play(sequence, self_trade=rules)
