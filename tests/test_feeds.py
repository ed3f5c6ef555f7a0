"""Readers of the binary and text formats: made-up files after their specifications, and what is wrong with a file."""

import gzip
import json
import lzma
import struct
from dataclasses import replace

import feed_files as made
import numpy as np
import pytest

from tradefm_gym.data import load
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.data.rows import ADD, CROSS, DELETE, EXECUTION, HALT, HIDDEN, PARTIAL_CANCEL

pytest.importorskip("pyarrow", reason="needs the data extra")

EVENTS = {"A": ADD, "X": PARTIAL_CANCEL, "D": DELETE, "E": EXECUTION, "P": HIDDEN}
DAY = made.made_up_day(3000, seed=5, replaces=False)


def write(path, content):
    path.write_bytes(content)
    return path


def databento(content=None):
    pytest.importorskip("databento_dbn", reason="needs the databento extra")
    return made.dbn_file(DAY) if content is None else content


def expected(messages, sides=True):
    """Columns of the shared schema; formats that give prints no side leave 0."""
    rows = [
        (m.time_ns, EVENTS[m.event], m.order_id, m.side if sides or m.event != "P" else 0, m.price, m.size)
        for m in messages
    ]
    return [np.array(column) for column in zip(*rows, strict=True)]


def assert_rows(rows, columns):
    for name, column in zip(("time_ns", "event", "order_id", "side", "price", "size"), columns, strict=True):
        np.testing.assert_array_equal(getattr(rows, name), column, err_msg=name)


# ---- the same day in every format ---------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_itch_gives_the_day_of_the_chosen_stock(tmp_path, pack):
    feed = open_feed(write(tmp_path / "01152025.NASDAQ_ITCH50", pack(made.itch_file(DAY))), ReadOptions(symbol="ABCD"))
    assert (feed.format, feed.meta["ticker"], feed.meta["date"]) == ("itch", "ABCD", "2025-01-15")
    rows = feed.gather().rows
    assert_rows(rows, expected(DAY, sides=False))
    assert feed.full_opening


def test_dbn_gives_the_day(tmp_path):
    import pyarrow

    packed = pyarrow.compress(databento(), codec="zstd", asbytes=True)
    for path in (write(tmp_path / "a", databento()), write(tmp_path / "b", packed)):
        feed = open_feed(path)
        assert (feed.format, feed.meta["ticker"], feed.meta["date"]) == ("dbn", "ABCD", "2025-01-15")
        assert (feed.tick, feed.meta["price_unit"]) == (100, "1e-4")
        assert_rows(feed.gather().rows, expected(DAY, sides=False))


def test_a_csv_gives_the_day_through_its_map(tmp_path):
    feed = open_feed(write(tmp_path / "a.csv", made.csv_file(DAY)), ReadOptions(columns=made.CSV_MAP))
    assert_rows(feed.gather().rows, expected(DAY))
    small = open_feed(write(tmp_path / "a.csv", made.csv_file(DAY)), ReadOptions(columns=made.CSV_MAP, batch=100))
    assert_rows(small.gather().rows, expected(DAY))


def test_lobster_gives_the_day_in_batches(tmp_path):
    path = write(tmp_path / made.LOBSTER_NAME, made.lobster_file(DAY))
    feed = open_feed(path, ReadOptions(batch=100))
    batches = list(feed.batches())
    assert len(batches) == 31  # the last rows of each wait for those after them
    assert_rows(feed.gather().rows, expected(DAY))
    np.testing.assert_array_equal(np.concatenate([rows.time_ns for rows in batches]), expected(DAY)[0])
    np.testing.assert_array_equal(np.concatenate([rows.source for rows in batches]), np.arange(3000))


