"""Takers rebuilt from feeds of resting orders, on small feeds written out by hand and on random markets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradefm_gym.data.fidelity import _Book, check
from tradefm_gym.data.recorded import RecordedFlow, build
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HIDDEN, PARTIAL_CANCEL, FeedRows, Source
from tradefm_gym.market.events import CANCEL, LIMIT, PRINT

META = {"ticker": "T", "venue": "test", "date": "2025-01-02", "tick_size": 10, "price_unit": "1e-3", "size_unit": "1"}
A, P, D, X, H = ADD, PARTIAL_CANCEL, DELETE, EXECUTION, HIDDEN
BOOK = [(1, A, 1, -1, 1010, 5), (1, A, 2, -1, 1010, 5), (2, A, 3, -1, 1020, 5), (3, A, 4, 1, 990, 5)]


def flow_of(rows, **arguments) -> RecordedFlow:
    """Rows are (time, event, id, side, price, size[, flag])."""
    columns = zip(*((*row, 0)[:7] for row in rows), strict=True)
    return build(Source(FeedRows.build(*(list(c) for c in columns)), META, None), "test", **arguments)


def brief(flow: RecordedFlow) -> list[tuple]:
    names = ("kind", "order_id", "side", "price", "size", "max_rest", "filled", "notional")
    return list(zip(*(flow.flow[name].tolist() for name in names), strict=True))


def test_executions_of_one_instant_and_the_remainder_are_one_order():
    sweep = [(9, X, 1, -1, 1010, 5), (9, X, 2, -1, 1010, 5), (9, X, 3, -1, 1020, 2), (9, A, 7, 1, 1020, 4)]
    flow = flow_of([*BOOK, *sweep])
    assert brief(flow)[4:] == [(LIMIT, 4, 1, 102, 16, 4, 12, 5 * 101 + 5 * 101 + 2 * 102)]
    assert flow.meta.counts["merged_rows"] == 3
    assert flow.fills["maker_id"].tolist() == [0, 1, 2]
    assert flow.fills["taker_id"].tolist() == [4, 4, 4]
    assert flow.fills["wait_ns"].tolist() == [8, 8, 7]


def test_without_remainder_the_limit_is_the_worst_price_paid():
    flow = flow_of([*BOOK, (9, X, 1, -1, 1010, 5), (9, X, 2, -1, 1010, 1), (10, A, 7, 1, 1010, 4)])
    assert brief(flow)[4:] == [(LIMIT, 4, 1, 101, 6, 0, 6, 606), (LIMIT, 5, 1, 101, 4, 4, 0, 0)]


@pytest.mark.parametrize(
    "rows",
    [
        [(8, X, 1, -1, 1010, 5), (9, X, 2, -1, 1010, 5)],  # another instant
        [(9, X, 1, -1, 1010, 5), (9, X, 4, 1, 990, 5)],  # the other side
        [(9, X, 3, -1, 1020, 5), (9, X, 1, -1, 1010, 5)],  # a better price: a sweep only gets worse
        [(9, X, 1, -1, 1010, 5), (9, A, 7, -1, 1020, 1), (9, X, 2, -1, 1010, 5)],  # something in between
    ],
)
def test_what_makes_two_takers(rows):
    assert flow_of([*BOOK, *rows]).meta.counts["takers"] == 2


@pytest.mark.parametrize("add", [(9, A, 7, 1, 1000, 4), (9, A, 7, -1, 1010, 4), (10, A, 7, 1, 1010, 4)])
def test_an_add_below_the_price_paid_on_the_other_side_or_later_is_no_remainder(add):
    flow = flow_of([*BOOK, (9, X, 1, -1, 1010, 5), (9, X, 2, -1, 1010, 5), add])
    assert [row[5] for row in brief(flow)[4:]] == [0, 4]


def test_hidden_executions_follow_their_taker_and_are_prints_with_exact_notional():
    rows = [(9, X, 1, -1, 1010, 5), (9, H, 0, -1, 1015, 3), (9, X, 3, -1, 1020, 5), (9, H, 0, 0, 1020, 1)]
    flow = flow_of([*BOOK[:3], *rows], infer_opening=False)
    assert brief(flow)[3:] == [
        (LIMIT, 3, 1, 102, 10, 0, 10, 5 * 101 + 5 * 102),
        (PRINT, -1, 1, 102, 3, 0, 3, 305),  # 3 x 101.5 = 304.5, to the nearest tick-lot
        (PRINT, -1, 0, 102, 1, 0, 1, 102),
    ]
    assert flow.meta.counts["rounded_prints"] == 1


def test_cancels_say_what_was_removed_and_what_remains():
    flow = flow_of([*BOOK, (5, P, 1, -1, 1010, 2), (6, D, 1, -1, 1010, 3), (7, D, 1, -1, 1010, 3)])
    assert brief(flow)[4:] == [(CANCEL, 0, -1, 101, 2, 3, 0, 0), (CANCEL, 0, -1, 101, 3, 0, 0, 0)]
    assert flow.meta.counts["dead_cancels"] == 1


def test_an_id_that_is_added_again_is_a_new_order():
    flow = flow_of([*BOOK, (5, D, 1, -1, 1010, 5), (5, A, 1, -1, 1030, 5), (6, D, 1, -1, 1030, 5)])
    assert flow.flow["order_id"].tolist() == [0, 1, 2, 3, 0, 4, 4]


def test_fills_after_the_taker_was_added_give_the_same_order():
    rows = [(9, A, 7, 1, 1020, 16), (10, X, 1, -1, 1010, 5), (10, X, 7, 1, 1020, 5, 2), (11, X, 7, 1, 1020, 4, 2)]
    flow = flow_of([*BOOK, *rows, (11, X, 2, -1, 1010, 4), (12, D, 7, 1, 1020, 7)])
    assert flow.meta.counts["paired_fills"] == 2
    assert brief(flow)[4:] == [(LIMIT, 4, 1, 102, 16, 7, 9, 909), (CANCEL, 4, 1, 102, 7, 0, 0, 0)]


def test_a_modify_that_crosses_is_a_cancel_and_a_marketable_add():
    rows = [(9, X, 4, 1, 1010, 3), (9, X, 1, -1, 1010, 3), (9, D, 4, 1, 990, 2), (9, A, 4, 1, 1010, 2)]
    flow = flow_of([BOOK[0], BOOK[3], *rows])
    assert flow.meta.counts["modified_takers"] == 1
    assert brief(flow)[2:] == [(CANCEL, 1, 1, 99, 5, 0, 0, 0), (LIMIT, 2, 1, 101, 5, 2, 3, 303)]


def test_a_sideless_fill_of_a_resting_order_is_a_taker_and_an_auction_print_is_dropped():
    flow = flow_of([*BOOK, (9, CROSS, 1, -1, 1010, 2, 4), (9, CROSS, -1, 0, 1010, 2, 4)])
    assert brief(flow)[4:] == [(LIMIT, 4, 1, 101, 2, 0, 2, 202)]
    assert flow.meta.counts["dropped_crosses"] == 1


def test_lots_of_an_order_add_up_however_it_is_cut():
    rows = [(1, A, 1, -1, 1010, 1005), (2, A, 2, 1, 1000, 30)]
    rows += [(3 + k, X, 1, -1, 1010, 333) for k in range(3)] + [(9, D, 1, -1, 1010, 6)]
    flow = flow_of(rows, lot=10)
    assert flow.flow["size"].tolist() == [101, 3, 33, 34, 33, 1]
    with pytest.raises(ValueError, match="lot is 0"):
        flow_of(rows, lot=0)


def test_large_sizes_choose_the_smallest_power_of_ten():
    flow = flow_of([(1, A, 1, -1, 1010, 2 * 10**10), (2, A, 2, 1, 1000, 1)])
    assert flow.meta.lot == 10**4
    assert flow.flow["size"].tolist() == [2 * 10**6, 1]
    assert flow.meta.counts["below_one_lot"] == 1


def test_earlier_rows_build_the_opening_book_in_order_of_priority():
    rows = [*BOOK, (4, X, 1, -1, 1010, 2), (5, D, 3, -1, 1020, 5), (9, A, 9, 1, 980, 1), (20, A, 10, 1, 970, 1)]
    flow = flow_of(rows, session=(8, 20))
    opening = flow.records[: flow.opening]
    assert list(zip(opening["price"].tolist(), opening["size"].tolist(), strict=True)) == [(101, 3), (101, 5), (99, 5)]
    assert opening["order_id"].tolist() == [0, 1, 2]
    assert set(opening["mid2"].tolist()) == {200}
    assert (len(flow.flow), flow.meta.counts["dropped_late"]) == (1, 1)
    with pytest.raises(ValueError, match="no rows lie in the continuous session"):
        flow_of(rows, session=(50, 60))


def test_orders_never_added_open_the_book_unless_something_passed_over_them():
    unknown = [(30, D, 50, -1, 1030, 4), (31, P, 51, 1, 980, 2), (32, D, 51, 1, 980, 3)]
    flow = flow_of([*BOOK, *unknown])
    opening = flow.records[: flow.opening]
    assert opening["price"].tolist() == [103, 98] and opening["size"].tolist() == [4, 5]
    assert flow_of([*BOOK, *unknown], infer_opening=False).opening == 0
    # A bid at 103 rested there first; a taker paid 102 while 101 was supposedly on offer.
    quoted = [(1, A, 4, 1, 990, 5), (2, A, 7, 1, 1030, 1), (3, D, 50, -1, 1030, 4)]
    traded = [(1, A, 3, -1, 1020, 5), (2, X, 3, -1, 1020, 5), (3, D, 50, -1, 1010, 4)]
    assert flow_of(quoted).opening == 0
    assert flow_of(traded).opening == 0


def feed_of(actions, fills_first: bool) -> tuple[list[tuple], list[tuple]]:
    """Drive the reference book with random orders and write the feed that a venue would publish of it."""
    book, rows, orders, live = _Book(), [], [], []
    for time, (cancel, side, depth, size, pick) in enumerate(actions, start=1):
        if cancel and live:
            order = live[pick % len(live)]
            side, price = book.home[order]
            rest = book.levels[side][price][order]
            gone = book.cancel(order, min(size, rest))
            rows.append((time, D if gone == rest else P, order, side, price * 10, gone))
            orders.append((CANCEL, side, price, gone))
        else:
            order, price = 1000 + time, 100 - side * depth
            fills = book.match(side, price, size)
            done = sum(lots for _, _, lots in fills)
            if size > done:
                book.rest(order, side, price, size - done)
            if fills_first:
                rows += [(time, X, maker, -side, at * 10, lots) for maker, at, lots in fills]
                rows += [(time, A, order, side, price * 10, size - done)] if size > done else []
            else:
                rows.append((time, A, order, side, price * 10, size))
                for maker, at, lots in fills:
                    rows += [(time, X, maker, -side, at * 10, lots), (time, X, order, side, price * 10, lots, 2)]
            limit = price if size > done or not fills_first else fills[-1][1]
            orders.append((LIMIT, side, limit, size))
        live = list(book.home)
    return rows, orders


ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2).map(lambda k: k == 0),
        st.sampled_from([1, -1]),
        st.integers(-3, 5),
        st.integers(1, 9),
        st.integers(0, 999),
    ),
    min_size=2,
    max_size=120,
)


@pytest.mark.parametrize("fills_first", [True, False])
@settings(max_examples=60, deadline=None)
@given(actions=ACTIONS)
def test_a_feed_of_known_orders_gives_the_orders_back(fills_first, actions):
    rows, orders = feed_of(actions, fills_first)
    flow = flow_of(rows)
    assert [(k, s, p, z) for k, _, s, p, z, *_ in brief(flow)] == orders
    fidelity = check(flow)
    assert (fidelity.takers_equal, fidelity.lots_equal) == (fidelity.takers, fidelity.lots)
    assert (fidelity.spurious_lots, fidelity.missing_cancels, flow.meta.counts["crossed_records"]) == (0, 0, 0)
    # The touch after every record is that of the book.
    book = _Book()
    for record, touch in zip(flow.records, flow.touch.tolist(), strict=True):
        if record["kind"] == CANCEL:
            book.cancel(int(record["order_id"]), int(record["size"]))
        else:
            book.match(int(record["side"]), int(record["price"]), int(record["size"]))
            if record["max_rest"]:
                side, price, rest = (int(record[name]) for name in ("side", "price", "max_rest"))
                book.rest(int(record["order_id"]), side, price, rest)
        bid, ask = max(book.levels[1], default=0), min(book.levels[-1], default=0)
        sizes = [sum(book.levels[s][p].values()) if p else 0 for s, p in ((1, bid), (-1, ask))]
        assert touch == [bid, sizes[0], ask, sizes[1]]


def test_ids_are_dense_in_order_of_appearance():
    rng = np.random.default_rng(5)
    actions = [
        (rng.random() < 0.3, int(rng.choice([1, -1])), int(rng.integers(-2, 6)), int(rng.integers(1, 9)), k)
        for k in range(400)
    ]
    ids = flow_of(feed_of(actions, True)[0]).records["order_id"]
    first = ids[np.sort(np.unique(ids, return_index=True)[1])]
    assert first.tolist() == list(range(len(first)))
