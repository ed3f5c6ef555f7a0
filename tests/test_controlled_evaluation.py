"""The market without the agent as a control variate: what it takes out of a mean, and that it adds nothing."""

import json

import numpy as np
import pytest
from rich.console import Console
from tradefm_gym.agents import CrossingTWAP, Evaluator, Immediate, PassiveTWAP, compare, controlled, evaluate
from tradefm_gym.agents.evaluation import CONTROLLED_EPISODE, CONTROLS, EPISODE, NOBODY
from tradefm_gym.agents.report import comparison_json, controlled_table

from tradefm_gym import ExecutionRole, TradingSession

TASK = {"flow": "zero_intelligence", "decisions": 16}


def synthetic(n, generator):
    """Values of mean 3 and variance 4 + 1 + 1, of which two controls explain 5."""
    controls = generator.normal(size=(n, 2))
    return 3.0 + controls @ np.array([2.0, -1.0]) + generator.normal(size=n), controls


def test_a_known_part_of_the_variance_goes():
    values, controls = synthetic(4000, np.random.default_rng(0))
    found = controlled(values, controls, np.arange(4000))
    assert found.variance == pytest.approx(1 / 6, rel=0.1)
    assert (found.error / found.plain_error) ** 2 == pytest.approx(found.variance, rel=1e-3)
    assert found.plain == values.mean()
    assert found.error == pytest.approx(4000**-0.5, rel=0.05)
    assert abs(found.mean - 3.0) < 4 * found.error
    useless = controlled(values, np.random.default_rng(1).normal(size=(4000, 3)), np.arange(4000))
    assert useless.variance == pytest.approx(1.0, abs=0.01)


def test_few_values_leave_the_mean_unbiased_and_the_error_true():
    # Values whose slope grows with the control: slopes of the same values would bias the mean by -3 / n times 2.
    generator, n, trials = np.random.default_rng(2), 12, 4000
    means, errors, same = np.zeros(trials), np.zeros(trials), np.zeros(trials)
    for trial in range(trials):
        control = generator.normal(size=(n, 1))
        values = control[:, 0] ** 3 + 2.0 * control[:, 0] ** 2 - 2.0 + 0.1 * generator.normal(size=n)
        found = controlled(values, control, np.arange(n), folds=n)
        means[trial], errors[trial] = found.mean, found.error
        slope = np.cov(control[:, 0], values)[0, 1] / control.var(ddof=1)
        same[trial] = (values - slope * control[:, 0]).mean()
    noise = means.std() / trials**0.5
    assert abs(means.mean()) < 4 * noise
    assert abs(same.mean()) > 6 * same.std() / trials**0.5
    assert (errors**2).mean() == pytest.approx(means.var(), rel=0.35)


def test_errors_know_clusters():
    generator = np.random.default_rng(3)
    values, controls = synthetic(4000, generator)
    values += np.repeat(generator.normal(size=40), 100)
    found = controlled(values, controls, np.repeat(np.arange(40), 100))
    assert found.error == pytest.approx((1 / 40) ** 0.5, rel=0.3)  # far above 4000^-0.5
    alone = controlled(values, controls, np.arange(4000))
    assert alone.error < 0.3 * found.error


def test_the_control_is_the_twin_of_each_episode():
    evaluator = Evaluator(TASK, 5)
    plan = evaluator.plan(12, seed=30, paired=False)
    rows = evaluator.run([CrossingTWAP(), Immediate()], plan, control=True)
    session = TradingSession(12, ExecutionRole(decisions=16), TASK["flow"], split="test", counterfactual=True)
    session.seed(np.ones(12, bool), plan["seed"])
    session.reset(options={"context": plan["context"].tolist(), "side": plan["side"].tolist()})
    mids = [session.start_info()["arrival_mid"]]
    for _ in range(15):
        session.step(np.tile(np.float32([0.0, 1.0]), (12, 1)))
        mids.append(session.step_info()["twin_mid"])
    moved = 1e4 * plan["side"] * (np.array(mids) / mids[0] - 1.0)
    expected = moved.reshape(CONTROLS, 4, 12).mean(axis=1).T
    for found in rows.values():
        assert found.dtype == CONTROLLED_EPISODE
        np.testing.assert_allclose(found["control_bps"], expected, rtol=1e-12, atol=1e-12)
    plain = evaluator.run([CrossingTWAP()], plan)["crossing_twap"]  # a control changes no episode
    assert plain.dtype == EPISODE
    for name in EPISODE.names:
        np.testing.assert_array_equal(plain[name], rows["crossing_twap"][name])


