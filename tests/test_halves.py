"""Markets that go on in parts, and rows that are filled again at different times."""

import numpy as np
import pytest
from small_tradefm import SHARES, even_bank, everyone, write_checkpoint, zero_intelligence_bank

from tradefm_gym.flow.halves import go_on
from tradefm_gym.flow.scenarios import read_scenario
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.tradefm_kernels import plan_appends, woven
from tradefm_gym.market.events import BUY, LIMIT, MARKET, NO_LIMIT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

CORRECTED = {"persistence": (0.02, 0.01), "following": 0.5, "answering": 0.3, "restoring": 0.5}


@pytest.fixture(scope="module", name="checkpoint")
def _checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def bank():
    return zero_intelligence_bank()


def started(flow, seed=5):
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config(1))
    contexts, seeds = (seed + np.arange(n)) % len(flow.bank), np.arange(seed, seed + n).astype(np.uint64)
    flow.reset(market, everyone(n), contexts, seeds, np.zeros(n, np.uint32))
    return market


def orders_of(market, step):
    """Now and then some rows' agent sends up to three orders at once."""
    block = EventBlock.empty(market.num_markets, 3)
    for row in range(market.num_markets):
        block.count[row] = (step + row) % 4
        for i in range(block.count[row]):
            order = block.events[row, i]
            order["owner"], order["time_ns"], order["max_rest"] = 0, market.clock_ns[row], NO_LIMIT
            order["kind"], order["side"], order["size"] = (MARKET if i else LIMIT), (BUY, SELL)[i % 2], 40 + i
            order["price"], order["order_id"] = market.touch()[0][row] - 2, 3 * step + i
    return block


