"""The Numba engine's forward pass: kernels that push a tile of tokens through the network.

A tile is up to `TILE` tokens, each with its cache row and position: one token of many rows when appending, many
successive tokens of one row when prefilling. Both take the same path, and every sum runs in an order that depends on
the token alone (over the inputs of a matrix, over the positions of a cache), so neither the tile nor its neighbours
can change a bit of a result.

Buffers are flat float32 arrays addressed by offsets. Matrices lie in panels (see `numba_matrix`), and so do a cache
row's keys, with positions for columns; its values are (positions, head width).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.model.numba_matrix import PANEL, clear, multiply_heads, multiply_matrix
from tradefm_gym.model.vectors import (
    LANES,
    add,
    divide,
    exponential,
    fill,
    load,
    maximum,
    maximum_lane,
    multiply,
    multiply_add,
    spread,
    store,
    subtract,
    sum_lanes,
)
from tradefm_gym.threads import take

TILE = 64  # tokens that share one pass over the weights
ZERO, ONE = np.float32(0), np.float32(1)
START = np.int64(0)  # typed: a literal 0 as an argument would have Numba compile the callee once more


class Shape(NamedTuple):
    """Sizes of the network; `_stride` marks widths rounded up to whole panels (columns beyond are zero)."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int  # of an attention head
    feed: int
    flags: int  # values of the flag's column
    context_stride: int  # positions a cache row has room for
    width_stride: int
    query_stride: int
    key_value_stride: int
    feed_stride: int
    head_stride: int  # outputs of the head: logits, or the hidden units of all digits
    norm_eps: np.float32


class Weights(NamedTuple):
    """The network's constants, all flat float32."""

    layers: np.ndarray  # per layer: key and value, query, output, gate and up, down matrices, in panels
    head: np.ndarray  # matrix in panels
    events: np.ndarray  # (V, width_stride): token tables times the projection
    conditions: np.ndarray  # (liquidities * flags, width_stride): liquidity and flag tables times the projection
    levels: np.ndarray  # (levels, width_stride): the level's table times the projection
    norm: np.ndarray  # (width_stride,) the final norm's weights; the others are folded into the matrices
    angles: np.ndarray  # (T, head_width): cosines, then sines


class State(NamedTuple):
    """What the rows remember, all flat float32."""

    keys: np.ndarray  # (B, L, kv heads, context_stride / PANEL, head width, PANEL)
    values: np.ndarray  # (B, L, kv heads, context_stride, head width)
    hidden: np.ndarray  # (B, width_stride) last hidden state, after the final norm
    head: np.ndarray  # (B, head_stride) the head's outputs for it


class _Layout(NamedTuple):
    """Where a tile's buffers begin in its scratch space; all but the last are (TILE, their stride)."""

    residual: int
    normal: int  # the residual stream, normalised
    query: int
    mixed: int  # values mixed by attention
    key_value: int  # keys, then values
    feed: int  # gate, then up
    head: int
    scores: int  # attention of one token: (query heads a key head, context_stride)


def scratch_size(shape: Shape) -> int:
    """Float32 elements that `forward_tile` needs to work in."""
    token = 2 * shape.width_stride + 2 * shape.query_stride + shape.key_value_stride
    token += 2 * shape.feed_stride + shape.head_stride
    return TILE * token + shape.heads // shape.kv_heads * shape.context_stride


def layer_size(shape: Shape) -> int:
    """Float32 elements of one layer's matrices."""
    inputs = shape.width * (shape.key_value_stride + shape.query_stride + 2 * shape.feed_stride)
    return inputs + (shape.heads * shape.head_width + shape.feed) * shape.width_stride


