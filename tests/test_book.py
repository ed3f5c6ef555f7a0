"""The book's structure: bitmaps on a circle of levels, the moving window, far orders, slots and ids."""

import numpy as np
import pytest
from market_checks import kernel_queues
from numba import njit

from tradefm_gym.market import book as books
from tradefm_gym.market import views
from tradefm_gym.market.accounts import equity
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import ACCOUNT, BACKGROUND, CANCEL, LIMIT, NO_LIMIT, REJECTED, EventBlock
from tradefm_gym.market.simulator import MarketSimulator


@njit
def below(book, m, s, price):
    return books.below(book, m, s, price)


@njit
def above(book, m, s, price):
    return books.above(book, m, s, price)


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


@pytest.mark.parametrize("levels", [64, 256, 4096])
@pytest.mark.parametrize("s", [0, 1])
def test_neighbouring_levels_are_found_anywhere_on_the_circle(levels, s):
    rng = np.random.default_rng(levels + s)
    for filled in (1, 2, 5, 40):
        simulator = MarketSimulator(1, MarketConfig(levels=levels))
        side = 1 - 2 * s
        anchor = int(rng.integers(levels, 4 * levels))
        send(simulator, (LIMIT, side, anchor, 1, -1))
        base = int(simulator.book.row[0, books.BASE + s])
        prices = {anchor} | {int(price) for price in rng.integers(max(base, 1), base + levels, filled)}
        prices |= {base, base + levels - 1} if filled == 40 else set()
        for price in prices - {anchor}:
            send(simulator, (LIMIT, side, price, 1, -1))
        assert simulator.recentred[0] == 1, "all of them lie in the first window"
        for price in [
            base - 1,
            base,
            base + levels - 1,
            base + levels,
            *rng.integers(base, base + levels, 50).tolist(),
        ]:
            expected = max((p for p in prices if p <= price), default=-1) if price >= base else -1
            assert below(simulator.book, 0, s, price) == expected
            expected = min((p for p in prices if p >= price), default=-1) if price < base + levels else -1
            assert above(simulator.book, 0, s, price) == expected


def test_far_orders_keep_their_place_in_the_queue_when_the_window_moves():
    simulator = MarketSimulator(1, MarketConfig(levels=64))
    # Two bids at 1000, then the window leaves them, two more arrive at 1000 meanwhile, then it returns.
    send(simulator, (LIMIT, 1, 1000, 1, 0), (LIMIT, 1, 1000, 1, 1), (LIMIT, 1, 5000, 1, 2))
    assert simulator.book.row[0, books.FAR_COUNT] == 2
    send(simulator, (LIMIT, 1, 1000, 1, 3), (LIMIT, 1, 990, 1, 4), (LIMIT, 1, 1000, 1, 5))
    assert simulator.book.row[0, books.FAR_COUNT] == 5
    assert simulator.queue_ahead(BACKGROUND, np.array([[0, 1, 3, 4, 5]]))[0].tolist() == [0, 1, 2, 0, 3]
    assert next_level(simulator.book, 0, 0, 5000) == 1000 and next_level(simulator.book, 0, 0, 1000) == 990
    assert simulator.depth(4)[0][0, 0].tolist() == [5000, 1000, 990, 0]
    assert simulator.depth(4)[1][0, 0].tolist() == [1, 4, 1, 0]
    send(simulator, (CANCEL, 1, 0, 0, 1), (CANCEL, 1, 0, 0, 2))
    assert simulator.touch()[0][0] == 1000 and simulator.book.row[0, books.FAR_COUNT] == 0
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


def test_the_window_follows_a_falling_best_price_before_it_runs_out():
    simulator = MarketSimulator(1, MarketConfig(levels=64, orders=400))
    for k in range(300):
        send(simulator, (LIMIT, 1, 1000 - k, 1, k))
    assert simulator.book.row[0, books.FAR_COUNT] > 200
    for k in range(300):
        kernel_queues(simulator, 0, 0)
        send(simulator, (CANCEL, 1, 0, 0, k))
    assert simulator.book.row[0, books.LIVE] == 0 and 3 < simulator.recentred[0] < 20


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
    assert simulator.book.flow_slots.shape == (1, 4)
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
