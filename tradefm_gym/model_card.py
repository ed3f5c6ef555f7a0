"""The card of a model that was trained: what went in, what came out."""

import json
from dataclasses import asdict

from tradefm_gym.model.config import ModelConfig
from tradefm_gym.model.shards import Shards
from tradefm_gym.model.training_config import TrainingConfig, TrainingResult

_MOST_SETS = 64  # that the card lists
_COLUMNS = ("model", "unigram", "copy-previous", "markov", "markov (own set)")


def model_card(
    name: str,
    shards: Shards,
    config: ModelConfig,
    training: TrainingConfig,
    result: TrainingResult,
    table: dict[str, dict[str, float]],
) -> str:
    """``README.md`` of a checkpoint folder.

    Args:
        name: the model's.
        shards: what it was trained on.
        config: the network's shape.
        training: settings.
        result: of the run.
        table: nats per event by held-out part and kind, from ``scores``.
    """
    tokenizer = shards.tokenizer
    lines = [
        f"# {name}",
        "",
        f"A TradeFM network of {config.parameter_count():,} parameters ({config.layers} layers, width {config.width}, "
        f"context {config.context}, {config.head} head), trained from scratch on recorded order flow. "
        "An independent implementation of arXiv 2602.23784, not affiliated with its authors. "
        "No recorded row is contained in it or shipped with it.",
        "",
        "Each day was split by time into train / validation / test (70 / 15 / 15%, gap of at most 60 s). "
        f"One universal tokenizer; prices count from: `{tokenizer.mid}`, half-life {tokenizer.half_life_s:g} s. "
        f"The order-flow pressure is {'' if tokenizer.pressures > 1 else 'not '}told, "
        f"the book's spread and touch are {'' if tokenizer.books else 'not '}told, "
        f"pace {'' if tokenizer.paces > 1 else 'not '}told, assets {'' if tokenizer.assets else 'not '}told apart. "
        "Augmentation: participant re-flagging (up to 30% of a window's orders, and 15% of its takers), mirror, "
        "level shift.",
        "",
        f"Trained in {result.seconds / 60:.0f} minutes. "
        f"Steps {result.step:,} (kept: step {result.best_step:,}, the best on validation). Training settings: "
        f"`{json.dumps(asdict(training))}`.",
        "",
        *_sets(shards),
        "",
        *_nats(table),
    ]
    return "\n".join([*lines, ""])


def _sets(shards: Shards) -> list[str]:
    lines = ["| set | ticker, venue, date | train events | test events |", "|---|---|---:|---:|"]
    events = {part: {segment.set: segment.events for segment in shards.segments[part]} for part in ("train", "test")}
    for name, meta in list(shards.sets.items())[:_MOST_SETS]:
        what = ", ".join(str(meta.get(key, "unknown")) for key in ("ticker", "venue", "date"))
        lines.append(f"| {name} | {what} | {events['train'].get(name, 0):,} | {events['test'].get(name, 0):,} |")
    if len(shards.sets) > _MOST_SETS:
        rest = len(shards.sets) - _MOST_SETS
        lines.append(f"| and {rest} more | all: | {shards.events('train'):,} | {shards.events('test'):,} |")
    return lines


def _nats(table: dict[str, dict[str, float]]) -> list[str]:
    columns = [column for column in _COLUMNS if any(column in row for row in table.values())]
    lines = [
        "Nats per event on the held-out test parts (lower is better). `markov` is an interpolated first-order chain "
        "fitted on the training tokens of all sets, as the model is; `own set` on those of the same set only.",
        "",
        "| held-out part | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, row in table.items():
        cells = " | ".join(f"{row[column]:.3f}" if column in row else "" for column in columns)
        lines.append(f"| {name} | {cells} |")
    return lines