def test_every_format_loads_as_the_same_flow(tmp_path):
    lobster = load(write(tmp_path / made.LOBSTER_NAME, made.lobster_file(DAY)))
    table = load(write(tmp_path / "a.csv", made.csv_file(DAY)), columns=made.CSV_MAP, session=lobster.meta.session_ns)
    itch = load(write(tmp_path / "a.itch", made.itch_file(DAY)), symbol="ABCD")
    for other in (table, itch):
        prints = lobster.records["kind"] == 3
        for name in ("time_ns", "order_id", "price", "size", "filled", "notional", "mid2", "kind"):
            np.testing.assert_array_equal(other.records[name], lobster.records[name])
        np.testing.assert_array_equal(other.records["side"][~prints], lobster.records["side"][~prints])
        np.testing.assert_array_equal(other.touch, lobster.touch)


# ---- ITCH ---------------------------------------------------------------------------------------------


def itch(tmp_path, *messages, **options):
    return open_feed(write(tmp_path / "a.itch", made.framed(*messages)), ReadOptions(symbol="ABCD", **options))


def add(time_ns=10, order_id=1, side=1, size=300, price=990_000):
    return made.itch_add(time_ns, order_id, side, size, price, "ABCD", 7)


def test_lengths_of_the_specification():
    lengths = {message[:1]: len(message) for message in (
        made.itch_directory("ABCD", 7), made.itch_system(b"O", 1), add(),
        made.itch_add(1, 1, 1, 1, 1, "ABCD", 7, b"NSDQ"),
        *(made.itch_change(made.Message(1, event, 1, 1, 1, 1), 7) for event in "XDEUP"),
    )}  # fmt: skip
    assert lengths == {b"R": 39, b"S": 12, b"A": 36, b"F": 40, b"X": 23, b"D": 19, b"E": 31, b"U": 35, b"P": 44}


def test_replace_is_a_delete_and_an_add(tmp_path):
    rows = itch(
        tmp_path, add(), made.itch_change(made.Message(20, "U", 1, 1, 980_000, 200, 2), 7),
        made.itch_change(made.Message(30, "D", 2, 1, 0, 0), 7),
    ).gather().rows  # fmt: skip
    assert rows.event.tolist() == [ADD, DELETE, ADD, DELETE]
    assert rows.order_id.tolist() == [1, 1, 2, 2]
    assert rows.price.tolist() == [990_000, 990_000, 980_000, 980_000]
    assert rows.size.tolist() == [300, 300, 200, 200]
    assert rows.source.tolist() == [0, 1, 1, 2]


def test_executions_at_other_prices_crosses_and_halts(tmp_path):
    def with_price(time_ns, size, printable, price):
        return made.itch_message(b"C", 7, time_ns, struct.pack(">QIQcI", 1, size, 5, printable, price))

    cross = made.itch_message(b"Q", 7, 40, struct.pack(">Q8sIQc", 900, b"ABCD    ", 991_000, 6, b"O"))
    halt = made.itch_message(b"H", 7, 50, b"ABCD    H " + b"T1  ")
    rows = (
        itch(tmp_path, add(), with_price(20, 100, b"Y", 991_000), with_price(30, 100, b"N", 991_000), cross, halt)
        .gather()
        .rows
    )
    assert rows.event.tolist() == [ADD, EXECUTION, CROSS, CROSS, HALT]
    assert rows.flag.tolist() == [0, 16, 4, 4, 0]
    assert rows.order_id.tolist() == [1, 1, 1, 0, 0]
    assert rows.size.tolist() == [300, 100, 100, 900, 0]


def test_a_cancel_of_all_is_a_delete(tmp_path):
    rows = itch(tmp_path, add(), made.itch_change(made.Message(20, "X", 1, 1, 0, 300), 7)).gather().rows
    assert rows.event.tolist() == [ADD, DELETE]


