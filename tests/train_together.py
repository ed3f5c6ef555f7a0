"""Trains small models as ``torchrun`` starts it: python -m torch.distributed.run ... train_together.py FOLDER WAYS."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch.distributed as dist
from test_training import CONFIG, SETTINGS, CyclingWindows

from tradefm_gym.model.training import train
from tradefm_gym.model.training_config import TrainingResult

# Two windows a backward pass: what one process sums over two passes, two processes sum over each other.
TOGETHER = replace(SETTINGS, steps=6, batch=4, micro_batch=2, evaluate_every=2, save_every=2)
WAYS = {
    "ddp": (CONFIG, TOGETHER),
    "ddp-in-pieces": (replace(CONFIG, dropout=0.0), replace(TOGETHER, micro_batch=1)),
    "fsdp": (replace(CONFIG, dropout=0.0), replace(TOGETHER, parallel="fsdp", recompute=True)),
    "fsdp-resumed": (replace(CONFIG, dropout=0.0), replace(TOGETHER, parallel="fsdp")),
}


class Stopped(Exception):
    """Ends a run after its second evaluation."""


def stop(result: TrainingResult) -> None:
    if result.step == 4:
        raise Stopped


def run(folder: Path, way: str) -> None:
    """One training; the history goes beside the checkpoint."""
    (config, settings), source = WAYS[way], CyclingWindows()
    if way.endswith("resumed"):
        try:
            train(config, source, source, folder / way, settings, stop)
        except Stopped:
            pass
    result = train(config, source, source, folder / way, settings)
    if not dist.is_initialized() or dist.get_rank() == 0:
        (folder / way / "history.json").write_text(json.dumps(asdict(result)["history"]))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for chosen in sys.argv[2:]:
        run(Path(sys.argv[1]), chosen)
    dist.destroy_process_group()
