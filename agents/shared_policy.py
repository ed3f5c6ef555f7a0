"""What learns where several agents do: one PPO network that plays some seats of every market, and how far it moves.

``examples/ippo.py`` has one for each role, ``examples/self_play.py`` one that meets its own past. Its steps are those
of ``cleanrl_ppo``.
"""

from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from tradefm_gym.agents.cleanrl_ppo import ActorCritic, Arguments, Rollout, advantages, draw, update

from tradefm_gym import TradingSession


class Change(NamedTuple):
    """What an update did to a policy, over the decisions that it learned from."""

    loss: float
    kl: float  # of the new policy from the old one, the mean of ratio - 1 - log ratio
    clipped: float  # part of the ratios beyond the clip
    entropy: float  # of an action
    explained: float  # part of the returns' variance that the old values explain


class SharedPolicy:
    """One network for several seats of each market, and what these have met in a rollout.

    Args:
        session: the markets.
        seats: those that it plays, all of one role.
        ppo: settings of the learner; those of markets and episodes are not read.
    """

    def __init__(self, session: TradingSession, seats: tuple[int, ...], ppo: Arguments):
        role = session.roles[seats[0]]
        size, actions = (spaces.flatdim(space) for space in (role.observation_space, role.action_space))
        self.seats, self.ppo = seats, ppo
        self.model = ActorCritic(size, actions, ppo.width, ppo.deviation)
        self.optimizer = torch.optim.Adam(self.model.parameters(), ppo.learning_rate, eps=1e-5)
        self.columns: list[tuple[torch.Tensor, ...]] = []

    def act(self, seen: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        """Actions (N, act) float32 of each seat."""
        self.seen = self._joined(seen)
        self.drawn = draw(self.model, self.seen)
        return list(np.split(self.drawn[0].clamp(-1.0, 1.0).numpy(), len(self.seats)))

    def keep(self, reward: np.ndarray, ended: np.ndarray, active: np.ndarray) -> None:
        """Adds a decision to the rollout; all three (A, N), of all seats."""
        action, log_probability, value = self.drawn
        told = [torch.as_tensor(self._joined(column), dtype=torch.float32) for column in (reward, ended, active)]
        self.columns.append((torch.as_tensor(self.seen), action, log_probability, told[0], value, *told[1:]))

    def learn(self, seen: tuple[np.ndarray, ...]) -> Change:
        """Updates the network by the rollout and forgets it."""
        parts = [torch.stack(column) for column in zip(*self.columns, strict=True)]
        self.columns = []
        with torch.no_grad():
            last = self.model.value(torch.as_tensor(self._joined(seen)))
        rollout = Rollout(*parts, last)
        loss = update(self.model, self.optimizer, rollout, self.ppo)
        return measured(self.model, rollout, loss, self.ppo)

    def _joined(self, columns: tuple[np.ndarray, ...] | np.ndarray) -> np.ndarray:
        return np.concatenate([columns[seat] for seat in self.seats])


@torch.no_grad()
def measured(model: ActorCritic, rollout: Rollout, loss: float, ppo: Arguments) -> Change:
    """How far ``model`` is from the policy that made the rollout."""
    used = rollout.active.bool()
    policy = model.policy(rollout.observation[used])
    log_ratio = model.log_probability(policy.mean, rollout.action[used]) - rollout.log_probability[used]
    ratio = log_ratio.exp()
    returns = advantages(rollout, ppo.gamma, 1.0)[used] + rollout.value[used]
    missed = (returns - rollout.value[used]).var()
    return Change(
        loss,
        (ratio - 1.0 - log_ratio).mean().item(),
        ((ratio - 1.0).abs() > ppo.clip).float().mean().item(),
        policy.entropy().sum(-1).mean().item(),
        (1.0 - missed / returns.var()).item(),
    )
