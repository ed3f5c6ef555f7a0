"""How long orders are under way: the draws, the channel of a seat, ties, and what is refused."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_checks import JIT, assert_same_book, assert_same_tape, random_events, takeable
from numba import njit
from order_pair import agreed
from reference_book import ReferenceMarket
from slow_latency import LATENCIES, Channel, draw_ns

from tradefm_gym import rng
from tradefm_gym.market import delays
from tradefm_gym.market.events import BACKGROUND, BUY, EVENT, LIMIT, MARKET, NO_LIMIT, EventBlock
from tradefm_gym.market.latency import MAX_NS, Lognormal, Quantiles, Samples, table
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot

SEATS = {"seats": 3, "flow_queue": 4096, "agent_queue": 512, "agent_ids": 64}


@njit
def _draws(table, seat, seed, episode, purpose, out):
    for number in range(len(out)):
        out[number] = delays.draw_ns(table, seat, seed, episode, number, purpose)


def draws(latency, count, seat=0, seed=1, episode=2, purpose=rng.ORDER_LATENCY):
    out = np.empty(count, np.int64)
    _draws(table((None,) * seat + (latency,)), seat, np.uint64(seed), np.uint64(episode), purpose, out)
    return out


def block(rows):
    result = EventBlock.empty(len(rows), max(1, max(map(len, rows))))
    for m, row in enumerate(rows):
        result.events[m, : len(row)], result.count[m] = row, len(row)
    return result


def order(time_ns, owner=0, order_id=0, price=100, size=1, side=BUY, kind=LIMIT):
    return np.array([(time_ns, order_id, price, size, NO_LIMIT, owner, kind, side, 0)], EVENT)[0]


# --- Draws ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", LATENCIES, ids=str)
def test_draws_equal_plain_python(latency):
    for seat, purpose in ((0, rng.ORDER_LATENCY), (4, rng.DATA_LATENCY)):
        found = draws(latency, 200, seat, 11, 3, purpose)
        assert found.tolist() == [draw_ns(latency, 11, 3, seat, number, purpose) for number in range(200)]


def test_seeds_episodes_seats_and_purposes_have_draws_of_their_own():
    latency = Lognormal(10**6, 1.0)
    names = [{}, {"seed": 2}, {"episode": 3}, {"seat": 1}, {"purpose": rng.DATA_LATENCY}]
    found = [tuple(draws(latency, 50, **name)) for name in names]
    assert len(set(found)) == len(names) and found[0] == tuple(draws(latency, 50))


@pytest.mark.skipif(not JIT, reason="many draws need the JIT")
def test_lognormal_draws_have_the_stated_median_and_sigma():
    median, sigma, n = 250_000, 0.6, 200_000
    logs = np.log(draws(Lognormal(median, sigma), n) / median)
    assert abs(np.median(logs)) < 5 * 1.2533 * sigma / n**0.5
    assert abs(logs.mean()) < 5 * sigma / n**0.5 and abs(logs.std() - sigma) < 5 * sigma / (2 * n) ** 0.5
    for share in (0.01, 0.1, 0.9, 0.99):  # the whole shape, in parts
        below = np.mean(logs < sigma * NormalDist().inv_cdf(share))
        assert abs(below - share) < 5 * (share * (1 - share) / n) ** 0.5
    floor = draws(Lognormal(median, sigma, median), n)
    assert floor.min() == median and abs(np.mean(floor == median) - 0.5) < 0.01


@pytest.mark.skipif(not JIT, reason="many draws need the JIT")
def test_empirical_draws_have_the_quantiles_of_the_table():
    quantiles, n = (1_000, 2_000, 2_500, 10_000, 50_000), 200_000
    found = draws(Quantiles(quantiles), n)
    assert quantiles[0] <= found.min() and found.max() <= quantiles[-1]
    for share, value in zip((0.25, 0.5, 0.75), quantiles[1:-1], strict=True):
        assert abs(np.mean(found < value) - share) < 5 * (share * (1 - share) / n) ** 0.5
    assert abs(np.mean(found < 6_250) - 0.625) < 0.006, "straight between the entries"
    values, counts = np.unique(draws(Samples((9, 4, 4, 1)), n), return_counts=True)
    assert values.tolist() == [1, 4, 9] and np.abs(counts / n - (0.25, 0.5, 0.25)).max() < 0.006


# --- Orders -----------------------------------------------------------------------------------------------


def random_orders(generator, count, start_ns):
    events = random_events(generator, count, 0, ids=60, center=1_000)
    events["owner"] = generator.integers(0, 3, count)
    events["time_ns"] = start_ns + generator.integers(0, 40, count)
    return events


@agreed
@given(
    st.tuples(*[st.sampled_from(LATENCIES)] * 3), st.sampled_from((1, 3, 64)), st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1), st.integers(0, 99),
)  # fmt: skip
def test_late_orders_in_any_number_of_markets_equal_the_reference(latencies, num_markets, seed, episode, data):
    config = MarketConfig(**SEATS, order_latency=latencies)
    simulator = MarketSimulator(num_markets, config)
    watched = {m: ReferenceMarket(config, (seed + m) % 2**64, episode) for m in {0, num_markets - 1}}
    simulator.seed(np.array([(seed + m) % 2**64 for m in range(num_markets)], np.uint64), episode)
    channels = {
        m: [Channel(latencies[seat], reference.seed, episode, seat, rng.ORDER_LATENCY) for seat in range(3)]
        for m, reference in watched.items()
    }
    flows = [np.random.default_rng([data, m]) for m in range(num_markets)]
    for turn in range(4):
        if turn == data % 4:  # goes on in a copy, with orders under way
            simulator = MarketSimulator.from_snapshot(Snapshot.from_bytes(simulator.snapshot().to_bytes()))
        flow = [random_events(g, 30, start_ns=40 * turn, next_id=30 * turn, center=1_000) for g in flows]
        agents = [random_orders(g, 12, 40 * turn) for g in flows]
        agents = [events[takeable(events, config)] for events in agents]
        simulator.feed(block(flow))
        simulator.submit(block(agents))
        for m, reference in watched.items():
            reference.feed([event.tolist() for event in flow[m]])
            late = []
            for event in agents[m].tolist():
                channel = channels[m][event[5]]
                leaves = max(event[0], reference.clock) if channel.latency else event[0]
                late.append((channel.arrival(leaves), *event[1:]))
            reference.submit(late)
        starved = simulator.advance(until_ns=np.full(num_markets, 40 * turn + 35))
        for m, reference in watched.items():
            assert reference.advance(until_ns=40 * turn + 35) == starved[m]
            assert_same_book(simulator, m, reference)
            assert_same_tape(simulator, m, reference)
            waiting = reference.agents[reference.agent_head :]
            for seat in range(3):
                found = simulator.in_flight(seat)
                own = [event for event in waiting if event[5] == seat]
                assert found.events[m, : found.count[m]].tolist() == own


def test_orders_of_a_seat_do_not_overtake_each_other():
    market = MarketSimulator(1, MarketConfig(seats=2, order_latency=[Lognormal(1_000, 2.0), None]))
    sent = [order(10 * k, order_id=k) for k in range(40)]
    market.submit(block([sent]))
    found = market.in_flight(0)
    times = found.events["time_ns"][0]
    assert found.count[0] == 40 and found.events["order_id"][0].tolist() == list(range(40))
    assert (np.diff(times) >= 0).all() and (np.diff(times) == 0).any() and (times >= 10 * np.arange(40)).all()
    assert market.in_flight(1).events.shape == (1, 0)


def test_an_order_meets_the_book_that_is_there_when_it_arrives():
    market = MarketSimulator(1, MarketConfig(order_latency=100))
    market.feed(block([[order(0, BACKGROUND, 0, 100, 5, -1), order(50, BACKGROUND, 0, 0, 0, -1, 2)]]))
    market.advance(until_count=np.array([1]))
    market.submit(block([[order(0, size=5, kind=MARKET)]]))
    market.advance()
    assert market.in_flight(0).events["time_ns"].tolist() == [[100]] and market.tape.fill_count[0] == 0
    market.feed(block([[order(90, BACKGROUND, 1, 103, 5, -1), order(101, BACKGROUND, 2, 99, 5, -1)]]))
    market.advance()
    assert market.tape.read_fills(0)[["price", "time_ns"]].tolist() == [(103, 100)]
    assert market.in_flight(0).count[0] == 0


@pytest.mark.parametrize("latency", [None, 0, [0, None]])
def test_no_latency_is_no_latency(latency):
    market = MarketSimulator(1, MarketConfig(seats=2, order_latency=latency, data_latency=latency))
    market.submit(block([[order(20, 1), order(10, 1, 1)]]))  # times of arrival, in any order
    assert market.in_flight(1).events["time_ns"].tolist() == [[10, 20]]
    assert market.view(0).clock_ns is market.clock_ns and market.unseen(1).count.tolist() == [0]


def test_what_is_refused_takes_no_draw():
    config = MarketConfig(order_latency=Lognormal(1_000, 1.0), agent_queue=4)
    fresh, market = MarketSimulator(1, config), MarketSimulator(1, config)
    for wrong in ([order(0, size=0)], [order(0)] * 5, [order(0), order(0, owner=3)]):
        with pytest.raises(ValueError, match="orders"):
            market.submit(block([wrong]))
    for one in (fresh, market):
        one.submit(block([[order(5), order(6)]]))
    assert market.in_flight(0).events.tolist() == fresh.in_flight(0).events.tolist()


def test_a_restored_market_draws_what_the_first_one_would_have():
    market = MarketSimulator(2, MarketConfig(order_latency=Lognormal(1_000, 1.0)))
    market.seed([5, 6], 2)
    market.submit(block([[order(0, order_id=0)], [order(0, order_id=0), order(0, order_id=1)]]))
    other = MarketSimulator(1, market.config)
    other.restore(market.snapshot([1]))
    later = [order(300, order_id=2), order(9_000, order_id=3)]
    market.submit(block([[], later]))
    other.submit(block([later]))
    assert other.in_flight(0).events[0].tolist() == market.in_flight(0).events[1].tolist()
    assert market.in_flight(0).count.tolist() == [1, 4]


# --- Ties -------------------------------------------------------------------------------------------------


def test_of_one_instant_the_seats_come_in_a_fair_order_and_each_seats_orders_as_sent():
    market = MarketSimulator(1, MarketConfig(**SEATS))
    orders = []
    instants = 600 if JIT else 60
    for instant in range(instants):
        market.reset(seeds=7, episodes=instant % 5)
        for seat in (instant % 3, (instant + 1) % 3, (instant + 2) % 3):  # who is first to submit does not matter
            market.submit(block([[order(1_000 + instant, seat, 0), order(1_000 + instant, seat, 1)]]))
        market.feed(block([[order(1_000 + instant, BACKGROUND, 0)]]))
        market.advance()
        owners, ids = (market.tape.read_records(0)[name].tolist() for name in ("owner", "order_id"))
        assert owners[::2][:3] == owners[1::2][:3] and sorted(owners[:6:2]) == [0, 1, 2] and owners[6] == BACKGROUND
        assert ids[:6] == [0, 1] * 3
        orders.append(tuple(owners[:6:2]))
    counts = [orders.count(some) for some in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))]
    expected = instants / 6
    assert sum((count - expected) ** 2 / expected for count in counts) < 20.5  # chi-squared, 5 degrees: 1 in 1,000


# --- What is refused, and JSON ----------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [*LATENCIES, [3, None], [{"samples_ns": [4, 1]}, {"median_ns": 3, "sigma": 0}]])
def test_latencies_survive_json(latency):
    config = MarketConfig(seats=2, order_latency=latency, data_latency=latency)
    again = MarketConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config and hash(again) == hash(config)


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        (-1, f"is -1; allowed are integers from 0 to {MAX_NS} ns, None or a dict"),
        (MAX_NS + 1, f"is {MAX_NS + 1}; allowed are integers"),
        (0.5, "is 0.5; allowed are integers"),
        (True, "is True; allowed are integers"),
        ("5", "is '5'; allowed are integers"),
        ([1], "has 1 latencies for 2 seats; allowed is one each"),
        ([1, -4], "of seat 1 is -4; allowed are integers"),
        ({}, r"has the keys \[\]; allowed are median_ns and sigma"),
        ({"ns": 5}, r"has the keys \['ns'\]; allowed are median_ns and sigma"),
        ({"median_ns": 5}, r"has the keys \['median_ns'\]"),
        ({"median_ns": 5, "sigma": 1, "floor": 2}, "has the keys"),
        ({"median_ns": -5, "sigma": 1}, "median_ns of LATENCY is -5; allowed are integers from 0"),
        ({"median_ns": 5, "sigma": -1}, "sigma of LATENCY is -1; allowed is a number from 0 to 10"),
        ({"median_ns": 5, "sigma": float("nan")}, "sigma of LATENCY is nan; allowed is a number"),
        ({"median_ns": 5, "sigma": "1"}, "sigma of LATENCY is '1'; allowed is a number"),
        ({"median_ns": 5, "sigma": 1, "floor_ns": -2}, "floor_ns of LATENCY is -2; allowed are integers"),
        ({"quantiles_ns": []}, r"quantiles_ns of LATENCY is \[\]; allowed is a list of 1 to"),
        ({"quantiles_ns": 5}, "quantiles_ns of LATENCY is 5; allowed is a list of 1 to"),
        ({"quantiles_ns": [1, 3, 2]}, "quantiles_ns of LATENCY falls at entry 2; allowed are rising values"),
        ({"quantiles_ns": [1, 2.5]}, "entry 1 of quantiles_ns of LATENCY is 2.5; allowed are integers"),
        ({"samples_ns": []}, r"samples_ns of LATENCY is \[\]; allowed is a list"),
        ({"samples_ns": [3, -1]}, "entry 1 of samples_ns of LATENCY is -1; allowed are integers"),
        ({"samples_ns": [3], "quantiles_ns": [3]}, "has the keys"),
    ],
)
@pytest.mark.parametrize("name", ["order_latency", "data_latency"])
def test_latencies_that_mean_nothing_are_refused(name, latency, message):
    with pytest.raises(ValueError, match=message.replace("LATENCY", name)) as refused:
        MarketConfig(**{"seats": 2, name: latency})
    assert str(refused.value).startswith((name, "median", "sigma", "floor", "quantiles", "samples", "entry"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((-1, 0), "seeds is -1; allowed are 2 non-negative integers"),
        (("x", 0), "seeds is 'x'; allowed are 2 non-negative integers"),
        (([1, 2, 3], 0), r"seeds is \[1, 2, 3\]; allowed are 2"),
        ((2, 2**32), r"episodes reach 4294967296; allowed is less than 2\^32"),
        ((2, 0.5), "episodes is 0.5; allowed are 2"),
    ],
)
def test_seeds_that_name_nothing_are_refused(names, message):
    market = MarketSimulator(2)
    for call in (market.seed, lambda *given: market.reset(None, *given)):
        with pytest.raises(ValueError, match=message):
            call(*names)
