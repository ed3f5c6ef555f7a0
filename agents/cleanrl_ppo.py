"""PPO in one file, in the manner of CleanRL, on the batched session: no library between learner and market.

    python -m tradefm_gym.agents.cleanrl_ppo --role trading --steps 200000

Schulman and others, "Proximal policy optimization algorithms" (2017), with generalised advantages (2016): a Gaussian
policy whose mean begins at the zero action, clipped ratios, a value network apart. A row that ended begins its next
episode at once, so all N markets act at every decision. Nothing here knows a role's name, and ``examples/ippo.py``
learns with the same parts.
"""

from collections.abc import Callable
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

ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}


@dataclass(frozen=True)
class Arguments:
    """What to train, and how."""

    role: Literal["execution", "market_making", "trading"] = "execution"
    flow: str = "zero_intelligence"
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
        self.log_deviation = nn.Parameter(torch.full((actions,), float(np.log(deviation))))

    def policy(self, observation: torch.Tensor) -> Normal:
        """Distribution of the actions (n, act) of observations (n, obs)."""
        return Normal(self.actor(observation), self.log_deviation.exp())

    def value(self, observation: torch.Tensor) -> torch.Tensor:
        """What is still to come of the return (n,)."""
        return self.critic(observation).squeeze(-1)


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
    used = rollout.active.bool()
    targets = (gains + rollout.value)[used]
    seen, action, before = rollout.observation[used], rollout.action[used], rollout.log_probability[used]
    gains = gains[used]
    gains = (gains - gains.mean()) / (gains.std(correction=0) + 1e-8)
    losses = []
    for _ in range(arguments.epochs):
        for part in torch.randperm(len(gains)).tensor_split(arguments.minibatches):
            loss = _loss(model, seen[part], action[part], before[part], gains[part], targets[part], arguments)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), arguments.gradient_norm)
            optimizer.step()
            losses.append(loss.item())
    return float(np.mean(losses))


def train(arguments: Arguments, progress: Callable[[int, float], None] | None = None) -> ActorCritic:
    """Trains from scratch; ``progress`` is told the decisions so far and the mean return of ended episodes.

    The mean is NaN where no episode ended. A session's end counts as an end even if the flow ran out before the task.
    """
    torch.manual_seed(arguments.seed)
    n = arguments.num_envs
    session = TradingSession(n, ROLES[arguments.role](decisions=arguments.decisions), arguments.flow)
    session.seed(np.ones(n, np.bool_), np.arange(n) + (arguments.seed << 32))
    observation = session.reset()
    actions = spaces.flatdim(session.role.action_space)
    model = ActorCritic(observation.shape[1], actions, arguments.width, arguments.deviation)
    optimizer = torch.optim.Adam(model.parameters(), arguments.learning_rate, eps=1e-5)
    sums, updates = np.zeros(n), -(-arguments.steps // (n * arguments.rollout))
    for number in range(updates):
        optimizer.param_groups[0]["lr"] = arguments.learning_rate * (1.0 - number / updates)
        rollout, observation, returns = _collect(session, model, observation, sums, arguments.rollout)
        update(model, optimizer, rollout, arguments)
        if progress is not None:
            progress((number + 1) * n * arguments.rollout, float(np.mean(returns)) if returns else float("nan"))
    return model


def _collect(
    session: TradingSession, model: ActorCritic, observation: np.ndarray, sums: np.ndarray, length: int
) -> tuple[Rollout, np.ndarray, list[float]]:
    """Decisions of all rows; what is seen then, and the returns of the episodes that ended (``sums`` go on)."""
    columns: list[tuple[torch.Tensor, ...]] = []
    returns: list[float] = []
    for _ in range(length):
        action, log_probability, value = draw(model, observation)
        result = session.step(action.clamp(-1.0, 1.0).numpy())
        ended = result.terminated | result.truncated
        sums += result.reward
        returns += sums[ended].tolist()
        sums[ended] = 0.0
        seen, reward = torch.as_tensor(observation), torch.as_tensor(result.reward, dtype=torch.float32)
        columns.append((seen, action, log_probability, reward, value, torch.as_tensor(ended).float()))
        observation = session.reset(ended) if ended.any() else result.observation
    parts = [torch.stack(column) for column in zip(*columns, strict=True)]
    with torch.no_grad():
        last = model.value(torch.as_tensor(observation))
    return Rollout(*parts, torch.ones_like(parts[3]), last), observation, returns


@torch.no_grad()
def draw(model: ActorCritic, observation: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Actions (n, act) of observations (n, obs), the logarithms of their densities (n,) and the values (n,)."""
    seen = torch.as_tensor(observation)
    policy = model.policy(seen)
    action = policy.sample()
    return action, policy.log_prob(action).sum(-1), model.value(seen)


def _loss(
    model: ActorCritic,
    seen: torch.Tensor,
    action: torch.Tensor,
    before: torch.Tensor,
    gains: torch.Tensor,
    targets: torch.Tensor,
    arguments: Arguments,
) -> torch.Tensor:
    policy = model.policy(seen)
    ratio = (policy.log_prob(action).sum(-1) - before).exp()
    clipped = ratio.clamp(1.0 - arguments.clip, 1.0 + arguments.clip)
    gained = torch.minimum(ratio * gains, clipped * gains).mean()
    missed = (model.value(seen) - targets).square().mean()
    return arguments.value_weight * missed - gained - arguments.entropy * policy.entropy().sum(-1).mean()


def _network(inputs: int, outputs: int, width: int, gain: float) -> nn.Sequential:
    """Two hidden layers; ``gain`` scales the weights of the last one."""
    layers = [nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)]
    for layer, scale in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


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
