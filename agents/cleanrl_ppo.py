"""PPO in one file, in the manner of CleanRL, on the batched session: no library between learner and market.

    python -m tradefm_gym.agents.cleanrl_ppo --role trading --steps 200000

Schulman and others, "Proximal policy optimization algorithms" (2017), with generalised advantages (2016): a Gaussian
policy whose mean begins at the zero action, clipped ratios, a value network apart. A row that ended begins its next
episode at once, so all N markets act at every decision. Nothing here knows a role's name, and ``examples/ippo.py``
learns with the same parts.

On a processor nearly all of a learner's time goes into the epochs, whose minibatches (a quarter of 8,192 decisions)
are large enough that the products of matrices count and not the calls; with thousands of markets there is ``--device
cuda``. Policy and value share nothing but the norm of their gradients, so each learns in a thread of its own. Torch
itself should have one thread: its idle threads spin on the cores that the markets need.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import tyro
from gymnasium import spaces
from rich.console import Console
from torch import nn
from torch.distributions import Normal

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}


@dataclass(frozen=True)
class Arguments:
    """What to train, and how."""

    role: Literal["execution", "market_making", "trading"] = "execution"
    flow: str = "zero_intelligence"
    device: str = "cpu"  # of the learner's networks, and of the flow's with --flow tradefm
    decisions: int = 64  # of an episode
    steps: int = 200_000  # decisions of all markets together
    num_envs: int = 256
    rollout: int = 32  # decisions of each market between two updates
    minibatches: int = 4
    epochs: int = 4
    learning_rate: float = 1e-3  # falls to 0 linearly
    gamma: float = 1.0  # tasks have a deadline, and what they pay is a plain sum
    gae_lambda: float = 0.97
    clip: float = 0.2
    entropy: float = 0.0
    value_weight: float = 0.5
    gradient_norm: float = 0.5
    width: int = 64  # of two hidden layers, policy and value apart
    deviation: float = 0.5  # of an untrained policy's actions
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("decisions", "steps", "num_envs", "rollout", "minibatches", "epochs", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.minibatches > self.num_envs * self.rollout:
            raise ValueError(f"minibatches is {self.minibatches}; it must be at most num_envs times rollout")


class ActorCritic(nn.Module):
    """A Gaussian policy and a value, two networks; its most likely action at first is the zero action.

    Args:
        observations: numbers that are seen.
        actions: numbers of an action, in [-1, 1].
        width: of the hidden layers.
        deviation: standard deviation of an untrained policy's actions.
    """

    def __init__(self, observations: int, actions: int, width: int, deviation: float):
        super().__init__()
        self.actor = _network(observations, actions, width, 0.0)
        self.critic = _network(observations, 1, width, 1.0)
        self.log_deviation = nn.Parameter(torch.full((actions,), math.log(deviation)))

    def policy(self, observation: torch.Tensor) -> Normal:
        """Distribution of the actions (n, act) of observations (n, obs)."""
        return Normal(self.actor(observation), self.log_deviation.exp(), validate_args=False)

    def log_probability(self, mean: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Logarithm of the density (n,) of actions (n, act) with these means, in fewer passes than ``Normal``."""
        scaled = (action - mean) * (-self.log_deviation).exp()
        return -0.5 * scaled.square().sum(-1) - (self.log_deviation + _HALF_LOG_TWO_PI).sum()

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """What is still to come of the return (n,)."""
        return self.critic(observation).squeeze(-1)


class Tanh(nn.Module):
    """The hyperbolic tangent to within 2e-7, by a sigmoid: torch's own takes a third of a learner's time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of a tensor of any shape."""
        return _Tanh.apply(x)  # type: ignore[return-value]


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(x + x).mul_(2.0).sub_(1.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient):
        (y,) = ctx.saved_tensors
        return gradient * (1.0 - y * y)


