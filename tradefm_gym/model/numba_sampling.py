"""The Numba engine's heads: from the outputs of the last hidden state to probabilities and drawn tokens, row by row.

`engine_protocol.sample_integers` is the definition of a draw; here it runs without temporaries.

The tables of a factored head lie in one flat array of units rounded up to whole vectors: per digit an output matrix
(units, 16), then for each pair (digit, earlier digit) a prefix table (16, units).
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from tradefm_gym.model.config import DIGIT_SIZES, DIGIT_STRIDES, VOCABULARY
from tradefm_gym.model.corrections import KINDS, size_class, tilt_row
from tradefm_gym.model.engine_protocol import PROBABILITY_ONE
from tradefm_gym.model.numba_kernels import ONE, ZERO, softmax
from tradefm_gym.model.vectors import (
    LANES,
    add,
    divide,
    exponential,
    fill,
    load,
    maximum,
    maximum_lane,
    multiply_add,
    spread,
    store,
    subtract,
    sum_lanes,
)

DIGITS = len(DIGIT_SIZES)
KIND_STRIDE = DIGIT_STRIDES[2]  # tokens of one kind of event: action, side and depth
_ACTION, _SIDE = KINDS // DIGIT_SIZES[0], KINDS // DIGIT_SIZES[0] // DIGIT_SIZES[1]  # kinds of an action, of its side


class Head(NamedTuple):
    """What a head needs beside its outputs."""

    factored: bool
    units: int  # hidden units of a digit, in whole vectors; 0 for a joint head
    stride: int  # outputs of a row
    tables: np.ndarray  # flat float32, see above; empty for a joint head


class Draw(NamedTuple):
    """What an engine's rows draw from and work in, for kernels that draw row by row; see ``draw_row``."""

    head: Head
    outputs: np.ndarray  # flat float32, the head's outputs of all rows
    kinds: np.ndarray  # (B, 64) float32, room to work
    tilt: np.ndarray  # (B, 64) float32, likewise
    untilted: np.ndarray  # (0, 64) float32
    work: np.ndarray  # flat float32, likewise
    size: int  # of a row's part of it


def work_size(units: int) -> int:
    """Float32 elements that a row needs to draw digit by digit: logits, then activations, then kinds of event."""
    return LANES + units + KINDS


