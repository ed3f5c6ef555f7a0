"""What of a market's arrays is state, taken out of them and written back, in a form that says nothing of its past.

State is what can be read or can change what happens next. The rest is left out: memory that no entry uses, where a
ring begins, how wide arrays are, and what follows from the queues (levels, trees, tables of ids). So equal markets
give equal copies, whatever was widened, emptied or cancelled before, and whoever their neighbours are.

The slot of an order *is* state, as are the free slots in their order: a ``CANCEL_RANDOM`` picks a slot, and the free
list says where the next order lies.

Arrays go by their names. One that nothing here names is state as a whole, entry by entry of its first axis. What a
seat with late data sees is a market as any other; its arrays have a prefix with the seat.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import SERIAL
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.delays import LATEST
from tradefm_gym.market.layout import (
    AGENT_END,
    AGENT_HEAD,
    CLOCK,
    COUNT,
    EXECUTED,
    FILL_PLACE,
    FILLS,
    FLOW_HEAD,
    FLOW_WAITING,
    FREE,
    HIGH_WATER,
    LOG_BASE,
    LOG_END,
    NEXT_ID,
    RECORD_PLACE,
    RECORDS,
    ROW_WIDTH,
)

# Arrays that follow from the orders and their links.
REBUILT = ("levels", "page_bits", "children", "node_bits")
# One that says nothing any more once everybody has heard what is due: the next news come later in any case.
SETTLED = ("shown",)
# Columns that are state; those of ``row`` besides them follow from the orders, those of ``clocks`` only say where
# a ring begins.
_ROW_STATE = (FREE, HIGH_WATER, NEXT_ID, LOG_BASE, LOG_END)
ROW_REST = tuple(column for column in range(ROW_WIDTH) if column not in _ROW_STATE)
PLACES = (FLOW_HEAD, AGENT_HEAD, RECORD_PLACE, FILL_PLACE)

# A snapshot says so much of a count at the most. No market counts that far, but bytes that none wrote may begin there,
# and what is saved after that must be as readable.
MOST = 2**62
MOST_LOGGED = 2**61
_COUNTS = (COUNT, EXECUTED, RECORDS, FILLS)

_OF_VIEW = re.compile("view_(0|[1-9][0-9]{0,4})_(.*)", re.DOTALL)


def prefix_of(seat: int) -> str:
    """What the names of the arrays begin with that belong to what a seat sees."""
    return f"view_{seat}_"


def each_market(
    config: MarketConfig, arrays: Mapping[str, np.ndarray]
) -> list[tuple[str, MarketConfig, dict[str, np.ndarray]]]:
    """The markets whose arrays these are: prefix, configuration and arrays of the true one and of each view."""
    late = config.late_seats
    if not late:  # most markets: names need not be read
        return [("", config, dict(arrays))]
    found: dict[str, dict[str, np.ndarray]] = {"": {}, **{prefix_of(seat): {} for seat in late}}
    for name, array in arrays.items():
        match = _OF_VIEW.fullmatch(name)
        prefix = prefix_of(int(match[1])) if match else ""
        if match and prefix in found:
            found[prefix][match[2]] = array
        else:
            found[""][name] = array
    of_views = config.of_views
    return [(prefix, of_views if prefix else config, own) for prefix, own in found.items()]


def is_kept(name: str) -> bool:
    """Whether a market's array of that name is in its snapshots."""
    return name not in REBUILT and name not in SETTLED


