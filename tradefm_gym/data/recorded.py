"""Recorded order flow: one day of one asset as tape records, ready for replay and for training."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from tradefm_gym.data import forms, takers
from tradefm_gym.data.feed import ReadOptions, open_feed
from tradefm_gym.data.opening import opening_book
from tradefm_gym.data.rows import CROSS, HALT, HIDDEN, SNAPSHOT, FeedRows, Source, validate
from tradefm_gym.market.events import CANCEL, LIMIT, PRINT
from tradefm_gym.market.features import size_codes

_HOUR_NS = 3_600_000_000_000
_LARGEST_LOTS = 2**24  # int32 with headroom for sums over a level, and exact in float32 features


@dataclass(frozen=True)
class FlowMeta:
    """Where a recorded flow comes from, its units, and what was dropped, merged or rounded on the way."""

    ticker: str
    venue: str
    date: str
    tick_size: int  # price units per tick
    price_unit: str
    lot: int  # raw size units per lot, a power of ten
    size_unit: str
    replay_by_id: bool  # whether executing the records by order id rebuilds the book
    session_ns: tuple[int, int]  # continuous session, nanoseconds since midnight of the feed's time zone
    source: str
    counts: dict[str, int] = field(default_factory=dict)


def asset_name(meta: FlowMeta) -> str:
    """What an asset is called by models that know some: its venue and ticker."""
    return f"{meta.venue} {meta.ticker}"


@dataclass(frozen=True)
class RecordedFlow:
    """A recorded continuous session as tape records.

    Attributes:
        records: (n,) RECORD in feed order, owner BACKGROUND, kinds LIMIT, CANCEL and PRINT. Order ids are dense,
            from 0 in order of first appearance. A rebuilt taker has ``filled > 0`` and ``max_rest`` = what rested
            in the record. ``max_rest`` of a CANCEL is what remains of its order afterwards (0: it is gone).
            A PRINT has the aggressor's side, or 0 where the feed gives none.
        opening: how many leading records are the opening book, not flow; in order of priority.
        touch: (n, 4) int32 bid price, bid size, ask price, ask size after each record; size 0 marks an empty side.
        fills: (f,) FILL, the recorded executions behind the takers' ``filled``.
        book: (n, levels, 4) int32 ask price, ask size, bid price, bid size in ticks and lots after each record, for
            sets that came with a book and cannot be replayed by id; None otherwise.
        source_row: (n,) int64 row of the source file behind each record (the last one where rows were merged),
            -1 for the opening book.
        meta: units, origin and counts.
    """

    records: np.ndarray
    opening: int
    touch: np.ndarray
    fills: np.ndarray
    book: np.ndarray | None
    source_row: np.ndarray
    meta: FlowMeta

    def __len__(self) -> int:
        """Number of records, the opening book included."""
        return len(self.records)

    @property
    def flow(self) -> np.ndarray:
        """The records after the opening book: (n - opening,) RECORD, a view."""
        return self.records[self.opening :]

    def summary(self) -> dict[str, float]:
        """Counts by kind, and the median spread in ticks and basis points, of the flow after the opening."""
        flow, touch = self.flow, self.touch[self.opening :]
        two_sided = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 2] > touch[:, 0])
        spread = (touch[:, 2] - touch[:, 0])[two_sided].astype(float)
        mid = (touch[:, 2] + touch[:, 0])[two_sided] / 2.0
        background = int((flow["kind"] != PRINT).sum())
        return {
            "opening": self.opening,
            "limits": int((flow["kind"] == LIMIT).sum()),
            "cancels": int((flow["kind"] == CANCEL).sum()),
            "prints": int((flow["kind"] == PRINT).sum()),
            "takers": int(((flow["kind"] == LIMIT) & (flow["filled"] > 0)).sum()),
            "spread_ticks": float(np.median(spread)) if len(spread) else float("nan"),
            "spread_bps": float(np.median(1e4 * spread / mid)) if len(spread) else float("nan"),
            "lots_per_event": float(flow["filled"][flow["kind"] == LIMIT].sum() / max(1, background)),
        }


def load(
    path: str | Path,
    *,
    tick_size: int | None = None,
    lot: int | None = None,
    session: tuple[int, int] | None = None,
    replay_by_id: bool | None = None,
    infer_opening: bool = True,
    symbol: str | None = None,
    date: str | None = None,
    columns: Mapping[str, Any] | None = None,
    lenient: bool = False,
) -> RecordedFlow:
    """Load recorded order flow as records.

    Args:
        path: a folder with ``meta.json`` and ``events.parquet``; a LOBSTER message file ``*_message_*.csv``, whose
            orderbook file is found by its name; Databento MBO (``.dbn`` or CSV); NASDAQ ITCH 5.0; or any CSV, with
            ``columns``. Files may be compressed. All but LOBSTER and ITCH need the ``data`` extra, DBN ``databento``.
        tick_size: price units per tick; default from the metadata, for LOBSTER 100 (one cent).
        lot: raw size units per lot; default the smallest power of ten that keeps every size below 2^24 lots.
        session: continuous session (start, end) in nanoseconds since midnight of the feed's time zone;
            default by venue. Earlier rows only build the opening book, later ones are dropped.
        replay_by_id: whether the records rebuild the book by order id; default: when the source has no book file.
        infer_opening: put orders that are cancelled or executed but never added into the opening book.
        symbol: the instrument, where a file holds several.
        date: YYYY-MM-DD, where a file does not say.
        columns: the column map of a CSV; see :mod:`tradefm_gym.data.table`.
        lenient: leave out rows that no feed can have, and count them in ``meta.counts["skipped"]``.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        FeedError: a ValueError, if the file cannot be read, or holds a row that no feed can have.
        ImportError: if a format needs an extra that is not installed.
    """
    path = Path(path)
    feed = open_feed(path, ReadOptions(lenient, symbol, date, tick_size, columns))
    source = feed.gather()
    by_id = source.book is None if replay_by_id is None else replay_by_id
    flow = build(source, str(path), tick_size, lot, session, by_id, infer_opening)
    if lenient:
        flow.meta.counts["skipped"] = sum(feed.skips.counts.values())
    return flow


def build(
    source: Source,
    where: str,
    tick_size: int | None = None,
    lot: int | None = None,
    session: tuple[int, int] | None = None,
    replay_by_id: bool = True,
    infer_opening: bool = True,
) -> RecordedFlow:
    """Turn a reader's rows into a recorded flow; ``where`` names them in messages, the rest is as in :func:`load`."""
    meta, counts = source.meta, {"rows": len(source.rows)}
    tick = int(meta["tick_size"] if tick_size is None else tick_size)
    validate(source.rows, tick, where)
    span = (int(source.rows.time_ns[0]), int(source.rows.time_ns[-1]))
    session = continuous_session(meta, *span) if session is None else (int(session[0]), int(session[1]))
    rows, opening = _session_rows(source.rows, session, replay_by_id, infer_opening, tick, where, counts)
    lot = _lot(rows.size) if lot is None else int(lot)
    if lot <= 0:
        raise ValueError(f"lot is {lot}; it must be a positive number of raw size units.")
    if rows.size.max() // lot >= _LARGEST_LOTS:
        raise ValueError(f"lot is {lot}; the largest size, {rows.size.max()}, must stay below 2^24 lots.")
    counts["below_one_lot"] = int((rows.size < lot).sum())
    counts["rounded_prints"] = int(((rows.event == HIDDEN) & (rows.price % tick != 0)).sum())
    records, fills, touch, row, rebuilt = takers.rebuild(rows, tick, lot)
    counts.update(rebuilt)
    source_row = rows.source[row]
    source_row[:opening] = -1
    book = None
    if source.book is not None:
        counts.pop("crossed_records")  # of a book that is known to be incomplete
        book = _book_in_ticks(source.book(np.maximum(source_row, 0)), tick, lot)
        touch = np.ascontiguousarray(book[:, 0][:, [2, 3, 0, 1]])
        records["mid2"] = _mid2(touch)
    _relabel(records, fills)
    if opening:  # half a book has no meaningful mid: every opening record carries that of the whole
        records["mid2"][:opening] = records["mid2"][opening - 1]
        touch[:opening] = touch[opening - 1]
    stamp_touch(records, touch)
    units = {name: meta[name] for name in ("ticker", "venue", "date", "price_unit", "size_unit")}
    return RecordedFlow(
        records,
        opening,
        touch,
        fills,
        book,
        source_row,
        FlowMeta(
            **units,
            tick_size=tick,
            lot=lot,
            replay_by_id=replay_by_id,
            session_ns=session,
            source=where,
            counts=counts,
        ),
    )