@njit(cache=True, nogil=True)
def forward_tile(shape, weights, state, inputs, sources, rows, positions, begin, count, last_only, scratch, s0):
    """Pushes tokens begin .. begin + count through the network: their keys and values enter the caches.

    Args:
        shape: Shape.
        weights: Weights.
        state: State; each token's cache row already holds the positions before the token's, or they are in this tile.
        inputs: (n, 4) int32 events.
        sources: (m,) int64, the event of each token.
        rows: (m,) int64, its cache row.
        positions: (m,) int64, its position in that row.
        begin: first token of the tile.
        count: tokens in the tile, at most TILE.
        last_only: 0 to leave the hidden state of every token, 1 of the last one, 2 of none: a prompt's other tokens
            need no more than their keys and values, which saves most of the last layer.
        scratch: flat float32 work space; this tile's part begins at s0, see `scratch_size`.
        s0: see `scratch`.
    """
    at = _layout(shape, s0)
    stride = shape.width_stride
    for token in range(count):
        _embed(shape, weights, inputs, sources[begin + token], scratch, at.residual + token * stride)
    w0, first = START, START
    for layer in range(shape.layers):
        w0 = _remember_tile(shape, weights, state, rows, positions, begin, count, layer, w0, scratch, at)
        if layer == shape.layers - 1 and last_only > 0:
            if last_only == 2:
                return
            first = count - 1
        w0 = _attend_tile(shape, weights, state, rows, positions, begin, first, count, layer, w0, scratch, at)
        w0 = _feed_tile(shape, weights, first, count, w0, scratch, at)
    _normalise(shape, scratch, at.residual, at.normal, first, count)
    for token in range(first, count):
        for column in range(stride):
            scratch[at.normal + token * stride + column] *= weights.norm[column]
    hidden = at.normal + first * stride
    read_heads(shape, weights, state, rows, begin + first, count - first, scratch, hidden, at.head)


@njit(cache=True, nogil=True)
def read_heads(shape, weights, state, rows, begin, count, scratch, n0, h0):
    """Stores `count` hidden states, at scratch[n0], and the head's outputs for them as those of their rows."""
    stride, outputs = shape.width_stride, shape.head_stride
    clear(scratch, h0, count * outputs)
    multiply_matrix(scratch, n0, stride, count, weights.head, START, shape.width, outputs, scratch, h0, outputs)
    for token in range(count):
        row = rows[begin + token]
        for column in range(stride):
            state.hidden[row * stride + column] = scratch[n0 + token * stride + column]
        for column in range(outputs):
            state.head[row * outputs + column] = scratch[h0 + token * outputs + column]


@njit(cache=True, nogil=True)
def _layout(shape, s0):
    normal = s0 + TILE * shape.width_stride
    query = normal + TILE * shape.width_stride
    mixed = query + TILE * shape.query_stride
    key_value = mixed + TILE * shape.query_stride
    feed = key_value + TILE * shape.key_value_stride
    head = feed + TILE * 2 * shape.feed_stride
    return _Layout(s0, normal, query, mixed, key_value, feed, head, head + TILE * shape.head_stride)


@njit(cache=True, nogil=True)
def _remember_tile(shape, weights, state, rows, positions, begin, count, layer, w0, scratch, at):
    """Keys and values of a tile enter the caches; returns where the layer's next matrix begins."""
    outputs = shape.key_value_stride
    _normalise(shape, scratch, at.residual, at.normal, START, count)
    clear(scratch, at.key_value, count * outputs)
    multiply_matrix(
        scratch, at.normal, shape.width_stride, count,
        weights.layers, w0, shape.width, outputs, scratch, at.key_value, outputs,
    )  # fmt: skip
    for token in range(count):
        row, position = rows[begin + token], positions[begin + token]
        _remember(shape, weights, state, scratch, at.key_value + token * outputs, layer, row, position)
    return w0 + shape.width * outputs


@njit(cache=True, nogil=True)
def _attend_tile(shape, weights, state, rows, positions, begin, first, count, layer, w0, scratch, at):
    """Attention of the tokens first .. count of a tile, added to their residual streams."""
    stride, outputs, left = shape.width_stride, shape.query_stride, count - first
    clear(scratch, at.query, left * outputs)
    multiply_matrix(
        scratch, at.normal + first * stride, stride, left,
        weights.layers, w0, shape.width, outputs, scratch, at.query, outputs,
    )  # fmt: skip
    w0 += shape.width * outputs
    for token in range(left):
        row, position = rows[begin + first + token], positions[begin + first + token]
        q0, m0 = at.query + token * outputs, at.mixed + token * outputs
        _attend(shape, weights, state, scratch, q0, m0, at.scores, layer, row, position)
    width = shape.heads * shape.head_width
    multiply_matrix(
        scratch, at.mixed, outputs, left,
        weights.layers, w0, width, stride, scratch, at.residual + first * stride, stride,
    )  # fmt: skip
    return w0 + width * stride


