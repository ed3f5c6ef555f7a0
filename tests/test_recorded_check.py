"""Recorded days executed by their ids: made-up days that are sound, damaged ones, and the days at hand."""

import json
import os
from dataclasses import replace
from pathlib import Path

import feed_files as made
import numpy as np
import pytest

from tradefm_gym import cli
from tradefm_gym.data import load
from tradefm_gym.data.convert import convert
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.realism.recorded_day import check_day

pytest.importorskip("polars", reason="needs the data extra")
pytest.importorskip("pyarrow", reason="needs the data extra")

ROOT = Path(os.environ.get("TRADEFM_DATA", Path(__file__).parents[2] / "shared" / "data"))
DAY = made.made_up_day(4000, seed=8, replaces=False)


def lobster(path, messages=DAY):
    path.mkdir(exist_ok=True)
    (path / made.LOBSTER_NAME).write_bytes(made.lobster_file(messages))
    return path / made.LOBSTER_NAME


def check(path, **options):
    return check_day(open_feed(path, ReadOptions(**options)))


# ---- made-up days -------------------------------------------------------------------------------------


def test_a_sound_day_has_nothing_to_explain(tmp_path):
    day = check(lobster(tmp_path))
    assert (day.rows, day.unexplained_count, day.explained, day.crossed_states) == (4000, 0, [], 0)
    assert (day.fills_differ, day.cancels_differ, day.unknown_ids, day.dead_cancels) == (0, 0, 0, 0)
    assert day.totals["matched"] == day.fills == sum(m.event == "E" for m in DAY)
    assert day.volume == sum(m.size for m in DAY if m.event in "EP")


def test_batches_do_not_matter(tmp_path):
    path = lobster(tmp_path)
    whole, parts = check(path).to_json(), check(path, batch=7).to_json()
    assert whole == parts


def test_sizes_beyond_the_exchange_are_counted_in_larger_lots(tmp_path):
    big = [replace(message, size=message.size * 10**8) for message in DAY]
    day = check(lobster(tmp_path, big))
    assert day.lot == 10**2
    assert (day.unexplained_count, day.fills_differ) == (0, 0)
    assert day.volume == sum(m.size for m in big if m.event in "EP")


def first(event, after=50):
    return next(k for k, message in enumerate(DAY) if k > after and message.event == event)