def tapes(flow, events=140, every=20, seed=5):
    """What happens in all rows, agents' orders among it."""
    market = started(flow, seed)
    whole = [[] for _ in range(flow.num_envs)]
    for step in range(events // every):
        start = market.tape.record_count.copy()
        market.submit(orders_of(market, step))
        assert not go_on(market, flow, market.background_count + every).any()
        for row in range(flow.num_envs):
            whole[row].append(market.tape.read_records(row, int(start[row])))
    return [np.concatenate(parts) for parts in whole]


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_markets_in_two_halves_are_those_that_go_on_together(checkpoint, bank, backend, corrected):
    """The engine of two parts gives the same bits whether the caller takes turns between them or not."""
    if backend == "torch":
        pytest.importorskip("torch")
    options = {"backend": backend, "bank": bank, "parts": 2, **(CORRECTED if corrected else {})}
    taking_turns, together = (TradeFMFlow(checkpoint, 5, **options) for _ in range(2))
    together.parts = 1
    begun = []
    inner = taking_turns.engine.start_sample if corrected else taking_turns.engine.sample

    def counted(bits, active, *arguments, **named):
        begun.append(int(active.sum()))
        return inner(bits, active, *arguments, **named)

    setattr(taking_turns.engine, "start_sample" if corrected else "sample", counted)
    for mine, theirs in zip(tapes(taking_turns), tapes(together), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert set(begun) == {2, 3}  # by halves; and nothing was drawn twice
    assert sum(begun) == 5 * 140


def test_a_stale_beginning_is_begun_anew(checkpoint, bank):
    """Whoever begins and then lets an agent's order happen gets what he would have got without the beginning."""
    results = []
    for early in (False, True):
        flow = TradeFMFlow(checkpoint, 3, bank=bank, parts=2)
        market = started(flow)
        starved = market.advance(until_count=market.background_count + 1)
        if early:
            flow.begin(market, starved)
        market.submit(orders_of(market, 2))
        starved = market.advance(until_count=market.background_count + 1)
        results.append(flow.next_events(market, starved).events.copy())
        np.testing.assert_array_equal(flow.records_read, market.tape.record_count)
    np.testing.assert_array_equal(*results)


def test_stressed_rows_are_not_begun_and_nothing_changes(checkpoint, bank):
    """A scenario has its say before the flow is asked; the rows without one take turns all the same."""
    results = []
    for parts in (1, 2):
        flow = StressedFlow(TradeFMFlow(checkpoint, 4, bank=bank, parts=2))
        flow.flow.parts = parts
        flow.choose(np.array([1]), [read_scenario("one_sided_burst", flow)])
        results.append(tapes(flow, events=60))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("first", [64, 40])
def test_a_plan_of_appends_comes_to_what_one_event_after_another_does(first):
    """Down to rows that get full several times within one queue."""
    generator, rows, context = np.random.default_rng(0), 400, 64
    lengths, queued = generator.integers(1, 33, rows).astype(np.int32), generator.integers(0, 129, rows)
    seen = lengths + queued + generator.integers(0, 2, rows) * 100  # filled again before, or never
    queue, counts, ends = np.zeros((rows, 128, 4), np.int32), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    queue[:] = np.arange(128)[:, None]
    expected = []
    for m in range(rows):
        length, full, end, left = int(lengths[m]), first if seen[m] == lengths[m] + queued[m] else context, 0, []
        for j in range(queued[m]):
            if length == full:
                length, full, end, left = context // 2, context, int(seen[m] - queued[m] + j + 1), []
            else:
                length, left = length + 1, [*left, j]
        expected.append((end, left))
    plan_appends(queue, queued, lengths, seen, context, np.full(rows, first), counts, ends)
    assert len({end > 0 for end, _ in expected}) == 2
    for m, (end, left) in enumerate(expected):
        assert (ends[m], queue[m, : counts[m], 0].tolist()) == (end, left)


def refills(flow, events=200):
    """At which numbers of proposals each row was filled again."""
    market, found, read = started(flow), [], flow.engine.read

    def counted(rows, begins, *others):
        found.extend((int(row), int(flow._proposals[row])) for row in rows[begins == 0])
        return read(rows, begins, *others)

    flow.engine.read = counted
    go_on(market, flow, market.background_count + events)
    return [[step for row, step in found if row == m] for m in range(flow.num_envs)], market


def test_staggered_rows_are_filled_again_at_their_own_times(checkpoint):
    context = TradeFMFlow(checkpoint, 1, bank=even_bank(SHARES)).config.context
    plain, _ = refills(TradeFMFlow(checkpoint, 16, bank=even_bank(SHARES)))
    spread, market = refills(TradeFMFlow(checkpoint, 16, bank=even_bank(SHARES), staggered=True))
    assert len({row[0] for row in plain}) == 1  # all at once
    first = np.array([row[0] for row in spread])
    assert len(set(first.tolist())) >= 8 and first.min() >= context // 2 - 1 and first.max() <= plain[0][0]
    for row in spread:  # and from then on as often as the others
        assert (np.diff(row) == context - context // 2 + 1).all()
    alone = started(flow := TradeFMFlow(checkpoint, 1, bank=even_bank(SHARES), staggered=True), seed=5 + 3)
    go_on(alone, flow, alone.background_count + 200)
    np.testing.assert_array_equal(alone.tape.read_records(0), market.tape.read_records(3))


def test_a_staggered_row_goes_on_from_a_snapshot_as_it_would_have(checkpoint, bank):
    flow = TradeFMFlow(checkpoint, 2, bank=bank, staggered=True)
    market = started(flow)
    go_on(market, flow, market.background_count + 15)
    kept, state = flow.snapshot(), market.snapshot()
    tape = []
    for _ in range(2):
        go_on(market, flow, market.background_count + 60)
        tape.append([market.tape.read_records(row) for row in range(2)])
        other = TradeFMFlow(checkpoint, 2, bank=bank, staggered=True)
        market.restore(state)
        other.restore(kept)
        flow = other
    for one, again in zip(*tape, strict=True):
        np.testing.assert_array_equal(one, again)


def test_staggering_is_an_arm_of_its_own(checkpoint, bank):
    plain, spread = (TradeFMFlow(checkpoint, 1, bank=bank, staggered=arm) for arm in (False, True))
    assert plain.version != spread.version
    assert TradeFMFlow(checkpoint, 1, bank=bank).version == plain.version
    assert spread.for_markets(2).version == spread.version


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_loops_over_threads_take_each_row_once_and_both_halves_in_turn(n):
    rows = [woven(i, n) for i in range(n)]
    assert sorted(rows) == list(range(n))
    first = np.array(rows) < (n + 1) // 2
    assert (first[::2]).all() and not first[1::2].any()
