"""Serving any network with torch, on a CPU or a GPU; see `engine_protocol.Engine`.

All rows decode together at one static shape, each at its own position, and prompts are read in groups of a fixed
size and of rounded-up lengths. So what a row computes has the same shapes whoever its neighbours are; whether the
device's kernels then give it the same bits is a property to test (on the CPUs tried they do, in the same place of the
batch; on some of them another place gives other last bits).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tradefm_gym.arguments import flag, one_of, shortened, whole
from tradefm_gym.model.config import (
    DIGIT_SIZES,
    DIGIT_STRIDES,
    ModelConfig,
    load_weights,
    parameter_shapes,
)
from tradefm_gym.model.engine_protocol import KINDS, PROBABILITY_ONE, EngineLimits, RowCache
from tradefm_gym.model.transformer import FactoredHead, KeyValueCache, TradeFM

PRECISIONS = ("fp32", "bf16")
SHORTEST_PROMPT = 16  # prompts are padded to a power of two, at least this


class TorchEngine:
    """Batched serving with a static cache.

    Attributes:
        config: the network's shape.
        batch: B.
        context: T.
        vocabulary: V.
        lengths: (B,) int32, tokens in each row's cache; read only.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, NDArray[np.float32]],
        batch: int,
        device: str = "cpu",
        precision: str = "fp32",
        prefill_batch: int | None = None,
        compile: bool = False,
    ):
        """Copies the weights to the device and allocates the rows.

        Args:
            config: the network's shape.
            weights: by the names of `config.parameter_shapes`.
            batch: number of rows, at least 1.
            device: as torch names it.
            precision: fp32, or bf16 for weights, cache and products; sums and the residual stream stay fp32.
            prefill_batch: prompts read at a time. Default 1 on a CPU, where more brings nothing; else at most 8.
            compile: compile the decoding step with torch.compile; the eager path gives the same values up to rounding.
        """
        self._limits = EngineLimits(batch, config.context, config.input_sizes)
        one_of("precision", precision, PRECISIONS)
        prefill_batch = None if prefill_batch is None else whole("prefill_batch", prefill_batch, 1)
        compile = flag("compile", compile)
        if {name: np.shape(values) for name, values in weights.items()} != parameter_shapes(config):
            raise ValueError("weights do not have the names and shapes of the config; see parameter_shapes(config)")
        self.config, self.batch = config, batch
        self.context, self.vocabulary = config.context, config.vocabulary
        self.device, self.precision = _device(device), precision
        self._prefill_batch = prefill_batch or (1 if self.device.type == "cpu" else min(batch, 8))
        self._model = TradeFM.from_weights(config, weights).eval().requires_grad_(False).to(self.device)
        dtype = torch.float32
        if precision == "bf16":
            dtype = torch.bfloat16
            for module in self._model.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    module.to(dtype)
        self._cache = KeyValueCache.empty(config, batch, self.device, dtype)
        self._hidden = torch.zeros((batch, config.width), device=self.device)
        self.lengths = np.zeros(batch, np.int32)
        self._seen = np.zeros((batch, self.context), np.int32)  # the tokens in each row's cache
        self._decode = torch.compile(self._model.decode, dynamic=False) if compile else self._model.decode

    @classmethod
    def from_checkpoint(cls, folder: str | Path, batch: int, **options) -> "TorchEngine":
        """Loads a checkpoint folder."""
        return cls(*load_weights(folder), batch, **options)

    def reset(self, rows: NDArray[np.bool_]) -> None:
        """Empties the caches of the rows where `rows` (B,) is true."""
        self.lengths[self._limits.mask("rows", rows)] = 0

    @torch.inference_mode()
    def prefill(
        self,
        rows: int | Sequence[int] | NDArray[np.integer],
        inputs: NDArray[np.integer] | Sequence[NDArray[np.integer]],
    ) -> None:
        """Replaces the caches of `rows` by the events given, (S, 4) for a single row or one (S, 4) a row."""
        targets, prompts = self._limits.prompts(rows, inputs)
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_length.setdefault(self._padded(len(prompt)), []).append(index)
        for length, members in by_length.items():
            for start in range(0, len(members), self._prefill_batch):
                group = members[start : start + self._prefill_batch]
                self._read(targets[group], [prompts[index] for index in group], length)

    @torch.inference_mode()
    def append(self, inputs: NDArray[np.integer], active: NDArray[np.bool_]) -> None:
        """Adds one event, `inputs` (B, 4), to the rows where `active` (B,) is true."""
        active, inputs = self._limits.mask("active", active), self._limits.events(inputs)
        self._limits.in_range(inputs, active)
        self._limits.has_room(active, self.lengths)
        positions = np.where(active, self.lengths, self.context).astype(np.int64)
        events = np.where(active[:, None], inputs, 0).astype(np.int64)
        with self._autocast():
            hidden = self._decode(self._tensor(events), self._cache, self._tensor(positions))
        self._hidden = torch.where(self._tensor(active)[:, None], hidden.float(), self._hidden)
        self._seen[active, self.lengths[active]] = inputs[active, 3]
        self.lengths[active] += 1

    @torch.inference_mode()
    def sample(
        self,
        bits: NDArray[np.uint32],
        active: NDArray[np.bool_],
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
        tilt: NDArray[np.float32] | None = None,
    ) -> NDArray[np.int32]:
        """Draws the next token (B,) of each active row by random words `bits` (B, 5); -1 for the other rows."""
        active = self._limits.mask("active", active)
        tilts = None if tilt is None else self._tensor(self._limits.tilt(tilt))
        bits = self._limits.draws(bits, active, self.lengths, temperature, repetition_penalty)
        words = self._tensor(bits.astype(np.int64))
        with self._autocast():
            if repetition_penalty > 1:
                tokens = self._sample_penalised(words, temperature, repetition_penalty, tilts)
            elif isinstance(self._model.head, FactoredHead):
                tokens = self._sample_digits(self._model.head, words, temperature, tilts)
            else:
                logits = self._model.head(self._hidden).float() / temperature
                tokens = draw(tilted(logits, tilts).softmax(-1), words[:, 0])
        return np.where(active, tokens.cpu().numpy(), -1).astype(np.int32)

    @torch.inference_mode()
    def kind_log_prob(self, active: NDArray[np.bool_], temperature: float = 1.0) -> NDArray[np.float32]:
        """Natural log-probabilities (B, 64) of the kind of each active row's next event."""
        self._limits.ready(active, self.lengths, temperature)
        with self._autocast():
            return self._model.head.kind_log_prob(self._hidden, temperature).float().cpu().numpy()

    @torch.inference_mode()
    def log_prob(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Natural log-probability (B,) of `tokens` (B,) as the next token of each row."""
        tokens = self._limits.tokens(tokens)
        with self._autocast():
            return self._model.log_prob(self._hidden, self._tensor(tokens)).float().cpu().numpy()

    @torch.inference_mode()
    def copy_rows(self, sources: NDArray[np.integer], targets: NDArray[np.integer]) -> None:
        """Copies the state of row sources[i] over that of row targets[i]; no row may be both."""
        sources, targets = self._limits.copies(sources, targets)
        for part in self._cache:
            part[:, targets] = part[:, sources]
        self._hidden[targets] = self._hidden[sources]
        self._seen[targets] = self._seen[sources]
        self.lengths[targets] = self.lengths[sources]

    def export_row(self, row: int) -> RowCache:
        """Returns a copy of one row's state."""
        self._limits.rows("row", row)
        length = self.lengths[row]
        keys, values = (part[:, row, :, :length].float().cpu().numpy().copy() for part in self._cache)
        return RowCache(keys, values, self._seen[row, :length].copy(), self._hidden[row].cpu().numpy().copy())

    @torch.inference_mode()
    def import_row(self, row: int, cache: RowCache) -> None:
        """Replaces one row's state by a copy of `cache`."""
        self._limits.rows("row", row)
        config = self.config
        length = self._limits.cache(cache, config.layers, config.kv_heads, config.attention_width)
        for part, stored in zip(self._cache, (cache.keys, cache.values), strict=True):
            part[:, row, :, :length] = torch.tensor(stored)
        self._hidden[row] = torch.tensor(cache.hidden)
        self._seen[row, :length] = cache.tokens
        self.lengths[row] = length

    def _read(self, rows: NDArray[np.int64], prompts: list[NDArray], length: int) -> None:
        """Prefills one group, padded on the right: causality hides the padding from the events."""
        events = np.zeros((self._prefill_batch, length, 4), np.int64)
        for index, prompt in enumerate(prompts):
            events[index, : len(prompt)] = prompt
        sizes = np.array([len(prompt) for prompt in prompts])
        with self._autocast():
            hidden, keys, values = self._model.prefill(self._tensor(events))
        count = len(prompts)
        self._cache.keys[:, rows, :, :length] = keys[:, :count]
        self._cache.values[:, rows, :, :length] = values[:, :count]
        self._hidden[rows] = hidden[np.arange(count), sizes - 1].float()
        for row, prompt in zip(rows, prompts, strict=True):
            self._seen[row, : len(prompt)] = prompt[:, 3]
        self.lengths[rows] = sizes

    def _sample_digits(self, head: FactoredHead, words: Tensor, temperature: float, tilts: Tensor | None) -> Tensor:
        parts = head.digit_hidden(self._hidden)  # (B, 5, Hd)
        digits = torch.zeros_like(words)
        if tilts is not None:
            kinds = (head.kind_log_prob(self._hidden, temperature) + tilts).softmax(-1)  # (B, 64)
            for digit, size in enumerate(DIGIT_SIZES[:3]):
                shares = kinds.unflatten(-1, (size, -1))  # (B, n, kinds of each)
                totals = shares.sum(-1)
                digits[:, digit] = draw(totals / totals.sum(-1, keepdim=True), words[:, digit])
                kinds = shares[torch.arange(self.batch), digits[:, digit]]
        for digit in range(0 if tilts is None else 3, len(DIGIT_SIZES)):
            logits = head.digit_logits(parts, digit, digits).float() / temperature
            digits[:, digit] = draw(logits.softmax(-1), words[:, digit])
        return (digits * digits.new_tensor(DIGIT_STRIDES)).sum(-1)

    def _sample_penalised(self, words: Tensor, temperature: float, penalty: float, tilts: Tensor | None) -> Tensor:
        logs = self._model.head.joint_log_prob(self._hidden, temperature)  # (B, V)
        seen = np.zeros((self.batch, self.vocabulary), np.bool_)
        for row, length in enumerate(self.lengths):
            seen[row, self._seen[row, :length]] = True
        logs = torch.where(self._tensor(seen), logs * penalty, logs)
        return draw(tilted(logs, tilts).softmax(-1), words[:, 0])

    def _padded(self, length: int) -> int:
        return min(self.context, max(SHORTEST_PROMPT, 1 << (length - 1).bit_length()))

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values).to(self.device)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device is {shortened(name)}; allowed is one that torch finds here, such as 'cpu'")
    return device


def tilted(logits: Tensor, tilts: Tensor | None) -> Tensor:
    """Logits (B, V) of tokens with what is added to each kind of event (B, 64)."""
    return logits if tilts is None else (logits.unflatten(-1, (KINDS, -1)) + tilts[..., None]).flatten(1)


def draw(probabilities: Tensor, words: Tensor) -> Tensor:
    """`engine_protocol.sample_integers` on a device: (B, n) and words (B,) int64 -> (B,) int64 indices."""
    weights = (probabilities.double() * PROBABILITY_ONE + 0.5).floor().long()
    cumulative = weights.cumsum(-1)
    threshold = (words * cumulative[:, -1]) >> 32
    return torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]  # the first one above
