"""Exponential and logarithm in additions and multiplications alone, so that they give the same bits everywhere.

A mathematics library may round these two as it likes, and differently from machine to machine; a path that thinning
decides on must not depend on it. Both are within a few units of the last place.
"""

import math

import numpy as np
from numba import njit

_LOG2_HIGH = 0.6931471803691238  # its product with an integer below 2^20 is exact
_LOG2_LOW = 1.9082149292705877e-10
_PER_LOG2 = 1.4426950408889634
_HALVES = 0.5 ** np.arange(1075)  # exact
_ROOT_HALF = 0.7071067811865476


@njit(cache=True, nogil=True)
def decayed(x):
    """The exponential of minus ``x``, for x of at least 0."""
    if x > 744.0:
        return 0.0
    halves = np.int64(x * _PER_LOG2 + 0.5)
    r = (halves * _LOG2_HIGH - x) + halves * _LOG2_LOW  # within half a log 2 of 0
    # Taylor, to where the rest is below the last place.
    total = 1.0 + r * (1.0 / 13)
    total = 1.0 + r * (1.0 / 12) * total
    total = 1.0 + r * (1.0 / 11) * total
    total = 1.0 + r * (1.0 / 10) * total
    total = 1.0 + r * (1.0 / 9) * total
    total = 1.0 + r * (1.0 / 8) * total
    total = 1.0 + r * (1.0 / 7) * total
    total = 1.0 + r * (1.0 / 6) * total
    total = 1.0 + r * (1.0 / 5) * total
    total = 1.0 + r * (1.0 / 4) * total
    total = 1.0 + r * (1.0 / 3) * total
    total = 1.0 + r * (1.0 / 2) * total
    return (1.0 + r * total) * _HALVES[halves]


@njit(cache=True, nogil=True)
def waiting(u):
    """Minus the logarithm of ``u`` in (0, 1]: a unit exponential if u is uniform."""
    fraction, exponent = math.frexp(u)
    if fraction < _ROOT_HALF:
        fraction, exponent = 2.0 * fraction, exponent - 1
    f = (fraction - 1.0) / (fraction + 1.0)
    square = f * f
    total = 1.0 / 23
    for odd in (21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        total = 1.0 / odd + square * total
    return -(2.0 * f * total + exponent * _LOG2_LOW) - exponent * _LOG2_HIGH
