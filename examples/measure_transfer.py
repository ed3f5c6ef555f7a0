"""Transfer: leave a venue out, train a small network on all others, and score it on the venue that it never saw.

    python examples/measure_transfer.py --data FOLDER --out runs/transfer

One tokenizer is frozen for all of them, by default that of the bundled model. Its edges were calibrated on training
parts of all venues; of the left-out one nothing else is used but the scales of its own training part (median size,
usual spread, terciles of the traded rate), which every market must have. Beside the network stands an interpolated
Markov chain over the same tokens of the same source venues. Then both are given the last 1,000, 10,000 and all events
of the venue's training part: the network goes on learning on 85% of them and keeps what does best on the others; the
chain counts them beside the sources', or alone, and the better one is the one to beat (without any of them, one that
counts windows at random scales where the network learns from such). Each run is kept in the out
folder, and goes on where it ended.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.model.baselines import Markov
from tradefm_gym.model.config import PRESETS, ModelConfig, load_weights, save_checkpoint
from tradefm_gym.model.likelihood import score_events
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, make_engine
from tradefm_gym.model.token_events import TOKENS
from tradefm_gym.model.tokenizer import SHORTEST_S, TradeTokenizer, compose, decompose
from tradefm_gym.model.training import TrainingRun, evaluate, train
from tradefm_gym.model.training_config import TrainingConfig
from tradefm_gym.model.windows import Augmentation, FlowWindows
from tradefm_gym.realism.bootstrap import Estimate, mean_of
from tradefm_gym.tokenizing import DayParts, day_parts, day_paths

SHOTS = (1_000, 10_000, 0)  # events of the venue's training part; 0 is all of them
LEARNT = 0.85  # of these; the rest choose among steps
BLOCK = 128  # events that are resampled together
MODEL_ROWS = 64
HEAD_WIDTH = 32
SCALED_WINDOWS = 4_096  # that a chain counts
PATIENCE = 3  # evaluations without a better one end an adaptation
TOKEN_FIELDS = TOKENS.names or ()
# with the size beside them, as log(1 + size / median size)
SIZED_TOKENS = np.dtype([*((name, TOKENS[name]) for name in TOKEN_FIELDS), ("volume", np.float64)], align=True)


@dataclass
class Arguments:
    """What to leave out, and how to train."""

    data: Path
    out: Path = Path("runs/transfer")
    # first words of venues, or names of sets: each is left out in turn
    leave_out: tuple[str, ...] = ("Shanghai", "NASDAQ", "NYMEX", "Bitstamp")
    tokenizer: str = BUNDLED_MODEL  # a model whose tokenizer is taken
    layers: int = 3
    width: int = 96
    context: int = 128
    dropout: float = 0.1
    # deviation of the decades and octaves by which the clock and the sizes of a window are scaled; 0 for none
    scale: float = 1.0
    minimum_events: int = 4_000  # smaller sets are left out
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=1_500, learning_rate=2e-3, average=0.99, threads=1, precision="bf16", evaluate_every=250,
            save_every=250, progress=False,
        )
    )  # fmt: skip
    adapting: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            steps=160, learning_rate=5e-4, average=0.95, threads=1, precision="bf16", evaluate_every=20,
            save_every=20, patience=PATIENCE, progress=False,
        )
    )  # fmt: skip


class ScaledWindows(FlowWindows):
    """Windows whose clock and whose sizes run at a random scale each.

    Feeds differ in their resolution of time more than markets do: a network that has seen waits of whole milliseconds
    only gives shorter ones next to no probability.

    Events keep their size beside their tokens. Once a window is drawn and augmented, its waiting times and its sizes
    are multiplied, by a factor each, and their two digits of the trade token are made anew: nothing else of the inputs
    is scaled. ``windows`` and ``tokens`` stay as recorded. Segments must be features, not tokens.
    """

    scale = 0.0  # deviation of the decades of time and of the octaves of size

    def __init__(
        self,
        segments: list[np.ndarray],
        tokenizer: TradeTokenizer,
        context: int,
        augmentation: Augmentation | None = None,
    ):
        super().__init__(segments, tokenizer, context, augmentation)
        volumes = [features["volume"][features["valid"] == 1] for features in segments]
        kept = [volume for volume in volumes if len(volume) > 1]  # as the segments are
        self.segments = [_sized(*both) for both in zip(self.segments, kept, strict=True)]

    def _draw(self, window: np.ndarray, rng: np.random.Generator, out: np.ndarray) -> None:
        super()._draw(window, rng, out)
        if self.scale > 0:
            decades, octaves = self.scale * rng.standard_normal(2)
            seconds = np.log10(np.maximum(window["seconds"] * 10.0**decades, SHORTEST_S))
            volume = np.log1p(np.expm1(window["volume"]) * 2.0**octaves)
            edges, tokens = self.tokenizer.edges, out[: len(window), 3]
            digits = np.searchsorted(edges.volume, volume, "right"), np.searchsorted(edges.time, seconds, "right")
            tokens[:] = compose(*decompose(tokens)[:3], *digits)


def _sized(tokens: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """Events ``(n,) SIZED_TOKENS``."""
    sized = np.zeros(len(tokens), SIZED_TOKENS)
    for name in TOKEN_FIELDS:
        sized[name] = tokens[name]
    sized["volume"] = volume
    return sized


Parts = dict[str, dict[str, np.ndarray]]  # features by set and part


def network(arguments: Arguments, tokenizer: TradeTokenizer) -> ModelConfig:
    """The shape of the small network: the mini preset, smaller."""
    heads = arguments.width // HEAD_WIDTH
    return replace(
        PRESETS["mini"], layers=arguments.layers, width=arguments.width, feed_width=5 * arguments.width // 2,
        heads=heads, kv_heads=heads, context=arguments.context, dropout=arguments.dropout,
        **tokenizer.told,
    )  # fmt: skip


def model_nats(folder: Path, windows: FlowWindows) -> np.ndarray:
    """Nats of each event (n,) under a checkpoint."""
    config, weights = load_weights(folder)
    engine = make_engine(replace(config, dropout=0.0), weights, MODEL_ROWS)
    inputs = [segment["straight"].astype(np.int32) for segment in windows.segments]
    return np.concatenate([scores.nats for scores in score_events(engine, inputs)])


def chain_nats(chain: Markov, windows: FlowWindows) -> np.ndarray:
    """Nats of each event (n,) under a Markov chain."""
    return np.concatenate([chain.event_nats(tokens) for tokens in windows.tokens()])


def adapt(source: Path, out: Path, learnt: FlowWindows, chosen_on: FlowWindows, training: TrainingConfig) -> int:
    """Goes on training a checkpoint; returns the step whose weights were kept, 0 if none was better than the start."""
    config, weights = load_weights(source)
    run = TrainingRun(config, training, out)
    if run.result.step == 0:
        run.model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
        run.average = {name: value.detach().clone() for name, value in run.model.named_parameters()}
        run.result.best_nats = evaluate(run.model, chosen_on.windows())
        save_checkpoint(out, config, weights)
    run.train(learnt, chosen_on, None)
    return run.result.best_step


class Transfer:
    """One venue left out."""

    def __init__(self, arguments: Arguments, name: str, venues: dict[str, str], parts: Parts, console: Console):
        self.arguments, self.name, self.console = arguments, name, console
        unseen = [one for one in parts if name in (one, venues[one])]
        if not unseen or len(unseen) == len(parts):
            allowed = sorted({*parts, *(venues[one] for one in parts)})
            raise SystemExit(f"--leave-out names {name!r}; allowed are {', '.join(allowed)}, with others left to learn")
        self.source = {one: of for one, of in parts.items() if one not in unseen}
        self.unseen = {one: parts[one] for one in unseen if "test" in parts[one]}
        self.tokenizer = TradeTokenizer.load(checkpoint(arguments.tokenizer)[0])
        self.config = network(arguments, self.tokenizer)
        self.folder = arguments.out / name

    def run(self) -> list[dict]:
        """Trains, scores, adapts; a row for each set and number of events."""
        train_part = [of["train"] for of in self.source.values()]
        validation = self._windows([of["validation"] for of in self.source.values() if "validation" in of])
        augmented = ScaledWindows(train_part, self.tokenizer, self.config.context, Augmentation())
        augmented.scale = self.arguments.scale
        self.console.print(f"{self.name} left out: {augmented.events:,} events of {', '.join(self.source)}")
        result = train(self.config, augmented, validation, self.folder, self.arguments.training)
        self.console.print(f"{result.seconds / 60:.1f} minutes, kept step {result.best_step} of {result.step}")
        self.tokenizer.save(self.folder / "tokenizer.json")
        source_tokens = self._windows(train_part).tokens()
        chain = Markov(source_tokens, validation.tokens())
        rows = []
        for name, of in self.unseen.items():
            test = self._windows([of["test"]])
            rows.append(self._row(name, 0, test, self.folder, chain, self._scaled_chain(augmented), result.best_step))
            for shot in self._shots(of["train"]):
                rows.append(self._adapted(name, of["train"][-shot:], test, source_tokens))
        (self.folder / "transfer.json").write_text(json.dumps(rows, indent=1))
        return rows

    def _scaled_chain(self, augmented: ScaledWindows) -> Markov | None:
        """A chain that counts scaled windows, too: it is to have what the network has."""
        if self.arguments.scale == 0:
            return None
        drawn = [augmented.sample(SCALED_WINDOWS, np.random.default_rng([0, part])) for part in (1, 2)]
        tokens = [[*np.concatenate([inputs[:, :1, 3], targets], axis=1)] for inputs, targets, _ in drawn]
        return Markov(*tokens)

    def _shots(self, train_part: np.ndarray) -> list[int]:
        return sorted({shot or len(train_part) for shot in SHOTS if shot <= len(train_part)})

    def _adapted(self, name: str, shot: np.ndarray, test: FlowWindows, source: list[np.ndarray]) -> dict:
        """The network and the chains after some events of the venue."""
        cut = int(LEARNT * len(shot))
        learnt, chosen_on = shot[:cut], self._windows([shot[cut:]])
        out = self.folder / f"{name}-{len(shot)}"
        augmented = FlowWindows([learnt], self.tokenizer, self.config.context, Augmentation())
        step = adapt(self.folder, out, augmented, chosen_on, self.arguments.adapting)
        tokens = self._windows([learnt]).tokens()
        choosing = chosen_on.tokens()
        return self._row(
            name, len(shot), test, out, Markov([*source, *tokens], choosing), Markov(tokens, choosing), step
        )

    def _row(
        self, name: str, events: int, test: FlowWindows, model: Path, chain: Markov, own: Markov | None, step: int
    ) -> dict:
        nats, baseline = model_nats(model, test), chain_nats(chain, test)
        block = np.arange(len(nats)) // BLOCK
        alone = None if own is None else chain_nats(own, test)
        gain = mean_of((baseline if alone is None or baseline.mean() < alone.mean() else alone) - nats, block)
        row = {
            "left_out": self.name, "set": name, "events": events, "n": len(nats), "step": step,
            "model": asdict_of(mean_of(nats, block)), "markov": float(baseline.mean()),
            "markov_other": None if alone is None else float(alone.mean()), "gain": asdict_of(gain),
        }  # fmt: skip
        other = "own events only" if events else "scaled windows"
        shown = "" if alone is None else f", {other} {alone.mean():.3f}"
        self.console.print(
            f"{name}, {events:,} events: model {nats.mean():.3f}, Markov {baseline.mean():.3f}{shown}, "
            f"gain {gain.value:.3f} [{gain.low:.3f}, {gain.high:.3f}]",
            highlight=False,
        )
        return row

    def _windows(self, features: list[np.ndarray]) -> FlowWindows:
        return FlowWindows(features, self.tokenizer, self.config.context)


def asdict_of(found: Estimate) -> dict[str, float]:
    """An estimate as plain values."""
    return {"value": float(found.value), "low": float(found.low), "high": float(found.high)}


def print_rows(rows: list[dict], console: Console) -> None:
    """The table of all venues."""
    table = Table(title="Nats per event on test parts of a venue that was left out; gain over Markov with 95% interval")
    for column in ("left out", "set", "its events", "n", "model", "Markov", "other Markov", "gain", "interval"):
        table.add_column(column, justify="left" if column in ("left out", "set") else "right", no_wrap=True)
    for row in rows:
        own, gain = row["markov_other"], row["gain"]
        table.add_row(
            row["left_out"], row["set"], f"{row['events']:,}", f"{row['n']:,}", f"{row['model']['value']:.3f}",
            f"{row['markov']:.3f}", "" if own is None else f"{own:.3f}", f"{gain['value']:.3f}",
            f"{gain['low']:.3f} to {gain['high']:.3f}",
        )  # fmt: skip
    console.print(table)


def check_scale(path: Path, scale: float) -> None:
    """Keeps the scale of a folder's runs, and refuses to go on with another; other settings the runs check."""
    found = json.loads(path.read_text()).get("scale", 0.0) if path.is_file() else scale
    if found != scale:
        raise SystemExit(f"--scale is {scale}, but the runs in {path.parent} have {found}; pass that or another --out")
    path.write_text(json.dumps({"scale": scale}))


def load_parts(arguments: Arguments, tokenizer: TradeTokenizer) -> list[DayParts]:
    """Features of all sets that are large enough, by name."""
    days = day_parts(day_paths([arguments.data]), tokenizer.half_life_s, tokenizer.mid, arguments.minimum_events)
    found = sorted(days, key=lambda day: day.name)
    if not found:
        raise SystemExit(f"--minimum-events is {arguments.minimum_events}; no day in {arguments.data} has as many")
    return found


def main(arguments: Arguments) -> None:
    """Runs venue after venue."""
    console = Console(width=None if Console().is_terminal else 170)
    if arguments.training.threads:
        torch.set_num_threads(arguments.training.threads)
    days = load_parts(arguments, TradeTokenizer.load(checkpoint(arguments.tokenizer)[0]))
    parts = {day.name: day.parts for day in days}
    venues = {day.name: day.meta.venue.split()[0] for day in days}
    arguments.out.mkdir(parents=True, exist_ok=True)
    check_scale(arguments.out / "settings.json", arguments.scale)
    rows = []
    for name in arguments.leave_out:
        rows += Transfer(arguments, name, venues, parts, console).run()
    print_rows(rows, console)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
