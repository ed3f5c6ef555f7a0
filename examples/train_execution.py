"""Trains an execution agent with PPO on TradeFM flow, and measures it against honest schedules.

    python examples/train_execution.py
    python examples/train_execution.py --data path/to/a/recorded/day

Writes model.zip (the agent), results.json and results.png to ``--out``; TensorBoard logs to ``--logs``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tradefm_gym.agents import Evaluator, PolicySummary, compare, reference_policies
from tradefm_gym.agents.ppo import LearnedPolicy, PPOSettings, Training, train_ppo
from tradefm_gym.agents.report import comparison_json, comparison_table, hardware, write_json, write_picture

import tradefm_gym


@dataclass(frozen=True)
class Arguments:
    """Train PPO on the execution task and compare it with reference policies on the test contexts."""

    flow: str = "tradefm"
    """Background flow to learn on: tradefm, hawkes, zero_intelligence or replay, each also with :PATH."""
    context: str | None = None
    """Start from another context bank (.npz), or from a recorded day that the model is warmed up on."""
    data: Path | None = None
    """A recorded day: all policies are also measured on replay of its held-out part."""
    steps: int = 98_304
    """Decisions to train for."""
    num_envs: int = 64
    """Markets that run at once."""
    episodes: int = 500
    """Test episodes, the same for each policy."""
    seed: int = 0
    """Of the network, the actions and the episodes."""
    out: Path = Path("results")
    """Folder of model.zip, results.json and results.png."""
    logs: Path = Path("runs")
    """Folder of the TensorBoard logs."""
    decisions: int = 64
    """Decisions of an episode."""
    interval: int = 16
    """Background events between two decisions."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Hyperparameters; steps and num_envs above go before those in here."""


@dataclass(frozen=True)
class Measured:
    """One evaluation: where, what, and how the policies did."""

    title: str
    description: dict[str, Any]
    episodes: dict[str, np.ndarray]
    summaries: list[PolicySummary]


def main(arguments: Arguments) -> dict[str, Measured]:
    """Train, measure, print, write; returns the measurements by name."""
    console, started = Console(), time.perf_counter()
    if arguments.episodes < 1:
        raise ValueError(f"episodes is {arguments.episodes}; it must be at least 1")
    if arguments.seed < 0:
        raise ValueError(f"seed is {arguments.seed}; it must not be negative")
    if arguments.data is not None and not arguments.data.exists():
        raise FileNotFoundError(f"data {str(arguments.data)!r} does not exist; it must be a recorded day")
    settings = replace(arguments.ppo, steps=arguments.steps, num_envs=arguments.num_envs)
    task = {"flow": arguments.flow, "decisions": arguments.decisions, "interval": arguments.interval}
    if arguments.context is not None:
        task["context"] = arguments.context
    training = train(arguments, settings, task, console)
    trained = time.perf_counter()
    measured = {"flow": measure(arguments, training.policy, task, f"test contexts of {arguments.flow}", console)}
    if arguments.data is not None:
        measured["replay"] = measure_replay(arguments, training.policy, task, console)
    for result in measured.values():
        # The table needs its width also where output goes to a file of the usual 80 columns.
        wide = Console(width=max(console.width, 118))
        wide.print(comparison_table(result.summaries, result.title, result.description["episodes"]))
    seconds = {"training": trained - started, "total": time.perf_counter() - started}
    write(arguments, settings, training, measured, seconds)
    console.print(f"{seconds['total']:.0f} s in all, {seconds['training']:.0f} s of it training; see {arguments.out}")
    return measured


