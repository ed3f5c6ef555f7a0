"""Train a TradeFM model on a folder of recorded order flow, and write it as a checkpoint with a model card.

    python examples/train_tradefm.py --data FOLDER --out runs/mini-2

The folder holds one sub-folder per asset-day (``meta.json`` and ``events.parquet``). Each day is split by
time into train, validation and test (70 / 15 / 15%, with a gap). The bundled ``mini-2`` was made by this script
with its default arguments, on one thread; ``calibrate_closed_loop.py`` and ``build_contexts.py`` came after it.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from tradefm_gym.data import RecordedFlow, calibrate, load, split
from tradefm_gym.market.features import day_features
from tradefm_gym.model.baselines import CopyPrevious, Markov, Unigram
from tradefm_gym.model.config import PRESETS, ModelConfig
from tradefm_gym.model.tokenizer import MID_MODES, TradeTokenizer
from tradefm_gym.model.training import TrainingConfig, score, train
from tradefm_gym.model.windows import Augmentation, FlowWindows

PARTS = ("train", "validation", "test")


@dataclass
class Arguments:
    """What to train on, and how."""

    data: Path
    out: Path = Path("runs/mini-2")
    preset: str = "mini"
    mid: str = "touch"  # what prices count from: the touch, the "book" mid, or the "vwap", the paper's
    pressure: bool = True  # tell the model the order-flow pressure
    book: bool = True  # tell the model the spread and the lots at the touch
    half_life_s: float = 10.0
    minimum_events: int = 4_000  # smaller sets are left out
    dropout: float = 0.2  # the data are few
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=3_500, learning_rate=1e-3, average=0.998, threads=1, precision="bf16", compile=True
        )
    )


def load_days(folder: Path, minimum_events: int) -> dict[str, RecordedFlow]:
    """All order-level sets of a folder, largest books first where two record the same asset and day."""
    days = {}
    for path in sorted(p.parent for p in folder.glob("*/events.parquet")):
        # What is inferred about the opening book comes from later rows: training must not see it.
        day = load(path, infer_opening=False)
        if len(day.flow) >= minimum_events:
            days[path.name] = day
    if not days:
        raise SystemExit(f"--data must hold sub-folders with events.parquet of {minimum_events} events, got {folder}")
    return days


def overlapped(day: RecordedFlow, days: dict[str, RecordedFlow]) -> RecordedFlow | None:
    """A set of the same asset and day that replays better than this one, if there is one."""
    for other in days.values():
        same = (other.meta.ticker, other.meta.date) == (day.meta.ticker, day.meta.date)
        if same and other is not day and other.meta.replay_by_id and not day.meta.replay_by_id:
            return other
    return None


def segments(days: dict[str, RecordedFlow], half_life_s: float, mid: str) -> dict[str, dict[str, np.ndarray]]:
    """Features of each day's parts: ``{set: {part: (n,) FEATURES}}``."""
    result = {}
    for name, day in days.items():
        parts = split(day)
        calibration = calibrate(day, parts.train)
        mode, usual = MID_MODES[mid], calibration.spread
        features, index, _ = day_features(day.records, parts.train, calibration.median_size, half_life_s, mode, usual)
        rows = {part: getattr(parts, part) for part in PARTS}
        result[name] = {p: features[(index >= r.start) & (index < r.stop)] for p, r in rows.items()}
        if twin := overlapped(day, days):
            # The same hours must not be trained on here and scored there.
            end = twin.records["time_ns"][-1] + 60 * 10**9
            kept = result[name]["train"]
            result[name] = {"train": kept[kept["time_ns"] > end]}
    return result


def baselines(windows: dict[str, dict[str, FlowWindows]]) -> dict[str, dict[str, float]]:
    """Nats per event of each baseline on each held-out part, fitted on the same training tokens."""
    train_tokens = [t for parts in windows.values() for t in parts["train"].tokens()]
    validation = [t for parts in windows.values() if "validation" in parts for t in parts["validation"].tokens()]
    unigram, copy = Unigram(train_tokens), CopyPrevious(train_tokens, validation)
    markov = Markov(train_tokens, validation)
    table = {}
    for name, parts in windows.items():
        if "test" not in parts:
            continue
        test = parts["test"].tokens()
        own = Markov(parts["train"].tokens(), parts["validation"].tokens())
        table[name] = {
            "unigram": unigram.nats(test),
            "copy-previous": copy.nats(test),
            "markov": markov.nats(test),
            "markov (own set)": own.nats(test),
            "events": sum(len(t) - 1 for t in test),
        }
    return table


