"""Learners in markets of several agents: what they keep and count, and short runs of the two examples."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from rich.console import Console
from tradefm_gym.agents.cleanrl_ppo import ActorCritic, Arguments, Rollout, draw
from tradefm_gym.agents.shared_policy import SharedPolicy, measured

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingSession

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {"decisions": 6, "num_envs": 8, "rollout": 8, "minibatches": 2, "epochs": 2, "width": 8}


def example(name):
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="ippo")
def _ippo():
    return example("ippo")


def tiny(ippo, **changes):
    return ippo.Settings(
        **{"num_envs": 4, "decisions": 6, "updates": 3, "markets": 8, "ppo": Arguments(**TINY)} | changes
    )


def test_how_far_an_update_moved_is_measured_by_hand():
    torch.manual_seed(0)
    model, seen = ActorCritic(2, 1, 8, 0.5), np.random.default_rng(0).normal(size=(4096, 2)).astype(np.float32)
    action, log_probability, value = draw(model, seen)
    reward, active = torch.as_tensor(seen[:, 0]), torch.ones(4096)
    active[::4] = 0.0  # who had nothing to decide is not counted, whatever it says
    log_probability[::4] = 99.0
    parts = (torch.as_tensor(seen), action, log_probability, reward, value, torch.ones(4096), active)
    rollout = Rollout(*(part[None] for part in parts), torch.zeros(4096))
    still = measured(model, rollout, 0.25, Arguments())
    assert (still.loss, still.kl, still.clipped) == (0.25, 0.0, 0.0)
    assert still.entropy == pytest.approx(np.log(0.5 * np.sqrt(2 * np.pi * np.e)), rel=1e-6)
    used = active.bool()
    missed = (reward - value)[used].var() / reward[used].var()
    assert still.explained == pytest.approx(1.0 - missed.item(), abs=1e-5)
    with torch.no_grad():
        model.actor[-1].bias += 0.1
    moved = measured(model, rollout, 0.25, Arguments())
    assert moved.kl == pytest.approx(0.1**2 / (2 * 0.5**2), rel=0.2)  # of two Gaussians with one deviation
    assert 0.0 < moved.clipped < 0.5


def test_seats_of_one_network_learn_from_what_all_have_met():
    roles = [MarketMakingRole(decisions=6), ExecutionRole(decisions=6), ExecutionRole(decisions=6)]
    session = TradingSession(4, roles, "zero_intelligence")
    session.seed(np.ones(4, bool), np.arange(4))
    seen = session.reset_roles()
    policy = SharedPolicy(session, (1, 2), Arguments(**TINY))
    actions = policy.act(seen)
    assert [action.shape for action in actions] == [(4, 2), (4, 2)] and np.abs(actions).max() <= 1.0
    columns = np.arange(12.0).reshape(3, 4)
    policy.keep(columns, columns > 9, columns < 11)
    observation, _, _, reward, _, ended, active = policy.columns[0]
    np.testing.assert_array_equal(observation, np.concatenate(seen[1:]))
    assert reward.tolist() == list(range(4, 12))
    assert (ended.tolist(), active.tolist()) == ([0.0] * 6 + [1.0] * 2, [1.0] * 7 + [0.0])
    before = policy.model.critic[0].weight.clone()
    assert np.isfinite(policy.learn(seen)).all() and not policy.columns
    assert not torch.equal(before, policy.model.critic[0].weight)


def test_what_is_learned_from_adds_up_to_what_is_paid(ippo):
    market = ippo.Market(tiny(ippo))
    generator = np.random.default_rng(0)
    felt, returns, differs = np.zeros((3, 4)), [[] for _ in range(3)], False
    while not returns[0]:
        shapes = [(4, *role.action_space.shape) for role in market.session.roles]
        sums = market.sums.copy()
        one, ended, active, found = market.decide([generator.uniform(-1, 1, s).astype(np.float32) for s in shapes])
        assert not one[~active].any()
        felt += one
        differs |= bool(np.abs(felt - sums)[1:].max() > 1.0)
        for seat, values in enumerate(found):
            returns[seat] += [(row, value) for row, value in zip(np.flatnonzero(ended[seat]), values, strict=True)]
    assert [len(each) for each in returns] == [4, 4, 4]
    for seat, each in enumerate(returns):
        for row, value in each:
            assert felt[seat, row] == pytest.approx(value, abs=1e-9)
    assert differs and np.isfinite(felt).all()
    assert not market.sums.any() and not market.marks.any()  # the next episodes begin at nothing


def test_returns_of_a_set_of_policies_are_those_of_one_whole_episode(ippo):
    settings = tiny(ippo)
    found = ippo.play(settings, {"maker": "zero", "executor": "zero"})
    roles = [MarketMakingRole(decisions=6), ExecutionRole(decisions=6), ExecutionRole(decisions=6)]
    session, sums = TradingSession(8, roles, settings.flow, split="test"), np.zeros((3, 8))
    session.seed(np.ones(8, bool), np.arange(8) + (1 << 32))
    session.reset_roles()
    while session.running.any():
        results = session.step_roles([np.zeros((8, 4)), np.zeros((8, 2)), np.zeros((8, 2))])
        sums += np.stack([result.reward for result in results])
    np.testing.assert_allclose(found, sums, atol=1e-12)
    assert not np.allclose(found, ippo.play(settings, {"maker": "zero", "executor": "random"}))


def test_a_fall_is_counted_in_its_intervals(ippo):
    assert ippo.worst_fall([[0.0, 3.0], [1.0, 4.0], [2.0, 1.0]]) < 0
    assert ippo.worst_fall([[0.0, 3.0], [2.0, 4.0], [1.0, 3.0], [3.0, 1.0]]) == pytest.approx(1.0 / 5.0)
    assert ippo.worst_fall([[0.0, 3.0]]) == 0.0


def test_a_verdict_names_what_went_wrong(ippo):
    up = {word: [0.5, 0.1] for word in ("return", "over_zero", "over_random", "alone_over_zero")}
    found = {agent: dict(up) for agent in ippo.AGENTS}
    steady = {
        "finite": True, "largest_kl": {"maker": 0.02, "executor": 0.01}, "worst_fall": dict.fromkeys(ippo.AGENTS, 0.9),
        "entropy": {"maker": [2.9, 1.7, 2.9], "executor": [1.4, 0.4, 1.5]},
        "gain": {agent: [0.4, 0.1] for agent in ippo.AGENTS},
    }  # fmt: skip
    assert all(ippo.verdict(found, steady).values())
    wrong = {
        "finite": {"finite": False}, "KL": {"largest_kl": {"maker": 0.02, "executor": 0.06}},
        "entropy": {"entropy": {"maker": [2.9, -6.1, 2.9], "executor": [1.4, 0.4, 1.5]}},
        "no fall": {"worst_fall": dict.fromkeys(ippo.AGENTS, 2.0)},
        "gain of each agent": {"gain": {**steady["gain"], "executor_1": [0.05, 0.1]}},
    }  # fmt: skip
    for name, change in wrong.items():
        assert [point for point, holds in ippo.verdict(found, steady | change).items() if not holds] == [name]
    grown = {"entropy": {"maker": [2.9, 2.9, 5.0], "executor": [1.4, 0.4, 1.5]}}
    assert not ippo.verdict(found, steady | grown)["entropy"]
    found["executor_0"]["over_random"] = [0.1, 0.2]
    assert not ippo.verdict(found, steady)["better than zero and random"]


def test_one_maker_and_two_executors_learn_are_measured_and_written(ippo, tmp_path, capsys):
    told = [ippo.main(tiny(ippo, updates=11, out=tmp_path / name)) for name in ("one", "two")]
    text = capsys.readouterr().out
    assert "update   11: mean return, bps: maker" in text and "worst fall of a tenth" in text
    read = json.loads((tmp_path / "one" / "ippo.json").read_text())
    assert read["stability"] == told[0]["stability"] == told[1]["stability"]  # equal seeds, equal runs
    assert read["stability"]["finite"] and len(read["updates"]) == 11
    assert [len(found) for found in read["stability"]["tenths"].values()] == [10, 10, 10]
    for agent in ippo.AGENTS:
        assert set(read["held_out"][agent]) == {"return", "over_zero", "over_random", "alone_over_zero"}
        assert np.isfinite(list(read["held_out"][agent].values())).all()
    assert max(read["stability"]["largest_kl"].values()) > 0
    assert read["stable"]["finite"] and len(read["stable"]) == 6
    pytest.importorskip("matplotlib")
    assert (tmp_path / "one" / "ippo.png").read_bytes().startswith(b"\x89PNG")


def test_a_maker_learns_against_its_past(capsys):
    module = example("self_play")
    settings = module.Settings(num_envs=4, decisions=6, updates=3, keep=2, markets=16, ppo=Arguments(**TINY))
    versions = module.train(settings, Console(width=100))
    assert len(versions) == 3  # the first, the second update's and the last
    assert not versions[0].actor[-1].weight.any() and versions[2].actor[-1].weight.any()
    found = module.main(settings)
    assert list(found) == ["its first version", "its last version", "fixed_spread", "avellaneda_stoikov"]
    assert np.isfinite(list(found.values())).all()
    assert found == module.main(settings)
    assert "against fixed_spread" in capsys.readouterr().out
    profit, difference, half = module.meet(settings, versions[0], versions[0])
    assert abs(difference) < 4 * half and np.isfinite(profit)
