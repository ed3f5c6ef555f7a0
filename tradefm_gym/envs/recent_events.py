"""The last events of the tape as an agent sees them: one line of figures for each, the newest last."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import Block, log_lots, ratio
from tradefm_gym.market.events import CANCEL, PRINT

MOST = 256  # events
FIGURES = 8
MEANING = (
    "for each event: 1 or 0 for an order that rests, for one that takes, for a cancel; its side (1 own, -1 opposite); "
    "its price above the mid that it left / usual spread; log(1 + lots / median order); log(1 + time since the event "
    "before / usual time); 1 where it is an own one"
)


def recent_block(events: int) -> tuple[Block, tuple[int, int]]:
    """The block of so many events, and the shape of its lines."""
    return Block("recent_events", events * FIGURES, -10.0, 10.0, MEANING), (events, FIGURES)


@njit(cache=True, nogil=True)
def _fill_event(record, earlier_ns, side, scale, seat, out):
    cancel, filled = record["kind"] == CANCEL, record["filled"] > 0 or record["kind"] == PRINT
    out[0] = 0.0 if cancel or filled else 1.0
    out[1] = 1.0 if filled else 0.0
    out[2] = 1.0 if cancel else 0.0
    out[3] = float(side * np.int64(record["side"]))
    out[4] = ratio(side * (float(record["price"]) - 0.5 * float(record["mid2"])), scale["spread"])
    out[5] = log_lots(float(record["size"]), scale["median_size"])
    out[6] = log_lots(float(max(record["time_ns"] - earlier_ns, 0)), scale["event_ns"])
    out[7] = 1.0 if record["owner"] == seat else 0.0


@njit(cache=True, nogil=True, parallel=True)
def fill_recent(records, record_count, sides, scale, seat, out):
    """Writes the last k events of each row; lines are 0 where there was none.

    Args:
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        sides: (N,) int64, from which side the market is seen.
        scale: (N,) SCALE.
        seat: whose events are own ones.
        out: (N, k * FIGURES) float64, written.
    """
    most = out.shape[1] // FIGURES
    for m in prange(out.shape[0]):
        count, capacity = record_count[m], records.shape[1]
        oldest = max(count - capacity, np.int64(0))
        for line in range(most):
            place = count - most + line
            into = out[m, line * FIGURES : (line + 1) * FIGURES]
            into[:] = 0.0
            if place >= oldest and place >= 0:
                record = records[m, place % capacity]
                earlier = records[m, (place - 1) % capacity]["time_ns"] if place > oldest else record["time_ns"]
                _fill_event(record, earlier, sides[m], scale[m], seat, into)
