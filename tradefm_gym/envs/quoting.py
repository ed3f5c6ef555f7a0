"""How roles write their orders: row kernels that cancel, price and replace them. Cancels always come first."""

import numpy as np
from numba import njit

from tradefm_gym.market.book import MAX_PRICE, MIN_PRICE
from tradefm_gym.market.events import ABSOLUTE, CANCEL, MARKET, NO_LIMIT


@njit(cache=True, nogil=True)
def write_order(events, count, time_ns, seat, kind, side, order_id, price, size):
    """Appends an order; returns how many there are now."""
    event = events[count]
    event["time_ns"] = time_ns
    event["order_id"] = order_id
    event["price"] = price
    event["size"] = size
    event["max_rest"] = NO_LIMIT
    event["owner"] = seat
    event["kind"] = kind
    event["side"] = side
    event["anchor"] = ABSOLUTE
    return count + 1


@njit(cache=True, nogil=True)
def _cancel(order, lots, events, count, time_ns, seat):
    """Takes back ``lots`` of an order; 0 means all that remains, whatever was executed meanwhile."""
    return write_order(events, count, time_ns, seat, CANCEL, order["side"], order["order_id"], 0, lots)


@njit(cache=True, nogil=True)
def cross(state, resting, lots, order_id, events, time_ns, seat):
    """Cancels whatever rests and crosses with ``lots`` (positive buys) at any price; returns the number of orders."""
    count = 0
    for i in range(state["own_count"]):
        count = _cancel(resting[i], 0, events, count, time_ns, seat)
    if lots != 0:
        side = 1 if lots > 0 else -1
        count = write_order(events, count, time_ns, seat, MARKET, side, order_id, 0, abs(lots))
    return count


@njit(cache=True, nogil=True)
def priced(price):
    """The nearest price that a market takes."""
    return min(max(price, np.int64(MIN_PRICE)), np.int64(MAX_PRICE))


@njit(cache=True, nogil=True)
def wanted_price(state, side, prices, sizes, aggressiveness):
    """The price (ticks) that an aggressiveness in [-1, 1] stands for in the book without own orders."""
    own = 0 if side > 0 else 1
    if sizes[own, 0] > 0:
        touch = prices[own, 0]
    else:  # nobody else on this side: the last mid, rounded away from the other side
        touch = (state["decision_mid2"] - 1) // 2 if side > 0 else (state["decision_mid2"] + 2) // 2
    if aggressiveness >= 0.0:
        price = touch + side * np.int64(np.floor(aggressiveness * float(state["spread"]) + 0.5))
    else:
        price = touch - side * np.int64(np.floor(-aggressiveness * float(max(4, state["spread"])) + 0.5))
    return priced(price)


@njit(cache=True, nogil=True)
def take_back(state, resting, side, price, wanted, most, events, count, time_ns, seat):
    """Cancels what a side has too much of: orders at other prices, and of those at ``price`` the newest.

    What stays keeps its place in the queue. Where ``most`` orders would stay and lots are missing, the newest goes
    too, for the order that brings the missing ones to include its lots.

    Returns:
        The number of orders written, and the lots that stay.
    """
    kept, orders = np.int64(0), 0
    for i in range(state["own_count"]):
        if resting[i]["side"] == side:
            if resting[i]["price"] == price and wanted > 0:
                kept += resting[i]["size"]
                orders += 1
            else:
                count = _cancel(resting[i], 0, events, count, time_ns, seat)
    full = orders == most and kept < wanted
    i = state["own_count"] - 1
    while i >= 0 and (kept > wanted or full):
        order = resting[i]
        if order["side"] == side and order["price"] == price and wanted > 0:
            lots = order["size"] if full else min(order["size"], kept - wanted)
            count = _cancel(order, 0 if lots == order["size"] else lots, events, count, time_ns, seat)
            kept -= lots
            full = False
        i -= 1
    return count, kept
