"""The kernels that execute a recorded day, on rows written out by hand: what they log, count and compare."""

import numpy as np
import pytest

from tradefm_gym.data.live_orders import LiveOrders, find, insert, remove
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HALT, HIDDEN, PARTIAL_CANCEL, FeedRows
from tradefm_gym.realism import windowed
from tradefm_gym.realism.following import (
    BOOK,
    DIFFERENCE,
    DUPLICATE,
    OVERSIZE,
    PRICE,
    PRIORITY,
    SIDE,
    SIZE,
    STEP,
    THROUGH,
    TOTALS,
    UNKNOWN,
    Following,
    Snapshots,
    compare,
    follow,
)
from tradefm_gym.realism.recorded_day import COLUMNS
from tradefm_gym.realism.windowed import Window, carry_through

A, C, D, X, H = ADD, PARTIAL_CANCEL, DELETE, EXECUTION, HIDDEN
TICK = 10


def columns(rows):
    """Rows are (event, id, side, price, size), a nanosecond apart; with a time in front, then."""
    rows = [row if len(row) == 6 else (time_ns, *row) for time_ns, row in enumerate(rows)]
    feed = FeedRows.build(*(list(column) for column in zip(*rows, strict=True)))
    return tuple(getattr(feed, name) for name in COLUMNS)


def differences(log):
    return [(int(entry["row"]), int(entry["code"]), int(entry["found"])) for entry in log]


def followed(rows, lot=1, snapshots=None):
    """What was logged as (row, code, found), the totals that are not 0, and the touch after each row."""
    state = Following.start(TICK, lot).with_room(len(rows))
    touch, log = np.zeros((len(rows), 4), np.int64), np.zeros(2 * len(rows), DIFFERENCE)
    snapshots = Snapshots.empty() if snapshots is None else snapshots
    state, count = follow(state, snapshots, columns(rows), touch, log)
    compare(state, snapshots, np.int64(2**62))
    totals = {name: total for name, total in zip(TOTALS, state.totals.tolist(), strict=True) if total}
    return differences(log[:count]), totals, touch.tolist()


# ---- by id --------------------------------------------------------------------------------------------


