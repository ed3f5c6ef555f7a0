"""Paths made by hand, of which every figure is known."""

import numpy as np

from tradefm_gym.flow.protocol import SCALE
from tradefm_gym.market.events import BACKGROUND, CANCEL, FILL, LIMIT, RECORD
from tradefm_gym.realism.path import LEVELS, MarketPath

SECOND = 10**9


def path_of(events, touches, start=(990, 1010), fills=(), median=10.0):
    """A path with one event a second.

    Args:
        events: of (kind, side, price, size, filled, order_id).
        touches: (bid, ask) after each, 100 lots there and at each further tick.
        start: the same at the beginning.
        fills: of (position of the taker, maker's id, lots).
        median: order size in lots.
    """
    records = np.zeros(len(events), RECORD)
    for record, (kind, side, price, size, filled, order_id) in zip(records, events, strict=True):
        record["kind"], record["side"], record["price"], record["size"] = kind, side, price, size
        record["filled"], record["order_id"] = filled, order_id
    records["owner"] = BACKGROUND
    records["time_ns"] = (1 + np.arange(len(events))) * SECOND
    made = np.zeros(len(fills), FILL)
    for fill, (at, maker, lots) in zip(made, fills, strict=True):
        taker = records[at]
        fill["time_ns"], fill["taker_id"], fill["taker_side"] = taker["time_ns"], taker["order_id"], taker["side"]
        fill["maker_id"], fill["size"], fill["maker"], fill["taker"] = maker, lots, BACKGROUND, BACKGROUND
    scale = np.zeros((), SCALE)
    scale["median_size"] = median
    return MarketPath(
        records, np.array([_levels(*touch) for touch in touches], np.int32), made, 0,
        np.array(_levels(*start), np.int32), scale, end_ns=len(events) * SECOND,
    )  # fmt: skip


def idle(order_id=10_000):
    """A cancel far from everything."""
    return (CANCEL, 1, 500, 1, 0, order_id)


def add(side, price, order_id, size=10):
    return (LIMIT, side, price, size, 0, order_id)


def take(side, price, filled, order_id):
    return (LIMIT, side, price, filled, filled, order_id)


def _levels(bid, ask):
    return [(ask + i, 100, bid - i, 100) for i in range(LEVELS)]