def card(arguments: Arguments, config: ModelConfig, days, windows, table: dict, result) -> str:
    """The model card: what went in, what came out."""
    settings = json.dumps(vars(arguments.training), default=str)
    lines = [
        f"# {arguments.out.name}",
        "",
        f"A TradeFM network of {config.parameter_count():,} parameters ({config.layers} layers, width {config.width}, "
        f"context {config.context}, {config.head} head), trained from scratch on recorded order flow. "
        "An independent implementation of arXiv 2602.23784, not affiliated with its authors. "
        "No recorded row is contained in it or shipped with it.",
        "",
        "Each day was split by time into train / validation / test (70 / 15 / 15%, gap of at most 60 s). "
        f"One universal tokenizer; prices count from: `{arguments.mid}`, half-life {arguments.half_life_s:g} s. "
        f"The order-flow pressure is {'' if arguments.pressure else 'not '}told, "
        f"the book's spread and touch are {'' if arguments.book else 'not '}told. "
        "Augmentation: participant re-flagging (up to 30% of a window's orders, and 15% of its takers), mirror, "
        "level shift.",
        "",
        f"Trained in {result.seconds / 60:.0f} minutes. "
        f"Steps {result.step:,} (kept: step {result.best_step:,}, the best on validation). Training settings: "
        f"`{settings}`.",
        "",
        "| set | ticker, venue, date | train events | test events |",
        "|---|---|---:|---:|",
    ]
    for name, parts in windows.items():
        meta = days[name].meta
        tests = parts["test"].events if "test" in parts else 0
        lines.append(f"| {name} | {meta.ticker}, {meta.venue}, {meta.date} | {parts['train'].events:,} | {tests:,} |")
    names = ["model", "unigram", "copy-previous", "markov", "markov (own set)"]
    lines += [
        "",
        "Nats per event on the held-out test parts (lower is better). `markov` is an interpolated first-order chain "
        "fitted on the training tokens of all sets, as the model is; `own set` on those of the same set only.",
        "",
        "| held-out part | " + " | ".join(names) + " | markov - model |",
        "|---|" + "---:|" * (len(names) + 1),
    ]
    for name, row in table.items():
        cells = " | ".join(f"{row[n]:.3f}" for n in names)
        lines.append(f"| {name} | {cells} | {row['markov'] - row['model']:.3f} |")
    return "\n".join([*lines, ""])


def main(arguments: Arguments) -> None:
    """Load, tokenize, train, score, write."""
    console = Console()
    config = replace(PRESETS[arguments.preset], dropout=arguments.dropout)
    days = load_days(arguments.data, arguments.minimum_events)
    parts = segments(days, arguments.half_life_s, arguments.mid)
    provenance = {"sets": sorted(parts), "part": "train, 70% of each day by time"}
    tokenizer = TradeTokenizer.calibrate(
        [p["train"] for p in parts.values()], arguments.mid, arguments.half_life_s, provenance,
        arguments.pressure, arguments.book,
    )  # fmt: skip
    config = replace(config, pressures=tokenizer.pressures, spreads=tokenizer.spreads, books=tokenizer.books)
    windows = {
        name: {p: FlowWindows([features], tokenizer, config.context) for p, features in split_.items()}
        for name, split_ in parts.items()
    }
    source = FlowWindows([p["train"] for p in parts.values()], tokenizer, config.context, Augmentation())
    validation = FlowWindows([p["validation"] for p in parts.values() if "validation" in p], tokenizer, config.context)
    console.print(f"{source.events:,} training events, {validation.events:,} validation events, {len(days)} sets")
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(arguments.out / "tokenizer.json")
    result = train(config, source, validation, arguments.out, arguments.training)
    table = baselines(windows)
    for name, row in table.items():
        row["model"] = score(arguments.out, windows[name]["test"].windows(stride=config.context // 2))
        console.print(f"{name:32s} model {row['model']:.3f}  markov {row['markov']:.3f}")
    (arguments.out / "README.md").write_text(card(arguments, config, days, windows, table, result))
    (arguments.out / "scores.json").write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
