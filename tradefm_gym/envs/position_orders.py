"""Orders of roles that hold a position: kernels from actions to what opens an interval, and what closes it."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.quoting import cross, place, priced, take_back, wanted_price
from tradefm_gym.envs.seat import MAX_RESTING, follow_row, open_row
from tradefm_gym.market.compiler import ROW
from tradefm_gym.market.events import BUY, LIMIT, POST_ONLY_SLIDE, SELL

# Order ids: 2 k for the bid of decision k, 2 k + 1 for its ask and for what crosses at its end.
BEHIND = 4  # ticks behind the touch that a distance reaches at least


@njit(**ROW)
def _rounded(value):
    return np.int64(np.floor(value + 0.5))


@njit(**ROW)
def _distance2(distance, spread, reach):
    """How far a quote is from the mid, in half ticks: -1 is the mid, 0 the touch, 1 ``reach`` ticks behind it."""
    if distance < 0.0:
        return _rounded((1.0 + distance) * float(spread))
    return spread + _rounded(2.0 * distance * float(reach))


@njit(**ROW)
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


@njit(**ROW)
def quote_row_of(state, resting, prices, sizes, actions, now, seat, events):
    """``open_quotes`` of one row; returns the number of orders."""
    open_row(state)
    bid, ask = quote_prices(state, prices, sizes, float(actions[0]), float(actions[1]), float(actions[2]))
    lots = _rounded(0.5 * (1.0 + float(actions[3])) * float(state["size"]))
    bids = max(min(lots, state["limit"] - state["inventory"]), np.int64(0))
    asks = max(min(lots, state["limit"] + state["inventory"]), np.int64(0))
    most = MAX_RESTING // 2
    written, kept_bids = take_back(state, resting, BUY, bid, bids, most, events, 0, now, seat)
    written, kept_asks = take_back(state, resting, SELL, ask, asks, most, events, written, now, seat)
    order_id, kind = 2 * state["decision"], POST_ONLY_SLIDE
    missing, room = bids - kept_bids, state["limit"] - state["inventory"]
    written = place(state, resting, kind, BUY, order_id, bid, missing, room, events, written, now, seat)
    missing, room = asks - kept_asks, state["limit"] + state["inventory"]
    return place(state, resting, kind, SELL, order_id + 1, ask, missing, room, events, written, now, seat)


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
            count[m] = quote_row_of(state[m], resting[m], prices[m], sizes[m], actions[m], clock_ns[m], seat, events[m])


@njit(**ROW)
def target_row_of(state, resting, prices, sizes, actions, now, seat, events):
    """``open_target`` of one row; returns the number of orders."""
    open_row(state)
    state["target"] = _rounded(float(actions[0]) * float(state["limit"]))
    state["crossing"] = 1 if actions[1] >= 0.0 else 0
    missing = state["target"] - state["inventory"]
    side, wanted = np.int64(1 if missing >= 0 else -1), abs(missing)
    price = wanted_price(state, side, prices, sizes, float(actions[1]))
    written, _ = take_back(state, resting, -side, np.int64(0), np.int64(0), MAX_RESTING, events, 0, now, seat)
    written, kept = take_back(state, resting, side, price, wanted, MAX_RESTING, events, written, now, seat)
    order_id, room = 2 * state["decision"], state["limit"] - side * state["inventory"]
    return place(state, resting, LIMIT, side, order_id, price, wanted - kept, room, events, written, now, seat)


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
            count[m] = target_row_of(
                state[m], resting[m], prices[m], sizes[m], actions[m], clock_ns[m], seat, events[m]
            )


@njit(**ROW)
def close_row_of(state, resting, records, record_count, fills, fill_count, account, now, seat, events):
    """``close_interval`` of one row; returns the number of orders."""
    follow_row(state, resting, records, record_count, fills, fill_count, seat)
    state["closing_cash"], state["closing_inventory"] = account["cash"], account["inventory"]
    deadline = state["decision"] + 1 == state["decisions"]
    lots = np.int64(0)
    if deadline:
        state["worst_fill"] = 0
        waits = state["late"] == 1 and state["own_count"] > 0
        lots = np.int64(0) if waits else -account["inventory"]
    elif state["crossing"] == 1:
        lots = state["target"] - account["inventory"]
    if not deadline and lots == 0:
        return 0
    room = state["limit"] + abs(account["inventory"])
    if not deadline:
        room = state["limit"] - (1 if lots > 0 else -1) * account["inventory"]
    return cross(state, resting, lots, room, 0, 2 * state["decision"] + 1, events, now, seat)


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
            count[m] = close_row_of(
                state[m], resting[m], records[m], record_count[m], fills[m], fill_count[m], accounts[m, seat],
                clock_ns[m], seat, events[m],
            )  # fmt: skip
