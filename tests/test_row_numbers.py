"""Errors of readers name the row or byte at which a file is wrong, however it is cut into pieces."""

import gzip
import json
import lzma

import feed_files as made
import numpy as np
import pytest

from tradefm_gym.data import arrow_csv, load
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import ReadOptions, Skips, open_feed
from tradefm_gym.data.rows import FeedRows

pytest.importorskip("pyarrow", reason="needs the data extra")
polars = pytest.importorskip("polars", reason="needs the data extra")

DAY = made.made_up_day(3000, seed=5, replaces=False)
META = {"ticker": "T", "venue": "test", "date": "2025-01-02", "tick_size": 10, "price_unit": "1e-3", "size_unit": "1"}


# ---- CSV ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("headed", [True, False])
@pytest.mark.parametrize(
    ("changed", "bad"),
    [({10: ""}, []), ({20: "20"}, [20]), ({5: "", 6: "", 20: "20"}, [20]), ({3: "3", 30: "1,2,3"}, [3, 30])],
)
def test_lines_are_numbered_as_they_stand_in_the_file(tmp_path, block, headed, changed, bad):
    lines = [changed.get(k, f"{k},x") for k in range(40)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["a,b"] * headed + lines) + "\n\n")
    skips, found = Skips(str(path), True), []
    for rows, text in arrow_csv.text_batches(path, ["a"], skips, names=None if headed else ["a", "b"], block=block):
        found += zip(rows.tolist(), text["a"].to_pylist(), strict=True)
    assert found == [(k, str(k)) for k in range(40) if k not in changed]
    assert (skips.first, skips.counts) == (
        ({"a line has another number of columns": bad[0]}, {"a line has another number of columns": len(bad)})
        if bad else ({}, {})
    )  # fmt: skip
    if bad:
        with pytest.raises(FeedError, match=f"row {bad[0]}: a line has another number of columns"):
            list(
                arrow_csv.text_batches(
                    path, ["a"], Skips(str(path), False), block=block, names=None if headed else ["a", "b"]
                )
            )


def test_a_row_of_a_mapped_csv_is_named_behind_empty_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ts,type,id,side,px,qty\n1,new,5,B,9.9,200\n\n\n2,new,6,B,9.9x,200\n")
    with pytest.raises(FeedError, match=r"row 3: column px is '9.9x'"):
        load(path, columns=made.CSV_MAP)


# ---- compressed files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_truncated_file_is_said_to_end_where_it_does(tmp_path, pack):
    content = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8).tobytes()  # as long packed as it is
    (tmp_path / "x").write_bytes(pack(content)[:200_000])
    from tradefm_gym.data.streams import blocks

    with pytest.raises(FeedError) as raised:
        list(blocks(tmp_path / "x"))
    told = int(str(raised.value).split("after ")[1].split(" decompressed")[0].replace(",", ""))
    assert 199_000 - 2**16 <= told <= 200_000


# ---- Parquet ------------------------------------------------------------------------------------------


def folder(path, **changed):
    """A data folder of 30 adds; ``changed`` columns are (row, value), and floats where the value is one."""
    columns = {
        "ts_ns": np.arange(30), "event": np.zeros(30, int), "order_id": np.arange(1, 31), "side": np.ones(30, int),
        "price": np.full(30, 990), "size": np.full(30, 5),
    }  # fmt: skip
    table = {}
    for name, values in columns.items():
        row, value = changed.get(name, (0, int(values[0])))
        table[name] = [value if k == row else v for k, v in enumerate(values.tolist())]
    (path / "meta.json").write_text(json.dumps(META))
    types = {"order_id": polars.UInt64} if "order_id" in changed else {}
    polars.DataFrame(table, schema_overrides=types, strict=False).write_parquet(path / "events.parquet")
    return path


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"size": (23, None)}, "row 23: column size has missing values"),
        ({"price": (23, 990.5)}, "column price is 990.5 in row 23; it must hold whole numbers"),
        ({"event": (23, 128)}, r"column event is 128 in row 23; it must lie in \[-2\^7, 2\^7\)"),
        ({"order_id": (23, 2**63 + 5)}, r"column order_id is 9223372036854775813 in row 23; it must lie in \[-2\^63"),
        ({"size": (23, 0)}, "row 23: size is 0; sizes must be positive"),
    ],
)
@pytest.mark.parametrize("batch", [7, 1000])
def test_a_bad_value_of_a_parquet_file_is_named_by_its_row(tmp_path, changed, sentence, batch):
    with pytest.raises(FeedError, match=sentence):
        list(open_feed(folder(tmp_path, **changed), ReadOptions(batch=batch)).batches())


@pytest.mark.parametrize("value", [5.5, float("nan"), 2.0**63])
def test_a_bad_value_of_a_recorded_book_is_named_by_its_row(tmp_path, value):
    book = {f"{side}_{what}_1": [990.0 + 10 * (side == "ask")] * 30 for side in ("ask", "bid") for what in ("px", "sz")}
    book["bid_sz_1"][23] = value
    polars.DataFrame(book).write_parquet(folder(tmp_path) / "book1.parquet")
    with pytest.raises(FeedError, match=r"row 23: column bid_sz_1 is .*; it must hold whole numbers"):
        list(open_feed(tmp_path, ReadOptions(batch=7)).with_book())


# ---- LOBSTER, Databento -------------------------------------------------------------------------------


def test_empty_lines_of_a_lobster_file_count(tmp_path):
    lines = made.lobster_file(DAY).decode().splitlines()
    path = tmp_path / made.LOBSTER_NAME
    path.write_text("\n".join([*lines[:5], "", *lines[5:9], "34200.9,9,1,1,1,1"]))
    with pytest.raises(FeedError, match="row 5: '' is no message of six numbers"):
        load(path)
    feed = open_feed(path, ReadOptions(lenient=True))
    assert feed.gather().rows.source.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert feed.skips.first["LOBSTER types are 1 to 7"] == 10


@pytest.mark.parametrize("line", ["9900,100,9800", "9900,100,9800,1.5", "9900,100,9800,100,1,1,1,1"])
def test_a_bad_row_of_an_orderbook_is_named(tmp_path, line):
    (tmp_path / made.LOBSTER_NAME).write_bytes(made.lobster_file(DAY[:30]))
    book = ["9900,100,9800,100"] * 30
    book[23] = line
    (tmp_path / made.LOBSTER_NAME.replace("message", "orderbook")).write_text("\n".join(book))
    with pytest.raises(FeedError, match="row 23: the orderbook has no row of whole numbers here"):
        list(open_feed(tmp_path / made.LOBSTER_NAME, ReadOptions(batch=100)).with_book())


def test_nothing_is_read_behind_a_record_whose_end_is_lost(tmp_path):
    pytest.importorskip("databento_dbn", reason="needs the databento extra")
    data = bytearray(made.dbn_file(DAY[:40]))
    data[-56 * 10] = 0  # the length of a record
    (tmp_path / "day.dbn").write_bytes(bytes(data))
    for lenient in (False, True):
        with pytest.raises(FeedError, match=r"row \d+: a record of 0 bytes, and none is shorter than 16"):
            list(open_feed(tmp_path / "day.dbn", ReadOptions(lenient)).batches())


def test_rows_are_named_by_their_place_in_the_file():
    from tradefm_gym.data.rows import validate

    rows = FeedRows.build([1, 2], [0, 0], [5, 6], [1, 1], [990, 995], [1, 1], first=40)
    with pytest.raises(ValueError, match="price is 995 in row 41"):
        validate(rows, 10, "a feed")
