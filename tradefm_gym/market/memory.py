"""Arrays of one purpose in one block of memory: to pass the block to a kernel takes less time than to pass them all.

A block begins with a header that says where each of its parts lies; kernels build the same views from it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import SERIAL

_LINE = 64  # bytes; parts begin at cache lines
_HEADER = 512  # bytes, four int64 a part: where it begins and ends, rows, width


def carve(parts: Sequence[tuple[tuple[int, int], Any]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A block of zeros for parts ``((rows, width), dtype)``; returns the block, (bytes,) uint8, and the parts."""
    begin, header = _HEADER, []
    for (rows, width), dtype in parts:
        end = begin + rows * width * np.dtype(dtype).itemsize
        header += [begin, end, rows, width]
        begin = end + -end % _LINE
    memory = np.zeros(begin + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    memory = memory[start : start + begin]
    memory[: len(header) * 8].view(np.int64)[:] = header
    places = zip(header[::4], header[1::4], parts, strict=True)
    return memory, [memory[begin:end].view(dtype).reshape(shape) for begin, end, (shape, dtype) in places]


@njit(**{**SERIAL, "forceinline": True})  # counts references, or it could return no array
def part_of(memory, k, dtype):
    """Part k of a block, within a kernel."""
    header = memory[:_HEADER].view(np.int64)
    begin, end = header[4 * k], header[4 * k + 1]
    return memory[begin:end].view(dtype).reshape(header[4 * k + 2], header[4 * k + 3])
