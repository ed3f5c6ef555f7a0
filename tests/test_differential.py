"""The market against other engines: the reference book after every event, and books of other people on long streams."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_checks import JIT, assert_same_book, assert_same_tape
from order_pair import SMALL, agreed, orders
from reference_book import ReferenceMarket

from tradefm_gym import bench_book, bench_peers
from tradefm_gym.market import events as vocabulary
from tradefm_gym.market.config import PREVENTION
from tradefm_gym.market.events import BACKGROUND, CANCEL, EVENT, HALT, LIMIT, MARKET, PRINT, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

ANCHORS = (0, 0, 0, 1, 2, 3)
anything = st.one_of(
    orders(LIMIT), orders(LIMIT, ANCHORS, (0, 3, 2**31 - 1)), orders(MARKET), orders(PRINT), orders(CANCEL, ANCHORS),
    orders(vocabulary.MODIFY, ANCHORS), orders(vocabulary.FILL_OR_KILL, ANCHORS),
    orders(vocabulary.POST_ONLY, ANCHORS), orders(vocabulary.POST_ONLY_SLIDE, ANCHORS),
    orders(CANCEL).map(lambda o: {**o, "order_id": o["order_id"] % 4 - 3, "price": abs(o["price"]) % 2048 << 20}),
    orders(HALT).map(lambda order: {**order, "size": order["size"] % 8 == 1}),
)  # fmt: skip


@settings(agreed)
@given(
    st.lists(anything, min_size=1, max_size=40), st.integers(1, 64), st.tuples(*[st.sampled_from(PREVENTION)] * 2),
    st.sampled_from((1, 1, 5)), st.sampled_from((1, 1, 2)),
)  # fmt: skip
def test_every_kind_of_order_in_any_number_of_markets_equals_the_reference(sequence, num_markets, rules, tick, lot):
    config = MarketConfig(**{**SMALL, "tape": 64, "fills": 64}, self_trade=rules, tick=tick, lot=lot)
    simulator = MarketSimulator(num_markets, config)
    # Every row has its own order of the events; of many rows three are compared, the last one among them.
    watched = {m: ReferenceMarket(config) for m in {0, num_markets // 2, num_markets - 1}}
    seen = dict.fromkeys(watched, (0, 0))
    for i in range(len(sequence)):
        block = EventBlock.empty(num_markets, 1)
        for m in range(num_markets):
            order = sequence[(i + 7 * m) % len(sequence)]
            block.events[m, 0] = tuple(order[field] if field in order else BACKGROUND for field in EVENT.names)
            block.count[m] = 1
        block.events["time_ns"][:, 0] += simulator.clock_ns
        simulator.execute(block)
        for m, reference in watched.items():
            event = block.events[m, 0].tolist()
            reference.count += event[5] < 0 and event[6] != PRINT
            reference.process(event, max(reference.clock, event[0]))
            seen[m] = assert_same_tape(simulator, m, reference, seen[m])
            assert_same_book(simulator, m, reference)
            bid, ask = simulator.touch()
            assert not bid[m] or not ask[m] or bid[m] < ask[m]


@pytest.mark.skipif(not JIT, reason="a million messages need the JIT")
@pytest.mark.parametrize("name", ["shallow", "deep"])
def test_a_stream_ends_where_other_engines_end(name, monkeypatch, request):
    monkeypatch.setattr(bench_peers, "STREAMS", request.config.rootpath.parent / "shared" / "bench")
    bench_peers.order_stream.cache_clear()
    stream = bench_peers.order_stream(name)  # from the file, or drawn from a seed
    ours = MarketSimulator(1, MarketConfig(flow_ids=2**20))
    events = bench_book.stream_events(stream)[None]
    ours.execute(EventBlock(events, np.array([events.shape[1]], np.int32)), strict=True)
    theirs = bench_peers.SortedBook()
    for row in zip(*(stream[key].tolist() for key in ("kind", "side", "price", "size", "order_id")), strict=True):
        theirs.handle(*row)
    assert bench_book.final_state(ours) == theirs.final() == stream["final"].tolist()
    prices, sizes = ours.depth(500)
    for s in (0, 1):
        levels = {abs(key): sum(order[2] for order in queue.values()) for key, queue in theirs.sides[s].items()}
        found = {p: q for p, q in zip(prices[0, s].tolist(), sizes[0, s].tolist(), strict=True) if p}
        assert len(levels) < 500 and found == levels


@pytest.mark.skipif(not JIT, reason="long streams need the JIT")
def test_a_stream_drawn_from_a_seed_is_like_the_common_ones():
    stream = bench_peers.draw_stream(300, 50_000, seed=1)
    assert all((stream[key] == bench_peers.draw_stream(300, 50_000, seed=1)[key]).all() for key in stream)
    assert 0.5 < (stream["kind"] == 1).mean() < 0.7 and 100 < stream["final"][4] < 900
    book = bench_peers.SortedBook()
    for row in zip(*(stream[key].tolist() for key in ("kind", "side", "price", "size", "order_id")), strict=True):
        book.handle(*row)
    assert book.final() == stream["final"].tolist()
