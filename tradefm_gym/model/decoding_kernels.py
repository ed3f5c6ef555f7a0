"""Triton kernels of decoding and of prompts: what lies between the products, each in one pass over memory.

Every row attends over its own length and no further, in an order that depends on that length alone: what a row gets
does not depend on its neighbours. The step reads each cached key and value once; that read is its cost.

With ``TRITON_INTERPRET=1`` they run on a CPU too, slowly: so are they tested.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from tradefm_gym.model.config import VOCABULARY
from tradefm_gym.model.corrections import KINDS
from tradefm_gym.model.engine_protocol import PROBABILITY_ONE

_SMALLEST_DOT = 16  # rows and columns that the matrix units take
_KEYS = 64  # keys a program reads at a time
_WARPS, _STAGES = 2, 3  # of the attention


def add_norm(residual: Tensor, delta: Tensor | None, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Adds ``delta`` (B, D) to the residual stream (B, D) fp32 in place; returns its RMSNorm (B, D) as ``dtype``."""
    rows, width = residual.shape
    out = torch.empty_like(residual, dtype=dtype)
    block = triton.next_power_of_2(width)
    _add_norm[(rows,)](
        residual, residual if delta is None else delta, weight, out, width, epsilon, delta is not None, block,
        num_warps=4 if block > 512 else 1,
    )  # fmt: skip
    return out