def train(arguments: Arguments, settings: PPOSettings, task: dict[str, Any], console: Console) -> Training:
    """Trains with a progress bar that shows the last validation."""
    console.print(f"Training PPO on {arguments.flow} for {settings.steps:,} decisions")
    with bar("train", settings.steps, console) as (progress, number):

        def report(done: int, shortfall: float | None) -> None:
            text = "train" if shortfall is None else f"train (validation {shortfall:.2f} bps)"
            progress.update(number, completed=min(done, settings.steps), description=text)

        training = train_ppo(
            task, settings, arguments.out / "model.zip", seed=arguments.seed, logs=arguments.logs, progress=report
        )
    shown = ", ".join(f"{shortfall:.2f}" for _, shortfall in training.history)
    console.print(f"Validation shortfall, bps: {shown}; kept the checkpoint after {training.best:,} decisions")
    return training


def measure(
    arguments: Arguments,
    policy: LearnedPolicy,
    task: dict[str, Any],
    title: str,
    console: Console,
    episodes: int | None = None,
) -> Measured:
    """Runs the agent and all reference policies on the same test episodes."""
    episodes = arguments.episodes if episodes is None else episodes
    policies = [policy, *reference_policies()]
    evaluator = Evaluator({**task, "split": "test"}, arguments.num_envs)
    flow = evaluator.session.flow
    with bar("evaluate", episodes * len(policies), console) as (progress, number):
        results = evaluator.run(
            policies,
            evaluator.plan(episodes, arguments.seed),
            lambda done, _: progress.update(number, completed=done),
        )
    description = {
        "title": title,
        "flow": flow.name,
        "flow_version": flow.version,
        "contexts": len(np.unique(results[policy.name]["context"])),
        "episodes": episodes,
        "truncated": int(sum(rows["truncated"].sum() for rows in results.values())),
        "task": {name: value for name, value in task.items() if name != "flow"},
    }
    return Measured(title, description, results, compare(results, seed=arguments.seed))


def measure_replay(arguments: Arguments, policy: LearnedPolicy, task: dict[str, Any], console: Console) -> Measured:
    """The same on the held-out part of a recorded day: stretches that do not overlap, each bought and sold once."""
    horizon = arguments.decisions * arguments.interval
    name = f"replay:{arguments.data}"
    first = tradefm_gym.make_flow(name, 1, contexts=(1, 1, 1), horizon=horizon)
    held_out = first.bank.split("test")
    if not len(held_out):
        raise ValueError(f"data is {str(arguments.data)!r}, whose test part is too short for one episode")
    stretches = max(1, int(first.events_left[held_out[0]]) // horizon)
    flow = tradefm_gym.make_flow(name, arguments.num_envs, contexts=(1, 1, stretches), horizon=horizon)
    episodes = min(arguments.episodes, 2 * len(flow.bank.split("test")))
    task = {name: value for name, value in task.items() if name != "context"}  # the day has its own
    title = f"replay of the held-out part of {flow.bank.origin}"
    return measure(arguments, policy, {**task, "flow": flow}, title, console, episodes)


def write(
    arguments: Arguments,
    settings: PPOSettings,
    training: Training,
    measured: dict[str, Measured],
    seconds: dict[str, float],
) -> None:
    """Writes results.json and results.png."""
    content = {
        "arguments": {"flow": arguments.flow, "data": str(arguments.data or ""), "seed": arguments.seed},
        "settings": asdict(settings),
        "version": tradefm_gym.__version__,
        "hardware": hardware(),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "validation": [{"decisions": at, "shortfall_bps": value} for at, value in training.history],
        "checkpoint_decisions": training.best,
        "results": {
            name: comparison_json(result.episodes, result.summaries, result.description)
            for name, result in measured.items()
        },
    }
    write_json(arguments.out / "results.json", content)
    pictures = {result.title: result.summaries for result in measured.values()}
    if not write_picture(arguments.out / "results.png", pictures):
        Console().print("No picture: matplotlib is not installed (extra 'report')")


@contextmanager
def bar(text: str, total: int, console: Console) -> Iterator[tuple[Progress, Any]]:
    """A progress bar of one task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        yield progress, progress.add_task(text, total=total)


if __name__ == "__main__":
    try:
        main(tyro.cli(Arguments))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