def test_several_stocks_need_a_name(tmp_path):
    path = write(tmp_path / "a.itch", made.itch_file(DAY))
    with pytest.raises(FeedError, match="holds several stocks"):
        open_feed(path).gather()
    with pytest.raises(FeedError, match="no order of the symbol 'QQQ'"):
        open_feed(path, ReadOptions(symbol="QQQ")).gather()
    alone = open_feed(write(path, made.framed(add())))
    assert alone.meta["ticker"] == "ABCD"
    assert len(alone.gather().rows) == 1


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (made.itch_message(b"D", 7, 20, struct.pack(">Q", 9)), "row 1: order 9 is not on the book"),
        (made.itch_message(b"D", 7, 20, b""), "row 1: length is 11; a message has the length of its type"),
        (made.itch_message(b"z", 7, 20, b"x"), "row 1: type is 'z'; message types are those of ITCH"),
        (made.itch_add(20, 2, 1, 0, 990_000, "ABCD", 7), "row 1: size is 0; sizes must be positive"),
        (made.itch_add(20, 2, 1, 100, 990_050, "ABCD", 7), "row 1: price is 990050; prices are multiples of 100"),
        (made.itch_add(5, 2, 1, 100, 990_000, "ABCD", 7), "row 1: time_ns is 5 after 10; time must not decrease"),
        (add(20, 2).replace(b"B", b"?", 1), "row 1: side is '\\?'; sides are B and S"),
    ],
)  # fmt: skip
def test_bad_itch_messages_are_named_or_counted(tmp_path, bad, sentence):
    with pytest.raises(FeedError, match=sentence) as raised:
        itch(tmp_path, add(), bad, add(30, 3)).gather()
    assert raised.value.row == 1
    feed = itch(tmp_path, add(), bad, add(30, 3), lenient=True)
    assert feed.gather().rows.order_id.tolist() == [1, 3]
    assert sum(feed.skips.counts.values()) == 1


# ---- Databento ----------------------------------------------------------------------------------------


def dbn(tmp_path, *records, **options):
    pytest.importorskip("databento_dbn", reason="needs the databento extra")
    return open_feed(
        write(tmp_path / "a.dbn", made.dbn_file([]) + b"".join(records)), ReadOptions(tick_size=100, **options)
    )


def record(action, order_id=1, price=99.0, size=3, side=b"B", at=10, **changes):
    return made.mbo_record(made.midnight_ns() + at, order_id, int(price * 1e9), size, action, side, **changes)


def test_modifies_and_fills_become_the_schema(tmp_path):
    rows = dbn(
        tmp_path,
        record(b"A", size=5, flags=32), record(b"M", size=4), record(b"M", size=6), record(b"M", 2, size=1),
        record(b"T", 0, size=2, side=b"A"), record(b"F", size=2), record(b"M", size=4),
        record(b"T", 0, size=1, side=b"N"), record(b"F", 2, size=1, side=b"N"), record(b"C", 2, size=1),
        record(b"T", 0, size=7, side=b"B"), record(b"C", size=1), record(b"C", size=3), record(b"C", 9, size=2),
    ).gather().rows  # fmt: skip
    assert rows.event.tolist() == [
        ADD, PARTIAL_CANCEL, DELETE, ADD, ADD, EXECUTION, CROSS, HIDDEN, PARTIAL_CANCEL, DELETE, DELETE,
    ]  # fmt: skip
    assert rows.order_id.tolist() == [1, 1, 1, 1, 2, 1, 2, 0, 1, 1, 9]
    assert rows.size.tolist() == [5, 1, 4, 6, 1, 2, 1, 7, 1, 3, 2]
    assert rows.flag.tolist() == [1, 0, 0, 0, 8, 0, 4, 0, 0, 0, 0]
    assert rows.side.tolist() == [1, 1, 1, 1, 1, 1, 1, -1, 1, 1, 1]


def test_a_clear_empties_the_book(tmp_path):
    rows = dbn(tmp_path, record(b"A"), record(b"A", 2), record(b"R", 0, side=b"N"), record(b"A")).gather().rows
    assert rows.event.tolist() == [ADD, ADD, DELETE, DELETE, ADD]
    assert sorted(rows.order_id.tolist()[2:4]) == [1, 2]