def damaged(what):
    """The day with one message that the market could not have sent, and the row of it."""
    day = list(DAY)
    add, cancel, fill = first("A"), first("D"), first("E")
    if what == "duplicate":
        day.insert(add + 1, day[add])
        return day, add + 1
    if what == "unknown":
        day.insert(cancel, replace(day[cancel], order_id=10**9))
        return day, cancel
    if what == "dead":
        later = replace(day[cancel], time_ns=day[cancel + 1].time_ns + 10**8, size=77)
        at = next(k for k in range(cancel, len(day)) if day[k].time_ns > later.time_ns)
        day.insert(at, later)
        return day, at
    if what == "oversize":
        day[fill] = replace(day[fill], size=day[fill].size + 10**6)
        return day, fill
    if what == "delete size":
        day[cancel] = replace(day[cancel], size=day[cancel].size + 100)
        return day, cancel
    if what == "side":
        day[cancel] = replace(day[cancel], side=-day[cancel].side)
        return day, cancel
    if what == "price":
        day[cancel] = replace(day[cancel], price=day[cancel].price + 100)
        return day, cancel
    day[add] = replace(day[add], price=day[add].price + day[add].side * 500_000)  # crosses the book, and stays
    return day, add


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("duplicate", "add of an id that rests already"),
        ("unknown", "unknown id"),
        ("dead", "cancel or fill of an order that has ended"),
        ("oversize", "cancel or fill larger than its order"),
        ("delete size", "cancel or fill larger than its order"),
        ("side", "cancel or fill on another side than its order"),
        ("price", "cancel or fill at another price than its order"),
        ("crossing", "crossed book"),
    ],
)
def test_what_no_market_sends_is_unexplained(tmp_path, capsys, what, kind):
    messages, row = damaged(what)
    path = lobster(tmp_path, messages)
    day = check(path)
    found = {finding.kind: finding for finding in day.unexplained}
    assert found[kind].first_row == row
    assert cli.main(["data", "check", str(path)]) == 1
    captured = capsys.readouterr()
    assert f"row {min(f.first_row for f in day.unexplained)}: " in captured.err
    assert cli.main(["data", "check", "--lenient", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["unexplained_count"] == day.unexplained_count


def glitched(rows, **changes):
    """The day with other times in some rows; they are all adds, which nothing later misses for long."""
    day = list(DAY)
    for row in rows:
        day[row] = replace(day[row], **{name: change(day[row]) for name, change in changes.items()})
    return day


@pytest.mark.parametrize("batch", [7, 100, 1 << 17])
@pytest.mark.parametrize(
    ("rows", "time_ns", "said"),
    [
        ([1999], lambda m: m.time_ns + 3600 * 10**9, "before"),
        ([1999], lambda m: m.time_ns - 10**9, "after"),
        ([1999, 2000, 2001], lambda m: 57_000 * 10**9, "before"),
        ([0], lambda m: m.time_ns + 10**12, "before"),
        ([3998], lambda m: m.time_ns + 10**12, "before"),
    ],
)
def test_a_row_at_another_time_than_its_neighbours_is_the_wrong_one(tmp_path, batch, rows, time_ns, said):
    path = lobster(tmp_path, glitched(rows, time_ns=time_ns))
    with pytest.raises(FeedError, match=rf"row {rows[0]}: time_ns is \d+ {said} \d+; time must not decrease"):
        list(open_feed(path, ReadOptions(batch=batch)).batches())
    feed = open_feed(path, ReadOptions(lenient=True, batch=batch))
    source = np.concatenate([part.source for part in feed.batches()])
    assert source.tolist() == [k for k in range(4000) if k not in rows]
    assert feed.skips.counts == {"time must not decrease": len(rows)}
    with pytest.raises(ValueError, match=f"row {rows[0]}: time_ns is"):
        load(path)


def test_a_check_that_leaves_out_much_of_a_day_says_so_and_fails(tmp_path, capsys):
    wrong = [k for k, m in enumerate(DAY) if m.event == "A"][::30]
    path = lobster(tmp_path, glitched(wrong[:39], size=lambda m: 0))
    assert cli.main(["data", "check", "--lenient", str(path)]) == 0
    path = lobster(tmp_path, glitched(wrong[:42], size=lambda m: 0))
    capsys.readouterr()
    assert cli.main(["data", "check", "--lenient", "--json", str(path)]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["left_out"] == 42 / 4000
    assert captured.err.endswith(": 1.1% of the rows were left out; at most 1% may be.\n")


def test_a_lenient_reading_may_leave_out_the_last_row_of_a_day_with_a_book(tmp_path):
    file, kept = windowed(tmp_path, DAY, 3)
    messages = [m for m, _ in kept]
    lobster(tmp_path, [*messages[:-1], replace(messages[-1], size=0)])
    assert check(file, lenient=True).rows == len(kept) - 1


def test_orders_from_before_the_first_row_are_explained_and_put_into_the_opening_book(tmp_path):
    late = DAY[400:]
    day = check(lobster(tmp_path, late))
    known = {m.order_id for m in late if m.event == "A"}
    assert day.unknown_ids == sum(m.order_id not in known for m in late if m.event != "P")
    assert day.unknown_ids > 0
    assert day.inferred_opening > 0
    assert day.unexplained_count == 0
    assert {finding.kind for finding in day.explained} <= {"unknown id", "fill behind a better price"}


def test_an_itch_day_that_starts_with_the_venue_knows_its_opening(tmp_path):
    path = tmp_path / "day"
    path.write_bytes(made.itch_file(DAY))
    assert check(path, symbol="ABCD").unexplained_count == 0
    part = [m for m in DAY[400:] if m.event == "A"]
    path.write_bytes(made.itch_file([*part, replace(DAY[-1], event="D", order_id=1)]))
    with pytest.raises(FeedError, match="order 1 is not on the book"):
        check(path, symbol="ABCD")


def book_of(messages, levels):
    """The best levels after each message, from a plain replay."""
    side_of, rows = {}, []
    depth = {1: {}, -1: {}}
    for m in messages:
        if m.event == "A":
            side_of[m.order_id] = m
            depth[m.side][m.price] = depth[m.side].get(m.price, 0) + m.size
        elif m.event != "P":
            depth[m.side][m.price] -= m.size
            if depth[m.side][m.price] == 0:
                del depth[m.side][m.price]
        asks, bids = sorted(depth[-1].items())[:levels], sorted(depth[1].items(), reverse=True)[:levels]
        row = []
        for level in range(levels):
            row += list(asks[level]) if level < len(asks) else [9999999999, 0]
            row += list(bids[level]) if level < len(bids) else [-9999999999, 0]
        rows.append(row)
    return rows


def windowed(path, messages, levels):
    """A LOBSTER pair as that vendor makes it: messages beyond the best levels are left out."""
    books = book_of(messages, levels)
    kept, before = [], None
    for message, book in zip(messages, books, strict=True):
        if book != before or message.event == "P":
            kept.append((message, book))
        before = book
    file = lobster(path, [message for message, _ in kept])
    text = "\n".join(",".join(map(str, book)) for _, book in kept)
    (path / made.LOBSTER_NAME.replace("message", "orderbook")).write_text(text + "\n")
    return file, kept


@pytest.mark.parametrize("levels", [1, 3, 10])
def test_a_day_within_its_best_levels_follows_its_book(tmp_path, levels):
    file, kept = windowed(tmp_path, DAY, levels)
    day = check(file)
    assert day.mode == "window"
    assert day.rows == len(kept) < len(DAY)
    assert [agreement.share for agreement in day.agreement][:2] == [1.0, 1.0]
    assert (day.crossed_states, day.unexplained_count) == (0, 0)
    assert check(file, batch=11).to_json() == day.to_json()


def test_a_message_that_does_not_lead_to_its_book_is_found(tmp_path):
    file, kept = windowed(tmp_path, DAY, 3)
    k = next(k for k, (m, _) in enumerate(kept) if k > 100 and m.event == "X")
    messages = [m for m, _ in kept]
    messages[k] = replace(messages[k], size=messages[k].size // 2)
    lobster(tmp_path, messages)
    day = check(file)
    assert day.agreement[0].compared - day.agreement[0].equal == 1
    assert {finding.kind: finding.first_row for finding in day.unexplained} == {
        "message that does not lead to the recorded book": k,
        "levels that are not the recorded ones": k,
    }


def test_a_book_must_have_a_row_an_event(tmp_path):
    file, _ = windowed(tmp_path, DAY, 3)
    beside = tmp_path / made.LOBSTER_NAME.replace("message", "orderbook")
    lines = beside.read_text().splitlines()
    beside.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(FeedError, match="the book ends after"):
        check(file)
    beside.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(FeedError, match="the book goes on after the last event"):
        check(file)


# ---- convert ------------------------------------------------------------------------------------------


def test_a_converted_day_is_the_same_flow(tmp_path, capsys):
    source = lobster(tmp_path)
    assert cli.main(["data", "convert", str(source), str(tmp_path / "out")]) == 0
    assert "4,000 rows" in capsys.readouterr().out
    one, other = load(source), load(tmp_path / "out")
    for field in ("records", "fills", "touch", "source_row"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["quality"]["rows"], meta["source_format"], meta["skipped"]) == (4000, "lobster", {})


def test_a_converted_day_keeps_its_book(tmp_path):
    file, _ = windowed(tmp_path, DAY, 3)
    convert(open_feed(file, ReadOptions(batch=100)), tmp_path / "out")
    assert check(tmp_path / "out").agreement == check(file).agreement
    np.testing.assert_array_equal(load(file).book, load(tmp_path / "out").book)


def test_a_failed_conversion_leaves_nothing(tmp_path):
    path = tmp_path / "day.itch"
    path.write_bytes(made.itch_file(DAY)[:-5])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FeedError, match="ends within a message"):
        convert(open_feed(path, ReadOptions(symbol="ABCD")), tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    meta = convert(open_feed(path, ReadOptions(symbol="ABCD", lenient=True)), tmp_path / "out")
    assert meta["skipped"] == {"the file ends within a message": 1}
    with pytest.raises(FileExistsError, match="holds something already"):
        convert(open_feed(path, ReadOptions(symbol="ABCD")), tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--date", "foo"], "date is 'foo'; it must be a day from 1970 to 2200, as YYYY-MM-DD"),
        (["--date", "20250115"], "date is '20250115'; it must be"),
        (["--date", "0001-01-01"], "date is '0001-01-01'; it must be"),
        (["--symbol", ""], "symbol is ''; it must name an instrument"),
        (["--levels", "0"], "levels is 0; it must be an integer of at least 1"),
        (["--levels", "100"], "levels is 100; it must be an integer from 1 to 3"),
    ],
)
def test_an_option_that_no_check_can_use_is_one_sentence(tmp_path, capsys, options, sentence):
    file, _ = windowed(tmp_path, DAY, 3)
    assert cli.main(["data", "check", str(file), *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"tradefm-gym: {sentence}") and captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("command", [["data", "convert", "day"], ["simulate", "--flow", "zero_intelligence", "--out"]])
def test_a_folder_that_cannot_be_written_is_one_sentence_before_anything_is_done(tmp_path, capsys, command):
    source = lobster(tmp_path)
    for out, why in ((source / "x", f"{source} is no folder"), (source, "it holds something already")):
        words = [str(source) if word == "day" else word for word in command]
        assert cli.main([*words, str(out)]) == 2
        said = f"tradefm-gym: path {str(out)!r} cannot be written ({why}); it must name a new folder where it can be\n"
        assert capsys.readouterr().err == said
    assert [path.name for path in tmp_path.iterdir()] == [made.LOBSTER_NAME]
    long = tmp_path / ("a" * 300)
    with pytest.raises(OSError, match=r"cannot be written \(File name too long\)"):
        convert(open_feed(source), long)


# ---- the days at hand ---------------------------------------------------------------------------------


def recorded(name, inner=""):
    if not (ROOT / name).exists():
        pytest.skip(f"recorded day {name} is not in {ROOT}")
    return next((ROOT / name).glob(inner)) if inner else ROOT / name


def shares(day):
    return [agreement.share for agreement in day.agreement]


def test_shanghai_is_exact():
    day = check(recorded("sse_600519_20230207"))
    assert (day.unexplained_count, day.fills_differ, day.cancels_differ, day.crossed_in_session) == (0, 0, 0, 0)
    assert day.fills_out_of_priority == 0
    assert day.volume == day.volume_recorded == 2_432_171
    assert shares(day)[0] >= 0.818
    assert shares(day)[1] == shares(day)[2] == shares(day)[5] == 1.0  # at some row of the second, or near it


def test_apple_has_only_its_unknown_ids():
    day = check(recorded("nasdaq_aapl_20120621_l50_1h"))
    assert (day.unknown_ids, day.unexplained_count, day.crossed_states) == (84, 0, 0)
    assert day.fills_differ + day.cancels_differ == 84
    if day.agreement:
        assert day.agreement[0].compared == 25_641
        assert min(shares(day)) >= 0.999


@pytest.mark.parametrize("name", ["nasdaq_goog_20120621_l10", "nasdaq_aapl_20120621_l1"])
def test_level_sets_follow_their_books(name):
    day = check(recorded(name))
    assert (day.unexplained_count, day.crossed_states) == (0, 0)
    assert min(shares(day)) == 1.0


@pytest.mark.parametrize("name", ["nasdaq_arl_20250717_mbo", "cme_esm4_20240508_mbo_2s"])
def test_exact_days(name):
    day = check(recorded(name))
    assert (day.unexplained_count, day.unknown_ids, day.fills_differ, day.cancels_differ) == (0, 0, 0, 0)
    assert day.crossed_states == 0


@pytest.mark.parametrize("name", ["nymex_clx5_mbo", "bitstamp_btcusd_20150501"])
def test_days_whose_differences_are_explained(name):
    day = check(recorded(name))
    assert day.unexplained_count == 0
    assert all(finding.reason for finding in day.explained)


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("nymex_clx5_mbo", "raw/*.dbn.zst"),
        ("cme_esm4_20240508_mbo_2s", "raw/*.dbn.zst"),
        ("nasdaq_arl_20250717_mbo", "raw/*.csv.gz"),
        ("nasdaq_goog_20120621_l10", "raw/*_message_*.csv.gz"),
    ],
)
def test_the_originals_give_the_rows_of_the_shared_schema(name, inner):
    if inner.endswith(".zst"):
        pytest.importorskip("databento_dbn", reason="needs the databento extra")
    rows = open_feed(recorded(name, inner)).gather().rows
    other = open_feed(recorded(name)).gather().rows
    for column in ("time_ns", "event", "order_id", "side", "price", "size", "flag"):
        np.testing.assert_array_equal(getattr(rows, column), getattr(other, column), err_msg=column)