def stamp_touch(records: np.ndarray, touch: np.ndarray) -> None:
    """Writes the touch (n, 4) after each record to the fields of (n,) RECORD that tell it, in place."""
    two_sided = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 0] < touch[:, 2])
    records["spread"] = np.where(two_sided, touch[:, 2] - touch[:, 0], 0)
    records["bid_size"], records["ask_size"] = size_codes(touch[:, 1]), size_codes(touch[:, 3])


def _session_rows(
    rows: FeedRows,
    session: tuple[int, int],
    replay_by_id: bool,
    infer_opening: bool,
    tick: int,
    where: str,
    counts: dict[str, int],
) -> tuple[FeedRows, int]:
    """The opening book and the rows of the continuous session, takers' fills first; and the length of the opening."""
    counts["dropped_late"] = int((rows.time_ns >= session[1]).sum())
    counts["dropped_halts"] = int((rows.event == HALT).sum())
    rows = rows.take(np.flatnonzero((rows.time_ns < session[1]) & (rows.event != HALT)))
    rows, counts["paired_fills"] = forms.fills_first(rows)
    rows, counts["modified_takers"] = forms.modified_takers(rows)
    flow = np.flatnonzero((rows.flag & SNAPSHOT == 0) & (rows.time_ns >= session[0]))
    if len(flow) == 0:
        raise ValueError(f"{where}: no rows lie in the continuous session {session}; pass session=(start_ns, end_ns).")
    start = int(flow[0])
    counts["rows_before_session"] = start
    opening = inferred = 0
    if replay_by_id:
        rows, opening, inferred = opening_book(rows, start, infer_opening, tick)
    else:
        rows = rows.take(np.arange(start, len(rows)))
    counts["inferred_opening"] = inferred
    counts["dropped_crosses"] = int(((rows.event == CROSS) & ((rows.side == 0) | (rows.order_id <= 0))).sum())
    return rows, opening


