"""Reading files: small files written here; what is wrong with a file is said in one sentence."""

import gzip
import json
import sys

import numpy as np
import pytest

from tradefm_gym.data import load

MESSAGES = [  # time, type, id, size, price, direction: the last ask is empty after row 4
    "34200.000000001,1,11,100,5850000,-1",
    "34200.000000002,1,12,100,5840000,1",
    "34200.5,4,11,60,5850000,-1",
    "34201.25,5,0,10,5845000,-1",
    "34202.75,3,11,40,5850000,-1",
    "34203,7,0,0,-1,-1",
]
BOOK = [
    "5850000,100,-9999999999,0",
    "5850000,100,5840000,100",
    "5850000,40,5840000,100",
    "5850000,40,5840000,100",
    "9999999999,0,5840000,100",
    "9999999999,0,5840000,100",
]
NAME = "ABC_2012-06-21_34200000_57600000_message_1.csv"


def write(folder, messages=MESSAGES, book=BOOK, name=NAME, zipped=False):
    for file, lines in ((name, messages), (name.replace("message", "orderbook"), book)):
        if lines is not None:
            text = "\n".join(lines) + "\n"
            if zipped:
                with gzip.open(folder / (file + ".gz"), "wt") as out:
                    out.write(text)
            else:
                (folder / file).write_text(text)
    return folder / (name + (".gz" if zipped else ""))


@pytest.mark.parametrize("zipped", [False, True])
def test_lobster_pair(tmp_path, zipped):
    flow = load(write(tmp_path, zipped=zipped))
    assert (flow.meta.ticker, flow.meta.date, flow.meta.replay_by_id) == ("ABC", "2012-06-21", False)
    assert flow.records["time_ns"].tolist()[:3] == [34_200_000_000_001, 34_200_000_000_002, 34_200_500_000_000]
    assert flow.records["mid2"].tolist() == [0, 116900, 116900, 116900, 116900]  # an empty side keeps the last mid
    assert flow.touch[-1].tolist() == [58400, 100, 0, 0]
    assert flow.book.shape == (5, 1, 4)
    assert flow.meta.counts["dropped_halts"] == 1


def test_lobster_messages_alone_replay_by_id(tmp_path):
    flow = load(write(tmp_path, book=None))
    assert flow.meta.replay_by_id and flow.book is None
    assert flow.touch[2].tolist() == [58400, 100, 58500, 40]


@pytest.mark.parametrize(
    ("row", "text", "sentence"),
    [
        (
            1,
            "34199.9,1,12,100,5840000,1",
            r"row 1: time_ns is 34199900000000 after \d+; time must not decrease",
        ),
        (1, "34200.1,1,12,100,5840050,1", "row 1: price is 5840050; prices are multiples of 100"),
        (1, "34200.1,1,12,-100,5840000,1", "row 1: size is -100; sizes must be positive"),
        (1, "34200.1,1,12,100,5840000,2", "row 1: side is 2; sides are"),
        (1, "34200.1,1,12,100,5840000,5840000", "row 1: side is 5840000; sides are"),
        (1, "34200.1,9,12,100,5840000,1", "row 1: type is 9; LOBSTER types are 1 to 7"),
        (1, "34200.1,1,12,100,5840000", "row 1: '34200.1,1,12,100,5840000' is no message of six numbers"),
        (1, "noon,1,12,100,5840000,1", "row 1: 'noon,1,12,100,5840000,1' is no message of six numbers"),
    ],
)
def test_bad_messages(tmp_path, row, text, sentence):
    messages = list(MESSAGES)
    messages[row] = text
    with pytest.raises(ValueError, match=sentence):
        load(write(tmp_path, messages))


def test_bad_lobster_files(tmp_path):
    with pytest.raises(ValueError, match="3 rows for 6 events"):
        load(write(tmp_path, book=BOOK[:3]))
    with pytest.raises(ValueError, match=r"row 0: .* is no message of six numbers"):
        load(write(tmp_path, [m.rsplit(",", 1)[0] for m in MESSAGES]))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "nowhere")


