"""Independent PPO with shared policies: one market maker and two executors in every market.

    python examples/ippo.py --flow zero_intelligence --num-envs 64 --updates 50

Each role has one network. Both executors act by the same one and learn from what both have met; nobody sees what
others see. The parts of the learner are those of ``tradefm_gym.agents.cleanrl_ppo``. Prints the mean return of the
episodes that ended, for each role, in basis points.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import tyro
from gymnasium import spaces
from rich.console import Console
from tradefm_gym.agents.cleanrl_ppo import ActorCritic, Arguments, Rollout, draw, update

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingSession

SEATS = {"maker": (0,), "executor": (1, 2)}  # which seats of a market one network plays


@dataclass(frozen=True)
class Settings:
    """What to train."""

    flow: str = "zero_intelligence"
    num_envs: int = 64
    decisions: int = 32
    updates: int = 50
    seed: int = 0
    ppo: Arguments = field(default_factory=Arguments)


class SharedPolicy:
    """One network for several seats of each market, and what these have met in a rollout.

    Args:
        session: the markets.
        seats: those that it plays.
        settings: of the learner.
    """

    def __init__(self, session: TradingSession, seats: tuple[int, ...], settings: Settings):
        role, ppo = session.roles[seats[0]], settings.ppo
        size, actions = (spaces.flatdim(space) for space in (role.observation_space, role.action_space))
        self.seats, self.settings = seats, settings
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

    def learn(self, seen: tuple[np.ndarray, ...]) -> float:
        """Updates the network by the rollout and forgets it; returns the mean loss."""
        parts = [torch.stack(column) for column in zip(*self.columns, strict=True)]
        self.columns = []
        with torch.no_grad():
            last = self.model.value(torch.as_tensor(self._joined(seen)))
        return update(self.model, self.optimizer, Rollout(*parts, last), self.settings.ppo)

    def _joined(self, columns: tuple[np.ndarray, ...] | np.ndarray) -> np.ndarray:
        return np.concatenate([columns[seat] for seat in self.seats])


def train(settings: Settings, console: Console) -> list[dict[str, float]]:
    """Trains both networks; for each update the mean returns of the roles (NaN where no episode ended)."""
    torch.manual_seed(settings.seed)
    n, history = settings.num_envs, []
    session = new_session(settings)
    seen = session.reset_roles()
    policies = {name: SharedPolicy(session, seats, settings) for name, seats in SEATS.items()}
    sums = np.zeros((len(session.roles), n))
    for number in range(settings.updates):
        for policy in policies.values():
            policy.optimizer.param_groups[0]["lr"] = settings.ppo.learning_rate * (1.0 - number / settings.updates)
        returns: dict[str, list[float]] = {name: [] for name in SEATS}
        for _ in range(settings.ppo.rollout):
            seen = decide(session, policies, seen, sums, returns)
        for policy in policies.values():
            policy.learn(seen)
        history.append({name: float(np.mean(found)) if found else float("nan") for name, found in returns.items()})
        told = ", ".join(f"{name} {mean:+.3f}" for name, mean in history[-1].items())
        console.print(f"update {number + 1:>4}: mean return, bps: {told}")
    return history


def new_session(settings: Settings) -> TradingSession:
    """Markets of one maker and two executors, of a side each that is drawn for every episode."""
    count = settings.decisions
    roles = [MarketMakingRole(decisions=count), ExecutionRole(decisions=count), ExecutionRole(decisions=count)]
    session = TradingSession(settings.num_envs, roles, settings.flow)
    seeds = np.arange(settings.num_envs) + (settings.seed << 32)
    session.seed(np.ones(settings.num_envs, np.bool_), seeds)
    return session


def decide(
    session: TradingSession,
    policies: dict[str, SharedPolicy],
    seen: tuple[np.ndarray, ...],
    sums: np.ndarray,
    returns: dict[str, list[float]],
) -> tuple[np.ndarray, ...]:
    """One decision of everybody; markets in which all have finished begin their next episode."""
    active = session.active.copy()
    actions: list[np.ndarray] = []
    for policy in policies.values():
        actions += policy.act(seen)
    results = session.step_roles(actions)
    reward = np.stack([result.reward for result in results])
    ended = np.stack([result.terminated | result.truncated for result in results])
    sums += reward  # who had finished before earns nothing
    for name, policy in policies.items():
        policy.keep(reward, ended, active)
        for seat in policy.seats:
            returns[name] += sums[seat][ended[seat]].tolist()
    sums[ended] = 0.0
    over = ~session.running
    return session.reset_roles(over) if over.any() else tuple(result.observation for result in results)


def main(settings: Settings) -> None:
    """Trains and prints."""
    torch.set_num_threads(1)
    train(settings, Console(width=100))


if __name__ == "__main__":
    main(tyro.cli(Settings))
