"""Orders of roles that hold a position: kernels from actions to what opens an interval, and what closes it."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.quoting import cross, place, priced, take_back, wanted_price
from tradefm_gym.envs.seat import MAX_RESTING, follow_row, open_row
from tradefm_gym.market.events import BUY, LIMIT, POST_ONLY_SLIDE, SELL

# Order ids: 2 k for the bid of decision k, 2 k + 1 for its ask and for what crosses at its end.
BEHIND = 4  # ticks behind the touch that a distance reaches at least


@njit(cache=True, nogil=True)
def _rounded(value):
    return np.int64(np.floor(value + 0.5))


@njit(cache=True, nogil=True)
def _distance2(distance, spread, reach):
    """How far a quote is from the mid, in half ticks: -1 is the mid, 0 the touch, 1 ``reach`` ticks behind it."""
    if distance < 0.0:
        return _rounded((1.0 + distance) * float(spread))
    return spread + _rounded(2.0 * distance * float(reach))


@njit(cache=True, nogil=True)
def quote_prices(state, prices, sizes, bid_distance, ask_distance, skew):
    """Bid and ask (ticks) of two quotes that do not cross the book without own orders, nor each other."""
    spread = state["spread"]
    reach = max(spread, np.int64(BEHIND))
    middle2 = state["decision_mid2"] + _rounded(skew * float(reach))
    bid = (middle2 - _distance2(bid_distance, spread, reach)) // 2
    ask = -((-middle2 - _distance2(ask_distance, spread, reach)) // 2)  # rounded up
    if bid == ask:
        bid, ask = bid - 1, ask + 1
    if sizes[1, 0] > 0:
        bid = min(bid, prices[1, 0] - 1)
    if sizes[0, 0] > 0:
        ask = max(ask, prices[0, 0] + 1)
    return priced(bid), priced(ask)


@njit(cache=True, nogil=True, parallel=True)
def open_quotes(state, resting, prices, sizes, actions, rows, clock_ns, seat, events, count):
    """Turns a market maker's actions into quotes.

    What rests at a wanted price keeps its place in the queue: missing lots come behind it, too many leave from the
    newest order. No quote could carry the inventory beyond its limit.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots.
        actions: (N, 4) float32 in [-1, 1], distance of the bid and of the ask, skew, and size.
        rows: (N,) bool, rows that act.
        clock_ns: (N,) int64.
        seat: the owner of the orders.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
    """
    for m in prange(state.shape[0]):
        count[m] = 0
        if rows[m]:
            row, written, now = state[m], 0, clock_ns[m]
            open_row(row)
            bid, ask = quote_prices(
                row, prices[m], sizes[m], float(actions[m, 0]), float(actions[m, 1]), float(actions[m, 2])
            )
            lots = _rounded(0.5 * (1.0 + float(actions[m, 3])) * float(row["size"]))
            bids = max(min(lots, row["limit"] - row["inventory"]), np.int64(0))
            asks = max(min(lots, row["limit"] + row["inventory"]), np.int64(0))
            most = MAX_RESTING // 2
            written, kept_bids = take_back(row, resting[m], BUY, bid, bids, most, events[m], written, now, seat)
            written, kept_asks = take_back(row, resting[m], SELL, ask, asks, most, events[m], written, now, seat)
            order_id, kind = 2 * row["decision"], POST_ONLY_SLIDE
            missing, room = bids - kept_bids, row["limit"] - row["inventory"]
            written = place(row, resting[m], kind, BUY, order_id, bid, missing, room, events[m], written, now, seat)
            missing, room = asks - kept_asks, row["limit"] + row["inventory"]
            count[m] = place(
                row, resting[m], kind, SELL, order_id + 1, ask, missing, room, events[m], written, now, seat
            )


@njit(cache=True, nogil=True, parallel=True)
def open_target(state, resting, prices, sizes, actions, rows, clock_ns, seat, events, count):
    """Turns a trader's actions into the order that takes it towards its target.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots.
        actions: (N, 2) float32 in [-1, 1], target and aggressiveness.
        rows: (N,) bool, rows that act.
        clock_ns: (N,) int64.
        seat: the owner of the orders.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
    """
    for m in prange(state.shape[0]):
        count[m] = 0
        if rows[m]:
            row, now = state[m], clock_ns[m]
            open_row(row)
            row["target"] = _rounded(float(actions[m, 0]) * float(row["limit"]))
            row["crossing"] = 1 if actions[m, 1] >= 0.0 else 0
            missing = row["target"] - row["inventory"]
            side, wanted = np.int64(1 if missing >= 0 else -1), abs(missing)
            price = wanted_price(row, side, prices[m], sizes[m], float(actions[m, 1]))
            written, _ = take_back(
                row, resting[m], -side, np.int64(0), np.int64(0), MAX_RESTING, events[m], 0, now, seat
            )
            written, kept = take_back(row, resting[m], side, price, wanted, MAX_RESTING, events[m], written, now, seat)
            order_id, room = 2 * row["decision"], row["limit"] - side * row["inventory"]
            count[m] = place(
                row, resting[m], LIMIT, side, order_id, price, wanted - kept, room, events[m], written, now, seat
            )


@njit(cache=True, nogil=True, parallel=True)
def close_interval(
    state, resting, records, record_count, fills, fill_count, accounts, rows, clock_ns, seat, events, count
):
    """Reads the interval from the tape and writes the orders that close it: cancels, and one that crosses.

    At the episode's end that is all of the position, else what is missing to the target of those who cross. At the end
    a late seat only takes back what it has sent; once that is known to be gone, a second call crosses.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING.
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        fills: (N, R) FILL, ring.
        fill_count: (N,) int64.
        accounts: (N, A + 1) ACCOUNT.
        rows: (N,) bool.
        clock_ns: (N,) int64.
        seat: the owner of the orders.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
    """
    for m in prange(state.shape[0]):
        count[m] = 0
        if rows[m]:
            row, account = state[m], accounts[m, seat]
            follow_row(row, resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)
            row["closing_cash"], row["closing_inventory"] = account["cash"], account["inventory"]
            deadline = row["decision"] + 1 == row["decisions"]
            lots = np.int64(0)
            if deadline:
                row["worst_fill"] = 0
                waits = row["late"] == 1 and row["own_count"] > 0
                lots = np.int64(0) if waits else -account["inventory"]
            elif row["crossing"] == 1:
                lots = row["target"] - account["inventory"]
            if deadline or lots != 0:
                room = row["limit"] + abs(account["inventory"])
                if not deadline:
                    room = row["limit"] - (1 if lots > 0 else -1) * account["inventory"]
                order_id = 2 * row["decision"] + 1
                count[m] = cross(row, resting[m], lots, room, 0, order_id, events[m], clock_ns[m], seat)
