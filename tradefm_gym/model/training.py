"""Training: windows in, a checkpoint folder out, in one process or in several.

Everything random at step k is a function of (seed, k), so a run that was interrupted continues to exactly the
weights of one that was not, and several processes draw what one would. The folder holds the best weights so far,
and what a run needs to go on (``training_state``).
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from tradefm_gym.model.attention_choice import fastest_attention
from tradefm_gym.model.config import ModelConfig, load_weights, random_weights, save_checkpoint
from tradefm_gym.model.processes import Processes, whole
from tradefm_gym.model.training_config import TrainingConfig, TrainingResult
from tradefm_gym.model.training_report import TrainingReport
from tradefm_gym.model.training_state import STATE_FILE, read_state, write_state
from tradefm_gym.model.transformer import TradeFM

# inputs (B, T, 4) int32; targets (B, T) int32; weights (B, T) float32, 0 where an event carries no loss
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


class WindowSource(Protocol):
    """Where windows come from; ``windows.FlowWindows`` is one."""

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """A random batch; all that is random about it comes from ``rng``."""
        ...

    def windows(self) -> Iterator[Batch]:
        """Every event once, in batches of any size."""
        ...


def train(
    config: ModelConfig,
    train_source: WindowSource,
    validation_source: WindowSource,
    out_dir: str | Path,
    training: TrainingConfig | None = None,
    on_evaluation: Callable[[TrainingResult], None] | None = None,
    data: str | None = None,
    on_start: Callable[[], None] | None = None,
) -> TrainingResult:
    """Trains a network from scratch, or goes on with the run found in ``out_dir``.

    Started by ``torchrun``, each process takes its share of every batch; one writes the files.

    Args:
        config: The network's shape.
        train_source: Random windows, the same in all processes.
        validation_source: Fixed windows; the weights with the least nats per event on them are kept.
        out_dir: Receives ``model.safetensors`` and ``config.json`` of the best weights, and ``training.safetensors``.
        training: Settings.
        on_evaluation: Called after each evaluation; an exception from it stops the run, which can be resumed.
        data: What identifies the data; a run of other data is not gone on with.
        on_start: Called by the process that writes, before the first step and once nothing is left to refuse.

    Returns:
        The step reached, the best step and the history of evaluations.

    Raises:
        ValueError: for settings, a device or a folder that cannot be used.
        FloatingPointError: once a loss is not finite.
    """
    training = training or TrainingConfig()
    if training.threads:
        torch.set_num_threads(training.threads)
    with Processes.found(training.parallel, training.device) as processes:
        devices = [processes.device] if processes.device.type != "cpu" else []
        with torch.random.fork_rng(devices, device_type=processes.device.type if devices else "cuda"):
            run = TrainingRun(config, training, Path(out_dir), processes, data)
            run.train(train_source, validation_source, on_evaluation, on_start)
    return run.result


def score(folder: str | Path, batches: Iterable[Batch], device: str = "cpu") -> float:
    """Nats per event of a checkpoint on ``batches``, in fp32."""
    return evaluate(TradeFM.from_weights(*load_weights(folder)).to(device), batches)


def evaluate(model: TradeFM, batches: Iterable[Batch]) -> float:
    """Weighted mean of the negative log-likelihood of the targets, nats per event, without dropout."""
    return _mean_nats(EventNats(model), batches, Processes("ddp", next(model.parameters()).device))


@torch.no_grad()
def _mean_nats(nats: "EventNats", batches: Iterable[Batch], processes: Processes) -> float:
    was_training = nats.training
    nats.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        inputs, targets, weights = _to_device(processes.share(batch), processes.device)
        losses = nats(inputs, targets) * weights
        sums += torch.stack((losses.sum(dtype=torch.float64), weights.sum(dtype=torch.float64))).cpu()
    nats.train(was_training)
    total, events = processes.sum(sums).tolist()
    if events == 0:
        raise ValueError("batches carry no weight; at least one event must be scored")
    return total / events


class EventNats(nn.Module):
    """A network with its loss: inputs (B, T, 4) and targets (B, T) -> (B, T), nats.

    Head and layers are run by one ``forward``, which is where processes that share weights gather them.
    """

    def __init__(self, model: TradeFM, compiled: bool = False):
        super().__init__()
        self.model, self._log_prob = model, model.log_prob
        if compiled:
            # Part by part: the layers share one program, so that 32 compile as fast as one.
            for part in (model.embed, *model.layers):
                part.compile()
            self._log_prob = torch.compile(model.log_prob)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:  # noqa: D102
        log_prob = self._log_prob if self.training else self.model.log_prob
        return -log_prob(self.model(inputs), targets)


class TrainingRun:
    """One training run: model, optimiser, moving average and the way to disk and back."""

    def __init__(
        self,
        config: ModelConfig,
        training: TrainingConfig,
        folder: Path,
        processes: Processes | None = None,
        data: str | None = None,
    ):
        self.config, self.training, self.folder, self.data = config, training, folder, data
        self.processes = processes or Processes(training.parallel, torch.device(training.device))
        self.device = self.processes.device
        self.windows = self.processes.windows_each(training.batch)
        self.result, state = TrainingResult(), None
        self._since, self._loss_sum = 0, 0.0  # the last evaluation's step, and the losses of the steps after it
        if training.resume and (folder / STATE_FILE).is_file():
            self.result, state, known, loss_sum = read_state(folder, config, training, data)
            self.data = data or known
            if loss_sum is None:
                self._since = self.result.step
            else:
                self._since = self.result.history[-1]["step"] if self.result.history else 0
                self._loss_sum = loss_sum
        self.model = TradeFM.from_weights(config, random_weights(config, training.seed)).to(self.device)
        self.model.recompute = training.recompute
        self.nats = EventNats(self.model, training.compile)
        self._shared = self.processes.spread(self.nats, self.model.layers)
        self.average = self._copied() if training.average else {}
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=training.betas, fused=True)
        if state is not None:
            self._take(state)
        self.parameters = config.parameter_count()
        self._ahead: tuple[WindowSource, int, tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
        self._attention = []
        if self.device.type == "cuda" and training.precision == "bf16":
            self._attention = fastest_attention(config, training.micro_batch or self.windows, self.device)

    @property
    def finished(self) -> bool:
        """Whether all steps are made, or too many evaluations were no better."""
        result, patience = self.result, self.training.patience
        stale = sum(entry["step"] > result.best_step for entry in result.history)
        return result.step >= self.training.steps or (patience > 0 and stale >= patience)

    def train(self, source: WindowSource, validation: WindowSource, on_evaluation, on_start=None) -> None:
        """All steps that are left, with evaluations and savings."""
        training, result = self.training, self.result
        started, seconds_before = time.perf_counter(), result.seconds
        with TrainingReport(self.config, training, self.folder, result.step, self.processes) as report:
            if self.processes.first:
                if not training.resume:
                    # Or a run that is killed before it first saves would go on as the one that was there.
                    (self.folder / STATE_FILE).unlink(missing_ok=True)
                if on_start:
                    on_start()
            while not self.finished:
                loss = self.step(source)
                self._check_finite("loss", loss)
                self._loss_sum += loss
                result.step += 1
                result.seconds = seconds_before + time.perf_counter() - started
                report.step(result.step, loss, training.rate(result.step - 1, self.parameters))
                evaluated = result.step == training.steps or result.step % training.evaluate_every == 0
                if evaluated:
                    self._evaluate(validation, self._loss_sum / (result.step - self._since))
                    report.evaluation(result.history[-1])
                    self._since, self._loss_sum = result.step, 0.0
                if self.finished or result.step % training.save_every == 0:
                    self._save_state()
                if on_evaluation and evaluated:
                    on_evaluation(result)

    def step(self, source: WindowSource) -> float:
        """One update; returns the loss in nats per event."""
        training, step = self.training, self.result.step
        inputs, targets, weights, total_weight = self._windows(source, step)
        # Processes average their gradients where the loss is a sum over all windows.
        weights = weights * self.processes.count / total_weight.clamp(min=1e-9)
        self.nats.train()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        size = training.micro_batch or self.windows
        pieces = range(0, self.windows, size)
        for number, piece in enumerate(pieces):
            _seed_dropout(training.seed, step, self.processes.rank * len(pieces) + number)
            rows = slice(piece, piece + size)
            with self.processes.gathering(self._shared, number == len(pieces) - 1):
                loss = self._loss(inputs[rows], targets[rows], weights[rows])
                loss.backward()
            total += loss.detach() / self.processes.count
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), training.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = training.rate(step, self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._average(step)
        if self.device.type != "cpu" and step + 1 < training.steps:
            self._ahead = source, step + 1, self._windows(source, step + 1)  # while the device works
        return self.processes.sum(total).item()

    def _average(self, step: int) -> None:
        if self.training.average:
            # Early on the average must forget the random start: its window grows with the steps.
            decay = min(self.training.average, (step + 1) / (step + 10))
            for name, value in self.model.named_parameters():
                self.average[name].lerp_(value.detach(), 1 - decay)

    def _windows(self, source: WindowSource, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This process's windows of a step, and the weight of those of all."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] is source and ahead[1] == step:
            return ahead[2]
        batch = source.sample(self.training.batch, np.random.default_rng([self.training.seed, step]))
        inputs, targets, weights = _to_device(self.processes.share(batch), self.device)
        if self.processes.count == 1:
            return inputs, targets, weights, weights.sum()
        return inputs, targets, weights, _sent(torch.from_numpy(batch[2]).float().sum(), self.device)

    def _loss(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        attention = sdpa_kernel(self._attention, set_priority=True) if self._attention else nullcontext()
        with attention, torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.precision == "bf16"):
            nats = self._shared(inputs, targets)
        return (nats * weights).sum()

    def _evaluate(self, validation: WindowSource, train_nats: float) -> None:
        kept = self._copied() if self.training.average else {}
        if self.training.average:
            self._set_weights(self.average)
        nats, result = _mean_nats(self.nats, validation.windows(), self.processes), self.result
        self._check_finite("loss on validation data", nats)
        result.history.append(
            {"step": result.step, "train": train_nats, "validation": nats, "seconds": round(result.seconds, 1)}
        )
        if nats < result.best_nats:
            result.best_nats, result.best_step = nats, result.step
            weights = self._gathered(self.model.named_parameters())
            if self.processes.first:
                save_checkpoint(self.folder, self.config, weights)
        if self.training.average:
            self._set_weights(kept)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            rate = max(self.training.rate(step, self.parameters) for step in range(self.result.step + 1))
            raise FloatingPointError(
                f"the {what} is {value} after {self.result.step} steps at a learning_rate of up to {rate:g}; begin "
                "again with a smaller one, with --fresh (in Python resume=False) or in another folder"
            )

    def _gathered(self, parts: Iterable[tuple[str, Tensor]]) -> dict[str, np.ndarray]:
        """Whole tensors, in the process that writes them; the others take part and keep nothing."""
        arrays = {}
        for name, part in parts:
            tensor = whole(part)
            if self.processes.first:
                arrays[name] = tensor.numpy()
        return arrays

    def _copied(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    @torch.no_grad()
    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        for name, value in self.model.named_parameters():
            value.copy_(weights[name])

    def _save_state(self) -> None:
        arrays = {}
        for name, value in self.model.named_parameters():
            moments = self.optimizer.state[value]
            parts = {"weight": value, "mean": moments["exp_avg"], "square": moments["exp_avg_sq"]}
            if self.training.average:
                parts["average"] = self.average[name]
            arrays |= self._gathered((f"{part}.{name}", tensor) for part, tensor in parts.items())
        if self.processes.first:
            if not all(np.isfinite(array).all() for array in arrays.values()):
                self._check_finite("largest weight or moment", math.nan)  # no run could go on from that
            write_state(self.folder, self.config, self.training, self.result, arrays, self.data, self._loss_sum)
        self.processes.wait()  # or others would be ended while one still writes

    def _take(self, state: dict[str, np.ndarray]) -> None:
        for name, value in self.model.named_parameters():

            def part(of: str, name=name, value=value) -> Tensor:
                return self.processes.like(value, torch.from_numpy(state[f"{of}.{name}"]))

            with torch.no_grad():
                value.copy_(part("weight"))
            self.optimizer.state[value] = {
                "step": torch.tensor(float(self.result.step), device=self.device),
                "exp_avg": part("mean"),
                "exp_avg_sq": part("square"),
            }
            if self.training.average:
                self.average[name] = part("average")


def _seed_dropout(seed: int, step: int, piece: int) -> None:
    words = [seed, step, 1, piece] if piece else [seed, step, 1]
    torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))


def _to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    inputs, targets, weights = (_sent(torch.from_numpy(np.ascontiguousarray(part)), device) for part in batch)
    return inputs.long(), targets.long(), weights.float()


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # or the transfer would wait for the work before it
    return tensor.to(device, non_blocking=True)