META = {"ticker": "T", "venue": "test", "date": "2025-01-02", "tick_size": 10, "price_unit": "1e-3", "size_unit": "1"}
COLUMNS = {
    "ts_ns": [1, 2, 3],
    "event": [0, 0, 3],
    "order_id": [7, 8, 7],
    "side": [1, -1, 1],
    "price": [990, 1010, 990],
    "size": [5, 5, 2],
    "flag": [0, 0, 0],
}


def folder(path, columns=COLUMNS, meta=META, **books):
    polars = pytest.importorskip("polars", reason="needs the data extra")
    (path / "meta.json").write_text(json.dumps(meta))
    polars.DataFrame(columns).write_parquet(path / "events.parquet")
    for name, book in books.items():
        polars.DataFrame(book).write_parquet(path / f"{name}.parquet")
    return path


def test_data_folder(tmp_path):
    flow = load(folder(tmp_path))
    assert flow.records["price"].tolist() == [99, 101, 99]
    assert flow.records["filled"].tolist() == [0, 0, 2]
    assert flow.source_row.tolist() == [0, 1, 2]
    without = {name: column for name, column in COLUMNS.items() if name != "flag"}
    assert np.array_equal(load(folder(tmp_path, without)).records, flow.records)


def test_data_folder_with_a_book(tmp_path):
    book = {"ask_px_1": [9999999999, 1010, 1010], "ask_sz_1": [0, 5, 5], "bid_px_1": [990] * 3, "bid_sz_1": [5, 5, 3]}
    flow = load(folder(tmp_path, book1=book))
    assert not flow.meta.replay_by_id
    assert flow.touch.tolist() == [[99, 5, 0, 0], [99, 5, 101, 5], [99, 3, 101, 5]]
    with pytest.raises(ValueError, match="2 rows for 3 events"):
        load(folder(tmp_path, book1={name: column[:2] for name, column in book.items()}))


def test_bad_data_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no meta\.json"):
        load(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    with pytest.raises(FileNotFoundError, match=r"has no events\.parquet"):
        load(tmp_path)
    with pytest.raises(ValueError, match=r"columns \['side'\] are missing"):
        load(folder(tmp_path, {name: column for name, column in COLUMNS.items() if name != "side"}))
    with pytest.raises(ValueError, match=r"keys \['tick_size'\] are missing"):
        load(folder(tmp_path, meta={name: value for name, value in META.items() if name != "tick_size"}))
    with pytest.raises(ValueError, match="row 2: event is 9; event codes are 0 to 6"):
        load(folder(tmp_path, COLUMNS | {"event": [0, 0, 9]}))
    with pytest.raises(ValueError, match="the feed has no rows"):
        load(folder(tmp_path, {name: np.zeros(0, np.int64) for name in COLUMNS}))
    with pytest.raises(ValueError, match="tick_size is 0; it must be a positive number"):
        load(folder(tmp_path), tick_size=0)


def test_missing_extra_names_the_install(tmp_path, monkeypatch):
    folder(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "tradefm-gym\[data\]"'):
        load(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("price", [1000.0, 1000.7], "column price is 1000.7 in row 1"),
        ("size", [10.0, float("nan")], "column size is nan in row 1"),
        ("event", [0, 256], "column event is 256 in row 1"),
        ("order_id", ["1", "2"], "column order_id has type"),
    ],
)
def test_columns_that_are_no_whole_numbers_are_named(column, values, message):
    from tradefm_gym.data.rows import FeedRows

    columns = {name: np.array([1, 2]) for name in ("time_ns", "event", "order_id", "side", "price", "size")}
    with pytest.raises(ValueError, match=message):
        FeedRows.build(**(columns | {column: np.array(values)}))


def test_a_broken_parquet_file_is_named(tmp_path):
    pytest.importorskip("polars")
    meta = {"ticker": "A", "venue": "B", "date": "2026-01-01", "tick_size": 1, "price_unit": "x", "size_unit": "y"}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "events.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="not a Parquet file"):
        load(tmp_path)
