"""What a checked day is compared with: recordings found beside it that cannot be read do not end the check."""

import json
import shutil

import pytest

polars = pytest.importorskip("polars", reason="needs the data extra")
pytest.importorskip("pyarrow", reason="needs the data extra")

import venue_days  # noqa: E402
from venue_days import ADD, META, START_NS  # noqa: E402

from tradefm_gym import cli  # noqa: E402
from tradefm_gym.data.feed import open_feed  # noqa: E402
from tradefm_gym.realism.recorded_day import check_day  # noqa: E402

ROWS = [
    (START_NS + k, ADD, k + 1, 1 - 2 * (k % 2), 1_000_000 - (1 - 2 * (k % 2)) * 100 * k, 5, 0) for k in range(1, 40)
]
QUOTE = {"ts_ns": [START_NS], "ask_px_1": [1_000_300], "ask_sz_1": [5], "bid_px_1": [999_900], "bid_sz_1": [5]}


def day(path):
    path.mkdir()
    return venue_days.folder(path, ROWS)


def book(path, **columns):
    """A book of one level that agrees with nothing."""
    table = {name: values * len(ROWS) for name, values in QUOTE.items() if name != "ts_ns"}
    polars.DataFrame({**table, **columns}).write_parquet(path / "book1.parquet")


def report(path, capsys, code=0):
    """What the check prints, as text and as JSON."""
    said = []
    for form in ((), ("--json",)):
        assert cli.main(["data", "check", str(path), *form]) == code
        said.append(capsys.readouterr())
    assert said[0].err == said[1].err == ""
    return said[0].out, json.loads(said[1].out)


def without(*names):
    return lambda path: polars.DataFrame({k: v for k, v in QUOTE.items() if k not in names}).write_parquet(path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b"PAR1 is how it begins"), "not a Parquet file that can be read: "),
        (lambda path: path.write_bytes(b""), "not a Parquet file that can be read: "),
        (lambda path: path.mkdir(), "a folder; it must be a Parquet file"),
        (without("ts_ns"), "no column ts_ns"),
        (without("bid_sz_1"), "column bid_sz_1 is missing"),
        (without("ask_px_1"), "no column ask_px_1"),
        (lambda path: polars.DataFrame({**QUOTE, "ask_px_1": ["x"]}).write_parquet(path), "column ask_px_1 holds"),
        (lambda path: polars.DataFrame({**QUOTE, "ts_ns": [None]}).write_parquet(path), "column ts_ns holds"),
    ],
)
def test_snapshots_that_cannot_be_read_do_not_end_the_check(tmp_path, capsys, write, reason):
    path = day(tmp_path / "day")
    write(path / "snapshots.parquet")
    text, figures = report(path, capsys)
    (unread,) = figures["unread"]
    assert unread["path"] == str(path / "snapshots.parquet") and unread["reason"].startswith(reason)
    assert f"not compared with {unread['path']}: {unread['reason']}\n" in text and figures["rows"] == len(ROWS)
    assert figures["agreement"] == []


def sound(path):
    book(path)


def broken_book(path):
    (path / "book1.parquet").write_bytes(b"PAR1 is how it begins")


def broken_events(path):
    book(path)
    (path / "events.parquet").write_bytes(b"PAR1 is how it begins")


def no_events(path):
    book(path)
    (path / "events.parquet").unlink()


def other_meta(path):
    book(path)
    (path / "meta.json").write_text(json.dumps({key: META[key] for key in ("ticker", "venue", "date")}))


def short_book(path):
    book(path)
    polars.read_parquet(path / "book1.parquet").head(7).write_parquet(path / "book1.parquet")


def words(path):
    book(path, ask_px_1=["x"] * len(ROWS))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (broken_book, "not a Parquet file"),
        (broken_events, "not a Parquet file"),
        (no_events, "has no events.parquet"),
        (other_meta, "keys ['tick_size', 'price_unit', 'size_unit'] are missing"),
        (short_book, "the book ends after 7 rows"),
        (words, "column ask_px_1 holds"),
    ],
)
def test_a_recording_beside_that_cannot_be_read_does_not_end_the_check(tmp_path, capsys, harm, reason):
    path, beside = day(tmp_path / "day"), day(tmp_path / "level 1")
    harm(beside)
    text, figures = report(path, capsys)
    (unread,) = figures["unread"]
    assert unread["path"].startswith(str(beside)) and reason in unread["reason"] and "\n" not in unread["reason"]
    assert f"not compared with {unread['path']}: {unread['reason']}\n" in text and figures["agreement"] == []
    assert cli.main(["data", "check", str(path), "--against", str(beside)]) == 2  # one that was asked for must be read
    assert capsys.readouterr().err.startswith("tradefm-gym: ")
    shutil.move(beside, tmp_path / "a level 1")
    sound(day(tmp_path / "level 1"))
    figures = check_day(open_feed(path))  # and another one may serve
    assert [one.path for one in figures.unread] == [unread["path"].replace("level 1", "a level 1")]
    assert {agreement.against for agreement in figures.agreement} == {"level 1"}


def test_a_neighbour_whose_meta_cannot_be_read_is_no_recording_of_the_day(tmp_path):
    path, beside = day(tmp_path / "day"), day(tmp_path / "level 1")
    sound(beside)
    for text in ("", "[" * 100_000, "[]", "{}"):
        (beside / "meta.json").write_text(text)
        assert check_day(open_feed(path)).unread == []


@pytest.mark.parametrize(("wrong", "code"), [(0, 0), (12, 0), (13, 1), (24, 1)])
def test_snapshots_that_contradict_the_day_in_more_than_half_are_unexplained(tmp_path, capsys, wrong, code):
    path = day(tmp_path / "day")
    bids = [999_700] * wrong + [999_800] * (24 - wrong)
    quotes = {"ts_ns": [START_NS + 10**9] * 24, "ask_px_1": [1_000_100] * 24, "ask_sz_1": [5] * 24}
    polars.DataFrame({**quotes, "bid_px_1": bids, "bid_sz_1": [5] * 24}).write_parquet(path / "snapshots.parquet")
    assert cli.main(["data", "check", str(path), "--levels", "1"]) == code
    said = capsys.readouterr()
    assert (f"({wrong} of 24)" in said.err) == bool(code)
    assert f"unexplained differences: {wrong if code else 0}\n" in said.out
