"""How a model is trained, and where a run stands. Needs no torch."""

import math
from dataclasses import dataclass, field
from typing import Any

from tradefm_gym.arguments import shortened

SMALL_MODEL = 50_000_000  # parameters; smaller ones learn at twice the rate
# Settings that may differ between the halves of one run: they change no weight, but for the order of sums.
FREE_SETTINGS = (
    "evaluate_every", "save_every", "patience", "recompute", "parallel", "threads", "progress", "tensorboard", "resume",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults suit the mini preset on two CPU cores."""

    steps: int = 4_000
    batch: int = 32  # windows a step, over all processes
    micro_batch: int = 0  # windows a backward pass; 0: the whole share of a process
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
    patience: int = 0  # evaluations in a row without a better one that end the run; 0: all steps are made
    precision: str = "fp32"  # or bf16: autocast; weights and residual stream stay fp32
    compile: bool = False
    recompute: bool = False  # a layer's activations in the backward pass, instead of keeping them: less memory
    parallel: str = "ddp"  # under torchrun: every process holds the model, or with "fsdp" its share of it (FSDP2)
    device: str = "cpu"
    threads: int = 0  # 0: as torch finds them
    progress: bool = True
    tensorboard: bool = False  # write events for it into the folder
    resume: bool = True  # go on from the folder's state if there is one

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "save_every"):
            self._require(name, _is_whole(getattr(self, name), 1), "a positive integer")
        for name in ("micro_batch", "patience", "threads", "seed"):
            self._require(name, _is_whole(getattr(self, name), 0), "an integer from 0 on")
        if self.parallel not in ("ddp", "fsdp"):
            raise ValueError(f"parallel is {self.parallel!r}; allowed is ddp or fsdp")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}; allowed is fp32 or bf16")
        for name in ("learning_rate", "warmup", "final_rate", "weight_decay", "average", "clip"):
            self._require(name, _is_finite(getattr(self, name)), "a finite number")
        for name in ("warmup", "final_rate"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a share in [0, 1]")
        self._require("average", 0 <= self.average < 1, "a share in [0, 1)")
        self._require("learning_rate", self.learning_rate >= 0, "a positive number, or 0 for automatic")
        self._require("weight_decay", self.weight_decay >= 0, "a number from 0 on")
        self._require("clip", self.clip > 0, "a positive number")
        two = isinstance(self.betas, tuple | list) and len(self.betas) == 2
        self._require("betas", two and all(_is_finite(b) and 0 <= b < 1 for b in self.betas), "two shares in [0, 1)")

    def _require(self, name: str, met: bool, allowed: str) -> None:
        if not met:
            raise ValueError(f"{name} is {shortened(getattr(self, name))}; allowed is {allowed}")

    def rate(self, step: int, parameters: int) -> float:
        """Learning rate of a step (from 0): linear warm-up, then linear to ``final_rate`` of the peak."""
        peak = self.learning_rate or (6e-4 if parameters < SMALL_MODEL else 3e-4)
        warmup = max(1, round(self.warmup * self.steps))
        if step < warmup:
            return peak * (step + 1) / warmup
        done = (step + 1 - warmup) / max(1, self.steps - warmup)
        return peak * (1 - (1 - self.final_rate) * done)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# Steps and rates by preset. Those of "mini" made the bundled mini-2; the larger ones are for a GPU, and from "125m" on
# make one pass over the 10.7 billion events that the paper trained on, in batches of half a million. Nobody has yet.
_ONE_PASS = TrainingConfig(
    steps=20_400, batch=512, micro_batch=16, precision="bf16", compile=True, evaluate_every=500, save_every=500
)
RECIPES: dict[str, TrainingConfig] = {
    "test": TrainingConfig(
        steps=300, batch=16, learning_rate=3e-3, average=0.98, evaluate_every=100, save_every=100, threads=1
    ),
    "mini": TrainingConfig(steps=3_500, learning_rate=1e-3, average=0.998, threads=1, precision="bf16", compile=True),
    "20m": TrainingConfig(steps=20_000, batch=64, precision="bf16", compile=True, evaluate_every=500, save_every=500),
    "125m": _ONE_PASS,
    "250m": _ONE_PASS,
    "paper": _ONE_PASS,
}
DROPOUTS = {"test": 0.0, "mini": 0.2, "20m": 0.1}  # where data are few


@dataclass
class TrainingResult:
    """Where a run stands."""

    step: int = 0
    best_step: int = 0
    best_nats: float = math.inf  # per validation event
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)  # one entry an evaluation
