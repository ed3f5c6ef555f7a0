"""Matrix products for the Numba engine: a few rows times a matrix stored in panels.

A panel is `PANEL` output columns, (inputs, PANEL) row-major, so that a kernel streams it. Each output is one chain of
fused multiply-adds over the inputs in order, whichever register tile computes it: a row's bits depend on the row only.
All products add to what is there, so that each kernel is compiled once; the caller clears.
"""

import llvmlite.binding as llvm
import numpy as np
from numba import njit

from tradefm_gym.model.vectors import LANES, load, multiply_add, spread, store

PANEL = 4 * LANES

# A register tile of 4 x 64 sums fills half of the 32 AVX-512 registers; with 16 of AVX2 it would spill.
WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))


def whole_panels(columns: int) -> int:
    """Columns rounded up to whole panels."""
    return -(-columns // PANEL) * PANEL


def pack_panels(matrix: np.ndarray) -> np.ndarray:
    """Packs a weight matrix (outputs, inputs) into flat panels; outputs are padded with zeros to whole panels."""
    outputs, inputs = matrix.shape
    padded = np.zeros((whole_panels(outputs), inputs), np.float32)
    padded[:outputs] = matrix
    return np.ascontiguousarray(padded.reshape(-1, PANEL, inputs).swapaxes(1, 2)).ravel()


@njit(cache=True, nogil=True)
def multiply_matrix(x, x0, x_stride, rows, weights, w0, depth, columns, out, o0, out_stride):
    """out[rows, columns] += x[rows, depth] @ weights, `columns` in whole panels.

    Args:
        x: inputs, flat; row r begins at x0 + r * x_stride.
        x0: see `x`.
        x_stride: see `x`.
        rows: number of rows.
        weights: panels, flat; the first begins at w0.
        w0: see `weights`.
        depth: inputs of the matrix.
        columns: outputs of the matrix, a multiple of PANEL.
        out: outputs, flat, laid out like `x`.
        o0: see `out`.
        out_stride: see `out`.
    """
    fours = rows // 4 * 4
    for panel in range(columns // PANEL):
        column = o0 + panel * PANEL
        for row in range(0, fours, 4):
            o = column + row * out_stride
            _multiply_four(x, x0 + row * x_stride, x_stride, weights, w0, depth, out, o, out_stride)
        for row in range(fours, rows):
            _multiply_one(x, x0 + row * x_stride, weights, w0, depth, out, column + row * out_stride)
        w0 += depth * PANEL


@njit(cache=True, nogil=True)
def clear(array, begin, count):
    """Sets `count` elements to zero."""
    for i in range(begin, begin + count):
        array[i] = 0


@njit(cache=True, nogil=True)
def multiply_heads(x, x0, x_stride, rows, panel, p0, depth, out, o0, out_stride):
    """One panel of `multiply_matrix`, tuned for the few query heads that share a key head."""
    twos = rows // 2 * 2
    for row in range(0, twos, 2):
        _multiply_two(x, x0 + row * x_stride, x_stride, panel, p0, depth, out, o0 + row * out_stride, out_stride)
    if twos < rows:
        _multiply_one(x, x0 + twos * x_stride, panel, p0, depth, out, o0 + twos * out_stride)


@njit(cache=True, nogil=True)
def _store_four(out, o0, a0, a1, a2, a3):
    store(out, o0, a0)
    store(out, o0 + 16, a1)
    store(out, o0 + 32, a2)
    store(out, o0 + 48, a3)


@njit(cache=True, nogil=True)
def _multiply_one(x, x0, weights, w0, depth, out, o0):
    """out[64] += x[depth] @ panel."""
    a0, a1, a2, a3 = load(out, o0), load(out, o0 + 16), load(out, o0 + 32), load(out, o0 + 48)
    for k in range(depth):
        s = spread(x, x0 + k)
        a0 = multiply_add(s, load(weights, w0), a0)
        a1 = multiply_add(s, load(weights, w0 + 16), a1)
        a2 = multiply_add(s, load(weights, w0 + 32), a2)
        a3 = multiply_add(s, load(weights, w0 + 48), a3)
        w0 += PANEL
    _store_four(out, o0, a0, a1, a2, a3)


@njit(cache=True, nogil=True)
def _multiply_two(x, x0, x_stride, weights, w0, depth, out, o0, out_stride):
    """out[2, 64] += x[2, depth] @ panel; for the query heads that share a key head."""
    o1 = o0 + out_stride
    a0, a1, a2, a3 = load(out, o0), load(out, o0 + 16), load(out, o0 + 32), load(out, o0 + 48)
    b0, b1, b2, b3 = load(out, o1), load(out, o1 + 16), load(out, o1 + 32), load(out, o1 + 48)
    for k in range(depth):
        w_0, w_1 = load(weights, w0), load(weights, w0 + 16)
        w_2, w_3 = load(weights, w0 + 32), load(weights, w0 + 48)
        s = spread(x, x0 + k)
        a0, a1 = multiply_add(s, w_0, a0), multiply_add(s, w_1, a1)
        a2, a3 = multiply_add(s, w_2, a2), multiply_add(s, w_3, a3)
        s = spread(x, x0 + x_stride + k)
        b0, b1 = multiply_add(s, w_0, b0), multiply_add(s, w_1, b1)
        b2, b3 = multiply_add(s, w_2, b2), multiply_add(s, w_3, b3)
        w0 += PANEL
    _store_four(out, o0, a0, a1, a2, a3)
    _store_four(out, o1, b0, b1, b2, b3)


@njit(cache=True, nogil=True)
def multiply_four_wide(x, x0, x_stride, weights, w0, depth, out, o0, out_stride):
    """out[4, 64] += x[4, depth] @ panel, all 64 columns at once: 16 AVX-512 sums."""
    x1, x2, x3 = x0 + x_stride, x0 + 2 * x_stride, x0 + 3 * x_stride
    o1, o2, o3 = o0 + out_stride, o0 + 2 * out_stride, o0 + 3 * out_stride
    a0, a1, a2, a3 = load(out, o0), load(out, o0 + 16), load(out, o0 + 32), load(out, o0 + 48)
    b0, b1, b2, b3 = load(out, o1), load(out, o1 + 16), load(out, o1 + 32), load(out, o1 + 48)
    c0, c1, c2, c3 = load(out, o2), load(out, o2 + 16), load(out, o2 + 32), load(out, o2 + 48)
    d0, d1, d2, d3 = load(out, o3), load(out, o3 + 16), load(out, o3 + 32), load(out, o3 + 48)
    for k in range(depth):
        w_0, w_1 = load(weights, w0), load(weights, w0 + 16)
        w_2, w_3 = load(weights, w0 + 32), load(weights, w0 + 48)
        s = spread(x, x0 + k)
        a0, a1 = multiply_add(s, w_0, a0), multiply_add(s, w_1, a1)
        a2, a3 = multiply_add(s, w_2, a2), multiply_add(s, w_3, a3)
        s = spread(x, x1 + k)
        b0, b1 = multiply_add(s, w_0, b0), multiply_add(s, w_1, b1)
        b2, b3 = multiply_add(s, w_2, b2), multiply_add(s, w_3, b3)
        s = spread(x, x2 + k)
        c0, c1 = multiply_add(s, w_0, c0), multiply_add(s, w_1, c1)
        c2, c3 = multiply_add(s, w_2, c2), multiply_add(s, w_3, c3)
        s = spread(x, x3 + k)
        d0, d1 = multiply_add(s, w_0, d0), multiply_add(s, w_1, d1)
        d2, d3 = multiply_add(s, w_2, d2), multiply_add(s, w_3, d3)
        w0 += PANEL
    _store_four(out, o0, a0, a1, a2, a3)
    _store_four(out, o1, b0, b1, b2, b3)
    _store_four(out, o2, c0, c1, c2, c3)
    _store_four(out, o3, d0, d1, d2, d3)


@njit(cache=True, nogil=True)
def multiply_four_narrow(x, x0, x_stride, weights, w0, depth, out, o0, out_stride):
    """The same, 16 columns at a time: 8 AVX2 sums."""
    x1, x2, x3 = x0 + x_stride, x0 + 2 * x_stride, x0 + 3 * x_stride
    for column in range(0, PANEL, LANES):
        o = o0 + column
        a0, b0 = load(out, o), load(out, o + out_stride)
        c0, d0 = load(out, o + 2 * out_stride), load(out, o + 3 * out_stride)
        w = w0 + column
        for k in range(depth):
            weight = load(weights, w)
            a0 = multiply_add(spread(x, x0 + k), weight, a0)
            b0 = multiply_add(spread(x, x1 + k), weight, b0)
            c0 = multiply_add(spread(x, x2 + k), weight, c0)
            d0 = multiply_add(spread(x, x3 + k), weight, d0)
            w += PANEL
        store(out, o, a0)
        store(out, o + out_stride, b0)
        store(out, o + 2 * out_stride, c0)
        store(out, o + 3 * out_stride, d0)


_multiply_four = multiply_four_wide if WIDE else multiply_four_narrow
