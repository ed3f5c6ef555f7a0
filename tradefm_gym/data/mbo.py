"""From market-by-order messages, as Databento normalises them, to feed rows.

A fill (F) names the resting order but leaves the book as it is; the cancel or modify after it takes the filled
size off. Here the fill is the execution, and what the later message only repeats is absorbed:

* C removes what is not yet taken off by fills: a delete, or a partial cancel where something stays.
* M to a smaller size at its price is a partial cancel, any other M a delete and an add with the same id; of an
  order that is not known it is an add (flag 8).
* F is an execution, or, where the feed gives no side (opening auction, implied trades), a cross (flag 4).
* T without an F after it is an execution of hidden liquidity; R empties the book.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.data import live_orders
from tradefm_gym.data.live_orders import LIVE, LiveOrders
from tradefm_gym.data.rows import (
    ADD,
    CROSS,
    DELETE,
    EXECUTION,
    FIRST_SEEN,
    HIDDEN,
    NO_SIDE,
    PARTIAL_CANCEL,
    SNAPSHOT,
    FeedRows,
)

_A, _C, _F, _M, _N, _R, _T = (ord(letter) for letter in "ACFMNRT")
_B = ord("B")
_ADDED, _STRANGER = 1, 2  # marks: an order that was added, one that was only seen to be filled
_FROM_SNAPSHOT = 32  # bit of Databento's flags
UNDEFINED_PRICE = np.int64(2**63 - 1)

MESSAGE = np.dtype(
    [
        ("time_ns", np.int64),
        ("order_id", np.int64),
        ("price", np.int64),  # UNDEFINED_PRICE where there is none
        ("size", np.int64),
        ("row", np.int64),
        ("flags", np.uint8),
        ("action", np.uint8),
        ("side", np.uint8),
    ],
    align=True,
)
ROW = np.dtype(
    [
        ("time_ns", np.int64),
        ("order_id", np.int64),
        ("price", np.int64),
        ("size", np.int64),
        ("row", np.int64),
        ("event", np.int8),
        ("side", np.int8),
        ("flag", np.int8),
    ],
    align=True,
)


class Translation(NamedTuple):
    """What is carried from one batch of messages to the next."""

    live: LiveOrders
    trade: np.ndarray  # (1,) MESSAGE: a trade whose fills may follow; action 0 where there is none
    count: np.ndarray  # (1,) int64 rows written

    @classmethod
    def start(cls) -> "Translation":
        """Nothing rests."""
        return cls(LiveOrders.allocate(), np.zeros(1, MESSAGE), np.zeros(1, np.int64))


def translate(state: Translation, messages: np.ndarray, last: bool) -> tuple[Translation, FeedRows]:
    """Feed rows of a batch of messages (n,) MESSAGE in feed order.

    Args:
        state: what the batch before left; it is used up.
        messages: adds need a price and all a known action, which the readers see to.
        last: whether no messages follow.
    """
    adds = int(np.isin(messages["action"], (_A, _M, _F)).sum())
    state = state._replace(live=state.live.with_room(adds))
    out = np.zeros(3 * len(messages) + int(state.live.counts[LIVE]) + 1, ROW)
    state.count[0] = 0
    _translate(state, messages, out, last)
    return state, as_rows(out[: state.count[0]])


def as_rows(rows: np.ndarray) -> FeedRows:
    """Rows (n,) ROW as columns."""
    return FeedRows(
        *(rows[name].copy() for name in ("time_ns", "event", "order_id", "side", "price", "size", "flag", "row"))
    )


@njit(cache=True, nogil=True)
def _translate(state, messages, out, last):
    live, trade = state.live, state.trade[0]
    for i in range(len(messages)):
        message = messages[i]
        action = message["action"]
        if trade["action"] != 0:
            if action != _F:
                _emit(state, out, trade, HIDDEN, 0, -_sign(trade["side"]), trade["price"], trade["size"], 0)
            trade["action"] = 0
        if action == _T:
            state.trade[0] = message
        elif action == _R:
            for place in range(live.counts[0]):
                if live.left[place] > 0:
                    _emit(
                        state, out, message, DELETE, live.order_id[place], live.side[place], live.price[place],
                        live.left[place], 0,
                    )  # fmt: skip
                if live.mark[place] != 0:
                    _forget(live, np.int64(place))
        elif action == _A:
            _add(state, out, message, SNAPSHOT if message["flags"] & _FROM_SNAPSHOT else 0)
        elif action == _C:
            _cancel(state, out, message)
        elif action == _M:
            _modify(state, out, message)
        elif action == _F:
            _fill(state, out, message)
    if last and trade["action"] != 0:
        _emit(state, out, trade, HIDDEN, 0, -_sign(trade["side"]), trade["price"], trade["size"], 0)
        trade["action"] = 0


@njit(cache=True, nogil=True)
def _emit(state, out, message, event, order_id, side, price, size, flag):
    row = out[state.count[0]]
    state.count[0] += 1
    row["time_ns"], row["row"], row["event"], row["order_id"] = message["time_ns"], message["row"], event, order_id
    row["side"], row["price"], row["size"], row["flag"] = side, price, size, flag


@njit(cache=True, nogil=True)
def _sign(side):
    if side == _B:
        return 1
    return 0 if side == _N else -1


@njit(cache=True, nogil=True)
def _add(state, out, message, flag):
    live, side = state.live, _sign(message["side"])
    place = live_orders.find(live, message["order_id"])
    if place >= 0 and live.left[place] == 0:  # filled, and shown again
        _forget(live, place)
        place = np.int64(-1)
    if place < 0:
        place = live_orders.insert(live, message["order_id"], side, message["price"], message["size"])
        live.mark[place] = _ADDED
    _emit(state, out, message, ADD, message["order_id"], side, message["price"], message["size"], flag)


@njit(cache=True, nogil=True)
def _forget(live, place):
    live.left[place] = 0
    live.mark[place] = 0
    live_orders.remove(live, place)


@njit(cache=True, nogil=True)
def _cancel(state, out, message):
    live = state.live
    place = live_orders.find(live, message["order_id"])
    if place < 0:
        side = _sign(message["side"])
        _emit(state, out, message, DELETE, message["order_id"], side, message["price"], message["size"], 0)
        return
    absorbed = min(message["size"], live.pending[place])
    live.pending[place] -= absorbed
    size = message["size"] - absorbed
    if live.mark[place] == _STRANGER:
        if size > 0:
            _emit(state, out, message, DELETE, message["order_id"], live.side[place], message["price"], size, 0)
        _forget(live, place)
        return
    side, price, left = live.side[place], live.price[place], live.left[place]
    if size > 0 and left > 0:
        if size >= left:
            _emit(state, out, message, DELETE, message["order_id"], side, price, left, 0)
        else:
            _emit(state, out, message, PARTIAL_CANCEL, message["order_id"], side, price, size, 0)
        live.left[place] -= min(size, left)
    if live.left[place] == 0:
        _forget(live, place)


@njit(cache=True, nogil=True)
def _modify(state, out, message):
    live = state.live
    place = live_orders.find(live, message["order_id"])
    if place < 0 or live.mark[place] == _STRANGER:
        _add(state, out, message, FIRST_SEEN)
        return
    side, price, left = live.side[place], live.price[place], live.left[place]
    live.pending[place] = 0
    if price == message["price"] and 0 < message["size"] <= left and side == _sign(message["side"]):
        if message["size"] < left:
            size = left - message["size"]
            _emit(state, out, message, PARTIAL_CANCEL, message["order_id"], side, price, size, 0)
            live.left[place] = message["size"]
        return
    if left > 0:
        _emit(state, out, message, DELETE, message["order_id"], side, price, left, 0)
    _forget(live, place)
    if message["size"] > 0:
        _add(state, out, message, 0)


@njit(cache=True, nogil=True)
def _fill(state, out, message):
    live, side = state.live, _sign(message["side"])
    place = live_orders.find(live, message["order_id"])
    event, flag = EXECUTION, 0
    if side == 0:
        event, flag = CROSS, NO_SIDE
        if place >= 0:
            side = live.side[place]
    _emit(state, out, message, event, message["order_id"], side, message["price"], message["size"], flag)
    if place < 0:  # rested before the first message: only the cancel that repeats the fill is of interest
        place = live_orders.insert(live, message["order_id"], side, message["price"], 0)
        live.mark[place] = _STRANGER
    live.left[place] -= min(live.left[place], message["size"])
    live.pending[place] += message["size"]
