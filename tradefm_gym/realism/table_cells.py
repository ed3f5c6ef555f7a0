"""Cells and tables that the terminal and the page both print."""

import math
from typing import NamedTuple

from tradefm_gym.realism.rows import LEAST, Row


class Cell(NamedTuple):
    """A value, its interval, and its mark: "near" in the record's band, "far" outside, "paid" for an attack."""

    value: str
    interval: str = ""
    mark: str = ""


class ProbeTable(NamedTuple):
    """A table; each line is a name and its cells."""

    title: str
    caption: str
    head: tuple[str, ...]
    lines: list[tuple[str, tuple[Cell, ...]]]


def cell(row: Row | None, band: Row | None = None) -> Cell:
    """A row as a cell, marked by whether its value lies in the interval of another, of at least 200 samples."""
    if row is None or not math.isfinite(row.value):
        return Cell("-")
    interval = f"{row.low:.2f} to {row.high:.2f}" if math.isfinite(row.low + row.high) else ""
    mark = ""
    if band is not None and band.n >= LEAST and math.isfinite(band.low + band.high):
        mark = "near" if band.low <= row.value <= band.high else "far"
    value = f"{row.value:,.0f}" if abs(row.value) >= 100 else f"{row.value:.3f}"
    return Cell(value, interval, mark)


def words(name: str) -> str:
    """A name as people read it."""
    return name.replace("_", " ")
