"""The market kernels against the plain-Python reference, and the loop around them."""

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_checks import JIT, assert_same_book, assert_same_tape, random_events, takeable
from reference_book import ReferenceMarket

from tradefm_gym.market.events import (
    BACKGROUND,
    CANCEL,
    CANCELLED,
    DROPPED,
    EVENT,
    FILL_OR_KILL,
    FILLED,
    HALT,
    LIMIT,
    MARKET,
    MODIFY,
    NO_LIMIT,
    NOOP,
    ORDER,
    POST_ONLY,
    PREVENTED,
    PRINT,
    RECORD,
    REJECTED,
    RESTED,
    TOUCH,
    EventBlock,
)
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, MarketState

SMALL = MarketConfig(
    levels=64, orders=40, seats=2, flow_ids=64, agent_ids=8, tape=4096, fills=4096, maker_fee=-2, taker_fee=5
)


def block(rows, width=None):
    """An EventBlock of lists of events per row."""
    width = max(1, max(len(row) for row in rows)) if width is None else width
    result = EventBlock.empty(len(rows), width)
    for m, row in enumerate(rows):
        result.events[m, : len(row)] = row
        result.count[m] = len(row)
    return result


def rows_of(source, rows):
    return EventBlock(source.events[rows], source.count[rows])


def event(kind=LIMIT, side=1, price=0, size=0, order_id=0, time_ns=0, owner=BACKGROUND, max_rest=NO_LIMIT, anchor=0):
    return np.array([(time_ns, order_id, price, size, max_rest, owner, kind, side, anchor)], EVENT)[0]


def tuples(events):
    return [entry.tolist() for entry in events]


# --- Against the reference -------------------------------------------------------------------------------

prices = st.one_of(
    st.integers(95, 105), st.integers(95, 105), st.integers(1, 400), st.sampled_from((-1, 0, 1, 2**30 - 1, 2**30))
)
offsets = st.integers(-4, 4)
sizes = st.one_of(st.integers(1, 12), st.integers(1, 12), st.integers(-1, 60))
sides = st.sampled_from((1, -1))
limits = st.tuples(
    st.just(LIMIT), sides, sizes, st.integers(-1, 12), st.sampled_from((NO_LIMIT, NO_LIMIT, 0, 3)),
    st.one_of(st.tuples(st.just(0), prices), st.tuples(st.sampled_from((1, 2)), offsets)),
)  # fmt: skip
markets = st.tuples(st.just(MARKET), sides, sizes, st.just(0), st.just(NO_LIMIT), st.tuples(st.just(0), prices))
cancels = st.tuples(
    st.just(CANCEL), sides, st.integers(-1, 15), st.integers(-4, 12), st.just(NO_LIMIT),
    st.one_of(st.tuples(st.just(0), prices), st.tuples(st.just(0), st.integers(0, 2**31 - 1)),
              st.tuples(st.sampled_from((1, 2)), offsets)),
)  # fmt: skip
prints = st.tuples(st.just(PRINT), sides, sizes, st.just(0), st.just(NO_LIMIT), st.tuples(st.just(0), prices))
proposals = st.tuples(
    st.sampled_from((BACKGROUND, BACKGROUND, BACKGROUND, 0, 1)),
    st.integers(0, 3),  # ns after the clock
    st.one_of(limits, limits, limits, cancels, cancels, markets, prints),
)


@settings(max_examples=250 if JIT else 30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.lists(proposals, min_size=1, max_size=40), st.sampled_from((1, 2, 3)), st.sampled_from(("off", "cancel_newest"))
)
def test_kernels_equal_reference_after_every_event(steps, num_markets, self_trade):
    config = MarketConfig(**{**SMALL.to_json(), "self_trade": self_trade})
    simulator = MarketSimulator(num_markets, config)
    references = [ReferenceMarket(config) for _ in range(num_markets)]
    for i in range(len(steps)):
        flow, agents = [], []
        for m, reference in enumerate(references):  # every row has its own order of the steps
            owner, wait, (kind, side, size, order_id, max_rest, (anchor, price)) = steps[(i + 7 * m) % len(steps)]
            entry = event(kind, side, price, size, order_id, reference.clock + wait, owner, max_rest, anchor)
            if owner < 0:
                flow.append((m, entry))
            elif takeable(entry, config):
                agents.append((m, entry))
            else:
                with pytest.raises(ValueError, match=f"orders of market {m} has .* in event 0; allowed is"):
                    simulator.submit(block([[entry] if at == m else [] for at in range(num_markets)]))
        for send, ours, entries in (("feed", simulator.feed, flow), ("submit", simulator.submit, agents)):
            rows = [[entry for at, entry in entries if at == m] for m in range(num_markets)]
            ours(block(rows))
            for reference, row in zip(references, rows, strict=True):
                getattr(reference, send)(tuples(row))
        # Orders of agents due later stay in the queue until a background event passes them.
        starved = simulator.advance()
        for m, reference in enumerate(references):
            assert reference.advance() == starved[m]
            assert_same_book(simulator, m, reference)
            assert_same_tape(simulator, m, reference)
            if i % 4 == m or i == len(steps) - 1:
                check_readings(simulator, m, reference)


