"""Comparing a row of the kernels with the reference book, and random events for both."""

import numpy as np

from tradefm_gym.market import book as books
from tradefm_gym.market.events import (
    BACKGROUND,
    CANCEL,
    EVENT,
    FILL,
    LIMIT,
    MARKET,
    NO_LIMIT,
    PRINT,
    RECORD,
)
from tradefm_gym.market.matching import COUNTERS


def kernel_queues(simulator, m, s):
    """Side ``s`` of row m as the reference shows it, read from the raw arrays with every invariant checked."""
    book = simulator.book
    row, orders, levels, bits = book.row[m], book.orders[m], book.levels[m, s], book.bits[m, s]
    span = len(levels)
    base = int(row[books.BASE + s])
    queues = {}
    occupied = [position for position in range(span) if int(bits[position // 64]) >> (position % 64) & 1]
    assert occupied == np.flatnonzero(levels["depth"] > 0).tolist()
    assert [w for w in range(span // 64) if bits[w]] == [w for w in range(span // 64) if int(bits[-1]) >> w & 1]
    for position in occupied:
        price = base + (position - base) % span
        queues[price] = _walk(orders, int(levels[position]["head"]), int(levels[position]["tail"]), price)
        assert sum(entry[2] for entry in queues[price]) == levels[position]["depth"]
    far = _walk(orders, int(row[books.FAR_HEAD + s]), int(row[books.FAR_TAIL + s]), None)
    assert len(far) == row[books.FAR_COUNT + s]
    for entry in far:
        price = int(orders[entry[4]]["price"])
        assert price < base if s == 0 else price >= base + span, "far orders are worse than the window"
        queues.setdefault(price, []).append(entry)
    best = (max if s == 0 else min)(queues, default=books.EMPTY_BID if s == 0 else books.EMPTY_ASK)
    assert row[books.BEST + s] == best
    assert not queues or base <= best < base + span
    return sorted(queues.items(), reverse=s == 0)


def _walk(orders, slot, tail, price):
    found = []
    earlier = -1
    while slot >= 0:
        order = orders[slot]
        assert order["prev"] == earlier and order["size"] > 0
        assert price is None or order["price"] == price
        found.append((int(order["order_id"]), int(order["owner"]), int(order["size"]), int(order["time_ns"]), slot))
        earlier, slot = slot, int(order["next"])
    assert not found or earlier == tail
    return found


def assert_same_book(simulator, m, reference):
    """Queues, ids, accounts and clocks of row m; conservation of shares and cash."""
    for s, side in ((0, 1), (1, -1)):
        assert kernel_queues(simulator, m, s) == reference.queues(side)
    book = simulator.book
    flow = {order_id: order.slot + 1 for (owner, order_id), order in reference.live.items() if owner < 0}
    slots = book.flow_slots[m]
    assert {order_id: slots[order_id % len(slots)] for order_id in flow} == flow
    assert np.count_nonzero(slots) == len(flow) == book.row[m, books.BACKGROUND_LIVE]
    assert np.count_nonzero(book.agent_slots[m]) == len(reference.live) - len(flow)
    for (owner, order_id), order in reference.live.items():
        if owner >= 0:
            assert book.agent_slots[m, owner, order_id] == order.slot + 1
    assert book.row[m, books.LIVE] == len(reference.live)
    accounts = simulator.accounts[m]
    assert accounts.tolist() == [tuple(account) for account in reference.accounts]
    assert accounts["cash"].sum() == 0 and accounts["inventory"].sum() == 0
    for name, value in (
        ("clock_ns", reference.clock),
        ("background_count", reference.count),
        ("mid2", reference.mid2),
        ("outside_mid2", reference.outside_mid2),
        ("last_price", reference.last_price),
        ("executed", reference.executed),
        ("next_flow_id", reference.next_id),
    ):
        assert getattr(simulator, name)[m] == value, name
    counters = dict(zip(COUNTERS, simulator.counters[m].tolist(), strict=True))
    assert counters["dropped_lots"] == reference.dropped_lots
    assert counters["prevented_lots"] == reference.prevented_lots
    assert counters["pool_full"] == reference.pool_full


def assert_same_tape(simulator, m, reference, seen=(0, 0)):
    """Records and fills from numbers ``seen`` on; returns the counts."""
    records = simulator.tape.read_records(m, seen[0])
    fills = simulator.tape.read_fills(m, seen[1])
    np.testing.assert_array_equal(records, np.array(reference.records[seen[0] :], RECORD))
    np.testing.assert_array_equal(fills, np.array(reference.fills[seen[1] :], FILL))
    return len(reference.records), len(reference.fills)


def takeable(events, config):
    """(n,) bool: agents' orders that ``submit`` queues. The others it refuses, whatever the book."""
    kind, size, order_id = events["kind"], events["size"], events["order_id"]
    limit, cancel = kind == LIMIT, kind == CANCEL
    good = (events["owner"] >= 0) & (events["owner"] < config.seats) & (kind <= CANCEL) & (events["anchor"] <= 2)
    good &= size >= np.where(cancel, 0, 1)
    good &= cancel | (np.abs(events["side"]) == 1)
    good &= ~limit | (events["anchor"] > 0) | ((events["price"] >= 1) & (events["price"] < 2**30))
    good &= ~limit | (events["max_rest"] >= 0)
    return good & ((kind == MARKET) | ((order_id >= 0) & (order_id < config.agent_ids)))


def random_events(rng, count, owner=BACKGROUND, center=10_000, start_ns=0, ids=200, next_id=0, wild=0.03):
    """(count,) EVENT: everything a flow or an agent may send, and a little that it may not.

    Prices lie around ``center``, ids below ``next_id`` and within ``ids`` of it, so that many are live.
    """
    events = np.zeros(count, EVENT)
    events["time_ns"] = start_ns + np.cumsum(rng.integers(0, 3, count))
    events["owner"] = owner
    background = owner == BACKGROUND
    what = rng.choice(7, count, p=(0.55, 0.06, 0.2, 0.07, 0.04, 0.06, 0.02))
    events["kind"] = np.array((LIMIT, MARKET, CANCEL, CANCEL, CANCEL, CANCEL, PRINT))[what]
    events["side"] = rng.choice((1, -1), count)
    events["size"] = np.minimum(rng.geometric(0.15, count), 60)
    events["size"][(events["kind"] == CANCEL) & (rng.random(count) < 0.5)] = 0
    # Buys below and sells above the center, overlapping by a few ticks.
    away = rng.geometric(0.08, count) - 4
    events["price"] = center - events["side"] * away
    events["anchor"] = rng.choice(3, count, p=(0.7, 0.15, 0.15))
    anchored = (events["anchor"] > 0) & (events["kind"] != PRINT)
    events["price"] = np.where(anchored, rng.integers(-6, 7, count), events["price"])
    far = ~anchored & (rng.random(count) < wild)
    events["price"] = np.where(far, rng.integers(1, 2 * center, count), events["price"])
    events["max_rest"] = np.where(rng.random(count) < 0.1, rng.integers(0, 10, count), NO_LIMIT)
    events["order_id"] = np.where(
        events["kind"] == CANCEL,
        next_id + rng.integers(-ids, count, count),
        next_id + np.arange(count) if background else rng.integers(0, ids, count),
    )
    events["order_id"] = np.maximum(events["order_id"], 0)
    if not background:
        events["order_id"] %= ids
    random = events["kind"] == CANCEL
    for code, choice in ((-1, 3), (-2, 4), (-3, 5)):
        chosen = random & (what == choice) & (background | (rng.random(count) < 0.02))
        events["order_id"][chosen] = code
        if code == -3:
            events["price"][chosen] = rng.integers(0, 2**31, count, dtype=np.int64)[chosen]
    if background:
        events["order_id"][(events["kind"] == LIMIT) & (rng.random(count) < 0.1)] = -1  # the market names it
    odd = rng.random(count)
    events["size"][odd < 0.004] = rng.integers(-3, 1, count)[odd < 0.004]
    events["side"][(odd > 0.004) & (odd < 0.006)] = 0
    extreme = (odd > 0.006) & (odd < 0.01)
    events["price"][extreme] = rng.choice((-5, 0, 1, 2**30 - 1, 2**30, 2**31 - 1), count)[extreme]
    return events
