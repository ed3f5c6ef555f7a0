"""From recorded days or token shards to a checkpoint: tokenize, train, score on held-out parts, write the card."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tradefm_gym.arguments import whole
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.model.baselines import CopyPrevious, Markov, Unigram
from tradefm_gym.model.config import PRESETS, ModelConfig
from tradefm_gym.model.shards import Shards, is_shards, open_shards
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.model.tokenizer_options import TokenizerOptions
from tradefm_gym.model.training_config import TrainingConfig, TrainingResult
from tradefm_gym.model.training_state import STATE_FILE, data_of
from tradefm_gym.model.windows import Augmentation, FlowWindows
from tradefm_gym.model_card import model_card
from tradefm_gym.tokenizing import write_shards

_MOST_SETS = 64  # of which each is scored by itself
_MOST_EVENTS = 20_000_000  # on which baselines are fitted: they want all tokens in memory


@contextmanager
def shards_of(
    data: Path | None, out: Path, options: TokenizerOptions | None = None, minimum_events: int = 0, verify: bool = True
) -> Iterator[Shards]:
    """Shards as they are, or of recorded days (``None``: the bundled synthetic one) as long as the context lasts.

    Args:
        data: a folder of shards, a recorded day, or a folder of recorded days.
        out: the days' shards lie beside it.
        options: of the tokenizer calibrated on days.
        minimum_events: smaller days are left out.
        verify: read shards once before they are used (see ``open_shards``).
    """
    (options or TokenizerOptions()).check()
    whole("minimum_events", minimum_events, 0)
    if data is not None and is_shards(data):
        yield open_shards(data, verify)
        return
    # Always of the same name: what a killed run left is replaced, not kept for ever.
    folder = out.absolute().parent / f".{out.name}.shards"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield write_shards([data or BUNDLED_DAY], folder, None, options, minimum_events)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def network(preset: str, tokenizer: TradeTokenizer, dropout: float = 0.0) -> ModelConfig:
    """A preset that is told what the tokenizer tells."""
    return replace(PRESETS[preset], dropout=dropout, **tokenizer.told)


def train_model(
    shards: Shards, config: ModelConfig, out: Path, training: TrainingConfig, console: Console | None = None
) -> TrainingResult:
    """Trains a network on shards and writes a checkpoint folder with scores and a card.

    Started by ``torchrun``, all processes train and the first one writes.

    Args:
        shards: opened, with training and validation events.
        config: from ``network``.
        out: the checkpoint folder; an interrupted run in it is continued.
        training: settings.
        console: for what is said beside the progress.
    """
    from tradefm_gym.model.processes import started_together
    from tradefm_gym.model.training import train

    console, first = console or Console(quiet=True), started_together()[0] == 0
    source = FlowWindows(shards.tokens("train"), shards.tokenizer, config.context, Augmentation())
    if not shards.events("validation"):
        raise ValueError("data holds no validation events; training needs some to choose the best weights by")
    validation = FlowWindows(shards.tokens("validation"), shards.tokenizer, config.context)
    if first:
        _check_folder(shards, out, training)
        console.print(
            f"{config.parameter_count():,} parameters; {source.events:,} training events, "
            f"{validation.events:,} validation events, {len(shards.sets)} sets",
            highlight=False,
        )
    result = train(config, source, validation, out, training, data=shards.digest, on_start=lambda: _begin(shards, out))
    if first:
        table = scores(shards, config, out, training.device)
        for name, row in table.items():
            console.print(f"{name:32s} " + "  ".join(f"{k} {v:.3f}" for k, v in row.items()), soft_wrap=True)
        _write(out / "scores.json", json.dumps(table, indent=1) + "\n")
        _write(out / "README.md", model_card(out.name, shards, config, training, result, table))
    return result


def scores(shards: Shards, config: ModelConfig, folder: Path, device: str = "cpu") -> dict[str, dict[str, float]]:
    """Nats per event on each held-out test part, of the checkpoint and, where they can be had, of the baselines.

    Of more than 64 sets one row for all.
    """
    from tradefm_gym.model.training import score

    tested = [segment.set for segment in shards.segments["test"]]
    rows = {name: shards.tokens("test", name) for name in tested}
    if len(rows) > _MOST_SETS:
        rows = {"all": shards.tokens("test")}
    table = _baselines(shards, list(rows)) if shards.events("train") <= _MOST_EVENTS else {name: {} for name in rows}
    for name, segments in rows.items():
        windows = FlowWindows(segments, shards.tokenizer, config.context)
        table[name] = {"model": score(folder, windows.windows(stride=config.context // 2), device), **table[name]}
    return table


def _check_folder(shards: Shards, out: Path, training: TrainingConfig) -> None:
    """Refuses to give weights of another tokenizer this one."""
    path, run, weights = out / "tokenizer.json", out / STATE_FILE, out / "model.safetensors"
    if not training.resume or _has_tokenizer(path, shards):
        return
    if run.exists() and path.exists():
        raise ValueError(f"{path} is not the tokenizer of the data; pass the same data, another folder or --fresh")
    # A run that says what its data are is compared with them later, and gets its tokenizer back.
    if run.exists() and data_of(out) is None:
        raise ValueError(f"{path} is missing and {run} does not say of what data it is; pass another folder or --fresh")
    if weights.exists() and not run.exists():
        raise ValueError(f"{weights} has no run to go on with and not this tokenizer; pass another folder or --fresh")


def _begin(shards: Shards, out: Path) -> None:
    """Makes the folder and its tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "tokenizer.json"
    if not _has_tokenizer(path, shards) and not (out / STATE_FILE).exists():
        (out / "model.safetensors").unlink(missing_ok=True)  # or until the first evaluation they would be a pair
    shards.tokenizer.save(path)


def _has_tokenizer(path: Path, shards: Shards) -> bool:
    try:
        return path.exists() and TradeTokenizer.load(path).to_json() == shards.tokenizer.to_json()
    except ValueError:  # a damaged one
        return False


def _baselines(shards: Shards, names: list[str]) -> dict[str, dict[str, float]]:
    """Nats per event of each baseline on held-out parts, fitted on the training tokens of all sets."""

    def tokens(part: str, name: str | None = None) -> list:
        return [segment["straight"][:, 3].astype("int32") for segment in shards.tokens(part, name)]

    train, validation = tokens("train"), tokens("validation")
    fitted = {
        "unigram": Unigram(train), "copy-previous": CopyPrevious(train, validation), "markov": Markov(train, validation)
    }  # fmt: skip
    table = {}
    for name in names:
        test = tokens("test", None if name == "all" else name)
        table[name] = {kind: baseline.nats(test) for kind, baseline in fitted.items()}
        if name != "all" and tokens("train", name) and tokens("validation", name):
            table[name]["markov (own set)"] = Markov(tokens("train", name), tokens("validation", name)).nats(test)
        table[name]["events"] = sum(len(t) - 1 for t in test)
    return table


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
