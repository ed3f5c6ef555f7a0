"""The book's structure: bitmaps on a circle of levels, the moving window, far orders, slots and ids."""

import numpy as np
import pytest
from market_checks import check_room, kernel_queues
from numba import njit

from tradefm_gym.market import book as books
from tradefm_gym.market import layout, prices, views
from tradefm_gym.market.accounts import equity
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import (
    ACCOUNT,
    BACKGROUND,
    BUY,
    CANCEL,
    CANCELLED,
    LIMIT,
    NO_LIMIT,
    ORDER,
    RECORD,
    REJECTED,
    RESTED,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketSimulator


@njit
def below(book, m, s, price):
    return prices.below(book, m, s, price)


@njit
def above(book, m, s, price):
    return prices.above(book, m, s, price)


@njit
def next_level(book, m, s, price):
    return views.next_level(book, m, s, price)


def send(simulator, *orders):
    """Background orders (kind, side, price, size, id) one after another."""
    for kind, side, price, size, order_id in orders:
        block = EventBlock.empty(1, 1)
        block.events[0, 0] = (0, order_id, price, size, NO_LIMIT, BACKGROUND, kind, side, 0)
        block.count[0] = 1
        simulator.feed(block)
        simulator.advance()


@pytest.mark.parametrize("spread", [3, 60, 1000, 10**5, 2**29])
@pytest.mark.parametrize("s", [0, 1])
def test_neighbouring_levels_are_found_however_far_apart(spread, s):
    rng = np.random.default_rng(spread + s)
    for filled in (1, 2, 5, 40):
        simulator = MarketSimulator(1, MarketConfig())
        low = int(rng.integers(1, 2**29))
        occupied = {int(price) for price in rng.integers(low, low + spread, filled)}
        for price in occupied:
            send(simulator, (LIMIT, 1 - 2 * s, price, 1, -1))
        asked = rng.integers(low, low + spread, 50).tolist() + [price + k for price in occupied for k in (-1, 0, 1)]
        for price in [-7, 0, books.MAX_PRICE, 2**30, 2**31, *asked]:
            assert below(simulator.book, 0, s, price) == max((p for p in occupied if p <= price), default=-1)
            assert above(simulator.book, 0, s, price) == min((p for p in occupied if p >= price), default=-1)
        while occupied:  # and as they are taken away, in any order
            price = occupied.pop()
            send(simulator, (CANCEL, 1 - 2 * s, price, 0, -2))
            kernel_queues(simulator, 0, s)
            check_room(simulator.book, 0)


def test_far_orders_keep_their_place_in_the_queue():
    simulator = MarketSimulator(1, MarketConfig(levels=64))
    send(simulator, (LIMIT, 1, 1000, 1, 0), (LIMIT, 1, 1000, 1, 1), (LIMIT, 1, 50_000, 1, 2))
    send(simulator, (LIMIT, 1, 1000, 1, 3), (LIMIT, 1, 990, 1, 4), (LIMIT, 1, 1000, 1, 5))
    assert simulator.queue_ahead(BACKGROUND, np.array([[0, 1, 3, 4, 5]]))[0].tolist() == [0, 1, 2, 0, 3]
    assert next_level(simulator.book, 0, 0, 50_000) == 1000 and next_level(simulator.book, 0, 0, 1000) == 990
    assert simulator.depth(4)[0][0, 0].tolist() == [50_000, 1000, 990, 0]
    assert simulator.depth(4)[1][0, 0].tolist() == [1, 4, 1, 0]
    send(simulator, (CANCEL, 1, 0, 0, 1), (CANCEL, 1, 0, 0, 2))
    assert simulator.touch()[0][0] == 1000
    assert [entry[0] for entry in kernel_queues(simulator, 0, 0)[0][1]] == [0, 3, 5]
    send(simulator, (LIMIT, -1, 1000, 2, 6))
    assert simulator.tape.read_fills(0)["maker_id"].tolist() == [0, 3]


def test_two_touches_may_lie_further_apart_than_any_window():
    simulator = MarketSimulator(1, MarketConfig(levels=64))
    send(simulator, (LIMIT, 1, 1, 3, 0), (LIMIT, -1, books.MAX_PRICE, 4, 1))
    assert simulator.touch() == (1, books.MAX_PRICE) and simulator.mid2[0] == books.MAX_PRICE + 1
    send(simulator, (LIMIT, 1, 500_000, 1, 2), (LIMIT, -1, 500_001, 1, 3), (LIMIT, 1, books.MAX_PRICE, 5, 4))
    assert simulator.tape.read_fills(0)["price"].tolist() == [500_001, books.MAX_PRICE]
    assert simulator.depth(3)[0][0].tolist() == [[500_000, 1, 0], [0, 0, 0]]


def test_a_book_takes_memory_as_it_needs_it():
    simulator = MarketSimulator(2, MarketConfig(orders=10_000))
    others = sum(array.nbytes for array in (simulator._ledger.accounts, simulator._ledger.clocks, simulator.counters))
    queues = simulator._flow_queue.nbytes + simulator._agent_queue.nbytes
    assert simulator._book_memory.nbytes + others + queues <= 2 * 32 * 1024, "32 KiB a market without its tape"
    wide = simulator.book.orders.nbytes
    for k in range(3000):
        assert simulator.send(LIMIT, 1, 10**7 - 1000 * k, 1, k) == RESTED
    kernel_queues(simulator, 0, 0)
    check_room(simulator.book, 0)
    assert simulator.book.orders.nbytes > 16 * wide and simulator.book.row[0, layout.LIVE] == 3000
    for k in range(3000):
        assert simulator.send(CANCEL, 1, 0, 0, k) == CANCELLED
    check_room(simulator.book, 0)
    assert simulator.book.row[0, layout.LIVE_PAGES] == 1, "the last one is kept, since orders often come back"


def test_generated_cancels_find_far_levels():
    simulator = MarketSimulator(1, MarketConfig(levels=64))
    send(simulator, (LIMIT, 1, 1000, 5, 0), (LIMIT, 1, 100, 5, 1), (LIMIT, 1, 110, 5, 2), (LIMIT, 1, 110, 8, 3))
    send(simulator, (CANCEL, 1, 105, 6, -2))  # nearer the touch of two far levels, and nearest in size
    assert simulator.tape.read_records(0)[-1]["order_id"] == 2
    send(simulator, (CANCEL, 1, 1, 9, -1))  # spills from level 100 to level 110
    assert simulator.tape.read_records(0)[-1]["size"] == 9
    assert simulator.depth(3)[1][0, 0].tolist() == [5, 4, 0]


def test_an_exhausted_pool_refuses_and_counts():
    simulator = MarketSimulator(1, MarketConfig(orders=2))
    send(simulator, (LIMIT, 1, 100, 5, 0), (LIMIT, 1, 99, 5, 1), (LIMIT, 1, 98, 5, 2))
    record = simulator.tape.read_records(0)[-1]
    assert record["status"] == REJECTED and simulator.counters[0, 6] == simulator.counters[0, 5] == 1
    send(simulator, (CANCEL, 1, 0, 0, 0), (LIMIT, 1, 98, 5, 2))
    assert simulator.touch()[0][0] == 99 and np.count_nonzero(simulator.book.orders["size"]) == 2


def test_background_ids_wrap_around_and_collide_only_with_live_orders():
    simulator = MarketSimulator(1, MarketConfig(flow_ids=3))
    send(simulator, (LIMIT, 1, 100, 1, 1), (LIMIT, 1, 99, 1, 5))
    assert simulator.tape.read_records(0)["status"].tolist() == [1, REJECTED]
    send(simulator, (CANCEL, 1, 0, 0, 5))
    assert simulator.touch()[0][0] == 100, "order 1 is not order 5"
    send(simulator, (LIMIT, 1, 99, 1, 4), (LIMIT, 1, 98, 1, -1), (LIMIT, 1, 97, 1, -1))
    assert simulator.tape.read_records(0)["order_id"][-3:].tolist() == [4, 6, 7], "5 shares its place with 1"
    send(simulator, (LIMIT, 1, 96, 1, -1))
    assert simulator.tape.read_records(0)["status"][-1] == REJECTED, "no place is left"


def test_equity_marks_inventory_after_fees():
    accounts = np.array([[(-100_000, 1, 7, 1), (100_000, -1, 0, 1)]], ACCOUNT)
    np.testing.assert_array_equal(equity(accounts, np.array([205])), [[2493, -2500]])
    np.testing.assert_array_equal(equity(accounts, np.array([[205, 200]])), [[2493, 0]])


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"size": 2**33, "max_rest": 2**40}, "size is 8589934592; allowed is"),
        ({"size": 2**31}, "size is 2147483648; allowed is"),
        ({"price": -(2**40)}, "price is -1099511627776; allowed is"),
        ({"price": -(2**63)}, "price is -9223372036854775808; allowed is"),
        ({"size": -(2**63)}, "size is -9223372036854775808; allowed is"),
        ({"max_rest": -(2**63)}, "max_rest is -9223372036854775808; allowed is"),
        ({"order_id": 2**62 + 1}, "order_id is 4611686018427387905; allowed is"),
        ({"size": None}, "size is None; allowed is an integer"),
        ({"price": "x"}, "price is 'x'; allowed is an integer"),
        ({"price": 2**70}, "price is 1180591620717411303424; allowed is"),
        ({"time_ns": "now"}, "time_ns is 'now'; allowed is an integer"),
        ({"kind": "LIMIT"}, "kind is 'LIMIT'; allowed is an integer"),
        ({"kind": 9}, "kind is 9; allowed is LIMIT"),
        ({"anchor": -1}, "anchor is -1; allowed is ABSOLUTE"),
        ({"owner": 1}, "owner is 1; allowed is a seat, 0 to 0, or BACKGROUND"),
        ({"owner": -2}, "owner is -2; allowed is a seat"),
        ({"row": 1}, "row is 1; allowed is 0 to 0"),
        ({"row": -1}, "row is -1; allowed is 0 to 0"),
    ],
)
def test_a_message_of_numbers_that_fit_no_field_is_refused_before_anything_happens(message, said):
    market = MarketSimulator(1)
    market.send(LIMIT, BUY, 100, 5, 1)
    before = market.snapshot().to_bytes()
    arguments = {"kind": LIMIT, "side": BUY, "price": 99, "size": 5, "order_id": 2} | message
    with pytest.raises(ValueError, match=said):
        market.send(**arguments)
    assert market.snapshot().to_bytes() == before


def test_a_start_state_keeps_to_tick_and_lot():
    orders = np.zeros(1, ORDER)
    orders["owner"], orders["side"], orders["price"], orders["size"] = -1, BUY, 101, 10
    market = MarketSimulator(1, MarketConfig(tick=5, lot=10))
    with pytest.raises(ValueError, match="of whole ticks, 5"):
        market.load(0, orders, np.zeros(0, RECORD), 0)
    orders["price"] = 100
    market.load(0, orders, np.zeros(0, RECORD), 0)
