"""What other rooms' loops over markets do with one row: send a seat's orders, let it go on, and read it.

A step of an environment is a few such loops. Each does with a row all that comes next while it lies in the caches, and
with that costs one call where going through the methods of ``MarketSimulator`` costs ten.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.ahead import ask_for
from tradefm_gym.market.book import NOBODY
from tradefm_gym.market.compiler import KERNEL, PARALLEL, ROW, SERIAL
from tradefm_gym.market.kernels import CRAMPED, ENDED, NONE, REFUSED, STARVED, advance_row, submit_row
from tradefm_gym.market.layout import CLOCK, COUNT, FILLS, RECORDS
from tradefm_gym.market.ledger import TAKER_FEE, TAKER_RATE, open_ledger
from tradefm_gym.market.views import queue_ahead_row, read_depth_row

__all__ = [
    "CLOCK",
    "COUNT",
    "CRAMPED",
    "ENDED",
    "FILLS",
    "NOBODY",
    "OVERRUN",
    "PARALLEL",
    "RECORDS",
    "REFUSED",
    "ROW",
    "SERIAL",
    "STARVED",
    "TAKER_FEE",
    "TAKER_RATE",
    "ask_for",
    "depart",
    "open_ledger",
    "queue_ahead_row",
    "read_depth_row",
    "worst",
]

OVERRUN = 3  # beside how a loop ended: an interval has overwritten what it wrote on the tape
_NEVER = np.iinfo(np.int64).max


@njit(**KERNEL)
def depart(book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count, until, m):
    """Queues agents' orders of row m and carries out what is due, up to a count of background events.

    Args:
        book_memory: the books' block.
        ledger_memory: the ledgers' block.
        flow_queue: (N, Q) EVENT.
        agent_queue: (N, Q') EVENT.
        names: (N, 2) uint64, seed and episode.
        agent_ids: order ids of a seat.
        events: (N, K) EVENT, orders of seats without latency.
        count: how many of row m there are.
        until: background events of the row by then.
        m: the row.

    Returns:
        ENDED, STARVED or CRAMPED, after which ``MarketSimulator.advance`` goes on; or REFUSED + a fault of ``kernels``,
        with nothing queued.
    """
    ledger = open_ledger(ledger_memory)
    seats = ledger.accounts.shape[1] - 1
    fault = submit_row(agent_queue, ledger.clocks, names, seats, agent_ids, events, count, m)
    if fault != NONE:
        return REFUSED + fault
    return advance_row(book_memory, ledger_memory, flow_queue, agent_queue, until, _NEVER, _NEVER, m)


@njit(**KERNEL)
def worst(ends):
    """The largest of how rows' loops ended, 0 if all have ENDED."""
    most = np.int64(0)
    for m in range(ends.shape[0]):
        most = max(most, ends[m])
    return most
