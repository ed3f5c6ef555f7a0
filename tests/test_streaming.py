"""Memory follows what rests: a day several times as long takes no more of it to check and to convert."""

import tracemalloc
from dataclasses import replace

import feed_files as made
import numpy as np
import pytest
from market_checks import JIT

pytest.importorskip("polars", reason="needs the data extra")
pytest.importorskip("pyarrow", reason="needs the data extra")

import polars
import venue_days

from tradefm_gym.data.convert import convert
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.realism.recorded_day import check_day

pytestmark = pytest.mark.skipif(not JIT, reason="long days need the JIT")
BATCH = 2048


def closed_day():
    """Rows of a market at whose end nothing rests."""
    rows = venue_days.rows_of(venue_days.market(4000, seed=3), "rest")
    live = {}
    for _, event, order_id, side, price, size, _ in rows:
        live[order_id] = [side, price, live.get(order_id, [0, 0, 0])[2] + (size if event == 0 else -size)]
    end = rows[-1][0]
    return rows + [(end + 1, 2, order_id, *left, 0) for order_id, left in live.items() if left[2]]


def parquet(path, rows, times):
    """The day ``times`` over, each with ids and times of its own."""
    table = np.array(rows, np.int64)
    steps = np.zeros_like(table[0])
    steps[0], steps[2] = table[-1, 0] - table[0, 0] + 1, table[:, 2].max() + 1
    whole = np.concatenate([table + k * steps for k in range(times)])
    folder = venue_days.folder(path, whole)
    frame = polars.read_parquet(folder / "events.parquet")
    frame.write_parquet(folder / "events.parquet", row_group_size=BATCH)
    return folder


def itch(path, rows, times):
    """The same in ITCH."""
    letters = {0: "A", 1: "X", 2: "D", 3: "E"}
    day = [
        made.Message(time_ns, letters[event], order_id, side, price, size)
        for time_ns, event, order_id, side, price, size, _ in rows
    ]
    span, ids = day[-1].time_ns - day[0].time_ns + 1, max(message.order_id for message in day) + 1
    messages = [
        replace(m, time_ns=m.time_ns + k * span, order_id=m.order_id + k * ids) for k in range(times) for m in day
    ]
    path.mkdir()
    (path / "day.itch").write_bytes(made.itch_file(messages))
    return path / "day.itch"


def peak(work) -> int:
    """Bytes that NumPy and Python hold at the most meanwhile."""
    tracemalloc.start()
    work()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("written", [parquet, itch])
def test_a_longer_day_takes_no_more_memory(tmp_path, monkeypatch, written):
    monkeypatch.setattr("tradefm_gym.data.itch.blocks", lambda path: pieces(path))
    rows, found = closed_day(), {}
    options = ReadOptions(batch=BATCH, symbol="ABCD" if written is itch else None)
    for times in (1, 2, 10):  # the first warms up
        path = written(tmp_path / f"{times}", rows, times)
        check = peak(lambda path=path, times=times: checked(path, options, times * len(rows)))
        found[times] = (
            check,
            peak(lambda path=path, times=times: convert(open_feed(path, options), tmp_path / f"to{times}")),
        )
    for once, five_times in zip(found[2], found[10], strict=True):
        assert five_times < 1.1 * once + 100_000, found


def checked(path, options, rows):
    day = check_day(open_feed(path, options))
    assert (day.rows, day.unexplained, day.crossed_states) == (rows, [], 0)


def pieces(path):
    """A file in small blocks, so that a short one has many."""
    with open(path, "rb") as file:
        while block := file.read(1 << 16):
            yield block
