"""What an executing agent sees: named blocks of one flat vector, their units and the kernel that fills them.

Everything is seen from the agent's side of the book: "own" is the side on which its orders rest, and a
positive price move or flow is one that runs against it (up for a buyer). The agent's own resting
orders are taken out of the book before anything is measured. Normalisers are the start context's
``SCALE``, which knows the training part only.

``MARKET_BLOCKS``, which tell of the market alone, are part of what every role sees; a role without a side sees
them as a buyer does.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from tradefm_gym.market.compiler import ROW

LEVELS = 5
SLOW = 8  # decisions over which the slow averages of flow and volatility forget


class Block(NamedTuple):
    """One named part of the observation."""

    name: str
    size: int
    low: float
    high: float
    meaning: str


MARKET_BLOCKS = (
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
)

BLOCKS = (
    Block("schedule", 2, 0.0, 1.0, "the schedule's target and what is executed, parts of the parent order"),
    Block("quantity_left", 1, 0.0, 1.0, "lots to do, part of the parent order"),
    *MARKET_BLOCKS,
    Block(
        "own_order", 4, -10.0, 10.0, "rests (0 or 1), ticks inside the touch / usual spread, lots / slice, log queue"
    ),
    Block("last_fill", 3, -10.0, 10.0, "lots / slice, price above the mid / usual spread, 1 as maker or -1 as taker"),
)


def block_slices(blocks: tuple[Block, ...] = BLOCKS) -> dict[str, slice]:
    """Where each block lies in the observation."""
    slices, start = {}, 0
    for block in blocks:
        slices[block.name] = slice(start, start + block.size)
        start += block.size
    return slices


def bounds(blocks: tuple[Block, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest values of an observation of these blocks, two (obs,) float32."""
    sizes = [block.size for block in blocks]
    low, high = (np.repeat([getattr(block, name) for block in blocks], sizes) for name in ("low", "high"))
    return low.astype(np.float32), high.astype(np.float32)


SIZE = sum(block.size for block in BLOCKS)
MARKET_SIZE = sum(block.size for block in MARKET_BLOCKS)
LOW, HIGH = bounds(BLOCKS)


@njit(**ROW)
def ratio(value, usual):
    """``value / usual``, where a usual value of zero (nothing ever happened) counts as one."""
    return value / usual if usual > 0.0 else value


@njit(**ROW)
def log_lots(lots, usual):
    """How large sizes are told: log(1 + lots / usual)."""
    return math.log1p(ratio(lots, usual))


@njit(**ROW)
def fill_market(state, scale, prices, sizes, clock_ns, side, out, at):
    """Writes MARKET_BLOCKS from place ``at`` of a row on, seen from ``side``; the order of the lines is theirs."""
    own = 0 if side > 0 else 1
    decisions, interval = float(state["decisions"]), state["pace"]
    mid = 0.5 * state["decision_mid2"]
    spread, touch = scale["spread"], scale["touch_size"]
    move = scale["volatility"] * math.sqrt(interval)

    out[at] = (decisions - state["decision"]) / decisions
    out[at + 1] = ratio(float(clock_ns - state["start_ns"]), scale["event_ns"] * interval * decisions)
    out[at + 2] = ratio(float(state["spread"]), spread)
    own_size, opposite_size = float(sizes[own, 0]), float(sizes[1 - own, 0])
    out[at + 3] = log_lots(own_size, touch)
    out[at + 4] = log_lots(opposite_size, touch)
    total = own_size + opposite_size
    out[at + 5] = (own_size - opposite_size) / total if total > 0.0 else 0.0
    for which in range(2):
        book_side = own if which == 0 else 1 - own
        away = side if which == 0 else -side
        for level in range(LEVELS):
            lots = sizes[book_side, level]
            place = at + 6 + which * LEVELS + level
            out[place] = ratio(away * (mid - prices[book_side, level]), spread) if lots > 0 else 10.0
            out[place + 2 * LEVELS] = log_lots(float(lots), touch)
    base = at + 6 + 4 * LEVELS
    usual_lots = scale["lots_per_event"] * interval
    out[base] = ratio(side * state["flow"], usual_lots)
    out[base + 1] = ratio(side * state["slow_flow"], usual_lots)
    out[base + 2] = ratio(math.sqrt(state["variance"]), move)
    out[base + 3] = ratio(side * 0.5 * (state["decision_mid2"] - state["arrival_mid2"]), move * math.sqrt(decisions))
    out[base + 4] = ratio(side * 0.5 * (state["decision_mid2"] - state["previous_mid2"]), move)


@njit(**ROW)
def clip(low, high, out):
    """Brings one row's observation into the space."""
    for column in range(out.shape[0]):
        out[column] = min(max(out[column], low[column]), high[column])


@njit(**ROW)
def fill_row(state, scale, prices, sizes, clock_ns, own_price, ahead, out):
    """Writes one row (SIZE,) float32; the order of the lines is the order of BLOCKS."""
    side = state["side"]
    own = 0 if side > 0 else 1
    quantity = float(state["quantity"])
    slice_lots = quantity / float(state["decisions"])
    mid, spread = 0.5 * state["decision_mid2"], scale["spread"]
    out[0] = state["target"] / quantity
    out[1] = state["executed"] / quantity
    out[2] = (quantity - state["executed"]) / quantity
    fill_market(state, scale, prices, sizes, clock_ns, side, out, 3)
    base = 3 + MARKET_SIZE
    rests = state["resting"] > 0
    out[base] = 1.0 if rests else 0.0
    best = float(prices[own, 0]) if sizes[own, 0] > 0 else mid
    out[base + 1] = ratio(side * (own_price - best), spread) if rests else 0.0
    out[base + 2] = state["resting"] / slice_lots
    out[base + 3] = log_lots(float(ahead), scale["touch_size"]) if rests else 0.0
    filled = state["fill_size"] > 0
    out[base + 4] = state["fill_size"] / slice_lots
    out[base + 5] = ratio(side * (state["fill_price"] - mid), spread) if filled else 0.0
    out[base + 6] = state["fill_role"] if filled else 0.0


@njit(cache=True, nogil=True, parallel=True)
def fill_observations(state, resting, scale, prices, sizes, clock_ns, ahead, low, high, out):
    """Writes the observations of all rows, clipped to the space.

    Args:
        state: (N,) the role's STATE.
        resting: (N, .) RESTING.
        scale: (N,) SCALE.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots, 0 where there is no level.
        clock_ns: (N,) int64.
        ahead: (N,) int64 lots ahead of the own order.
        low: (SIZE,) float32.
        high: (SIZE,) float32.
        out: (N, SIZE) float32.
    """
    for m in prange(state.shape[0]):
        own_price = resting[m, 0]["price"]
        fill_row(state[m], scale[m], prices[m], sizes[m], clock_ns[m], own_price, ahead[m], out[m])
        clip(low, high, out[m])
