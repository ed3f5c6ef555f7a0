"""The learner in one file on the batched session: its sums by hand, and a few updates."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from tradefm_gym.agents import cleanrl_ppo
from tradefm_gym.agents.cleanrl_ppo import (
    ActorCritic,
    Arguments,
    Rollout,
    Tanh,
    advantages,
    draw,
    main,
    train,
    update,
)

TINY = {"decisions": 6, "num_envs": 8, "rollout": 8, "minibatches": 2, "epochs": 2, "width": 8}


def rollout_of(reward, value, ended, last, active=None):
    reward, value, ended = (torch.tensor(column, dtype=torch.float32)[:, None] for column in (reward, value, ended))
    active = torch.ones_like(reward) if active is None else torch.tensor(active, dtype=torch.float32)[:, None]
    zeros = torch.zeros(len(reward), 1, 1)
    return Rollout(zeros, zeros, zeros[..., 0], reward, value, ended, active, torch.tensor([last]))


def test_advantages_are_sums_that_stop_at_the_end_of_an_episode():
    rollout = rollout_of([1.0, 2.0, 4.0], [0.5, 0.25, 1.0], [0, 1, 0], 8.0)
    expected = [(1 + 0.25 - 0.5) + 0.5 * (2 - 0.25), 2 - 0.25, 4 + 8 - 1]
    assert advantages(rollout, 1.0, 0.5)[:, 0].tolist() == expected


def test_an_untrained_policy_means_the_zero_action():
    model = ActorCritic(5, 2, 8, 0.5)
    policy = model.policy(torch.randn(4, 5))
    assert not policy.mean.any()
    assert torch.allclose(policy.stddev, torch.tensor(0.5))
    action, log_probability, value = draw(model, np.zeros((4, 5), np.float32))
    assert (action.shape, log_probability.shape, value.shape) == ((4, 2), (4,), (4,))


def test_an_update_learns_what_pays_and_passes_over_who_had_nothing_to_decide():
    torch.manual_seed(0)
    model, settings = ActorCritic(1, 1, 8, 0.5), Arguments(minibatches=4, epochs=4, learning_rate=1e-2)
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    for _ in range(10):
        seen = np.zeros((256, 1), np.float32)
        action, log_probability, value = draw(model, seen)
        active = (torch.arange(256) % 2).float()
        reward = torch.where(active > 0, -(action[:, 0] - 0.6).square(), 100.0 * action[:, 0].neg())
        parts = [torch.as_tensor(seen), action, log_probability, reward, value, torch.ones(256), active]
        update(model, optimizer, Rollout(*(part[None] for part in parts), torch.zeros(256)), settings)
    assert model.policy(torch.zeros(1, 1)).mean.item() > 0.2


def test_policy_and_value_learn_side_by_side_as_they_do_in_turn(monkeypatch):
    class InTurn:
        def __init__(self, threads):
            self.result = None

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def submit(self, call, *arguments):
            done = call(*arguments)
            self.result = lambda: done
            return self

    one = train(Arguments(steps=200, **TINY))
    monkeypatch.setattr(cleanrl_ppo, "ThreadPoolExecutor", InTurn)
    two = train(Arguments(steps=200, **TINY))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_the_tangent_and_its_slope_are_those_of_torch():
    x = torch.linspace(-9, 9, 10_001, requires_grad=True)
    (slope,) = torch.autograd.grad(Tanh()(x).sum(), x)
    assert torch.allclose(Tanh()(x), x.tanh(), atol=3e-7, rtol=0)
    assert torch.allclose(slope, 1 - x.tanh() ** 2, atol=1e-6, rtol=0)


def test_densities_and_the_loss_are_those_of_a_normal_distribution():
    torch.manual_seed(0)
    model, settings = ActorCritic(5, 2, 8, 0.5), Arguments(minibatches=1, epochs=1, entropy=0.1)
    torch.nn.init.normal_(model.actor[-1].weight)
    seen = torch.randn(6, 2, 5)
    policy = model.policy(seen)
    action = policy.sample()
    density = policy.log_prob(action).sum(-1).detach()
    assert torch.allclose(model.log_probability(policy.mean, action), density, atol=1e-6)
    reward, value = torch.randn(6, 2), model.value(seen).detach()
    rollout = Rollout(seen, action, density - 0.3, reward, value, torch.ones(6, 2), torch.ones(6, 2), torch.zeros(2))
    gains = reward - value
    missed = gains.square().mean()  # of values whose targets are the rewards
    gains = (gains - gains.mean()) / gains.std(correction=0)
    ratio = torch.tensor(0.3).exp()
    gained = torch.minimum(ratio * gains, ratio.clamp(0.8, 1.2) * gains).mean()
    entropy = policy.entropy().sum(-1).mean()
    loss = update(model, torch.optim.SGD(model.parameters(), 0.0), rollout, settings)
    assert loss == pytest.approx(float((0.5 * missed - gained - 0.1 * entropy).detach()), abs=1e-5)


@pytest.mark.parametrize("role", ["execution", "market_making", "trading"])
def test_a_few_updates_in_every_role_are_the_same_twice(role):
    told = [[], []]
    models = [train(Arguments(role=role, steps=200, **TINY), lambda *news, i=i: told[i].append(news)) for i in range(2)]
    assert [steps for steps, _ in told[0]] == [64, 128, 192, 256]
    assert np.isfinite([mean for _, mean in told[0]]).all()
    assert told[0] == told[1]
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, two) and torch.isfinite(one).all()
    assert any(p.any() for p in models[0].actor[-1].parameters())


def test_it_prints(capsys):
    main(Arguments(steps=64, **TINY))
    assert "64 decisions, mean return" in capsys.readouterr().out


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="rollout is 0; it must be at least 1"):
        Arguments(rollout=0)
    with pytest.raises(ValueError, match="minibatches is 9; it must be at most num_envs times rollout"):
        Arguments(num_envs=2, rollout=4, minibatches=9)