class Rollout(NamedTuple):
    """Decisions of one kind of agent, float32."""

    observation: torch.Tensor  # (T, M, obs)
    action: torch.Tensor  # (T, M, act), as drawn: before it was clipped to the space
    log_probability: torch.Tensor  # (T, M)
    reward: torch.Tensor  # (T, M)
    value: torch.Tensor  # (T, M)
    ended: torch.Tensor  # (T, M), 1 where the decision was its episode's last
    active: torch.Tensor  # (T, M), 1 where there was a decision to make
    last_value: torch.Tensor  # (M,), of what is seen after the rollout


def advantages(rollout: Rollout, gamma: float, gae_lambda: float) -> torch.Tensor:
    """Generalised advantages (T, M); nothing is carried over the end of an episode."""
    result, running, following = (
        torch.zeros_like(rollout.reward),
        torch.zeros_like(rollout.last_value),
        rollout.last_value,
    )
    for t in range(len(rollout.reward) - 1, -1, -1):
        goes_on = 1.0 - rollout.ended[t]
        error = rollout.reward[t] + gamma * following * goes_on - rollout.value[t]
        running = error + gamma * gae_lambda * goes_on * running
        result[t], following = running, rollout.value[t]
    return result


def update(model: ActorCritic, optimizer: torch.optim.Optimizer, rollout: Rollout, arguments: Arguments) -> float:
    """Some epochs of clipped steps on one rollout; the mean loss."""
    gains = advantages(rollout, arguments.gamma, arguments.gae_lambda)
    used = rollout.active.flatten().nonzero().squeeze(-1)
    gains, targets = gains.flatten()[used], (gains + rollout.value).flatten()[used]
    gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-8)
    columns = (rollout.observation, rollout.action, rollout.log_probability)
    seen, action, before = (column.flatten(0, 1).index_select(0, used) for column in columns)
    losses = []
    with ThreadPoolExecutor(1) as beside:
        for _ in range(arguments.epochs):
            for part in torch.randperm(len(gains)).to(gains.device).tensor_split(arguments.minibatches):
                optimizer.zero_grad()
                missed = beside.submit(_learn_value, model, seen, targets, part, arguments)
                gained = _learn_policy(model, seen, action, before, gains, part, arguments)
                losses.append(missed.result() + gained)
                nn.utils.clip_grad_norm_(model.parameters(), arguments.gradient_norm)
                optimizer.step()
    return float(torch.stack(losses).mean())


def _learn_policy(
    model: ActorCritic,
    seen: torch.Tensor,
    action: torch.Tensor,
    before: torch.Tensor,
    gains: torch.Tensor,
    part: torch.Tensor,
    arguments: Arguments,
) -> torch.Tensor:
    """Gradients of the policy's part of the loss on a minibatch of decisions, and the loss."""
    action, before, gains = (column.index_select(0, part) for column in (action, before, gains))
    ratio = (model.log_probability(model.actor(seen.index_select(0, part)), action) - before).exp()
    clipped = ratio.clamp(1.0 - arguments.clip, 1.0 + arguments.clip)
    entropy = (model.log_deviation + 0.5 + _HALF_LOG_TWO_PI).sum()
    loss = -torch.minimum(ratio * gains, clipped * gains).mean() - arguments.entropy * entropy
    loss.backward()
    return loss.detach()


def _learn_value(
    model: ActorCritic, seen: torch.Tensor, targets: torch.Tensor, part: torch.Tensor, arguments: Arguments
) -> torch.Tensor:
    """The same of the value."""
    missed = model.value(seen.index_select(0, part)) - targets.index_select(0, part)
    loss = arguments.value_weight * missed.square().mean()
    loss.backward()
    return loss.detach()