def test_several_symbols_need_a_name(tmp_path):
    databento()
    content = made.dbn_file(DAY[:5], symbols=("ABCD", "EFGH")) + record(b"A", 77, instrument=43, at=86_000 * 10**9)
    path = write(tmp_path / "a.dbn", content)
    with pytest.raises(FeedError, match=r"several symbols \(ABCD, EFGH\)"):
        open_feed(path)
    assert open_feed(path, ReadOptions(symbol="EFGH")).gather().rows.order_id.tolist() == [77]
    with pytest.raises(FeedError, match="holds no symbol 'X'"):
        open_feed(path, ReadOptions(symbol="X"))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (record(b"?", 2), "row 1: action is '\\?'; actions are"),
        (record(b"A", 2, side=b"N"), "row 1: side is 'N'; orders need a side"),
        (record(b"A", 2, size=0), "row 1: size is 0; sizes must be positive"),
        (record(b"A", 2, price=99.00001), "row 1: price is .*e-9; prices are multiples of 100000e-9"),
        (record(b"A", 2, price=99.0005), "row 1: price is 990005; prices are multiples of 100"),
        (record(b"A", 2, at=-2 * 10**9), "row 1: time_ns is -2000000000 after 10; time must not decrease"),
    ],
)
def test_bad_mbo_records_are_named_or_counted(tmp_path, bad, sentence):
    # Prices on a cent fill the file: the unit is told by its first records.
    good = record(b"A"), record(b"A", 3)
    if "100000e-9" in sentence:
        return  # one record off the unit among two makes another unit; see the next test
    with pytest.raises(FeedError, match=sentence):
        dbn(tmp_path, good[0], bad, good[1]).gather()
    feed = dbn(tmp_path, good[0], bad, good[1], lenient=True)
    assert feed.gather().rows.order_id.tolist() == [1, 3]


def test_stamps_of_dbn_may_step_back_a_little_also_after_one_far_ahead(tmp_path):
    pytest.importorskip("databento_dbn", reason="needs the databento extra")
    day = list(DAY[:300])
    far, back = (next(k for k in range(after, 300) if day[k].event == "A") for after in (100, 200))
    day[far] = replace(day[far], time_ns=day[far].time_ns + 10**12)
    day[back] = replace(day[back], time_ns=day[back - 1].time_ns - 500)
    feed = open_feed(write(tmp_path / "day.dbn", made.dbn_file(day)), ReadOptions(lenient=True))
    rows = feed.gather().rows
    assert feed.skips.counts == {"time must not decrease": 1}
    assert (np.diff(rows.time_ns) >= 0).all()
    assert day[back].order_id in rows.order_id and day[far].order_id not in rows.order_id[rows.event == ADD]


def test_databento_csv_is_recognised(tmp_path):
    lines = [
        "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,ts_in_delta,sequence,symbol"
    ]
    for action, side, price, size, order_id in (
        ("R", "N", "", 0, 0),
        ("A", "B", "5.510000000", 100, 7),
        ("C", "B", "5.510000000", 100, 7),
    ):
        stamp = "2025-07-17T14:00:00.000000001Z"
        lines.append(f"{stamp},{stamp},160,2,1108,{action},{side},{price},{size},0,{order_id},130,0,0,ARL")
    feed = open_feed(write(tmp_path / "mbo.csv", "\n".join(lines).encode()))
    rows = feed.gather().rows
    assert (feed.meta["ticker"], feed.meta["date"]) == ("ARL", "2025-07-17")
    assert rows.event.tolist() == [ADD, DELETE]
    assert rows.price.tolist() == [55_100, 55_100]
    assert rows.time_ns.tolist() == [36_000 * 10**9 + 1] * 2  # 10:00 in New York


# ---- CSV ----------------------------------------------------------------------------------------------


def table(tmp_path, text, **changes):
    lenient = changes.pop("lenient", False)
    return open_feed(
        write(tmp_path / "a.csv", text.encode()), ReadOptions(columns={**made.CSV_MAP, **changes}, lenient=lenient)
    )


HEAD = "ts,type,id,side,px,qty\n"


