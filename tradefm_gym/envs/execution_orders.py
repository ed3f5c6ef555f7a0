"""The execution role's orders: kernels from actions to the orders that open and close an interval."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.quoting import cross, place, take_back, wanted_price
from tradefm_gym.envs.seat import MAX_RESTING, follow_row, open_row
from tradefm_gym.market.compiler import ROW
from tradefm_gym.market.events import LIMIT

SCALE_BITS = 20  # the schedule counts 2^-20 lots, times the number of decisions
MARKET_ID = 1  # order ids: 2 k for the limit order of decision k, 2 k + 1 for its market order
TWAP, VWAP, POV = range(3)  # what the schedule keeps to


@njit(**ROW)
def _slice(state, one_slice, whole):
    """What the schedule wants of the coming interval where the agent bends nothing.

    TWAP: equal parts. VWAP: the part of the episode's volume that will have traded by its end, as it is expected now:
    what others have traded so far, and the usual volume of each interval that remains. POV: ``participation`` times
    what others have traded since the last decision.
    """
    if state["schedule_kind"] == TWAP:
        return one_slice
    traded, usual = float(state["market_lots"]), state["usual_lots"]
    if state["schedule_kind"] == POV:
        part = state["participation"] * traded / float(state["quantity"])
    else:
        remaining = usual * float(state["decisions"] - state["decision"])
        if traded + remaining <= 0.0:
            return one_slice
        part = (traded + usual) / (traded + remaining)
    base = np.int64(np.floor(min(part, 1.0) * float(whole)))
    increment = max(base - state["base"], np.int64(0))
    state["base"] += increment
    return increment


@njit(**ROW)
def raise_target(state, deviation):
    """Adds one slice, changed by the agent's ``deviation``, to the cumulative schedule.

    The schedule counts in units that make a slice of the parent order an integer, so that the sum of
    undisturbed slices is exact: after k of them TWAP's target is floor(k quantity / decisions).
    """
    decisions = state["decisions"]
    one_slice = state["quantity"] << SCALE_BITS
    whole = one_slice * decisions
    increment = _slice(state, one_slice, whole)
    if deviation < 0.0:
        increment = np.int64(np.floor(float(increment) * (1.0 + deviation) + 0.5))
    elif deviation > 0.0:
        least = max(increment, np.int64(1))
        factor = float(decisions) if least == one_slice else float(whole) / float(least)
        increment = np.int64(np.floor(float(least) * factor**deviation + 0.5))
    state["schedule"] = min(state["schedule"] + increment, whole)
    state["target"] = state["schedule"] // (decisions << SCALE_BITS)


@njit(**ROW)
def within(price, side, limit):
    """A price (ticks) that is not beyond a limit; 0 stands for none."""
    return price if limit == 0 or side * price <= side * limit else limit


@njit(**ROW)
def open_row_of(state, resting, prices, sizes, actions, now, seat, events):
    """``open_interval`` of one row; returns the number of orders."""
    raise_target(state, float(actions[0]))
    state["crossing"] = 1 if actions[1] >= 0.0 else 0
    open_row(state)
    side, wanted = state["side"], state["target"] - state["executed"]
    price = within(wanted_price(state, side, prices, sizes, float(actions[1])), side, state["limit"])
    written, kept = take_back(state, resting, side, price, wanted, MAX_RESTING, events, 0, now, seat)
    order_id, missing, room = 2 * state["decision"], wanted - kept, state["quantity"] - state["executed"]
    return place(state, resting, LIMIT, side, order_id, price, missing, room, events, written, now, seat)


@njit(cache=True, nogil=True, parallel=True)
def open_interval(state, resting, prices, sizes, actions, rows, clock_ns, seat, events, count):
    """Turns actions into the orders that open an interval.

    Orders that already rest at the wanted price keep their place in the queue and a new one brings what is
    missing. There is never an excess to take back: the target does not fall.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
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
            count[m] = open_row_of(state[m], resting[m], prices[m], sizes[m], actions[m], clock_ns[m], seat, events[m])


@njit(**ROW)
def close_row_of(state, resting, records, record_count, fills, fill_count, now, seat, events):
    """``close_interval`` of one row; returns the number of orders."""
    follow_row(state, resting, records, record_count, fills, fill_count, seat)
    deadline = state["decision"] + 1 == state["decisions"]
    if deadline:
        left = state["quantity"] - state["executed"]
    else:
        left = state["target"] - state["executed"] if state["crossing"] == 1 else np.int64(0)
    waits = deadline and state["late"] == 1 and state["own_count"] > 0
    if left <= 0 and not waits:
        return 0
    order_id, room = 2 * state["decision"] + MARKET_ID, state["quantity"] - state["executed"]
    lots = np.int64(0) if waits else state["side"] * left
    return cross(state, resting, lots, room, state["limit"], order_id, events, now, seat)


@njit(cache=True, nogil=True, parallel=True)
def close_interval(state, resting, records, record_count, fills, fill_count, rows, clock_ns, seat, events, count):
    """Reads the interval from the tape and writes the orders that close it: cancels, and one that crosses.

    At the deadline a late seat only takes back what it has sent; once that is known to be gone, a second call crosses.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING.
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
            count[m] = close_row_of(
                state[m], resting[m], records[m], record_count[m], fills[m], fill_count[m], clock_ns[m], seat, events[m]
            )
