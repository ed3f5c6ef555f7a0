"""Markets under random streams of all kinds of orders, to be copied at any time and compared afterwards."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
from market_checks import check_room, kernel_queues, random_events

from tradefm_gym.market import snapshot_kernels
from tradefm_gym.market.events import BACKGROUND, EVENT, ORDER, RECORD, EventBlock
from tradefm_gym.market.latency import Lognormal, Quantiles, Samples
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot

# Rings so short that they wrap, and books that begin narrower than they become.
CONFIG = MarketConfig(
    levels=64, orders=150, seats=3, flow_ids=512, agent_ids=16, tape=96, fills=48, flow_queue=48, agent_queue=8,
    self_trade=("cancel_newest", "cancel_oldest", "cancel_both"), maker_fee=-2, taker_fee=5,
)  # fmt: skip
# The same with orders and data that take longer than a step: each kind of latency in both directions.
LATE = replace(
    CONFIG, maker_rate=-30, taker_rate=70, order_latency=(30, Lognormal(25, 0.8), Samples((5, 60, 20))),
    data_latency=(Quantiles((2, 10, 90)), 0, 40),
)  # fmt: skip
LATER = replace(
    CONFIG, order_latency=(None, Quantiles((3, 9, 70)), Lognormal(40, 0.7, floor_ns=20)),
    data_latency=(Lognormal(30, 1.0), Samples((50, 1, 20)), None),
)  # fmt: skip
_VARIANTS, _FLOW, _AGENTS = 6, 24, 9


@lru_cache(512)
def _events(step, variant):
    """Background's and agents' events of a step of one of the streams."""
    rng = np.random.default_rng([step, variant])
    start_ns = 25 * step
    flow = random_events(rng, _FLOW, start_ns=start_ns, next_id=_FLOW * step)
    agents = random_events(rng, _AGENTS, 0, ids=16, start_ns=start_ns)
    agents["owner"] = rng.integers(0, 3, _AGENTS)
    agents["time_ns"] += rng.integers(0, 60, _AGENTS)  # some arrive only steps later
    takeable = [snapshot_kernels.first_wrong(agents[k : k + 1], 3, 16) < 0 for k in range(_AGENTS)]
    return flow, agents[np.array(takeable)]


class Herd:
    """A market and the stream that each of its rows follows."""

    def __init__(self, num_markets, first_stream=0, config=CONFIG):
        self.market = MarketSimulator(num_markets, config)
        self.streams = first_stream + np.arange(num_markets)
        self.market.seed(self.streams, 2)
        self.steps = 0

    def crowd(self):
        """Gives every row more resting orders than a new market has room for."""
        orders = np.zeros(135, ORDER)
        orders["order_id"], orders["owner"], orders["size"] = np.arange(135), BACKGROUND, 40
        orders["side"] = 1 - 2 * (np.arange(135) % 2)
        orders["price"] = 10_000 - orders["side"] * (30 + np.arange(135) // 3)
        for m in range(self.market.num_markets):
            self.market.load(m, orders, np.zeros(0, RECORD), 0)

    def step(self):
        """Feeds and submits, and advances by some events, so that some wait on and some rows are starved."""
        market, step = self.market, self.steps
        rows = [_events(step, int(stream) * (step + 7) % _VARIANTS) for stream in self.streams]
        flow, agents = EventBlock.empty(len(rows), _FLOW), EventBlock.empty(len(rows), _AGENTS)
        waiting = market.waiting()
        room = CONFIG.flow_queue - waiting[0], 3 * CONFIG.agent_queue - waiting[1]
        for m, pair in enumerate(rows):
            for block, events, free in zip((flow, agents), pair, room, strict=True):
                block.count[m] = min(len(events), free[m])
                block.events[m, : block.count[m]] = events[: block.count[m]]
        market.feed(flow)
        market.submit(agents)
        market.advance(until_count=market.background_count + (self.streams * 5 + step) % 40)
        self.steps += 1

    def seen(self, m):
        """All that can be seen of row m."""
        market = self.market
        ids = np.tile(np.arange(16), (market.num_markets, 1))
        seats = range(3)
        sent = [under_way for seat in seats for under_way in (market.in_flight(seat), market.unseen(seat))]
        views = [view for view in map(market.view, seats) if view.clock_ns is not market.clock_ns]
        return (
            [block.events[m, : block.count[m]].tolist() for block in sent],
            *(
                _seen(one, m, ids)
                for one in [market, *(view for view in views if view.clock_ns is not market.clock_ns)]
            ),
        )


def _seen(market, m, ids):
    book = [kernel_queues(market, m, s) for s in (0, 1)]  # checks the raw arrays as well
    check_room(market.book, m)
    one_row = (market.clock_ns, market.background_count, market.mid2, market.outside_mid2, market.last_price,
               market.executed, market.halted, market.next_flow_id, *market.waiting())  # fmt: skip
    return (
        book, market.tape.read_records(m).tolist(), market.tape.read_fills(m).tolist(),
        market.accounts[m].tolist(), market.counters[m].tolist(), [int(column[m]) for column in one_row],
        [[array[m].tolist() for array in market.orders_of(seat, ids)] for seat in range(3)],
    )  # fmt: skip


def run(num_markets, steps, first_stream=0, config=CONFIG):
    """A herd after some steps."""
    herd = Herd(num_markets, first_stream, config)
    for _ in range(steps):
        herd.step()
    return herd


def go_on(path, streams, done, steps):
    """Digest of a saved snapshot after more steps of its streams."""
    herd = Herd(len(streams))
    herd.market, herd.streams, herd.steps = MarketSimulator.from_snapshot(Snapshot.load(path)), np.array(streams), done
    for _ in range(steps):
        herd.step()
    return herd.market.snapshot().digest


def dirty_events(count):
    """(count,) EVENT of zeros but for what lies between their fields, and for the owner."""
    events = np.full(count * EVENT.itemsize, 255, np.uint8).view(EVENT)
    for name in EVENT.names:
        events[name] = 0
    events["owner"] = BACKGROUND
    return events