def test_what_a_cancel_leaves_empty_is_taken_from_its_order(tmp_path):
    rows = table(tmp_path, HEAD + "1,new,5,B,9.9,200\n2,fill,5,,,50\n3,cancel,5,,,\n").gather().rows
    assert rows.event.tolist() == [ADD, EXECUTION, DELETE]
    assert rows.side.tolist() == [1, 1, 1]
    assert rows.price.tolist() == [99_000] * 3
    assert rows.size.tolist() == [200, 50, 150]


def test_times_units_and_sides_of_a_map(tmp_path):
    text = "2025-01-15 09:30:00.5;1;77;-1;12.5;0.004\n2025-01-15 09:30:00.75;3;77;1;12.5;0.001\n"
    layout = {
        "columns": {"time": "t", "event": "e", "order_id": "i", "side": "s", "price": "p", "size": "z"},
        "header": ["t", "e", "i", "s", "p", "z"], "delimiter": ";", "time": "iso", "zone": "America/New_York",
        "events": {"1": "add", "3": "execution"}, "sides": {"1": "buy", "-1": "sell"}, "fills": "taker",
        "price_unit": "0.01", "size_unit": "1e-3", "tick_size": 10,
    }  # fmt: skip
    feed = open_feed(write(tmp_path / "a.csv", text.encode()), ReadOptions(columns=layout))
    rows = feed.gather().rows
    assert rows.time_ns.tolist() == [34_200_500_000_000, 34_200_750_000_000]
    assert (rows.side.tolist(), rows.price.tolist(), rows.size.tolist()) == ([-1, -1], [1250, 1250], [4, 1])
    assert feed.meta["date"] == "2025-01-15"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("2,bust,6,B,9.9,200", "row 1: column type is 'bust', no event of the column map"),
        ("2,new,6,Z,9.9,200", "row 1: column side is 'Z', no side"),
        ("x,new,6,B,9.9,200", "row 1: column ts is 'x', no time"),
        ("2,new,6,B,9.90005,200", "row 1: column px is '9.90005', no price"),
        ("2,new,6,B,9.9,2.5", "row 1: column qty is '2.5', no size"),
        ("2,new,9999999999999999999999,B,9.9,1", "row 1: column id is '9+', no order_id"),
        ("2,new,6,B,9.9055,1", "row 1: price is 99055; prices are multiples of 100"),
        ("2,new,6,B,,1", "row 1: side, price or size is empty"),
        ("2,cancel,8,,,", "row 1: side, price or size is empty, and order 8 is not on the book"),
        ("0,new,6,B,9.9,1", "row 1: time_ns is 0 after 1; time must not decrease"),
    ],
)
def test_bad_lines_are_named_or_counted(tmp_path, line, sentence):
    text = HEAD + "1,new,5,B,9.9,200\n" + line + "\n3,new,7,B,9.9,200\n"
    with pytest.raises(FeedError, match=sentence):
        table(tmp_path, text).gather()
    feed = table(tmp_path, text, lenient=True)
    assert feed.gather().rows.order_id.tolist() == [5, 7]
    assert sum(feed.skips.counts.values()) == 1


