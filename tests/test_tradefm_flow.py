import json

import gymnasium
import numpy as np
import pytest
from small_tradefm import SHARES, even_bank, everyone, write_checkpoint, zero_intelligence_bank

from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.replay import ReplayFlow
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import stream_before
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, CANCEL, LIMIT, MARKET, NO_LIMIT, SELL, EventBlock
from tradefm_gym.market.readings import FEW
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import BUNDLED_MODEL, WEIGHTS
from tradefm_gym.model.serving import checkpoint as checkpoint_of


@pytest.fixture(scope="module", name="checkpoint")
def _checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def bank():
    return zero_intelligence_bank()


class Loop:
    """A flow and its market, started on contexts and seeds that depend on the row only."""

    def __init__(self, flow, seed: int = 5, seats: int = 1):
        n = flow.num_envs
        self.flow, self.market = flow, MarketSimulator(n, flow.market_config(seats))
        self.contexts = (seed + np.arange(n)) % len(flow.bank)
        self.seeds = np.arange(seed, seed + n).astype(np.uint64)
        flow.reset(self.market, everyone(n), self.contexts, self.seeds, np.zeros(n, np.uint32))
        self.start = self.market.tape.record_count.copy()

    def run(self, events: int) -> "Loop":
        target = self.market.background_count + events
        while (starved := self.market.advance(until_count=target)).any():
            self.market.feed(self.flow.next_events(self.market, starved))
        return self

    def tape(self, row: int) -> np.ndarray:
        return self.market.tape.read_records(row, int(self.start[row]))

    def submit(self, row: int, **fields) -> None:
        block = EventBlock.empty(self.market.num_markets, 1)
        order = block.events[row, 0]
        order["owner"], order["time_ns"], order["max_rest"] = 0, self.market.clock_ns[row], NO_LIMIT
        for name, value in fields.items():
            order[name] = value
        block.count[row] = 1
        self.market.submit(block)


def test_a_row_does_not_depend_on_its_neighbours(checkpoint, bank):
    many = Loop(TradeFMFlow(checkpoint, 5, bank=bank)).run(150)
    for row in (0, 3):
        alone = Loop(TradeFMFlow(checkpoint, 1, bank=bank), seed=5 + row).run(150)
        assert np.array_equal(alone.tape(0), many.tape(row))
    padded = Loop(TradeFMFlow(checkpoint, 1, engine_batch=7, bank=bank)).run(150)
    assert np.array_equal(padded.tape(0), many.tape(0))


def test_seeds_and_episodes_decide(checkpoint, bank):
    first, again = (Loop(TradeFMFlow(checkpoint, 1, bank=bank), seed=3).run(80).tape(0) for _ in range(2))
    assert np.array_equal(first, again)
    other = Loop(TradeFMFlow(checkpoint, 1, bank=bank), seed=3 + len(bank)).run(80).tape(0)  # the same context
    assert not np.array_equal(first, other)


def test_a_partial_reset_leaves_the_other_rows_alone(checkpoint, bank):
    flow = TradeFMFlow(checkpoint, 3, bank=bank)
    loop = Loop(flow).run(40)
    rows = np.array([False, True, False])
    flow.reset(loop.market, rows, loop.contexts, loop.seeds, np.zeros(3, np.uint32))
    loop.start[1] = loop.market.tape.record_count[1]
    target = np.array([90, 50, 90])
    while (starved := loop.market.advance(until_count=target)).any():
        loop.market.feed(flow.next_events(loop.market, starved))
    straight = Loop(TradeFMFlow(checkpoint, 3, bank=bank)).run(90)
    assert np.array_equal(loop.tape(0), straight.tape(0)) and np.array_equal(loop.tape(2), straight.tape(2))
    assert np.array_equal(loop.tape(1), straight.tape(1)[:50])


def test_the_cache_is_a_function_of_the_tape(checkpoint, bank):
    loop = Loop(TradeFMFlow(checkpoint, 2, bank=bank)).run(170)  # more than twice the context of 64
    flow, fresh = loop.flow, TradeFMFlow(checkpoint, 2, bank=bank)
    for row in range(2):
        length, context = int(flow.engine.lengths[row]), flow.config.context
        assert context // 2 <= length <= context
        last = (flow._seen[row] + np.arange(-length, 0)) % flow._history.shape[1]
        fresh.engine.prefill(row, flow._history[row, last])
    tokens = np.array([6011, 123])
    assert np.array_equal(flow.engine.log_prob(tokens), fresh.engine.log_prob(tokens))


