"""A recorded flow as rows of the shared schema again, so that generated markets can be given to other tools."""

from pathlib import Path

import numpy as np

from tradefm_gym.data.convert import convert
from tradefm_gym.data.feed import Feed, ReadOptions
from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.rows import ADD, DELETE, EXECUTION, HIDDEN, PARTIAL_CANCEL, SNAPSHOT, FeedRows
from tradefm_gym.market.events import CANCEL, PRINT


def feed_rows(flow: RecordedFlow) -> FeedRows:
    """The rows that a venue would have published: a taker as its makers' executions, then an add of what rests of it.

    Raises:
        ValueError: if the flow cannot be replayed by id: its executions name no orders then.
    """
    if not flow.meta.replay_by_id:
        raise ValueError(f"flow {flow.meta.source!r} cannot be replayed by order id; only such days can be written")
    tick, lot, records = flow.meta.tick_size, flow.meta.lot, flow.records
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    next_fill = 0
    for i, record in enumerate(records.tolist()):
        named = dict(zip(records.dtype.names or (), record, strict=True))
        time, order_id, side, price = (int(named[name]) for name in ("time_ns", "order_id", "side", "price"))
        if named["kind"] == CANCEL:
            event = PARTIAL_CANCEL if named["max_rest"] > 0 else DELETE
            rows.append((time, event, order_id, side, price, named["size"], 0))
            continue
        if named["kind"] == PRINT:  # of a hidden order, whose side is not the aggressor's
            rows.append((time, HIDDEN, 0, -side, price, named["size"], 0))
            continue
        left = int(named["filled"])
        while left > 0:
            fill = flow.fills[next_fill]
            next_fill += 1
            left -= int(fill["size"])
            rows.append((time, EXECUTION, int(fill["maker_id"]), -side, int(fill["price"]), int(fill["size"]), 0))
        rests = min(int(named["size"]) - int(named["filled"]), int(named["max_rest"]))
        if rests > 0:
            rows.append((time, ADD, order_id, side, price, rests, SNAPSHOT if i < flow.opening else 0))
    table = np.array(rows, np.int64).reshape(len(rows), 7)
    time, event, order_id, side, price, size, flag = table.T
    return FeedRows.build(
        time, event, order_id + 1, side, price * tick, size * lot, flag
    )  # ids of the schema are positive


def write_folder(flow: RecordedFlow, out: str | Path, provenance: dict | None = None) -> dict:
    """Writes a recorded flow as a data folder, ``meta.json`` and ``events.parquet``; it appears once all is written.

    Args:
        flow: of orders that are known by id.
        out: a folder that holds nothing yet.
        provenance: further entries of ``meta.json``.

    Returns:
        What ``meta.json`` says.
    """
    rows, meta = feed_rows(flow), flow.meta
    known = {name: getattr(meta, name) for name in ("ticker", "venue", "date", "tick_size", "price_unit", "size_unit")}
    known |= {"time_unit": "ns"} | (provenance or {})
    feed = Feed(Path(meta.source), "generated", known, lambda skips: iter([rows]), ReadOptions())
    return convert(feed, out)
