"""What an executing agent sees: named blocks of one flat vector, their units and the kernel that fills them.

Everything is seen from the agent's side of the book: "own" is the side on which its orders rest, and a
positive price move or flow is one that runs against it (up for a buyer). The agent's own resting
orders are taken out of the book before anything is measured. Normalisers are the start context's
``SCALE``, which knows the training part only.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

LEVELS = 5
SLOW = 8  # decisions over which the slow averages of flow and volatility forget


class Block(NamedTuple):
    """One named part of the observation."""

    name: str
    size: int
    low: float
    high: float
    meaning: str


BLOCKS = (
    Block("schedule", 2, 0.0, 1.0, "the schedule's target and what is executed, parts of the parent order"),
    Block("quantity_left", 1, 0.0, 1.0, "lots to do, part of the parent order"),
    Block("time_left", 1, 0.0, 1.0, "decisions left, part of all"),
    Block("elapsed", 1, 0.0, 10.0, "seconds since the start / seconds that the episode usually takes"),
    Block("spread", 1, 0.0, 10.0, "ticks / usual spread; the last one while a side is empty"),
    Block("touch", 2, 0.0, 10.0, "log(1 + lots / usual touch size) at the best price, own and opposite side"),
    Block("imbalance", 1, -1.0, 1.0, "(own - opposite) / (own + opposite) lots at the best prices"),
    Block(
        "depth_distance", 2 * LEVELS, -10.0, 10.0, "distance of 5 levels from the mid / usual spread, own then opposite"
    ),
    Block(
        "depth_size", 2 * LEVELS, 0.0, 10.0, "log(1 + lots / usual touch size) of these levels, 0 where there is none"
    ),
    Block("flow", 2, -10.0, 10.0, "signed lots taken by others / usual lots, last interval and slow average"),
    Block("volatility", 1, 0.0, 10.0, "slow root mean square of the mid's moves / the usual one"),
    Block("mid_move", 2, -10.0, 10.0, "mid against arrival and against the last decision / usual moves over that time"),
    Block(
        "own_order", 4, -10.0, 10.0, "rests (0 or 1), ticks inside the touch / usual spread, lots / slice, log queue"
    ),
    Block("last_fill", 3, -10.0, 10.0, "lots / slice, price above the mid / usual spread, 1 as maker or -1 as taker"),
)


def block_slices() -> dict[str, slice]:
    """Where each block lies in the observation."""
    slices, start = {}, 0
    for block in BLOCKS:
        slices[block.name] = slice(start, start + block.size)
        start += block.size
    return slices


SIZE = sum(block.size for block in BLOCKS)
LOW = np.repeat([block.low for block in BLOCKS], [block.size for block in BLOCKS]).astype(np.float32)
HIGH = np.repeat([block.high for block in BLOCKS], [block.size for block in BLOCKS]).astype(np.float32)


@njit(cache=True, nogil=True)
def _ratio(value, usual):
    """``value / usual``, where a usual value of zero (nothing ever happened) counts as one."""
    return value / usual if usual > 0.0 else value


@njit(cache=True, nogil=True)
def _log_lots(lots, usual):
    return math.log1p(_ratio(lots, usual))


@njit(cache=True, nogil=True)
def _fill_row(state, scale, prices, sizes, clock_ns, ahead, interval, out):
    """Writes one row (SIZE,) float32; the order of the lines is the order of BLOCKS."""
    side = state["side"]
    own = 0 if side > 0 else 1
    quantity = float(state["quantity"])
    decisions = float(state["decisions"])
    slice_lots = quantity / decisions
    mid = 0.5 * state["decision_mid2"]
    spread, touch = scale["spread"], scale["touch_size"]
    move = scale["volatility"] * math.sqrt(float(interval))

    out[0] = state["target"] / quantity
    out[1] = state["executed"] / quantity
    out[2] = (quantity - state["executed"]) / quantity
    out[3] = (decisions - state["decision"]) / decisions
    out[4] = _ratio(float(clock_ns - state["start_ns"]), scale["event_ns"] * interval * decisions)
    out[5] = _ratio(float(state["spread"]), spread)
    own_size, opposite_size = float(sizes[own, 0]), float(sizes[1 - own, 0])
    out[6] = _log_lots(own_size, touch)
    out[7] = _log_lots(opposite_size, touch)
    total = own_size + opposite_size
    out[8] = (own_size - opposite_size) / total if total > 0.0 else 0.0
    for which in range(2):
        book_side = own if which == 0 else 1 - own
        away = side if which == 0 else -side
        for level in range(LEVELS):
            lots = sizes[book_side, level]
            at = which * LEVELS + level
            out[9 + at] = _ratio(away * (mid - prices[book_side, level]), spread) if lots > 0 else 10.0
            out[9 + 2 * LEVELS + at] = _log_lots(float(lots), touch)
    base = 9 + 4 * LEVELS
    usual_lots = scale["lots_per_event"] * interval
    out[base] = _ratio(side * state["flow"], usual_lots)
    out[base + 1] = _ratio(side * state["slow_flow"], usual_lots)
    out[base + 2] = _ratio(math.sqrt(state["variance"]), move)
    out[base + 3] = _ratio(side * 0.5 * (state["decision_mid2"] - state["arrival_mid2"]), move * math.sqrt(decisions))
    out[base + 4] = _ratio(side * 0.5 * (state["decision_mid2"] - state["previous_mid2"]), move)
    rests = state["resting"] > 0
    out[base + 5] = 1.0 if rests else 0.0
    best = float(prices[own, 0]) if own_size > 0.0 else mid
    out[base + 6] = _ratio(side * (state["own_price"] - best), spread) if rests else 0.0
    out[base + 7] = state["resting"] / slice_lots
    out[base + 8] = _log_lots(float(ahead), touch) if rests else 0.0
    filled = state["fill_size"] > 0
    out[base + 9] = state["fill_size"] / slice_lots
    out[base + 10] = _ratio(side * (state["fill_price"] - mid), spread) if filled else 0.0
    out[base + 11] = state["fill_role"] if filled else 0.0


@njit(cache=True, nogil=True, parallel=True)
def fill_observations(state, scale, prices, sizes, clock_ns, ahead, interval, low, high, out):
    """Writes the observations of all rows, clipped to the space.

    Args:
        state: (N,) the role's STATE.
        scale: (N,) SCALE.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots, 0 where there is no level.
        clock_ns: (N,) int64.
        ahead: (N,) int64 lots ahead of the own order.
        interval: background events between two decisions.
        low: (SIZE,) float32.
        high: (SIZE,) float32.
        out: (N, SIZE) float32.
    """
    for m in prange(state.shape[0]):
        _fill_row(state[m], scale[m], prices[m], sizes[m], clock_ns[m], ahead[m], interval, out[m])
        for column in range(SIZE):
            out[m, column] = min(max(out[m, column], low[column]), high[column])
