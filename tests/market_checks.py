"""Comparing a row of the kernels with the reference book, and random events for both."""

import os

import numpy as np
from numba import njit

from tradefm_gym.market import book as books
from tradefm_gym.market import ids, layout
from tradefm_gym.market.events import (
    BACKGROUND,
    CANCEL,
    EVENT,
    FILL,
    FILL_OR_KILL,
    HALT,
    LIMIT,
    MARKET,
    MODIFY,
    NO_LIMIT,
    POST_ONLY,
    POST_ONLY_SLIDE,
    PRINT,
    RECORD,
)
from tradefm_gym.market.layout import COUNTERS

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")


@njit
def find(book, m, owner, order_id):
    return ids.find(book, m, owner, order_id)


def kernel_queues(simulator, m, s):
    """Side ``s`` of row m as the reference shows it, read from the raw arrays with every invariant checked."""
    book = simulator.book
    row, orders, levels = book.row[m], book.orders[m], book.levels[m]
    pages, _ = _pages(book, m, s, s, 18, 0)
    queues = {}
    for number, page in pages.items():
        word = int(book.page_bits[m, page])
        assert word or number == row[layout.IDLE + s] - 1, "an empty page is given back"
        for digit in range(64):
            level = levels[64 * page + digit]
            assert (word >> digit & 1) == (level["depth"] > 0)
            if level["depth"] > 0:
                price = 64 * number + digit
                queues[price] = _walk(orders, int(level["head"]), int(level["tail"]), price)
                assert sum(entry[2] for entry in queues[price]) == level["depth"]
    best = (max if s == 0 else min)(queues, default=books.EMPTY_BID if s == 0 else books.EMPTY_ASK)
    assert row[layout.BEST + s] == best
    near = book.near[m].reshape(2, -1, 2)[s]
    for place, (number, page) in enumerate(near.tolist()):
        assert number == 0 or ((number - 1) % len(near) == place and pages[number - 1] == page)
    return sorted(queues.items(), reverse=s == 0)


def check_room(book, m):
    """Pages and nodes in use are those that the trees hold."""
    both = [_pages(book, m, s, s, 18, 0) for s in (0, 1)]
    pages = [page for found, _ in both for page in found.values()]
    nodes = [node for _, found in both for node in found]
    for used, high, live in (
        (pages, layout.HIGH_PAGE, layout.LIVE_PAGES),
        (nodes, layout.HIGH_NODE, layout.LIVE_NODES),
    ):
        assert len(set(used)) == len(used) == book.row[m, live]
        assert not used or max(used) < book.row[m, high]
    idle = np.setdiff1d(np.arange(book.page_bits.shape[1]), pages)
    assert not book.page_bits[m, idle].any()
    assert not book.levels[m].reshape(-1, 64)[idle]["depth"].any()
    assert not book.node_bits[m, np.setdiff1d(np.arange(book.node_bits.shape[1]), nodes)].any()


def _pages(book, m, s, node, shift, number):
    """Pages below a node by their number, and the nodes from it on."""
    pages, nodes = {}, [node]
    for digit in range(64):
        if int(book.node_bits[m, node]) >> digit & 1:
            child, below = int(book.children[m, 64 * node + digit]), number << 6 | digit
            if shift == 0:
                pages[below] = child
            else:
                assert book.node_bits[m, child], "an empty node is given back"
                found, more = _pages(book, m, s, child, shift - 6, below)
                pages |= found
                nodes += more
    return pages, nodes


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
    check_room(book, m)
    in_tables = np.count_nonzero(book.slots[m]) + np.count_nonzero(book.spilled[m])
    assert in_tables == len(reference.live) == book.row[m, layout.LIVE]
    assert book.row[m, layout.BACKGROUND_LIVE] == sum(owner < 0 for owner, _ in reference.live)
    for (owner, order_id), order in reference.live.items():
        assert find(book, m, owner, order_id) == order.slot
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
        ("halted", reference.halted),
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
    shares = (0.43, 0.06, 0.2, 0.07, 0.04, 0.058, 0.02, 0.05, 0.03, 0.02, 0.02, 0.002)
    kinds = (
        LIMIT, MARKET, CANCEL, CANCEL, CANCEL, CANCEL, PRINT, MODIFY, FILL_OR_KILL, POST_ONLY, POST_ONLY_SLIDE, HALT
    )  # fmt: skip
    what = rng.choice(len(kinds), count, p=shares)
    events["kind"] = np.array(kinds)[what]
    events["side"] = rng.choice((1, -1), count)
    events["size"] = np.minimum(rng.geometric(0.15, count), 60)
    events["size"][(events["kind"] == CANCEL) & (rng.random(count) < 0.5)] = 0
    # Buys below and sells above the center, overlapping by a few ticks.
    away = rng.geometric(0.08, count) - 4
    events["price"] = center - events["side"] * away
    events["size"][events["kind"] == HALT] = rng.random(np.count_nonzero(events["kind"] == HALT)) < 0.1
    events["anchor"] = rng.choice(4, count, p=(0.7, 0.12, 0.12, 0.06))
    anchored = (events["anchor"] > 0) & (events["kind"] != PRINT)
    events["price"] = np.where(anchored, rng.integers(-6, 7, count), events["price"])
    far = ~anchored & (rng.random(count) < wild)
    events["price"] = np.where(far, rng.integers(1, 2 * center, count), events["price"])
    events["max_rest"] = np.where(rng.random(count) < 0.1, rng.integers(0, 10, count), NO_LIMIT)
    events["order_id"] = np.where(
        (events["kind"] == CANCEL) | (events["kind"] == MODIFY),
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
