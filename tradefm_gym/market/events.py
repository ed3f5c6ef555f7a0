"""The vocabulary of the exchange: record layouts and constants.

Prices are integer ticks, sizes integer lots, times integer nanoseconds, money 1/1000 tick-lots,
mids are stored doubled (``bid + ask``) so that they stay integers.
"""

from typing import NamedTuple

import numpy as np

# Kinds of event.
LIMIT = 0  # rests what it cannot match, at most ``max_rest`` lots of it
MARKET = 1  # crosses at any price, never rests; on the tape it carries the opposite best as its price
CANCEL = 2  # removes a resting order, or a part of it; ``size`` 0 means all that remains
PRINT = 3  # an execution of hidden liquidity: moves the mid estimate, never the book
MODIFY = 4  # a resting order gets a new price and size; it keeps its place only if its size alone goes down
FILL_OR_KILL = 5  # as LIMIT, but is executed in full on arrival or not at all
POST_ONLY = 6  # as LIMIT, but refused where it would execute on arrival
POST_ONLY_SLIDE = 7  # as LIMIT, but where it would execute its price moves to the best that does not
HALT = 8  # of the background: stops trading (``size`` 1) or lets it go on (0); cancels are always possible
LAST_KIND = HALT
# Immediate-or-cancel is a LIMIT with ``max_rest`` 0.

BUY = 1
SELL = -1

# How ``price`` is read when the event arrives.
ABSOLUTE = 0  # ticks
TOUCH = 1  # ticks inside the best price of the event's own side (negative: behind it)
OPPOSITE = 2  # ticks away from the opposite best (0 crosses, 1 just rests)
MID = 3  # ticks beyond the mid, rounded away from the spread, towards the other side (negative: behind it)
INSIDE = 4  # ticks away from the opposite best, at least 1, but not behind the best of the event's own side
LAST_ANCHOR = INSIDE

BACKGROUND = -1  # the owner of the flow; as an index it is the last account

# Values of ``order_id`` in a CANCEL that names no order. They remove background orders only.
CANCEL_NEAREST = -1  # nearest level to ``price``, newest first, spilling until ``size`` is used up
CANCEL_WHOLE = -2  # nearest level to ``price``, the one order whose size is nearest to ``size``
CANCEL_RANDOM = -3  # any live order of either side, picked by ``price`` in [0, 2^31)

INSERTED = -9  # the ``order_id`` of a background MARKET order that a stress scenario adds to what a flow proposes

NO_LIMIT = np.int32(2**31 - 1)  # value of ``max_rest``: everything may rest

# What became of an event (``status`` on the tape).
RESTED = 1  # accepted; something rests (after fills, if ``filled`` > 0)
FILLED = 2  # executed in full
CANCELLED = 3  # removed ``size`` lots
NOOP = 4  # nothing to do: the order is gone, the side is empty
DROPPED = 5  # the remainder beyond ``max_rest`` (or of a MARKET or FILL_OR_KILL order) was dropped
PREVENTED = 6  # the remainder was cancelled rather than traded: against an own order, or for more than accounts hold
REJECTED = 7  # refused: price or size out of range or off the grid, would execute, halted, or a capacity exceeded
PRINTED = 8  # a PRINT
SWITCHED = 9  # a HALT: trading stopped or went on

EVENT_FIELDS = [
    ("time_ns", np.int64),
    ("order_id", np.int64),
    ("price", np.int32),
    ("size", np.int32),
    ("max_rest", np.int32),
    ("owner", np.int16),
    ("kind", np.uint8),
    ("side", np.int8),
    ("anchor", np.uint8),
]
EVENT = np.dtype(EVENT_FIELDS, align=True)

# A line of the tape: the event as it was resolved, and its outcome. ``price`` is absolute,
# ``size`` of a cancel is what was removed, ``filled`` and ``notional`` (ticks x lots) say what it
# executed on arrival. How it left the book: ``mid2`` is the doubled mid (the last known one while a side is empty; 0:
# not known yet), ``spread`` in ticks (0 while a side is empty), ``bid_size`` and ``ask_size`` the lots at the best
# prices, as ``features.size_code`` tells them: what else would be padding.
RECORD = np.dtype(
    [
        *EVENT_FIELDS,
        ("status", np.uint8),
        ("bid_size", np.uint8),
        ("ask_size", np.uint8),
        ("filled", np.int32),
        ("mid2", np.int32),
        ("spread", np.int32),
        ("notional", np.int64),
    ],
    align=True,
)

FILL = np.dtype(
    [
        ("time_ns", np.int64),
        ("maker_id", np.int64),
        ("taker_id", np.int64),
        ("wait_ns", np.int64),  # the maker's time in the queue
        ("price", np.int32),
        ("size", np.int32),
        ("maker", np.int16),
        ("taker", np.int16),
        ("taker_side", np.int8),
    ],
    align=True,
)

# A slot of the order pool. ``next`` and ``prev`` link the queue of one price level, -1 ends it.
ORDER = np.dtype(
    [
        ("order_id", np.int64),
        ("time_ns", np.int64),
        ("price", np.int32),
        ("size", np.int32),
        ("next", np.int32),
        ("prev", np.int32),
        ("owner", np.int16),
        ("side", np.int8),
    ],
    align=True,
)

ACCOUNT = np.dtype([("cash", np.int64), ("inventory", np.int64), ("fees", np.int64), ("volume", np.int64)], align=True)


class EventBlock(NamedTuple):
    """Proposed events for N markets: ``events`` (N, K) EVENT of which row m uses the first ``count[m]``."""

    events: np.ndarray
    count: np.ndarray  # (N,) int32

    @classmethod
    def empty(cls, num_markets: int, width: int) -> "EventBlock":
        """A block without events; ``max_rest`` starts at NO_LIMIT, ``owner`` at BACKGROUND."""
        events = np.zeros((num_markets, width), EVENT)
        events["max_rest"] = NO_LIMIT
        events["owner"] = BACKGROUND
        return cls(events, np.zeros(num_markets, np.int32))