def test_a_sound_book_matches_and_has_no_differences():
    log, totals, touch = followed(
        [(A, 1, 1, 990, 5), (A, 2, -1, 1010, 5), (X, 2, -1, 1010, 2), (C, 1, 1, 990, 1), (X, 2, -1, 1010, 3),
         (D, 1, 1, 990, 4)]
    )  # fmt: skip
    assert log == []
    assert totals == {
        "adds": 2, "cancels": 2, "cancels_equal": 2, "fills": 2, "fills_equal": 2, "filled_size": 5, "matched": 2,
    }  # fmt: skip
    assert touch == [[99, 5, 0, 0], [99, 5, 101, 5], [99, 5, 101, 3], [99, 4, 101, 3], [99, 4, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("row", "code", "found", "left"),
    [
        ((A, 1, -1, 1010, 9), DUPLICATE, 0, 12),
        ((X, 9, -1, 1010, 1), UNKNOWN, 0, 12),
        ((C, 9, -1, 1010, 1), UNKNOWN, 0, 12),
        ((X, 2, -1, 1010, 1), PRIORITY, 1, 11),  # 1 stands in front; 2 is reduced all the same
        ((X, 3, -1, 1020, 1), THROUGH, 1, 12),
        ((X, 1, -1, 1010, 9), OVERSIZE, 5, 7),
        ((X, 1, -1, 1000, 5), PRICE, 1010, 7),
        ((X, 1, 1, 1010, 5), SIDE, -1, 7),
        ((C, 1, 1, 1010, 2), SIDE, -1, 10),
        ((C, 1, -1, 1020, 2), PRICE, 1010, 10),
        ((C, 1, -1, 1010, 9), OVERSIZE, 5, 7),
        ((D, 1, -1, 1010, 2), SIZE, 5, 7),
    ],
)
def test_what_differs_is_logged_and_the_record_believed(row, code, found, left):
    """The asks are 5 lots of order 1 and 7 of order 2 at 1010, and 4 of order 3 behind them."""
    log, totals, touch = followed([(A, 1, -1, 1010, 5), (A, 2, -1, 1010, 7), (A, 3, -1, 1020, 4), row])
    assert log == [(3, code, found)]
    assert touch[-1] == [0, 0, 101, left]
    assert not {"matched", "fills_equal", "cancels_equal"} & totals.keys()


def test_auctions_hidden_orders_and_halts_are_counted_apart():
    log, totals, touch = followed(
        [(A, 1, 1, 990, 9), (A, 2, -1, 1010, 9), (CROSS, 1, 1, 1000, 2), (CROSS, 2, -1, 1000, 3),
         (CROSS, 2, 0, 1000, 4), (CROSS, 0, 0, 1000, 50), (HALT, 0, 0, 0, 0), (H, 0, 1, 1000, 7)]
    )  # fmt: skip
    assert log == []  # an auction pays one price, whatever its orders had
    assert totals == {
        "adds": 2, "crosses": 4, "named_crosses": 3, "fills_equal": 3, "cross_bought": 2, "cross_sold": 3,
        "cross_sideless": 54, "halts": 1, "hidden": 1, "hidden_size": 7,
    }  # fmt: skip
    assert touch[-1] == [99, 7, 101, 2]


def test_a_part_of_a_lot_leaves_the_lot_resting():
    rows = [(A, 1, -1, 1010, 250), (X, 1, -1, 1010, 40), (X, 1, -1, 1010, 20), (X, 1, -1, 1010, 190)]
    log, totals, touch = followed(rows, lot=100)
    assert log == []
    assert [row[3] for row in touch] == [3, 3, 2, 0]
    assert (totals["fills_equal"], totals["matched"]) == (3, 2)  # the first took nothing off the exchange's book


def test_snapshots_are_compared_at_their_stamp_and_near_it():
    rows = [
        (10, A, 1, 1, 990, 5), (10, A, 2, -1, 1010, 6), (20, A, 3, -1, 1020, 7), (30, A, 4, 1, 980, 8),
        (40, D, 2, -1, 1010, 6), (50, D, 1, 1, 990, 5), (60, D, 4, 1, 980, 8),
    ]  # fmt: skip
    # (touch, all levels) at the stamp, within 2 of it, from 5 before to 5 after it
    two_asks = [[101, 6, 99, 5], [102, 7, 0, 0]]
    cases = [
        (15, [[101, 6, 99, 5], [0, 0, 0, 0]], (1, 1, 1, 1, 1, 1)),
        (22, [[101, 6, 99, 5], [0, 0, 0, 0]], (1, 1, 1, 0, 0, 1)),  # up to 20, which is near enough
        (28, [[101, 6, 99, 5], [0, 0, 0, 0]], (1, 1, 1, 0, 0, 0)),
        (29, [[101, 6, 99, 5], [102, 7, 98, 8]], (1, 1, 1, 0, 1, 1)),  # from 30 on
        (35, two_asks, (1, 1, 1, 0, 0, 0)),  # there is a second bid
        (45, [[102, 7, 99, 5], [0, 0, 98, 9]], (1, 1, 1, 0, 0, 0)),
        (46, [[102, 7, 98, 8], [0, 0, 0, 0]], (0, 0, 1, 0, 0, 1)),
        (65, [[102, 7, 0, 0], [0, 0, 0, 0]], (1, 1, 1, 1, 1, 1)),
        (66, [[103, 7, 0, 0], [0, 0, 0, 0]], (0, 0, 0, 0, 0, 0)),
    ]
    times, books, equal = zip(*cases, strict=True)
    snapshots = Snapshots.of(np.array(times), np.array(books, np.int64), (5, 5), 2)
    assert followed(rows, snapshots=snapshots)[0] == []
    assert [tuple(row) for row in snapshots.equal.astype(int).tolist()] == list(equal)


def test_levels_far_outside_the_window_of_prices_are_compared_as_well():
    rows = [(A, 1, -1, 1010, 5), (A, 2, -1, 90000, 6), (A, 3, 1, 1000, 7)]
    books = np.array([asks((101, 5), (9000, 6)), asks((101, 5), (9001, 6)), asks((101, 5), (9000, 7))], np.int64)
    books[:, 0, 2:] = 100, 7
    snapshots = Snapshots.of(np.full(3, 3), books, (0, 0))
    followed(rows, snapshots=snapshots)
    assert snapshots.equal.tolist() == [[True] * 6, [True] * 3 + [False] * 3, [True] * 3 + [False] * 3]


@pytest.mark.parametrize("step", [1, 16, 1 << 20, 1 << 33])
def test_live_orders_are_found_again_whatever_their_ids_have_in_common(step):
    generator, live, held = np.random.default_rng(step), LiveOrders.allocate(16), {}
    for number in range(400):
        live = live.with_room(1)
        order_id = int(step * (number - 100))  # negative ones stand for levels
        assert find(live, np.int64(order_id)) == -1
        held[order_id] = insert(live, np.int64(order_id), np.int8(1), np.int64(number), np.int64(1))
        if number > 60:
            gone = int(generator.choice(list(held)))
            remove(live, held.pop(gone))
            assert find(live, np.int64(gone)) == -1
        assert len(set(held.values())) == len(held)
    assert {order_id: find(live, np.int64(order_id)) for order_id in held} == held
    assert live.capacity <= 128  # places are used again


# ---- beside a recorded book ---------------------------------------------------------------------------


def carried(rows, books, lot=1):
    """What was logged, and the counts by name."""
    levels = len(books[0])
    window = Window.start(TICK, lot, levels)
    window = window._replace(following=window.following.with_room(3 * len(rows) + 4 * levels))
    log = np.zeros(4 * len(rows), DIFFERENCE)
    window, count = carry_through(window, columns(rows), np.array(books, np.int64), 1, log)
    names = ("STEPS", "STEPS_EQUAL", "LEVELS_EQUAL", "BEST_EQUAL", "FROM_LEVEL", "ENTERED", "LEFT")
    totals = dict(zip(TOTALS, window.following.totals.tolist(), strict=True))
    return differences(log[:count]), {name: int(window.counts[getattr(windowed, name)]) for name in names}, totals


def asks(*levels, count=2):
    """A recorded book without bids."""
    return [[price, lots, 0, 0] for price, lots in (*levels, *[(0, 0)] * (count - len(levels)))]


def test_a_day_beside_its_book_is_carried_and_its_differences_logged():
    rows = [
        (A, 1, -1, 1010, 5), (A, 2, -1, 1010, 5),
        (A, 1, -1, 1010, 5),  # the id rests already, and the recorded book has no more either
        (X, 2, -1, 1010, 3),  # 1 stands in front
        (A, 3, -1, 1020, 5), (X, 3, -1, 1020, 1),  # behind a better price
        (D, 9, -1, 1030, 1),  # of no known order, on no level
        (C, 3, -1, 1020, 9),
        (X, 1, -1, 1010, 2),
        (H, 0, 1, 1000, 7), (CROSS, 0, 0, 1000, 8), (HALT, 0, 0, 0, 0),
    ]  # fmt: skip
    books = [
        asks((101, 5)), asks((101, 10)), asks((101, 10)), asks((101, 7)), asks((101, 7), (102, 5)),
        asks((101, 7), (102, 4)), asks((101, 7), (102, 4)), asks((101, 7)), *[asks((101, 5))] * 4,
    ]  # fmt: skip
    log, counts, totals = carried(rows, books)
    assert log == [
        (2, STEP, 0), (2, DUPLICATE, 0), (3, PRIORITY, 1), (5, THROUGH, 1), (6, UNKNOWN, 0), (7, OVERSIZE, 4),
    ]  # fmt: skip
    assert (counts["STEPS"], counts["STEPS_EQUAL"]) == (11, 10)
    assert counts["LEVELS_EQUAL"] == counts["BEST_EQUAL"] == 12
    assert counts["FROM_LEVEL"] == 1  # the unknown one was looked for on its level
    # A fill that met another order first still has its own size, side and price.
    assert (totals["fills"], totals["fills_equal"], totals["matched"]) == (3, 3, 1)
    assert (totals["cancels"], totals["cancels_equal"]) == (2, 0)
    assert (totals["hidden_size"], totals["cross_sideless"], totals["halts"]) == (7, 8, 1)


@pytest.mark.parametrize("second", [102, 9000])
def test_levels_that_enter_and_leave_come_from_the_file(second):
    """The second level may lie far outside the exchange's window of prices; it is kept all the same."""
    far = second * TICK
    rows = [
        (A, 1, -1, 1010, 5), (A, 2, -1, far, 3),
        (H, 0, 1, 1000, 1),  # the file says 4 lots without a message: they become the level's own order
        (C, 7, -1, far, 1),  # of an unknown order, and so of the level
        (D, 1, -1, 1010, 5),
        (H, 0, 1, 1000, 1),  # below the only level that is left another one comes into view
        (A, 8, -1, 1000, 1),  # and leaves it again
    ]  # fmt: skip
    books = [
        asks((101, 5)), asks((101, 5), (second, 3)), asks((101, 5), (second, 4)), asks((101, 5), (second, 3)),
        asks((second, 3)), asks((second, 3)), asks((100, 1), (second, 3)),
    ]  # fmt: skip
    log, counts, totals = carried(rows, books)
    assert log == [(2, STEP, 0), (2, BOOK, 1)]
    assert (counts["LEVELS_EQUAL"], counts["BEST_EQUAL"], counts["FROM_LEVEL"]) == (6, 7, 1)
    assert totals["cancels_equal"] == totals["cancels"] == 2


def test_a_window_of_one_level_takes_in_and_drops_what_lies_behind_it():
    rows = [
        (A, 1, -1, 1020, 5), (A, 2, -1, 1010, 4),  # 1020 leaves the file's view
        (X, 2, -1, 1010, 4),  # it comes back, with an order more
        (X, 1, -1, 1020, 2), (D, 5, -1, 1020, 3),  # whose messages go to the level
    ]  # fmt: skip
    books = [asks((lots[0], lots[1]), count=1) for lots in ((102, 5), (101, 4), (102, 8), (102, 6), (102, 3))]
    log, counts, totals = carried(rows, books)
    assert log == []
    assert (counts["ENTERED"], counts["LEFT"], counts["FROM_LEVEL"]) == (1, 1, 2)
    assert (totals["fills_equal"], totals["cancels_equal"]) == (2, 1)