def check_readings(simulator, m, reference):
    bid, ask = simulator.touch()
    assert (bid[m], ask[m]) == tuple(reference.sides[side].best() or 0 for side in (1, -1))
    for owner in (0, 1, None):
        bid, ask = simulator.touch_excluding(owner)
        expected = tuple(reference.best_without(side, owner) or 0 for side in (1, -1))
        assert (bid[m], ask[m]) == expected
        mid2 = sum(expected) if all(expected) else reference.outside_mid2
        assert simulator.mid2_excluding(owner)[m] == mid2
    prices, lots = simulator.depth(4)
    outside_prices, outside_lots = simulator.depth(4, excluding=0)
    for s, side in ((0, 1), (1, -1)):
        levels = [(price, sum(entry[2] for entry in queue)) for price, queue in reference.queues(side)]
        outside = [
            (price, sum(entry[2] for entry in queue if entry[1] != 0)) for price, queue in reference.queues(side)
        ]
        outside = [level for level in outside if level[1] > 0]
        padding = [(0, 0)] * 4
        assert list(zip(prices[m, s].tolist(), lots[m, s].tolist(), strict=True)) == (levels + padding)[:4]
        found = list(zip(outside_prices[m, s].tolist(), outside_lots[m, s].tolist(), strict=True))
        assert found == (outside + padding)[:4]
    ids = np.tile(np.arange(-1, 9), (simulator.num_markets, 1))
    for owner in (BACKGROUND, 0, 1):
        found_prices, found_lots, ahead = simulator.orders_of(owner, ids)
        for k, order_id in enumerate(ids[m].tolist()):
            order = reference.live.get((owner, order_id))
            expected = (0, 0, -1) if order is None else (order.price, order.size, reference.ahead(owner, order_id))
            assert (found_prices[m, k], found_lots[m, k], ahead[m, k]) == expected


