"""Decoding and prompts of ``transformer.TradeFM`` with few kernels: packed products and ``decoding_kernels``."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tradefm_gym.model.config import ModelConfig
from tradefm_gym.model.decoding_kernels import Attention, add_norm, gated, rotate_into
from tradefm_gym.model.transformer import Attention as ModelAttention
from tradefm_gym.model.transformer import (
    EventEmbedding,
    KeyValueCache,
    TradeFM,
    attend_causally,
    rotary,
    split_digits,
)


class LayerWeights(NamedTuple):
    """One layer: norms (D,) fp32, matrices (out, in)."""

    attention_norm: Tensor
    qkv: Tensor
    output: Tensor
    feed_norm: Tensor
    gate_up: Tensor
    down: Tensor


class FusedDecoder:
    """``TradeFM.decode`` and ``TradeFM.prefill`` on a GPU.

    It shares the model's memory: the model's matrices become views of the packed ones. The embedding is linear up to
    the residual stream, so its tables are kept as projected, all digits of a token in one row.
    """

    def __init__(self, model: TradeFM, batch: int):
        config = model.config
        self.config = config
        self._layers = [_packed(layer) for layer in model.layers]
        self._dtype = self._layers[0].qkv.dtype
        self._norm = model.norm.weight
        self._table, self._offsets = _projected(model.embed, config)
        device = self._norm.device
        places = torch.arange(config.context + 1, device=device)
        self._rotation = torch.cat(rotary(places, config), -1).contiguous()  # (T + 1, d)
        self._attention = Attention(
            batch, config.heads, config.kv_heads, config.attention_width, config.context, device
        )

    @staticmethod
    def fits(config: ModelConfig) -> bool:
        """Whether the kernels can do this network: its heads are as wide as a power of two from 16 on."""
        width = config.attention_width
        return width >= 16 and width & (width - 1) == 0

    def decode(self, inputs: Tensor, cache: KeyValueCache, positions: Tensor) -> Tensor:
        """As ``TradeFM.decode``: (B, 4) integers and (B,) positions to (B, D) fp32."""
        epsilon = self.config.norm_eps
        residual = F.embedding(inputs + self._offsets, self._table).sum(1)  # (B, 4, D) -> (B, D)
        delta = None
        for layer, keys, values in zip(self._layers, *cache, strict=True):
            x = add_norm(residual, delta, layer.attention_norm, epsilon, self._dtype)
            mixed = self._attention(F.linear(x, layer.qkv), self._rotation, positions, keys, values)
            x = add_norm(residual, F.linear(mixed, layer.output), layer.feed_norm, epsilon, self._dtype)
            delta = F.linear(gated(F.linear(x, layer.gate_up)), layer.down)
        return add_norm(residual, delta, self._norm, epsilon, torch.float32)

    def prefill(self, inputs: Tensor, rows: Tensor, last: Tensor, cache: KeyValueCache) -> Tensor:
        """Reads prompts into rows of the cache.

        Args:
            inputs: (R, S, 4) integers, 1 <= S <= T.
            rows: (R,) integers, where each prompt goes.
            last: (R,) integers, the last event of each prompt; what follows is padding.
            cache: Written in place.

        Returns:
            (R, D) fp32 hidden states after the last events.
        """
        config, epsilon, (count, length) = self.config, self.config.norm_eps, inputs.shape[:2]
        heads, groups = config.heads, config.kv_heads
        residual = F.embedding(inputs.flatten(0, 1) + self._offsets, self._table).sum(1)  # (R S, D)
        delta = None
        for layer, keys, values in zip(self._layers, *cache, strict=True):
            x = add_norm(residual, delta, layer.attention_norm, epsilon, self._dtype)
            qkv = F.linear(x, layer.qkv).view(count, length, heads + 2 * groups, -1)  # (R, S, H + 2 G, d)
            turned = rotate_into(qkv, self._rotation, rows, keys, values, heads)  # (R, S, H + G, d)
            query, key = turned.transpose(1, 2).split([heads, groups], 1)  # (R, H, S, d), (R, G, S, d)
            mixed = attend_causally(query, key, qkv[:, :, heads + groups :].transpose(1, 2))
            mixed = mixed.transpose(1, 2).reshape(count * length, -1)
            x = add_norm(residual, F.linear(mixed, layer.output), layer.feed_norm, epsilon, self._dtype)
            delta = F.linear(gated(F.linear(x, layer.gate_up)), layer.down)
        ends = torch.arange(count, device=last.device) * length + last
        delta = None if delta is None else delta[ends]
        return add_norm(residual[ends], delta, self._norm, epsilon, torch.float32)


def _packed(layer) -> LayerWeights:
    attention: ModelAttention = layer.attention
    qkv = _joined(attention.query, attention.key, attention.value)
    gate_up = _joined(layer.feed.gate, layer.feed.up)
    return LayerWeights(
        layer.attention_norm.weight, qkv, attention.output.weight, layer.feed_norm.weight, gate_up,
        layer.feed.down.weight,
    )  # fmt: skip


def _joined(*linears: nn.Linear) -> Tensor:
    joined = torch.cat([linear.weight for linear in linears])
    for linear, part in zip(linears, joined.split([linear.out_features for linear in linears]), strict=True):
        linear.weight = nn.Parameter(part, requires_grad=False)
    return joined


def _projected(embed: EventEmbedding, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """The four input columns' tables after the projection, one below the other (rows, D) fp32, and their offsets."""
    parts = embed.project.weight.float().split(config.embedding_width, 1)  # (D, E) each
    columns = [embed.liquidity, embed.flag, embed.level, embed.token]
    tables = [column.weight.float() @ part.T for column, part in zip(columns, parts, strict=False)]
    if config.digit_embeddings:
        digits = split_digits(torch.arange(config.vocabulary, device=parts[0].device))  # (V,) each
        for digit, table, part in zip(digits, embed.digits, parts[4:], strict=True):
            tables[3] = tables[3] + (table.weight.float() @ part.T)[digit]  # pyright: ignore
    sizes = torch.tensor([0, *config.input_sizes[:3]], device=parts[0].device)
    return torch.cat(tables), sizes.cumsum(0)
