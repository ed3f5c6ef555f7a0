"""How markets begin: loops that empty rows and put start states into them; see ``kernels`` for their form."""

import numpy as np
from numba import njit, prange

from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, MAX_PRICE, MIN_PRICE, empty, has_room, open_book, rest
from tradefm_gym.market.compiler import KERNEL, PARALLEL, SERIAL
from tradefm_gym.market.events import BACKGROUND
from tradefm_gym.market.kernels import CRAMPED, ENDED
from tradefm_gym.market.layout import BEST, CLOCK, MID2, NEXT_ID, OUTSIDE_MID2, RECORD_PLACE, RECORDS
from tradefm_gym.market.ledger import open_ledger


@njit(**SERIAL)
def clear(book_memory, ledger_memory, rows):
    """Empties markets; only what is in use is touched."""
    for i in range(rows.shape[0]):
        _clear_row(book_memory, ledger_memory, rows[i])


@njit(**KERNEL)
def _clear_row(book_memory, ledger_memory, m):
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    _clear(book, ledger, m)


@njit(**KERNEL)
def _clear(book, ledger, m):
    empty(book, m)
    for owner in range(ledger.accounts.shape[1]):
        account = ledger.accounts[m, owner]
        account["cash"] = 0
        account["inventory"] = 0
        account["fees"] = 0
        account["volume"] = 0
    ledger.clocks[m] = 0
    ledger.counters[m] = 0


@njit(**SERIAL)
def load(book_memory, ledger_memory, rows, which, orders, order_start, records, record_start, scalars, ends):
    """Start states ``which`` for ``rows``, of those that lie one after another in flat arrays (see ``StartStates``).

    Whether there was room for each is written to ``ends``: ENDED or CRAMPED.
    """
    for i in range(rows.shape[0]):
        ends[i] = _load_row(
            book_memory, ledger_memory, rows[i], which[i], orders, order_start, records, record_start, scalars
        )


@njit(**PARALLEL)
def load_parallel(book_memory, ledger_memory, rows, which, orders, order_start, records, record_start, scalars, ends):
    """As :func:`load`, over the threads."""
    for i in prange(rows.shape[0]):
        ends[i] = _load_row(
            book_memory, ledger_memory, rows[i], which[i], orders, order_start, records, record_start, scalars
        )


@njit(**KERNEL)
def _load_row(book_memory, ledger_memory, m, state, orders, order_start, records, record_start, scalars):
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    return _load(book, ledger, m, state, orders, order_start, records, record_start, scalars)


@njit(**KERNEL)
def _load(book, ledger, m, state, orders, order_start, records, record_start, scalars):
    _clear(book, ledger, m)
    for k in range(order_start[state], order_start[state + 1]):
        if not has_room(book, m):
            return CRAMPED
        order = orders[k]
        s = np.int64(0) if order["side"] > 0 else np.int64(1)
        order_id, price, size = np.int64(order["order_id"]), np.int64(order["price"]), np.int64(order["size"])
        rest(book, m, order_id, order["time_ns"], price, size, np.int64(BACKGROUND), s)
        book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], order_id + 1)
    last, capacity = record_start[state + 1], ledger.records.shape[1]
    first = max(record_start[state], last - capacity)  # the ring holds no more than the tail
    for k in range(first, last):
        ledger.records[m, k - first] = records[k]
    ledger.clocks[m, RECORDS] = last - first
    ledger.clocks[m, RECORD_PLACE] = (last - first) % capacity
    ledger.clocks[m, CLOCK] = scalars[state, 0]
    bid, ask = book.row[m, BEST], book.row[m, BEST + 1]
    mid2 = bid + ask if bid != EMPTY_BID and ask != EMPTY_ASK else scalars[state, 1]
    ledger.clocks[m, MID2] = mid2
    ledger.clocks[m, OUTSIDE_MID2] = mid2
    book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], scalars[state, 2])
    return ENDED


@njit(**SERIAL)  # allocates, so it is no row kernel
def check_orders(orders, start, which, capacity, flow_ids, tick, lot):
    """The first of the states ``which`` whose orders no book could hold, -1 if all are fine."""
    seen = np.full(flow_ids, -1, np.int64)
    for i in which:
        if start[i + 1] - start[i] > capacity:
            return i
        bid, ask = np.int64(EMPTY_BID), np.int64(EMPTY_ASK)
        for k in range(start[i], start[i + 1]):
            order = orders[k]
            price = np.int64(order["price"])
            order_id = order["order_id"]
            if order["size"] <= 0 or price < MIN_PRICE or price > MAX_PRICE or order_id < 0:
                return i
            if price % tick != 0 or order["size"] % lot != 0:
                return i
            if order["owner"] != BACKGROUND or seen[order_id & (flow_ids - 1)] == i:
                return i
            seen[order_id & (flow_ids - 1)] = i
            if order["side"] == 1:
                bid = max(bid, price)
            elif order["side"] == -1:
                ask = min(ask, price)
            else:
                return i
        if bid >= ask:
            return i
    return -1
