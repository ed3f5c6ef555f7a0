"""Read Databento market-by-order data: ``.dbn``, plain or zstandard, through databento-dbn; and its CSV."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from tradefm_gym.data import mbo
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, Skips
from tradefm_gym.data.mbo import MESSAGE, UNDEFINED_PRICE, Translation
from tradefm_gym.data.rows import FeedRows
from tradefm_gym.data.streams import blocks

_RECORD = np.dtype(
    [
        ("length", "u1"), ("rtype", "u1"), ("publisher_id", "<u2"), ("instrument_id", "<u4"), ("ts_event", "<u8"),
        ("order_id", "<u8"), ("price", "<i8"), ("size", "<u4"), ("flags", "u1"), ("channel_id", "u1"),
        ("action", "u1"), ("side", "u1"), ("ts_recv", "<u8"), ("ts_in_delta", "<i4"), ("sequence", "<u4"),
    ]
)  # fmt: skip
_MBO = 160  # rtype
_UNIT = 100_000  # 1e-9 in 1e-4
_LATEST_NS = 7_258_118_400 * 10**9  # the year 2200; int64 nanoseconds reach to 2262
_CSV = (b"ts_recv", b"ts_event", b"action", b"side", b"price", b"size", b"order_id", b"flags")
_ACTIONS = np.frombuffer(b"ACFMNRT", np.uint8)
_SIDES = np.frombuffer(b"ABN", np.uint8)
_PLACES = {"CME": "CME Globex (GLBX.MDP3)", "NASDAQ": "NASDAQ (XNAS.ITCH)"}


def is_csv(start: bytes) -> bool:
    """Whether a file that starts so is Databento's CSV of market-by-order messages."""
    names = start.split(b"\n", 1)[0].strip().split(b",")
    return all(name in names for name in _CSV)


def open_file(path: Path, options: ReadOptions) -> Feed:
    """A DBN file of the MBO schema as a feed."""
    header, described = _metadata(path)
    if described.schema != "mbo":
        raise FeedError(path, f"the file holds the schema {described.schema!r}; only 'mbo' has orders")
    instruments = _instruments(described)
    names = sorted({name for name in instruments.values()})
    symbol = options.symbol
    if symbol is None and len(names) == 1:
        symbol = names[0]
    if symbol is None and len(names) > 1:
        raise FeedError(path, f"the file holds several symbols ({', '.join(names[:8])}); name one of them")
    wanted = {number for number, name in instruments.items() if name == symbol}
    if options.symbol is not None and not wanted:
        raise FeedError(path, f"the file holds no symbol {options.symbol!r}; it has {', '.join(names[:8]) or 'none'}")
    ts_out = bool(described.ts_out)

    def messages(skips: Skips) -> Iterator[np.ndarray]:
        return _records(path, header, ts_out, wanted, skips)

    return _feed(path, "dbn", options, described.dataset, symbol or path.name, int(described.start), messages)


def open_csv(path: Path, options: ReadOptions) -> Feed:
    """Databento's CSV of market-by-order messages as a feed."""
    from tradefm_gym.data.mbo_table import first_row, messages

    first = first_row(path)
    dataset = {1: "GLBX.MDP3", 2: "XNAS.ITCH"}.get(first.publisher_id, f"publisher {first.publisher_id}")

    def read(skips: Skips) -> Iterator[np.ndarray]:
        return messages(path, options, skips)

    return _feed(path, "databento csv", options, dataset, options.symbol or first.symbol, first.time_ns, read)