def in_use(config: MarketConfig, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of which arrays a market's rows use a part: its first place and its length in each, (k,) int64 both.

    The one place that knows; an array that is not named here is state as a whole.
    """
    row, clocks = arrays["row"], arrays["clocks"]
    records = np.minimum(clocks[:, RECORDS], config.tape)
    fills = np.minimum(clocks[:, FILLS], config.fills)
    forgotten = seen_by_all(arrays["seen"]) - row[:, LOG_BASE]
    parts = {
        "orders": (np.zeros(len(row), np.int64), row[:, HIGH_WATER]),
        "records": ((clocks[:, RECORDS] - records) % config.tape, records),
        "fills": ((clocks[:, FILLS] - fills) % config.fills, fills),
        "flow_queue": (clocks[:, FLOW_HEAD], clocks[:, FLOW_WAITING]),
        "agent_queue": (clocks[:, AGENT_HEAD], clocks[:, AGENT_END] - clocks[:, AGENT_HEAD]),
        "log": (forgotten, row[:, LOG_END] - forgotten),
    }
    return {name: (np.ascontiguousarray(first), np.ascontiguousarray(n)) for name, (first, n) in parts.items()}


def seen_by_all(seen: np.ndarray) -> np.ndarray:
    """How many events the slowest seat has heard of, (k,) int64; 0 where no seat is late."""
    return seen.min(axis=1) if seen.shape[1] else np.zeros(len(seen), np.int64)


def take(config: MarketConfig, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The state of ``rows`` of a market with these arrays, by name; seats have heard of all that is due."""
    taken = {}
    for prefix, of_market, own in each_market(config, arrays):
        taken |= {prefix + name: array for name, array in _take(of_market, own, rows).items()}
    return taken


def _take(config: MarketConfig, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    parts = in_use(config, {name: arrays[name][rows] for name in ("row", "clocks", "seen")})
    taken = {}
    for name, array in arrays.items():
        if not is_kept(name):
            continue
        if name in parts:
            taken[name] = np.empty(int(parts[name][1].sum()), array.dtype)
            _copy_out(_words(array), _words(taken[name]), rows, *_in_words(parts[name], array.dtype))
        else:
            taken[name] = array[rows]
        blank(taken[name])
    _normalise(taken, parts["log"][1])
    return taken


def _normalise(taken: dict[str, np.ndarray], logged: np.ndarray) -> None:
    """Forgets what tells of the past only: where rings begin, what lay in dead slots, when the last order came."""
    row, clocks, orders = taken["row"], taken["clocks"], taken["orders"]
    row[:, ROW_REST] = 0
    if clocks.max(initial=0) > MOST:  # hardly ever, and then perhaps of a time only
        clocks[:, _COUNTS] = np.minimum(clocks[:, _COUNTS], MOST)
    if taken["sent"].size or taken["seen"].size:
        np.minimum(taken["sent"], MOST, out=taken["sent"])
        taken["seen"] -= np.maximum(seen_by_all(taken["seen"]) - MOST_LOGGED, 0)[:, None]
    row[:, LOG_BASE], row[:, LOG_END] = seen_by_all(taken["seen"]), logged
    clocks[:, AGENT_END] -= clocks[:, AGENT_HEAD]
    clocks[:, PLACES] = 0
    dead = np.flatnonzero(orders["size"] == 0)
    links = orders["next"][dead]
    orders[dead] = np.zeros((), orders.dtype)
    orders["next"][dead] = links
    arrived = taken["arrived"]
    arrived[arrived <= earliest(clocks)] = 0  # whatever is sent from now on arrives later anyway


def earliest(clocks: np.ndarray) -> np.ndarray:
    """When an order that is sent now leaves at the earliest, (k, 1) int64 ns."""
    return np.minimum(clocks[:, CLOCK], LATEST)[:, None]


def most_pages(orders: np.ndarray, lengths: np.ndarray) -> int:
    """On how many pages of prices the live orders lie, one book's after another's, in the book that has most."""
    market = np.repeat(np.arange(len(lengths)), lengths)
    pages = np.stack([market, orders["side"], orders["price"] >> 6])[:, orders["size"] > 0]
    return int(np.bincount(np.unique(pages, axis=1)[0]).max(initial=1))


def put(
    config: MarketConfig, kept: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], rows: np.ndarray
) -> None:
    """Writes all but the orders and what follows from them into ``rows`` of one market's own arrays."""
    parts = in_use(config, kept)
    for name, array in kept.items():
        if name == "row":
            arrays[name][rows[:, None], _ROW_STATE] = array[:, _ROW_STATE]
        elif name not in parts:
            arrays[name][rows] = array
        elif name != "orders":
            _copy_in(_words(array), _words(arrays[name]), rows, *_in_words(parts[name], array.dtype))
    for name in SETTLED:
        arrays[name][rows] = 0
    clocks = arrays["clocks"]
    clocks[rows, RECORD_PLACE] = clocks[rows, RECORDS] % config.tape
    clocks[rows, FILL_PLACE] = clocks[rows, FILLS] % config.fills


# --- Bytes of entries ---------------------------------------------------------------------------------------


def blank(array: np.ndarray) -> None:
    """Zeros between the fields of an array's entries: what lies there is chance."""
    gaps = _gaps(array.dtype)
    if gaps:
        entries = array.reshape(-1).view(np.uint8).reshape(array.size, array.dtype.itemsize)
        for begin, end in gaps:
            for byte in range(begin, end):  # one long stride a byte is ten times faster than many short runs
                entries[:, byte] = 0


@lru_cache
def _gaps(dtype: np.dtype) -> list[tuple[int, int]]:
    if dtype.fields is None:
        return []
    spans = sorted((offset, offset + field.itemsize) for field, offset, *_ in dtype.fields.values())
    ends, starts = [0, *(end for _, end in spans)], [*(start for start, _ in spans), dtype.itemsize]
    return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def _words(array: np.ndarray) -> np.ndarray:
    """An array as words of 8 bytes, for kernels that do not care what they copy."""
    return array.view(np.uint64)


def _in_words(part: tuple[np.ndarray, np.ndarray], dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    return part[0] * (dtype.itemsize // 8), part[1] * (dtype.itemsize // 8)


@njit(**SERIAL)
def _copy_out(rings, out, rows, first, count):
    """Words of the parts in use of ``rows`` of ``rings`` (N, W), one after another, to ``out``."""
    at = 0
    for i in range(rows.shape[0]):
        begin, left = first[i], count[i]
        while left > 0:
            run = min(left, rings.shape[1] - begin)
            out[at : at + run] = rings[rows[i], begin : begin + run]
            at, left, begin = at + run, left - run, 0


@njit(**SERIAL)
def _copy_in(kept, rings, rows, first, count):
    """The inverse of :func:`_copy_out`."""
    at = 0
    for i in range(rows.shape[0]):
        begin, left = first[i], count[i]
        while left > 0:
            run = min(left, rings.shape[1] - begin)
            rings[rows[i], begin : begin + run] = kept[at : at + run]
            at, left, begin = at + run, left - run, 0
