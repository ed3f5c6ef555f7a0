"""How roles write their orders: row kernels that cancel, price and replace them. Cancels always come first."""

import numpy as np
from numba import njit

from tradefm_gym.envs.seat import LEAVING, MAX_RESTING, SENT, TAKING
from tradefm_gym.market.book import MAX_PRICE, MIN_PRICE
from tradefm_gym.market.compiler import ROW
from tradefm_gym.market.events import ABSOLUTE, CANCEL, LIMIT, MARKET, NO_LIMIT

_MARKET_IDS = 1 << 20  # those of late seats' market orders, told apart from what rests
_TAKE_WITHIN = -1  # in place of a kind: a LIMIT of which nothing may rest


@njit(**ROW)
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


@njit(**ROW)
def _cancel(order, lots, events, count, time_ns, seat):
    """Takes back ``lots`` of an order; 0 means all that remains, whatever was executed meanwhile."""
    return write_order(events, count, time_ns, seat, CANCEL, order["side"], order["order_id"], 0, lots)


@njit(**ROW)
def place(state, resting, kind, side, order_id, price, missing, room, events, count, time_ns, seat):
    """Sends an order for the lots that are missing; returns the number of orders.

    A late seat cannot know what became of orders that it has sent or takes back. So all of them, met to the last lot,
    may not carry it beyond ``room`` lots on this side, and it notes the new one.
    """
    lots = missing
    if state["late"] == 1:
        free = room
        for i in range(state["own_count"]):
            if resting[i]["side"] == side:
                free -= resting[i]["size"]
        lots = min(missing, free) if state["own_count"] < MAX_RESTING else np.int64(0)
    if lots <= 0:
        return count
    takes = kind == MARKET or kind == _TAKE_WITHIN
    if state["late"] == 1:
        order_id = order_id | _MARKET_IDS if kind == MARKET else order_id
        order = resting[state["own_count"]]
        order["order_id"], order["size"], order["side"] = order_id, lots, side
        order["price"] = state["decision_mid2"] // 2 if takes else price
        order["stage"] = TAKING if takes else SENT
        state["own_count"] += 1
    if kind != _TAKE_WITHIN:
        return write_order(events, count, time_ns, seat, kind, side, order_id, price, lots)
    count = write_order(events, count, time_ns, seat, LIMIT, side, order_id, price, lots)
    events[count - 1]["max_rest"] = 0
    return count


@njit(**ROW)
def cross(state, resting, lots, room, limit, order_id, events, time_ns, seat):
    """Cancels whatever rests and crosses with ``lots`` (positive buys); returns the number of orders.

    At any price, or where ``limit`` (ticks) is positive, at none beyond it.
    """
    count, missing = 0, abs(lots)
    side = np.int64(1 if lots > 0 else -1)
    for i in range(state["own_count"]):
        if resting[i]["stage"] < LEAVING:
            count = _cancel(resting[i], 0, events, count, time_ns, seat)
            if state["late"] == 1:
                resting[i]["stage"] = LEAVING
        elif resting[i]["stage"] == TAKING and resting[i]["side"] == side:
            missing -= resting[i]["size"]
    kind = _TAKE_WITHIN if limit > 0 else MARKET
    return place(state, resting, kind, side, order_id, limit, missing, room, events, count, time_ns, seat)


@njit(**ROW)
def priced(price):
    """The nearest price that a market takes."""
    return min(max(price, np.int64(MIN_PRICE)), np.int64(MAX_PRICE))


@njit(**ROW)
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


def steps_inside(aggressiveness, spread):
    """Whether ``wanted_price`` finds a price of its own, (N, k) bool, for spreads (N,) of ticks.

    Only what is aggressive but does not cross (0 to 1, both out) may find none.
    """
    steps = np.floor(aggressiveness * spread[:, None] + 0.5)
    between = (aggressiveness > 0.0) & (aggressiveness < 1.0)
    return ~between | ((steps > 0) & (steps < spread[:, None]))


@njit(**ROW)
def take_back(state, resting, side, price, wanted, most, events, count, time_ns, seat):
    """Cancels what a side has too much of: orders at other prices, and of those at ``price`` the newest.

    What stays keeps its place in the queue. Where ``most`` orders would stay and lots are missing, the newest goes
    too, for the order that brings the missing ones to include its lots. A late seat takes back whole orders: how much
    of one is left when the cancel arrives, it does not know.

    Returns:
        The number of orders written, and the lots that stay.
    """
    kept, orders = np.int64(0), 0
    late = state["late"] == 1
    for i in range(state["own_count"]):
        if resting[i]["side"] != side or resting[i]["stage"] == LEAVING:
            continue
        if resting[i]["stage"] == TAKING:
            kept += resting[i]["size"]
        elif resting[i]["price"] == price and wanted > 0:
            kept += resting[i]["size"]
            orders += 1
        else:
            count = _cancel(resting[i], 0, events, count, time_ns, seat)
            if late:
                resting[i]["stage"] = LEAVING
    full = orders == most and kept < wanted
    i = state["own_count"] - 1
    while i >= 0 and (kept > wanted or full):
        order = resting[i]
        if order["side"] == side and order["price"] == price and wanted > 0 and order["stage"] < LEAVING:
            lots = order["size"] if full or late else min(order["size"], kept - wanted)
            count = _cancel(order, 0 if lots == order["size"] else lots, events, count, time_ns, seat)
            if late:
                order["stage"] = LEAVING
            kept -= lots
            full = False
        i -= 1
    return count, kept