@njit(cache=True, nogil=True)
def _feed_tile(shape, weights, first, count, w0, scratch, at):
    """SwiGLU of the tokens first .. count of a tile, added to their residual streams."""
    stride, outputs, left = shape.width_stride, 2 * shape.feed_stride, count - first
    _normalise(shape, scratch, at.residual, at.normal, first, count)
    clear(scratch, at.feed, left * outputs)
    multiply_matrix(
        scratch, at.normal + first * stride, stride, left,
        weights.layers, w0, shape.width, outputs, scratch, at.feed, outputs,
    )  # fmt: skip
    w0 += shape.width * outputs
    for token in range(left):
        _gate(scratch, at.feed + token * outputs, shape.feed_stride)
    multiply_matrix(
        scratch, at.feed, outputs, left,
        weights.layers, w0, shape.feed, stride, scratch, at.residual + first * stride, stride,
    )  # fmt: skip
    return w0 + shape.feed * stride


@njit(cache=True, nogil=True)
def _embed(shape, weights, inputs, source, scratch, x0):
    event = np.int64(inputs[source, 3]) * shape.width_stride
    condition = np.int64(inputs[source, 0] * shape.flags + inputs[source, 1]) * shape.width_stride
    level = np.int64(inputs[source, 2]) * shape.width_stride
    for column in range(shape.width_stride):
        told = weights.conditions[condition + column] + weights.levels[level + column]
        scratch[x0 + column] = weights.events[event + column] + told


@njit(cache=True, nogil=True)
def _normalise(shape, scratch, x0, n0, first, count):
    """RMSNorm of the rows first .. count without its weights, which the next matrix has taken over."""
    for token in range(first, count):
        x, n = x0 + token * shape.width_stride, n0 + token * shape.width_stride
        squares = fill(ZERO)
        for column in range(0, shape.width_stride, LANES):
            value = load(scratch, x + column)
            squares = multiply_add(value, value, squares)
        mean = sum_lanes(squares) / np.float32(shape.width)
        scale = fill(ONE / np.sqrt(mean + np.float32(shape.norm_eps)))
        for column in range(0, shape.width_stride, LANES):
            store(scratch, n + column, multiply(load(scratch, x + column), scale))


@njit(cache=True, nogil=True)
def _gate(scratch, f0, feed_stride):
    """Gate = silu(gate) * up, in place."""
    one, zero = fill(ONE), fill(ZERO)
    for column in range(f0, f0 + feed_stride, LANES):
        gate = load(scratch, column)
        gate = divide(gate, add(one, exponential(subtract(zero, gate))))
        store(scratch, column, multiply(gate, load(scratch, column + feed_stride)))


@njit(cache=True, nogil=True)
def _rotate(shape, weights, values, v0, position):
    """Turns the pairs (i, i + half) of one head by the position's angles, in place."""
    half = shape.head_width // 2
    a0 = position * shape.head_width
    for i in range(half):
        cosine, sine = weights.angles[a0 + i], weights.angles[a0 + half + i]
        left, right = values[v0 + i], values[v0 + half + i]
        values[v0 + i] = left * cosine - right * sine
        values[v0 + half + i] = right * cosine + left * sine


@njit(cache=True, nogil=True)
def _cache_start(shape, row, layer, head):
    return ((row * shape.layers + layer) * shape.kv_heads + head) * shape.context_stride * shape.head_width


@njit(cache=True, nogil=True)
def _remember(shape, weights, state, scratch, k0, layer, row, position):
    """Writes one token's rotated keys and its values into the caches."""
    width = shape.head_width
    values0 = k0 + shape.kv_heads * width
    for head in range(shape.kv_heads):
        cache = _cache_start(shape, row, layer, head)
        key = k0 + head * width
        _rotate(shape, weights, scratch, key, position)
        target = cache + position // PANEL * PANEL * width + position % PANEL
        for i in range(width):
            state.keys[target + i * PANEL] = scratch[key + i]
        target = cache + position * width
        for i in range(width):
            state.values[target + i] = scratch[values0 + head * width + i]


