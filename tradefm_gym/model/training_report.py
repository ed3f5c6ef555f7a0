"""What a training run tells while it runs: a line of progress, an evaluation's figures, and files for TensorBoard."""

import math
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tradefm_gym.model.config import ModelConfig
from tradefm_gym.model.operations import peak_flops, step_flops
from tradefm_gym.model.processes import Processes
from tradefm_gym.model.training_config import TrainingConfig


class TrainingReport:
    """Reports of one run; only the first process makes any.

    Args:
        config: the network's shape.
        training: settings.
        folder: the run's; events for TensorBoard go into ``tensorboard`` below it.
        step: where the run stands.
        processes: who trains.
    """

    def __init__(self, config: ModelConfig, training: TrainingConfig, folder: Path, step: int, processes: Processes):
        self._events = training.batch * config.context  # of a step
        self._flops = step_flops(config, training.batch)
        device = processes.device
        known = device.type == "cuda" and training.precision == "bf16"
        peak = peak_flops(torch.cuda.get_device_name(device)) if known else None
        self._peak = None if peak is None else peak * processes.count
        self._progress = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[nats]:.3f} nats/event  {task.fields[rate]:,.0f} events/s{task.fields[mfu]}"),
            TimeRemainingColumn(),
            disable=not (training.progress and processes.first),
        )
        self._task = self._progress.add_task(
            "train", total=training.steps, completed=step, nats=math.nan, rate=0.0, mfu=""
        )
        self._writer = _writer(folder / "tensorboard", step) if training.tensorboard and processes.first else None
        self._clock = time.perf_counter()

    def __enter__(self) -> "TrainingReport":
        self._progress.start()
        self._clock = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()
        if self._writer is not None:
            self._writer.close()

    def step(self, step: int, nats: float, learning_rate: float) -> None:
        """A step is done."""
        before, self._clock = self._clock, time.perf_counter()
        seconds = self._clock - before
        figures = {"train/nats": nats, "train/events_per_second": self._events / seconds}
        mfu = ""
        if self._peak is not None:
            share = self._flops / seconds / self._peak
            figures["train/mfu"], mfu = share, f"  MFU {share:.1%}"
        self._progress.update(self._task, completed=step, nats=nats, rate=self._events / seconds, mfu=mfu)
        self._write(figures | {"train/learning_rate": learning_rate}, step)

    def evaluation(self, entry: dict) -> None:
        """An evaluation is done, with this entry of the history."""
        if not self._progress.disable:
            self._progress.console.print(_line(entry), highlight=False)
        self._write({"validation/nats": entry["validation"], "validation/train_nats": entry["train"]}, entry["step"])
        self._clock = time.perf_counter()  # its time is none of the next step's

    def _write(self, figures: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)


def _writer(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('tensorboard needs a package: pip install "tradefm-gym[tensorboard]"') from error
    return SummaryWriter(str(folder), purge_step=step + 1)  # a resumed run makes some steps again


def _line(entry: dict) -> str:
    return (
        f"step {entry['step']:6d}  train {entry['train']:.4f}  validation {entry['validation']:.4f} nats/event  "
        f"{entry['seconds']:.0f} s"
    )
