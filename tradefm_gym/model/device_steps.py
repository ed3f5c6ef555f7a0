"""A step of the engine on its device: one packed transfer in, one result out, captured as a CUDA graph on a GPU."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class DeviceStep:
    """A function of one int32 matrix, which travels to the device in one transfer; floats travel as their bits.

    As a CUDA graph its first call runs the function several times on the same inputs, so repeating it must change
    nothing.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor | None], shape: tuple[int, int], device: torch.device, graph: bool
    ):
        self._function, self._wants_graph = function, graph
        self._graph: torch.cuda.CUDAGraph | None = None
        self._pinned = device.type == "cuda"
        self._inputs = torch.zeros(shape, dtype=torch.int32, device=device)
        self._out: Tensor | None = None

    def start(self, *columns: NDArray) -> Callable[[], NDArray]:
        """Sends (rows, k) arrays of 32-bit numbers, side by side, and runs the function on them without waiting.

        Returns:
            What waits for the function's result, and for nothing that was sent after it; the array is the caller's.
        """
        # A fresh pinned buffer each time: torch keeps it until the transfer is over, and then uses it again.
        packed = torch.empty(self._inputs.shape, dtype=torch.int32, pin_memory=self._pinned)
        np.concatenate([column.view(np.int32) for column in columns], axis=1, out=packed.numpy())
        self._inputs.copy_(packed, non_blocking=True)
        if not self._wants_graph:
            self._out = self._function(self._inputs)
        else:
            if self._graph is None:
                self._capture()
            self._graph.replay()  # pyright: ignore[reportOptionalMemberAccess]
        return self._sent_back()

    def _sent_back(self) -> Callable[[], NDArray]:
        if self._out is None:
            return lambda: np.empty(0)
        host = torch.empty(self._out.shape, dtype=self._out.dtype, pin_memory=self._pinned)  # fresh, as in `start`
        host.copy_(self._out, non_blocking=True)
        if not self._pinned:
            return host.numpy
        done = torch.cuda.Event()
        done.record()

        def result() -> NDArray:
            done.synchronize()
            return host.numpy()

        return result

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles kernels and creates handles, which a capture may not
            for _ in range(2):
                self._function(self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._out = self._function(self._inputs)


def column(values: NDArray | float, batch: int, dtype: type[np.generic] = np.int32) -> NDArray:
    """A number, or one a row, as a column (B, 1) of 32-bit numbers."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype), (batch,)))[:, None]
