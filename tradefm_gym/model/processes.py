"""The processes that train one model: one, or those that ``torchrun`` started, with DDP or with FSDP2.

All draw the same batch and each takes its share of the rows, so that several do what one does but for the order in
which gradients are summed. Under FSDP2 a process holds a part of every weight, of its gradient and of its moments.
"""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]

# Gloo's threads let go of a tensor just after they summed it, and torch aborts a process whose interpreter ends before
# they did (pytorch#190489: of 20 starts of four busy processes 3 ended so, with this pause none).
SECONDS_TO_LET_GO = 0.1


def started_together() -> tuple[int, int]:
    """Number of this process and how many ``torchrun`` started with it: 0 and 1 where it started none."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def usual_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str) -> None:
    """Raises a ValueError if this machine cannot compute on a device."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch is of all three minds
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise ValueError(f"device is {device!r} ({reason}); allowed is one of this machine, such as cpu") from None


class Processes:
    """Who trains.

    Args:
        parallel: "ddp" or "fsdp".
        device: of this process.
        rank: number of this process.
        count: how many there are.
    """

    def __init__(self, parallel: str, device: torch.device, rank: int = 0, count: int = 1):
        self.parallel, self.device, self.rank, self.count = parallel, device, rank, count

    @classmethod
    @contextmanager
    def found(cls, parallel: str, device: str) -> Iterator["Processes"]:
        """Joins the processes that ``torchrun`` started, for as long as the context lasts; else it is one alone."""
        if not dist.is_available() or not (dist.is_initialized() or dist.is_torchelastic_launched()):
            check_device(device)
            yield cls(parallel, torch.device(device))
            return
        cuda, own = torch.device(device).type == "cuda", not dist.is_initialized()
        if cuda:
            # torchrun says by this variable which GPU of the machine is this process's.
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
            check_device(device)
            torch.cuda.set_device(device)
        if own:
            dist.init_process_group("nccl" if cuda else "gloo")
        try:
            yield cls(parallel, torch.device(device), dist.get_rank(), dist.get_world_size())
        finally:
            if own:
                dist.destroy_process_group()
            if not cuda:
                time.sleep(SECONDS_TO_LET_GO)

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.rank == 0

    def windows_each(self, batch: int) -> int:
        """Windows of a batch that each process takes."""
        if batch % self.count:
            raise ValueError(f"batch is {batch}; allowed is a multiple of the {self.count} processes")
        return batch // self.count

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch; where they do not come out even, some get rows without weight."""
        if self.count == 1:
            return batch
        inputs, targets, weights = batch
        each = -(-len(weights) // self.count)
        rows = np.arange(self.rank * each, (self.rank + 1) * each)
        real, rows = rows < len(weights), np.minimum(rows, len(weights) - 1)
        return inputs[rows], targets[rows], weights[rows] * real[:, None].astype(np.float32)

    def spread(self, nats: nn.Module, layers: Iterable[nn.Module]) -> nn.Module:
        """What a loss is computed with: the module itself, or one that shares its gradients with the others.

        Args:
            nats: the network with its loss.
            layers: parts of it whose weights FSDP2 gathers one after the other.
        """
        if self.count == 1:
            return nats
        if self.parallel == "ddp":
            return nn.parallel.DistributedDataParallel(nats)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(nats, mesh=mesh, reshard_after_forward=True)
        return nats

    def gathering(self, shared: nn.Module, last: bool) -> AbstractContextManager:
        """Around a backward pass: DDP sums gradients over processes after the last pass of a step only."""
        if isinstance(shared, nn.parallel.DistributedDataParallel) and not last:
            return shared.no_sync()
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in each."""
        if self.count > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def like(self, value: Tensor, tensor: Tensor) -> Tensor:
        """This process's part of a tensor that is known whole, as ``value`` is parted."""
        tensor = tensor.to(self.device)
        if not hasattr(value, "full_tensor"):
            return tensor
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, value.device_mesh, value.placements)  # pyright: ignore


def whole(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the CPU, gathered where processes hold parts of it; then all must ask for it."""
    tensor = tensor.detach()
    full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # pyright: ignore
    return full.cpu().clone() if full is tensor and full.device.type == "cpu" else full.cpu()
