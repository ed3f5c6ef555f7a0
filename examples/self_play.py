"""Self-play: a market maker that learns against its own past, in markets with a second maker and a scripted trader.

    python examples/self_play.py

Seat 0 learns by PPO. Seat 1 is played by one of its earlier versions, drawn anew for every update; the present one
joins them every ``--keep`` updates, and the first one, which quotes at both touches, stays among them. Afterwards the
learned maker meets its first and its last version and the reference makers on start contexts that it has not learned
on. Both makers are in the same market, so their difference is paired; against itself it should be nothing but noise.
"""

import copy
from dataclasses import dataclass, field

import numba
import numpy as np
import torch
import tyro
from rich.console import Console
from tradefm_gym.agents import AvellanedaStoikov, FixedSpread, Noise
from tradefm_gym.agents.cleanrl_ppo import ActorCritic, Arguments, draw
from tradefm_gym.agents.shared_policy import SharedPolicy

from tradefm_gym import MarketMakingRole, TradingRole, TradingSession

LEARNER, RIVAL, TRADER = range(3)  # seats


@dataclass(frozen=True)
class Settings:
    """What to train, and where to measure it."""

    flow: str = "zero_intelligence"
    num_envs: int = 64
    decisions: int = 32
    updates: int = 150
    keep: int = 15
    """Updates after which the present version joins the rivals."""
    seed: int = 0
    markets: int = 1024
    """Held-out markets of each meeting."""
    ppo: Arguments = field(default_factory=Arguments)


class Market:
    """Markets of two makers and a noise trader; all roles have equally many decisions, so rows end together."""

    def __init__(self, settings: Settings, split: str, markets: int, seed: int):
        count = settings.decisions
        roles = [*(MarketMakingRole(decisions=count) for _ in range(2)), TradingRole(decisions=count)]
        self.session = TradingSession(markets, roles, settings.flow, split=split)
        self.session.seed(np.ones(markets, np.bool_), np.arange(markets) + (seed << 32))
        self.seen, self.decision, self.trader = self.session.reset_roles(), 0, Noise()

    def info(self, seat: int) -> dict[str, np.ndarray]:
        """What a scripted policy in a seat is told besides what it sees."""
        decision = np.full(self.session.num_envs, self.decision)
        return {"seed": self.session.seeds, "decision": decision, **self.session.start_info(seat)}

    def decide(self, learner: np.ndarray, rival: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One decision; rewards, ends and who had something to decide, all (A, N)."""
        active = self.session.active.copy()
        trader = self.trader.act(self.seen[TRADER], self.info(TRADER))
        results = self.session.step_roles([learner, rival, trader])
        ended = np.stack([result.terminated | result.truncated for result in results])
        over = ~self.session.running
        self.seen = self.session.reset_roles(over) if over.any() else tuple(r.observation for r in results)
        self.decision = 0 if over.any() else self.decision + 1
        return np.stack([result.reward for result in results]), ended, active


def train(settings: Settings, console: Console) -> list[ActorCritic]:
    """Trains the maker; its versions, the first and the last among them."""
    torch.manual_seed(settings.seed)
    market = Market(settings, "train", settings.num_envs, settings.seed)
    policy = SharedPolicy(market.session, (LEARNER,), settings.ppo)
    versions, generator = [copy.deepcopy(policy.model)], np.random.default_rng(settings.seed)
    for number in range(settings.updates):
        policy.optimizer.param_groups[0]["lr"] = settings.ppo.learning_rate * (1.0 - number / settings.updates)
        rival, earned = versions[generator.integers(len(versions))], np.zeros(2)
        for _ in range(settings.ppo.rollout):
            (ours,) = policy.act(market.seen)
            theirs = draw(rival, market.seen[RIVAL])[0].clamp(-1.0, 1.0).numpy()
            told = market.decide(ours, theirs)
            policy.keep(*told)
            earned += told[0][:TRADER].sum(axis=1)
        change = policy.learn(market.seen)
        if (number + 1) % settings.keep == 0 or number + 1 == settings.updates:
            versions.append(copy.deepcopy(policy.model))
            ours, theirs = earned * settings.decisions / settings.ppo.rollout / settings.num_envs
            console.print(f"update {number + 1:>4}: learner {ours:+.3f}, rival {theirs:+.3f} bps; KL {change.kl:.4f}")
    return versions


def meet(settings: Settings, model: ActorCritic, rival: object) -> tuple[float, float, float]:
    """The learner's mean profit, and that minus the rival's with half of the 95% interval; basis points.

    Args:
        settings: of the training.
        model: in seat 0, its most likely actions.
        rival: in seat 1, another network or a reference policy.
    """
    market = Market(settings, "test", settings.markets, settings.seed + 1)
    sums = np.zeros((3, settings.markets))
    for _ in range(settings.decisions):
        ours, theirs = act(model, market, LEARNER), act(rival, market, RIVAL)
        sums += market.decide(ours, theirs)[0]
    difference = sums[LEARNER] - sums[RIVAL]
    half = 1.96 * difference.std(ddof=1) / np.sqrt(settings.markets)
    return float(sums[LEARNER].mean()), float(difference.mean()), float(half)


def act(policy: object, market: Market, seat: int) -> np.ndarray:
    """Actions (N, 4) float32 of a network, or of anything that has a method ``act``."""
    if not isinstance(policy, ActorCritic):
        return policy.act(market.seen[seat], market.info(seat))  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad():
        return policy.actor(torch.as_tensor(market.seen[seat])).clamp(-1.0, 1.0).numpy()


def main(settings: Settings) -> dict[str, tuple[float, float, float]]:
    """Trains, lets the makers meet, and prints."""
    torch.set_num_threads(1)  # idle threads spin on cores that others need
    numba.set_num_threads(1)
    console = Console(width=100)
    versions = train(settings, console)
    rivals = {"its first version": versions[0], "its last version": versions[-1]}
    rivals |= {policy.name: policy for policy in (FixedSpread(), AvellanedaStoikov())}
    found = {name: meet(settings, versions[-1], rival) for name, rival in rivals.items()}
    for name, (profit, difference, half) in found.items():
        console.print(
            f"against {name:<20} profit {profit:+.3f} bps, more than the rival by {difference:+.3f} ±{half:.3f}"
        )
    return found


if __name__ == "__main__":
    main(tyro.cli(Settings))
