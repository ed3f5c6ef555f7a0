import runpy
from pathlib import Path

import numpy as np
import pytest
from small_tradefm import SHARES, book_bank, records_of_tokens, write_checkpoint
from test_takers import A, D, P, X, flow_of

from tradefm_gym.flow.cancels import YOUNGEST, leaves_a_hole, order_to_cancel
from tradefm_gym.flow.tradefm import BUNDLED_MODEL, TradeFMFlow, checkpoint
from tradefm_gym.market.events import BUY, CANCEL, CANCELLED, LIMIT, NOOP, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.model.tokenizer import TradeTokenizer, compose

MEASURE = Path(__file__).parents[1] / "examples" / "measure_cancels.py"

# side, price, size, owner: bids 5@100, 7@100, 5@98, 5@98, an agent's 5@99, then 9@90; asks far away
ORDERS = (
    (BUY, 100, 5, -1), (BUY, 100, 7, -1), (BUY, 98, 5, -1), (BUY, 98, 5, -1), (BUY, 99, 5, 0), (BUY, 90, 9, -1),
    (SELL, 110, 5, -1), (SELL, 112, 6, -1),
)  # fmt: skip


@pytest.fixture(scope="module")
def book():
    market = MarketSimulator(1, MarketConfig(seats=1))
    for i, (side, price, size, owner) in enumerate(ORDERS):
        block = EventBlock.empty(1, 1)
        order = block.events[0, 0]
        order["kind"], order["side"], order["price"], order["size"] = LIMIT, side, price, size
        order["order_id"], order["owner"], order["time_ns"] = i, owner, 1_000 * (i + 1)
        block.count[0] = 1
        if owner < 0:
            market.feed(block)
        else:
            market.submit(block)
        market.advance(until_ns=np.array([1_000 * (i + 1)]))
    return market.book


def chosen(book, s, bottom, top, least, most, uniform=0.0):
    slot = order_to_cancel(book, 0, s, bottom, top, least, most, uniform, np.empty((2, YOUNGEST), np.int64))
    return -1 if slot < 0 else int(book.orders[0, slot]["order_id"])


def test_the_youngest_of_the_named_size_is_the_likeliest(book):
    """The bids of 5 lots between 98 and 100 are, youngest first, 3, 2 and 0; that of the agent is not among them."""
    for uniform, order in ((0.0, 3), (0.49, 3), (0.5, 2), (0.74, 2), (0.75, 0), (0.999, 0)):
        assert chosen(book, 0, 98, 100, 5, 5, uniform) == order


def test_only_the_bin_counts_and_without_the_size_the_nearest(book):
    assert chosen(book, 0, 99, 100, 5, 5) == 0
    assert chosen(book, 0, 99, 100, 6, 8) == 1
    assert chosen(book, 0, 80, 97, 1, 100) == 5
    assert chosen(book, 0, 80, 100, 8, 8) in (1, 5)  # 7 and 9 are equally near
    assert chosen(book, 0, 80, 100, 20, 30) == 5
    assert chosen(book, 1, 111, 120, 5, 5) == 7
    assert chosen(book, 1, 90, 111, 6, 9) == 6


def test_who_is_the_touch_alone_leaves_a_hole_if_the_next_level_is_far(book):
    """Asks of one order at 110 and 112, two bids at 100 before 99."""
    slot = {int(order["order_id"]): i for i, order in enumerate(book.orders[0]) if order["size"] > 0}
    assert leaves_a_hole(book, 0, 1, slot[6], 1.0) and not leaves_a_hole(book, 0, 1, slot[6], 2.0)
    assert leaves_a_hole(book, 0, 1, slot[7], 1.0) is False  # not at the touch
    assert not leaves_a_hole(book, 0, 0, slot[0], 0.5) and not leaves_a_hole(book, 0, 0, slot[5], 0.5)


def test_an_empty_bin_has_none(book):
    assert chosen(book, 0, 91, 97, 1, 100) == -1
    assert chosen(book, 0, 99, 99, 1, 100) == -1  # an agent's order is never cancelled by the flow
    assert chosen(book, 1, 113, 120, 1, 100) == -1


