"""How fast one book is, beside the books of ``bench_peers``, and how fast a recorded day is checked in it.

All of it is work of one thread, timed by the processor time that it takes.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numba import njit

from tradefm_gym.bench import Benchmark, Work
from tradefm_gym.bench_peers import IDS, LIVE, Stream, bare_work, bourse_work, checked, order_stream, sorted_work
from tradefm_gym.market.events import BACKGROUND, CANCEL, EVENT, LIMIT, NO_LIMIT, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

ONE_BOOK, ONE_CALL = 20e6, 1.2e6  # messages/s
DAY = Path("../shared/data/sse_600519_20230207")  # a recorded day, where there is one
_BOOKS, _TURN = 64, 256  # books in turn, messages a turn


def book_benchmarks() -> list[Benchmark]:
    """One book on both streams, 64 of them, one call a message, peers, the cost of depth, and a recorded day."""
    one_thread = partial(Benchmark, unit="messages/s", threads=1, clock=time.process_time)
    found = []
    for name in LIVE:
        one_book, bare, of_python = (partial(work, name) for work in (_one_book, bare_work, sorted_work))
        found += [
            one_thread(f"book-{name}", prepare=one_book, target=ONE_BOOK, beside=bare),
            one_thread(
                f"book-{name}-64", prepare=partial(_many_books, name), target=0.9, is_share=True, beside=one_book
            ),
            one_thread(f"book-{name}-calls", prepare=partial(_calls, name), target=ONE_CALL, beside=of_python),
            one_thread(f"peer-sortedcontainers-{name}", prepare=of_python),
            one_thread(f"peer-bourse-{name}", prepare=partial(bourse_work, name)),
        ]
    shallowest = partial(_resting, 1)
    for resting in (1, 100, 10_000, 100_000):
        target = 1 / 3 if resting == 100_000 else None
        prepare = partial(_resting, resting)
        found.append(
            one_thread(f"book-resting-{resting}", prepare=prepare, target=target, is_share=True, beside=shallowest)
        )
    return [*found, Benchmark("day-checked", "days/s", 1, _checked_day, 1.0, clock=time.process_time)]


# --- Ours --------------------------------------------------------------------------------------------------


def stream_events(stream: Stream) -> np.ndarray:
    """The messages as (n,) EVENT of the background."""
    events = np.zeros(len(stream["kind"]), EVENT)
    events["kind"] = np.where(stream["kind"] == 1, LIMIT, CANCEL)
    events["side"] = 1 - 2 * stream["side"].astype(np.int8)
    for field in ("price", "size", "order_id"):
        events[field] = stream[field]
    events["owner"], events["max_rest"] = BACKGROUND, NO_LIMIT
    return events


def final_state(market: MarketSimulator, row: int = 0) -> list[int]:
    """``final`` of a row."""
    bid, ask = market.touch()
    live = np.count_nonzero(market.book.orders["size"][row])
    counts = market.tape.fill_count[row], market.executed[row], live, market.counters[row, 0]
    return [int(value) for value in (bid[row], ask[row], *counts)]


def _one_book(name: str, quick: bool) -> Work:
    """One market with owners, fills and tape, its messages in an array."""
    events = stream_events(order_stream(name))
    block = EventBlock(events[None], np.array([len(events)], np.int32))
    market = MarketSimulator(1, MarketConfig(flow_ids=IDS))

    def run() -> int:
        market.execute(block, strict=True)
        return checked(name, final_state(market))

    return Work(run, market.reset)


def _many_books(name: str, quick: bool) -> Work:
    """64 markets in turn, 256 messages each."""
    events = stream_events(order_stream(name))[: 50_000 if quick else 200_000]
    market = MarketSimulator(_BOOKS, MarketConfig(flow_ids=IDS))
    blocks = []
    for start in range(0, len(events), _TURN):
        turn = np.repeat(events[None, start : start + _TURN], _BOOKS, axis=0)
        blocks.append(EventBlock(turn, np.full(_BOOKS, turn.shape[1], np.int32)))

    def run() -> int:
        for block in blocks:
            market.execute(block)
        return _BOOKS * len(events)

    return Work(run, market.reset)


def _calls(name: str, quick: bool) -> Work:
    """One call of ``send`` a message."""
    events = stream_events(order_stream(name))[: 100_000 if quick else 400_000]
    rows = list(zip(*(events[field].tolist() for field in ("kind", "side", "price", "size", "order_id")), strict=True))
    market = MarketSimulator(1, MarketConfig(flow_ids=IDS))

    def run() -> int:
        send = market.send
        for row in rows:
            send(*row)
        return len(rows)

    return Work(run, market.reset)


def _resting(resting: int, quick: bool) -> Work:
    """Adds, and cancels of random orders, with ``resting`` orders a side; each tenth pair trades at the touch."""
    count = 100_000 if quick else 400_000
    events = np.zeros(2 * resting + count, EVENT)
    events["owner"], events["max_rest"], events["size"] = BACKGROUND, NO_LIMIT, 5
    _draw_resting(events, resting, np.random.default_rng(resting).random((len(events), 3)))
    before, after = events[None, : 2 * resting].copy(), events[None, 2 * resting :].copy()
    market = MarketSimulator(1, MarketConfig(orders=2 * resting + 8, flow_ids=IDS))

    def rewind() -> None:
        market.reset()
        market.execute(EventBlock(before, np.array([before.shape[1]], np.int32)), strict=True)

    def run() -> int:
        market.execute(EventBlock(after, np.array([count], np.int32)), strict=True)
        return count

    return Work(run, rewind)


@njit(nogil=True)
def _draw_resting(events, resting, uniforms):
    live = np.zeros((2, resting + 1), np.int64)
    levels, middle, k = max(1, resting // 10), 2**19, 0
    while k < len(events):
        building = k < 2 * resting
        s = k % 2 if building else int(uniforms[k, 0] * 2)
        side, order, drawn = 1 - 2 * s, events[k], int(uniforms[k, 1] * levels)
        order["side"], order["order_id"] = side, k
        if building or uniforms[k, 2] < 0.9:
            order["price"] = middle - side * (1 + drawn)
            live[s, k // 2 if building else resting] = k
            if not building and k + 1 < len(events):
                gone = int(uniforms[k + 1, 1] * (resting + 1))
                order = events[k + 1]
                order["kind"], order["side"], order["size"], order["order_id"] = CANCEL, side, 0, live[s, gone]
                live[s, gone] = live[s, resting]
                k += 1
        else:  # an order in the spread, and one that takes it
            order["price"] = middle
            if k + 1 < len(events):
                order = events[k + 1]
                order["side"], order["price"], order["order_id"] = -side, middle, k + 1
                k += 1
        k += 1


def _checked_day(quick: bool) -> Work:
    """A recorded day, loaded before, executed by its ids and compared with the venue's snapshots."""
    from tradefm_gym.data.feed import open_feed
    from tradefm_gym.realism.recorded_day import check_day

    feed = open_feed(DAY)
    rows, snapshots = list(feed.rows(feed.skips)), feed.snapshots and feed.snapshots()
    loaded = replace(feed, rows=lambda skips: iter(rows), snapshots=snapshots and (lambda: snapshots))

    def run() -> int:
        day = check_day(loaded)
        if day.unexplained_count:
            raise ValueError(f"{DAY} has {day.unexplained_count} unexplained differences")
        return 1

    return Work(run)
