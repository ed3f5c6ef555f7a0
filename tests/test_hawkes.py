"""The Compound Hawkes flow and its files of parameters."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from flow_paths import fingerprint, run, started, tape
from market_checks import JIT
from numba import get_num_threads, set_num_threads
from small_hawkes import small_parameters, small_process

from tradefm_gym.flow.goodness import goodness_of_fit
from tradefm_gym.flow.hawkes import HawkesFlow, _propose_row, seed_bank
from tradefm_gym.flow.hawkes_events import (
    CANCEL_DEEP,
    CANCEL_TOUCH,
    LIMIT_DEEP,
    LIMIT_INSIDE,
    LIMIT_TOUCH,
    MARKETABLE,
    TYPES,
)
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.hawkes_process import Observed
from tradefm_gym.flow.protocol import background_orders
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.thinning import edges_in_ns, jumps_of, simulate
from tradefm_gym.market.events import (
    ABSOLUTE,
    BACKGROUND,
    BUY,
    CANCEL,
    CANCEL_RANDOM,
    CANCEL_WHOLE,
    EVENT,
    INSIDE,
    LIMIT,
    MARKET,
    TOUCH,
    EventBlock,
)

GOLDEN = "54ef9e9ed6baa783"  # the small flow, row 3 of seed 7, 512 events
PARAMETERS = small_parameters()
BANK = seed_bank(PARAMETERS)
EVENTS = 512


def small(num_envs, **options):
    flow = HawkesFlow(num_envs, **{"parameters": PARAMETERS, "bank": BANK, **options})
    return flow


@pytest.fixture(scope="module")
def many():
    flow = small(12)
    market = started(flow)
    run(flow, market, EVENTS)
    return market


def test_golden_tape(many):
    assert fingerprint(tape(many, 3)) == GOLDEN


@pytest.mark.parametrize(("num_envs", "threads"), [(1, 1), (3, 2)])
def test_a_row_does_not_depend_on_its_neighbours(many, num_envs, threads):
    before = get_num_threads()
    set_num_threads(min(threads, before))
    try:
        flow = small(num_envs)
        market = started(flow, seed=9)
        run(flow, market, EVENTS)
    finally:
        set_num_threads(before)
    for row in range(num_envs):
        np.testing.assert_array_equal(tape(market, row), tape(many, row + 2))


@pytest.mark.parametrize(("block", "step"), [(1, 16), (7, 64), (256, 512)])
def test_the_lengths_of_blocks_and_steps_change_nothing(many, block, step):
    flow = small(2, block=block)
    market = started(flow)
    run(flow, market, EVENTS, step)
    for row in range(2):
        np.testing.assert_array_equal(tape(market, row), tape(many, row))


def test_seed_and_episode_both_matter(many):
    prints = {fingerprint(tape(many, row, 256)) for row in range(12)}
    for episode in (1, 2**32 - 1):
        flow = small(1)
        market = started(flow, episode=episode)
        run(flow, market, EVENTS)
        prints.add(fingerprint(tape(market, 0, 256)))
    assert len(prints) == 14


def test_resetting_one_row_restarts_it_alone(many):
    flow = small(3)
    market = started(flow)
    run(flow, market, 128)
    others = [tape(market, row).copy() for row in (0, 2)]
    flow.reset(market, np.array([False, True, False]), np.zeros(3, int), np.uint64([7, 8, 9]), np.zeros(3, np.uint32))
    assert market.background_count.tolist() == [128, 0, 128]
    run(flow, market, EVENTS, EVENTS)
    np.testing.assert_array_equal(tape(market, 1), tape(many, 1))
    for row, other in zip((0, 2), others, strict=True):
        np.testing.assert_array_equal(tape(market, row)[:128], other)


def test_a_snapshot_goes_on_as_its_rows_would_have(many):
    flow = small(2)
    market = started(flow)
    run(flow, market, 192)
    kept, state = market.snapshot([1]), flow.snapshot(np.array([1]))
    run(flow, market, 320, 64)
    market.restore(kept, [0])
    flow.restore(state, np.array([0]))
    run(flow, market, EVENTS)
    np.testing.assert_array_equal(tape(market, 0), tape(many, 1))


def test_proposals_do_not_depend_on_what_an_agent_did():
    flow = small(2, block=64)
    market = started(flow)
    orders = EventBlock.empty(2, 1)
    orders.events["kind"], orders.events["side"], orders.events["size"] = MARKET, BUY, 200
    orders.events["owner"], orders.count[1] = 0, 1
    market.submit(orders)
    flow.restore(flow.snapshot(np.array([0])), np.array([1]))  # the same seed in both
    for _ in range(4):
        starved = market.advance(until_count=np.full(2, 10**9))
        block = flow.next_events(market, starved)
        np.testing.assert_array_equal(block.events[0], block.events[1])
        market.feed(block)
    assert market.accounts["inventory"][1, 0] == 200 and market.mid2[0] != market.mid2[1]


def kinds_of(events):
    """Kinds of proposals of the small flow, in which no order inside joins the touch."""
    cancel, anchor, ticks = events["kind"] == CANCEL, events["anchor"], events["price"]
    return np.select(
        [cancel & (anchor == TOUCH) & (ticks == 0), cancel, anchor == INSIDE, anchor == TOUCH, ticks > 0],
        [CANCEL_TOUCH, CANCEL_DEEP, LIMIT_INSIDE, LIMIT_TOUCH, LIMIT_DEEP],
        MARKETABLE,
    )


def test_events_are_what_their_types_say():
    flow = small(16, block=256)
    market = started(flow)
    events = flow.next_events(market, np.ones(16, bool)).events.ravel()
    assert (events["owner"] == BACKGROUND).all()
    limit, cancel = events["kind"] == LIMIT, events["kind"] == CANCEL
    assert (limit | cancel).all()
    assert set(events["order_id"][cancel]) == {CANCEL_WHOLE, CANCEL_RANDOM} and (events["order_id"][limit] == -1).all()
    assert (events["price"][cancel & (events["anchor"] == TOUCH)] <= 0).all()
    anywhere = events[events["order_id"] == CANCEL_RANDOM]
    assert (anywhere["anchor"] == ABSOLUTE).all() and len(np.unique(anywhere["price"])) > 10
    kind = kinds_of(events)
    assert set(events["price"][kind == LIMIT_INSIDE]) == {1, 2, 4}
    assert set(events["price"][kind == LIMIT_DEEP]) == {3, 5, 9}
    assert set(events["price"][kind == MARKETABLE]) == {-2, -1, 0}
    assert set(events["max_rest"][kind == MARKETABLE]) == {0, 15}
    # Each kind in its share: their rates follow from baseline and kernels, the little inhibition apart.
    process = PARAMETERS.process
    rates = np.linalg.solve(np.eye(12) - process.amplitudes.sum(axis=2), process.baseline[:, 0])
    shares = rates.reshape(6, 2).sum(axis=1) / rates.sum()
    found = np.bincount(kind, minlength=6) / len(kind)
    np.testing.assert_allclose(found, shares, atol=0.03)


@pytest.mark.skipif(not JIT, reason="many events")
def test_proposals_are_a_path_of_the_process():
    edges = (34_200 + 60.0,)
    parameters = small_parameters(process=small_process(edges))
    flow = small(1, parameters=parameters, bank=seed_bank(parameters), block=256)
    market = started(flow)
    flow._state.excitement[:] = 0.0  # as if nothing had happened before
    events = np.concatenate([flow.next_events(market, np.ones(1, bool)).events[0] for _ in range(24)])
    seconds = (events["time_ns"] - 34_200 * 10**9) / 1e9
    types = 2 * kinds_of(events) + (events["side"] < 0)
    watched = Observed(seconds, types.astype(np.int64), 0, 0.0, float(seconds[-1]))
    process = parameters.process._replace(edges=np.array(edges) - 34_200)
    rows = goodness_of_fit(process, watched, TYPES)
    assert min(row.p_value for row in rows) > 0.002
    assert np.mean([row.mean for row in rows]) == pytest.approx(1, abs=0.03)
    same = simulate(process, len(events), seed=7)
    np.testing.assert_array_equal(same.types, watched.types)
    np.testing.assert_allclose(same.seconds, seconds, atol=1e-6)


def test_the_kernel_agrees_with_its_python_source():
    process = PARAMETERS.process
    tables = (
        process.baseline,
        edges_in_ns(process),
        process.decays,
        jumps_of(process),
        process.floor,
        PARAMETERS.marks,
    )
    paths = []
    for kernel in (_propose_row, getattr(_propose_row, "py_func", _propose_row)):
        events, excitement = np.zeros(100, EVENT), np.full((12, 2), 0.25)
        end = kernel(events, np.uint64(2**63 + 5), np.uint32(9), 2**40, np.int64(10**15), excitement, *tables)
        paths.append((events, excitement, end))
    for one, other in zip(*paths, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.diff(paths[0][0]["time_ns"]) >= 0).all() and paths[0][2] > 10**15


@pytest.mark.skipif(not JIT, reason="many events")
def test_the_bundled_flow_is_alive_and_an_environment_runs_on_it():
    flow = make_flow("hawkes", 8)
    assert [len(flow.bank.split(part)) for part in ("train", "validation", "test")] == [64, 16, 16]
    assert flow.bank is make_flow("hawkes", 2).bank
    assert flow.parameters.radius < 0.95
    assert flow.parameters.report["provenance"]["ticker"] == "SYNTH", "no recorded data are bundled"
    market = started(flow, np.arange(8))
    empty, spreads, resting = 0, [], [background_orders(market).copy()]
    for target in range(64, 8193, 64):
        run(flow, market, target, target)
        prices, sizes = market.depth(1)
        empty += int((sizes == 0).any())
        spreads.append(prices[:, 1, 0] - prices[:, 0, 0])
        resting.append(background_orders(market).copy())
    usual = flow.bank.scale["spread"][0]
    assert empty == 0 and np.min(spreads) >= 1
    assert 0.5 * usual <= np.median(spreads) <= 2 * usual
    assert 0.3 < (resting[-1] / resting[0]).min() and (resting[-1] / resting[0]).max() < 3
    assert (market.accounts["inventory"].sum(axis=1) == 0).all()
    env = gym.make("tradefm_gym:TradeFM/Execution-v0", flow="hawkes", side="buy", decisions=4)
    env.reset(seed=3)
    for _ in range(4):
        _, reward, _, _, info = env.step(np.zeros(2, np.float32))
    assert np.isfinite(reward) and "shortfall" in " ".join(info)
    env.close()


# --- Parameters -------------------------------------------------------------------------------------------------


def test_parameters_survive_their_file(tmp_path):
    path = tmp_path / "hawkes.json"
    PARAMETERS.save(path)
    loaded = HawkesParameters.load(path)
    assert loaded == PARAMETERS and hash(loaded) == hash(PARAMETERS)
    assert loaded != small_parameters(mid=9_999)
    assert make_flow(f"hawkes:{path}", 1, bank=BANK).version == small(1).version
    assert [entry.name for entry in tmp_path.iterdir()] == ["hawkes.json"], "nothing else is left behind"
    values = json.loads(path.read_text())
    assert values["types"] == list(TYPES) and 0 < values["spectral_radius"] < 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.update(format=7), "has format 7; this version reads format 1"),
        (lambda v: v.update(kind="x"), "holds 'x'; 'parameters of the Hawkes flow' is needed"),
        (lambda v: v.update(types=v["types"][:4]), "has 4 types; the 12 of the flow are needed"),
        (lambda v: v.update(decays=[-2.0, 150.0]), r"decays are \[-2.0, 150.0\]; they must be positive"),
        (lambda v: v.update(decays=[2.0]), "amplitudes has shape"),
        (lambda v: v.update(floor=[0.0] * 12), "the floor above 0"),
        (lambda v: v["baseline"].pop(), "baseline has shape"),
        (lambda v: v["amplitudes"][0][0].__setitem__(0, 3.0), r"spectral radius 3\.\d+; it must be below 1"),
        (lambda v: v["amplitudes"][0][0].__setitem__(0, float("nan")), "amplitudes holds a number that is not finite"),
        (lambda v: v.pop("marks"), "lacks 'marks'"),
        (lambda v: v["marks"].pop(TYPES[3]), "lacks 'sell limit at touch'"),
        (lambda v: v["marks"][TYPES[0]][0].__setitem__(1, 0), "marks must have 1 to"),
        (lambda v: v["bids"].clear(), "bids must hold"),
        (lambda v: v.update(mid=5), "mid is 5; it must lie above the lowest bid"),
        (lambda v: v.update(mid=2**30 - 1), "asks reach 10 ticks above the mid"),
        (lambda v: v.update(mid="5"), "mid is '5'; it must be an integer"),
        (lambda v: v.update(mid=None), "mid is None; it must be an integer"),
        (lambda v: v.update(more=1), "has the unknown key 'more'; known are kind, format, "),
        (lambda v: v["marks"].update(more=[]), "marks has the unknown key 'more'"),
        (lambda v: v.update(format=True), "has format True"),
        (lambda v: v.update(kind=["x" * 999]), "holds .{80,99}; 'parameters of the Hawkes flow' is needed"),
        (lambda v: v.update(types=5), "has types 5; the 12"),
        (lambda v: v.update(report=[]), r"report is \[\]; it must be an object"),
        (lambda v: v.update(spectral_radius=float("nan")), "spectral_radius is nan, that of the amplitudes 0.4"),
        (lambda v: v.update(spectral_radius=0.5), "it must be the same or left out"),
        (lambda v: v.update(spectral_radius=10**400), "spectral_radius is 1000.*; it must be a number"),
        (lambda v: v.update(spectral_radius=[]), r"spectral_radius is \[\]; it must be a number"),
        (lambda v: v.update(spectral_radius="x"), "spectral_radius is 'x'; it must be a number"),
        (lambda v: v.update(decays=7), "decays is 7; it must be a list of numbers"),
        (lambda v: v.update(edges=[[]]), "edges has 2 axes; it must have one"),
        (lambda v: v.update(edges=[1e300], baseline=[[1, 1]] * 12), "edges are .*; they must ascend, up to"),
        (lambda v: v.update(decays=[1e-300, 1e300]), "decays are .*; they must be positive"),
        (lambda v: v.update(decays=["x", 3]), "decays is .*; it must be a list of numbers"),
        (lambda v: v.update(floor=[1, [2]]), "floor is .*; it must be a list of numbers"),
        (lambda v: v["amplitudes"][3].__setitem__(0, [1e308, 1e308]), "amplitudes reach 1e.308; at most 1e.06"),
        (lambda v: v["marks"].update({TYPES[0]: "x"}), "marks of 'buy limit inside' are 'x'; they must be lists"),
        (lambda v: v["marks"].update({TYPES[0]: TYPES[1], TYPES[1]: TYPES[0]}), "or name a type with lists"),
        (lambda v: v["marks"].update({TYPES[0]: [[1]]}), "marks is .*; it must be 3 levels of lists of whole numbers"),
        (lambda v: v.update(marks=[]), r"marks is \[\]; it must be an object"),
        (lambda v: v["bids"][0].__setitem__(0, 2**40), "bids holds 1099511627776; allowed is -2147483647"),
        (lambda v: v["bids"][0].__setitem__(0, 2**70), "bids is .*; it must be 2 levels of lists of whole numbers"),
        (lambda v: v["bids"][0].__setitem__(0, 1.5), "bids is .*; it must be 2 levels of lists of whole numbers"),
    ],
)
def test_unsound_files_are_refused(tmp_path, change, said):
    path = tmp_path / "hawkes.json"
    PARAMETERS.save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=said) as raised:
        HawkesParameters.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_no_json_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "hawkes.json"
    for data, said in (
        (b"[" * 10**5, "is no JSON: it is nested too deeply"),
        (b"\xff{}", "is no JSON: byte 0 is no UTF-8"),
        (b"[" + b"9" * 5000 + b"]", "is no JSON: a number has too many digits"),
        (b'{\n"kind": }', "is no JSON: Expecting value in line 2, column 9"),
        (b"[]", "holds 'something else than an object'; 'parameters of the Hawkes flow' is needed"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=said) as raised:
            make_flow(f"hawkes:{path}", 1)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(OSError, match=r"cannot be read \(.*\); it must name parameters of the Hawkes flow \(JSON\)"):
        make_flow(f"hawkes:{tmp_path}", 1)


def test_other_files_and_arguments_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; it must name parameters of the Hawkes flow"):
        HawkesFlow(1, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        HawkesFlow(1, tmp_path / "bad.json")
    for options, said in (
        ({"parameters": 3}, "parameters is 3; it must be a HawkesParameters, a path or None"),
        ({"bank": 3}, "bank is 3; it must be a ContextBank or None"),
        ({"block": 0}, "block is 0; it must be an integer from 1 to 256"),
        ({"num_envs": 0}, "num_envs is 0"),
    ):
        with pytest.raises(ValueError, match=said):
            HawkesFlow(**{"num_envs": 1, "parameters": PARAMETERS, "bank": BANK, **options})
    with pytest.raises(ValueError, match="bids and asks must lie at least one tick apart"):
        replace(PARAMETERS, bids=PARAMETERS.bids - [1, 0], asks=PARAMETERS.asks - [1, 0])