@njit(cache=True, nogil=True)
def _attend(shape, weights, state, scratch, q0, m0, p0, layer, row, position):
    """Attention of one token over positions 0 .. position of its row; the queries carry the factor 1 / sqrt(width)."""
    width, stride = shape.head_width, shape.context_stride
    group = shape.heads // shape.kv_heads
    panels = position // PANEL + 1
    padded = whole_vectors(position + 1)
    for head in range(shape.heads):
        _rotate(shape, weights, scratch, q0 + head * width, position)
    for kv_head in range(shape.kv_heads):
        cache = _cache_start(shape, row, layer, kv_head)
        q, m = q0 + kv_head * group * width, m0 + kv_head * group * width
        for head in range(group):
            clear(scratch, p0 + head * stride, panels * PANEL)
        for panel in range(panels):
            keys = cache + panel * PANEL * width
            multiply_heads(scratch, q, width, group, state.keys, keys, width, scratch, p0 + panel * PANEL, stride)
        for head in range(group):
            softmax(scratch, p0 + head * stride, position + 1)
        head = 0
        if width % 32 == 0:
            while head + 2 <= group:
                p = p0 + head * stride
                for column in range(0, width, 32):
                    o = m + head * width + column
                    _mix_two(scratch, p, stride, padded, state.values, cache + column, width, o)
                head += 2
        while head < group:
            for column in range(0, width, LANES):
                o = m + head * width + column
                _mix_one(scratch, p0 + head * stride, padded, state.values, cache + column, width, o)
            head += 1


@njit(cache=True, nogil=True)
def whole_vectors(count):
    """`count` rounded up to whole vectors."""
    return (count + LANES - 1) // LANES * LANES


@njit(cache=True, nogil=True)
def softmax(scratch, p0, count):
    """Softmax of `count` scores in place; the rest of the last vector becomes exact zeros, which change no sum."""
    padded = whole_vectors(count)
    for i in range(p0 + count, p0 + padded):
        scratch[i] = scratch[p0]
    best = load(scratch, p0)
    for i in range(p0, p0 + padded, LANES):
        best = maximum(best, load(scratch, i))
    best = fill(maximum_lane(best))
    for i in range(p0, p0 + padded, LANES):
        store(scratch, i, exponential(subtract(load(scratch, i), best)))
    for i in range(p0 + count, p0 + padded):
        scratch[i] = ZERO
    total = fill(ZERO)
    for i in range(p0, p0 + padded, LANES):
        total = add(total, load(scratch, i))
    scale = fill(ONE / sum_lanes(total))
    for i in range(p0, p0 + padded, LANES):
        store(scratch, i, multiply(load(scratch, i), scale))


@njit(cache=True, nogil=True)
def _mix_two(scratch, p0, stride, count, values, v0, width, o0):
    """32 columns of two heads' mixed values; even and odd positions in separate chains, as the latency wants."""
    a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = fill(ZERO)
    p1 = p0 + stride
    for i in range(0, count, 2):
        left, right = load(values, v0), load(values, v0 + 16)
        first, second = spread(scratch, p0 + i), spread(scratch, p1 + i)
        a0, a1 = multiply_add(first, left, a0), multiply_add(first, right, a1)
        b0, b1 = multiply_add(second, left, b0), multiply_add(second, right, b1)
        v0 += width
        left, right = load(values, v0), load(values, v0 + 16)
        first, second = spread(scratch, p0 + i + 1), spread(scratch, p1 + i + 1)
        c0, c1 = multiply_add(first, left, c0), multiply_add(first, right, c1)
        d0, d1 = multiply_add(second, left, d0), multiply_add(second, right, d1)
        v0 += width
    store(scratch, o0, add(a0, c0))
    store(scratch, o0 + 16, add(a1, c1))
    store(scratch, o0 + width, add(b0, d0))
    store(scratch, o0 + width + 16, add(b1, d1))


@njit(cache=True, nogil=True)
def _mix_one(scratch, p0, count, values, v0, width, o0):
    """16 columns of one head, in the same order of sums."""
    a, c = fill(ZERO), fill(ZERO)
    for i in range(0, count, 2):
        a = multiply_add(spread(scratch, p0 + i), load(values, v0), a)
        c = multiply_add(spread(scratch, p0 + i + 1), load(values, v0 + width), c)
        v0 += 2 * width
    store(scratch, o0, add(a, c))


@njit(cache=True, nogil=True)
def run_tiles(shape, weights, state, inputs, sources, rows, positions, tiles, starts, counter, scratch, s0):
    """Runs `forward_tile` over tiles (k, 3) int64 of begin, count and last_only; other arguments as there.

    Task i of `starts.size - 1` is tiles starts[i] .. starts[i + 1], in order. Whoever calls this takes the next task
    from `counter` (see `threads.take`) until none is left, working in its own part of `scratch`.
    """
    while True:
        task = take(counter)
        if task >= starts.size - 1:
            return
        for tile in range(starts[task], starts[task + 1]):
            begin, count, last_only = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
            forward_tile(shape, weights, state, inputs, sources, rows, positions, begin, count, last_only, scratch, s0)