@pytest.mark.parametrize("schedule", ["twap", "vwap", "pov"])
def test_nobody_trades_nothing_before_the_deadline(schedule):
    session = TradingSession(4, ExecutionRole(decisions=8, schedule=schedule), "hawkes")
    session.seed(np.ones(4, bool), np.arange(4))
    observation = session.reset()
    for _ in range(7):
        observation = session.step(NOBODY.act(observation, {})).observation
    assert session.market.accounts["volume"][:, 0].max() == 0
    assert not session.role.state["messages"].any()


def test_sides_are_drawn_and_must_be_two():
    evaluator = Evaluator(TASK, 2)
    plan = evaluator.plan(400, seed=8, paired=False)
    assert plan["seed"].tolist() == list(range(8, 408))
    assert 160 < (plan["side"] == 1).sum() < 240
    assert evaluator.plan(40, seed=8, paired=False).tolist() == plan[:40].tolist()
    with pytest.raises(ValueError, match="plan has one side only; with control it must have both"):
        evaluate(PassiveTWAP(), {**TASK, "side": "buy"}, episodes=4, num_envs=2, control=True)


def test_a_short_evaluation_is_surer_of_its_means(tmp_path):
    episodes = evaluate([CrossingTWAP(), PassiveTWAP()], TASK, episodes=256, control=True)
    summaries = compare(episodes)
    for summary, other in zip(summaries, ("passive_twap", "crossing_twap"), strict=True):
        assert list(summary.controlled) == ["shortfall", "impact", f"minus {other}"]
        found = summary.controlled["shortfall"]
        assert found.plain == pytest.approx(summary.shortfall_bps.mean)
        assert found.variance < 0.4 and found.error < 0.8 * found.plain_error
        assert abs(found.mean - found.plain) < 3 * found.plain_error
        assert summary.controlled["impact"].variance < 0.7
    console = Console(width=120, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(controlled_table(summaries, "a title"))
    console.file.close()
    assert f"{summaries[0].controlled['shortfall'].mean:.2f} ±" in console.export_text()
    read = json.loads(json.dumps(comparison_json(episodes, summaries, {})))
    assert read["policies"][0]["controlled"]["shortfall"]["variance"] < 0.4
    assert np.shape(read["episodes"]["passive_twap"]["control_bps"]) == (256, CONTROLS)
    assert compare(evaluate(PassiveTWAP(), TASK, episodes=4, num_envs=2))[0].controlled == {}
    one = compare(evaluate(PassiveTWAP(), {**TASK, "context": 7}, episodes=8, num_envs=4, control=True))
    assert one[0].controlled["shortfall"].plain_error > 0  # seeds stand for themselves where there is one context


def test_wrong_shapes_are_named():
    for values, controls, clusters in (
        (np.zeros(3), np.zeros(3), np.arange(3)),
        (np.zeros(3), np.zeros((2, 1)), np.arange(3)),
        (np.zeros(3), np.zeros((3, 1)), np.arange(2)),
    ):
        with pytest.raises(ValueError, match="values, controls and clusters have shapes"):
            controlled(values, controls, clusters)
    with pytest.raises(ValueError, match="clusters has 1 labels and folds is 10; both must be at least 2"):
        controlled(np.zeros(3), np.zeros((3, 1)), np.zeros(3))
