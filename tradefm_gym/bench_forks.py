"""How fast markets are copied: snapshots, bytes and back, restoring and forking, with few and with many orders."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from tradefm_gym.bench import Benchmark, Work
from tradefm_gym.bench_book import stream_events
from tradefm_gym.bench_peers import draw_stream
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot

_RESTING = {100: (100, 20_000), 10_000: (10_000, 60_000)}  # live orders: what the stream aims at, its length
_CALLS = 8  # of a run with one market


def fork_benchmarks() -> list[Benchmark]:
    """Markets a second that are copied in each way, whole with their tapes; 1e6 divided by it are microseconds."""
    found = []
    for resting in _RESTING:
        for num_markets in (1, 64):
            for name, copies in _WAYS.items():
                prepare = partial(_copies, copies, resting, num_markets)
                found.append(Benchmark(f"{name}-{resting}-n{num_markets}", "markets/s", 1, prepare))
    return found


@cache
def _market(resting: int, num_markets: int) -> MarketSimulator:
    """Markets in the middle of a stream, their tapes full."""
    live, count = _RESTING[resting]
    events = stream_events(draw_stream(live, count, seed=1))
    market = MarketSimulator(num_markets, MarketConfig(orders=max(4096, 2 * live), flow_ids=2**17))
    for start in range(0, count, 2000):
        rows = np.repeat(events[None, start : start + 2000], num_markets, axis=0)
        market.execute(EventBlock(rows, np.full(num_markets, rows.shape[1], np.int32)))
    return market


def _copies(prepare: Callable[[MarketSimulator], Callable], resting: int, num_markets: int, quick: bool) -> Work:
    market = _market(resting, num_markets)
    calls, copy = _CALLS if num_markets == 1 else 1, prepare(market)

    def run() -> int:
        for _ in range(calls):
            copy()
        return calls * num_markets

    return Work(run)


def _snapshot(market: MarketSimulator) -> Callable:
    return market.snapshot


def _to_bytes(market: MarketSimulator) -> Callable:
    return market.snapshot().to_bytes


def _from_bytes(market: MarketSimulator) -> Callable:
    return partial(Snapshot.from_bytes, market.snapshot().to_bytes())


def _restore(market: MarketSimulator) -> Callable:
    return partial(MarketSimulator.from_snapshot(market.snapshot()).restore, market.snapshot())


def _fork(market: MarketSimulator) -> Callable:
    rows = np.arange(market.num_markets)
    return partial(market.fork, rows, rows, MarketSimulator.from_snapshot(market.snapshot()))


_WAYS = {
    "snapshot": _snapshot,
    "snapshot-to-bytes": _to_bytes,
    "snapshot-from-bytes": _from_bytes,
    "restore": _restore,
    "fork": _fork,
}
