"""The loops over markets: clear, load, submit, feed and advance.

Those that work long come twice. A loop over few markets runs in the calling thread, since waking others costs
more than it gains (and, on a machine whose cores are busy, milliseconds); the ``_parallel`` twin calls
the same row kernels from ``prange``, so the results are equal.

Bodies of ``prange`` only call row kernels: stores of their own into an array of a named tuple are lost (Numba 0.68).
Numba's disk cache knows a kernel by its own file, so after a change of a file that it calls remove ``__pycache__``.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.market.book import (
    BEST,
    EMPTY_ASK,
    EMPTY_BID,
    FAR_HEAD,
    FREE,
    HIGH_WATER,
    INLINE,
    KERNEL,
    MAX_PRICE,
    MIN_PRICE,
    NEXT_ID,
    PARALLEL,
    SERIAL,
    rest,
)
from tradefm_gym.market.events import ABSOLUTE, BACKGROUND, BUY, CANCEL, LIMIT, OPPOSITE, PRINT, SELL
from tradefm_gym.market.matching import (
    AGENT_END,
    AGENT_HEAD,
    CLOCK,
    COUNT,
    EXECUTED,
    FLOW_HEAD,
    FLOW_WAITING,
    MID2,
    OUTSIDE_MID2,
    RECORDS,
    process,
)

# Why a block is refused: no row has so many events, the queue is full, or a field of one of its events is wrong.
FAULTS = ("", "count", "full", "owner", "kind", "anchor", "side", "size", "price", "order_id", "max_rest")
NONE, COUNT_WRONG, FULL, OWNER, KIND, ANCHOR, SIDE, SIZE, PRICE, ORDER_ID, MAX_REST = range(len(FAULTS))
_FAULT_BITS = 4  # a refusal is (market * width + event) << 4 | fault, or -1


def read_refusal(refusal, width):
    """Market, event of the market, and fault of what ``feed`` or ``submit`` returned for blocks of this width."""
    place, fault = refusal >> _FAULT_BITS, refusal & ((1 << _FAULT_BITS) - 1)
    return place // max(1, width), place % max(1, width), fault


@njit(**SERIAL)
def advance(book, ledger, flow_queue, agent_queue, until_count, until_ns, until_volume, starved):
    """Carries out events row by row until an end is reached or the row is starved; see MarketSimulator.advance."""
    for m in range(starved.shape[0]):
        starved[m] = _advance(book, ledger, flow_queue, agent_queue, until_count[m], until_ns[m], until_volume[m], m)


@njit(**PARALLEL)
def advance_parallel(book, ledger, flow_queue, agent_queue, until_count, until_ns, until_volume, starved):
    """As :func:`advance`, over the threads."""
    for m in prange(starved.shape[0]):
        starved[m] = _advance(book, ledger, flow_queue, agent_queue, until_count[m], until_ns[m], until_volume[m], m)


@njit(**INLINE)
def _advance(book, ledger, flow_queue, agent_queue, until_count, until_ns, until_volume, m):
    clocks = ledger.clocks
    while True:
        now = clocks[m, CLOCK]
        head = clocks[m, AGENT_HEAD]
        agent_waits = head < clocks[m, AGENT_END]
        agent_time = agent_queue[m, head]["time_ns"] if agent_waits else np.int64(0)
        from_agent = agent_waits and agent_time <= now
        place = clocks[m, FLOW_HEAD]
        flow_time = now
        if not from_agent:
            if clocks[m, COUNT] >= until_count or clocks[m, EXECUTED] >= until_volume or now > until_ns:
                return False
            if clocks[m, FLOW_WAITING] == 0:
                return True
            flow_time = max(now, flow_queue[m, place]["time_ns"])
            from_agent = agent_waits and agent_time <= flow_time and agent_time <= until_ns
            if not from_agent and flow_time > until_ns:
                clocks[m, CLOCK] = until_ns
                return False
        if from_agent:
            event = agent_queue[m, head]
            clocks[m, AGENT_HEAD] = head + 1
            now = max(now, agent_time)
        else:
            event = flow_queue[m, place]
            clocks[m, FLOW_HEAD] = place + 1 if place + 1 < flow_queue.shape[1] else 0
            clocks[m, FLOW_WAITING] -= 1
            clocks[m, COUNT] += event["kind"] != PRINT
            now = flow_time
        process(book, ledger, m, event, now)


@njit(**SERIAL)
def feed(queue, clocks, events, count):
    """Appends blocks to the rings of background events; the first refusal (see ``read_refusal``), or -1."""
    width = max(1, events.shape[1])
    for m in range(queue.shape[0]):
        if count[m] < 0 or count[m] > events.shape[1]:
            return m * width << _FAULT_BITS | COUNT_WRONG
        if clocks[m, FLOW_WAITING] + count[m] > queue.shape[1]:
            return m * width << _FAULT_BITS | FULL
        for k in range(count[m]):
            event = events[m, k]
            if event["owner"] != BACKGROUND:
                return (m * width + k) << _FAULT_BITS | OWNER
            if event["kind"] > PRINT:
                return (m * width + k) << _FAULT_BITS | KIND
            if event["anchor"] > OPPOSITE:
                return (m * width + k) << _FAULT_BITS | ANCHOR
    for m in range(queue.shape[0]):
        place = clocks[m, FLOW_HEAD] + clocks[m, FLOW_WAITING]
        for k in range(count[m]):
            queue[m, (place + k) % queue.shape[1]] = events[m, k]
        clocks[m, FLOW_WAITING] += count[m]
    return -1


@njit(**SERIAL)
def submit(queue, clocks, seats, agent_ids, events, count):
    """Sorts agents' orders into the queues, stable by time; the first refusal (see ``read_refusal``), or -1."""
    width = max(1, events.shape[1])
    for m in range(queue.shape[0]):
        if count[m] < 0 or count[m] > events.shape[1]:
            return m * width << _FAULT_BITS | COUNT_WRONG
        if clocks[m, AGENT_END] - clocks[m, AGENT_HEAD] + count[m] > queue.shape[1]:
            return m * width << _FAULT_BITS | FULL
        for k in range(count[m]):
            fault = _fault(events[m, k], seats, agent_ids)
            if fault != NONE:
                return (m * width + k) << _FAULT_BITS | fault
    for m in range(queue.shape[0]):
        head, end = clocks[m, AGENT_HEAD], clocks[m, AGENT_END]
        if count[m] > 0 and head > 0:
            for place in range(head, end):
                queue[m, place - head] = queue[m, place]
            end -= head
            clocks[m, AGENT_HEAD] = 0
        for k in range(count[m]):
            place = end
            while place > 0 and queue[m, place - 1]["time_ns"] > events[m, k]["time_ns"]:
                queue[m, place] = queue[m, place - 1]
                place -= 1
            queue[m, place] = events[m, k]
            end += 1
        clocks[m, AGENT_END] = end
    return -1


