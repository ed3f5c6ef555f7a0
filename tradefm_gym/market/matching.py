"""What the exchange does with one event: match it, rest it, cancel, print, and write the record of it.

Row kernels. Nothing raises here: every event leaves a record whose status says what became of it.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.market.accounts import settle
from tradefm_gym.market.book import (
    ANY_AGENT,
    BACKGROUND_LIVE,
    BEST,
    EMPTY_ASK,
    EMPTY_BID,
    HIGH_WATER,
    INLINE,
    KERNEL,
    LIVE,
    MAX_PRICE,
    MIN_PRICE,
    NEXT_ID,
    find,
    id_is_free,
    next_free_id,
    reduce,
    rest,
)
from tradefm_gym.market.events import (
    ABSOLUTE,
    BUY,
    CANCEL,
    CANCEL_NEAREST,
    CANCEL_RANDOM,
    CANCEL_WHOLE,
    CANCELLED,
    DROPPED,
    FILLED,
    LIMIT,
    MARKET,
    NOOP,
    OPPOSITE,
    PREVENTED,
    PRINT,
    PRINTED,
    REJECTED,
    RESTED,
    SELL,
)
from tradefm_gym.market.views import best_without, earlier, is_empty, nearest_background

# Columns of ``clocks``: what a market knows besides its book.
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
CLOCK_WIDTH = 16

UNKNOWN = -(2**40)  # a price that could not be resolved

# Columns of ``counters``: events by outcome, so that nothing is refused silently.
COUNTERS = ("noop", "dropped", "dropped_lots", "prevented", "prevented_lots", "rejected", "pool_full")
COUNT_NOOP, COUNT_DROPPED, COUNT_DROPPED_LOTS, COUNT_PREVENTED = 0, 1, 2, 3
COUNT_PREVENTED_LOTS, COUNT_REJECTED, COUNT_POOL_FULL = 4, 5, 6


class Ledger(NamedTuple):
    """All that an event writes besides the book."""

    records: np.ndarray  # (N, R) RECORD ring
    fills: np.ndarray  # (N, R') FILL ring
    accounts: np.ndarray  # (N, A + 1) ACCOUNT
    clocks: np.ndarray  # (N, CLOCK_WIDTH) int64
    counters: np.ndarray  # (N, len(COUNTERS)) int64
    rules: np.ndarray  # (3,) int64: maker fee, taker fee, whether self-trade is prevented


@njit(**INLINE)
def process(book, ledger, m, event, now):
    """Carries out one event that arrives at ``now`` and writes its record."""
    clocks, counters = ledger.clocks, ledger.counters
    kind = np.int64(event["kind"])
    side = np.int64(event["side"])
    size = np.int64(event["size"])
    max_rest = np.int64(event["max_rest"])
    owner = np.int64(event["owner"])
    order_id = np.int64(event["order_id"])
    price = np.int64(event["price"])
    status = np.int64(REJECTED)
    filled = np.int64(0)
    notional = np.int64(0)
    clocks[m, CLOCK] = now
    if kind == CANCEL:
        status, order_id, price, size, side = _cancel(book, ledger, m, event)
    elif kind == PRINT:
        if owner < 0 and size > 0 and MIN_PRICE <= price <= MAX_PRICE:
            status, filled, notional = np.int64(PRINTED), size, price * size
            clocks[m, LAST_PRICE] = price
    elif (kind == LIMIT or kind == MARKET) and size > 0 and (side == BUY or side == SELL):
        s = 0 if side > 0 else 1
        accepted = True
        if kind == MARKET:
            price = _reference(book, ledger, m, 1 - s)
            limit = np.int64(MAX_PRICE) if s == 0 else np.int64(MIN_PRICE)
            max_rest = np.int64(0)
        else:
            price = _resolve(book, ledger, m, s, np.int64(event["anchor"]), price)
            limit = price
            if owner < 0 and order_id < 0:
                order_id = next_free_id(book, m)
            accepted = MIN_PRICE <= price <= MAX_PRICE and id_is_free(book, m, owner, order_id)
            price = min(max(price, np.int64(0)), np.int64(MAX_PRICE))
        if accepted:
            if kind == MARKET and is_empty(book.row[m, BEST + 1 - s]):
                status = np.int64(NOOP)
            else:
                filled, notional, prevented = _match(book, ledger, m, now, s, limit, size, owner, order_id)
                left = size - filled
                status = _settle_rest(book, ledger, m, now, s, price, left, max_rest, owner, order_id, prevented)
            if kind == LIMIT and owner < 0:
                book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], order_id + 1)
    if status == NOOP:
        counters[m, COUNT_NOOP] += 1
    elif status == REJECTED:
        counters[m, COUNT_REJECTED] += 1
    _update_mids(book, clocks, m)

    place = clocks[m, RECORDS] % ledger.records.shape[1]
    clocks[m, RECORDS] += 1
    record = ledger.records[m, place]
    record["time_ns"] = now
    record["order_id"] = order_id
    record["price"] = price
    record["size"] = size
    record["max_rest"] = max_rest
    record["owner"] = owner
    record["kind"] = kind
    record["side"] = side
    record["anchor"] = ABSOLUTE
    record["status"] = status
    record["filled"] = filled
    record["mid2"] = clocks[m, MID2]
    record["notional"] = notional


@njit(**INLINE)
def _match(book, ledger, m, now, s, limit, size, owner, order_id):
    """Executes against the other side while prices allow; returns lots, notional and lots kept from self-trade."""
    row, clocks, rules = book.row, ledger.clocks, ledger.rules
    other = 1 - s
    side = 1 - 2 * s
    remaining = size
    notional = np.int64(0)
    while remaining > 0:
        price = row[m, BEST + other]
        if s == 0:
            if price > limit:  # an empty ask side lies above every limit, an empty bid side below
                break
        elif price < limit:
            break
        slot = np.int64(book.levels[m, other, price & (book.levels.shape[2] - 1)]["head"])
        order = book.orders[m, slot]
        maker = np.int64(order["owner"])
        if maker >= 0 and maker == owner and rules[2] != 0:
            return size - remaining, notional, remaining
        lots = min(remaining, np.int64(order["size"]))
        place = clocks[m, FILLS] % ledger.fills.shape[1]
        clocks[m, FILLS] += 1
        fill = ledger.fills[m, place]
        fill["time_ns"] = now
        fill["maker_id"] = order["order_id"]
        fill["taker_id"] = order_id
        fill["wait_ns"] = now - order["time_ns"]
        fill["price"] = price
        fill["size"] = lots
        fill["maker"] = maker
        fill["taker"] = owner
        fill["taker_side"] = side
        settle(ledger.accounts, m, maker, owner, side, price, lots, rules[0], rules[1])
        clocks[m, EXECUTED] += lots
        clocks[m, LAST_PRICE] = price
        notional += price * lots
        remaining -= lots
        reduce(book, m, slot, lots)
    return size - remaining, notional, np.int64(0)


@njit(**INLINE)
def _settle_rest(book, ledger, m, now, s, price, remaining, max_rest, owner, order_id, prevented):
    """Rests what was not executed, as far as it may; returns the status."""
    counters = ledger.counters
    if remaining == 0:
        return np.int64(FILLED)
    if prevented > 0:
        counters[m, COUNT_PREVENTED] += 1
        counters[m, COUNT_PREVENTED_LOTS] += prevented
        return np.int64(PREVENTED)
    resting = min(remaining, max_rest)
    if resting > 0:
        if rest(book, m, order_id, now, price, resting, owner, s) < 0:
            counters[m, COUNT_POOL_FULL] += 1
            return np.int64(REJECTED)
    if resting < remaining:
        counters[m, COUNT_DROPPED] += 1
        counters[m, COUNT_DROPPED_LOTS] += remaining - max(resting, np.int64(0))
        return np.int64(DROPPED)
    return np.int64(RESTED)


@njit(**KERNEL)
def _cancel(book, ledger, m, event):
    """Removes orders; returns status, id, price, size and side for the record. A no-op keeps what was asked."""
    side = np.int64(event["side"])
    size = np.int64(event["size"])
    owner = np.int64(event["owner"])
    order_id = np.int64(event["order_id"])
    price = np.int64(event["price"])
    if size < 0 or order_id < CANCEL_RANDOM or (order_id < 0 and owner >= 0):
        return np.int64(REJECTED), order_id, price, size, side
    if order_id >= 0:
        slot = find(book, m, owner, order_id)
    elif order_id == CANCEL_RANDOM:
        if price < 0:
            return np.int64(REJECTED), order_id, price, size, side
        slot = _pick(book, m, price)
    else:
        if side != BUY and side != SELL:
            return np.int64(REJECTED), order_id, price, size, side
        s = 0 if side > 0 else 1
        resolved = _resolve(book, ledger, m, s, np.int64(event["anchor"]), price)
        if resolved == UNKNOWN:
            return np.int64(REJECTED), order_id, price, size, side
        price = min(max(resolved, np.int64(0)), np.int64(MAX_PRICE))
        slot = nearest_background(book, m, s, price)
        if slot >= 0 and order_id == CANCEL_NEAREST and size > book.orders[m, slot]["size"]:
            return _cancel_several(book, m, s, slot, price, size, side)
        if slot >= 0 and order_id == CANCEL_WHOLE:
            slot = _nearest_size(book, m, slot, size)
            size = np.int64(0)
    if slot < 0:
        return np.int64(NOOP), order_id, price, size, side
    order = book.orders[m, slot]
    lots = np.int64(order["size"])
    if size > 0:
        lots = min(lots, size)
    order_id, price, side = np.int64(order["order_id"]), np.int64(order["price"]), np.int64(order["side"])
    reduce(book, m, slot, lots)
    return np.int64(CANCELLED), order_id, price, lots, side


@njit(**KERNEL)
def _cancel_several(book, m, s, slot, price, size, side):
    """Nearest level to ``price``, newest first, until ``size`` lots are gone or no background order is left."""
    first_id = np.int64(book.orders[m, slot]["order_id"])
    first_price = np.int64(book.orders[m, slot]["price"])
    removed = np.int64(0)
    orders = 0
    while slot >= 0 and removed < size:
        lots = min(size - removed, np.int64(book.orders[m, slot]["size"]))
        reduce(book, m, slot, lots)
        removed += lots
        orders += 1
        slot = nearest_background(book, m, s, price)
    return np.int64(CANCELLED), first_id if orders == 1 else np.int64(-1), first_price, removed, side


@njit(**KERNEL)
def _nearest_size(book, m, slot, size):
    """Background order of a level whose size is nearest to ``size``, the newest of equals; ``slot`` is the last one."""
    found = slot
    while slot >= 0:
        order = book.orders[m, slot]
        if order["owner"] < 0 and abs(order["size"] - size) < abs(book.orders[m, found]["size"] - size):
            found = slot
        slot = earlier(book, m, slot)
    return found


@njit(**KERNEL)
def _pick(book, m, number):
    """A live background order: slot ``number`` / 2^31 of those ever used, or the next one that is live."""
    used = book.row[m, HIGH_WATER]
    if book.row[m, BACKGROUND_LIVE] == 0:
        return np.int64(-1)
    slot = (number * used) >> 31
    while book.orders[m, slot]["size"] == 0 or book.orders[m, slot]["owner"] >= 0:
        slot += 1
        if slot == used:
            slot = np.int64(0)
    return slot


@njit(**INLINE)
def _reference(book, ledger, m, s):
    """Best price of a side; for an empty one the last mid rounded away from the spread, 0 if none is known.

    An empty side's reference stays a tick beyond the other side's best, which may have moved since.
    """
    price = book.row[m, BEST + s]
    if not is_empty(price):
        return price
    mid2 = ledger.clocks[m, MID2]
    opposite = book.row[m, BEST + 1 - s]
    if mid2 == 0:
        return np.int64(0)
    if s == 0:
        return min(mid2 >> 1, opposite - 1)
    return max((mid2 + 1) >> 1, opposite + 1)


@njit(**INLINE)
def _resolve(book, ledger, m, s, anchor, price):
    """The absolute price of an order on side ``s``, UNKNOWN if there is nothing to hold on to."""
    if anchor == ABSOLUTE:
        return price
    reference = _reference(book, ledger, m, 1 - s if anchor == OPPOSITE else s)
    if reference == 0:
        return np.int64(UNKNOWN)
    inside = (1 - 2 * s) * price  # ticks upwards for a buy
    return reference - inside if anchor == OPPOSITE else reference + inside


@njit(**INLINE)
def _update_mids(book, clocks, m):
    row = book.row
    bid, ask = row[m, BEST], row[m, BEST + 1]
    if row[m, LIVE] == row[m, BACKGROUND_LIVE]:
        if bid != EMPTY_BID and ask != EMPTY_ASK:
            clocks[m, MID2] = bid + ask
            clocks[m, OUTSIDE_MID2] = bid + ask
        return
    if bid != EMPTY_BID and ask != EMPTY_ASK:
        clocks[m, MID2] = bid + ask
    bid = best_without(book, m, 0, ANY_AGENT)
    ask = best_without(book, m, 1, ANY_AGENT)
    if bid != EMPTY_BID and ask != EMPTY_ASK:
        clocks[m, OUTSIDE_MID2] = bid + ask
