"""Two processes train what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file  # noqa: E402
from train_together import WAYS, run  # noqa: E402

from tradefm_gym.model.processes import Processes  # noqa: E402
from tradefm_gym.model.training_state import STATE_FILE  # noqa: E402

HERE = Path(__file__).parent
# Largest difference of a weight, and of a loss in nats, from sums in another order; the weights move by 0.02 meanwhile.
TOLERANCE = {"ddp": 0.0, "ddp-in-pieces": 2e-6, "fsdp": 4e-6, "fsdp-resumed": 4e-6}

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch lacks gloo"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All ways in two processes that ``torchrun`` starts, and in this one."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    script = [str(HERE / "train_together.py"), str(folder / "two"), *WAYS]
    done = subprocess.run([*command, *script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3_000:]
    for way in WAYS:
        run(folder / "one", way)
    return folder


@needs_gloo
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_does(trained, way):
    one, two = (load_file(trained / count / way / STATE_FILE) for count in ("one", "two"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        if name.startswith(("weight.", "average.")):
            assert np.abs(values - two[name]).max() <= TOLERANCE[way], name
    best = [load_file(trained / count / way / "model.safetensors") for count in ("one", "two")]
    assert all(np.abs(values - best[1][name]).max() <= TOLERANCE[way] for name, values in best[0].items())
    curves = [json.loads((trained / count / way / "history.json").read_text()) for count in ("one", "two")]
    assert [entry["step"] for entry in curves[0]] == [entry["step"] for entry in curves[1]] == [2, 4, 6]
    for mine, theirs in zip(*curves, strict=True):
        for loss in ("train", "validation"):
            assert abs(mine[loss] - theirs[loss]) <= TOLERANCE[way]


def test_shares_are_the_batch_once_and_come_out_even():
    batch = np.arange(40).reshape(5, 2, 4), np.arange(10).reshape(5, 2), np.ones((5, 2), np.float32)
    shares = [Processes("ddp", torch.device("cpu"), rank, 2).share(batch) for rank in range(2)]
    assert [len(weights) for _, _, weights in shares] == [3, 3]
    weights = np.concatenate([weights for _, _, weights in shares])
    targets = np.concatenate([targets for _, targets, _ in shares])
    assert weights.sum() == 10 and np.array_equal(targets[weights > 0], batch[1].ravel())


def test_a_batch_that_does_not_come_out_even_is_refused():
    with pytest.raises(ValueError, match="batch is 9; allowed is a multiple of the 2 processes"):
        Processes("ddp", torch.device("cpu"), 0, 2).windows_each(9)
