"""Days as venues record them that are not at hand: how marketable orders show, what ids tell, what is not there."""

import lzma
from dataclasses import replace

import feed_files as made
import numpy as np
import pytest

pytest.importorskip("polars", reason="needs the data extra")
pytest.importorskip("pyarrow", reason="needs the data extra")

import polars
import venue_days
from venue_days import ADD, CROSS, DELETE, EXECUTION, HALT, META, START_NS

from tradefm_gym import cli
from tradefm_gym.data import load
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.realism.recorded_day import check_day

ORDERS = venue_days.market(1500, seed=1)
ROWS = venue_days.rows_of(ORDERS, "rest")
TRADED = sum(size for order in ORDERS for _, _, size in order.fills)


def check(path, **options):
    return check_day(open_feed(path, ReadOptions(**options)))


def kinds(findings):
    return {finding.kind for finding in findings}


@pytest.mark.parametrize(
    ("style", "explained"),
    [
        ("rest", set()),
        ("cancels", {"crossed book"}),
        ("whole", {"crossed book", "cancel or fill at another price than its order"}),
        ("unflagged", {"crossed book", "cancel or fill at another price than its order"}),
    ],
)
def test_a_sound_day_is_explained_however_its_takers_show(tmp_path, style, explained):
    day = check(venue_days.folder(tmp_path, venue_days.rows_of(ORDERS, style)))
    assert (day.unexplained, kinds(day.explained)) == ([], explained)
    assert (day.unknown_ids, day.cancels_differ, day.crossed_states > 0) == (0, 0, style != "rest")
    # Without flags nothing says which of two fills is the taker's, so each trade counts twice.
    assert day.volume == (2 * TRADED if style == "unflagged" else TRADED)


def test_a_better_price_is_unexplained_where_the_order_was_not_marketable(tmp_path):
    orders = [(START_NS + k, ADD, k + 1, side, price, 100, 0) for k, (side, price) in enumerate(((1, 900), (-1, 1100)))]
    day = check(venue_days.folder(tmp_path, [*orders, (START_NS + 9, EXECUTION, 1, 1, 800, 100, 0)]))
    assert kinds(day.unexplained) == {"cancel or fill at another price than its order"}


def scattered(ids):
    """Ids that say nothing about age, as where venues draw them."""
    return np.where(ids > 0, ids * 2654435761 % 2**40 + 1, ids)