def test_among_many_orders_it_is_the_one_that_going_from_queue_to_queue_finds():
    """Hundreds of orders a side, some of one time, some of one price, some gone, some an agent's."""
    generator = np.random.default_rng(1)
    market = MarketSimulator(1, MarketConfig(seats=1))
    for i in range(900):
        side = BUY if generator.random() < 0.5 else SELL
        price = 1_000 - side * int(generator.geometric(0.02))
        size, time = int(generator.integers(1, 12)), int(generator.integers(0, 1 + i // 8))
        market.send(LIMIT, side, price, size, order_id=i, owner=0 if i % 9 == 0 else -1, time_ns=time)
        if i % 3 == 0 and i % 9:
            market.send(CANCEL, side, price, 0, order_id=i // 2)
    book = market.book
    for trial in range(600):
        s, least = trial % 2, int(generator.integers(1, 14))
        away, most = np.sort(generator.integers(0, 200, 2)), least + int(generator.integers(0, 3))
        bottom, top = (1_000 - away[::-1]) if s == 0 else 1_000 + away
        uniform = generator.random()
        found = np.flatnonzero(book.orders[0]["size"] > 0)
        orders = book.orders[0, found]
        mine = (orders["owner"] < 0) & (orders["side"] == (SELL if s else BUY))
        found = found[mine & (orders["price"] >= bottom) & (orders["price"] <= top)]
        orders = book.orders[0, found]
        place = np.array([_place_in_queue(book, slot) for slot in found], np.int64)
        turn = np.lexsort((-place, np.abs(orders["price"] - 1_000)))  # from the touch on, of a queue the newest first
        found, orders = found[turn], orders[turn]
        fits = np.flatnonzero((orders["size"] >= least) & (orders["size"] <= most))
        if len(fits):
            fits = fits[np.argsort(-orders["time_ns"][fits], kind="stable")][:YOUNGEST]
            expected = orders["order_id"][fits[min(int(-np.log2(1 - uniform)), len(fits) - 1)]]
        else:
            short = np.maximum(least - orders["size"], orders["size"] - most)
            expected = orders["order_id"][np.argmin(short)] if len(orders) else -1
        assert chosen(book, s, bottom, top, least, most, uniform) == expected


def _place_in_queue(book, slot):
    place = 0
    while (slot := int(book.orders[0, slot]["prev"])) >= 0:
        place += 1
    return place


def test_a_generated_cancel_removes_an_order_of_the_bins_that_it_names(tmp_path):
    """For every side, depth bin and volume bin that holds an order of the book."""
    folder = write_checkpoint(tmp_path / "small")
    tokenizer, median, mid = TradeTokenizer.load(folder), 100.0, 10_000
    generator = np.random.default_rng(0)
    away, sizes = generator.integers(1, 70, 150), generator.integers(1, 590, 150)
    away[:2] = 1  # so that the mid is known
    sides = np.where(np.arange(150) % 2, BUY, SELL)
    price = mid - sides * away
    depth = np.searchsorted(tokenizer.depth_edges, 1e4 * (price - mid) / mid, side="right")
    volume = np.searchsorted(tokenizer.volume_edges, np.log1p(sizes / median), side="right")
    cell_of = np.stack([sides == SELL, depth, volume], axis=1).astype(np.int64)
    cells = np.unique(cell_of, axis=0)
    assert all(len(np.unique(cells[:, column])) == count for column, count in enumerate((2, 16, 16)))
    assert 64 < len(cells) < len(cell_of)  # some hold several orders
    bank = book_bank(np.stack([sides, price, sizes], axis=1).tolist(), median)
    flow = TradeFMFlow(folder, len(cells), bank=bank)
    for episode in range(3):
        removed = records_of_tokens(flow, compose(1, *cells.T, 0), episode)
        assert (removed["kind"] == CANCEL).all() and (removed["status"] == CANCELLED).all()
        assert np.array_equal(cell_of[removed["order_id"]], cells)
        assert np.array_equal(removed["size"], sizes[removed["order_id"]])  # the whole order


@pytest.mark.parametrize(("usual", "status"), [(1_045.0, CANCELLED), (1_046.0, NOOP)])
def test_a_cancel_of_an_empty_bin_goes_to_the_nearest_level_unless_the_side_is_thin(tmp_path, usual, status):
    """Ten bids of 1,045 lots lie 1 to 10 ticks below the mid of 10,000.5, and none where the cancel looks."""
    folder = write_checkpoint(tmp_path / "small")
    orders = [(BUY, 10_000 - away, 100 + away) for away in range(10)] + [(SELL, 10_001, 100)]
    placement = (*SHARES[:-2], 10.0, usual)
    flow = TradeFMFlow(folder, 1, bank=book_bank(orders, 100.0, placement))
    removed = records_of_tokens(flow, [compose(1, 0, 0, 5, 0)])[0]
    assert removed["kind"] == CANCEL and removed["status"] == status and removed["side"] == BUY
    if status == CANCELLED:
        assert removed["price"] == 9_991 and removed["size"] == 109  # of the level that is nearest


def test_recorded_cancels_are_ranked_among_the_live_orders_that_fit():
    measure = runpy.run_path(str(MEASURE))
    rows = [
        (1, A, 1, -1, 1010, 9), (2, A, 2, 1, 990, 5), (3, A, 3, 1, 990, 5), (4, A, 4, 1, 990, 5),
        (5, A, 5, 1, 990, 500), (5, A, 8, -1, 1020, 5),
        (6, D, 3, 1, 990, 5),  # 2, 3 and 4 fit; 4 is newer
        (7, X, 2, 1, 990, 5), (8, A, 6, 1, 990, 5),
        (9, D, 4, 1, 990, 5),  # 2 was filled: 4 and 6 fit
        (10, D, 5, 1, 990, 500), (11, P, 1, -1, 1010, 1), (12, D, 6, 1, 990, 5), (13, A, 7, 1, 990, 5),
        (30, D, 7, 1, 990, 5),  # no longer in the training part
    ]  # fmt: skip
    tokenizer = TradeTokenizer.load(checkpoint(BUNDLED_MODEL)[0])
    rank, fitting = measure["cancel_ranks"](flow_of(rows), tokenizer)
    assert rank.tolist() == [1, 1, 0, 0]
    assert fitting.tolist() == [3, 2, 1, 1]
    # Passed over twice, stopped at twice: the oldest and the only ones say nothing.
    assert measure["geometric_ratio"](np.array([1, 1, 0, 0]), np.array([3, 2, 2, 1])) == 0.5
    several = np.full(4, 4)
    assert measure["geometric"](0.3, np.arange(4), several) == pytest.approx([0.7, 0.21, 0.063, 0.027])
    assert measure["expected_shares"](0.3, np.array([1, 2]))[:3] == pytest.approx([0.85, 0.15, 0.0])
