import json

import numpy as np
import pytest
from tradefm_gym.agents import (
    ConstantPolicy,
    CrossingTWAP,
    Evaluator,
    Immediate,
    PassiveTWAP,
    PostAndWait,
    Random,
    bootstrap,
    compare,
    evaluate,
    reference_policies,
)
from tradefm_gym.agents.evaluation import EPISODE
from tradefm_gym.agents.report import comparison_json, comparison_table, write_json, write_picture

from tradefm_gym import ExecutionRole, TradingSession

TASK = {"flow": "zero_intelligence", "decisions": 8}
DECISIONS = TASK["decisions"]


def session_of(num_envs=6, seed=3, **task):
    session = TradingSession(num_envs, ExecutionRole(decisions=DECISIONS, **task), "zero_intelligence", split="test")
    session.seed(np.ones(num_envs, bool), np.arange(seed, seed + num_envs))
    return session


def columns(session, decision):
    info = session.start_info()
    steps = np.full(session.num_envs, decision)
    return {"seed": session.seeds, "decision": steps} | {name: info[name] for name in ("side", "quantity", "decisions")}


def play(session, policy):
    """Whole episodes of all rows; the tape's fills of the agent after each decision."""
    observation, decision = session.reset(), 0
    while session.running.any():
        observation = session.step(policy.act(observation, columns(session, decision))).observation
        decision += 1
        yield decision


def own_fills(session, row):
    tape = session.market.tape
    fills = tape.fills[row, : tape.fill_count[row]]
    return fills[(fills["maker"] == 0) | (fills["taker"] == 0)]


def test_passive_twap_is_the_zero_action():
    ours, zero = session_of(), session_of()
    for _ in play(ours, PassiveTWAP()):
        pass
    zero.reset()
    while zero.running.any():
        zero.step(np.zeros((zero.num_envs, 2), np.float32))
    assert [ours.tape_hash(m) for m in range(6)] == [zero.tape_hash(m) for m in range(6)]


def test_crossing_twap_fills_each_slice_as_a_taker():
    session = session_of(num_envs=8)
    slices = session.role.decisions
    for decision in play(session, CrossingTWAP()):
        state = session.role.state
        due = state["quantity"] * decision // slices
        np.testing.assert_array_equal(state["executed"], due)
        for row in range(8):
            fills = own_fills(session, row)
            assert fills["size"].sum() == due[row]
    taken = session.role.state["executed"] - session.role.state["made"]
    # Only what the opposite touch could not fill at once may be met by others before the interval ends.
    assert taken.sum() > 0.9 * session.role.state["executed"].sum()


def test_immediate_is_done_in_one_decision():
    session = session_of(quantity=100)
    assert list(play(session, Immediate())) == [1]
    np.testing.assert_array_equal(session.role.state["executed"], 100)


def test_post_and_wait_crosses_at_the_deadline_only():
    session = session_of(num_envs=8)
    for decision in play(session, PostAndWait()):
        state = session.role.state
        if decision < DECISIONS:
            np.testing.assert_array_equal(state["made"], state["executed"])
            running = session.running
            np.testing.assert_array_equal(state["resting"][running], (state["quantity"] - state["executed"])[running])
    np.testing.assert_array_equal(state["executed"], state["quantity"])
    assert (state["made"] < state["executed"]).any()


def test_random_draws_belong_to_seed_and_decision():
    policy, seeds = Random(), np.arange(5, dtype=np.uint64)
    info = {"seed": seeds, "decision": np.full(5, 2)}
    actions = policy.act(np.zeros((5, 40), np.float32), info)
    assert actions.shape == (5, 2)
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 1).all()
    assert len(np.unique(actions)) == 10
    one = {name: column[3:4] for name, column in info.items()}
    np.testing.assert_array_equal(policy.act(np.zeros((1, 40), np.float32), one)[0], actions[3])


def test_every_policy_meets_the_same_episodes():
    seen = {}

    class Watcher(ConstantPolicy):
        """Keeps what it is shown first in each episode."""

        def act(self, observation, info):
            for m in np.flatnonzero(info["decision"] == 0):
                key = (int(info["seed"][m]), int(info["side"][m]))
                seen.setdefault(self.name, {})[key] = (int(info["context"][m]), observation[m].tobytes())
            return super().act(observation, info)

    policies = [Watcher("a", 0.0, 0.0), Watcher("b", 1.0, 1.0), Watcher("c", -0.5, -0.5)]
    results = evaluate(policies, TASK, episodes=10, num_envs=4, seed=20)
    assert seen["a"] == seen["b"] == seen["c"]
    assert len(seen["a"]) == 10
    for rows in results.values():
        assert rows.dtype == EPISODE
        assert (rows["steps"] > 0).all()
        for field in ("seed", "context", "side", "quantity"):
            np.testing.assert_array_equal(rows[field], results["a"][field])
    assert results["a"]["side"].tolist() == [1, -1] * 5
    assert results["a"]["seed"].tolist() == [20, 20, 21, 21, 22, 22, 23, 23, 24, 24]


