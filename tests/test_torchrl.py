"""The examples on TorchRL learn, and ``ForTorchRL`` changes only what TorchRL cannot take."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from tradefm_gym import parallel_env
from tradefm_gym.envs.torchrl import ForTorchRL

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = ("torchrl_execution", "torchrl_market")
ROLES = ["market_making", "execution", {"role": "execution", "side": "sell"}]
TASK = {"flow": "zero_intelligence", "decisions": 8}
NOW = np.array([1.0, 1.0], np.float32)  # all of the order at once


@pytest.fixture
def torchrl():
    reason = "TorchRL is not installed here; make integrations runs this where it is"
    return pytest.importorskip("torchrl", reason=reason)


def played(env, step):
    """What an episode brings that goes on after the executors have left, infos apart."""
    seen, _ = env.reset(seed=3)
    brought = [seen]
    while env.agents:
        actions = {agent: np.zeros(4, np.float32) if agent == "maker_0" else NOW for agent in step(env)}
        brought.append(env.step(actions)[:4])
    return brought


def test_the_market_is_the_same_and_goes_on_when_agents_have_left():
    plain = played(parallel_env(ROLES, **TASK), lambda env: env.agents)
    wrapped = played(ForTorchRL(parallel_env(ROLES, **TASK)), lambda env: env.possible_agents)
    assert len(plain) == 9 and len(plain[-1][0]) == 1
    np.testing.assert_equal(wrapped, plain)


@pytest.mark.parametrize("discrete", [False, True])
def test_infos_are_masks_only(discrete):
    roles = [{"role": role, "discrete": discrete} for role in ("market_making", "execution")]
    env, inner = ForTorchRL(parallel_env(roles, **TASK)), parallel_env(roles, **TASK)
    infos, all_infos = env.reset(seed=3)[1], inner.reset(seed=3)[1]
    for _ in range(3):
        for agent in env.agents:
            assert list(infos[agent]) == ["action_mask"] * discrete
            if discrete:
                np.testing.assert_array_equal(infos[agent]["action_mask"], all_infos[agent]["action_mask"])
        nothing = {agent: np.zeros_like(env.action_space(agent).sample()) for agent in env.agents}
        infos, all_infos = env.step(nothing)[-1], inner.step(nothing)[-1]


def test_actions_of_strangers_are_still_refused():
    env = ForTorchRL(parallel_env(ROLES, **TASK))
    env.reset(seed=3)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    with pytest.raises(ValueError, match="actions names 'maker_9', which does not exist"):
        env.step(actions | {"maker_9": NOW})


@pytest.mark.filterwarnings("ignore:options has the unknown key 'options'")  # the checker sends one
def test_it_keeps_to_the_interface_of_pettingzoo():
    parallel_api_test(ForTorchRL(parallel_env(ROLES, **TASK)), num_cycles=30)


@pytest.mark.filterwarnings("ignore")  # of TorchRL's own making
@pytest.mark.parametrize("name", NAMES)
def test_an_example_keeps_to_its_specs_and_learns(torchrl, name, monkeypatch):
    import torch
    from torchrl.envs import check_env_specs

    example = runpy.run_path(str(EXAMPLES / f"{name}.py"))
    markets = {"markets": 4} if name == "torchrl_execution" else {}
    env = example["make_env"]("zero_intelligence", **markets)
    check_env_specs(env, seed=3)
    states, step = [], torch.optim.Adam.step

    def watched(optimiser):
        weights = [one for group in optimiser.param_groups for one in group["params"]]
        assert all(one.grad is not None and one.grad.isfinite().all() for one in weights)
        states.append([one.detach().clone() for one in weights])
        step(optimiser)
        assert any((one != old).any() for one, old in zip(weights, states[-1], strict=True))

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    told = example["main"](rounds=2, **markets)
    rewards = [value for one in told for value in (one.values() if isinstance(one, dict) else [one])]
    assert len(states) >= 2 and np.isfinite(rewards).all() and np.any(rewards)


@pytest.mark.filterwarnings("ignore")  # of TorchRL's own making
def test_rows_of_the_vector_environment_begin_anew(torchrl):
    env = runpy.run_path(str(EXAMPLES / "torchrl_execution.py"))["make_env"]("zero_intelligence", 3)
    data = env.rollout(150, break_when_any_done=False)  # of random actions, so that rows end at different times
    ended = data["next", "done"][..., 0]
    assert ended.sum(1).min() >= 2 and not ended.all(0).any()
    seen, after = data["observation"], data["next", "observation"]
    same = (seen[:, 1:] == after[:, :-1]).all(-1)
    assert same[~ended[:, :-1]].all() and not same[ended[:, :-1]].any()
    assert (data["next", "reward"] != 0).float().mean() > 0.1