def test_a_line_of_other_columns_is_named_or_counted(tmp_path):
    text = HEAD + "1,new,5,B,9.9,200\n2,new,6,B\n3,new,7,B,9.9,200\n"
    with pytest.raises(FeedError, match="row 1: a line has another number of columns"):
        table(tmp_path, text).gather()
    feed = table(tmp_path, text, lenient=True)
    assert feed.gather().rows.order_id.tolist() == [5, 7]
    assert feed.skips.counts == {"a line has another number of columns": 1}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"columns": {"time": "ts"}}, "columns of the column map is"),
        ({"events": {"new": "born"}}, "events of the column map is"),
        ({"sides": {"B": "long"}}, "sides of the column map is"),
        ({"time": "days"}, "time of the column map is 'days'"),
        ({"zone": "Mars"}, "zone of the column map is 'Mars'"),
        ({"price_unit": "0.25"}, "price_unit of the column map is '0.25'; it must be a power of ten"),
        ({"tick_size": 0}, "tick_size of the column map is 0"),
        ({"fills": "maker"}, "fills of the column map is 'maker'"),
        ({"delimiter": "::"}, "delimiter of the column map is '::'"),
        ({"header": "ts"}, "header of the column map is 'ts'"),
        ({"colour": 1}, r"the column map has the keys \['colour'\]"),
    ],
)
def test_a_bad_map_is_said_by_key(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        table(tmp_path, HEAD, **change)


def test_a_map_names_columns_of_the_file(tmp_path):
    with pytest.raises(FeedError, match=r"the columns \['px', 'qty'\] of the map are missing"):
        table(tmp_path, "ts,type,id,side\n")


# ---- recognition, truncation --------------------------------------------------------------------------


def test_what_is_none_of_the_formats_is_refused(tmp_path):
    for content in (b"hello\nworld\n", b"\x00\x01\x02" * 50, b"%PDF-1.7", json.dumps({"a": 1}).encode()):
        with pytest.raises(FeedError, match="none of the known formats"):
            open_feed(write(tmp_path / "a.bin", content))
    with pytest.raises(FeedError, match="the file is empty"):
        open_feed(write(tmp_path / "a.bin", b""))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_feed(tmp_path / "none")


@pytest.mark.parametrize("name", ["itch", "dbn", "csv", "gzip", "xz", "zstd", "parquet", "lobster"])
def test_a_truncated_file_is_said_to_be_one(tmp_path, name):
    import pyarrow

    options = ReadOptions(symbol="ABCD", columns=made.CSV_MAP if name == "csv" else None)
    content = {
        "itch": lambda: made.itch_file(DAY), "dbn": databento, "csv": lambda: made.csv_file(DAY),
        "gzip": lambda: gzip.compress(made.itch_file(DAY)), "xz": lambda: lzma.compress(made.itch_file(DAY)),
        "zstd": lambda: pyarrow.compress(databento(), codec="zstd", asbytes=True),
        "parquet": lambda: b"PAR1" + b"x" * 99, "lobster": lambda: made.lobster_file(DAY),
    }[name]()  # fmt: skip
    meta = {"ticker": "A", "venue": "B", "date": "C", "tick_size": 100, "price_unit": "x", "size_unit": "y"}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    file = made.LOBSTER_NAME if name == "lobster" else "events.parquet" if name == "parquet" else "file"
    cut = content[: len(content) * 2 // 3 + 1] if name != "lobster" else content[:-8]
    path = write(tmp_path / file, cut)
    with pytest.raises(FeedError) as raised:
        list(open_feed(path, options).batches())
    assert str(tmp_path) in str(raised.value)
    assert str(raised.value).count("\n") == 0


LEFT = {"sizes": "left", "events": {"new": "add", "changed": "execution", "gone": "delete"}}


def test_sizes_may_be_what_is_left(tmp_path):
    text = HEAD + "1,new,5,B,9.9,200\n2,changed,5,B,9.9,150\n3,changed,5,B,9.9,30\n4,gone,5,B,9.9,0\n"
    text += "5,new,6,S,10.1,70\n6,gone,6,S,10.1,70\n7,gone,4,S,10.2,80\n"
    rows = table(tmp_path, text, **LEFT).gather().rows
    assert rows.event.tolist() == [ADD, EXECUTION, EXECUTION, EXECUTION, ADD, DELETE, DELETE]
    assert rows.size.tolist() == [200, 50, 120, 30, 70, 70, 80]
    text += "8,changed,3,S,10.2,80\n"
    with pytest.raises(FeedError, match="row 7: the size is what is left, and order 3 is not on the book"):
        table(tmp_path, text, **LEFT).gather()
    with pytest.raises(ValueError, match="sizes of the column map is 'rest'"):
        table(tmp_path, text, **{**LEFT, "sizes": "rest"})
