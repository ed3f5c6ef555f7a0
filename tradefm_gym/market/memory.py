"""Arrays of one purpose in one block of memory: to pass the block to a kernel takes less time than to pass them all.

A block begins with a header that says where each of its parts lies; kernels build the same views from it.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import config
from numba.extending import intrinsic
from numba.np import arrayobj

_LINE = 64  # bytes; parts begin at cache lines
_HEADER = 512  # bytes, four int64 a part: where it begins and ends, rows, width


Part = tuple[tuple[int, int], Any]  # rows and width, and the dtype


def size_of(parts: Sequence[Part]) -> int:
    """Bytes that the parts have together."""
    return sum(rows * width * np.dtype(dtype).itemsize for (rows, width), dtype in parts)


def machine_bytes() -> int:
    """The memory of this machine; where the system does not say, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no such question
        return sys.maxsize


def check_size(what: str, size: int) -> None:
    """Refuses ``size`` bytes that this machine does not have; ``what`` begins the sentence."""
    most = machine_bytes()
    if size > most:
        has = f"{most / 2**30:.4g} GiB, the memory of this machine"
        raise ValueError(f"{what} {size / 2**30:.4g} GiB; allowed is up to {has}.")


def carve(parts: Sequence[Part]) -> tuple[np.ndarray, list[np.ndarray]]:
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


@intrinsic
def _array_at(_, memory, begin, rows, width, dtype):
    """Rows x width items of a dtype from a byte of a block on. It borrows the memory: nothing is counted."""
    result = types.Array(dtype.dtype, 2, "C")

    def generate(context, builder, signature, arguments):
        block = context.make_array(signature.args[0])(context, builder, arguments[0])
        array = context.make_array(result)(context, builder)
        size = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(dtype.dtype)))
        start = builder.gep(block.data, [arguments[1]])
        arrayobj.populate_array(
            array,
            data=builder.bitcast(start, array.data.type),
            shape=[arguments[2], arguments[3]],
            strides=[builder.mul(arguments[3], size), size],
            itemsize=size,
            meminfo=None,
        )
        return array._getvalue()

    return result(memory, types.intp, types.intp, types.intp, dtype), generate


@njit(inline="always")  # by Numba: a function without counted references can return no array
def _part_of(memory, k, dtype):
    header = _array_at(memory, 0, 1, _HEADER // 8, np.int64)
    return _array_at(memory, header[0, 4 * k], header[0, 4 * k + 2], header[0, 4 * k + 3], dtype)


def _part(memory, k, dtype):
    begin, end, rows, width = memory[:_HEADER].view(np.int64)[4 * k : 4 * k + 4].tolist()
    return memory[begin:end].view(dtype).reshape(rows, width)


# Part k of a block as (rows, width) of its dtype, within a kernel.
part_of = _part if config.DISABLE_JIT else _part_of