def _feed(path: Path, name: str, options: ReadOptions, dataset: str, symbol: str, start_ns: int, messages) -> Feed:
    nasdaq, cme = dataset.startswith("XNAS"), dataset.startswith("GLBX")
    zone = ZoneInfo("America/New_York") if nasdaq else ZoneInfo("UTC")
    if not 0 <= start_ns < _LATEST_NS:
        raise FeedError(path, f"the file starts at {start_ns} ns since 1970; days from 1970 to 2200 can be read")
    day = datetime.datetime.fromtimestamp(start_ns // 10**9, zone).date()
    if options.date is not None:
        day = datetime.date.fromisoformat(options.date)
    midnight = int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 10**9
    unit, tick = _grid(path, messages)
    meta = {
        "ticker": symbol,
        "venue": _PLACES["NASDAQ" if nasdaq else "CME"] if nasdaq or cme else dataset,
        "date": day.isoformat(),
        "tick_size": tick,
        "price_unit": "1e-4" if unit == _UNIT else "1e-9",
        "size_unit": "shares" if nasdaq else "contracts" if cme else "units",
        "time_unit": f"ns since midnight {'US/Eastern' if nasdaq else 'UTC'} (exchange time; snapshot rows at the "
        "receive time)",
    }
    # The exchange's stamps may step back by microseconds between its messages: order is that of the file.
    slack_ns = 1_000_000_000
    return Feed(path, name, meta, lambda skips: _rows(messages, midnight, unit, skips), options, slack_ns=slack_ns)


def _grid(path: Path, messages) -> tuple[int, int]:
    """Size of the price unit in 1e-9, and price units a tick: the grid on which the first batch lies."""
    first = next(messages(Skips(str(path), True)), np.zeros(0, MESSAGE))
    orders = np.isin(first["action"], np.frombuffer(b"AM", np.uint8))  # trades may happen between ticks
    price = first["price"][orders & (first["price"] != UNDEFINED_PRICE)]
    step = int(np.gcd.reduce(np.abs(price))) if len(price) else 0
    if step == 0:
        return _UNIT, 100
    unit = _UNIT if step % _UNIT == 0 else 1
    # One price alone makes no grid, and no market has a tick that is no 1, 2 or 5 (or 25, 125) of a power of ten.
    tick = step // unit
    while tick % 10 == 0 and tick > 100 and len(np.unique(price)) < 16:
        tick //= 10
    return unit, tick


def _rows(messages, midnight: int, unit: int, skips: Skips) -> Iterator[FeedRows]:
    state = Translation.start()
    held = None
    for batch in messages(skips):
        batch["time_ns"] -= midnight
        off = (batch["price"] % unit != 0) & (batch["price"] != UNDEFINED_PRICE)
        if off.any():
            row = int(np.argmax(off))
            detail = f"price is {batch['price'][row]}e-9; prices are multiples of {unit}e-9"
            skips.bad("prices off the unit", int(batch["row"][row]), detail, int(off.sum()))
            batch = batch[~off]
        batch["price"] = np.where(batch["price"] == UNDEFINED_PRICE, 0, batch["price"] // unit)
        if held is not None:
            state, rows = mbo.translate(state, held, last=False)
            yield rows
        held = batch
    if held is not None:
        yield mbo.translate(state, held, last=True)[1]


def _metadata(path: Path):
    """The header of a DBN file as bytes, and what databento-dbn makes of it."""
    try:
        from databento_dbn import DBNDecoder, DBNError
    except ImportError as error:
        raise ImportError('Reading DBN needs databento-dbn: pip install "tradefm-gym[databento]".') from error
    start = b""
    for block in blocks(path):
        start += block
        if len(start) >= 8 and len(start) >= 8 + int.from_bytes(start[4:8], "little"):
            break
    length = 8 + int.from_bytes(start[4:8], "little")
    if len(start) < max(length, 8):
        raise FeedError(path, "the file ends within its DBN header")
    header = start[:length]
    try:
        decoder = DBNDecoder()
        decoder.write(header)
        decoded = decoder.decode()
    except (DBNError, ValueError, OSError, OverflowError) as error:
        raise FeedError(path, f"the DBN header cannot be read ({str(error).rstrip('.')})") from None
    if not decoded:
        raise FeedError(path, "the DBN header cannot be read")
    return header, decoded[0]


def _instruments(described) -> dict[int, str]:
    """Symbols by instrument id, as far as the header maps them."""
    out = {}
    for symbol, intervals in dict(described.mappings).items():
        for interval in intervals:
            number = interval["symbol"] if isinstance(interval, dict) else interval.symbol
            if str(number).isdigit():
                out[int(number)] = symbol
    return out


def _records(path: Path, header: bytes, ts_out: bool, wanted: set[int], skips: Skips) -> Iterator[np.ndarray]:
    """Messages of the wanted instrument in batches, prices still in 1e-9 and times since 1970."""
    rest, skipped, row = b"", 0, 0
    seen: set[int] = set()
    for block in blocks(path):
        data = rest + block
        if skipped < len(header):
            if len(data) < len(header):
                rest = data
                continue
            data, skipped = data[len(header) :], len(header)
        data, rest = _whole(path, data, row, ts_out)
        yield _messages(data, row, wanted, seen, path, skips)
        row += len(data)
    if rest:
        skips.bad("the file ends within a record", row, f"the file ends within a record of {len(rest)} bytes")


def _whole(path: Path, data: bytes, row: int, ts_out: bool) -> tuple[np.ndarray, bytes]:
    """The whole MBO records at the start of ``data``, and what is left."""
    size = _RECORD.itemsize + (8 if ts_out else 0)
    layout = _RECORD if not ts_out else np.dtype([*_RECORD.descr, ("ts_out", "<u8")])
    count = len(data) // size
    records = np.frombuffer(data, layout, count)
    plain = (records["length"] == size // 4) & (records["rtype"] == _MBO)
    if plain.all():
        return records, data[count * size :]
    # Records of other kinds in between (system and mapping messages): walk by their lengths.
    parts, at, start = [], 0, 0
    while at + 4 <= len(data):
        length = 4 * data[at]
        if length < 16:
            number = row + sum(len(p) for p in parts) + (at - start) // size
            raise FeedError(path, f"a record of {length} bytes, and none is shorter than 16: its end is lost", number)
        if at + length > len(data):
            break
        if length != size or data[at + 1] != _MBO:
            parts.append(np.frombuffer(data[start:at], layout))
            start = at + length
        at += length
    return _joined(parts, data[start:at], layout), data[at:]


def _joined(parts: list[np.ndarray], data: bytes, layout: np.dtype) -> np.ndarray:
    return np.concatenate([*parts, np.frombuffer(data, layout)])


def _messages(records, row: int, wanted: set[int], seen: set[int], path: Path, skips: Skips) -> np.ndarray:
    """Records as (n,) MESSAGE; those that cannot be are refused or counted."""
    number = np.arange(row, row + len(records))
    if wanted:
        keep = np.isin(records["instrument_id"], list(wanted))
        records, number = records[keep], number[keep]
    else:
        seen.update(np.unique(records["instrument_id"]).tolist())
        if len(seen) > 1:
            raise FeedError(path, f"the file holds {len(seen)} instruments without names; its header maps no symbol")
    out = np.zeros(len(records), MESSAGE)
    snapshot = records["flags"] & 32 != 0
    out["time_ns"] = np.where(snapshot, records["ts_recv"], records["ts_event"]).astype(np.int64)
    out["row"] = number
    for name in ("order_id", "price", "size", "flags", "action", "side"):
        out[name] = records[name]
    return checked(out, skips)


def checked(messages: np.ndarray, skips: Skips) -> np.ndarray:
    """The messages (n,) MESSAGE that can be; others are refused or counted."""
    action, price = messages["action"], messages["price"]
    named = np.isin(action, np.frombuffer(b"ACFM", np.uint8))
    order = np.isin(action, np.frombuffer(b"AM", np.uint8))
    for name, wrong, rule in (
        ("action", ~np.isin(action, _ACTIONS), "actions are A, C, F, M, N, R and T"),
        ("side", ~np.isin(messages["side"], _SIDES), "sides are A, B and N"),
        (
            "side",
            np.isin(action, np.frombuffer(b"ACM", np.uint8)) & (messages["side"] == ord("N")),
            "orders need a side",
        ),
        ("price", (price == UNDEFINED_PRICE) & (named | (action == ord("T"))), "orders and trades need a price"),
        (
            "size",
            (messages["size"] <= 0) & (order | (action == ord("F")) | (action == ord("T"))),
            "sizes must be positive",
        ),
        ("time_ns", (messages["time_ns"] < 0) | (messages["time_ns"] > 2**62), "times must lie after 1970"),
        ("order_id", messages["order_id"] < 0, "order ids must lie below 2^63"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            value = messages[name][row]
            shown = repr(chr(value)) if name in ("action", "side") else value
            skips.bad(rule, int(messages["row"][row]), f"{name} is {shown}; {rule}", int(wrong.sum()))
            return checked(messages[~wrong], skips)
    return messages