@triton.jit
def _add_norm(residual, delta, weight, out, width, epsilon, HAS_DELTA: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    x = tl.load(residual + row * width + columns, mask=inside, other=0.0)
    if HAS_DELTA:
        x += tl.load(delta + row * width + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(residual + row * width + columns, x, mask=inside)
    scale = tl.rsqrt(tl.sum(x * x, 0) / width + epsilon)
    y = x * scale * tl.load(weight + columns, mask=inside, other=0.0)
    tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=inside)


def gated(gate_up: Tensor) -> Tensor:
    """SwiGLU's middle: silu of the first half of ``gate_up`` (B, 2F) times the second, (B, F)."""
    rows, width = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty((rows, width))
    block = min(1024, triton.next_power_of_2(width))
    _gated[(rows, triton.cdiv(width, block))](gate_up, out, width, block, num_warps=4)
    return out


@triton.jit
def _gated(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < width
    gate = tl.load(gate_up + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    y = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out + row * width + columns, y.to(out.dtype.element_ty), mask=inside)


class Attention:
    """One new event a row against the cache: rotation, cache write and grouped-query attention in one kernel.

    The queries of a group share one pass over its keys. Few rows leave most of the device idle, so a row's keys are
    then divided among several programs, whose results a second kernel combines.
    """

    def __init__(self, batch: int, heads: int, kv_heads: int, width: int, context: int, device: torch.device):
        processors = 132
        if device.type == "cuda":
            processors = torch.cuda.get_device_properties(device).multi_processor_count
        wanted = triton.cdiv(8 * processors, batch * kv_heads)
        self.splits = min(triton.next_power_of_2(wanted), triton.next_power_of_2(triton.cdiv(context, _KEYS)))
        self.heads, self.kv_heads, self.width = heads, kv_heads, width
        self.keys, self.warps, self.stages = _KEYS, _WARPS, _STAGES
        self._partial = torch.empty((self.splits, batch, heads, width + 2), device=device)  # sums, largest, total

    def __call__(self, qkv: Tensor, rotation: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Appends and attends.

        Args:
            qkv: (B, (H + 2 G) d), queries, keys and values of the new events, not rotated.
            rotation: (T + 1, d) fp32, d / 2 cosines and d / 2 sines of each position.
            positions: (B,) integers, the events that each row holds; T for an idle row, whose result is void.
            keys: (B, G, T + 1, d), written at ``positions``.
            values: likewise.

        Returns:
            (B, H d).
        """
        batch, groups, slots, width = keys.shape
        out = qkv.new_empty((batch, self.heads * width))
        _attend[(batch, groups, self.splits)](
            qkv, rotation, positions, keys, values, out, self._partial, batch, slots, width**-0.5,
            self.heads, groups, width, max(_SMALLEST_DOT, triton.next_power_of_2(self.heads // groups)),
            self.keys, self.splits, "ieee" if keys.dtype == torch.float32 else "tf32",
            num_warps=self.warps, num_stages=self.stages,
        )  # fmt: skip
        if self.splits > 1:
            _combine[(batch, self.heads)](self._partial, out, batch, self.heads, width, self.splits, num_warps=1)
        return out


@triton.jit
def _rotated(pointer, rotation, columns, WIDTH: tl.constexpr):
    """Elements ``columns`` of the vectors at ``pointer``, turned: pairs are (i, i + d / 2)."""
    half: tl.constexpr = WIDTH // 2
    pair = columns % half
    x = tl.load(pointer + columns).to(tl.float32)
    partner = tl.load(pointer + (columns + half) % WIDTH).to(tl.float32)
    sign = tl.where(columns < half, -1.0, 1.0)
    return x * tl.load(rotation + pair) + sign * partner * tl.load(rotation + half + pair)


def rotate_into(qkv: Tensor, rotation: Tensor, rows: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Turns queries and keys of prompts, and writes keys and values into the cache.

    Args:
        qkv: (R, S, H + 2 G, d), queries, keys and values, not rotated.
        rotation: as ``Attention`` takes it.
        rows: (R,) integers, the prompts' rows.
        keys: (rows, G, T + 1, d), written at the rows' first S places.
        values: likewise.
        heads: H.

    Returns:
        (R, S, H + G, d), queries and keys, rotated.
    """
    count, length, parts, width = qkv.shape
    groups, slots = keys.shape[1:3]
    turned = qkv.new_empty((count, length, heads + groups, width))
    _rotate_into[(count, length)](
        qkv, rotation, rows, turned, keys, values, length, slots, heads, groups, width,
        triton.next_power_of_2(parts), num_warps=4,
    )  # fmt: skip
    return turned


@triton.jit
def _rotate_into(
    qkv, rotation, rows, turned, keys, values, length, slots,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    prompt, slot = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.load(rows + prompt).to(tl.int64)
    event = prompt * length + slot
    new = qkv + event * (HEADS + 2 * GROUPS) * WIDTH
    part, columns = tl.arange(0, PARTS)[:, None], tl.arange(0, WIDTH)[None, :]

    head = tl.minimum(part, HEADS + GROUPS - 1)
    x = _rotated(new + head * WIDTH, rotation + slot * WIDTH, columns, WIDTH).to(qkv.dtype.element_ty)
    tl.store(turned + (event * (HEADS + GROUPS) + head) * WIDTH + columns, x, mask=part < HEADS + GROUPS)
    group = tl.maximum(head - HEADS, 0)
    place = ((row * GROUPS + group) * slots + slot) * WIDTH + columns
    tl.store(keys + place, x.to(keys.dtype.element_ty), mask=(part >= HEADS) & (part < HEADS + GROUPS))

    group = tl.minimum(part, GROUPS - 1)
    v = tl.load(new + (HEADS + GROUPS + group) * WIDTH + columns)
    place = ((row * GROUPS + group) * slots + slot) * WIDTH + columns
    tl.store(values + place, v.to(values.dtype.element_ty), mask=part < GROUPS)


@triton.jit
def _attend(
    qkv, rotation, positions, keys, values, out, partial, batch, slots, scale,
    HEADS: tl.constexpr, GROUPS: tl.constexpr, WIDTH: tl.constexpr, QUERIES: tl.constexpr,
    KEYS: tl.constexpr, SPLITS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row, group, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    shared: tl.constexpr = HEADS // GROUPS
    columns, query = tl.arange(0, WIDTH), tl.arange(0, QUERIES)
    position = tl.load(positions + row).to(tl.int32)
    length = tl.where(position < slots - 1, position, 0)  # an idle row reads nothing
    turn = rotation + position * WIDTH
    new = qkv + row * (HEADS + 2 * GROUPS) * WIDTH
    head = tl.minimum(group * shared + query, HEADS - 1)  # of queries beyond the group's own nothing is kept
    q = _rotated(new + head[:, None] * WIDTH, turn, columns[None, :], WIDTH).to(keys.dtype.element_ty)
    base = (row * GROUPS + group) * slots * WIDTH

    # The first program of a row begins with the new event itself, so nobody waits for what it writes.
    largest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    sums = tl.zeros((QUERIES, WIDTH), tl.float32)
    factor = scale * 1.4426950408889634  # powers of two are what the device computes
    if split == 0:
        k = _rotated(new + (HEADS + group) * WIDTH, turn, columns, WIDTH).to(keys.dtype.element_ty)
        v = tl.load(new + (HEADS + GROUPS + group) * WIDTH + columns)
        tl.store(keys + base + position * WIDTH + columns, k)
        tl.store(values + base + position * WIDTH + columns, v)
        largest = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], 1) * factor
        total += 1.0
        sums += v.to(tl.float32)[None, :]

    share = tl.cdiv(tl.cdiv(length, SPLITS), KEYS) * KEYS
    end = tl.minimum(length, (split + 1) * share)
    for start in range(split * share, end, KEYS):
        slot = start + tl.arange(0, KEYS)
        inside = slot < end
        place = base + slot[:, None] * WIDTH + columns[None, :]
        k = tl.load(keys + place, mask=inside[:, None], other=0.0)
        v = tl.load(values + place, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * factor  # (QUERIES, KEYS)
        scores = tl.where(inside[None, :], scores, float("-inf"))
        above = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp2(largest - above)
        shares = tl.exp2(scores - above[:, None])
        total = total * kept + tl.sum(shares, 1)
        sums = tl.dot(shares.to(v.dtype), v, sums * kept[:, None], input_precision=PRECISION)
        largest = above

    own = query < shared
    if SPLITS == 1:
        y = sums / total[:, None]
        to = out + (row * HEADS + head[:, None]) * WIDTH + columns[None, :]
        tl.store(to, y.to(out.dtype.element_ty), mask=own[:, None])
    else:
        to = partial + ((split * batch + row) * HEADS + head) * (WIDTH + 2)
        tl.store(to[:, None] + columns[None, :], sums, mask=own[:, None])
        tl.store(to + WIDTH, largest, mask=own)
        tl.store(to + WIDTH + 1, total, mask=own)


@triton.jit
def _combine(partial, out, batch, HEADS: tl.constexpr, WIDTH: tl.constexpr, SPLITS: tl.constexpr):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split, columns = tl.arange(0, SPLITS), tl.arange(0, WIDTH)
    at = partial + ((split * batch + row) * HEADS + head) * (WIDTH + 2)
    largest = tl.load(at + WIDTH)  # (SPLITS,); the first is finite
    weight = tl.exp2(largest - tl.max(largest, 0))
    total = tl.sum(weight * tl.load(at + WIDTH + 1), 0)
    sums = tl.sum(weight[:, None] * tl.load(at[:, None] + columns[None, :]), 0)
    tl.store(out + (row * HEADS + head) * WIDTH + columns, (sums / total).to(out.dtype.element_ty))


def draw_joint(logits: Tensor, words: Tensor, temperature: Tensor, tilts: Tensor | None) -> Tensor:
    """``engine_protocol.sample_integers`` of softmax(logits / temperature + tilt), in one pass over the logits.

    Args:
        logits: (B, V).
        words: (B,) int64, from 0 to 2^32 - 1.
        temperature: (B, 1) fp32.
        tilts: (B, 64) fp32, added to the tokens of each kind, or None.

    Returns:
        (B,) int64 tokens.
    """
    out = torch.empty_like(words)
    _draw_joint[(len(words),)](
        logits, words, temperature, logits if tilts is None else tilts, out, words.stride(0), temperature.stride(0),
        0 if tilts is None else tilts.stride(0), VOCABULARY, VOCABULARY // KINDS, PROBABILITY_ONE, tilts is not None,
        num_warps=16,
    )  # fmt: skip
    return out


@triton.jit
def _draw_joint(
    logits, words, temperature, tilts, out, words_stride, temperature_stride, tilts_stride,
    TOKENS: tl.constexpr, TOKENS_OF_KIND: tl.constexpr, ONE: tl.constexpr, TILTED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, TOKENS)
    x = tl.load(logits + row * TOKENS + token).to(tl.float32) / tl.load(temperature + row * temperature_stride)
    if TILTED:
        x += tl.load(tilts + row * tilts_stride + token // TOKENS_OF_KIND)
    x = tl.exp(x - tl.max(x, 0))
    weights = ((x / tl.sum(x, 0)).to(tl.float64) * ONE + 0.5).to(tl.int32)  # the half would be lost in fp32
    cumulative = tl.cumsum(weights, 0)  # about 2^30 in the end
    threshold = (tl.load(words + row * words_stride) * tl.sum(weights, 0).to(tl.int64)) >> 32
    tl.store(out + row, tl.sum((cumulative <= threshold).to(tl.int32), 0))
