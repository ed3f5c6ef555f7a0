"""Independent PPO with shared policies: one market maker and two executors in every market.

    python examples/ippo.py

Each role has one network (``tradefm_gym.agents.shared_policy``). Both executors act by the same one and learn from what
both have met; nobody sees what others see. While it learns it prints the mean returns of the agents in basis points and
how far each update moved the policies. Then all three play on start contexts that nobody has learned on, beside the
same markets with other policies in their seats. Figures go to ``ippo.json`` in ``--out``, their picture to
``ippo.png``; ``docs/multi-agent.md`` says what to expect.
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from tradefm_gym.agents.cleanrl_ppo import ActorCritic, Arguments
from tradefm_gym.agents.report import hardware, write_json
from tradefm_gym.agents.shared_policy import Change, SharedPolicy

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingSession

AGENTS = ("maker", "executor_0", "executor_1")
SEATS = {"maker": (0,), "executor": (1, 2)}  # which seats of a market one network plays
PARTS = 10  # of the training, whose means are compared
KL_LIMIT = 0.05  # of an update; beyond it PPO's clip has lost its hold
FALL_LIMIT = 1.8  # half intervals: what chance alone exceeds in a twentieth of runs, among 135 pairs of tenths
ENTROPY_LIMITS = -1.5, 0.5  # of each number of an action: a deviation of 0.05, and what it may grow by


@dataclass(frozen=True)
class Settings:
    """What to train, and where to measure it."""

    flow: str = "zero_intelligence"
    num_envs: int = 64
    decisions: int = 32
    updates: int = 300
    seed: int = 0
    markets: int = 1024
    """Held-out markets that each set of policies plays after the training."""
    out: Path | None = Path("results")
    ppo: Arguments = field(default_factory=Arguments)


class Market:
    """Markets of one maker and two executors, of a side each that is drawn for every episode.

    What is learned from is not quite what is paid: what an executor has still to trade is marked to the mid at every
    decision. That is 0 at both ends of an episode, so no return changes; but a move of the price is felt when it
    happens, not lot by lot when these are traded, and is no longer taken for the doing of later actions.
    """

    def __init__(self, settings: Settings, split: str = "train", markets: int | None = None, seed: int | None = None):
        count, n = settings.decisions, settings.num_envs if markets is None else markets
        roles = [MarketMakingRole(decisions=count), ExecutionRole(decisions=count), ExecutionRole(decisions=count)]
        self.session = TradingSession(n, roles, settings.flow, split=split)
        first = (settings.seed if seed is None else seed) << 32
        self.session.seed(np.ones(n, np.bool_), np.arange(n) + first)
        self.seen = self.session.reset_roles()
        self.marks = np.zeros((len(roles), n))
        self.sums = np.zeros((len(roles), n))  # returns so far

    def decide(self, actions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
        """One decision of everybody; markets in which all have finished begin their next episode.

        Returns:
            What is learned from, who has finished, who had something to decide, all (A, N), and of each agent the
            returns of the episodes that it has finished.
        """
        active = self.session.active.copy()
        results = self.session.step_roles(actions)
        ended = np.stack([result.terminated | result.truncated for result in results])
        paid = np.stack([result.reward for result in results])
        self.sums += paid  # who had finished before earns nothing
        returns = [self.sums[seat][ended[seat]] for seat in range(len(results))]
        marks = self._marks() * (active & ~ended)
        felt, self.marks = paid + marks - self.marks, marks
        self.sums[ended] = 0.0
        over = ~self.session.running
        self.seen = self.session.reset_roles(over) if over.any() else tuple(result.observation for result in results)
        return felt, ended, active, returns

    def _marks(self) -> np.ndarray:
        """Minus the unrealised shortfall of what remains to be traded (A, N), basis points."""
        marks = np.zeros_like(self.marks)
        for seat in SEATS["executor"]:
            start, now = self.session.start_info(seat), self.session.step_info(seat)
            remaining = 1.0 - now["executed"] / start["quantity"]
            marks[seat] = -1e4 * start["side"] * remaining * (now["mid"] / now["arrival_mid"] - 1.0)
        return marks


def train(settings: Settings, console: Console) -> tuple[dict[str, SharedPolicy], list[dict[str, Any]]]:
    """Trains both networks.

    Returns:
        The policies, and for each update the returns of the episodes that ended in it (``returns``, by agent) and what
        it did to the policies (``changes``).
    """
    torch.manual_seed(settings.seed)
    market, history = Market(settings), []
    policies = {name: SharedPolicy(market.session, seats, settings.ppo) for name, seats in SEATS.items()}
    for number in range(settings.updates):
        for policy in policies.values():
            policy.optimizer.param_groups[0]["lr"] = settings.ppo.learning_rate * (1.0 - number / settings.updates)
        returns: list[list[float]] = [[] for _ in AGENTS]
        for _ in range(settings.ppo.rollout):
            actions = [action for policy in policies.values() for action in policy.act(market.seen)]
            *told, ended = market.decide(actions)
            for policy in policies.values():
                policy.keep(*told)
            for agent, found in zip(returns, ended, strict=True):
                agent += found.tolist()
        changes = {name: policy.learn(market.seen) for name, policy in policies.items()}
        history.append({"returns": dict(zip(AGENTS, returns, strict=True)), "changes": changes})
        if (number + 1) % max(1, settings.updates // 50) == 0:
            console.print(told_of(number + 1, history[-1]))
    return policies, history


def told_of(number: int, update: dict[str, Any]) -> str:
    """An update in a line."""
    means = [f"{name} {np.mean(found):+.3f}" for name, found in update["returns"].items() if found]
    moved = [f"{name} {change.kl:.4f}" for name, change in update["changes"].items()]
    return f"update {number:>4}: mean return, bps: {', '.join(means)}; moved by (KL): {', '.join(moved)}"


def play(settings: Settings, chosen: dict[str, ActorCritic | str]) -> np.ndarray:
    """Returns (A, markets) of one episode in each held-out market.

    Args:
        settings: of the training.
        chosen: for each role a network, whose most likely actions are played, or "zero" (passive TWAP, and quotes at
            both touches) or "random" (uniform actions).
    """
    market = Market(settings, "test", settings.markets, settings.seed + 1)
    generator, seats = np.random.default_rng(settings.seed), sorted(SEATS.items(), key=lambda item: item[1])
    returns = np.full((len(AGENTS), settings.markets), np.nan)
    while np.isnan(returns).any():
        actions = []
        for name, places in seats:
            for seat in places:
                shape = market.seen[seat].shape[0], *market.session.roles[seat].action_space.shape
                # Drawn for all alike, so that random policies in one seat meet the same numbers in every set.
                drawn = generator.uniform(-1.0, 1.0, shape).astype(np.float32)
                actions.append(_acted(chosen[name], market.seen[seat], drawn))
        active, (_, ended, _, found) = market.session.active.copy(), market.decide(actions)
        for seat, values in enumerate(found):
            first = ended[seat] & active[seat] & np.isnan(returns[seat])
            returns[seat, first] = values[first[ended[seat]]]
    return returns


def _acted(policy: ActorCritic | str, seen: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    if isinstance(policy, str):
        return drawn if policy == "random" else np.zeros_like(drawn)
    with torch.no_grad():
        return policy.actor(torch.as_tensor(seen)).clamp(-1.0, 1.0).numpy()


def estimate(values: np.ndarray) -> list[float]:
    """Mean and half of the 95% interval."""
    return [float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))]


def compare(settings: Settings, policies: dict[str, SharedPolicy]) -> dict[str, dict[str, list[float]]]:
    """Held-out returns of the trained agents, and what each gains over others in the same markets; bps.

    ``over_zero`` and ``over_random`` are against markets in which all play so, ``alone_over_zero`` against markets in
    which only the agent's own network is replaced by the zero action.
    """
    trained: dict[str, ActorCritic | str] = {name: policy.model for name, policy in policies.items()}
    ours = play(settings, trained)
    others = {f"over_{word}": play(settings, dict.fromkeys(trained, word)) for word in ("zero", "random")}
    alone = {name: play(settings, trained | {name: "zero"}) for name in trained}
    found: dict[str, dict[str, list[float]]] = {}
    for seat, agent in enumerate(AGENTS):
        role = next(name for name, seats in SEATS.items() if seat in seats)
        against = others | {"alone_over_zero": alone[role]}
        found[agent] = {"return": estimate(ours[seat])}
        found[agent] |= {word: estimate(ours[seat] - other[seat]) for word, other in against.items()}
    return found


def stability(history: list[dict[str, Any]]) -> dict[str, Any]:
    """How steady the training was: means of its tenths, their gain from first to last, and the widest changes."""
    parts = np.array_split(np.arange(len(history)), min(PARTS, len(history)))
    tenths = {
        agent: [estimate(np.concatenate([history[i]["returns"][agent] for i in part])) for part in parts]
        for agent in AGENTS
    }
    changes = {name: np.array([update["changes"][name] for update in history]) for name in SEATS}
    column = {word: place for place, word in enumerate(Change._fields)}
    return {
        "finite": bool(all(np.isfinite(found[:, : column["explained"]]).all() for found in changes.values())),
        "tenths": tenths,
        "gain": {a: [t[-1][0] - t[0][0], float(np.hypot(t[-1][1], t[0][1]))] for a, t in tenths.items()},
        # The worst fall of a tenth below one before it, in units of the two's common interval: beyond 1 it is real.
        "worst_fall": {agent: worst_fall(found) for agent, found in tenths.items()},
        "largest_kl": {name: float(found[:, column["kl"]].max()) for name, found in changes.items()},
        "largest_clipped": {name: float(found[:, column["clipped"]].max()) for name, found in changes.items()},
        "entropy": {
            name: [float(each) for each in (found[0], found.min(), found.max())]
            for name, found in ((name, changed[:, column["entropy"]]) for name, changed in changes.items())
        },  # first, least, most
    }


def verdict(found: dict[str, dict[str, list[float]]], steady: dict[str, Any]) -> dict[str, bool]:
    """Whether the training was stable and came to something, point by point."""
    widths = {"maker": 4, "executor": 2}
    low, growth = ENTROPY_LIMITS
    gains = [steady["gain"][agent] for agent in AGENTS]
    above = [row[word] for row in found.values() for word in ("over_zero", "over_random", "alone_over_zero")]
    return {
        "finite": steady["finite"],
        "KL": max(steady["largest_kl"].values()) < KL_LIMIT,
        "entropy": all(
            least >= low * widths[name] and most <= start + growth * widths[name]
            for name, (start, least, most) in steady["entropy"].items()
        ),
        "no fall": max(steady["worst_fall"].values()) < FALL_LIMIT,
        "gain of each agent": all(mean > half for mean, half in gains),
        "better than zero and random": all(mean > half for mean, half in above),
    }


def worst_fall(tenths: list[list[float]]) -> float:
    """The most by which a mean lies below one before it, in half intervals of their difference."""
    falls = [
        (before[0] - after[0]) / max(float(np.hypot(before[1], after[1])), 1e-12)
        for i, before in enumerate(tenths)
        for after in tenths[i + 1 :]
    ]
    return max(falls, default=0.0)


def draw_picture(path: Path, history: list[dict[str, Any]]) -> bool:
    """Returns of the agents, distance of updates and entropy of the policies; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    width = max(1, len(history) // 50)
    for agent in AGENTS:
        starts = range(0, len(history), width)
        blocks = [np.concatenate([u["returns"][agent] for u in history[i : i + width]]) for i in starts]
        left.plot(list(starts), [block.mean() if len(block) else np.nan for block in blocks], label=agent)
    for name in SEATS:
        middle.plot([u["changes"][name].kl for u in history], label=name, linewidth=0.7)
        right.plot([u["changes"][name].entropy for u in history], label=name)
    for axes, title in ((left, "mean return, bps"), (middle, "KL of an update"), (right, "entropy of an action")):
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel("update")
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def table(found: dict[str, dict[str, list[float]]], steady: dict[str, Any]) -> Table:
    """What the agents learned, in basis points with 95% intervals."""
    words = {"over_zero": "minus all zero", "over_random": "minus all random", "alone_over_zero": "minus zero alone"}
    said = Table(title="bps ± 95%; zero: passive TWAP, quotes at the touch")
    said.add_column("agent")
    for title in ("last - first tenth", "held-out return", *words.values()):
        said.add_column(title, justify="right")
    for agent, row in found.items():
        columns = [steady["gain"][agent], row["return"], *(row[word] for word in words)]
        said.add_row(agent, *(f"{mean:+.3f} ±{half:.3f}" for mean, half in columns))
    return said


def main(settings: Settings) -> dict[str, Any]:
    """Trains, measures, prints and writes."""
    torch.set_num_threads(1)  # idle threads spin on cores that others need
    numba.set_num_threads(1)
    console, started = Console(width=140), time.perf_counter()
    policies, history = train(settings, console)
    trained = time.perf_counter()
    found, steady = compare(settings, policies), stability(history)
    console.print(table(found, steady))
    for name in SEATS:
        start, least, _ = steady["entropy"][name]
        console.print(
            f"{name}: largest KL {steady['largest_kl'][name]:.4f}; entropy from {start:.2f}, least {least:.2f}"
        )
    falls = ", ".join(f"{agent} {fall:.2f}" for agent, fall in steady["worst_fall"].items())
    console.print(f"worst fall of a tenth below one before it, in 95% intervals: {falls}")
    points = verdict(found, steady)
    console.print(f"stable: {', '.join(f'{name} {holds}' for name, holds in points.items())}".replace("True", "yes"))
    told = {"settings": {**asdict(settings), "out": str(settings.out)}, "hardware": hardware()}
    told |= {"seconds": round(trained - started, 1), "held_out": found, "stability": steady, "stable": points}
    if settings.out is not None:
        told["updates"] = [
            {agent: float(np.mean(values)) if values else None for agent, values in update["returns"].items()}
            | {name: change._asdict() for name, change in update["changes"].items()}
            for update in history
        ]
        write_json(settings.out / "ippo.json", told)
        if not draw_picture(settings.out / "ippo.png", history):
            console.print("No picture: matplotlib is not installed (extra 'report')")
    console.print(f"{trained - started:.0f} s of training")
    return told


if __name__ == "__main__":
    main(tyro.cli(Settings))
