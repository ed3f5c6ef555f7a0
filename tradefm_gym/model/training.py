"""Training: windows in, a checkpoint folder out.

Everything random at step k is a function of (seed, k), so a run that was interrupted continues to exactly the
weights of one that was not. The folder holds the best weights so far, and in ``training.safetensors`` what a run
needs to go on: one file, so that it is replaced in one move, and never pickle.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from tradefm_gym.model.attention_choice import fastest_attention
from tradefm_gym.model.config import (
    ModelConfig,
    load_weights,
    parameter_shapes,
    random_weights,
    save_checkpoint,
)
from tradefm_gym.model.transformer import TradeFM

# inputs (B, T, 4) int32; targets (B, T) int32; weights (B, T) float32, 0 where an event carries no loss
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]

STATE_FILE = "training.safetensors"
SMALL_MODEL = 50_000_000  # parameters; smaller ones learn at twice the rate
# Settings that may differ between the halves of one run: they change no weight.
FREE_SETTINGS = ("evaluate_every", "save_every", "threads", "progress", "resume")


class WindowSource(Protocol):
    """Where windows come from; ``windows.FlowWindows`` is one."""

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """A random batch; all that is random about it comes from ``rng``."""
        ...

    def windows(self) -> Iterator[Batch]:
        """Every event once, in batches of any size."""
        ...


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults suit the mini preset on two CPU cores."""

    steps: int = 4_000
    batch: int = 32  # windows a step
    micro_batch: int = 0  # windows a backward pass; 0: the whole batch
    learning_rate: float = 0.0  # peak; 0: 3e-4, or 6e-4 under 50M parameters
    warmup: float = 0.02  # share of the steps
    final_rate: float = 0.1  # share of the peak at the last step
    weight_decay: float = 0.1  # on matrices
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.0  # decay of the moving average of the weights that is scored and kept; 0: off
    seed: int = 0
    evaluate_every: int = 250  # steps
    save_every: int = 250  # steps
    precision: str = "fp32"  # or bf16: autocast; weights and residual stream stay fp32
    compile: bool = False
    device: str = "cpu"
    threads: int = 0  # 0: as torch finds them
    progress: bool = True
    resume: bool = True  # go on from the folder's state if there is one

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed is a positive integer")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}; allowed is fp32 or bf16")
        for name in ("warmup", "final_rate", "average"):
            if not 0 <= getattr(self, name) <= 1 or (name == "average" and self.average == 1):
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed is a share in [0, 1]")
        if self.learning_rate < 0:
            raise ValueError(
                f"learning_rate is {self.learning_rate!r}; allowed is a positive number, or 0 for automatic"
            )

    def rate(self, step: int, parameters: int) -> float:
        """Learning rate of a step (from 0): linear warm-up, then linear to ``final_rate`` of the peak."""
        peak = self.learning_rate or (6e-4 if parameters < SMALL_MODEL else 3e-4)
        warmup = max(1, round(self.warmup * self.steps))
        if step < warmup:
            return peak * (step + 1) / warmup
        done = (step + 1 - warmup) / max(1, self.steps - warmup)
        return peak * (1 - (1 - self.final_rate) * done)


@dataclass
class TrainingResult:
    """Where a run stands."""

    step: int = 0
    best_step: int = 0
    best_nats: float = math.inf  # per validation event
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # one entry an evaluation


def train(
    config: ModelConfig,
    train_source: WindowSource,
    validation_source: WindowSource,
    out_dir: str | Path,
    training: TrainingConfig | None = None,
    on_evaluation: Callable[[TrainingResult], None] | None = None,
) -> TrainingResult:
    """Trains a network from scratch, or goes on with the run found in ``out_dir``.

    Args:
        config: The network's shape.
        train_source: Random windows.
        validation_source: Fixed windows; the weights with the least nats per event on them are kept.
        out_dir: Receives ``model.safetensors`` and ``config.json`` of the best weights, and ``training.safetensors``.
        training: Settings.
        on_evaluation: Called after each evaluation; an exception from it stops the run, which can be resumed.

    Returns:
        The step reached, the best step and the history of evaluations.
    """
    training = training or TrainingConfig()
    if training.threads:
        torch.set_num_threads(training.threads)
    devices = [torch.device(training.device)] if training.device != "cpu" else []
    with torch.random.fork_rng(devices, device_type=training.device.split(":")[0] if devices else "cuda"):
        run = TrainingRun(config, training, Path(out_dir))
        run.train(train_source, validation_source, on_evaluation)
    return run.result


