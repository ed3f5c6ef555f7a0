"""The execution role's orders: kernels from actions to the orders that open and close an interval."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import SLOW
from tradefm_gym.envs.quoting import cross, take_back, wanted_price, write_order
from tradefm_gym.envs.seat import MAX_RESTING, read_tape
from tradefm_gym.market.events import LIMIT

SCALE_BITS = 20  # the schedule counts 2^-20 lots, times the number of decisions
MARKET_ID = 1  # order ids: 2 k for the limit order of decision k, 2 k + 1 for its market order


@njit(cache=True, nogil=True)
def raise_target(state, deviation):
    """Adds one slice, changed by the agent's ``deviation``, to the cumulative schedule.

    The schedule counts in units that make a slice of the parent order an integer, so that the sum of
    undisturbed slices is exact: after k of them the target is floor(k quantity / decisions).
    """
    decisions = state["decisions"]
    one_slice = state["quantity"] << SCALE_BITS
    if deviation <= 0.0:
        factor = 1.0 + deviation
    else:
        factor = float(decisions) ** deviation
    whole = one_slice * decisions
    increment = one_slice if deviation == 0.0 else np.int64(np.floor(float(one_slice) * factor + 0.5))
    state["schedule"] = min(state["schedule"] + increment, whole)
    state["target"] = state["schedule"] // (decisions << SCALE_BITS)


@njit(cache=True, nogil=True, parallel=True)
def open_interval(state, resting, prices, sizes, actions, rows, clock_ns, seat, events, count):
    """Turns actions into the orders that open an interval.

    Orders that already rest at the wanted price keep their place in the queue and a new one brings what is
    missing. There is never an excess to take back: the target does not fall.

    Args:
        state: (N,) STATE.
        resting: (N, MAX_RESTING + 1) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots.
        actions: (N, 2) float32, deviation from the schedule and aggressiveness, in [-1, 1].
        rows: (N,) bool, rows that act.
        clock_ns: (N,) int64.
        seat: the owner of the orders.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
    """
    for m in prange(state.shape[0]):
        count[m] = 0
        if rows[m]:
            row = state[m]
            raise_target(row, float(actions[m, 0]))
            row["crossing"] = 1 if actions[m, 1] >= 0.0 else 0
            row["worst_fill"] = 0
            side, wanted = row["side"], row["target"] - row["executed"]
            price = wanted_price(row, side, prices[m], sizes[m], float(actions[m, 1]))
            written, kept = take_back(
                row, resting[m], side, price, wanted, MAX_RESTING, events[m], 0, clock_ns[m], seat
            )
            if kept < wanted:
                order_id = 2 * row["decision"]
                written = write_order(
                    events[m], written, clock_ns[m], seat, LIMIT, side, order_id, price, wanted - kept
                )
            count[m] = written


@njit(cache=True, nogil=True, parallel=True)
def close_interval(state, resting, records, record_count, fills, fill_count, rows, clock_ns, seat, events, count):
    """Reads the interval from the tape and writes the orders that close it: cancels, and one that crosses.

    Args:
        state: (N,) STATE.
        resting: (N, MAX_RESTING + 1) RESTING.
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        fills: (N, R) FILL, ring.
        fill_count: (N,) int64.
        rows: (N,) bool.
        clock_ns: (N,) int64.
        seat: the owner of the orders.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
    """
    for m in prange(state.shape[0]):
        count[m] = 0
        if rows[m]:
            row = state[m]
            flow, _, _ = read_tape(row, resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)
            row["flow"] = flow
            row["slow_flow"] += (flow - row["slow_flow"]) / SLOW
            deadline = row["decision"] + 1 == row["decisions"]
            if deadline:
                left = row["quantity"] - row["executed"]
            else:
                left = row["target"] - row["executed"] if row["crossing"] == 1 else np.int64(0)
            if left > 0:
                order_id = 2 * row["decision"] + MARKET_ID
                count[m] = cross(row, resting[m], row["side"] * left, order_id, events[m], clock_ns[m], seat)