def test_many_rows_over_the_threads_go_the_way_of_few(checkpoint, bank):
    few, many = (Loop(TradeFMFlow(checkpoint, rows, bank=bank)).run(90) for rows in (2, FEW))
    for row in range(2):
        assert np.array_equal(few.tape(row), many.tape(row))


@pytest.mark.parametrize("flagged", [True, False])
def test_agents_enter_the_context_with_the_participant_flag(checkpoint, flagged):
    loop = Loop(TradeFMFlow(checkpoint, 2, bank=even_bank(SHARES), flag_agents=flagged)).run(10)
    seen = loop.flow._seen.copy()
    bid, _ = loop.market.touch()
    loop.submit(1, kind=LIMIT, side=BUY, price=int(bid[1]) - 3, size=70, order_id=1)
    loop.run(1)
    loop.submit(1, kind=CANCEL, side=BUY, order_id=1)
    loop.submit(1, kind=MARKET, side=SELL, size=30, order_id=2)
    loop.run(2)
    new = [int(flow_seen - before) for flow_seen, before in zip(loop.flow._seen, seen, strict=True)]
    assert new[1] == new[0] + 3
    column = loop.flow._history[1, (seen[1] + np.arange(new[1])) % loop.flow.config.context, 1]
    flags = column % 2  # the rest of the column is the class of the pressure
    assert flags.sum() == (3 if flagged else 0)
    assert (loop.flow._history[0, :, 1] % 2).sum() == 0


def test_an_agent_changes_what_follows_and_nothing_before(checkpoint, bank):
    without = Loop(TradeFMFlow(checkpoint, 1, bank=bank)).run(60).tape(0)
    loop = Loop(TradeFMFlow(checkpoint, 1, bank=bank)).run(20)
    loop.submit(0, kind=MARKET, side=BUY, size=900, order_id=0)
    touched = loop.run(40).tape(0)
    background = touched[touched["owner"] < 0]
    assert np.array_equal(background[:20], without[:20])
    assert not np.array_equal(background[20:], without[20:])


def test_an_agent_does_not_slow_the_market_down(checkpoint, bank):
    loop = Loop(TradeFMFlow(checkpoint, 1, bank=bank)).run(5)
    for order in range(20):
        loop.submit(0, kind=LIMIT, side=BUY, price=5, size=1, order_id=order)
    loop.run(1)
    background = loop.tape(0)
    background = background[background["owner"] < 0]
    # The proposal after the burst was drawn from the background's own inter-arrivals.
    assert background["time_ns"][-1] >= background["time_ns"][-2]
    assert loop.flow.feature_state(0)["stream"]["background_ns"] <= loop.market.clock_ns[0]


@pytest.mark.parametrize(
    "options", [{"cancel": "nearest"}, {"placement": "drawn"}, {"deterministic": True}, {"persistence": (0.0, 0.05)}]
)
def test_arms_change_the_path_and_the_version(checkpoint, bank, options):
    plain, arm = TradeFMFlow(checkpoint, 1, bank=bank), TradeFMFlow(checkpoint, 1, bank=bank, **options)
    assert plain.version != arm.version
    assert not np.array_equal(Loop(plain).run(100).tape(0), Loop(arm).run(100).tape(0))


def test_banks_of_other_flows_serve_as_start_states(checkpoint):
    bank = ZeroIntelligenceFlow(1).bank
    assert bank.feature_state is None
    tape = Loop(TradeFMFlow(checkpoint, 2, bank=bank)).run(100).tape(1)
    assert len(tape) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cancel": "oldest"}, "cancel"),
        ({"placement": "random"}, "placement"),
        ({"temperature": 0.0}, "temperature"),
        ({"engine_batch": 1}, "engine_batch"),
        ({"engine_batch": 2.5}, "engine_batch"),
        ({"engine_batch": "a"}, "engine_batch"),
        ({"backend": "jax"}, "backend"),
        ({"context": "somewhere"}, "context"),
        ({"context": 3}, "context is 3"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e-45}, "temperature is 1e-45; it must be a positive number of at least 1e-06"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"flag_agents": "yes"}, "flag_agents"),
        ({"deterministic": 1}, "deterministic"),
        ({"persistence": 0.1}, "persistence is 0.1; allowed are two numbers"),
        ({"persistence": (0.1, -1)}, "persistence"),
    ],
)
def test_bad_options_are_named(checkpoint, bank, options, message):
    with pytest.raises(ValueError, match=message):
        TradeFMFlow(checkpoint, 2, bank=bank, **options)


def test_a_wrong_folder_names_what_is_allowed(tmp_path, bank):
    with pytest.raises(ValueError, match=f"bundled.*{BUNDLED_MODEL}"):
        TradeFMFlow(tmp_path, 1, bank=bank)
    with pytest.raises(ValueError, match="tradefm:PATH"):
        make_flow("tradefm:", 1)


