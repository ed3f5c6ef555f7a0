"""Commands that make models: token shards from recorded days, and training."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from tradefm_gym.model.tokenizer_options import TokenizerOptions
from tradefm_gym.model.training_config import DROPOUTS, RECIPES, TrainingConfig


@dataclass(frozen=True)
class Tokenize:
    """Tokenize recorded days once, into shards that training maps into memory."""

    # recorded days (data folders, .npz files, anything that "data check" reads), or folders that hold some
    data: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path  # the folder to write
    tokenizer: Path | None = None  # a checkpoint folder or tokenizer.json; without it bins are calibrated on the data
    options: tyro.conf.OmitArgPrefixes[TokenizerOptions] = field(default_factory=TokenizerOptions)
    minimum_events: int = 4_000  # smaller days are left out
    workers: int = 1  # processes that read days; the files are the same for any number

    def run(self) -> int:
        """Tokenizes one day after the other."""
        from tradefm_gym.model.shards import PARTS
        from tradefm_gym.model.tokenizer import TradeTokenizer
        from tradefm_gym.tokenizing import write_shards

        tokenizer = None if self.tokenizer is None else TradeTokenizer.load(self.tokenizer)
        with Console(stderr=True).status("reading") as status:
            shards = write_shards(
                self.data, self.out, tokenizer, self.options, self.minimum_events, self.workers, status.update
            )
        counts = ", ".join(f"{shards.events(part):,} {part}" for part in PARTS)
        print(f"{self.out}: {len(shards.sets)} sets; events: {counts}")
        return 0


# Those that change with the preset may be left out.
_BY_PRESET = (
    "steps", "batch", "micro_batch", "learning_rate", "average", "evaluate_every", "save_every", "precision", "compile",
    "recompute", "threads", "patience",
)  # fmt: skip


@dataclass(frozen=True)
class TrainModel:
    """Train a TradeFM network and write it as a checkpoint folder; an interrupted run goes on.

    By "torchrun --nproc-per-node N -m tradefm_gym train model ..." N processes, a GPU each, train one network.
    """

    data: Path | None = None  # token shards, a recorded day, or a folder of days; by default the bundled synthetic day
    preset: Literal["test", "mini", "20m", "125m", "250m", "paper"] = "mini"
    out: Path | None = None  # the checkpoint folder; runs/PRESET if not given
    options: tyro.conf.OmitArgPrefixes[TokenizerOptions] = field(default_factory=TokenizerOptions)
    minimum_events: int = 4_000  # smaller days are left out
    dropout: float | None = None  # this and what follows down to patience: the preset's if not given
    steps: int | None = None
    batch: int | None = None  # windows a step, over all processes
    micro_batch: int | None = None  # windows a backward pass; 0: the whole share of a process
    learning_rate: float | None = None  # peak
    average: float | None = None  # decay of the moving average of the weights that is scored and kept; 0: off
    evaluate_every: int | None = None  # steps
    save_every: int | None = None  # steps
    precision: Literal["fp32", "bf16"] | None = None
    compile: bool | None = None  # by torch.compile
    recompute: bool | None = None  # activations in the backward pass, instead of keeping them
    threads: int | None = None  # 0: as torch finds them
    patience: int | None = None  # evaluations in a row without a better one that end the run; 0: all steps are made
    seed: int = 0
    parallel: Literal["ddp", "fsdp"] = "ddp"  # under torchrun: whole models, or shares of one
    device: str = "auto"
    tensorboard: bool = False  # write events for it below the checkpoint folder (extra tensorboard)
    fresh: bool = False  # begin anew where the folder holds an interrupted run
    verify: bool = True  # read all shards once before training, and compare checksums
    progress: bool = True

    def run(self) -> int:
        """Tokenizes if needed, trains, scores and writes."""
        try:
            from tradefm_gym.model.processes import check_device, started_together, usual_device
        except ImportError as error:
            raise ImportError('training needs PyTorch: pip install "tradefm-gym[torch]"') from error
        from tradefm_gym.model.shards import is_shards
        from tradefm_gym.modelling import network, shards_of, train_model

        if started_together()[1] > 1 and (self.data is None or not is_shards(self.data)):
            raise ValueError(f"data is {self.data}; several processes train on shards (tradefm-gym data tokenize)")
        device = usual_device() if self.device == "auto" else self.device
        settings = self.settings(device)
        if started_together()[1] == 1:  # of several, each asks for its own GPU later
            check_device(device)  # before days are tokenized, which takes a while
        out = Path("runs") / self.preset if self.out is None else self.out
        console = Console(quiet=started_together()[0] > 0)
        with shards_of(self.data, out, self.options, self.minimum_events, self.verify) as shards:
            dropout = DROPOUTS.get(self.preset, 0.0) if self.dropout is None else self.dropout
            config = network(self.preset, shards.tokenizer, dropout)
            result = train_model(shards, config, out, settings, console)
        console.print(f"{out}: {result.best_nats:.4f} nats per validation event, step {result.best_step:,}")
        return 0

    def settings(self, device: str = "cpu") -> TrainingConfig:
        """The preset's settings, changed by what was given."""
        given = {name: getattr(self, name) for name in _BY_PRESET if getattr(self, name) is not None}
        own = {name: getattr(self, name) for name in ("seed", "parallel", "tensorboard", "progress")}
        return replace(RECIPES[self.preset], device=device, resume=not self.fresh, **own, **given)


@dataclass(frozen=True)
class Push:
    """Upload a checkpoint folder to the Hugging Face Hub, after checking it (extra hub)."""

    checkpoint: Annotated[Path, tyro.conf.Positional]  # the folder
    name: Annotated[str, tyro.conf.Positional]  # hf://organisation/name, perhaps with @branch
    public: bool = False  # make a new repository public

    def run(self) -> int:
        """Uploads and prints by which name it loads."""
        from tradefm_gym.model.hub import push

        print(f"tradefm:{push(self.checkpoint, self.name, private=not self.public)}")
        return 0


@dataclass(frozen=True)
class Train:
    """Models: train one, or push it to a hub."""

    command: Annotated[
        Annotated[TrainModel, tyro.conf.subcommand("model", prefix_name=False)]
        | Annotated[Push, tyro.conf.subcommand("push", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Runs the chosen one."""
        return self.command.run()
