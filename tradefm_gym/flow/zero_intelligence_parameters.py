"""Rates and marks of zero intelligence flow: sensible defaults, or fitted to a recorded day."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import NormalDist

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.parameter_files import array_of, check_keys, read_parameters, write_parameters
from tradefm_gym.market.events import CANCEL, LIMIT

KIND = "parameters of zero intelligence"
FORMAT = 1
OFFSET_BITS = 12  # binary logarithms of the lengths of the lookup tables
SIZE_BITS = 10
TIME_BITS = 12
FIXED = 20  # fractional bits of the unit exponential
MICRO = 1_000_000  # rates are events per million seconds in the kernel
_QUANTILES = 64
_DEEPEST = 1024  # ticks from the opposite best beyond which an order tells nothing about the touch
_LONGEST_GAP_NS = 600 * 10**9  # longer silences are breaks of the session


_RATES = {"limit_rate": (0.01, 1000), "market_rate": (1e-6, 1000), "cancel_rate": (1e-6, 1)}  # what they may be


def _power_law(levels: int, shift: float, exponent: float) -> tuple[float, ...]:
    return tuple(round((level + shift) ** -exponent, 9) for level in range(levels))


def _lognormal(median: float, sigma: float, quantiles: int = 64) -> tuple[int, ...]:
    normal = NormalDist(np.log(median), sigma)
    return tuple(max(1, round(float(np.exp(normal.inv_cdf((i + 0.5) / quantiles))))) for i in range(quantiles))


@dataclass(frozen=True)
class ZeroIntelligenceParameters:
    """Rates and marks; the defaults resemble a liquid NASDAQ stock of 100 dollars and a few cents of spread."""

    limit_rate: float = 6.0  # limit orders per second, both sides together
    market_rate: float = 0.9  # market orders per second, both sides together
    cancel_rate: float = 0.025  # per resting order and second
    offsets: tuple[float, ...] = _power_law(64, 8.0, 1.0)  # weights of resting 1, 2, ... ticks from the opposite best
    limit_sizes: tuple[int, ...] = _lognormal(100, 0.8)  # equally likely sizes, lots
    market_sizes: tuple[int, ...] = _lognormal(120, 0.9)  # equally likely sizes, lots
    mid: int = 10_000  # price at which the seed book stands, ticks

    def __post_init__(self) -> None:
        # Within these bounds no product of the kernel leaves 63 bits.
        for name, (low, high) in _RATES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must lie between {low} and {high} per second")
        if self.limit_rate <= self.market_rate:
            raise ValueError(f"limit_rate is {self.limit_rate}; it must exceed market_rate, {self.market_rate}")
        for name in ("offsets", "limit_sizes", "market_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a JSON list is welcome
        if not self.offsets or min(self.offsets) < 0 or not 0 < sum(self.offsets) < np.inf:
            raise ValueError("offsets must be non-negative weights of which at least one is positive")
        for name in ("limit_sizes", "market_sizes"):
            sizes = getattr(self, name)
            if not 0 < len(sizes) <= 1 << SIZE_BITS or min(sizes) < 1 or max(sizes) > 1 << 24:
                raise ValueError(f"{name} must hold 1 to {1 << SIZE_BITS} sizes from 1 to {1 << 24} lots")
        if not len(self.offsets) < self.mid < 1 << 30:
            raise ValueError(
                f"mid is {self.mid}; it must lie between {len(self.offsets)} (offsets) and {1 << 30} ticks"
            )

    @classmethod
    def fit(cls, recorded: RecordedFlow) -> "ZeroIntelligenceParameters":
        """Rates and marks of the training part of a recorded day.

        A market order is what a rebuilt taker executed; a cancel is a delete, at a rate per resting order and second.
        Orders that rest deeper than 1,024 ticks from the opposite best are left out.
        """
        part = split(recorded).train
        mid = round(calibrate(recorded, part).mid)
        rows = np.arange(max(part.start, 1), part.stop)
        records, before = recorded.records[rows], recorded.touch[rows - 1]
        seconds = _active_seconds(recorded.records["time_ns"])
        duration = seconds[part.stop - 1] - seconds[part.start]
        limits = (records["kind"] == LIMIT) & (records["filled"] == 0)
        takers = (records["kind"] == LIMIT) & (records["filled"] > 0)
        deletes = (records["kind"] == CANCEL) & (records["max_rest"] == 0)
        buy = records["side"] > 0
        known = np.where(buy, before[:, 3], before[:, 1]) > 0
        offset = np.where(buy, before[:, 2] - records["price"], records["price"] - before[:, 0])
        deepest = min(_DEEPEST, mid - 2)
        near = limits & known & (offset >= 1) & (offset <= deepest)
        for what, found in (("limit orders", limits), ("takers", takers), ("deletes", deletes)):
            if not found.any():
                raise ValueError(f"recorded flow has no {what} in its training part; it must have some")
        if not near.any():
            raise ValueError(_none_near(offset[limits & known], deepest))
        weights = np.bincount(offset[near] - 1)
        return cls(
            limit_rate=float(near.sum() / duration),
            market_rate=float(takers.sum() / duration),
            cancel_rate=_cancel_rate(recorded, part, rows[near], seconds),
            offsets=tuple(weights.tolist()),
            limit_sizes=_quantiles(records["size"][near]),
            market_sizes=_quantiles(records["filled"][takers]),
            mid=mid,
        )

    @property
    def resting_orders(self) -> int:
        """Resting orders at which arrivals and departures roughly balance."""
        return max(2, round((self.limit_rate - self.market_rate) / self.cancel_rate))

    def save(self, path: str | Path, report: dict | None = None) -> None:
        """Writes a JSON file; an existing one is replaced only when all is written. ``report`` is kept beside."""
        write_parameters(path, KIND, FORMAT, {"report": report or {}, "parameters": asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> "ZeroIntelligenceParameters":
        """Reads what ``save`` wrote.

        Raises:
            FileNotFoundError: if there is no such file.
            OSError: if it cannot be read.
            ValueError: if it does not hold sound parameters of this format.
        """
        given = read_parameters(path, KIND, FORMAT, ("parameters",), ("report",))["parameters"]
        try:
            check_keys("parameters", given, (), [each.name for each in fields(cls)])
            for name, value in given.items():
                listed = name in ("offsets", "limit_sizes", "market_sizes")
                array_of(name, value, int(listed), whole=name not in ("offsets", *_RATES))
            return cls(**given)
        except ValueError as error:
            raise ValueError(f"parameters path {str(path)!r} is unsound: {error}") from error

    def version(self) -> str:
        """Twelve hexadecimal digits that name these parameters."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def _none_near(offset: np.ndarray, deepest: int) -> str:
    """Why no limit order is of use, given how far (n,) those that met an order on the other side lay from it."""
    allowed = f"some must rest 1 to {deepest:,} ticks from it"
    outside = offset[offset >= 1]
    if len(outside) == 0:
        return f"recorded flow has no limit orders beside a known opposite best in its training part; {allowed}"
    said = f"limit orders that all rest {outside.min():,} ticks or more from the opposite best in its training part"
    return f"recorded flow has {said}; {allowed} (is the tick size right?)"


