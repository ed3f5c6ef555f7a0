"""A recorded day as the twelve types of Compound Hawkes, with what each event brings along.

The types are those of Jain, Firoozye, Kochems and Treleaven (arXiv 2312.08927): limit orders inside the spread, at the
touch and deeper, cancels at the touch and deeper, and takers, each for both sides of the book.
"""

from typing import NamedTuple

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import split
from tradefm_gym.flow.hawkes_process import Observed
from tradefm_gym.market.events import CANCEL, LIMIT, PRINT
from tradefm_gym.rng import uniform_array

# A type is 2 * kind + side, side 0 for buys (or cancels of bids) and 1 for sells.
KINDS = ("limit inside", "limit at touch", "limit deep", "cancel at touch", "cancel deep", "marketable")
LIMIT_INSIDE, LIMIT_TOUCH, LIMIT_DEEP, CANCEL_TOUCH, CANCEL_DEEP, MARKETABLE = range(6)
TYPES = tuple(f"{side} {kind}" for kind in KINDS for side in ("buy", "sell"))
EVENT_KIND = np.array([LIMIT, LIMIT, LIMIT, CANCEL, CANCEL, LIMIT], np.uint8)

_LONGEST_GAP_NS = 600 * 10**9  # longer silences are breaks of the session
_FINE_NS = 1000  # clocks that tick more slowly than this are smoothed
_SEED = 0x4A57  # of the smoothing
_DEEPEST = 1 << 20  # ticks
_GOLDEN = 0.6180339887498949


