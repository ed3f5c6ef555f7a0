"""The market as a seat with late data sees it: the true market's past, in every reading."""

import copy

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_checks import JIT, random_events, takeable
from order_pair import agreed
from slow_latency import LATENCIES, Channel

from tradefm_gym import rng
from tradefm_gym.market.events import BACKGROUND, BUY, LIMIT, NO_LIMIT, ORDER, PRINT, RECORD, SELL, EventBlock
from tradefm_gym.market.latency import MAX_NS, Lognormal, Quantiles
from tradefm_gym.market.layout import LOG_END
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, MarketState, Snapshot

LARGE = {
    "levels": 64, "orders": 60, "seats": 2, "flow_ids": 64, "agent_ids": 16, "maker_fee": -2, "taker_rate": 70,
    "flow_queue": 4096, "agent_queue": 1024, "tape": 4096, "fills": 4096, "self_trade": ("cancel_both", "off"),
}  # fmt: skip
IDS = np.arange(-1, 17)


def block(rows):
    result = EventBlock.empty(len(rows), max(1, max(map(len, rows))))
    for m, row in enumerate(rows):
        result.events[m, : len(row)], result.count[m] = row, len(row)
    return result


def stream(seed, rows, turns=1, width=60, start_ns=0):
    """For each turn the blocks for feed and submit; what row m gets depends on (seed, m) only."""
    generators, found = [np.random.default_rng([seed, m]) for m in rows], []
    for turn in range(turns):
        start = start_ns + turn * width
        flow = [random_events(g, width, start_ns=start, next_id=turn * width, center=1_000) for g in generators]
        agents = [random_events(g, width // 3, 0, ids=16, start_ns=start + 1, center=1_000) for g in generators]
        for events in agents:
            events["owner"] = np.arange(len(events)) % 2
        found.append((block(flow), block([events[takeable(events, MarketConfig(**LARGE))] for events in agents])))
    return found


def readings(market, m):
    """All that can be read of row m."""
    prices, sizes = market.depth(6)
    outside = market.depth(6, excluding=0)
    ids = np.tile(IDS, (market.num_markets, 1))
    orders = [[array[m].tolist() for array in market.orders_of(owner, ids)] for owner in (BACKGROUND, 0, 1)]
    touches = [market.touch(), *(market.touch_excluding(owner) for owner in (0, 1, None))]
    scalars = ("background_count", "mid2", "outside_mid2", "last_price", "executed", "halted", "next_flow_id")
    return {
        "records": market.tape.read_records(m).tolist(),
        "fills": market.tape.read_fills(m).tolist(),
        "touches": [(int(bid[m]), int(ask[m])) for bid, ask in touches],
        "depth": [array[m].tolist() for array in (prices, sizes, *outside)],
        "orders": orders,
        "accounts": market.accounts[m].tolist(),
        "counters": market.counters[m].tolist(),
        "mids": [int(market.mid2_excluding(owner)[m]) for owner in (0, 1, None)],
        **{name: int(getattr(market, name)[m]) for name in scalars},
    }


@agreed
@given(st.integers(0, 10**6), st.sampled_from((1, 3, 64)), st.integers(1, 70), st.lists(st.integers(0, 30), max_size=8))
def test_a_view_is_the_market_that_was_advanced_to_that_much_earlier(seed, num_markets, delay, steps):
    rows = range(num_markets)
    late = MarketSimulator(num_markets, MarketConfig(**LARGE, data_latency=[None, delay]))
    twin = MarketSimulator(num_markets, MarketConfig(**LARGE))
    for market in (late, twin):
        for flow, agents in stream(seed, rows, 2):
            market.feed(flow)
            market.submit(agents)
    now = 0
    for step in steps:
        now += step
        late.advance(until_ns=np.full(num_markets, now))
        twin.advance(until_ns=np.full(num_markets, now - delay))
        view = late.view(1)
        assert late.view(0).clock_ns is late.clock_ns
        for m in {0, num_markets // 2, num_markets - 1}:
            if not late.waiting()[0][m]:
                continue  # it stands at its last event, and the twin may be further
            assert readings(view, m) == readings(twin, m)
            assert view.clock_ns[m] <= max(0, now - delay)


def shown_by(market, latency, seed, episode, seat, m):
    """How many of the market's events the seat has heard of, by plain Python; each of them wrote one record."""
    channel = Channel(latency, seed, episode, seat, rng.DATA_LATENCY)
    arrivals = [channel.arrival(int(time)) for time in market.tape.read_records(m)["time_ns"]]
    assert arrivals == sorted(arrivals)
    return sum(at <= market.clock_ns[m] for at in arrivals)


@agreed
@given(
    st.sampled_from(LATENCIES[1:]), st.sampled_from(LATENCIES[1:]), st.integers(0, 99), st.integers(0, 2**60),
    st.sampled_from((1, 3)),
)  # fmt: skip
def test_news_arrive_when_their_draws_say_and_a_view_is_the_past_of_so_many_events(first, second, data, seed, n):
    config = {**LARGE, "self_trade": "off"}
    market = MarketSimulator(n, MarketConfig(**config, data_latency=(first, second)))
    logger = MarketSimulator(n, MarketConfig(**config, data_latency=MAX_NS))  # forgets nothing
    for one in (market, logger):
        one.reset(seeds=np.arange(seed, seed + n), episodes=3)
    before = [0, 0]
    for turn, (flow, agents) in enumerate(stream(data, range(n), 3, 30)):
        if turn == data % 4:  # goes on in a copy, with news under way
            market = MarketSimulator.from_snapshot(Snapshot.from_bytes(market.snapshot().to_bytes()))
        for one in (market, logger):
            one.feed(flow)
            one.submit(agents)
            one.advance(until_count=one.background_count + 17)
        for seat, latency in enumerate((first, second)):
            view = market.view(seat)
            for m in range(n):
                seen = int(view.tape.record_count[m])
                assert seen == shown_by(market, latency, seed + m, 3, seat, m)
                assert view.tape.read_records(m).tolist() == market.tape.read_records(m)[:seen].tolist()
                own = market.tape.read_records(m)[seen:]
                assert market.unseen(seat).count[m] == np.count_nonzero(own["owner"] == seat)
            assert before[seat] <= view.tape.record_count[0]
            before[seat] = int(view.tape.record_count[0])
    # The true market, carried out anew up to there, reads the same.
    raw = logger.book.log[:, : logger.book.row[:, LOG_END].max()]
    for seat in (0, 1):
        past = MarketSimulator(n, MarketConfig(**config))
        past.execute(EventBlock(raw, market.view(seat).tape.record_count.astype(np.int32)))
        for m in range(n):
            assert readings(past, m) == readings(market.view(seat), m)


def run(num_markets, rows, data_latency, restore_at=None):
    """Readings of both views after each of several turns of rows ``rows``."""
    market = MarketSimulator(num_markets, MarketConfig(**LARGE, data_latency=data_latency))
    market.reset(seeds=np.array(rows, np.uint64) + np.uint64(100), episodes=1)
    found = []
    for turn, (flow, agents) in enumerate(stream(3, rows, 4 if JIT else 2, 90 if JIT else 30)):
        if turn == restore_at:  # goes on in another market
            other = MarketSimulator(num_markets, market.config)
            other.restore(market.snapshot())
            market = other
        market.feed(flow)
        market.submit(agents)
        market.advance()
        found.append([[readings(market.view(seat), m) for m in range(num_markets)] for seat in (0, 1)])
    return found


@pytest.mark.parametrize("num_markets", [3, 64, 130])
def test_a_view_depends_neither_on_neighbours_nor_on_threads_nor_on_a_restart(num_markets):
    latencies = [Lognormal(40, 1.0), Quantiles((5, 20, 90))]
    rows, before = list(range(num_markets)), numba.get_num_threads()
    expected = run(num_markets, rows, latencies)
    numba.set_num_threads(1)
    try:
        assert run(num_markets, rows, latencies) == expected
    finally:
        numba.set_num_threads(before)
    assert run(num_markets, rows, latencies, restore_at=1) == expected
    for m in {0, num_markets - 1}:
        alone = run(1, [m], latencies)
        assert [[views[0] for views in turn] for turn in alone] == [[views[m] for views in turn] for turn in expected]
    assert any(turn[0][0]["records"] != turn[1][0]["records"] for turn in expected)


def state(clock_ns):
    orders = np.zeros(2, ORDER)
    orders["owner"], orders["size"] = BACKGROUND, 5
    orders["order_id"], orders["price"], orders["side"] = (0, 1), (990, 1_010), (BUY, SELL)
    return MarketState(orders, np.zeros(3, RECORD), clock_ns, 0, 2)


def test_a_view_begins_with_the_start_state_and_anew_with_every_reset():
    market = MarketSimulator(2, MarketConfig(**LARGE, data_latency=50))
    twin = MarketSimulator(2, MarketConfig(**LARGE, data_latency=50))
    for begin in (lambda market: market.load_rows([0, 1], [state(700), state(900)]), lambda market: market.reset()):
        ((flow, agents),) = stream(5, range(2), start_ns=1_000)
        market.feed(flow)
        market.submit(agents)
        market.advance()
        for one in (market, twin):
            begin(one)
        for m in range(2):
            assert readings(market.view(0), m) == readings(market, m) == readings(twin.view(0), m)
        assert market.view(0).clock_ns.tolist() == market.clock_ns.tolist()
        for one in (market, twin):
            one.feed(flow)
            one.advance(until_ns=np.full(2, 1_040))
        for m in range(2):
            assert readings(market.view(1), m) == readings(twin.view(1), m)


def test_only_some_rows_begin_anew_or_are_restored():
    market = MarketSimulator(3, MarketConfig(**LARGE, data_latency=[60, Lognormal(30, 0.5)]))
    first, second = stream(8, range(3), 2)
    market.feed(first[0])
    market.advance()
    kept = market.snapshot([0, 2])
    before = [readings(market.view(seat), m) for seat in (0, 1) for m in range(3)]
    market.reset(np.array([False, True, False]))
    market.feed(second[0])
    market.advance()
    assert market.view(0).tape.record_count[1] < market.view(0).tape.record_count[0]
    market.restore(kept, [0, 2])
    after = [readings(market.view(seat), m) for seat in (0, 1) for m in range(3)]
    for k in (0, 2, 3, 5):
        assert after[k] == before[k]


def test_messages_sent_one_by_one_are_seen_late_and_the_log_grows_as_needed():
    market = MarketSimulator(1, MarketConfig(**LARGE | {"orders": 4096, "agent_ids": 4096, "data_latency": [1_000, 0]}))
    count = 1_500 if JIT else 200
    for k in range(count):
        market.send(LIMIT, BUY, 100 + k % 50, 1, k, 0, time_ns=k)
    assert market.view(1).clock_ns is market.clock_ns and market.unseen(0).count[0] == count - max(0, count - 1_000)
    view = market.view(0)
    assert view.tape.record_count[0] == max(0, count - 1_000)
    market.send(PRINT, BUY, 100, 1, time_ns=count + 499)
    assert market.view(0).tape.record_count[0] == min(count, max(0, count - 500))
    width = market.book.log.shape[1]
    for k in range(20 * width):
        market.send(PRINT, BUY, 100, 1, time_ns=count + 2_000 * k)
    assert market.book.log.shape[1] <= 2 * width, "what all have seen is forgotten"
    assert market.view(0).tape.record_count[0] == count + 20 * width


def test_a_strict_refusal_is_seen_late_as_well():
    market = MarketSimulator(1, MarketConfig(orders=2, data_latency=10))
    events = block([[(k, k, 100, 1, NO_LIMIT, BACKGROUND, LIMIT, BUY, 0) for k in range(4)]])
    with pytest.raises(ValueError, match="finds 2 orders resting"):
        market.execute(events, strict=True)
    market.execute(block([[(50, 0, 100, 1, NO_LIMIT, BACKGROUND, PRINT, BUY, 0)]]))
    assert market.view(0).tape.read_records(0).tolist() == market.tape.read_records(0)[:3].tolist()


def test_a_view_can_only_be_read():
    market = MarketSimulator(2, MarketConfig(**LARGE, data_latency=[None, 10]))
    public = [name for name in dir(MarketSimulator) if not name.startswith("_")]
    for seat in (0, 1):
        view = market.view(seat)
        for name in ("send", "submit", "feed", "advance", "execute", "reset", "seed", "load", "load_rows", "restore"):
            with pytest.raises(TypeError, match=f"{name} is not for a view, which can only be read"):
                getattr(view, name)(0)
        with pytest.raises(TypeError, match="restore is not for a view"):
            view.fork(0, [1])
        with pytest.raises(TypeError, match="restore is not for a view"):
            market.fork(0, [1], view)
        assert [name for name in public if not hasattr(view, name)] == []
        own = copy.deepcopy(view)
        own.send(LIMIT, 1, 100, 5)
        assert own.touch()[0].tolist() == [100, 0] and view.touch()[0].tolist() == [0, 0]
    for price in range(100, 150):  # the arrays widen
        market.send(LIMIT, 1, 100 * price, 5, time_ns=20)
    market.send(LIMIT, 1, 1, 5, time_ns=40)
    assert market.view(1).touch()[0].tolist() == [14_900, 0] == market.view(0).touch()[0].tolist()
