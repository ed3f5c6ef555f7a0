"""Where things lie in the state of a market: the columns of its rows."""

import numpy as np

# A price level: the queue's first and last slot (valid while depth > 0) and the lots in it.
LEVEL = np.dtype([("head", np.uint32), ("tail", np.uint32), ("depth", np.int64)], align=True)

# Columns of ``BookState.row``; those with a side come in pairs, bid first.
BEST = 0
FREE = 2  # first free slot, linked by ``next``
HIGH_WATER = 3  # slots ever used
LIVE = 4  # resting orders
BACKGROUND_LIVE = 5  # of them background
NEXT_ID = 6  # one more than the largest background id seen
FREE_PAGE = 7  # first free page + 1, linked by the ``head`` of its first level
HIGH_PAGE = 8  # pages ever used
LIVE_PAGES = 9
FREE_NODE = 10  # first free node + 1, linked by its first child
HIGH_NODE = 11
LIVE_NODES = 12
TIGHT = 13  # not 0: the arrays may have no room for another event, look closer; so always where events are logged
IDLE = 14  # number + 1 of a side's page that is empty but kept: the next order often comes back to it; 0 without
SPILLED = 16  # orders whose id lies elsewhere than in its own place
LOG_BASE = 17  # events that were logged and are no longer kept
LOG_END = 18  # events in the log
ROW_WIDTH = 24

# Columns of ``BookState.limits``.
CAPACITY = 0  # resting orders that a market may have
ID_MASK = 1  # background ids that agree in these bits cannot rest at the same time
AGENT_IDS = 2  # order ids of a seat
TICK = 3  # prices are its multiples
LOT = 4  # sizes are its multiples
LIMITS_WIDTH = 8

# Columns of ``Ledger.clocks``: what a market knows besides its book.
CLOCK = 0  # ns
COUNT = 1  # background events processed, prints apart
MID2 = 2  # last known doubled mid of the book, 0: not known yet
OUTSIDE_MID2 = 3  # the same without any agent's orders
LAST_PRICE = 4  # of the last execution or print, 0: none yet
EXECUTED = 5  # lots executed in the book
RECORDS = 6  # records ever written
FILLS = 7  # fills ever written
FLOW_HEAD = 8  # place of the first waiting background event in its ring
FLOW_WAITING = 9
AGENT_HEAD = 10  # place of the first waiting agents' event
AGENT_END = 11  # one past the last
HALTED = 12  # 1 while trading is halted
RECORD_PLACE = 13  # RECORDS modulo the length of the ring
FILL_PLACE = 14
CLOCK_WIDTH = 16

# Columns of ``Ledger.counters``: events by outcome, so that nothing is refused silently.
COUNTERS = ("noop", "dropped", "dropped_lots", "prevented", "prevented_lots", "rejected", "pool_full")
COUNT_NOOP, COUNT_DROPPED, COUNT_DROPPED_LOTS, COUNT_PREVENTED = 0, 1, 2, 3
COUNT_PREVENTED_LOTS, COUNT_REJECTED, COUNT_POOL_FULL = 4, 5, 6
