"""Split a recorded day by time, and measure on the training part what a market is calibrated with."""

from dataclasses import asdict, dataclass, replace

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.market.events import CANCEL, LIMIT, PRINT

_LONGEST_GAP_NS = 600 * 10**9  # longer silences are breaks of the session (lunch), not waiting times


@dataclass(frozen=True)
class Splits:
    """Index ranges into ``RecordedFlow.records``; the opening book and the gaps belong to none of them."""

    train: range
    validation: range
    test: range


@dataclass(frozen=True)
class FlowCalibration:
    """Scales of one asset's flow, measured on its training part only. JSON-able."""

    median_size: float  # lots, of LIMIT orders that rest
    lots_per_event: float  # lots executed per background event
    spread: float  # ticks, median while both sides are known
    touch_size: float  # lots, median over both sides
    volatility: float  # ticks per event, standard deviation of the mid's change
    event_ns: float  # mean time between background events, breaks left out
    mid: float  # ticks, median
    tick_bps: float  # one tick in basis points of the mid
    rate_edges: tuple[float, float] = (0.0, 0.0)  # terciles of the trailing traded rate, filled in by the features

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "FlowCalibration":
        """The inverse of :meth:`to_dict`."""
        known = {f for f in cls.__dataclass_fields__}
        if set(values) - known:
            raise ValueError(f"calibration has unknown keys {sorted(set(values) - known)}; {sorted(known)} are known.")
        return replace(cls(**values), rate_edges=tuple(values.get("rate_edges", (0.0, 0.0))))


def split(
    flow: RecordedFlow, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15), gap_ns: int | None = None
) -> Splits:
    """Cut the flow after its opening book into three parts by time.

    Args:
        flow: a recorded flow.
        fractions: shares of the time span of train, validation and test.
        gap_ns: time left out at the start of validation and of test; default 60 s, at most 1 % of the span.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions is {fractions}; it must be three positive shares that sum to 1.")
    time = flow.records["time_ns"][flow.opening :]
    first, span = int(time[0]), int(time[-1] - time[0])
    gap = min(60 * 10**9, span // 100) if gap_ns is None else int(gap_ns)
    if not 0 <= gap <= min(fractions) * span:
        raise ValueError(
            f"gap_ns is {gap}; it must lie between 0 and the shortest part of {int(min(fractions) * span)} ns."
        )
    ends = [first + int(fractions[0] * span), first + int((fractions[0] + fractions[1]) * span)]
    cuts = [int(np.searchsorted(time, t)) + flow.opening for t in (ends[0], ends[0] + gap, ends[1], ends[1] + gap)]
    return Splits(range(flow.opening, cuts[0]), range(cuts[1], cuts[2]), range(cuts[3], len(flow.records)))


def calibrate(flow: RecordedFlow, part: range | None = None) -> FlowCalibration:
    """Measure the scales of a part of the flow, by default of its training part.

    Args:
        flow: a recorded flow.
        part: index range into ``flow.records``; must not reach into validation or test when it feeds a model.
    """
    part = split(flow).train if part is None else part
    records, touch = flow.records[part.start : part.stop], flow.touch[part.start : part.stop]
    background = records[records["kind"] != PRINT]
    resting = records["size"][(records["kind"] == LIMIT) & (records["filled"] == 0)]
    two_sided = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 0] < touch[:, 2])
    if len(resting) == 0 or not two_sided.any() or not (records["kind"] == CANCEL).any():
        raise ValueError(
            f"part {part} has too few events to calibrate on; it needs adds, cancels and a two-sided book."
        )
    mid2 = background["mid2"][background["mid2"] > 0].astype(np.float64)
    waits = np.diff(background["time_ns"])
    mid = float(np.median(mid2)) / 2
    return FlowCalibration(
        median_size=float(np.median(resting)),
        lots_per_event=float(background["filled"].sum() / len(background)),
        spread=float(np.median((touch[:, 2] - touch[:, 0])[two_sided])),
        touch_size=float(np.median(touch[two_sided][:, [1, 3]])),
        volatility=float(np.std(np.diff(mid2) / 2)),
        event_ns=float(waits[waits <= _LONGEST_GAP_NS].mean()),
        mid=mid,
        tick_bps=1e4 / mid,
    )
