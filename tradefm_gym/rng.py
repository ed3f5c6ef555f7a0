"""Randomness as a pure function: Philox4x32-10 (Salmon et al. 2011) of seed, episode, index and purpose.

There is no generator to save, share or order: a draw is named by its place. So a market's path cannot
depend on how many neighbours it has, on threads, or on who was reset when. The scalar functions compile
into other kernels; the ``*_array`` functions serve NumPy code, one row per market.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym import threads as threads  # which sees to it how loops over threads wait

# Purposes keep the streams of one index apart.
FLOW = 1  # events of a parametric flow
SAMPLE = 2  # a model's next token
DECODE = 3  # the place within a token's bins
EPISODE = 4  # side, size and start context of an episode
AGENT = 5  # reserved for policies
THINNING = 6  # candidates for the time and type of a flow's event, as many blocks as it takes
ORDER_LATENCY = 7  # how long an order is under way
DATA_LATENCY = 8  # how old the news of an event are when a seat hears of it
TURN = 9  # which seat comes first at one instant
SCENARIO = 10  # what a stress scenario does to a flow
REFILL = 11  # when the cache of a model's row is first filled again

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_BLOCK_SHIFT = 16  # counter word 3 is purpose + (block << 16)


@njit(cache=True, nogil=True)
def philox(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32: counter words ``c0..c3`` and key words ``k0, k1`` to four uint32."""
    # Words are carried in 64 bits: products fit, and nothing overflows when the JIT is off.
    x0, x1, x2, x3 = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    key0, key1 = np.uint64(k0), np.uint64(k1)
    for _ in range(10):
        product0 = _MULTIPLIER_0 * x0
        product1 = _MULTIPLIER_1 * x2
        x0 = (product1 >> _HALF) ^ x1 ^ key0
        x1 = product1 & _MASK
        x2 = (product0 >> _HALF) ^ x3 ^ key1
        x3 = product0 & _MASK
        key0 = (key0 + _WEYL_0) & _MASK
        key1 = (key1 + _WEYL_1) & _MASK
    return np.uint32(x0), np.uint32(x1), np.uint32(x2), np.uint32(x3)


@njit(cache=True, nogil=True)
def _block(seed, episode, index, purpose, block):
    """The four words of one block; ``block`` counts further blocks of the same place."""
    key = np.uint64(seed)
    place = np.uint64(index)
    stream = np.uint64(purpose + (block << _BLOCK_SHIFT))
    return philox(place & _MASK, place >> _HALF, np.uint64(episode) & _MASK, stream, key & _MASK, key >> _HALF)


@njit(cache=True, nogil=True)
def _unit(high, low):
    """A float64 in [0, 1) from 53 bits of two words."""
    return (np.float64(high >> np.uint32(5)) * 67108864.0 + np.float64(low >> np.uint32(6))) / 9007199254740992.0


@njit(cache=True, nogil=True)
def bits(seed, episode, index, purpose):
    """Four independent uint32 words of (seed, episode, index, purpose)."""
    return _block(seed, episode, index, purpose, 0)


@njit(cache=True, nogil=True)
def word(seed, episode, index, purpose, place):
    """One uint32 of a longer stream: entry ``place`` of what :func:`bits_array` gives."""
    return _block(seed, episode, index, purpose, place >> 2)[place & 3]


@njit(cache=True, nogil=True)
def further_uniforms(seed, episode, index, purpose, block):
    """Two independent float64 in [0, 1) of block 0 to 65,535 of a place; those of block 0 equal :func:`uniforms`."""
    w0, w1, w2, w3 = _block(seed, episode, index, purpose, block)
    return _unit(w0, w1), _unit(w2, w3)


@njit(cache=True, nogil=True)
def uniform(seed, episode, index, purpose):
    """A float64 in [0, 1) with 53 random bits."""
    w0, w1, _, _ = _block(seed, episode, index, purpose, 0)
    return _unit(w0, w1)


@njit(cache=True, nogil=True)
def uniforms(seed, episode, index, purpose):
    """Two independent float64 in [0, 1); the first equals :func:`uniform`."""
    w0, w1, w2, w3 = _block(seed, episode, index, purpose, 0)
    return _unit(w0, w1), _unit(w2, w3)


def bits_array(seeds, episodes, indices, purpose: int, count: int) -> np.ndarray:
    """Words for N markets: (N, count) uint32, the first four of a row equal :func:`bits`.

    Args:
        seeds: (N,) or scalar, read as uint64.
        episodes: (N,) or scalar, read as uint32.
        indices: (N,) or scalar, read as uint64.
        purpose: one of the constants of this module, below 2^16.
        count: words per row.
    """
    seeds, episodes, indices = _rows(seeds, episodes, indices)
    out = np.empty((len(seeds), count), np.uint32)
    _fill_bits(seeds, episodes, indices, purpose, out)
    return out


def bits_of(seeds: np.ndarray, episodes: np.ndarray, rows: np.ndarray, index: int, purpose: int) -> np.ndarray:
    """:func:`bits` of some of N markets: (k, 4) uint32.

    Args:
        seeds: (N,) uint64.
        episodes: (N,) uint32.
        rows: (k,) int64.
        index: of all of them.
        purpose: one of the constants of this module.
    """
    out = np.empty((len(rows), 4), np.uint32)
    _fill_some(seeds, episodes, rows, index, purpose, out)
    return out


def uniform_array(seeds, episodes, indices, purpose: int, count: int) -> np.ndarray:
    """Uniforms for N markets: (N, count) float64 in [0, 1), the first two of a row equal :func:`uniforms`.

    Arguments as in :func:`bits_array`.
    """
    seeds, episodes, indices = _rows(seeds, episodes, indices)
    out = np.empty((len(seeds), count), np.float64)
    _fill_uniforms(seeds, episodes, indices, purpose, out)
    return out


def _rows(seeds, episodes, indices) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    arrays = (np.asarray(seeds, np.uint64), np.asarray(episodes, np.uint32), np.asarray(indices, np.uint64))
    arrays = np.broadcast_arrays(*(np.atleast_1d(array) for array in arrays))
    seeds, episodes, indices = (np.ascontiguousarray(array) for array in arrays)
    return seeds, episodes, indices


@njit(cache=True, nogil=True)
def _fill_row(seed, episode, index, purpose, out):
    for first in range(0, out.shape[0], 4):
        words = _block(seed, episode, index, purpose, first // 4)
        for j in range(min(4, out.shape[0] - first)):
            out[first + j] = words[j]


@njit(cache=True, nogil=True, parallel=True)
def _fill_bits(seeds, episodes, indices, purpose, out):
    for m in prange(out.shape[0]):
        _fill_row(seeds[m], episodes[m], indices[m], purpose, out[m])


@njit(cache=True, nogil=True)
def _fill_some(seeds, episodes, rows, index, purpose, out):
    for i in range(rows.shape[0]):
        _fill_row(seeds[rows[i]], episodes[rows[i]], index, purpose, out[i])


@njit(cache=True, nogil=True, parallel=True)
def _fill_uniforms(seeds, episodes, indices, purpose, out):
    for m in prange(out.shape[0]):
        for first in range(0, out.shape[1], 2):
            w0, w1, w2, w3 = _block(seeds[m], episodes[m], indices[m], purpose, first // 2)
            out[m, first] = _unit(w0, w1)
            if first + 1 < out.shape[1]:
                out[m, first + 1] = _unit(w2, w3)
