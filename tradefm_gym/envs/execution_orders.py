"""The execution role's orders: kernels from actions to the orders that open and close an interval."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.quoting import cross, place, take_back, wanted_price
from tradefm_gym.envs.seat import MAX_RESTING, follow_row, open_row
from tradefm_gym.market.events import LIMIT

SCALE_BITS = 20  # the schedule counts 2^-20 lots, times the number of decisions
MARKET_ID = 1  # order ids: 2 k for the limit order of decision k, 2 k + 1 for its market order
TWAP, VWAP, POV = range(3)  # what the schedule keeps to


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def within(price, side, limit):
    """A price (ticks) that is not beyond a limit; 0 stands for none."""
    return price if limit == 0 or side * price <= side * limit else limit


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
            row = state[m]
            raise_target(row, float(actions[m, 0]))
            row["crossing"] = 1 if actions[m, 1] >= 0.0 else 0
            open_row(row)
            side, wanted, now = row["side"], row["target"] - row["executed"], clock_ns[m]
            price = wanted_price(row, side, prices[m], sizes[m], float(actions[m, 1]))
            price = within(price, side, row["limit"])
            written, kept = take_back(row, resting[m], side, price, wanted, MAX_RESTING, events[m], 0, now, seat)
            order_id, missing, room = 2 * row["decision"], wanted - kept, row["quantity"] - row["executed"]
            count[m] = place(
                row, resting[m], LIMIT, side, order_id, price, missing, room, events[m], written, now, seat
            )


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
            row = state[m]
            follow_row(row, resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)
            deadline = row["decision"] + 1 == row["decisions"]
            if deadline:
                left = row["quantity"] - row["executed"]
            else:
                left = row["target"] - row["executed"] if row["crossing"] == 1 else np.int64(0)
            waits = deadline and row["late"] == 1 and row["own_count"] > 0
            if left > 0 or waits:
                order_id, room = 2 * row["decision"] + MARKET_ID, row["quantity"] - row["executed"]
                lots = np.int64(0) if waits else row["side"] * left
                count[m] = cross(row, resting[m], lots, room, row["limit"], order_id, events[m], clock_ns[m], seat)
