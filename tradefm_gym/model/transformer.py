"""The TradeFM network: config in, ``nn.Module`` out.

Shapes: B rows, T events, D width, H query heads, G key and value heads, d width of a head.
The full-context ``forward`` is the reference for the cached paths, ``decode`` and ``extend``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tradefm_gym.model.config import DIGIT_SIZES, DIGIT_STRIDES, ModelConfig


class KeyValueCache(NamedTuple):
    """Keys and values of all layers, each (L, B, G, T + 1, d); slot T is scratch for idle rows."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "KeyValueCache":
        """A zeroed cache: scratch slots are read under a zero weight, so they must be finite."""
        shape = (config.layers, batch, config.kv_heads, config.context + 1, config.attention_width)
        return cls(torch.zeros(shape, device=device, dtype=dtype), torch.zeros(shape, device=device, dtype=dtype))


class TradeFM(nn.Module):
    """Decoder-only Transformer over order-flow events, Llama style.

    Args:
        config: The network's shape. Weights start at torch's defaults; ``from_weights`` sets them.

    Attributes:
        recompute: In training, compute what is inside a layer again in the backward pass instead of keeping it.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed = EventEmbedding(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.head = JointHead(config) if config.head == "joint" else FactoredHead(config)
        self.dropout = nn.Dropout(config.dropout)
        self.recompute = False

    @classmethod
    def from_weights(cls, config: ModelConfig, weights: Mapping[str, np.ndarray]) -> "TradeFM":
        """A network with the given fp32 weights, as ``load_weights`` or ``random_weights`` return them."""
        with torch.device("meta"):
            model = cls(config)
        model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()}, assign=True)
        return model

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights by name, fp32."""
        return {name: value.detach().float().cpu().numpy().copy() for name, value in self.state_dict().items()}

    def forward(self, inputs: Tensor) -> Tensor:
        """Reads whole windows.

        Args:
            inputs: (B, T, 4) integers, columns liquidity, flag, level, token.

        Returns:
            (B, T, D) normalised hidden states; the one at t predicts the token of event t + 1.
        """
        rotation = rotary(torch.arange(inputs.shape[1], device=inputs.device), self.config)
        hidden = self.dropout(self.embed(inputs))  # (B, T, D)
        for layer in self.layers:
            again = self.recompute and self.training
            hidden = checkpoint(layer, hidden, rotation, use_reentrant=False) if again else layer(hidden, rotation)
        return self.norm(hidden)

    def prefill(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward`` that also returns the rotated keys and the values, each (L, B, G, T, d)."""
        rotation = rotary(torch.arange(inputs.shape[1], device=inputs.device), self.config)
        hidden = self.embed(inputs)
        keys, values = [], []
        for layer in self.layers:
            hidden, key, value = layer.prefill(hidden, rotation)
            keys.append(key)
            values.append(value)
        return self.norm(hidden), torch.stack(keys), torch.stack(values)

    def decode(self, inputs: Tensor, cache: KeyValueCache, positions: Tensor) -> Tensor:
        """Appends one event per row to the cache.

        Args:
            inputs: (B, 4) integers.
            cache: Written in place at ``positions``.
            positions: (B,) int64, the number of events each row holds; T for an idle row, whose result is void.

        Returns:
            (B, D) normalised hidden states.
        """
        return self.extend(inputs[:, None], cache, positions[:, None])[:, 0]

    def extend(self, inputs: Tensor, cache: KeyValueCache, positions: Tensor) -> Tensor:
        """Appends several events per row to the cache.

        Args:
            inputs: (B, K, 4) integers, a row's events in order.
            cache: Written in place at ``positions``.
            positions: (B, K) int64, the place of each event, successive in a row; T for one that is none, whose result
                is void.

        Returns:
            (B, K, D) normalised hidden states.
        """
        rotation = tuple(part[:, None] for part in rotary(positions, self.config))  # (B, 1, K, d / 2)
        slots = torch.arange(self.config.context + 1, device=inputs.device)
        visible = (slots <= positions[..., None])[:, None]  # (B, 1, K, T + 1)
        if positions.shape[1] > 1:  # the query heads of a group stand below one another
            visible = visible.repeat(1, 1, self.config.heads // self.config.kv_heads, 1)  # (B, 1, H / G K, T + 1)
        hidden = self.embed(inputs)  # (B, K, D)
        for index, layer in enumerate(self.layers):
            hidden = layer.decode(hidden, rotation, cache.keys[index], cache.values[index], positions, visible)
        return self.norm(hidden)

    def log_prob(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability in nats of ``tokens`` (...) after hidden states (..., D)."""
        return self.head.log_prob(hidden, tokens)


class EventEmbedding(nn.Module):
    """One table per input column (and, as an option, per digit of the token), concatenated and projected."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        tables, width = config.embedding_tables, config.embedding_width
        self.liquidity = nn.Embedding(tables["liquidity"], width)
        self.flag = nn.Embedding(tables["flag"], width)
        self.level = nn.Embedding(tables["level"], width)
        self.token = nn.Embedding(tables["token"], width)
        if config.digit_embeddings:
            self.digits = nn.ModuleList(nn.Embedding(size, width) for size in DIGIT_SIZES)
        self.project = nn.Linear(len(tables) * width, config.width, bias=False)
        self.digit_embeddings = config.digit_embeddings

    def forward(self, inputs: Tensor) -> Tensor:  # noqa: D102 - (B, T, 4) -> (B, T, D)
        liquidity, flag, level, token = inputs.unbind(-1)  # (B, T) each
        parts = [self.liquidity(liquidity), self.flag(flag), self.level(level), self.token(token)]
        if self.digit_embeddings:
            parts += [table(digit) for table, digit in zip(self.digits, split_digits(token), strict=True)]
        # The residual stream stays fp32 under bf16 autocast.
        return self.project(torch.cat(parts, -1)).float()  # (B, T, tables * E) -> (B, T, D)


class Layer(nn.Module):
    """Attention and SwiGLU, each behind an RMSNorm and added to the residual stream."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.feed_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.feed = Feed(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        return self.prefill(hidden, rotation)[0]

    def prefill(self, hidden: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        mixed, key, value = self.attention(self.attention_norm(hidden), rotation)
        return self._feed(hidden + self.dropout(mixed)), key, value

    def decode(self, hidden: Tensor, rotation, keys: Tensor, values: Tensor, positions: Tensor, visible: Tensor):  # noqa: D102
        mixed = self.attention.decode(self.attention_norm(hidden), rotation, keys, values, positions, visible)
        return self._feed(hidden + mixed)

    def _feed(self, hidden: Tensor) -> Tensor:
        return hidden + self.dropout(self.feed(self.feed_norm(hidden)))


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.attention_width
        self.query = nn.Linear(config.width, config.heads * self.head_width, bias=False)
        self.key = nn.Linear(config.width, config.kv_heads * self.head_width, bias=False)
        self.value = nn.Linear(config.width, config.kv_heads * self.head_width, bias=False)
        self.output = nn.Linear(config.heads * self.head_width, config.width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) -> the same shape, and keys and values (B, G, T, d)."""
        query, key, value = self._project(x, rotation)
        mixed = attend_causally(query, key, value)
        return self.output(mixed.transpose(1, 2).flatten(2)), key, value  # (B, H, T, d) -> (B, T, D)

    def decode(self, x: Tensor, rotation, keys: Tensor, values: Tensor, positions: Tensor, visible: Tensor) -> Tensor:
        """(B, K, D) -> the same shape; ``keys`` and ``values`` (B, G, T + 1, d) are written in place."""
        query, key, value = self._project(x, rotation)
        index = positions[:, None, :, None].expand_as(key)  # (B, G, K, d)
        keys.scatter_(2, index, key)
        values.scatter_(2, index, value)
        # The H / G query heads of a group are the rows of one small product: keys are never repeated.
        rows, events = x.shape[:2]
        grouped = query.reshape(rows, self.kv_heads, -1, self.head_width)  # (B, G, H / G K, d)
        mixed = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=visible)
        mixed = mixed.reshape(rows, -1, events, self.head_width).transpose(1, 2)  # (B, K, H, d)
        return self.output(mixed.reshape(rows, events, -1))  # (B, K, D)

    def _project(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        split = (x.shape[0], x.shape[1], -1, self.head_width)
        query, key, value = (linear(x).view(split).transpose(1, 2) for linear in (self.query, self.key, self.value))
        return rotate(query, rotation), rotate(key, rotation), value  # (B, H, T, d), (B, G, T, d) twice


class Feed(nn.Module):
    """SwiGLU."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate = nn.Linear(config.width, config.feed_width, bias=False)
        self.up = nn.Linear(config.width, config.feed_width, bias=False)
        self.down = nn.Linear(config.feed_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.down(F.silu(self.gate(x)) * self.up(x))


class JointHead(nn.Linear):
    """One softmax over the vocabulary, untied from the embedding."""

    def __init__(self, config: ModelConfig):
        super().__init__(config.width, config.vocabulary, bias=False)

    def log_prob(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(..., D) and (...) -> (...), nats."""
        return _chosen(self(hidden), tokens)

    def joint_log_prob(self, hidden: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities of all tokens: (B, D) -> (B, V), nats; a temperature for all, or (B, 1)."""
        return F.log_softmax(self(hidden).float() / temperature, -1)

    def kind_log_prob(self, hidden: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities of the kinds of event, the first three digits: (B, D) -> (B, 64), nats."""
        return self.joint_log_prob(hidden, temperature).unflatten(-1, (-1, DIGIT_STRIDES[2])).logsumexp(-1)


class FactoredHead(nn.Module):
    """A chain of five softmaxes over the digits; each sees the hidden state and the digits before its own."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        count, width = len(DIGIT_SIZES), config.head_width
        self.hidden = nn.Linear(config.width, count * width, bias=False)
        self.output = nn.ModuleList(nn.Linear(width, size, bias=False) for size in DIGIT_SIZES)
        self.prefix = nn.ModuleList(
            nn.ModuleList(nn.Embedding(size, width) for size in DIGIT_SIZES[:digit]) for digit in range(count)
        )

    def log_prob(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(..., D) and (...) -> (...), nats."""
        return self.digit_log_prob(hidden, tokens).sum(-1)

    def digit_log_prob(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Each digit's share of the log-probability: (..., D) and (...) -> (..., 5), nats."""
        digits = split_digits(tokens)
        parts = self.digit_hidden(hidden)  # (..., 5, Hd)
        chosen = [_chosen(self.digit_logits(parts, digit, digits), digits[digit]) for digit in range(len(DIGIT_SIZES))]
        return torch.stack(chosen, -1)

    def joint_log_prob(self, hidden: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities of all tokens, the digits' ones added up over the whole tree: (B, D) -> (B, V), nats."""
        return self._tree_log_prob(hidden, temperature, len(DIGIT_SIZES))

    def kind_log_prob(self, hidden: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Log-probabilities of the kinds of event, the first three digits: (B, D) -> (B, 64), nats."""
        return self._tree_log_prob(hidden, temperature, 3)

    def _tree_log_prob(self, hidden: Tensor, temperature: float | Tensor, count: int) -> Tensor:
        if isinstance(temperature, Tensor):
            temperature = temperature[..., None]  # (B, 1, 1)
        parts = self.digit_hidden(hidden)[:, None]  # (B, 1, 5, Hd)
        result = hidden.new_zeros((hidden.shape[0], 1), dtype=torch.float32)
        for digit, (stride, size) in enumerate(zip(DIGIT_STRIDES[:count], DIGIT_SIZES[:count], strict=True)):
            prefixes = torch.arange(0, math.prod(DIGIT_SIZES), stride * size, device=hidden.device)  # (P,)
            logits = self.digit_logits(parts, digit, split_digits(prefixes))  # (B, P, n)
            shares = F.log_softmax(logits.float() / temperature, -1)
            result = (result[..., None] + shares).flatten(1)  # (B, P, n) -> (B, P * n)
        return result

    def digit_hidden(self, hidden: Tensor) -> Tensor:
        """The digits' shares of the hidden state: (..., D) -> (..., 5, Hd)."""
        return self.hidden(hidden).unflatten(-1, (len(DIGIT_SIZES), -1))

    def digit_logits(self, parts: Tensor, digit: int, digits: Sequence[Tensor]) -> Tensor:
        """Logits (..., n) of one digit from ``digit_hidden`` and the digits (...) before it, ``digits[:digit]``."""
        activation = parts[..., digit, :]
        for earlier, table in zip(digits, self.prefix[digit], strict=False):  # pyright: ignore[reportArgumentType]
            activation = activation + table(earlier)
        return self.output[digit](F.silu(activation))


def split_digits(tokens: Tensor) -> list[Tensor]:
    """The five digits (...) of tokens (...)."""
    # By numbers of the program, not of a tensor: capturing a CUDA graph allows no transfer.
    return [tokens // stride % size for stride, size in zip(DIGIT_STRIDES, DIGIT_SIZES, strict=True)]


def rotary(positions: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles, each positions' shape + (d / 2,), fp32."""
    pairs = torch.arange(0, config.attention_width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * config.rope_base ** (-pairs / config.attention_width)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the pairs (i, i + d / 2) of the last axis, the half-split form of Llama; keeps dtype and shape."""
    cosine, sine = rotation
    first, second = x.chunk(2, -1)  # (..., d / 2)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1)
    return turned.to(x.dtype)


def attend_causally(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Grouped-query attention of whole windows: (B, H, T, d) and twice (B, G, T, d) -> (B, H, T, d)."""
    # A GPU's kernels for narrow types let the queries of a group share its keys; others want them repeated.
    shared, repeats = query.is_cuda and query.dtype != torch.float32, query.shape[1] // key.shape[1]
    if not shared and repeats > 1:
        key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))  # (B, G, T, d) -> (B, H, T, d)
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared)


def _chosen(logits: Tensor, index: Tensor) -> Tensor:
    # Softmax in fp32 also under bf16 autocast: nats are reported to the third decimal.
    return F.log_softmax(logits.float(), -1).gather(-1, index[..., None]).squeeze(-1)
