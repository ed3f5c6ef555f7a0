"""Stress scenarios: what each does to a flow from its start on, and that it does nothing else."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from small_day import cpu_flow
from small_tradefm import everyone, write_checkpoint, zero_intelligence_bank

from tradefm_gym.flow.indicators import INDICATORS, UNTOLD, tell
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.scenarios import SCENARIOS, Control, described, read_scenario, read_scenarios
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.events import BUY, CANCEL, DROPPED, INSERTED, LIMIT, MARKET, SELL
from tradefm_gym.market.simulator import MarketSimulator

FLOWS = ("zero_intelligence", "hawkes", "replay")


def flow_of(name, n):
    return make_flow(cpu_flow(name), n)


def started(flow, scenarios, seed=5):
    """A market for the flow, at rest, with these scenarios ahead."""
    n, market = flow.num_envs, MarketSimulator(flow.num_envs, replace(flow.market_config(), tape=1 << 13))
    flow.choose(np.arange(n), read_scenarios(scenarios, flow, n))
    flow.reset(market, everyone(n), np.arange(n) % 8, np.arange(seed, seed + n).astype(np.uint64), np.zeros(n, "u4"))
    return market


def tapes(flow, scenarios, events, seed=5):
    market = started(flow, scenarios, seed)
    first, records = market.background_count.copy(), market.tape.record_count.copy()
    for target in (events // 3, events):
        while (starved := market.advance(until_count=first + target)).any():
            market.feed(flow.next_events(market, starved))
    return [market.tape.read_records(row, int(records[row])) for row in range(flow.num_envs)], market


@pytest.mark.parametrize("name", FLOWS)
def test_without_a_scenario_nothing_changes(name):
    plain, stressed = flow_of(name, 3), StressedFlow(flow_of(name, 3))
    market = MarketSimulator(3, replace(plain.market_config(), tape=1 << 13))
    plain.reset(market, everyone(3), np.arange(3), np.arange(5, 8).astype(np.uint64), np.zeros(3, "u4"))
    first, records = market.background_count.copy(), market.tape.record_count.copy()
    while (starved := market.advance(until_count=first + 300)).any():
        market.feed(plain.next_events(market, starved))
    expected = [market.tape.read_records(row, int(records[row])) for row in range(3)]
    # The last row's scenario is another row's business, and none of it before its start.
    found, _ = tapes(stressed, [None, None, {"name": "one_sided_burst", "start": 280}], 300)
    for row, events in ((0, 300), (1, 300), (2, 280)):
        assert found[row][:events].tobytes() == expected[row][:events].tobytes()
    assert found[2][280]["order_id"] == INSERTED
    assert stressed.running().tolist()[:2] == ["", ""]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_a_burst_is_ten_times_as_fast_and_one_sided(name, side):
    flow = StressedFlow(flow_of(name, 2))
    (usual, _), (burst, _) = (
        tapes(flow, scenario, 400) for scenario in (None, {"name": "one_sided_burst", "side": side, "start": 100})
    )
    for calm, tape in zip(usual, burst, strict=True):
        during = tape[100:228]
        added = during["order_id"] == INSERTED
        assert added.sum() == 115 and not (tape["order_id"][228:] == INSERTED).any()
        assert set(during["side"][added]) == {BUY if side == "buy" else SELL}
        assert set(during["kind"][added]) == {MARKET}
        assert (during["size"][added] == round(float(flow.bank.scale["median_size"][0]))).all()
        assert (np.diff(tape["time_ns"]) >= 0).all()
        # What is its own keeps its order, and its waits are a tenth as long while it lasts.
        own = tape[tape["order_id"] != INSERTED]
        wait, usual_wait = (np.diff(one["time_ns"][99:113]).sum() for one in (own, calm))
        gap = 115 * 0.1 * float(flow.bank.scale["event_ns"][0])
        if name == "hawkes":  # which looks at no book, and so goes on as if nothing had been
            assert own["kind"][100:140].tolist() == calm["kind"][100:140].tolist()
        assert wait <= 0.1 * usual_wait + gap + 20


def test_a_withdrawal_takes_its_share_of_the_nearest_orders_and_withholds_new_ones():
    flow = StressedFlow(flow_of("hawkes", 2))
    scenario = {"name": "liquidity_withdrawal", "start": 70, "orders": 10, "share": 0.7, "withheld": 1.0, "events": 100}
    market = started(flow, scenario)
    first = market.background_count.copy()
    while (starved := market.advance(until_count=first + 70)).any():
        market.feed(flow.next_events(market, starved))
    pool, records = market.book.orders[0].copy(), market.tape.record_count.copy()
    nearest = set()
    for side in (BUY, SELL):
        orders = pool[(pool["size"] > 0) & (pool["side"] == side)]
        nearest |= set(orders[np.lexsort((orders["order_id"], -side * orders["price"]))][:10]["order_id"].tolist())
    while (starved := market.advance(until_count=first + 70 + 14 + 150)).any():
        market.feed(flow.next_events(market, starved))
    tape = market.tape.read_records(0, int(records[0]))
    gone = tape[:14]
    assert set(gone["kind"]) == {CANCEL} and len(set(gone["order_id"].tolist()) & nearest) == 14
    assert np.sum(gone["side"] == BUY) == 7 and len(set(gone["time_ns"].tolist())) == 1
    adds = tape[14:114][tape["kind"][14:114] == LIMIT]
    assert len(adds) > 20 and (adds["max_rest"] == 0).all() and DROPPED in adds["status"]
    assert (tape[114:]["max_rest"][tape["kind"][114:] == LIMIT] > 0).any()


@pytest.mark.parametrize(("name", "factor"), [("thin", 2.0), ("busy", 0.5)])
def test_regimes_of_a_flow_without_indicators_are_a_matter_of_pace(name, factor):
    flow = StressedFlow(flow_of("zero_intelligence", 2))
    usual, found = (tapes(flow, one, 200)[0] for one in (None, name))
    start = flow.bank.clock_ns[np.arange(2)]
    for row in range(2):
        assert found[row]["kind"].tolist() == usual[row]["kind"].tolist()
        waits, usual_waits = (np.diff(one[row]["time_ns"], prepend=start[row]) for one in (found, usual))
        assert (np.abs(waits - factor * usual_waits) <= 1).all()


def test_a_shock_draws_sides_by_the_markets_own_words():
    flow = StressedFlow(flow_of("zero_intelligence", 3))
    found, _ = tapes(flow, {"name": "volatility_shock", "start": 10, "every": 2, "events": 200}, 320)
    sides = [tape["side"][tape["order_id"] == INSERTED].tolist() for tape in found]
    assert all(len(one) == 100 and 30 < one.count(1) < 70 for one in sides) and sides[0] != sides[1]
    alone, _ = tapes(StressedFlow(flow_of("zero_intelligence", 1)), "volatility_shock", 300, seed=5)
    again, _ = tapes(StressedFlow(flow_of("zero_intelligence", 4)), ["volatility_shock", None, "thin", "busy"], 300)
    assert alone[0].tobytes() == again[0].tobytes()


@pytest.mark.parametrize("name", FLOWS)
def test_a_row_under_stress_goes_on_from_its_snapshot(name):
    scenarios = ["one_sided_burst", {"name": "volatility_shock", "start": 260, "every": 1}, None]
    flow = StressedFlow(flow_of(name, 3))
    market = started(flow, scenarios)
    first = market.background_count.copy()

    def go_on(flow, market, until):
        while (starved := market.advance(until_count=first + until)).any():
            market.feed(flow.next_events(market, starved))
        return [market.tape.read_records(row, 0).tobytes() for row in range(3)], flow.running().tolist()

    go_on(flow, market, 300)  # in the middle of both, and of a block
    kept = pickle.loads(pickle.dumps((market.snapshot(), flow.snapshot())))
    expected = go_on(flow, market, 600)
    other, elsewhere = flow.for_markets(3), MarketSimulator.from_snapshot(kept[0])
    other.reset(elsewhere, everyone(3), np.arange(3), np.zeros(3, np.uint64), np.zeros(3, "u4"))
    elsewhere.restore(kept[0]), other.restore(kept[1])
    assert go_on(other, elsewhere, 600) == expected


def test_a_replayed_day_does_not_count_what_was_added():
    flow = flow_of("replay", 2)
    tape, market = tapes(StressedFlow(flow), {"name": "one_sided_burst", "start": 64}, 400)
    flow.count_outcomes(market)
    assert flow.replayed.tolist() == [400 - 115] * 2 and (flow.changed < 400 - 115).all()
    own = tape[0][tape[0]["order_id"] != INSERTED]
    usual, _ = tapes(StressedFlow(flow), None, len(own))
    same = (own["kind"] == usual[0]["kind"]) & (own["side"] == usual[0]["side"])
    assert same.all()


# --- Control ---------------------------------------------------------------------------------------------------------


def test_told_indicators_stand_in_the_inputs_and_nothing_else_does():
    classes = np.array([3, 16, 7, 7, 1, 8, 8, 8, 9])
    rng, n = np.random.default_rng(3), 40
    digits = np.stack([rng.integers(0, count, n) for count in classes], axis=1)
    flag, token, asset = rng.integers(0, 2, n), rng.integers(0, 16384, n), rng.integers(0, 7, n)

    def packed(d):
        pressure, touch = d[:, 2] * 7 + d[:, 3], (d[:, 5] * 8 + d[:, 6]) * 8 + d[:, 7]
        tier, told = d[:, 0] + 3 * (d[:, 1] + 16 * d[:, 8]), flag + 2 * (pressure + 49 * asset)
        return np.stack([tier, told, touch, token], axis=1).astype(np.int32)

    for place in (0, 1, 2, 3, 5, 6, 7, 8):
        for by_shift in (False, True):
            inputs, history = packed(digits)[:, None].copy(), np.zeros((n, 4, 4), np.int32)
            fixed, shift = np.full((n, 9), UNTOLD), np.zeros((n, 9), np.int64)
            (shift if by_shift else fixed)[:, place] = 2
            tell(inputs, np.ones(n, np.int64), classes, fixed, shift, history, np.full(n, 5))
            wanted = digits.copy()
            wanted[:, place] = np.minimum(digits[:, place] + 2, classes[place] - 1) if by_shift else 2
            np.testing.assert_array_equal(inputs[:, 0], packed(wanted))
            np.testing.assert_array_equal(history[:, 0, :3], packed(wanted)[:, :3])  # number 4 of a ring of 4


def test_a_network_is_told_from_the_start_to_the_end_of_a_scenario(tmp_path):
    path = write_checkpoint(tmp_path / "model")
    flow = make_flow(f"tradefm:{path}", 3, bank=zero_intelligence_bank())
    assert flow.indicators == {"liquidity": 3, "fast": 7, "slow": 7, "level": 32}
    stressed = StressedFlow(flow)
    scenario = {"name": "control", "level": 30, "fixed": True, "start": 5, "events": 10}
    market = started(stressed, [scenario, None, "busy"])
    seen = flow._seen.copy()
    first = market.background_count.copy()
    while (starved := market.advance(until_count=first + 30)).any():
        market.feed(stressed.next_events(market, starved))
    flow._absorb(market, everyone(3))
    told = [[flow._history[m, (seen[m] + j) % flow._history.shape[1]] for j in range(30)] for m in range(3)]
    # Event number 4 is read when number 5 is asked for.
    assert [one[2] == 30 for one in told[0]] == [4 <= j < 14 for j in range(30)]
    assert not any(one[2] == 30 for one in told[1])
    assert [one[0] % 3 for one in told[2]] == [2] * 30
    assert stressed.running()[2] == "busy(start=0)"


# --- Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "value", "said"),
    [
        ("hawkes", "storm", "scenario is 'storm'; allowed are one_sided_burst, volatility_shock, .*, or a dict with a"),
        ("hawkes", {"side": "buy"}, "scenario is .*; allowed are one_sided_burst"),
        ("hawkes", 3, "scenario is 3; allowed are"),
        ("hawkes", {"name": "thin", "pace": 3}, "scenario 'thin' has no parameter 'pace'; allowed are start, events"),
        ("hawkes", {"name": "one_sided_burst", "side": "up"}, "side of a scenario is 'up'; allowed are buy, sell"),
        ("hawkes", {"name": "one_sided_burst", "events": 0}, "events of a scenario is 0; it must be an integer from 1"),
        ("hawkes", {"name": "one_sided_burst", "events": None}, "events of a scenario is None"),
        ("hawkes", {"name": "one_sided_burst", "start": -1}, "start of a scenario is -1; it must be an integer from 0"),
        ("hawkes", {"name": "one_sided_burst", "size": float("nan")}, "size of a scenario is nan; it must be a number"),
        ("hawkes", {"name": "liquidity_withdrawal", "share": 1.5}, "share of a scenario is 1.5; it must be a number"),
        ("hawkes", "control", "scenario 'control' cannot run on flow 'hawkes'; it needs a flow of a network"),
        ("replay", "thin", "scenario 'thin' cannot run on flow 'replay:.*': a record keeps its own pace"),
        ("replay", "liquidity_withdrawal", "scenario 'liquidity_withdrawal' cannot run on flow 'replay"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(flow, value, said):
    with pytest.raises(ValueError, match=said) as caught:
        read_scenario(value, flow_of(flow, 1))
    assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0


def test_control_names_what_a_network_is_told(tmp_path):
    flow = make_flow(f"tradefm:{write_checkpoint(tmp_path / 'model')}", 1, bank=zero_intelligence_bank())
    for scenario, said in [
        (Control(), "scenario 'control' names no indicator; allowed are liquidity, fast, slow, level"),
        (
            Control(spread=1),
            "scenario 'control' names 'spread', which flow 'tradefm:model@.*' is not told; allowed are",
        ),
        (Control(liquidity=3), "liquidity of scenario 'control' is 3; it must be an integer from -2 to 2"),
        (Control(liquidity=-1, fixed=True), "liquidity of scenario 'control' is -1; it must be an integer from 0 to 2"),
    ]:
        with pytest.raises(ValueError, match=said):
            read_scenario(scenario, flow)
    with pytest.raises(ValueError, match="is a StressedFlow; it must be the flow that this one is made of"):
        StressedFlow(StressedFlow(flow))
    assert read_scenario(Control(liquidity=1), flow).effect(flow, flow.bank.scale[0]).indicators == (("liquidity", 1),)
    assert {field for field in INDICATORS} < set(vars(Control()))


def test_every_scenario_is_described_by_its_parameters():
    assert described(None) == ""
    for name, made in SCENARIOS.items():
        assert described(made()).startswith(f"{name}(") and described(made()).endswith(")")
    assert described(Control(fast=-2)) == "control(fast=-2, fixed=False, start=0)"