def test_results_do_not_depend_on_the_number_of_markets_or_on_the_other_policies():
    several = evaluate(reference_policies(), TASK, episodes=6, num_envs=5)
    alone = evaluate(PassiveTWAP(), TASK, episodes=6, num_envs=2)
    np.testing.assert_array_equal(several["passive_twap"], alone["passive_twap"])


def test_episodes_reconcile_and_use_the_test_contexts():
    evaluator = Evaluator(TASK, 8)
    rows = evaluator.run([PassiveTWAP()], evaluator.plan(12))["passive_twap"]
    assert set(rows["context"]) <= set(evaluator.session.flow.bank.split("test"))
    terms = sum(rows[f"{name}_bps"] for name in ("spread", "timing", "fees", "unfilled"))
    np.testing.assert_allclose(rows["shortfall_bps"], terms, atol=1e-9)
    np.testing.assert_array_equal(rows["fill_rate"], 1.0)
    np.testing.assert_array_equal(rows["steps"], DECISIONS)
    assert not rows["truncated"].any()


def test_a_fixed_side_or_context_is_kept():
    evaluator = Evaluator({**TASK, "side": "sell", "context": 7}, 2)
    plan = evaluator.plan(4, seed=9)
    assert plan["side"].tolist() == [-1] * 4
    assert plan["context"].tolist() == [7] * 4
    assert plan["seed"].tolist() == [9, 10, 11, 12]


def test_bad_arguments_are_named():
    evaluator = Evaluator(TASK, 2)
    with pytest.raises(ValueError, match="episodes is 0; it must be at least 1"):
        evaluator.plan(0)
    with pytest.raises(ValueError, match="their names must differ"):
        evaluator.run([PassiveTWAP(), PassiveTWAP()], evaluator.plan(2))
    with pytest.raises(ValueError, match="values has shape"):
        bootstrap(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="episodes is empty"):
        compare({})


def test_bootstrap_covers_when_values_of_a_cluster_move_together():
    generator = np.random.default_rng(0)
    trials, clusters, each = 300, 40, 8
    labels = np.repeat(np.arange(clusters), each)
    covered = naive = 0
    for trial in range(trials):
        values = np.repeat(generator.normal(size=clusters), each) + generator.normal(size=clusters * each)
        estimate = bootstrap(values, labels, seed=trial, resamples=1000)
        covered += estimate.low <= 0.0 <= estimate.high
        single = bootstrap(values, np.arange(len(values)), seed=trial, resamples=200)
        naive += single.low <= 0.0 <= single.high
    assert 0.90 <= covered / trials <= 0.98
    assert naive / trials < 0.75  # without the clusters the interval would be far too short


def test_bootstrap_is_seeded_and_centred():
    values, labels = np.arange(12.0), np.repeat(np.arange(4), 3)
    one, two = bootstrap(values, labels, seed=1), bootstrap(values, labels, seed=1)
    assert one == two
    assert one.low < one.mean == values.mean() < one.high
    assert bootstrap(values, np.zeros(12)).low == pytest.approx(values.mean())  # one cluster says nothing of spread


def episodes_of(shift, contexts=10):
    rows = np.zeros(40, EPISODE)
    rows["context"] = np.arange(40) % contexts
    rows["seed"], rows["side"], rows["quantity"], rows["fill_rate"] = np.arange(40), 1, 64, 1.0
    rows["shortfall_bps"] = np.random.default_rng(0).normal(size=40) + shift
    return rows


def test_compare_pairs_equal_episodes():
    episodes = {"learner": episodes_of(-0.5), "crossing_twap": episodes_of(0.0), "passive_twap": episodes_of(-0.25)}
    learner, crossing, passive = compare(episodes)
    assert learner.differences["crossing_twap"] == pytest.approx((-0.5, -0.5, -0.5))
    assert learner.differences["passive_twap"] == pytest.approx((-0.25, -0.25, -0.25))
    assert list(crossing.differences) == ["passive_twap"]
    assert passive.shortfall_bps.low < passive.shortfall_bps.mean < passive.shortfall_bps.high
    episodes["passive_twap"]["seed"] += np.uint64(1)
    with pytest.raises(ValueError, match="'passive_twap' are not those of 'learner'"):
        compare(episodes)


def test_reports(tmp_path):
    from rich.console import Console

    episodes = {"learner": episodes_of(-0.5), "crossing_twap": episodes_of(0.0)}
    summaries = compare(episodes)
    console = Console(width=160, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(comparison_table(summaries, "a title", 40))
    console.file.close()
    text = console.export_text()
    assert "[-0.50, -0.50]" in text
    assert "minus crossing TWAP" in text
    path = tmp_path / "deep" / "results.json"
    write_json(path, comparison_json(episodes, summaries, {"seed": 1}))
    read = json.loads(path.read_text())
    assert read["seed"] == 1
    assert read["policies"][0]["differences"]["crossing_twap"][0] == pytest.approx(-0.5)
    assert len(read["episodes"]["learner"]["shortfall_bps"]) == 40
    pytest.importorskip("matplotlib")
    assert write_picture(tmp_path / "results.png", {"a title": summaries, "another": summaries})
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "out.txt", "results.png"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_json(path, {"not": object()})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