@pytest.mark.parametrize("levels", [64, 4096])
def test_a_million_random_events_equal_the_reference(levels, request):
    num_markets, width = 8, 256
    # Two parameters, 8 rows and one agents' event for each eight of the flow.
    total = request.config.getoption("--market-events") // 15 if JIT else 300
    config = MarketConfig(
        levels=levels, orders=100, seats=2, flow_ids=1000, agent_ids=64, tape=1024, fills=8192, maker_fee=1,
        taker_fee=3, self_trade=("cancel_newest", "cancel_both") if levels == 64 else ("off", "cancel_oldest"),
    )  # fmt: skip
    simulator = MarketSimulator(num_markets, config)
    references = [ReferenceMarket(config) for _ in range(num_markets)]
    generators = [np.random.default_rng([levels, m]) for m in range(num_markets)]
    centers = [10_000] * num_markets
    next_ids = [0] * num_markets
    seen = [(0, 0)] * num_markets
    for start in range(0, total, width):
        rows, agents = [], []
        for m, generator in enumerate(generators):
            centers[m] += int(generator.integers(-40, 41)) * (10 if generator.random() < 0.1 else 1)
            arguments = {"center": centers[m], "start_ns": references[m].clock}
            rows.append(random_events(generator, width, next_id=next_ids[m], **arguments))
            next_ids[m] += width
            agents.append(random_events(generator, width // 8, 0, ids=64, **arguments))
            agents[-1]["owner"] = generator.integers(0, 2, width // 8)
            agents[-1]["time_ns"] = references[m].clock + generator.integers(0, width, width // 8)
            agents[-1] = agents[-1][takeable(agents[-1], config)]
            references[m].feed(tuples(rows[m]))
            references[m].submit(tuples(agents[m]))
        simulator.feed(block(rows))
        simulator.submit(block(agents))
        starved = simulator.advance()
        for m, reference in enumerate(references):
            assert reference.advance() == starved[m]
            seen[m] = assert_same_tape(simulator, m, reference, seen[m])
        for m in range(num_markets) if start % (16 * width) == 0 else (start // width % num_markets,):
            assert_same_book(simulator, m, references[m])
    for m, reference in enumerate(references):
        assert_same_book(simulator, m, reference)
    if JIT:
        assert sum(count for count, _ in seen) > total * num_markets
        assert simulator.counters.sum(axis=0).min() > 0, "every kind of refusal has to occur"


def run_blocks(simulator, blocks):
    for flow, agents in blocks:
        simulator.feed(flow)
        simulator.submit(agents)
        simulator.advance()


def random_blocks(num_markets, count, width=128, seed=0):
    """Blocks for feed and submit; row m depends on (seed, m) only."""
    blocks = []
    generators = [np.random.default_rng([seed, m]) for m in range(num_markets)]
    for i in range(count):
        flow = [random_events(g, width, start_ns=i * width, next_id=i * width) for g in generators]
        agents = [random_events(g, 16, 0, ids=8, start_ns=i * width) for g in generators]
        for row in agents:
            row["owner"] = np.arange(16) % 2
        blocks.append((block(flow), block([row[takeable(row, SMALL)] for row in agents])))
    return blocks


def state_of(simulator, m):
    """All that can be seen of row m, as comparable values."""
    records, fills = simulator.tape.read_records(m), simulator.tape.read_fills(m)
    slots = simulator.book.orders[m]
    live = slots[slots["size"] > 0]
    return (
        records.tolist(), fills.tolist(), live.tolist(), simulator.accounts[m].tolist(), simulator.counters[m].tolist(),
        simulator.clock_ns[m], simulator.mid2[m], simulator.executed[m], simulator.waiting()[0][m],
    )  # fmt: skip


@pytest.mark.parametrize("num_markets", [3, 64])
def test_a_row_depends_neither_on_its_neighbours_nor_on_threads(num_markets):
    blocks = random_blocks(num_markets, 4 if JIT else 1)
    before = numba.get_num_threads()
    states = []
    for threads in (1, before):
        numba.set_num_threads(threads)
        simulator = MarketSimulator(num_markets, SMALL)
        run_blocks(simulator, blocks)
        states.append([state_of(simulator, m) for m in range(num_markets)])
    assert states[0] == states[1]
    for m in {0, 1, num_markets - 1}:
        alone = MarketSimulator(1, SMALL)  # few markets take the serial loops, many the parallel ones
        run_blocks(alone, [(rows_of(flow, [m]), rows_of(agents, [m])) for flow, agents in blocks])
        assert state_of(alone, 0) == states[0][m]
        for reading in (
            lambda market: market.touch_excluding(0),
            lambda market: market.depth(3, excluding=1),
            lambda market: market.orders_of(1, np.tile(np.arange(8), (market.num_markets, 1))),
        ):
            for left, right in zip(reading(alone), reading(simulator), strict=True):
                np.testing.assert_array_equal(left[0], right[m])
        reference = ReferenceMarket(SMALL)
        for flow, agents in blocks:
            reference.feed(tuples(flow.events[m]))
            reference.submit(tuples(agents.events[m, : agents.count[m]]))
            reference.advance()
        assert_same_book(simulator, m, reference)


def test_a_restored_snapshot_goes_on_bit_for_bit():
    blocks = random_blocks(4, 6 if JIT else 2)
    half = len(blocks) // 2
    simulator = MarketSimulator(4, SMALL)
    run_blocks(simulator, blocks[:half])
    # Events still waiting belong to the state as well.
    simulator.submit(block([[event(MARKET, 1, size=3, owner=1, time_ns=10**6)]] * 4))
    simulator.feed(block([[event(PRINT, 1, 100, 5, time_ns=10**6 + 5)]] * 4))
    before = [state_of(simulator, m) for m in range(4)]
    everything, two = simulator.snapshot(), simulator.snapshot([1, 3])
    run_blocks(simulator, blocks[half:])
    expected = [state_of(simulator, m) for m in range(4)]

    simulator.restore(everything)
    assert [state_of(simulator, m) for m in range(4)] == before
    run_blocks(simulator, blocks[half:])
    assert [state_of(simulator, m) for m in range(4)] == expected

    other = MarketSimulator(2, SMALL)
    other.restore(two)
    run_blocks(other, [(rows_of(flow, [1, 3]), rows_of(agents, [1, 3])) for flow, agents in blocks[half:]])
    assert [state_of(other, m) for m in range(2)] == [expected[1], expected[3]]

    simulator.restore(two, [0, 2])
    assert state_of(simulator, 0) == before[1] and state_of(simulator, 2) == before[3]
    with pytest.raises(ValueError, match="snapshot holds 2 rows for 4"):
        simulator.restore(two)
    with pytest.raises(ValueError, match="another MarketConfig"):
        MarketSimulator(2).restore(two)


def test_reset_equals_a_new_market():
    blocks = random_blocks(3, 2 if JIT else 1)
    fresh, used = MarketSimulator(3, SMALL), MarketSimulator(3, SMALL)
    run_blocks(used, random_blocks(3, 2 if JIT else 1, seed=5))
    kept = state_of(used, 1)
    used.reset(np.array([True, False, True]))
    assert state_of(used, 1) == kept
    used.reset()
    for name in ("page_bits", "node_bits", "slots", "near", "row"):
        assert getattr(used.book, name).sum() == getattr(fresh.book, name).sum(), name
    assert not used.book.levels["depth"].any() and not used.book.orders["size"].any()
    for simulator in (fresh, used):
        run_blocks(simulator, blocks)
    assert [state_of(used, m) for m in range(3)] == [state_of(fresh, m) for m in range(3)]


# --- Bench streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shallow", "deep"])
def test_common_streams_end_where_they_must(name, request):
    path = request.config.rootpath.parent / "shared" / "bench" / f"order_stream_{name}.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine")
    if not JIT:
        pytest.skip("a million messages need the JIT")
    stream = np.load(path)
    events = np.zeros(len(stream["kind"]), EVENT)
    events["kind"] = np.where(stream["kind"] == 1, LIMIT, CANCEL)
    events["side"] = 1 - 2 * stream["side"]
    events["price"], events["size"], events["order_id"] = stream["price"], stream["size"], stream["order_id"]
    events["owner"], events["max_rest"] = BACKGROUND, NO_LIMIT
    simulator = MarketSimulator(1, MarketConfig(flow_ids=2**20, flow_queue=10_000))
    for start in range(0, len(events), 10_000):
        simulator.feed(block([events[start : start + 10_000]]))
        simulator.advance()
    bid, ask = simulator.touch()
    live = np.count_nonzero(simulator.book.orders["size"])
    found = [bid[0], ask[0], simulator.tape.fill_count[0], simulator.executed[0], live, simulator.counters[0, 0]]
    assert [int(value) for value in found] == stream["final"].tolist()


# --- One rule each ----------------------------------------------------------------------------------------


def market(*events, **config):
    """A market of one row after the events, all in the background unless they say otherwise."""
    simulator = MarketSimulator(1, MarketConfig(**{"seats": 2, **config}))
    play(simulator, *events)
    return simulator


def play(simulator, *events):
    for entry in events:
        (simulator.submit if entry["owner"] >= 0 else simulator.feed)(block([[entry]]))
        simulator.advance()
    return simulator.tape.read_records(0)[-len(events) :]


def test_price_time_priority_and_partial_fills():
    simulator = market(
        event(LIMIT, -1, 101, 3, 0, 1), event(LIMIT, -1, 100, 2, 1, 2), event(LIMIT, -1, 101, 4, 2, 3)
    )  # fmt: skip
    (record,) = play(simulator, event(LIMIT, 1, 101, 6, 3, 10))
    fills = simulator.tape.read_fills(0)
    assert fills["maker_id"].tolist() == [1, 0, 2] and fills["size"].tolist() == [2, 3, 1]
    assert fills["price"].tolist() == [100, 101, 101] and fills["wait_ns"].tolist() == [8, 9, 7]
    assert (record["status"], record["filled"], record["notional"]) == (FILLED, 6, 2 * 100 + 4 * 101)
    assert simulator.touch() == (0, 101) and simulator.executed[0] == 6 and simulator.last_price[0] == 101


def test_partial_cancel_keeps_priority():
    simulator = market(event(LIMIT, 1, 100, 5, 0), event(LIMIT, 1, 100, 5, 1))
    play(simulator, event(CANCEL, 1, 0, 3, 0), event(MARKET, -1, 0, 3, 9))
    assert simulator.tape.read_fills(0)["maker_id"].tolist() == [0, 1]


def test_rest_beyond_max_rest_is_dropped_and_counted():
    simulator = market(event(LIMIT, -1, 100, 2, 0))
    (record,) = play(simulator, event(LIMIT, 1, 100, 10, 1, max_rest=3))
    assert (record["status"], record["filled"]) == (DROPPED, 2)
    assert simulator.depth(1)[1][0, 0, 0] == 3
    (record,) = play(simulator, event(LIMIT, -1, 101, 10, 2, max_rest=0))
    assert record["status"] == DROPPED and simulator.touch()[1] == 0
    assert simulator.counters[0, 1:3].tolist() == [2, 15]


def test_market_order_on_an_empty_side_is_a_noop_and_records_the_opposite_best():
    simulator = market(event(LIMIT, -1, 105, 2, 0))
    assert play(simulator, event(MARKET, -1, 0, 2, 1))[0]["status"] == NOOP
    record = play(simulator, event(MARKET, 1, 0, 5, 1))[0]
    assert (record["status"], record["filled"], record["price"]) == (DROPPED, 2, 105)


def test_anchors_resolve_on_arrival():
    simulator = market(event(LIMIT, 1, 5, 1, 0, anchor=TOUCH))
    assert simulator.tape.read_records(0)["status"].tolist() == [REJECTED], "nothing to hold on to"
    play(simulator, event(LIMIT, 1, 100, 5, 1), event(LIMIT, -1, 105, 5, 2))
    inside, behind, join, cross = play(
        simulator,
        event(LIMIT, 1, 1, 1, 3, anchor=TOUCH),
        event(LIMIT, -1, -2, 1, 4, anchor=TOUCH),
        event(LIMIT, 1, 1, 1, 5, anchor=2),
        event(LIMIT, -1, 0, 1, 6, anchor=2),
    )
    assert [r["price"] for r in (inside, behind, join, cross)] == [101, 107, 104, 104]
    assert cross["status"] == FILLED
    # The last mid, 206 / 2 after the cross, stands in for an empty side; rounded away from the spread.
    play(simulator, event(LIMIT, -1, -1, 1, 7, anchor=TOUCH))
    assert play(simulator, event(MARKET, 1, 0, 100, 8))[0]["mid2"] == 101 + 105
    assert play(simulator, event(LIMIT, -1, 0, 1, 9, anchor=TOUCH))[0]["price"] == 103


def test_generated_cancels_leave_agents_alone():
    simulator = market(
        event(LIMIT, 1, 100, 5, 0),
        event(LIMIT, 1, 100, 7, 1),
        event(LIMIT, 1, 101, 9, 0, owner=0),
        event(LIMIT, 1, 98, 4, 2),
    )
    nearest, whole, pick, none = play(
        simulator,
        event(CANCEL, 1, 101, 8, -1),  # all of order 1 and one lot of order 0
        event(CANCEL, 1, 99, 5, -2),  # both levels are one tick away: the one nearer the touch
        event(CANCEL, 0, 2**30, 0, -3),
        event(CANCEL, 1, 101, 1, -1),
    )
    assert (nearest["price"], nearest["size"], nearest["order_id"]) == (100, 8, -1)
    assert (whole["order_id"], whole["size"], whole["status"]) == (0, 4, CANCELLED)
    assert (pick["order_id"], pick["side"], pick["price"], pick["size"]) == (2, 1, 98, 4)
    assert none["status"] == NOOP and none["size"] == 1
    assert simulator.touch()[0] == 101


def test_self_trade_prevention_cancels_the_newest():
    events = [
        event(LIMIT, -1, 100, 1, 0), event(LIMIT, -1, 101, 1, 0, owner=0), event(LIMIT, -1, 102, 1, 1),
        event(MARKET, 1, 0, 3, 1, owner=0),
    ]  # fmt: skip
    simulator = market(*events)
    record = simulator.tape.read_records(0)[-1]
    assert (record["status"], record["filled"]) == (PREVENTED, 1)
    assert simulator.touch()[1] == 101 and simulator.counters[0, 3:5].tolist() == [1, 2]
    assert market(*events, self_trade="off").tape.fill_count[0] == 3
    events[-1]["owner"] = 1
    assert market(*events).tape.fill_count[0] == 3, "another seat may trade with it"


def test_agents_order_ids_are_local_to_the_seat_and_unique_while_live():
    simulator = market(event(LIMIT, 1, 100, 1, 5, owner=0), event(LIMIT, 1, 100, 1, 5, owner=1))
    assert play(simulator, event(LIMIT, 1, 99, 1, 5, owner=0))[0]["status"] == REJECTED
    assert play(simulator, event(CANCEL, 1, 0, 0, 5, owner=0))[0]["status"] == CANCELLED
    assert play(simulator, event(LIMIT, 1, 99, 1, 5, owner=0))[0]["status"] == RESTED
    assert simulator.counters[0, 5] == 1


def test_fees_stay_out_of_cash():
    simulator = market(event(LIMIT, -1, 100, 4, 0), event(MARKET, 1, 0, 3, 0, owner=0), maker_fee=-1, taker_fee=3)
    assert simulator.accounts[0].tolist() == [(-300_000, 3, 9, 3), (0, 0, 0, 0), (300_000, -3, -3, 3)]


def test_mids_without_the_agents_orders():
    simulator = market(event(LIMIT, 1, 100, 1, 0), event(LIMIT, -1, 104, 1, 1))
    play(simulator, event(LIMIT, 1, 102, 1, 0, owner=0), event(LIMIT, 1, 101, 1, 0, owner=1))
    assert simulator.mid2[0] == 206
    assert simulator.mid2_excluding(0)[0] == 205 and simulator.mid2_excluding(1)[0] == 206
    assert simulator.outside_mid2[0] == 204
    play(simulator, event(CANCEL, 1, 0, 0, 0), event(CANCEL, 1, 0, 0, 0, owner=1))
    # Only the agent bids now: its own mark must not follow its own order.
    play(simulator, event(LIMIT, 1, 103, 1, 1, owner=0))
    assert simulator.mid2[0] == 207 and simulator.mid2_excluding(0)[0] == 204


# --- The loop ---------------------------------------------------------------------------------------------


def test_ends_by_count_time_and_volume():
    simulator = MarketSimulator(1, MarketConfig())
    flow = [event(LIMIT, 1 if k % 2 else -1, 100, 1, k, 10 * k) for k in range(10)]
    flow.insert(2, event(PRINT, 1, 100, 5, 0, 15))
    simulator.feed(block([flow]))
    assert not simulator.advance(until_count=np.array([3]))[0]
    assert simulator.background_count[0] == 3 and simulator.clock_ns[0] == 20
    assert simulator.tape.record_count[0] == 4, "a print is no event of the count"
    assert not simulator.advance(until_ns=np.array([45]))[0]
    assert simulator.clock_ns[0] == 45 and simulator.background_count[0] == 5
    assert not simulator.advance(until_volume=simulator.executed + 1)[0]
    assert simulator.executed[0] == 3 and simulator.clock_ns[0] == 50
    assert simulator.advance(until_count=11)[0], "the tenth event is the last"
    assert simulator.background_count[0] == 10 and simulator.waiting()[0][0] == 0


def test_due_orders_go_first_and_future_ones_wait_for_the_flow():
    simulator = MarketSimulator(1, MarketConfig(seats=1))
    simulator.feed(block([[event(LIMIT, -1, 100, 1, 0, 10), event(LIMIT, -1, 100, 1, 1, 20)]]))
    simulator.advance(until_count=np.array([1]))
    simulator.submit(block([[
        event(LIMIT, 1, 90, 1, 2, 20, owner=0),
        event(LIMIT, 1, 91, 1, 0, 10, owner=0),
        event(LIMIT, 1, 92, 1, 1, 10, owner=0),
    ]]))  # fmt: skip
    assert not simulator.advance(until_count=np.array([1]))[0]
    assert simulator.tape.read_records(0)["price"].tolist() == [100, 91, 92], "due at once, though the count is reached"
    assert simulator.advance(until_count=np.array([9]))[0]
    assert simulator.tape.read_records(0)["price"].tolist() == [100, 91, 92, 90, 100], "agents first at equal times"
    simulator.submit(block([[event(LIMIT, 1, 93, 1, 3, 30, owner=0)]]))
    assert simulator.advance(until_ns=np.array([50]))[0], "the next background event may come before it"
    assert simulator.waiting()[1][0] == 1
    simulator.feed(block([[event(LIMIT, -1, 101, 1, 2, 5), event(LIMIT, -1, 102, 1, 3, 60)]]))
    assert not simulator.advance(until_ns=np.array([50]))[0]
    records = simulator.tape.read_records(0)[-2:]
    assert records["price"].tolist() == [101, 93] and records["time_ns"].tolist() == [20, 30], "a late event is now"
    assert simulator.clock_ns[0] == 50


# --- Start states -----------------------------------------------------------------------------------------


def orders_array(*entries):
    orders = np.zeros(len(entries), ORDER)
    for order, (order_id, side, price, size) in zip(orders, entries, strict=True):
        order["order_id"], order["side"], order["price"], order["size"] = order_id, side, price, size
        order["owner"] = BACKGROUND
    return orders


def test_load_gives_a_row_book_tape_and_clock():
    simulator = market(event(LIMIT, 1, 50, 1, 7))
    records = np.zeros(9000, RECORD)
    records["size"] = np.arange(9000)
    orders = orders_array((3, 1, 99, 2), (9, 1, 99, 5), (4, -1, 101, 1), (8, 1, 1, 1))
    simulator.load(0, orders, records, 1234, 0, 20)
    assert simulator.touch() == (99, 101) and simulator.mid2[0] == 200 and simulator.clock_ns[0] == 1234
    assert simulator.queue_ahead(BACKGROUND, np.array([9]))[0] == 2 and simulator.next_flow_id[0] == 20
    assert simulator.tape.read_records(0)["size"].tolist() == list(range(9000 - 8192, 9000))
    assert play(simulator, event(LIMIT, -1, 102, 1, -1))[0]["order_id"] == 20
    assert simulator.accounts["volume"].sum() == 0 and simulator.tape.fill_count[0] == 0

    twin = MarketSimulator(3, simulator.config)
    state = MarketState(orders, records, 1234, 0, 20)
    empty = MarketState(orders[:0], records[:0], 5, 77)
    twin.load_rows([2, 0], [state, empty])
    assert twin.mid2.tolist() == [77, 0, 200] and twin.clock_ns.tolist() == [5, 0, 1234]
    assert twin.tape.record_count.tolist() == [0, 0, 8192]

    many = MarketSimulator(40, MarketConfig(tape=64))  # the parallel loop
    many.load_rows(np.arange(39, 0, -1), [state if k % 2 else empty for k in range(39)])
    assert many.mid2.tolist() == [0] + [77, 200] * 19 + [77]
    assert many.clock_ns.tolist() == [0] + [5, 1234] * 19 + [5]
    assert many.next_flow_id.tolist() == [0] + [0, 20] * 19 + [0]
    assert many.tape.read_records(2)["size"].tolist() == list(range(9000 - 64, 9000))


@pytest.mark.parametrize(
    "entries",
    [
        ((0, 1, 100, 1), (1, -1, 100, 1)),
        ((0, 1, 100, 0),),
        ((0, 1, 0, 1),),
        ((0, 0, 5, 1),),
        ((2, 1, 5, 1), (2, 1, 6, 1)),
    ],
)
def test_load_refuses_what_is_no_book_and_changes_nothing(entries):
    simulator = market(event(LIMIT, 1, 50, 1, 7))
    before = state_of(simulator, 0)
    with pytest.raises(ValueError, match="orders of state 0 make no book"):
        simulator.load(0, orders_array(*entries), np.zeros(0, RECORD), 0)
    assert state_of(simulator, 0) == before


# --- Errors -----------------------------------------------------------------------------------------------


def test_refused_blocks_change_nothing():
    simulator = MarketSimulator(2, MarketConfig(flow_queue=4, agent_queue=2, seats=1))
    good = event(LIMIT, 1, 100, 1, 0)
    agents = event(LIMIT, 1, 100, 1, 0, owner=0)
    before = [state_of(simulator, m) for m in range(2)]
    cases = [
        (simulator.feed, [[good], [good] * 5], "block brings 5 events to market 1"),
        (simulator.feed, [[good], [agents]], r"block of market 1 has owner 0 in event 0; allowed is BACKGROUND \(-1\)"),
        (simulator.feed, [[good], [good, event(9, 1, 100, 1)]], r"has kind 9 in event 1; .* or HALT \(8\)"),
        (simulator.feed, [[good], [event(LIMIT, 1, 9, 1, anchor=7)]], "has anchor 7 in event 0; allowed is ABSOLUTE"),
        (simulator.submit, [[agents], [agents] * 3], "orders brings 3 events to market 1"),
        (
            simulator.submit,
            [[agents], [good]],
            r"orders of market 1 has owner -1 in event 0; allowed is a seat, 0 to 0",
        ),
        (simulator.submit, [[agents], [agents, event(LIMIT, 1, 9, 1, owner=1)]], "market 1 has owner 1 in event 1"),
        *[
            (simulator.submit, [[agents], [agents, event(**{"owner": 0} | fields)]], f"of market 1 has {said}")
            for fields, said in (
                ({"kind": PRINT}, "kind 3 in event 1; allowed is LIMIT"),
                ({"kind": 77}, r"kind 77 in event 1; allowed is LIMIT \(0\), MARKET \(1\), CANCEL \(2\), MODIFY"),
                ({"kind": HALT, "size": 1}, "kind 8 in event 1; allowed is LIMIT"),
                ({"kind": MODIFY, "price": 9, "size": 0}, "size 0 in event 1; allowed is 1 lot or more"),
                ({"kind": MODIFY, "price": 0, "size": 1}, "price 0 in event 1"),
                ({"kind": POST_ONLY, "price": 9, "size": 1, "max_rest": -1}, "max_rest -1 in event 1"),
                ({"kind": FILL_OR_KILL, "price": 9, "size": 1, "order_id": -1}, "order_id -1 in event 1"),
                ({"price": 9, "size": 1, "anchor": 7}, r"anchor 7 in event 1; allowed is ABSOLUTE \(0\), TOUCH"),
                ({"price": 9, "size": 0}, "size 0 in event 1; allowed is 1 lot or more"),
                ({"price": 9, "size": -4}, "size -4 in event 1"),
                ({"kind": MARKET, "size": 0}, "size 0 in event 1; allowed is 1 lot or more"),
                ({"kind": CANCEL, "size": -1}, r"size -1 in event 1; allowed is 0 \(all of it\) or more"),
                ({"price": 9, "size": 1, "side": 0}, r"side 0 in event 1; allowed is BUY \(1\) or SELL \(-1\)"),
                ({"kind": MARKET, "size": 1, "side": 2}, "side 2 in event 1"),
                ({"price": 0, "size": 1}, "price 0 in event 1; allowed is 1 to 1073741823 ticks"),
                ({"price": -5, "size": 1}, "price -5 in event 1"),
                ({"price": 2**30, "size": 1}, "price 1073741824 in event 1"),
                ({"price": 9, "size": 1, "max_rest": -1}, "max_rest -1 in event 1; allowed is 0 lots or more"),
                ({"price": 9, "size": 1, "order_id": 4096}, "order_id 4096 in event 1; allowed is 0 to 4095"),
                ({"kind": CANCEL, "order_id": -1}, "order_id -1 in event 1"),
            )
        ],
    ]
    for call, rows, message in cases:
        with pytest.raises(ValueError, match=message):
            call(block(rows))
    events, count = block([[good], [good]])
    for call, name in ((simulator.feed, "block"), (simulator.submit, "orders")):
        for wrong, said in (
            (None, f"{name} is None; allowed is an EventBlock"),
            ((events, count), rf"{name} is \(array.*; allowed is an EventBlock"),
            (EventBlock(events.tolist(), count), f"{name}.events is .*; allowed is an EVENT array of two axes"),
            (EventBlock(np.zeros((2, 1)), count), f"{name}.events is .*; allowed is an EVENT array"),
            (EventBlock(np.zeros((2, 1), RECORD), count), f"{name}.events is .*; allowed is an EVENT array"),
            (EventBlock(events[0], count), f"{name}.events is .*; allowed is an EVENT array of two axes"),
            (block([[good]]), f"{name}.events has 1 rows; allowed is one for each of 2"),
            (EventBlock(events, [1, 1]), rf"{name}.count is \[1, 1\]; allowed are 2 integers"),
            (EventBlock(events, np.ones(2)), f"{name}.count is .*; allowed are 2 integers"),
            (EventBlock(events, np.ones(3, np.int32)), f"{name}.count is .*; allowed are 2 integers"),
            (EventBlock(events, np.array([0, 2], np.int32)), f"{name}.count is 2 for market 1; allowed is 0 to 1 ev"),
            (EventBlock(events, np.array([-1, 0], np.int32)), f"{name}.count is -1 for market 0; allowed is 0 to 1"),
        ):
            with pytest.raises(ValueError, match=said):
                call(wrong)
    assert [state_of(simulator, m) for m in range(2)] == before
    assert simulator.waiting()[0].tolist() == simulator.waiting()[1].tolist() == [0, 0]


def test_an_agents_order_is_read_only_where_its_kind_has_the_field():
    simulator = market(event(LIMIT, 1, 100, 9, 0), event(LIMIT, -1, 103, 9, 1))
    played = play(
        simulator,
        event(LIMIT, -1, -2, 3, 7, anchor=TOUCH, owner=0),  # two ticks behind the best ask
        event(MARKET, 1, -1, 1, -1, owner=0, max_rest=-1),
        event(CANCEL, 0, -1, 0, 7, owner=0, max_rest=-1),
    )
    assert played["status"].tolist() == [RESTED, FILLED, CANCELLED]
    assert played["price"].tolist() == [105, 103, 105]


def test_what_a_flow_generates_is_refused_on_the_tape():
    simulator = MarketSimulator(1, MarketConfig())
    simulator.feed(
        block([[event(LIMIT, 1, 100, 0), event(LIMIT, 1, 0, 5), event(LIMIT, 0, 9, 5), event(CANCEL, 1, size=-1)]])
    )
    simulator.advance()
    assert simulator.tape.read_records(0)["status"].tolist() == [REJECTED] * 4
    assert simulator.counters[0, 5] == 4


def test_wrong_arguments_are_named():
    simulator = MarketSimulator(2, MarketConfig())
    ids = np.zeros(2, np.int64)
    for call, message in (
        (lambda: MarketSimulator(0), "num_markets is 0"),
        (lambda: MarketSimulator(1.5), "num_markets is 1.5; it must be an integer of at least 1"),
        (lambda: MarketSimulator(1, {"seats": 2}), "config is {'seats': 2}; it must be a MarketConfig or None"),
        (lambda: simulator.advance(until_ns=np.zeros(3, np.int64)), "until_ns is .*; allowed are 2 integers"),
        (lambda: simulator.advance(until_count="x"), "until_count is 'x'; allowed are 2 integers"),
        (lambda: simulator.advance(until_volume=np.ones(2)), "until_volume is .*; allowed are 2 integers"),
        (lambda: simulator.reset(np.zeros(3, bool)), "mask is .*; it must be a boolean array of length 2"),
        (lambda: simulator.depth(0), "levels is 0"),
        (lambda: simulator.depth("x"), "levels is 'x'"),
        (lambda: simulator.mid2_excluding(1), "owner is 1; allowed is a seat, 0 to 0"),
        (lambda: simulator.mid2_excluding("x"), "owner is 'x'; allowed is a seat"),
        (lambda: simulator.snapshot("x"), "rows is 'x'; allowed are integers from 0 to 1"),
        (lambda: simulator.snapshot([0.5]), r"rows is \[0.5\]; allowed are integers"),
        (lambda: simulator.queue_ahead(0, ids[:1]), "order_ids has shape"),
        (lambda: simulator.snapshot([2]), "rows reach from 2 to 2"),
        (lambda: simulator.snapshot([1, 1]), "names a market twice"),
        (lambda: simulator.load_rows([0], []), "states has 0 entries"),
        (lambda: simulator.tape.read_records(0, 1), "start is 1; the tape holds records 0 to 0"),
        (lambda: MarketConfig(levels=100), "levels is 100; allowed is a power of two"),
        (lambda: MarketConfig(levels=32), "levels is 32; allowed is 64 to 4096"),
        (lambda: MarketConfig(self_trade="no"), "self_trade is 'no'"),
        (lambda: MarketConfig.from_json({"level": 1}), "no field 'level'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"orders is 1\.5; allowed is an int"):
        MarketConfig(orders=1.5)
    assert MarketConfig.from_json(SMALL.to_json()) == SMALL