@njit(**KERNEL)
def _fault(order, seats, agent_ids):
    """The field with which no market would carry out an agent's order, or NONE.

    Fields that an order of its kind does not have are not looked at.
    """
    kind = order["kind"]
    if order["owner"] < 0 or order["owner"] >= seats:
        return OWNER
    if kind > CANCEL:
        return KIND
    if order["anchor"] > OPPOSITE:
        return ANCHOR
    if order["size"] < (0 if kind == CANCEL else 1):
        return SIZE
    if kind != CANCEL and order["side"] != BUY and order["side"] != SELL:
        return SIDE
    if kind == LIMIT:
        if order["anchor"] == ABSOLUTE and (order["price"] < MIN_PRICE or order["price"] > MAX_PRICE):
            return PRICE
        if order["max_rest"] < 0:
            return MAX_REST
    if (kind == LIMIT or kind == CANCEL) and (order["order_id"] < 0 or order["order_id"] >= agent_ids):
        return ORDER_ID
    return NONE


@njit(**SERIAL)
def clear(book, ledger, rows):
    """Empties markets; only what is in use is touched."""
    for i in range(rows.shape[0]):
        _clear(book, ledger, rows[i])


@njit(**KERNEL)
def _clear(book, ledger, m):
    for slot in range(book.row[m, HIGH_WATER]):
        order = book.orders[m, slot]
        if order["size"] > 0:
            if order["owner"] >= 0:
                book.agent_slots[m, order["owner"], order["order_id"]] = 0
            else:
                book.flow_slots[m, order["order_id"] & (book.flow_slots.shape[1] - 1)] = 0
            s = 0 if order["side"] > 0 else 1
            book.levels[m, s, order["price"] & (book.levels.shape[2] - 1)]["depth"] = 0
            order["size"] = 0
    book.bits[m] = 0
    book.row[m] = 0
    book.row[m, FREE] = -1
    book.row[m, BEST] = EMPTY_BID
    book.row[m, BEST + 1] = EMPTY_ASK
    for column in range(FAR_HEAD, FAR_HEAD + 4):
        book.row[m, column] = -1
    for owner in range(ledger.accounts.shape[1]):
        account = ledger.accounts[m, owner]
        account["cash"] = 0
        account["inventory"] = 0
        account["fees"] = 0
        account["volume"] = 0
    ledger.clocks[m] = 0
    ledger.counters[m] = 0


