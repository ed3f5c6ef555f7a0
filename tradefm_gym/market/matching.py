"""What the exchange does with one event: match it, rest it, change it, cancel, print, and write the record of it.

Row kernels. Nothing raises here: every event leaves a record whose status says what became of it.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.book import ANY_AGENT, EMPTY_ASK, EMPTY_BID, MAX_PRICE, MIN_PRICE, reduce, rest
from tradefm_gym.market.cancels import cancel
from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.events import (
    BUY,
    CANCEL,
    CANCELLED,
    DROPPED,
    FILL_OR_KILL,
    FILLED,
    HALT,
    LIMIT,
    MARKET,
    MODIFY,
    NO_LIMIT,
    NOOP,
    POST_ONLY,
    POST_ONLY_SLIDE,
    PREVENTED,
    PRINT,
    PRINTED,
    REJECTED,
    RESTED,
    SELL,
    SWITCHED,
)
from tradefm_gym.market.features import size_code
from tradefm_gym.market.ids import find, id_is_free, next_free_id
from tradefm_gym.market.layout import (
    BACKGROUND_LIVE,
    BEST,
    CLOCK,
    COUNT_DROPPED,
    COUNT_DROPPED_LOTS,
    COUNT_NOOP,
    COUNT_POOL_FULL,
    COUNT_PREVENTED,
    COUNT_PREVENTED_LOTS,
    COUNT_REJECTED,
    HALTED,
    LAST_PRICE,
    LIVE,
    LOT,
    MID2,
    NEXT_ID,
    OUTSIDE_MID2,
    TICK,
)
from tradefm_gym.market.ledger import (
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    PREVENTS,
    has_room_for,
    is_booked,
    write_fill,
    write_record,
)
from tradefm_gym.market.prices import occupied
from tradefm_gym.market.resolve import is_empty, is_price, is_size, reference, resolve
from tradefm_gym.market.views import best_without, first_at, next_level, touch_of


@njit(**INLINE)
def process(book, ledger, m, event, now):
    """Carries out one EVENT that arrives at ``now``; returns its status."""
    return carry_out(
        book,
        ledger,
        m,
        now,
        np.int64(event["kind"]),
        np.int64(event["side"]),
        np.int64(event["price"]),
        np.int64(event["size"]),
        np.int64(event["order_id"]),
        np.int64(event["owner"]),
        np.int64(event["max_rest"]),
        np.int64(event["anchor"]),
    )


@njit(**INLINE)
def carry_out(book, ledger, m, now, kind, side, price, size, order_id, owner, max_rest, anchor):
    """Carries out one event that arrives at ``now`` and writes its record; returns its status."""
    clocks = ledger.clocks
    status = np.int64(REJECTED)
    filled = np.int64(0)
    notional = np.int64(0)
    clocks[m, CLOCK] = now
    if kind == CANCEL:
        status, order_id, price, size, side = cancel(book, ledger, m, order_id, price, size, owner, side, anchor)
    elif kind == PRINT:
        if owner < 0 and size > 0 and MIN_PRICE <= price <= MAX_PRICE:
            status, filled, notional = np.int64(PRINTED), size, price * size
            clocks[m, LAST_PRICE] = price
    elif kind == MODIFY:
        status, price, side, filled, notional = _modify(
            book, ledger, m, now, price, size, order_id, owner, side, anchor
        )
    elif kind == HALT:
        if owner < 0 and (size == 0 or size == 1):
            status = np.int64(SWITCHED) if clocks[m, HALTED] != size else np.int64(NOOP)
            clocks[m, HALTED] = size
    elif size > 0 and (side == BUY or side == SELL) and is_size(book, size) and clocks[m, HALTED] == 0:
        s = np.int64(0) if side > 0 else np.int64(1)
        accepted = True
        if kind == MARKET:
            price = reference(book, ledger, m, 1 - s)
            limit = np.int64(MAX_PRICE) if s == 0 else np.int64(MIN_PRICE)
            max_rest = np.int64(0)
            if is_empty(book.row[m, BEST + 1 - s]):
                status, accepted = np.int64(NOOP), False
        else:
            price = resolve(book, ledger, m, s, anchor, price)
            unnamed = owner < 0 and order_id < 0
            if unnamed:
                order_id = book.row[m, NEXT_ID]
            free = id_is_free(book, m, owner, order_id)
            if unnamed and not free:
                order_id = next_free_id(book, m)
                free = id_is_free(book, m, owner, order_id)
            accepted = free and is_price(book, price)
            price = min(max(price, np.int64(0)), np.int64(MAX_PRICE))
            if kind != LIMIT and accepted:
                status, price = _conditions(book, ledger, m, kind, s, price, size, owner)
                accepted = status == RESTED
            limit = price
        if accepted:
            filled, notional, prevented = _match(book, ledger, m, now, s, limit, size, owner, order_id)
            status = _settle_rest(
                book, ledger, m, now, s, price, size - filled, max_rest, owner, order_id, prevented
            )  # fmt: skip
            if kind != MARKET and owner < 0:
                book.row[m, NEXT_ID] = max(book.row[m, NEXT_ID], order_id + 1)
    if status == NOOP:
        ledger.counters[m, COUNT_NOOP] += 1
    elif status == REJECTED:
        ledger.counters[m, COUNT_REJECTED] += 1
    touch = _note_touch(book, clocks, m)
    write_record(ledger, m, now, order_id, price, size, max_rest, owner, kind, side, status, filled, notional, touch)
    return status


@njit(**INLINE)
def _match(book, ledger, m, now, s, limit, size, owner, order_id):
    """Executes against the other side while prices allow; returns lots, notional and lots that may not trade."""
    row = book.row
    other, side = 1 - s, 1 - 2 * s
    remaining = size
    notional = np.int64(0)
    while remaining > 0:
        price = row[m, BEST + other]
        if (price - limit) * side > 0:  # an empty ask side lies above every limit, an empty bid side below
            break
        slot = first_at(book, m, other, price)
        order = book.orders[m, slot]
        maker = np.int64(order["owner"])
        if maker >= 0 and maker == owner:
            rule = ledger.rules[0, PREVENTS + owner]
            if rule > CANCEL_NEWEST:
                _withdraw(book, ledger, m, now, slot)
            if rule == CANCEL_OLDEST:
                continue
            if rule > 0:
                return size - remaining, notional, remaining
        lots = min(remaining, np.int64(order["size"]))
        if is_booked(ledger, maker, owner) and not has_room_for(ledger, m, maker, owner, price * lots):
            return size - remaining, notional, remaining
        since, maker_id = order["time_ns"], order["order_id"]
        write_fill(ledger, m, now, maker_id, maker, since, order_id, owner, side, price, lots)
        notional += price * lots
        remaining -= lots
        reduce(book, m, slot, lots)
    return size - remaining, notional, np.int64(0)


@njit(**KERNEL)
def _withdraw(book, ledger, m, now, slot):
    """Cancels a resting order that its owner would trade with; the tape says so."""
    aside()
    order = book.orders[m, slot]
    lots = np.int64(order["size"])
    ledger.counters[m, COUNT_PREVENTED] += 1
    ledger.counters[m, COUNT_PREVENTED_LOTS] += lots
    order_id, price, owner, side = order["order_id"], order["price"], order["owner"], order["side"]
    write_record(ledger, m, now, order_id, price, lots, 0, owner, CANCEL, side, CANCELLED, 0, 0, touch_of(book, m))
    reduce(book, m, slot, lots)


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
    lot = book.limits[0, LOT]
    if lot != 1:
        resting -= resting % lot
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
def _conditions(book, ledger, m, kind, s, price, size, owner):
    """What an order asks of the book before it trades: RESTED to go on and its price, or the status it ends with."""
    aside()
    opposite = book.row[m, BEST + 1 - s]
    crosses = price >= opposite if s == 0 else price <= opposite  # an empty side lies beyond every price
    if kind == FILL_OR_KILL:
        if _executable(book, ledger, m, s, price, size, owner) < size:
            ledger.counters[m, COUNT_DROPPED] += 1
            ledger.counters[m, COUNT_DROPPED_LOTS] += size
            return np.int64(DROPPED), price
    elif kind == POST_ONLY and crosses:
        return np.int64(REJECTED), price
    elif kind == POST_ONLY_SLIDE and crosses:
        tick = book.limits[0, TICK]
        price = opposite - tick if s == 0 else opposite + tick
        if not is_price(book, price):
            return np.int64(REJECTED), price
    return np.int64(RESTED), price


@njit(**KERNEL)
def _executable(book, ledger, m, s, limit, size, owner):
    """Lots that an order would execute, up to ``size``; own orders in its way end that or are passed over."""
    aside()
    other = 1 - s
    rule = ledger.rules[0, PREVENTS + owner]
    lots, notional = np.int64(0), np.int64(0)
    price = book.row[m, BEST + other]
    while lots < size and (price <= limit if s == 0 else price >= limit) and not is_empty(price):
        slot = first_at(book, m, other, price)
        while slot >= 0 and lots < size:
            order = book.orders[m, slot]
            maker = np.int64(order["owner"])
            if owner < 0 or maker != owner or rule == 0:
                part = min(size - lots, np.int64(order["size"]))
                notional += price * part
                if is_booked(ledger, maker, owner) and not has_room_for(ledger, m, maker, owner, notional):
                    return lots
                lots += part
            elif rule != CANCEL_OLDEST:
                return lots
            slot = np.int64(order["next"])
        price = next_level(book, m, other, price)
    return lots


@njit(**KERNEL)
def _modify(book, ledger, m, now, price, size, order_id, owner, side, anchor):
    """New price and size of an order; returns status, price, side, lots executed and notional."""
    aside()
    nothing = np.int64(0)
    slot = find(book, m, owner, order_id) if order_id >= 0 else np.int64(-1)
    if slot < 0:
        return np.int64(NOOP), price, side, nothing, nothing
    order = book.orders[m, slot]
    side, old_price, old_size = np.int64(order["side"]), np.int64(order["price"]), np.int64(order["size"])
    s = (1 - side) >> 1
    resolved = resolve(book, ledger, m, s, anchor, price)
    price = min(max(resolved, np.int64(0)), np.int64(MAX_PRICE))
    if size <= 0 or not is_size(book, size) or not is_price(book, resolved):
        return np.int64(REJECTED), price, side, nothing, nothing
    if price == old_price and size <= old_size:
        if size < old_size:
            reduce(book, m, slot, old_size - size)
        return np.int64(RESTED), price, side, nothing, nothing
    if ledger.clocks[m, HALTED] != 0:
        return np.int64(REJECTED), price, side, nothing, nothing
    reduce(book, m, slot, old_size)
    filled, notional, prevented = _match(book, ledger, m, now, s, price, size, owner, order_id)
    left, all_of_it = size - filled, np.int64(NO_LIMIT)
    status = _settle_rest(book, ledger, m, now, s, price, left, all_of_it, owner, order_id, prevented)
    return status, price, side, filled, notional


@njit(**INLINE)
def _note_touch(book, clocks, m):
    """Keeps both mids up to date; returns what ``touch_of`` does, for which the same levels are looked up."""
    row = book.row
    bid, ask = row[m, BEST], row[m, BEST + 1]
    outside_bid, outside_ask, bid_size, ask_size = bid, ask, np.int64(0), np.int64(0)
    agents = row[m, LIVE] != row[m, BACKGROUND_LIVE]
    if bid != EMPTY_BID:
        level = book.levels[m, occupied(book, m, np.int64(0), bid)]
        bid_size = size_code(level["depth"])
        if agents and book.orders[m, np.int64(level["head"])]["owner"] >= 0:  # mostly the background is first
            outside_bid = best_without(book, m, np.int64(0), ANY_AGENT)
    if ask != EMPTY_ASK:
        level = book.levels[m, occupied(book, m, np.int64(1), ask)]
        ask_size = size_code(level["depth"])
        if agents and book.orders[m, np.int64(level["head"])]["owner"] >= 0:
            outside_ask = best_without(book, m, np.int64(1), ANY_AGENT)
    spread = np.int64(0)
    if bid != EMPTY_BID and ask != EMPTY_ASK:
        clocks[m, MID2], spread = bid + ask, ask - bid
    if outside_bid != EMPTY_BID and outside_ask != EMPTY_ASK:
        clocks[m, OUTSIDE_MID2] = outside_bid + outside_ask
    return spread, bid_size, ask_size