def by_appearance(ids):
    """Ids as a conversion numbers them that met names instead."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return (np.argsort(np.argsort(first)) + 1)[inverse]


@pytest.mark.parametrize("renamed", [lambda ids: ids, scattered, by_appearance])
def test_a_day_that_starts_in_the_middle_is_explained_whatever_ids_tell(tmp_path, renamed):
    late = ROWS[500:]
    ids = renamed(np.array([row[2] for row in late]))
    day = check(venue_days.folder(tmp_path, late, order_id=ids))
    added = {row[2] for row in late if row[1] == ADD}
    assert day.unknown_ids == sum(row[2] not in added for row in late) > 0
    assert (day.unexplained, kinds(day.explained)) == ([], {"unknown id"})
    assert day.inferred_opening > 0


@pytest.mark.parametrize("start", [0, 500])
def test_lost_adds_are_no_orders_from_before_the_first_row(tmp_path, start):
    rows, adds = ROWS[start:], [k for k, row in enumerate(ROWS) if row[1] == ADD and k > start + 100]
    named = {row[2] for row in rows if row[1] != ADD}
    lost = [k - start for k in adds[::37] if ROWS[k][2] in named]
    ids = {rows[k][2] for k in lost}
    day = check(venue_days.folder(tmp_path, [row for k, row in enumerate(rows) if k not in lost]))
    missing = [row for row in rows if row[1] != ADD and row[2] in ids]
    assert sum(finding.count for finding in day.unexplained if finding.kind == "unknown id") == len(missing) > 10


def test_an_old_id_among_the_first_adds_makes_no_order_from_before_them_unexplained(tmp_path):
    old = (ROWS[500][0], ADD, 3, 1, 100, 100, 8)  # first seen through a modify
    day = check(venue_days.folder(tmp_path, [old, *ROWS[500:]]))
    assert (day.unexplained, day.unknown_ids > 0) == ([], True)


def test_orders_come_from_outside_the_levels_of_a_file_but_not_from_within(tmp_path):
    """A file of five levels without its book file: orders that enter them later have no add, nor have lost ones."""
    meta = {**META, "levels": 5}
    bids = [(START_NS + k, ADD, 100 + 3 * k, 1, 10_000 - 100 * (k % 5), 100, 0) for k in range(20)]
    last = [(START_NS + 30 + k, ADD, 300 + 7 * k, -1, 10_500, 100, 0) for k in range(5)]
    far, near = ((START_NS + 90, DELETE, 202, 1, price, 7, 0) for price in (9_600, 9_900))
    day = check(venue_days.folder(tmp_path / "far", [*bids, *last, far], meta))
    assert (day.unknown_ids, day.unexplained) == (1, [])
    assert "outside the file's levels" in day.explained[0].reason
    day = check(venue_days.folder(tmp_path / "near", [*bids, *last, near], meta))
    assert [(finding.kind, finding.first_row) for finding in day.unexplained] == [("unknown id", 25)]
    for levels in (None, 0, "5"):  # a file of all levels, or one that does not say
        day = check(venue_days.folder(tmp_path / f"{levels!r}", [*bids, *last, far], {**META, "levels": levels}))
        assert kinds(day.unexplained) == {"unknown id"}


def test_an_order_from_nowhere_is_unexplained_however_large_its_id(tmp_path):
    row = (ROWS[800][0], DELETE, 10**15, 1, 100, 100, 0)  # no price contradicts it, but ids here tell ages
    day = check(venue_days.folder(tmp_path, [*ROWS[500:800], row, *ROWS[800:]]))
    assert [(finding.kind, finding.first_row) for finding in day.unexplained] == [("unknown id", 300)]


@pytest.mark.parametrize("renamed", [lambda ids: ids, scattered])
def test_an_order_that_cannot_have_rested_before_the_day_is_unexplained(tmp_path, renamed):
    # A bid above all asks was not there when those rested.
    row = (ROWS[800][0], DELETE, 10**9, 1, 2_000_000, 100, 0)
    rows = [*ROWS[500:800], row, *ROWS[800:]]
    day = check(venue_days.folder(tmp_path, rows, order_id=renamed(np.array([row[2] for row in rows]))))
    assert [(finding.kind, finding.first_row) for finding in day.unexplained] == [("unknown id", 300)]


def in_feed_order(what):
    """A day with one delete that is repeated, or stands before its add, "late" a nanosecond later."""
    k = next(k for k, row in enumerate(ROWS) if k > 300 and row[1] == DELETE)
    row = ROWS[k]
    if what == "repeated":
        return [*ROWS[: k + 1], (row[0] + 1, *row[1:]), *((max(r[0], row[0] + 1), *r[1:]) for r in ROWS[k + 1 :])]
    new = (row[0], ADD, 10**9, row[3], 200 if row[3] > 0 else 2_000_000, 100, 0)
    end = (row[0] - (what == "late"), DELETE, 10**9, *new[3:])
    return [*ROWS[:k], end, new, *ROWS[k:]]


@pytest.mark.parametrize("flag", [0, 2])
@pytest.mark.parametrize("what", ["repeated", "late", "swapped"])
def test_repeats_and_late_adds_are_explained_only_where_the_feed_numbers_nothing(tmp_path, flag, what):
    """A taker's own fill (flag 2) shows such a feed; in any an add may follow at the same time."""
    fill = [(START_NS, ADD, 5, 1, 100, 1, 0), (START_NS, EXECUTION, 5, 1, 100, 1, flag)]
    day = check(venue_days.folder(tmp_path, [*fill, *in_feed_order(what)]))
    assert (day.unexplained_count == 0) == (flag == 2 or what == "swapped")


def test_an_opening_auction_and_halts_are_followed(tmp_path):
    """Two orders cross before the open and trade at one price; a halt stands between; the book goes on."""
    early = START_NS - 10**9
    auction = [
        (early, ADD, 1, 1, 1_000_300, 500, 0), (early + 1, ADD, 2, -1, 999_900, 300, 0),
        (early + 2, CROSS, 1, 1, 1_000_000, 300, 4), (early + 2, CROSS, 2, -1, 1_000_000, 300, 4),
        (early + 3, DELETE, 1, 1, 1_000_300, 200, 0), (early + 4, HALT, 0, 0, -1, 0, 0),
    ]  # fmt: skip
    halt = (ROWS[700][0], HALT, 0, 0, 1, 0, 0)
    day = check(venue_days.folder(tmp_path, [*auction, *ROWS[:700], halt, *ROWS[700:]]))
    assert (day.unexplained, day.explained[0].reason.startswith("an auction")) == ([], True)
    assert (day.volume, day.totals["halts"], day.totals["crosses"]) == (TRADED + 300, 2, 2)


def snapshots_of(path, volume, first=0):
    """Snapshots of the touch once a second, stamped with whole seconds, with the volume traded so far."""
    day = [(START_NS, ADD, 1, 1, 900, 7, 0), (START_NS, ADD, 2, -1, 1100, 5, 0)]
    day += [(START_NS + 10**8 + k * 10**9, EXECUTION, 1, 1, 900, 1, 0) for k in range(5)]
    venue_days.folder(path, day)
    stamps = START_NS + np.arange(5) * 10**9
    table = {"ts_ns": stamps, "volume": np.linspace(first, volume, 5).astype(np.int64), "phase": np.full(5, 2)}
    for name, values in (("ask_px", 1100), ("ask_sz", 5), ("bid_px", 900), ("bid_sz", np.arange(6, 1, -1))):
        table[f"{name}_1"] = np.full(5, values) if np.isscalar(values) else values
    polars.DataFrame(table).write_parquet(path / "snapshots.parquet")
    return path