def test_another_hash_than_the_one_asked_for_is_refused(checkpoint, bank):
    digest = TradeFMFlow(checkpoint, 1, bank=bank).model_hash
    assert TradeFMFlow(f"{checkpoint}@{digest}", 1, bank=bank).model_hash == digest
    with pytest.raises(ValueError, match="hash after"):
        TradeFMFlow(f"{checkpoint}@", 1, bank=bank)
    with pytest.raises(ValueError, match="hash 0123"):
        TradeFMFlow(f"{checkpoint}@0123", 1, bank=bank)


def test_a_tokenizer_for_another_network_is_refused(tmp_path, bank):
    folder = write_checkpoint(tmp_path / "mixed")
    state = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(state | {"pressure_edges": [[-1.0, 1.0], [-1.0, 1.0]]}))
    with pytest.raises(ValueError, match="pressures are 9"):
        TradeFMFlow(folder, 1, bank=bank)


def test_a_tokenizer_of_another_version_is_refused(tmp_path, bank):
    folder = write_checkpoint(tmp_path / "old")
    state = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(state | {"version": 0}))
    with pytest.raises(ValueError, match="version"):
        TradeFMFlow(folder, 1, bank=bank)


bundled = pytest.mark.skipif(not (WEIGHTS / BUNDLED_MODEL).is_dir(), reason="no bundled model in this tree")


@bundled
def test_the_bundle_is_what_it_says():
    flow = make_flow("tradefm", 2)
    folder, digest = checkpoint_of(BUNDLED_MODEL)
    assert gymnasium.spec("TradeFM/Execution-v0").kwargs["flow"] == f"tradefm:{BUNDLED_MODEL}@{digest}" == flow.name
    assert 1_000_000 <= flow.config.parameter_count() <= 3_000_000
    assert sum(p.stat().st_size for p in folder.iterdir()) <= 6_000_000
    assert (folder / "README.md").is_file()
    assert len(flow.bank) >= 256
    parts = [set(flow.bank.split(name).tolist()) for name in ("train", "validation", "test")]
    assert sum(len(p) for p in parts) == len(set.union(*parts)) == len(flow.bank)
    assert min(len(p) for p in parts) >= 32


@bundled
def test_the_bundled_market_stays_alive():
    loop = Loop(make_flow("tradefm", 8), seed=11)
    empty = []
    for _ in range(64):
        loop.run(16)
        sizes = loop.market.depth(1)[1]
        empty.append((sizes[:, :, 0] == 0).any(axis=1))
    assert np.mean(empty) < 0.01
    tape = np.concatenate([loop.tape(row) for row in range(8)])
    assert tape["filled"].sum() > 0 and 0.3 < (tape["kind"] == LIMIT).mean() < 0.7


@bundled
def test_the_bundled_day_replays_as_recorded():
    flow = ReplayFlow(1)
    assert np.count_nonzero(flow.day.expected["kind"] != 3) >= 200_000
    loop = Loop(flow).run(1_500)
    flow.count_outcomes(loop.market)
    assert flow.replayed[0] >= 1_400 and flow.changed[0] == 0


def test_bundled_start_states_bring_their_stream_and_their_placement():
    """Not a stream that begins anew: a bank is read by the names of its fields, whatever was added to them since."""
    flow = TradeFMFlow()
    for context in (0, len(flow.bank) // 2, len(flow.bank) - 1):
        state = stream_before(flow.bank.state(context), flow.tokenizer.half_life_s, flow.tokenizer.mid_mode)[0]
        assert state["placement"][0] >= 0.0
        assert state["stream"]["rate_high"] > 0.0
        assert state["stream"]["usual_spread"] == flow.bank.scale["spread"][context]


def test_prices_may_count_from_the_mid_without_agents_orders(checkpoint):
    flow = TradeFMFlow(checkpoint, 1, bank=even_bank(), anchor="background", placement="drawn", deterministic=True)
    seen = TradeFMFlow(checkpoint, 1, bank=even_bank(), placement="drawn", deterministic=True)
    assert flow.version != seen.version
    loops = Loop(flow), Loop(seen)
    for loop in loops:
        loop.market.send(LIMIT, BUY, 10_000, 1, order_id=0, owner=0)
        loop.flow.next_events(loop.market, everyone(1))
    assert float(flow.feature_state(0)["stream"]["book_mid"]) == 10_000.0
    assert float(seen.feature_state(0)["stream"]["book_mid"]) == 10_000.5
    with pytest.raises(ValueError, match="anchor"):
        TradeFMFlow(checkpoint, anchor="agents")