def score(folder: str | Path, batches: Iterable[Batch], device: str = "cpu") -> float:
    """Nats per event of a checkpoint on ``batches``, in fp32."""
    return evaluate(TradeFM.from_weights(*load_weights(folder)).to(device), batches)


@torch.inference_mode()
def evaluate(model: TradeFM, batches: Iterable[Batch]) -> float:
    """Weighted mean of the negative log-likelihood of the targets, nats per event, without dropout."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = events = 0.0
    for batch in batches:
        inputs, targets, weights = _to_device(batch, device)
        nats = -model.log_prob(model(inputs), targets)
        total += (nats * weights).sum(dtype=torch.float64).item()
        events += weights.sum(dtype=torch.float64).item()
    model.train(was_training)
    if events == 0:
        raise ValueError("batches carry no weight; at least one event must be scored")
    return total / events


class TrainingRun:
    """One training run: model, optimiser, moving average and the way to disk and back."""

    def __init__(self, config: ModelConfig, training: TrainingConfig, folder: Path):
        self.config, self.training, self.folder = config, training, folder
        self.result = TrainingResult()
        self.device = torch.device(training.device)
        self.model = TradeFM.from_weights(config, random_weights(config, training.seed)).to(self.device)
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=training.betas, fused=True)
        self.parameters = config.parameter_count()
        if training.resume and (folder / STATE_FILE).is_file():
            self._load_state()
        self._ahead: tuple[WindowSource, int, tuple[Tensor, Tensor, Tensor]] | None = None
        self._log_prob = self.model.log_prob
        if training.compile:
            # Part by part: the layers share one program, so that 32 compile as fast as one.
            for part in (self.model.embed, *self.model.layers):
                part.compile()
            self._log_prob = torch.compile(self.model.log_prob)
        self._attention = []
        if self.device.type == "cuda" and training.precision == "bf16":
            windows = training.micro_batch or training.batch
            self._attention = fastest_attention(config, windows, self.device)

    def train(self, source: WindowSource, validation: WindowSource, on_evaluation) -> None:
        """All steps that are left, with evaluations and savings."""
        training, result = self.training, self.result
        started, seconds_before, since, loss_sum = time.perf_counter(), result.seconds, result.step, 0.0
        with _progress(training) as progress:
            task = progress.add_task("train", total=training.steps, completed=result.step, nats=math.nan, rate=0.0)
            clock = time.perf_counter()
            while result.step < training.steps:
                loss = self.step(source)
                loss_sum += loss
                result.step += 1
                result.seconds = seconds_before + time.perf_counter() - started
                now, clock = clock, time.perf_counter()
                events = training.batch * self.config.context / (clock - now)
                progress.update(task, completed=result.step, nats=loss, rate=events)
                last = result.step == training.steps
                if last or result.step % training.evaluate_every == 0:
                    self._evaluate(validation, loss_sum / (result.step - since))
                    progress.console.print(_line(result.history[-1]), highlight=False)
                    since, loss_sum, clock = result.step, 0.0, time.perf_counter()
                if last or result.step % training.save_every == 0:
                    self._save_state()
                if on_evaluation and result.history and result.history[-1]["step"] == result.step:
                    on_evaluation(result)

    def step(self, source: WindowSource) -> float:
        """One update; returns the loss in nats per event."""
        training, step = self.training, self.result.step
        inputs, targets, weights = self._windows(source, step)
        weights = weights / weights.sum().clamp(min=1e-9)
        torch.manual_seed(int(np.random.SeedSequence([training.seed, step, 1]).generate_state(1, np.uint64)[0] >> 1))
        self.model.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        size = training.micro_batch or training.batch
        for piece in range(0, training.batch, size):
            rows = slice(piece, piece + size)
            loss = self._loss(inputs[rows], targets[rows], weights[rows])
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = training.rate(step, self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if training.average:
            # Early on the average must forget the random start: its window grows with the steps.
            decay = min(training.average, (step + 1) / (step + 10))
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value.detach(), 1 - decay)
        if self.device.type != "cpu" and step + 1 < training.steps:
            self._ahead = source, step + 1, self._windows(source, step + 1)  # while the device works
        return total.item()

    def _windows(self, source: WindowSource, step: int) -> tuple[Tensor, Tensor, Tensor]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is source and ahead[1] == step:
            return ahead[2]
        batch = source.sample(self.training.batch, np.random.default_rng([self.training.seed, step]))
        return _to_device(batch, self.device)

    def _loss(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        attention = sdpa_kernel(self._attention, set_priority=True) if self._attention else nullcontext()
        with attention, torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            nats = -self._log_prob(self.model(inputs), targets)
        return (nats * weights).sum()

    def _evaluate(self, validation: WindowSource, train_nats: float) -> None:
        kept = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        if self.training.average:
            self.model.load_state_dict(self.average)
        nats, result = evaluate(self.model, validation.windows()), self.result
        result.history.append(
            {"step": result.step, "train": train_nats, "validation": nats, "seconds": round(result.seconds, 1)}
        )
        if nats < result.best_nats:
            result.best_nats, result.best_step = nats, result.step
            save_checkpoint(self.folder, self.config, self.model.weights())
        self.model.load_state_dict(kept)

    def _save_state(self) -> None:
        arrays = {}
        for name, value in self.model.named_parameters():
            moments = self.optimizer.state[value]
            parts = {"weight": value, "mean": moments["exp_avg"], "square": moments["exp_avg_sq"]}
            if self.training.average:
                parts["average"] = self.average[name]
            arrays |= {f"{part}.{name}": tensor.detach().cpu().numpy() for part, tensor in parts.items()}
        state = {"config": self.config.to_json(), "training": asdict(self.training), "result": asdict(self.result)}
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{STATE_FILE}"
        save_file(arrays, temporary, metadata={"state": json.dumps(state)})
        os.replace(temporary, self.folder / STATE_FILE)

    def _load_state(self) -> None:
        path = self.folder / STATE_FILE
        with safe_open(path, framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
            _check_same_run(path, state, self.config, self.training)
            arrays = {name: torch.tensor(file.get_tensor(name), device=self.device) for name in file.keys()}
        self.result = TrainingResult(**state["result"])
        self.model.load_state_dict({name: arrays[f"weight.{name}"] for name in parameter_shapes(self.config)})
        for name, value in self.model.named_parameters():
            self.optimizer.state[value] = {
                "step": torch.tensor(float(self.result.step), device=self.device),
                "exp_avg": arrays[f"mean.{name}"],
                "exp_avg_sq": arrays[f"square.{name}"],
            }
            if self.training.average:
                self.average[name] = arrays[f"average.{name}"]


def _check_same_run(path: Path, state: dict, config: ModelConfig, training: TrainingConfig) -> None:
    if state["config"] != config.to_json():
        raise ValueError(f"{path} is a run of another model; pass the same config, another folder or resume=False")
    for name, value in json.loads(json.dumps(asdict(training))).items():
        found = state["training"].get(name)
        if name not in FREE_SETTINGS and found != value:
            raise ValueError(
                f"{name} is {value!r} but the run in {path} has {found!r}; pass that, another folder or resume=False"
            )


def _to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in batch]
    if device.type == "cuda":
        parts = [part.pin_memory() for part in parts]  # or the transfer would wait for the work before it
    inputs, targets, weights = (part.to(device, non_blocking=True) for part in parts)
    return inputs.long(), targets.long(), weights.float()


def _progress(training: TrainingConfig) -> Progress:
    return Progress(
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[nats]:.3f} nats/event  {task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
        disable=not training.progress,
    )


def _line(entry: dict) -> str:
    return (
        f"step {entry['step']:6d}  train {entry['train']:.4f}  validation {entry['validation']:.4f} nats/event  "
        f"{entry['seconds']:.0f} s"
    )
