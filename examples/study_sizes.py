"""What size, head, context and data bring: networks around the bundled one, one factor at a time, with several seeds.

    python examples/study_sizes.py --data FOLDER --out runs/sizes

FOLDER holds token shards (``tradefm-gym data tokenize``) or recorded days; without it the bundled synthetic day is
taken. Writes one checkpoint folder a network and seed, ``results.json``, and ``table.md``: parameters, nats per event
on each held-out part (mean and range over the seeds), and events per second of the engine for one market and for 64.
Steps see as many events whatever the context. With
``--shares 0.125 0.25 0.5 1`` each network learns from the last so much of each day's training part, with one tokenizer
and the same held-out parts. A study that was interrupted goes on. How real the markets of a checkpoint are,
``tradefm-gym realism --data FOLDER --model CHECKPOINT`` says.
"""

import json
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from tradefm_gym.bench import median_rate, thread_count
from tradefm_gym.bench_engine import serving
from tradefm_gym.model.config import ModelConfig, load_weights
from tradefm_gym.model.serving import make_engine
from tradefm_gym.model.shards import Shards
from tradefm_gym.model.training_config import DROPOUTS, RECIPES, TrainingConfig
from tradefm_gym.modelling import network, shards_of, train_model

# What differs from the bundled network, "1M": 4 layers of width 128, factored head, context 256.
ARMS: dict[str, dict] = {
    "1M": {},
    "0.3M": {"layers": 2, "width": 64, "feed_width": 160, "embedding_width": 12, "head_width": 32},
    "3M": {
        "layers": 5, "width": 192, "heads": 6, "kv_heads": 2, "feed_width": 480, "embedding_width": 48,
        "head_width": 96,
    },
    "1M, joint head": {"head": "joint", "head_width": 0},  # which adds 2M parameters
    "1M, head 256": {"head_width": 256},  # hidden units for each digit instead of 64
    "1M, context 128": {"context": 128},
    "1M, context 512": {"context": 512},
}  # fmt: skip


@dataclass
class Arguments:
    """What to study, and how."""

    data: Path | None = None
    out: Path = Path("runs/sizes")
    arms: tuple[str, ...] = tuple(ARMS)  # some of them, by name
    seeds: int = 2
    shares: tuple[float, ...] = (1.0,)  # of each day's training part, its last
    minimum_events: int = 4_000  # smaller days are left out
    speed: bool = True  # measure the engine
    training: TrainingConfig = field(default_factory=lambda: RECIPES["mini"])


def settings(training: TrainingConfig, config: ModelConfig, seed: int) -> TrainingConfig:
    """The settings of one run: as many events a step as in a context of 256."""
    batch = training.batch * 256 // config.context
    if batch < 1 or batch * config.context != training.batch * 256:
        raise ValueError(
            f"batch is {training.batch}; allowed is a multiple of 2, so that all contexts see equal events"
        )
    return replace(training, batch=batch, seed=seed)


def speeds(folder: Path) -> dict[str, float]:
    """Events per second of the engine in one thread, for one market and for 64."""
    config, weights = load_weights(folder)
    with thread_count(1):
        return {f"n{n}": median_rate(serving(make_engine(config, weights, n), 1), 3) for n in (1, 64)}


def study(arguments: Arguments, shards: Shards, console: Console) -> dict[str, dict]:
    """Trains all arms; results by arm: parameters, nats by held-out part and seed, speeds."""
    results = {}
    for arm, share in product(arguments.arms, arguments.shares):
        config, learned = replace(network("mini", shards.tokenizer, DROPOUTS["mini"]), **ARMS[arm]), shards
        if share < 1:
            arm, learned = f"{arm}, {share:g} of the data", shards.latest(share)
        nats: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            folder = arguments.out / f"{arm.replace(', ', '-').replace(' ', '-')}-seed-{seed}"
            console.print(f"[bold]{arm}, seed {seed}[/]")
            train_model(learned, config, folder, settings(arguments.training, config, seed), console)
            for part, row in json.loads((folder / "scores.json").read_text()).items():
                nats.setdefault(part, []).append(row["model"])
        results[arm] = {"parameters": config.parameter_count(), "context": config.context, "nats": nats}
        results[arm] |= {"training_events": learned.events("train")}
        if arguments.speed:
            results[arm]["events_per_second"] = speeds(folder)
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


def table(results: dict[str, dict]) -> str:
    """The results as Markdown; nats are the mean over the seeds, and half of the range."""
    parts = list(next(iter(results.values()))["nats"])
    timed = "events_per_second" in next(iter(results.values()))
    columns = ["network", "parameters", "events", *parts, *(["events/s, N = 1", "N = 64"] if timed else [])]
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    for arm, row in results.items():
        nats = [np.array(row["nats"][part]) for part in parts]
        cells = [arm, f"{row['parameters']:,}", f"{row['training_events']:,}"]
        cells += [*(f"{n.mean():.3f} ±{np.ptp(n) / 2:.3f}" for n in nats)]
        cells += [f"{row['events_per_second'][n]:,.0f}" for n in ("n1", "n64")] if timed else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(arguments: Arguments) -> None:
    """Trains, measures and writes."""
    if unknown := set(arguments.arms) - set(ARMS):
        raise SystemExit(f"arms are {', '.join(sorted(unknown))}; allowed are {', '.join(map(repr, ARMS))}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with shards_of(arguments.data, arguments.out / "study", None, arguments.minimum_events) as shards:
        written = table(study(arguments, shards, console))
    (arguments.out / "table.md").write_text(written)
    console.print(written, markup=False, highlight=False)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
