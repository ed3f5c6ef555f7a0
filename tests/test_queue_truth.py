"""Where an order stands in its queue, and what a fill says of both parties: exact after every event."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from market_checks import assert_same_tape
from order_pair import SMALL, Pair, agreed, orders
from reference_book import ReferenceMarket

from tradefm_gym.market.config import PREVENTION
from tradefm_gym.market.events import (
    BACKGROUND,
    BUY,
    CANCEL,
    EVENT,
    FILL_OR_KILL,
    LIMIT,
    MARKET,
    MODIFY,
    POST_ONLY,
    POST_ONLY_SLIDE,
    PRINT,
    SELL,
    EventBlock,
)  # fmt: skip
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

OWNERS = (BACKGROUND, 0, 1)
IDS = np.arange(-1, 17)
ANCHORS = (0, 0, 1, 2, 3)


def _crowd(order):
    """Few prices and ids, so that queues are long and orders change often."""
    price = 95 + order["price"] % 8 if order["anchor"] == 0 else order["price"]
    return {**order, "price": price, "order_id": order["order_id"] % 16}


crowded = st.one_of(
    orders(LIMIT), orders(LIMIT, ANCHORS), orders(MODIFY), orders(MODIFY, ANCHORS), orders(CANCEL), orders(MARKET),
    orders(POST_ONLY), orders(POST_ONLY_SLIDE), orders(FILL_OR_KILL),
).map(_crowd)  # fmt: skip


@agreed
@given(
    st.lists(crowded, min_size=1, max_size=60), st.sampled_from((1, 3, 64)),
    st.tuples(*[st.sampled_from(PREVENTION)] * 2),
)  # fmt: skip
def test_every_owners_place_in_the_queue_is_exact_after_every_event(sequence, num_markets, rules):
    config = MarketConfig(**{**SMALL, "tape": 256, "fills": 256}, self_trade=rules)
    simulator = MarketSimulator(num_markets, config)
    watched = {m: ReferenceMarket(config) for m in {0, num_markets - 1}}
    seen = dict.fromkeys(watched, (0, 0))
    ids = np.tile(IDS, (num_markets, 1))
    for i in range(len(sequence)):
        block = EventBlock.empty(num_markets, 1)
        for m in range(num_markets):
            event = sequence[(i + 7 * m) % len(sequence)]
            block.events[m, 0] = tuple(event[field] for field in EVENT.names)
        block.count[:] = 1
        block.events["time_ns"][:, 0] += simulator.clock_ns
        simulator.execute(block)
        found = {owner: simulator.orders_of(owner, ids) for owner in OWNERS}
        for m, reference in watched.items():
            event = block.events[m, 0].tolist()
            reference.count += event[5] < 0 and event[6] != PRINT
            reference.process(event, max(reference.clock, event[0]))
            seen[m] = assert_same_tape(simulator, m, reference, seen[m])  # fills: maker, taker, wait
            for owner in OWNERS:
                assert (simulator.queue_ahead(owner, ids) == found[owner][2]).all()
                assert list(zip(*(array[m].tolist() for array in found[owner]), strict=True)) == [
                    _stands(reference, owner, order_id) for order_id in IDS.tolist()
                ]
            _check_fills(simulator.tape.read_fills(m), reference)


def _stands(reference, owner, order_id):
    order = reference.live.get((owner, order_id))
    return (0, 0, -1) if order is None else (order.price, order.size, reference.ahead(owner, order_id))


def _check_fills(fills, reference):
    """Whoever took or made is an owner, bought what the other sold, and nobody waited for less than nothing."""
    assert (fills["wait_ns"] >= 0).all() and (fills["wait_ns"] <= fills["time_ns"]).all()
    for owner in OWNERS:
        bought = fills["taker_side"] * fills["size"]
        position = bought[fills["taker"] == owner].sum() - bought[fills["maker"] == owner].sum()
        assert position == reference.accounts[owner][1]


def test_a_smaller_order_keeps_its_place_and_a_larger_or_dearer_one_goes_to_the_end():
    pair = Pair().rest((BUY, 100, 4), (BUY, 100, 5), (BUY, 101, 2))
    pair.send(LIMIT, BUY, 100, 6, 3, owner=0, time_ns=10)
    pair.send(LIMIT, BUY, 100, 7, 4, owner=1)
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (9, 15)
    pair.send(MODIFY, BUY, 100, 2, 3, owner=0)
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (9, 11)
    pair.send(CANCEL, BUY, 0, 1, 1)
    pair.send(CANCEL, BUY, 0, 0, 0)
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (4, 6)
    pair.send(MODIFY, BUY, 100, 3, 3, owner=0, time_ns=20)
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (11, 4)
    pair.send(MODIFY, BUY, 101, 7, 4, owner=1, time_ns=30)
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (4, 2)
    pair.send(MARKET, SELL, 0, 15, 9, owner=0, time_ns=45)
    fills = pair.simulator.tape.read_fills(0)
    assert fills[["maker", "maker_id", "size", "wait_ns"]].tolist() == [
        (-1, 2, 2, 45), (1, 4, 7, 15), (-1, 1, 4, 45)
    ]  # fmt: skip
    assert (pair.ahead(3, 0), pair.ahead(4, 1)) == (0, -1), "its own order would be next, so the rest was prevented"