def continuous_session(meta: dict, first_ns: int, last_ns: int) -> tuple[int, int]:
    """The venue's continuous session in the feed's own clock; everything where the venue is not known.

    Args:
        meta: names the venue, and the date where the clock depends on it.
        first_ns: time of the first row.
        last_ns: time of the last row.
    """
    venue = meta["venue"]
    if "NASDAQ" in venue:
        return (34_200 * 10**9, 16 * _HOUR_NS)
    if "Shanghai" in venue or "Shenzhen" in venue:  # 14:57 begins the closing auction
        return (34_200 * 10**9, 14 * _HOUR_NS + 57 * 60 * 10**9)
    if "CME" in venue and _is_date(
        meta["date"]
    ):  # trading halts 16:00 - 17:00 Chicago, and the pre-open book is crossed
        day = datetime.datetime.fromisoformat(meta["date"]).replace(hour=16, tzinfo=ZoneInfo("America/Chicago"))
        halt = day.astimezone(ZoneInfo("UTC")).hour * _HOUR_NS
        return (first_ns, halt) if first_ns < halt else (halt + _HOUR_NS, last_ns + 1)
    return (first_ns, last_ns + 1)


def _is_date(text: str) -> bool:
    try:
        return bool(datetime.date.fromisoformat(str(text)))
    except ValueError:
        return False


def _lot(size: np.ndarray) -> int:
    """The smallest power of ten that brings the largest size below 2^24 lots."""
    lot = 1
    while size.max() // lot >= _LARGEST_LOTS:
        lot *= 10
    return lot


def _book_in_ticks(book: np.ndarray, tick: int, lot: int) -> np.ndarray:
    """Raw book rows (n, levels, 4) int64 as int32 ticks and lots; empty levels become price 0 and size 0."""
    out = np.zeros(book.shape, np.int32)
    for price, size in ((0, 1), (2, 3)):
        held = book[..., size] > 0
        out[..., price] = np.where(held, book[..., price] // tick, 0)
        out[..., size] = np.where(held, -(-book[..., size] // lot), 0)
    return out


def _mid2(touch: np.ndarray) -> np.ndarray:
    """Doubled mid (n,) int32 after each record; an empty or crossed side keeps the last one, 0 before the first."""
    good = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 0] < touch[:, 2])
    last = np.maximum.accumulate(np.where(good, np.arange(len(touch)), -1))
    return np.where(last >= 0, (touch[:, 0] + touch[:, 2])[last], 0).astype(np.int32)


def _relabel(records: np.ndarray, fills: np.ndarray) -> None:
    """Number orders from 0 by first appearance on the records; makers that never appear there come after."""
    ids = np.concatenate([records["order_id"], fills["maker_id"]])
    named = ids[ids >= 0]
    if len(named):
        unique, first = np.unique(named, return_index=True)
        label = np.full(int(unique.max()) + 1, -1, np.int64)
        label[unique[np.argsort(first)]] = np.arange(len(unique))
        for array, name in ((records, "order_id"), (fills, "maker_id"), (fills, "taker_id")):
            old = array[name]
            array[name] = np.where(old >= 0, label[np.maximum(old, 0)], -1)