class Learner:
    """N markets, the network that plays them, and what both are in the midst of.

    Args:
        arguments: what to train, and how.
    """

    def __init__(self, arguments: Arguments):
        torch.manual_seed(arguments.seed)
        self.arguments, n = arguments, arguments.num_envs
        role = ROLES[arguments.role](decisions=arguments.decisions)
        served = {"device": arguments.device} if arguments.flow == "tradefm" else None
        self.session = session = TradingSession(n, role, arguments.flow, flow_options=served)
        session.seed(np.ones(n, np.bool_), np.arange(n) + (arguments.seed << 32))
        self.observation, self.sums = session.reset(), np.zeros(n)
        actions = spaces.flatdim(role.action_space)
        model = ActorCritic(self.observation.shape[1], actions, arguments.width, arguments.deviation)
        self.device, self.model = torch.device(arguments.device), model.to(arguments.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), arguments.learning_rate, eps=1e-5, fused=True)

    def improve(self, learning_rate: float) -> list[float]:
        """Plays one rollout and learns from it; returns of the episodes that ended."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        rollout, returns = self._play()
        update(self.model, self.optimizer, rollout, self.arguments)
        return returns

    @torch.no_grad()
    def _play(self) -> tuple[Rollout, list[float]]:
        """Decisions of all rows, and the returns of the episodes that ended; ``sums`` of the others go on."""
        session, model, (n, numbers) = self.session, self.model, self.observation.shape
        length, actions = self.arguments.rollout, len(model.log_deviation)
        seen = torch.empty(length + 1, n, numbers, device=self.device)
        mean = torch.empty(length, n, actions, device=self.device)
        chance = torch.randn(length, n, actions).to(self.device) * model.log_deviation.exp()
        reward, ended = (np.zeros((length, n), np.float32) for _ in range(2))
        returns: list[float] = []
        for t in range(length):
            seen[t] = torch.as_tensor(self.observation)
            mean[t] = model.actor(seen[t])
            result = session.step((mean[t] + chance[t]).clamp(-1.0, 1.0).cpu().numpy())
            over = result.terminated | result.truncated
            reward[t], ended[t], self.observation = result.reward, over, result.observation
            self.sums += result.reward
            if over.any():
                returns += self.sums[over].tolist()
                self.sums[over] = 0.0
                self.observation = session.reset(over)
        seen[length] = torch.as_tensor(self.observation)
        action, value = mean + chance, model.value(seen)  # what playing does not need, at once
        earned, over = (torch.as_tensor(column, device=self.device) for column in (reward, ended))
        told = model.log_probability(mean, action), earned, value[:-1], over
        return Rollout(seen[:-1], action, *told, torch.ones_like(earned), value[-1]), returns


def train(arguments: Arguments, progress: Callable[[int, float], None] | None = None) -> ActorCritic:
    """Trains from scratch; ``progress`` is told the decisions so far and the mean return of ended episodes.

    The mean is NaN where no episode ended. A session's end counts as an end even if the flow ran out before the task.
    """
    learner = Learner(arguments)
    decisions = arguments.num_envs * arguments.rollout
    updates = -(-arguments.steps // decisions)
    for number in range(updates):
        returns = learner.improve(arguments.learning_rate * (1.0 - number / updates))
        if progress is not None:
            progress((number + 1) * decisions, float(np.mean(returns)) if returns else float("nan"))
    return learner.model


@torch.no_grad()
def draw(model: ActorCritic, observation: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Actions (n, act) of observations (n, obs), the logarithms of their densities (n,) and the values (n,)."""
    seen = torch.as_tensor(observation)
    mean = model.actor(seen)
    action = torch.normal(mean, model.log_deviation.exp().expand_as(mean))
    return action, model.log_probability(mean, action), model.value(seen)


def _network(inputs: int, outputs: int, width: int, gain: float) -> nn.Sequential:
    """Two hidden layers; ``gain`` scales the weights of the last one."""
    layers = [nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)]
    for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], Tanh(), layers[1], Tanh(), layers[2])


def main(arguments: Arguments) -> None:
    """Trains and prints."""
    torch.set_num_threads(1)  # the networks are tiny, and idle threads spin on the cores that markets need
    console = Console(width=100)

    def tell(steps: int, mean: float) -> None:
        if np.isfinite(mean):  # rollouts may be shorter than episodes
            console.print(f"{steps:>10} decisions, mean return {mean:+.3f} bps")

    train(arguments, tell)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
