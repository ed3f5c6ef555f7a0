"""Recorded days in one compact file, so that replay needs neither the source nor its reader."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.data.archive import pack, read_archive, unpack, write_archive
from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, stamp_touch
from tradefm_gym.market.events import CANCEL, FILL, LIMIT, PRINT, RECORD

_KIND = "recorded day"


def save_day(path: str | Path, flow: RecordedFlow) -> None:
    """Writes a recorded flow to a compressed ``.npz``; an existing file is replaced only when all is written."""
    columns = pack("records", flow.records) | pack("fills", flow.fills)
    for i, name in enumerate(("bid", "bid_size", "ask", "ask_size")):
        columns[f"touch.{name}"] = flow.touch[:, i]
    columns["source_row"] = flow.source_row
    if flow.book is not None:
        columns["book"] = flow.book
    write_archive(path, columns, {"kind": _KIND, "format": 1, "opening": int(flow.opening), "meta": asdict(flow.meta)})


def load_day(path: str | Path) -> RecordedFlow:
    """Reads what ``save_day`` wrote and checks it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no recorded day, or an unsound one.
    """
    columns, description = read_archive(path, _KIND)
    try:
        meta: dict[str, Any] = dict(description["meta"])
        meta["session_ns"] = tuple(meta["session_ns"])
        touch = np.stack([columns[f"touch.{name}"] for name in ("bid", "bid_size", "ask", "ask_size")], axis=1)
        flow = RecordedFlow(
            records=unpack(columns, "records", RECORD),
            opening=int(description["opening"]),
            touch=np.ascontiguousarray(touch, np.int32),
            fills=unpack(columns, "fills", FILL),
            book=columns.get("book"),
            source_row=columns["source_row"],
            meta=FlowMeta(**meta),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"path {str(path)!r} is an incomplete recorded day: {error}") from error
    _check(flow, str(path))
    stamp_touch(flow.records, flow.touch)  # files older than these fields lack them
    return flow


def _check(flow: RecordedFlow, where: str) -> None:
    records = flow.records
    if not 0 <= flow.opening < len(records):
        raise ValueError(f"{where}: opening is {flow.opening}; it must lie between 0 and {len(records) - 1} records")
    if len(flow.touch) != len(records) or len(flow.source_row) != len(records):
        raise ValueError(f"{where}: touch and source_row must have a row for each of the {len(records)} records")
    for bad, rule in (
        (np.diff(records["time_ns"], prepend=records["time_ns"][0]) < 0, "time_ns must not decrease"),
        (records["size"] < 1, "sizes must be positive"),
        (records["filled"] < 0, "filled must not be negative"),
        (~np.isin(records["kind"], (LIMIT, CANCEL, PRINT)), "kinds are LIMIT, CANCEL and PRINT"),
        ((records["kind"] != PRINT) & (np.abs(records["side"]) != 1), "sides are +1 and -1"),
    ):
        if bad.any():
            raise ValueError(
                f"{where}: record {int(np.argmax(bad))} is unsound; {rule} ({int(bad.sum())} such records)"
            )
