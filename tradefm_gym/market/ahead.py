"""Asking for the memory of a market before its turn comes.

A market with its tables and the end of its tape is some thirty kilobytes. Of a hundred markets hardly anything lies in
the nearest caches when a loop comes to one again, and to wait for one line after another takes as long as the events
themselves. So a loop asks for most of what the next market may touch, and works on one market meanwhile.
"""

from numba import njit

from tradefm_gym.market.book import open_book
from tradefm_gym.market.compiler import KERNEL, fetch
from tradefm_gym.market.layout import (
    CLOCK_WIDTH,
    FILL_PLACE,
    FLOW_HEAD,
    FLOW_WAITING,
    HIGH_PAGE,
    HIGH_WATER,
    RECORD_PLACE,
    ROW_WIDTH,
)
from tradefm_gym.market.ledger import open_ledger

_NEAR = 2**20  # bytes of books that stay in the nearest caches anyway
_LINE = 64
# What is asked for at the most: what a decision of sixteen events is likely to touch of a market of usual size.
_ORDERS, _SLOTS, _PAGES, _EVENTS, _RECORDS, _FILLS = 256, 2048, 4, 16, 20, 6


@njit(**KERNEL)
def ask_for(book_memory, ledger_memory, flow_queue, m):
    """Asks for row ``m``, if there is one, and for what must be known of the one after it to do the same then."""
    if m >= flow_queue.shape[0] or book_memory.shape[0] < _NEAR:
        return
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    after = min(m + 1, flow_queue.shape[0] - 1)
    for column in range(0, CLOCK_WIDTH, _LINE // 8):
        fetch(ledger.clocks, after, column)
    for column in range(0, ROW_WIDTH, _LINE // 8):
        fetch(book.row, after, column)
    row, clocks = book.row, ledger.clocks
    if clocks[m, FLOW_WAITING] == 0:  # little will happen in it by now
        return
    for line in range(min(row[m, HIGH_WATER], _ORDERS) * 5 // 8 + 1):
        fetch(book.orders, m, line * 8 // 5)  # of 40 bytes each
    for slot in range(0, book.slots.shape[1] if book.slots.shape[1] <= _SLOTS else 0, _LINE // 4):
        fetch(book.slots, m, slot)
    for level in range(0, min(row[m, HIGH_PAGE], _PAGES) * 64, _LINE // 16):
        fetch(book.levels, m, level)
    fetch(book.page_bits, m, 0)
    for place in range(0, 64, _LINE // 4):
        fetch(book.near, m, place)
    first = clocks[m, FLOW_HEAD]
    for place in range(first, min(first + _EVENTS, flow_queue.shape[1])):
        fetch(flow_queue, m, place)
    first = clocks[m, RECORD_PLACE]
    for place in range(first, min(first + _RECORDS, ledger.records.shape[1])):
        fetch(ledger.records, m, place)
    first = clocks[m, FILL_PLACE]
    for place in range(first, min(first + _FILLS, ledger.fills.shape[1])):
        fetch(ledger.fills, m, place)
