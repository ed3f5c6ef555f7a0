"""The loops over markets: submit, feed, advance, execute and send; see ``loading`` for how they begin.

Those that work long come twice. A loop over few markets runs in the calling thread, since waking others costs
more than it gains (and, on a machine whose cores are busy, milliseconds); the ``_parallel`` twin calls
the same row kernels from ``prange``, so the results are equal.

They take blocks of memory and not the arrays in them: to hand over sixteen arrays costs more than to carry out a
hundred events. A row kernel opens the blocks.

Bodies of ``prange`` only call row kernels: stores of their own into an array of a named tuple are lost (Numba 0.68).
Numba's disk cache knows a kernel by its own file, so after a change of a file that it calls remove ``__pycache__``.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.market.ahead import ask_for
from tradefm_gym.market.book import (
    MAX_PRICE,
    MIN_PRICE,
    has_room,
    is_ready,
    log_message,
    open_book,
)
from tradefm_gym.market.compiler import INLINE, KERNEL, PARALLEL, SERIAL, apart, fetch
from tradefm_gym.market.delays import goes_first
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    BUY,
    CANCEL,
    HALT,
    LAST_ANCHOR,
    LAST_KIND,
    MARKET,
    MODIFY,
    PRINT,
    REJECTED,
    SELL,
)
from tradefm_gym.market.ids import place_of
from tradefm_gym.market.layout import (
    AGENT_END,
    AGENT_HEAD,
    CLOCK,
    COUNT,
    COUNT_POOL_FULL,
    EXECUTED,
    FLOW_HEAD,
    FLOW_WAITING,
)
from tradefm_gym.market.ledger import open_ledger
from tradefm_gym.market.matching import carry_out, process
from tradefm_gym.market.prices import level_of

# How a row's loop ended.
ENDED = 0
STARVED = 1
OUTSIDE = -2  # a number of a message does not fit its field
_LARGEST, _LARGEST_ID = 2**31 - 1, 2**62
CRAMPED = 2  # the arrays have to be widened before the next event

# Why a block is refused: no row has so many events, a queue or the pool is full, or a field of an event is wrong.
FAULTS = ("", "count", "full", "owner", "kind", "anchor", "side", "size", "price", "order_id", "max_rest")
NONE, COUNT_WRONG, FULL, OWNER, KIND, ANCHOR, SIDE, SIZE, PRICE, ORDER_ID, MAX_REST = range(len(FAULTS))
REFUSED = 8  # added to a fault where it stands beside how a loop ended
_FAULT_BITS = 4  # a refusal is (market * width + event) << 4 | fault, or -1

_DEEP = 2**15  # slots of all books that no longer lie in the nearest caches
_AHEAD = 4  # events between asking for something and touching it


def read_refusal(refusal, width):
    """Market, event of the market, and fault of what ``feed`` or ``submit`` returned for blocks of this width."""
    place, fault = refusal >> _FAULT_BITS, refusal & ((1 << _FAULT_BITS) - 1)
    return place // max(1, width), place % max(1, width), fault


def refusal(place, fault):
    """What ``read_refusal`` reads, of event number ``place`` of a block."""
    return place << _FAULT_BITS | fault


@njit(**SERIAL)
def advance(book_memory, ledger_memory, flow_queue, agent_queue, until_count, until_ns, until_volume, ends):
    """Carries out events row by row until an end is reached or the row is starved; see MarketSimulator.advance."""
    for m in range(ends.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        ends[m] = advance_row(
            book_memory, ledger_memory, flow_queue, agent_queue, until_count[m], until_ns[m], until_volume[m], m
        )


@njit(**PARALLEL)
def advance_parallel(book_memory, ledger_memory, flow_queue, agent_queue, until_count, until_ns, until_volume, ends):
    """As :func:`advance`, over the threads."""
    for m in prange(ends.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        ends[m] = advance_row(
            book_memory, ledger_memory, flow_queue, agent_queue, until_count[m], until_ns[m], until_volume[m], m
        )


@njit(**KERNEL)
def advance_row(book_memory, ledger_memory, flow_queue, agent_queue, until_count, until_ns, until_volume, m):
    """Carries out events of one row until an end is reached or it is starved; how that ended."""
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    return _advance(book, ledger, flow_queue, agent_queue, until_count, until_ns, until_volume, m)


@njit(**KERNEL)
def _advance(book, ledger, flow_queue, agent_queue, until_count, until_ns, until_volume, m):
    apart()
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
                return ENDED
            if clocks[m, FLOW_WAITING] == 0:
                return STARVED
            flow_time = max(now, flow_queue[m, place]["time_ns"])
            from_agent = agent_waits and agent_time <= flow_time and agent_time <= until_ns
            if not from_agent and flow_time > until_ns:
                clocks[m, CLOCK] = until_ns
                return ENDED
        event = agent_queue[m, head] if from_agent else flow_queue[m, place]
        now = max(now, agent_time) if from_agent else flow_time
        if not is_ready(book, m, event, now):
            return CRAMPED
        if from_agent:
            clocks[m, AGENT_HEAD] = head + 1
        else:
            clocks[m, FLOW_HEAD] = place + 1 if place + 1 < flow_queue.shape[1] else 0
            clocks[m, FLOW_WAITING] -= 1
            clocks[m, COUNT] += event["kind"] != PRINT
        process(book, ledger, m, event, now)


@njit(**SERIAL)
def execute(book_memory, ledger_memory, events, count, strict, done, ends):
    """Carries out events where they lie, from ``done`` on; ``ends`` says ENDED, CRAMPED or REFUSED + a fault."""
    for m in range(events.shape[0]):
        _execute_row(book_memory, ledger_memory, events, count, strict, done, ends, m)


@njit(**PARALLEL)
def execute_parallel(book_memory, ledger_memory, events, count, strict, done, ends):
    """As :func:`execute`, over the threads."""
    for m in prange(events.shape[0]):
        _execute_row(book_memory, ledger_memory, events, count, strict, done, ends, m)


@njit(**KERNEL)
def _execute_row(book_memory, ledger_memory, events, count, strict, done, ends, m):
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    done[m], ends[m] = _execute(book, ledger, events, count[m], strict, done[m], m)


@njit(**KERNEL)
def _execute(book, ledger, events, count, strict, done, m):
    apart()
    clocks = ledger.clocks
    refused = ledger.counters[m, COUNT_POOL_FULL]
    deep = book.orders.size >= _DEEP
    for k in range(done, count):
        if deep:
            _look_ahead(book, m, events, k, count)
        event = events[m, k]
        owner = np.int64(event["owner"])
        if owner < BACKGROUND or owner >= ledger.accounts.shape[1] - 1:
            return k, REFUSED + OWNER
        if event["kind"] > LAST_KIND:
            return k, REFUSED + KIND
        if event["anchor"] > LAST_ANCHOR:
            return k, REFUSED + ANCHOR
        now = max(clocks[m, CLOCK], event["time_ns"])
        if not is_ready(book, m, event, now):
            return k, CRAMPED
        clocks[m, COUNT] += owner < 0 and event["kind"] != PRINT
        status = process(book, ledger, m, event, now)
        if status == REJECTED and strict and ledger.counters[m, COUNT_POOL_FULL] != refused:
            return k + 1, REFUSED + FULL
    return count, ENDED


@njit(**INLINE)
def _look_ahead(book, m, events, k, count):
    """Asks for what later events will touch: first the table of ids, then the order, then its neighbours."""
    if k + 3 * _AHEAD < count:
        event = events[m, k + 3 * _AHEAD]
        fetch(book.slots, m, place_of(book, np.int64(event["owner"]), event["order_id"]))
    if k + 2 * _AHEAD < count:
        event = events[m, k + 2 * _AHEAD]
        slot = np.int64(book.slots[m, place_of(book, np.int64(event["owner"]), event["order_id"])]) - 1
        if slot >= 0:
            fetch(book.orders, m, slot)
    if k + _AHEAD < count:
        event = events[m, k + _AHEAD]
        if event["kind"] == CANCEL:
            slot = np.int64(book.slots[m, place_of(book, np.int64(event["owner"]), event["order_id"])]) - 1
            if slot >= 0:
                order = book.orders[m, slot]
                fetch(book.orders, m, max(np.int64(order["prev"]), np.int64(0)))
                fetch(book.orders, m, max(np.int64(order["next"]), np.int64(0)))
        elif abs(event["side"]) == 1 and MIN_PRICE <= event["price"] <= MAX_PRICE:
            at = level_of(book, m, (1 - np.int64(event["side"])) >> 1, np.int64(event["price"]))
            if at >= 0:
                fetch(book.orders, m, np.int64(book.levels[m, at]["tail"]))


@njit(**SERIAL)
def send(book_memory, ledger_memory, m, kind, side, price, size, order_id, owner, time_ns, max_rest, anchor):
    """One message at once; its status, -1 when the arrays have to be widened first, OUTSIDE for what none can have."""
    return _send(book_memory, ledger_memory, m, kind, side, price, size, order_id, owner, time_ns, max_rest, anchor)


@njit(**INLINE)
def _fits(number):
    return -_LARGEST <= number <= _LARGEST  # not by its size: that of -2^63 is negative


@njit(**KERNEL)
def _send(book_memory, ledger_memory, m, kind, side, price, size, order_id, owner, time_ns, max_rest, anchor):
    book, ledger = open_book(book_memory), open_ledger(ledger_memory)
    # What the caller may have got wrong is looked at here: in Python it would take a tenth of the whole call.
    if m < 0 or m >= ledger.accounts.shape[0] or owner < BACKGROUND or owner >= ledger.accounts.shape[1] - 1:
        return np.int64(OUTSIDE)
    if kind < 0 or kind > LAST_KIND or anchor < 0 or anchor > LAST_ANCHOR:
        return np.int64(OUTSIDE)
    if not has_room(book, m):
        return np.int64(-1)
    if not (_fits(price) and _fits(size) and _fits(max_rest)) or order_id > _LARGEST_ID:
        return np.int64(OUTSIDE)
    clocks = ledger.clocks
    now = max(clocks[m, CLOCK], time_ns)
    clocks[m, COUNT] += owner < 0 and kind != PRINT
    if book.log.shape[1] > 0:
        log_message(book, m, now, kind, side, price, size, order_id, owner, max_rest, anchor)
    return carry_out(book, ledger, m, now, kind, side, price, size, order_id, owner, max_rest, anchor)


@njit(**KERNEL)
def _feed_fault(queue, clocks, events, count, m):
    """The place of the first event of a row that no market would queue, with what is wrong; -1 if there is none."""
    width = max(1, events.shape[1])
    if count[m] < 0 or count[m] > events.shape[1]:
        return m * width << _FAULT_BITS | COUNT_WRONG
    if clocks[m, FLOW_WAITING] + count[m] > queue.shape[1]:
        return m * width << _FAULT_BITS | FULL
    for k in range(count[m]):
        event = events[m, k]
        if event["owner"] != BACKGROUND:
            return (m * width + k) << _FAULT_BITS | OWNER
        if event["kind"] > LAST_KIND:
            return (m * width + k) << _FAULT_BITS | KIND
        if event["anchor"] > LAST_ANCHOR:
            return (m * width + k) << _FAULT_BITS | ANCHOR
    return -1


@njit(**KERNEL)
def _feed_row(queue, clocks, events, count, m):
    place = (clocks[m, FLOW_HEAD] + clocks[m, FLOW_WAITING]) % queue.shape[1]
    for k in range(count[m]):
        queue[m, place] = events[m, k]
        place = place + 1 if place + 1 < queue.shape[1] else 0
    clocks[m, FLOW_WAITING] += count[m]


@njit(**SERIAL)
def feed(queue, clocks, events, count):
    """Appends blocks to the rings of background events; the first refusal (see ``read_refusal``), or -1."""
    for m in range(queue.shape[0]):
        fault = _feed_fault(queue, clocks, events, count, m)
        if fault >= 0:
            return fault
    for m in range(queue.shape[0]):
        _feed_row(queue, clocks, events, count, m)
    return -1


@njit(**SERIAL)
def submit(queue, clocks, names, seats, agent_ids, events, count):
    """Sorts agents' orders into the queues by time of arrival; the first refusal (see ``read_refusal``), or -1.

    Of one time the seats have the turns that ``delays.goes_first`` says; orders of one seat stay as they were sent.
    """
    width = max(1, events.shape[1])
    for m in range(queue.shape[0]):
        if count[m] < 0 or count[m] > events.shape[1]:
            return m * width << _FAULT_BITS | COUNT_WRONG
        if clocks[m, AGENT_END] - clocks[m, AGENT_HEAD] + count[m] > queue.shape[1]:
            return m * width << _FAULT_BITS | FULL
        for k in range(count[m]):
            fault = order_fault(events[m, k], seats, agent_ids)
            if fault != NONE:
                return (m * width + k) << _FAULT_BITS | fault
    for m in range(queue.shape[0]):
        _submit_row(queue, clocks, names, events, count[m], m)
    return -1


@njit(**KERNEL)
def submit_row(queue, clocks, names, seats, agent_ids, events, count, m):
    """Sorts the first ``count`` orders of one row into its queue, unless one has a fault; which that is, or NONE."""
    if clocks[m, AGENT_END] - clocks[m, AGENT_HEAD] + count > queue.shape[1]:
        return FULL
    for k in range(count):
        fault = order_fault(events[m, k], seats, agent_ids)
        if fault != NONE:
            return fault
    _submit_row(queue, clocks, names, events, count, m)
    return NONE


@njit(**KERNEL)
def _submit_row(queue, clocks, names, events, count, m):
    if count == 0:
        return
    head, end = clocks[m, AGENT_HEAD], clocks[m, AGENT_END]
    if head > 0:
        for place in range(head, end):
            queue[m, place - head] = queue[m, place]
        end -= head
        clocks[m, AGENT_HEAD] = 0
    for k in range(count):
        place = end
        while place > 0 and _is_later(names, m, queue[m, place - 1], events[m, k]):
            queue[m, place] = queue[m, place - 1]
            place -= 1
        queue[m, place] = events[m, k]
        end += 1
    clocks[m, AGENT_END] = end


@njit(**KERNEL)
def _is_later(names, m, waiting, order):
    """Whether an order in the queue gives way to a new one."""
    if waiting["time_ns"] != order["time_ns"]:
        return waiting["time_ns"] > order["time_ns"]
    owner, other = np.int64(order["owner"]), np.int64(waiting["owner"])
    return owner != other and goes_first(names, m, order["time_ns"], owner, other)


@njit(**KERNEL)
def order_fault(order, seats, agent_ids):
    """The field with which no market would carry out an agent's order, or NONE.

    Fields that an order of its kind does not have are not looked at.
    """
    kind = order["kind"]
    if order["owner"] < 0 or order["owner"] >= seats:
        return OWNER
    if kind == PRINT or kind == HALT or kind > LAST_KIND:
        return KIND
    if order["anchor"] > LAST_ANCHOR:
        return ANCHOR
    if order["size"] < (0 if kind == CANCEL else 1):
        return SIZE
    if kind == MARKET:
        return NONE if order["side"] == BUY or order["side"] == SELL else SIDE
    if order["order_id"] < 0 or order["order_id"] >= agent_ids:
        return ORDER_ID
    if kind == CANCEL:
        return NONE
    if order["anchor"] == ABSOLUTE and (order["price"] < MIN_PRICE or order["price"] > MAX_PRICE):
        return PRICE
    if kind == MODIFY:
        return NONE
    if order["side"] != BUY and order["side"] != SELL:
        return SIDE
    return MAX_REST if order["max_rest"] < 0 else NONE