def _quantiles(sizes: np.ndarray) -> tuple[int, ...]:
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return tuple(np.quantile(sizes, at, method="inverted_cdf").astype(int).tolist())


def _active_seconds(time_ns: np.ndarray) -> np.ndarray:
    """Seconds of trading up to each record (n,) float64; breaks of the session do not count."""
    waits = np.diff(time_ns, prepend=time_ns[0])
    return np.cumsum(np.where(waits <= _LONGEST_GAP_NS, waits, 0)) / 1e9


def _cancel_rate(recorded: RecordedFlow, part: range, adds: np.ndarray, seconds: np.ndarray) -> float:
    """Deletes per second of resting, over the orders whose ``adds`` are record rows in ``part``."""
    records, fills = recorded.records, recorded.fills
    ids = 1 + max(records["order_id"].max(), fills["maker_id"].max(initial=-1))
    left = np.zeros(ids, np.int64)
    rests = (records["kind"] == LIMIT) & (records["order_id"] >= 0)
    cancels = (records["kind"] == CANCEL) & (records["order_id"] >= 0)
    left[records["order_id"][rests]] = (records["size"] - records["filled"])[rests]
    np.subtract.at(left, records["order_id"][cancels], records["size"][cancels])
    made = fills["maker_id"] >= 0
    np.subtract.at(left, fills["maker_id"][made], fills["size"][made])
    # The row after which an order is gone: its delete, else the fill that used it up.
    ended = np.full(ids, part.stop - 1 if recorded.meta.replay_by_id else -1)
    last_fill = np.zeros(ids, np.int64)
    filled_at = np.searchsorted(records["time_ns"], fills["time_ns"][made])
    np.maximum.at(last_fill, fills["maker_id"][made], filled_at)
    ended[left <= 0] = last_fill[left <= 0]
    deletes = np.flatnonzero(cancels & (records["max_rest"] == 0))
    deleted = np.zeros(ids, bool)
    deleted[records["order_id"][deletes]] = True
    ended[records["order_id"][deletes]] = deletes
    order = records["order_id"][adds]
    # Orders that leave the view of an incomplete feed never end in it: they tell nothing.
    adds, order = adds[ended[order] >= 0], order[ended[order] >= 0]
    within = np.minimum(ended[order], part.stop - 1)
    resting = np.maximum(seconds[within] - seconds[adds], 0.0).sum()
    cancelled = (deleted[order] & (ended[order] < part.stop)).sum()
    return float(np.clip(cancelled / max(resting, 1e-9), 1e-6, 1.0))


def _quantile_table(weights: np.ndarray, log2: int) -> np.ndarray:
    """Indices of ``weights`` (w,) so that a uniform choice among the 2^log2 entries follows the weights."""
    cumulative = np.cumsum(np.asarray(weights, np.float64))
    points = (np.arange(1 << log2) + 0.5) / (1 << log2) * cumulative[-1]
    return np.searchsorted(cumulative, points, side="right").astype(np.int32)


def lookup_tables(parameters: ZeroIntelligenceParameters) -> tuple[np.ndarray, ...]:
    """Rates (3,) int64 and the lookup tables of offsets, sizes and waiting times, all integers."""
    rates = (parameters.limit_rate, parameters.market_rate, parameters.cancel_rate)
    offsets = _quantile_table(np.array(parameters.offsets), OFFSET_BITS) + np.int32(1)
    sizes = np.zeros((2, 1 << SIZE_BITS), np.int32)
    for kind, choices in enumerate((parameters.limit_sizes, parameters.market_sizes)):
        sizes[kind] = np.array(choices, np.int32)[_quantile_table(np.ones(len(choices)), SIZE_BITS)]
    knots = -np.log1p(-np.arange(1 << TIME_BITS) / (1 << TIME_BITS))
    knots = np.append(knots, knots[-1] + 2.0)  # beyond the last knot the mean excess is 1: keep it
    waits = np.round(knots * (1 << FIXED)).astype(np.int64)
    return np.round(np.array(rates) * MICRO).astype(np.int64), offsets, sizes, waits