def pack_tables(weights: dict[str, np.ndarray], units: int) -> np.ndarray:
    """Packs `head.output.*` and `head.prefix.*.*` of a factored head; padding is zero."""
    outputs = np.zeros((DIGITS, units, LANES), np.float32)
    prefixes = np.zeros((DIGITS * (DIGITS - 1) // 2, LANES, units), np.float32)
    for digit in range(DIGITS):
        matrix = weights[f"head.output.{digit}.weight"]
        outputs[digit, : matrix.shape[1], : matrix.shape[0]] = matrix.T
        for earlier in range(digit):
            table = weights[f"head.prefix.{digit}.{earlier}.weight"]
            prefixes[digit * (digit - 1) // 2 + earlier, : table.shape[0], : table.shape[1]] = table
    return np.concatenate((outputs.ravel(), prefixes.ravel()))


@njit(cache=True, nogil=True)
def sample_row(head, outputs, row, bits, scale, tilt, work, w0):
    """Draws one token; `scale` is 1 / temperature, `bits` (B, 5), `tilt` (B, 64) or (0, 64). Works in work[w0:]."""
    o0 = row * head.stride
    if not head.factored:
        for i in range(VOCABULARY):
            work[w0 + i] = outputs[o0 + i] * scale
        if tilt.shape[0] > 0:
            _add_tilt(tilt, row, work, w0)
        softmax(work, w0, VOCABULARY)
        return _draw(work, w0, VOCABULARY, bits[row, 0])
    if tilt.shape[0] > 0:
        return _draw_rest(
            head, outputs, row, bits, scale, _draw_kind(head, outputs, row, bits, scale, tilt, work, w0), 3, work, w0
        )
    return _draw_rest(head, outputs, row, bits, scale, 0, 0, work, w0)


@njit(cache=True, nogil=True)
def _draw_rest(head, outputs, row, bits, scale, token, first, work, w0):
    """Adds the digits from number ``first`` on to a token."""
    o0 = row * head.stride
    for digit in range(first, DIGITS):
        _digit_logits(head, outputs, o0, digit, token, work, w0)
        for i in range(LANES):
            work[w0 + i] *= scale
        softmax(work, w0, DIGIT_SIZES[digit])
        token += _draw(work, w0, DIGIT_SIZES[digit], bits[row, digit]) * DIGIT_STRIDES[digit]
    return token


@njit(cache=True, nogil=True)
def _draw_kind(head, outputs, row, bits, scale, tilt, work, w0):
    """First three digits of a token from their tilted joint distribution, one after another."""
    _kind_log_probs(head, outputs, row, scale, work, w0, w0 + LANES + head.units)
    return _choose_kind(head, row, bits, tilt, work, w0)


@njit(cache=True, nogil=True)
def _choose_kind(head, row, bits, tilt, work, w0):
    """The same, from log-probabilities that lie where ``_draw_kind`` has them."""
    k0 = w0 + LANES + head.units
    for kind in range(KINDS):
        work[k0 + kind] += tilt[row, kind]
    softmax(work, k0, KINDS)
    chosen = 0
    for digit, block in ((0, _ACTION), (1, _SIDE), (2, 1)):
        size = DIGIT_SIZES[digit]
        total = ZERO
        for i in range(size):
            work[w0 + i] = ZERO
            for kind in range(chosen + i * block, chosen + (i + 1) * block):
                work[w0 + i] += work[k0 + kind]
            total += work[w0 + i]
        for i in range(size):
            work[w0 + i] /= total
        chosen += _draw(work, w0, size, bits[row, digit]) * block
    return chosen * KIND_STRIDE


@njit(cache=True, nogil=True)
def _kind_log_probs(head, outputs, row, scale, work, w0, k0):
    """Log-probabilities of action, side and depth into work[k0 : k0 + KINDS]; digits are worked out at w0."""
    o0 = row * head.stride
    for kind in range(KINDS):
        work[k0 + kind] = ZERO
    for digit, block in ((0, _ACTION), (1, _SIDE), (2, 1)):
        size = DIGIT_SIZES[digit]
        for prefix in range(0, KINDS, size * block):
            _digit_logits(head, outputs, o0, digit, prefix * KIND_STRIDE, work, w0)
            for i in range(LANES):
                work[w0 + i] *= scale
            total = _log_total(work, w0, size)
            for i in range(size):
                share = np.float32(work[w0 + i] - total)
                for kind in range(prefix + i * block, prefix + (i + 1) * block):
                    work[k0 + kind] += share


@njit(cache=True, nogil=True)
def kind_log_prob_rows(head, outputs, active, scale, work, size, result):
    """Log-probabilities of the kinds of event of all active rows into result (B, 64)."""
    for row in range(active.size):
        if active[row]:
            _kind_log_prob_row(head, outputs, row, scale, work, row * size, result)


@njit(cache=True, nogil=True)
def _kind_log_prob_row(head, outputs, row, scale, work, w0, result):
    """One row of it; for a factored head they lie at w0 + LANES + units as well."""
    if head.factored:
        _kind_log_probs(head, outputs, row, scale, work, w0, w0 + LANES + head.units)
        for kind in range(KINDS):
            result[row, kind] = work[w0 + LANES + head.units + kind]
        return
    for i in range(VOCABULARY):
        work[w0 + i] = outputs[row * head.stride + i] * scale
    total = _log_total(work, w0, VOCABULARY)
    for kind in range(KINDS):
        result[row, kind] = _log_total(work, w0 + kind * KIND_STRIDE, KIND_STRIDE) - total


@njit(cache=True, nogil=True)
def sample_row_moved(head, outputs, row, bits, scale, moves, kinds, tilt, strength, work, w0):
    """Draws one token as ``sample_row`` does, tilted by what ``moves`` asks for; kinds and tilt (B, 64) are room."""
    _kind_log_prob_row(head, outputs, row, scale, work, w0, kinds)
    tilt_row(moves, row, kinds[row], tilt[row], strength[row])
    if not head.factored:
        return _sample_joint_moved(outputs, row * head.stride, bits[row, 0], scale, moves, tilt, row, work, w0)
    token = _choose_kind(head, row, bits, tilt, work, w0)
    sizes = size_class(moves, row, token // KIND_STRIDE)
    for digit in range(3, DIGITS):
        _digit_logits(head, outputs, row * head.stride, digit, token, work, w0)
        more = sizes if digit == 3 else 3
        for i in range(LANES):
            work[w0 + i] = work[w0 + i] * scale + np.float32(moves.digits[row, more, i])
        softmax(work, w0, DIGIT_SIZES[digit])
        token += _draw(work, w0, DIGIT_SIZES[digit], bits[row, digit]) * DIGIT_STRIDES[digit]
    return token


@njit(cache=True, nogil=True)
def _sample_joint_moved(outputs, o0, word, scale, moves, tilt, row, work, w0):
    for kind in range(KINDS):
        sizes = size_class(moves, row, kind)
        for i in range(KIND_STRIDE):
            token = kind * KIND_STRIDE + i
            more = np.float32(moves.digits[row, sizes, i // LANES]) + np.float32(moves.digits[row, 3, i % LANES])
            work[w0 + token] = outputs[o0 + token] * scale + tilt[row, kind] + more
    softmax(work, w0, VOCABULARY)
    return _draw(work, w0, VOCABULARY, word)


@njit(cache=True, nogil=True)
def draw_row(draw, row, bits, scale, is_moved, moves, strength):
    """Draws one row's token, tilted by what ``moves`` asks for if ``is_moved``; ``strength`` (B, 2) is written then."""
    w0 = row * draw.size
    if not is_moved:
        return sample_row(draw.head, draw.outputs, row, bits, scale, draw.untilted, draw.work, w0)
    return sample_row_moved(
        draw.head, draw.outputs, row, bits, scale, moves, draw.kinds, draw.tilt, strength, draw.work, w0
    )


@njit(cache=True, nogil=True)
def sample_rows_moved(head, outputs, active, bits, scale, moves, kinds, tilt, strength, work, size, tokens):
    """Draws for all active rows; row r works in work[r * size:]."""
    for row in range(active.size):
        tokens[row] = -1
        if active[row]:
            tokens[row] = sample_row_moved(
                head, outputs, row, bits, scale, moves, kinds, tilt, strength, work, row * size
            )


@njit(cache=True, nogil=True, parallel=True)
def sample_rows_moved_parallel(head, outputs, active, bits, scale, moves, kinds, tilt, strength, work, size, tokens):
    """`sample_rows_moved` over threads."""
    for row in prange(active.size):
        tokens[row] = -1
        if active[row]:
            tokens[row] = sample_row_moved(
                head, outputs, row, bits, scale, moves, kinds, tilt, strength, work, row * size
            )


@njit(cache=True, nogil=True)
def _add_tilt(tilt, row, work, w0):
    for kind in range(KINDS):
        for token in range(kind * KIND_STRIDE, (kind + 1) * KIND_STRIDE):
            work[w0 + token] += tilt[row, kind]


@njit(cache=True, nogil=True)
def log_prob_row(head, outputs, row, token, work, w0):
    """Natural log-probability of one token."""
    o0 = row * head.stride
    if not head.factored:
        return outputs[o0 + token] - _log_total(outputs, o0, VOCABULARY)
    result = 0.0
    for digit in range(DIGITS):
        _digit_logits(head, outputs, o0, digit, token, work, w0)
        chosen = token // DIGIT_STRIDES[digit] % DIGIT_SIZES[digit]
        result += work[w0 + chosen] - _log_total(work, w0, DIGIT_SIZES[digit])
    return result


@njit(cache=True, nogil=True)
def sample_row_penalised(head, outputs, row, bits, scale, penalty, tilt, seen, count, work, w0):
    """Draws from the joint distribution in which tokens among seen[row, :count] weigh p^penalty, then tilted.

    Works in work[w0 : w0 + VOCABULARY + work_size].
    """
    _joint_log_probs(head, outputs, row, scale, work, w0)
    for i in range(count):
        place = w0 + seen[row, i]
        if work[place] < ZERO:
            # a log-probability is never positive, so the sign can say "done" until all have been visited
            work[place] *= -penalty
    for i in range(w0, w0 + VOCABULARY):
        work[i] = -abs(work[i])
    if tilt.shape[0] > 0:
        _add_tilt(tilt, row, work, w0)
    softmax(work, w0, VOCABULARY)
    return _draw(work, w0, VOCABULARY, bits[row, 0])


@njit(cache=True, nogil=True)
def _joint_log_probs(head, outputs, row, scale, work, w0):
    """Log-probabilities of all tokens into work[w0 : w0 + VOCABULARY]; digits are worked out behind that."""
    o0, d0 = row * head.stride, w0 + VOCABULARY
    if not head.factored:
        for i in range(VOCABULARY):
            work[w0 + i] = outputs[o0 + i] * scale
        total = _log_total(work, w0, VOCABULARY)
        for i in range(VOCABULARY):
            work[w0 + i] = min(np.float32(work[w0 + i] - total), ZERO)
        return
    for i in range(VOCABULARY):
        work[w0 + i] = ZERO
    for digit in range(DIGITS):
        size, stride = DIGIT_SIZES[digit], DIGIT_STRIDES[digit]
        for prefix in range(0, VOCABULARY, size * stride):
            _digit_logits(head, outputs, o0, digit, prefix, work, d0)
            for i in range(LANES):
                work[d0 + i] *= scale
            total = _log_total(work, d0, size)
            for i in range(size):
                share = min(np.float32(work[d0 + i] - total), ZERO)
                for token in range(prefix + i * stride, prefix + (i + 1) * stride):
                    work[w0 + token] += share


@njit(cache=True, nogil=True)
def _digit_logits(head, outputs, o0, digit, token, work, w0):
    """Logits of a digit, given the digits of `token` before it, into work[w0 : w0 + 16]; activations behind."""
    units, a0 = head.units, w0 + LANES
    one, zero = fill(ONE), fill(ZERO)
    prefixes = DIGITS * units * LANES + digit * (digit - 1) // 2 * LANES * units
    for unit in range(0, units, LANES):
        value = load(outputs, o0 + digit * units + unit)
        for earlier in range(digit):
            chosen = token // DIGIT_STRIDES[earlier] % DIGIT_SIZES[earlier]
            value = add(value, load(head.tables, prefixes + (earlier * LANES + chosen) * units + unit))
        value = divide(value, add(one, exponential(subtract(zero, value))))
        store(work, a0 + unit, value)
    logits = fill(ZERO)
    t0 = digit * units * LANES
    for unit in range(units):
        logits = multiply_add(spread(work, a0 + unit), load(head.tables, t0 + unit * LANES), logits)
    store(work, w0, logits)


@njit(cache=True, nogil=True)
def _log_total(logits, l0, count):
    """log(sum(exp(logits[l0 : l0 + count]))) in float64; `count` is 2 or whole vectors."""
    if count < LANES:
        best = max(logits[l0], logits[l0 + 1])
        return best + math.log(math.exp(logits[l0] - best) + math.exp(logits[l0 + 1] - best))
    lanes = load(logits, l0)
    for i in range(l0, l0 + count, LANES):
        lanes = maximum(lanes, load(logits, i))
    best = maximum_lane(lanes)
    shift, total = fill(best), fill(ZERO)
    for i in range(l0, l0 + count, LANES):
        total = add(total, exponential(subtract(load(logits, i), shift)))
    return best + math.log(sum_lanes(total))


@njit(cache=True, nogil=True)
def _draw(probabilities, p0, count, word):
    total = np.int64(0)
    for i in range(p0, p0 + count):
        total += _integer_weight(probabilities[i])
    threshold = (np.int64(word) * total) >> 32
    cumulative = np.int64(0)
    for i in range(count):
        cumulative += _integer_weight(probabilities[p0 + i])
        if cumulative > threshold:
            return i
    return count - 1


@njit(cache=True, nogil=True)
def _integer_weight(probability):
    return np.int64(np.floor(np.float64(probability) * PROBABILITY_ONE + 0.5))


@njit(cache=True, nogil=True)
def sample_rows(head, outputs, active, bits, scale, tilt, work, size, tokens):
    """Draws for all active rows; row r works in work[r * size:]."""
    for row in range(active.size):
        tokens[row] = -1
        if active[row]:
            tokens[row] = sample_row(head, outputs, row, bits, scale, tilt, work, row * size)


@njit(cache=True, nogil=True, parallel=True)
def sample_rows_parallel(head, outputs, active, bits, scale, tilt, work, size, tokens):
    """`sample_rows` over threads."""
    for row in prange(active.size):
        tokens[row] = -1
        if active[row]:
            tokens[row] = sample_row(head, outputs, row, bits, scale, tilt, work, row * size)


@njit(cache=True, nogil=True, parallel=True)
def sample_rows_penalised(head, outputs, active, bits, scale, penalty, tilt, seen, lengths, work, size, tokens):
    """Like `sample_rows`, with a repetition penalty over seen (B, T) tokens, of which lengths (B,) count."""
    for row in prange(active.size):
        tokens[row] = -1
        if active[row]:
            tokens[row] = sample_row_penalised(
                head, outputs, row, bits, scale, penalty, tilt, seen, lengths[row], work, row * size
            )


@njit(cache=True, nogil=True)
def log_prob_rows(head, outputs, tokens, work, result):
    """Natural log-probabilities of tokens (B,) into result (B,); rows share one work space."""
    for row in range(tokens.size):
        result[row] = log_prob_row(head, outputs, row, tokens[row], work, 0)