@njit(**SERIAL)
def load(book, ledger, rows, orders, order_ends, records, record_ends, scalars):
    """Start states for ``rows``; their orders and records lie one after another, ``*_ends`` say where each ends."""
    for i in range(rows.shape[0]):
        _load(book, ledger, rows[i], orders, order_ends, records, record_ends, scalars, i)


@njit(**PARALLEL)
def load_parallel(book, ledger, rows, orders, order_ends, records, record_ends, scalars):
    """As :func:`load`, over the threads."""
    for i in prange(rows.shape[0]):
        _load(book, ledger, rows[i], orders, order_ends, records, record_ends, scalars, i)


@njit(**KERNEL)
def _load(book, ledger, m, orders, order_ends, records, record_ends, scalars, i):
    _clear(book, ledger, m)
    for k in range(order_ends[i - 1] if i > 0 else 0, order_ends[i]):
        order = orders[k]
        s = np.int64(0) if order["side"] > 0 else np.int64(1)
        order_id, price, size = np.int64(order["order_id"]), np.int64(order["price"]), np.int64(order["size"])
        rest(book, m, order_id, order["time_ns"], price, size, np.int64(BACKGROUND), s)
        book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], order_id + 1)
    first = record_ends[i - 1] if i > 0 else 0
    for k in range(first, record_ends[i]):
        ledger.records[m, k - first] = records[k]
    ledger.clocks[m, RECORDS] = record_ends[i] - first
    ledger.clocks[m, CLOCK] = scalars[i, 0]
    bid, ask = book.row[m, BEST], book.row[m, BEST + 1]
    mid2 = bid + ask if bid != EMPTY_BID and ask != EMPTY_ASK else scalars[i, 1]
    ledger.clocks[m, MID2] = mid2
    ledger.clocks[m, OUTSIDE_MID2] = mid2
    book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], scalars[i, 2])


@njit(**SERIAL)  # allocates, so it is no row kernel
def check_orders(orders, ends, capacity, flow_ids):
    """Index of the first state whose orders no book could hold, -1 if all are fine."""
    seen = np.full(flow_ids, -1, np.int32)
    first = 0
    for i in range(ends.shape[0]):
        if ends[i] - first > capacity:
            return i
        bid, ask = np.int64(EMPTY_BID), np.int64(EMPTY_ASK)
        for k in range(first, ends[i]):
            order = orders[k]
            price = np.int64(order["price"])
            order_id = order["order_id"]
            if order["size"] <= 0 or price < MIN_PRICE or price > MAX_PRICE or order_id < 0:
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
        first = ends[i]
    return -1