def test_a_stamp_of_whole_seconds_stands_for_a_moment_within(tmp_path):
    day = check(snapshots_of(tmp_path, 5))
    shares = {agreement.what: agreement.equal for agreement in day.agreement}
    assert shares["prices and sizes of the best 1 levels, at the stamp"] == 0  # the fill comes 0.1 s later
    assert shares["prices and sizes of the best 1 levels, at some row of the stamped second"] == 5
    assert shares["best bid and ask, at the stamp"] == 5
    assert (day.volume, day.volume_recorded, day.unexplained) == (5, 5, [])


def test_a_volume_that_is_not_the_venues_is_unexplained(tmp_path):
    day = check(snapshots_of(tmp_path, 6))
    assert kinds(day.unexplained) == {"traded volume that is not the venue's"}
    assert check(snapshots_of(tmp_path, 60, first=50)).volume_recorded is None  # counts from before the first row


def test_a_set_without_order_ids_is_refused(tmp_path):
    trades = [(*row[:2], -1, *row[3:]) for row in ROWS if row[1] == EXECUTION]
    with pytest.raises(FeedError, match="no row names an order"):
        check(venue_days.folder(tmp_path, trades))


def test_sizes_that_no_total_holds_are_refused(tmp_path):
    size = np.array([row[5] for row in ROWS]) * 10**15
    with pytest.raises(FeedError, match=r"sizes add up to more than 2\^62"):
        check(venue_days.folder(tmp_path, ROWS, size=size))


# ---- LOBSTER files as they are found --------------------------------------------------------------------

PLAIN = made.made_up_day(300, seed=5, replaces=False)


def zstandard(data):
    import pyarrow

    return pyarrow.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (made.LOBSTER_NAME, lambda data: data.replace(b"\n", b"\r\n")),
        (made.LOBSTER_NAME, lambda data: data.replace(b"\n", b",null\n")),  # newer files have a seventh column
        (made.LOBSTER_NAME, lambda data: data + b"\n\r\n"),
        (made.LOBSTER_NAME + ".xz", lzma.compress),
        (made.LOBSTER_NAME + ".zst", zstandard),
        ("messages.csv", lambda data: data),
    ],
)
def test_a_lobster_file_is_read_as_it_is_found(tmp_path, name, changed):
    path = tmp_path / name
    path.write_bytes(changed(made.lobster_file(PLAIN)))
    day = check(path, date="2025-01-15")
    assert (day.format, day.date, day.rows, day.unexplained_count) == ("lobster", "2025-01-15", 300, 0)
    assert len(load(path, date="2025-01-15")) == 300


def test_an_orderbook_file_is_found_whatever_it_is_compressed_with(tmp_path):
    (tmp_path / made.LOBSTER_NAME).write_bytes(made.lobster_file(PLAIN))
    beside = made.LOBSTER_NAME.replace("message", "orderbook") + ".xz"
    (tmp_path / beside).write_bytes(lzma.compress(b"9900,100,9800,100\n" * len(PLAIN)))
    assert open_feed(tmp_path / made.LOBSTER_NAME).book is not None


def test_a_file_of_empty_lines_has_no_rows(tmp_path, capsys):
    (tmp_path / made.LOBSTER_NAME).write_bytes(b"\n\n")
    assert cli.main(["data", "check", str(tmp_path / made.LOBSTER_NAME)]) == 2
    assert capsys.readouterr().err.endswith("the feed has no rows.\n")


def test_a_dbn_file_from_beyond_the_years_that_can_be_told_is_refused(tmp_path):
    pytest.importorskip("databento_dbn", reason="needs the databento extra")
    data = bytearray(made.dbn_file(PLAIN))
    at = data.index(made.midnight_ns("2025-01-15").to_bytes(8, "little"))
    data[at : at + 8] = (2**64 - 2).to_bytes(8, "little")
    (tmp_path / "day.dbn").write_bytes(bytes(data))
    with pytest.raises(FeedError, match="days from 1970 to 2200"):
        check(tmp_path / "day.dbn")


def test_a_venue_of_unknown_date_has_no_session(tmp_path):
    day = check(venue_days.folder(tmp_path, ROWS, {**META, "venue": "CME", "date": "unknown"}))
    assert day.unexplained_count == 0


def test_prices_on_another_grid_are_followed(tmp_path):
    price = np.array([row[4] for row in ROWS]) // 100 * 25
    day = check(venue_days.folder(tmp_path, ROWS, {**META, "tick_size": 25}, price=price))
    assert (day.unexplained, day.volume) == ([], TRADED)


def test_times_of_another_zone_or_day_are_followed(tmp_path):
    time_ns = np.array([row[0] for row in ROWS])
    for shift in (-5 * 3600 * 10**9, 86_400 * 10**9, 1_736_899_200 * 10**9):
        day = check(venue_days.folder(tmp_path, ROWS, ts_ns=time_ns + shift))
        assert (day.unexplained, day.rows) == ([], len(ROWS))


def test_a_day_of_one_message_is_a_day(tmp_path):
    assert replace(ORDERS[0]).event == ADD
    day = check(venue_days.folder(tmp_path, ROWS[:1]))
    assert (day.rows, day.unexplained, day.volume) == (1, [], 0)