class TypedDay(NamedTuple):
    """The background events of a recorded day after its opening book."""

    rows: np.ndarray  # (n,) int64, positions in ``records``
    time_ns: np.ndarray  # (n,) int64, as recorded
    seconds: np.ndarray  # (n,) float64 of trading since the first event, ascending; breaks do not count
    types: np.ndarray  # (n,) int64
    marks: np.ndarray  # (n, 3) int32: ticks (see ``mark_tables``), lots, lots that may rest
    usable: np.ndarray  # (n,) bool, whether the mark is known
    train: slice  # of these arrays
    validation: slice

    def observed(self, part: slice, history: int = 20_000) -> Observed:
        """The events of a part, with up to ``history`` ones before them by which they are explained."""
        before = max(0, part.start - history)
        begin = self.seconds[part.start - 1] if part.start > 0 else 0.0
        end = float(self.seconds[part.stop - 1])
        window = slice(before, part.stop)
        return Observed(self.seconds[window], self.types[window], part.start - before, float(begin), end)

    def edges(self, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """What divides the training part into ``parts`` of equal length: (parts - 1,) seconds, and int64 ns."""
        seconds, time_ns = self.seconds[self.train], self.time_ns[self.train]
        edges = seconds[0] + (seconds[-1] - seconds[0]) * np.arange(1, parts) / parts
        return edges, np.interp(edges, seconds, time_ns.astype(np.float64)).astype(np.int64)


def typed_day(recorded: RecordedFlow) -> TypedDay:
    """Classifies every background event by the book before it; hidden executions are none.

    A taker is what executed on arrival; an order that improves its touch is inside, whether or not it would cross a
    book that the feed shows wrongly. Ties in time, and clocks of more than a microsecond a tick, are smoothed: events
    of one stamp are spread over the tick in their order, as uniform numbers would fall.

    Raises:
        ValueError: if the training or the validation part holds too few events to say anything about them.
    """
    records, touch = recorded.records, recorded.touch
    rows = np.arange(max(recorded.opening, 1), len(records))
    rows = rows[records["kind"][rows] != PRINT]
    kind, ticks, usable = _classify(records[rows], touch[rows - 1])
    side = (records["side"][rows] < 0).astype(np.int64)
    size, filled = records["size"][rows], records["filled"][rows]
    rest = np.where(kind == MARKETABLE, np.minimum(records["max_rest"][rows], size - filled), size)
    time_ns = records["time_ns"][rows]
    parts = split(recorded)
    cuts = [np.searchsorted(rows, edge) for part in (parts.train, parts.validation) for edge in (part.start, part.stop)]
    train, validation = slice(int(cuts[0]), int(cuts[1])), slice(int(cuts[2]), int(cuts[3]))
    day = TypedDay(
        rows, time_ns, _smoothed(time_ns), 2 * kind + side, np.stack([ticks, size, rest], axis=1).astype(np.int32),
        usable, train, validation,
    )  # fmt: skip
    if train.stop - train.start < 100 or validation.stop - validation.start < 10:
        raise ValueError(
            f"recorded flow has {train.stop - train.start} background events in its training part and "
            f"{validation.stop - validation.start} in its validation part; at least 100 and 10 are needed"
        )
    return day


def _classify(records: np.ndarray, before: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kinds (n,), ticks of the marks (n,), and whether these are known (n,), given the touch ``before`` (n, 4)."""
    buy = records["side"] > 0
    sign = np.where(buy, 1, -1)
    price = records["price"].astype(np.int64)
    own = np.where(buy, before[:, 0], before[:, 2]).astype(np.int64)
    opposite = np.where(buy, before[:, 2], before[:, 0]).astype(np.int64)
    own_known = np.where(buy, before[:, 1], before[:, 3]) > 0
    opposite_known = np.where(buy, before[:, 3], before[:, 1]) > 0
    inside = np.where(own_known, sign * (price - own), 1)  # ticks by which the touch is improved
    steps = sign * (opposite - own)  # from touch to touch
    limit, cancel = records["kind"] == LIMIT, records["kind"] == CANCEL
    kind = np.select(
        [limit & (records["filled"] > 0), limit & (inside > 0), limit & (inside == 0), limit, cancel & (inside >= 0)],
        [MARKETABLE, LIMIT_INSIDE, LIMIT_TOUCH, LIMIT_DEEP, CANCEL_TOUCH],
        CANCEL_DEEP,
    )
    through = np.minimum(sign * (opposite - price), 0)  # OPPOSITE counts away from the other side
    beside = np.maximum(np.where(opposite_known, steps - inside, 0), 0)  # from the opposite best
    ticks = np.select([kind == MARKETABLE, limit], [through, beside], np.minimum(inside, 0))
    known = np.where(kind == MARKETABLE, opposite_known, own_known)
    known &= ((kind != LIMIT_INSIDE) & (kind != LIMIT_DEEP)) | (opposite_known & (beside > 0))
    return kind.astype(np.int64), ticks, known & (np.abs(ticks) <= _DEEPEST)


def missing_types(day: TypedDay, symmetric: bool) -> tuple[int, ...]:
    """The types of which the training part holds no order with a known mark; symmetric ones if neither side has any.

    A stock whose spread is always one tick has nothing inside it, say. Nothing can be fitted to what never came.
    """
    found = np.bincount(day.types[day.train][day.usable[day.train]], minlength=len(TYPES))
    if symmetric:
        found = np.repeat(found.reshape(-1, 2).sum(axis=1), 2)
    return tuple(np.flatnonzero(found == 0).tolist())


def _smoothed(time_ns: np.ndarray) -> np.ndarray:
    """Seconds of trading since the first event (n,) float64; see ``typed_day``."""
    waits = np.diff(time_ns, prepend=time_ns[0])
    active = np.cumsum(np.where(waits <= _LONGEST_GAP_NS, waits, 0))
    tick = int(np.gcd.reduce(waits)) if (waits > 0).any() else 1
    tick = tick if tick >= _FINE_NS else 1
    shares = uniform_array(_SEED, 0, np.arange(len(active)), 0, 1)[:, 0]
    shares = shares[np.lexsort((shares, active))]  # ascending within a stamp
    return (active + tick * shares) / 1e9


def mark_tables(
    day: TypedDay, symmetric: bool, length: int, refilling: float = 0.0, scattering: float = 0.0
) -> np.ndarray:
    """For each type ``length`` marks (12, length, 3) int32 of equal weight, out of its training part's.

    They are a systematic sample of the sorted marks, so that shares are kept to within one in ``length``. The ticks of
    a limit order are its distance from the opposite best (Mike and Farmer 2008), so that it closes a spread that is
    wider than the one in which such an order came; but 0 joins the touch, and none that was inside or at the touch
    falls behind it. Those of a taker are 0 at the opposite best and negative beyond, those of a cancel 0 at its touch
    and negative behind, except that a deep one with 0 removes any order of either side. Types that the training part
    lacks (``missing_types``) get one lot a tick from the opposite best, or at its touch; they are never drawn.

    Args:
        day: a typed day.
        symmetric: both sides share their marks.
        length: how many.
        refilling: if positive, the share of the orders at the touch that keep their distance, the others join; if
            negative, the share of the orders inside that only join as well.
        scattering: share of the deep cancels that remove any order.
    """
    types, marks = day.types[day.train], day.marks[day.train]
    usable = day.usable[day.train]
    tables = np.zeros((len(TYPES), length, 3), np.int32)
    for i in range(len(TYPES)):
        chosen = usable & ((types // 2 == i // 2) if symmetric else (types == i))
        found = marks[chosen]
        if len(found) == 0:
            tables[i] = (i // 2 in (LIMIT_INSIDE, LIMIT_DEEP), 1, 0)
            continue
        found = found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))]
        tables[i] = found[(np.arange(length) * 2 + 1) * len(found) // (2 * length)]
        evenly = (np.arange(length) + 0.5) * _GOLDEN % 1.0  # among all distances
        if i // 2 == LIMIT_TOUCH:
            tables[i, evenly >= refilling, 0] = 0
        elif i // 2 == LIMIT_INSIDE:
            tables[i, evenly < -refilling, 0] = 0
        elif i // 2 == CANCEL_DEEP:
            tables[i, evenly < scattering, 0] = 0
    return tables
