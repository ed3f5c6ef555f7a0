"""Damaged files for every reader: whatever is in a file, reading ends with rows or with one sentence.

``pytest tests/test_fuzz_readers.py`` runs a few hundred of them; ``python tests/fuzz_readers.py 600`` goes on for
ten minutes with new ones.
"""

import gzip
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import feed_files as made
import numpy as np
from fuzzing import SLOWEST_S, go_on
from hypothesis import strategies as st

from tradefm_gym.data import load
from tradefm_gym.data.convert import convert
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.flow.recorded_starts import to_events
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.realism.recorded_day import check_day

FORMATS = ("itch", "itch.gz", "dbn", "csv", "lobster", "lobster with a book", "databento csv", "parquet", "anything")
META = {"ticker": "T", "venue": "test", "date": "2025-01-02", "tick_size": 100, "price_unit": "1e-4", "size_unit": "1"}
outcomes: Counter = Counter()

_DAY = made.made_up_day(60, seed=2)
_PLAIN = made.made_up_day(60, seed=3, replaces=False)


def _databento_csv() -> bytes:
    lines = ["ts_recv,ts_event,publisher_id,action,side,price,size,order_id,flags,symbol"]
    for m in _PLAIN:
        stamp = f"2025-01-15T10:00:{m.time_ns // 10**9 % 60:02d}.{m.time_ns % 10**9:09d}Z"
        side = "B" if m.side > 0 else "A"
        action = {"A": "A", "E": "F", "P": "T"}.get(m.event, "C")
        lines.append(f"{stamp},{stamp},1,{action},{side},{m.price / 1e4:.9f},{m.size},{m.order_id},0,ABCD")
    return "\n".join(lines).encode()


def _book() -> bytes:
    return b"9900,100,9800,100,9999999999,0,-9999999999,0\n" * len(_PLAIN)


def contents(name: str) -> dict[str, bytes]:
    """The files of a sound feed by name; the first is what is opened."""
    if name in ("itch", "itch.gz"):
        return {"day": made.itch_file(_DAY)}
    if name == "dbn":
        return {"day": made.dbn_file(_PLAIN)}
    if name == "csv":
        return {"day.csv": made.csv_file(_PLAIN)}
    if name == "lobster":
        return {made.LOBSTER_NAME: made.lobster_file(_PLAIN)}
    if name == "lobster with a book":
        return {
            made.LOBSTER_NAME: made.lobster_file(_PLAIN),
            made.LOBSTER_NAME.replace("message", "orderbook"): _book(),
        }
    if name == "databento csv":
        return {"mbo.csv": _databento_csv()}
    return {"day": b""}


@st.composite
def damage(draw, content: bytes) -> bytes:
    """The content with a few bytes, or parts of it, changed, lost, doubled or put elsewhere."""
    out = bytearray(content)
    for _ in range(draw(st.integers(0, 4))):
        if not out:
            break
        at = draw(st.integers(0, len(out) - 1))
        length = draw(st.one_of(st.integers(1, 8), st.integers(1, max(1, len(out) - at))))
        what = draw(st.sampled_from(("set", "set", "text", "cut", "double", "insert", "end")))
        if what == "set":
            out[at] = draw(st.integers(0, 255))
        elif what == "text":
            word = draw(
                st.sampled_from((b"-1", b"9" * 25, b"nan", b"", b",", b"\n", b"1e400", b"0", b"\xff", b"-0", b'"'))
            )
            out[at : at + min(length, 12)] = word
        elif what == "cut":
            del out[at : at + length]
        elif what == "double":
            out[at:at] = out[at : at + length]
        elif what == "insert":
            out[at:at] = draw(st.binary(max_size=40))
        else:
            del out[at:]
    return bytes(out)


@st.composite
def parquet_columns(draw) -> dict:
    """Columns of events that may be anything in kind and value."""
    n = draw(st.integers(0, 12))
    small, wide = st.integers(-3, 9), st.one_of(st.integers(-5, 400), st.integers(-(2**63), 2**63 - 1))
    kinds = {
        "ts_ns": wide, "event": small, "order_id": st.one_of(st.integers(0, 5), wide), "side": st.integers(-2, 2),
        "price": st.one_of(st.integers(1, 20).map(lambda k: k * 100), wide), "size": wide, "flag": small,
    }  # fmt: skip
    columns = {name: np.array(draw(st.lists(kind, min_size=n, max_size=n)), np.int64) for name, kind in kinds.items()}
    if draw(st.booleans()):
        columns["ts_ns"] = np.sort(columns["ts_ns"])
    if draw(st.booleans()):
        columns["event"] = np.abs(columns["event"]) % 4
        columns["side"] = np.where(columns["side"] > 0, 1, -1)
        columns["price"] = 100 * (1 + np.abs(columns["price"] % 20))
        columns["size"] = 1 + np.abs(columns["size"] % 9)
    spoil = draw(st.sampled_from(("", "", "", "price", "float", "text")))
    if spoil == "price":
        del columns["price"]
    elif spoil:
        columns["size"] = columns["size"].astype(np.float64) + 0.5 if spoil == "float" else columns["size"].astype(str)
    return columns


@st.composite
def cases(draw):
    """(format, files by name, lenient)."""
    name, lenient = draw(st.sampled_from(FORMATS)), draw(st.booleans())
    if name == "parquet":
        return name, {"columns": draw(parquet_columns())}, lenient
    if name == "anything":
        start = draw(
            st.sampled_from(
                (b"", b"DBN\x03", b"DBN", b"PAR1", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x00\x0cS")
            )
        )
        return name, {"day": start + draw(st.binary(max_size=300))}, lenient
    files = contents(name)
    first = draw(st.sampled_from(sorted(files)))
    files[first] = draw(damage(files[first]))
    if name == "itch.gz":
        packed = gzip.compress(files["day"])
        files["day"] = draw(damage(packed)) if draw(st.booleans()) else packed
    return name, files, lenient


def warm_up() -> None:
    """Reads a sound file of every kind, so that no later one waits for a compiler."""
    whole = {name: np.array([1, 2, 3]) for name in ("ts_ns", "order_id", "price", "size")}
    columns = whole | {"event": np.array([0, 0, 3]), "side": np.array([1, -1, 1]), "flag": np.zeros(3, np.int64)}
    columns |= {"price": np.array([100, 200, 100]), "order_id": np.array([1, 2, 1])}
    for name in FORMATS:
        run((name, {"columns": columns} if name == "parquet" else contents(name), False), slowest=1e9)


def run(case, slowest: float = SLOWEST_S) -> None:
    """Opens, checks, converts and loads a damaged feed; anything but a sentence is a failure."""
    name, files, lenient = case
    options = ReadOptions(
        lenient=lenient, symbol="ABCD" if name.startswith("itch") else None,
        columns=made.CSV_MAP if name == "csv" else None, batch=16,
    )  # fmt: skip
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = _written(Path(folder), name, files)
        for what in (
            lambda: check_day(open_feed(path, options)).to_json(),
            lambda: convert(open_feed(path, options), Path(folder) / "out"),
            lambda: _replayed(path, options),
        ):
            try:
                what()
                outcomes[name, "read"] += 1
            except (ValueError, FileNotFoundError) as error:
                outcomes[name, "refused"] += 1
                assert str(error).strip(), type(error)
                assert "\n" not in str(error), str(error)
                assert error.__traceback__ is not None
                _is_a_sentence(error)
        leftovers = [p.name for p in Path(folder).iterdir() if p.name.endswith(".partial")]
        assert not leftovers, leftovers
    assert time.monotonic() - started < slowest


def _is_a_sentence(error: Exception) -> None:
    """A ValueError of NumPy or Numba is a crash in disguise: ours end with a full stop."""
    assert str(error).rstrip().endswith("."), repr(error)


def _written(folder: Path, name: str, files: dict) -> Path:
    if name != "parquet":
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return folder / next(iter(files))
    import polars

    (folder / "meta.json").write_text(json.dumps(META))
    polars.DataFrame(files["columns"]).write_parquet(folder / "events.parquet")
    return folder


def _replayed(path: Path, options: ReadOptions) -> None:
    """Loads the day as records and sends them through an exchange, whose book must never be crossed."""
    flow = load(
        path, lenient=options.lenient, symbol=options.symbol, columns=options.columns, session=(-(2**62), 2**62)
    )
    events = to_events(flow.records)
    ids = 1 << (len(events) + 1).bit_length()
    market = MarketSimulator(1, MarketConfig(orders=max(64, len(events)), flow_ids=ids))
    for k in range(0, len(events), 64):
        part = events[k : k + 64]
        market.feed(EventBlock(part[None].copy(), np.array([len(part)], np.int32)))
        market.advance(until_count=np.array([2**62]))
        bid, ask = market.touch()
        assert bid[0] == 0 or ask[0] == 0 or bid[0] < ask[0]


if __name__ == "__main__":
    sys.exit(go_on(cases(), run, outcomes, float(sys.argv[1]) if len(sys.argv) > 1 else 600))
