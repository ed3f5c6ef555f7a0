"""Serving any network with torch, on a CPU or a GPU; see `engine_protocol.Engine`.

All rows decode together at one static shape, each at its own position, and prompts are read in groups of rounded-up
lengths, whose size depends on that length alone. So what a row computes has the same shapes whoever its neighbours
are; whether the device's kernels then give it the same bits is a property to test (on the CPUs tried they do, in the
same place of the batch; on some of them another place gives other last bits).

An event costs one wait for the device: appending only sends, and drawing sends the random words and waits for tokens.
`start_sample` does not even wait: with the rows in two parts one of them can be drawn while the caller uses the other.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tradefm_gym.arguments import flag, one_of, whole
from tradefm_gym.model import sampling
from tradefm_gym.model.config import DIGIT_SIZES, ModelConfig, load_weights, parameter_shapes
from tradefm_gym.model.corrections import Moves
from tradefm_gym.model.decoders import DECODERS, decoder_of, device_of
from tradefm_gym.model.device_steps import DeviceStep, column
from tradefm_gym.model.engine_protocol import KINDS, EngineLimits, RowCache
from tradefm_gym.model.transformer import JointHead, KeyValueCache, TradeFM

PRECISIONS = ("fp32", "bf16")
LONGEST_EXTENSION = 8  # events that one step appends to a row
SHORTEST_PROMPT = 16  # prompts are padded to a power of two, at least this
_GROUP = 1 << 21  # events of prompts that a GPU reads at a time, times the width: enough to keep it busy
_WORDS = len(DIGIT_SIZES)


class _Rows(NamedTuple):
    cache: KeyValueCache
    hidden: Tensor  # (rows, D) fp32
    tokens: Tensor  # (rows, T + 1) int32


class _Part(NamedTuple):
    """Rows that decode together."""

    number: int
    rows: slice
    state: _Rows  # views


class TorchEngine:
    """Batched serving with a static cache.

    Attributes:
        config: the network's shape.
        batch: B.
        context: T.
        vocabulary: V.
        lengths: (B,) int32, tokens in each row's cache; read only.
        parts: ranges of rows that decode each by itself.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, NDArray[np.float32]],
        batch: int,
        device: str = "cpu",
        precision: str = "fp32",
        prefill_batch: int | None = None,
        decoder: str | None = None,
        graph: bool | None = None,
        parts: int = 1,
    ):
        """Copies the weights to the device and allocates the rows.

        Args:
            config: the network's shape.
            weights: by the names of `config.parameter_shapes`.
            batch: number of rows, at least 1.
            device: as torch names it.
            precision: fp32, or bf16 for weights, cache and products; sums and the residual stream stay fp32.
            prefill_batch: prompts read at a time. Default 1 on a CPU, where more brings nothing; else as many as keep
                it busy, so that a single one does not wait for many.
            decoder: how one event a row is appended: "eager" as the network is written, "compiled" by torch.compile,
                or "fused" by Triton kernels, which is the default on a GPU where they can do the network. All give
                the same values up to rounding.
            graph: capture the steps as CUDA graphs; the default on a GPU.
            parts: ranges of equally many rows that decode each by itself, so that a call for rows of one of them costs
                nothing for the others, and waits for none of them.
        """
        self._limits = EngineLimits(batch, config.context, config.input_sizes)
        one_of("precision", precision, PRECISIONS)
        prefill_batch = None if prefill_batch is None else whole("prefill_batch", prefill_batch, 1)
        if decoder is not None:
            one_of("decoder", decoder, DECODERS)
        if {name: np.shape(values) for name, values in weights.items()} != parameter_shapes(config):
            raise ValueError("weights do not have the names and shapes of the config; see parameter_shapes(config)")
        parts = whole("parts", parts, 1, batch)
        if batch % parts:
            raise ValueError(f"parts is {parts} for a batch of {batch}; allowed is what divides it")
        self.config, self.batch, self.parts = config, batch, parts
        self.context, self.vocabulary = config.context, config.vocabulary
        self.device, self.precision = device_of(device), precision
        on_gpu = self.device.type == "cuda"
        self._graph = on_gpu if graph is None else flag("graph", graph)
        if self._graph and not on_gpu:
            raise ValueError(f"graph is True on device {device!r}; allowed is False where there is no CUDA device")
        self._prefill_batch = prefill_batch or (0 if on_gpu else 1)  # 0: by length
        self._model = TradeFM.from_weights(config, weights).eval().requires_grad_(False).to(self.device)
        dtype = torch.float32
        if precision == "bf16":
            dtype = torch.bfloat16
            for module in self._model.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    module.to(dtype)
        # One row more than there are: what a group's unused places are read into.
        self._everything = _Rows(
            KeyValueCache.empty(config, batch + 1, self.device, dtype),
            torch.zeros((batch + 1, config.width), device=self.device),
            torch.zeros((batch + 1, self.context + 1), dtype=torch.int32, device=self.device),
        )
        self._cache = KeyValueCache(*(part[:, :batch] for part in self._everything.cache))
        self._hidden, self._tokens = self._everything.hidden[:batch], self._everything.tokens[:batch]
        self._parts = [self._part(number, batch // parts) for number in range(parts)]
        self.lengths = np.zeros(batch, np.int32)
        self._decode, self._prefill, self._draw_joint = decoder_of(self._model, decoder, self.device, batch // parts)
        self._steps: dict[tuple, DeviceStep] = {}

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
            size = self._prefill_batch or min(self.batch, max(1, _GROUP // (self.config.width * length)))
            for start in range(0, len(members), size):
                group = members[start : start + size]
                self._read(targets[group], [prompts[index] for index in group], size, length)

    @torch.inference_mode()
    def append(self, inputs: NDArray[np.integer], active: NDArray[np.bool_]) -> None:
        """Adds one event, `inputs` (B, 4), to the rows where `active` (B,) is true."""
        active, inputs = self._limits.mask("active", active), self._limits.events(inputs)
        self._limits.in_range(inputs, active)
        self._limits.has_room(active, self.lengths)
        events = np.where(active[:, None], inputs, 0).astype(np.int32)
        positions = np.where(active, self.lengths, self.context).astype(np.int32)
        self._start("append", active, self._append, events, positions[:, None])
        self.lengths[active] += 1

    @torch.inference_mode()
    def extend(self, inputs: NDArray[np.integer], counts: NDArray[np.integer]) -> None:
        """Adds the first `counts` (B,) events of `inputs` (B, K, 4) to each row, in order.

        Rows go together by the rounded-up number of their events, so that a row's shapes are its own affair.
        """
        inputs, counts = self._limits.several(inputs, counts)
        self._limits.several_in_range(inputs, counts)
        self._limits.has_room_for(counts, self.lengths)
        done = np.zeros(self.batch, np.int64)
        while (left := counts - done).any():
            taken = np.minimum(left, LONGEST_EXTENSION)
            widths = np.where(taken > 0, 1 << np.ceil(np.log2(np.maximum(taken, 1))).astype(np.int64), 0)
            for width in np.unique(widths[widths > 0]).tolist():
                self._extend(inputs, done, np.where(widths == width, taken, 0), width)
            done += taken

    def _extend(self, inputs: NDArray, done: NDArray[np.int64], counts: NDArray[np.int64], width: int) -> None:
        """Adds `counts` (B,) events, at most `width`, from number `done` (B,) on."""
        rows = counts > 0
        if width == 1:
            last = np.minimum(done, inputs.shape[1] - 1)
            self.append(inputs[np.arange(self.batch), last], rows)
            return
        columns = np.arange(width)
        taken = columns < counts[:, None]  # (B, width)
        chosen = np.where(taken, done[:, None] + columns, 0)
        events = np.where(taken[..., None], np.take_along_axis(inputs, chosen[..., None], 1), 0).astype(np.int32)
        counted = np.stack([counts, np.where(rows, self.lengths, self.context)], 1).astype(np.int32)
        self._start(("extend", width), rows, self._append_several, counted, events.reshape(self.batch, -1))
        self.lengths += counts.astype(np.int32)

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
        tilts = None
        if tilt is not None:  # whatever idle rows hold would be drawn from too
            tilts = np.where(active[:, None], self._limits.tilt(tilt, active), np.float32(0))
        bits = self._limits.draws(bits, active, self.lengths, temperature, repetition_penalty)
        scalars = (column(value, self.batch, np.float32) for value in (temperature, repetition_penalty))
        arrays = [bits, *scalars, column(self.lengths, self.batch), *([] if tilts is None else [tilts])]
        penalised = repetition_penalty > 1
        draw = partial(self._draw, penalised=penalised)
        tokens = np.full(self.batch, -1, np.int32)
        for rows, result in self._start(("draw", penalised, tilt is None), active, draw, *arrays):
            tokens[rows] = result()
        return np.where(active, tokens, -1).astype(np.int32)

    @torch.inference_mode()
    def start_sample(
        self, bits: NDArray[np.uint32], active: NDArray[np.bool_], temperature: float, moves: Moves
    ) -> Callable[[], tuple[NDArray[np.int32], NDArray[np.float64]]]:
        """Begins to draw, tilted by what `moves` asks for; what waits for the tokens (B,) and strengths (B, 2)."""
        active, moves = self._limits.mask("active", active), self._limits.moves(moves)
        bits = self._limits.draws(bits, active, self.lengths, temperature, 1.0)
        numbers = np.concatenate([part.reshape(self.batch, -1) for part in moves], 1).astype(np.float32)
        heat = column(temperature, self.batch, np.float32)
        started = self._start("moved", active, self._draw_moved, bits, heat, numbers)
        idle = ~active  # as it is now: the caller may write to his array before he waits

        def result() -> tuple[NDArray[np.int32], NDArray[np.float64]]:
            tokens, strength = np.full(self.batch, -1, np.int32), np.ones((self.batch, 2))
            for rows, wait in started:
                drawn = wait()
                tokens[rows], strength[rows] = drawn[:, 0], drawn[:, 1:]
            tokens[idle] = -1
            return tokens, strength

        return result

    @torch.inference_mode()
    def kind_log_prob(self, active: NDArray[np.bool_], temperature: float = 1.0) -> NDArray[np.float32]:
        """Natural log-probabilities (B, 64) of the kind of each active row's next event."""
        active = self._limits.ready(active, self.lengths, temperature)
        kinds = np.zeros((self.batch, KINDS), np.float32)
        for rows, result in self._start("kinds", active, self._kinds, column(temperature, self.batch, np.float32)):
            kinds[rows] = result()
        return kinds

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
            for layer in part:  # one at a time: what is copied exists twice meanwhile
                layer[targets] = layer[sources]
        self._hidden[targets] = self._hidden[sources]
        self._tokens[targets] = self._tokens[sources]
        self.lengths[targets] = self.lengths[sources]

    def export_row(self, row: int) -> RowCache:
        """Returns a copy of one row's state."""
        self._limits.rows("row", row)
        length = self.lengths[row]
        keys, values = (part[:, row, :, :length].float().cpu().numpy().copy() for part in self._cache)
        tokens, hidden = (part.cpu().numpy().copy() for part in (self._tokens[row, :length], self._hidden[row]))
        return RowCache(keys, values, tokens, hidden)

    @torch.inference_mode()
    def import_row(self, row: int, cache: RowCache) -> None:
        """Replaces one row's state by a copy of `cache`."""
        self._limits.rows("row", row)
        config = self.config
        length = self._limits.cache(cache, config.layers, config.kv_heads, config.heads, config.width)
        for part, stored in zip(self._cache, (cache.keys, cache.values), strict=True):
            part[:, row, :, :length] = torch.tensor(stored)
        self._hidden[row] = torch.tensor(cache.hidden)
        self._tokens[row, :length] = torch.tensor(cache.tokens)
        self.lengths[row] = length

    def _read(self, rows: NDArray[np.int64], prompts: list[NDArray], size: int, length: int) -> None:
        """Prefills one group, padded on the right: causality hides the padding from the events."""
        events = np.zeros((size, length, 4), np.int32)
        places = np.full((size, 2), (self.batch, 0), np.int32)  # row, and the last event
        for index, prompt in enumerate(prompts):
            events[index, : len(prompt)] = prompt
            places[index] = rows[index], len(prompt) - 1
        step = self._step(("prefill", size, length), (size, 2 + 4 * length), self._read_group)
        step.start(places, events.reshape(size, -1))
        self.lengths[rows] = places[: len(prompts), 1] + 1

    def _read_group(self, packed: Tensor) -> None:
        """Prompts (R, S, 4) from columns row, last event, and four an event."""
        rows, last = packed[:, :2].T.contiguous().long()
        events = packed[:, 2:].unflatten(1, (-1, 4)).long()
        everything, length = self._everything, events.shape[1]
        with self._autocast():
            hidden = self._prefill(events, rows, last, everything.cache)
        everything.hidden[rows] = hidden.float()
        everything.tokens[rows, :length] = events[..., 3].int()

    def _append(self, packed: Tensor, state: _Rows) -> None:
        """One event a row from columns liquidity, flag, level, token and position, T where the row is idle."""
        positions = packed[:, 4].long()
        with self._autocast():
            hidden = self._decode(packed[:, :4].long(), state.cache, positions)
        state.hidden.copy_(torch.where((positions < self.context)[:, None], hidden.float(), state.hidden))
        state.tokens.scatter_(1, positions[:, None], packed[:, 3:4])

    def _append_several(self, packed: Tensor, state: _Rows) -> None:
        """Up to K events a row from columns number of events, length, and four an event, as the network is written."""
        counts, lengths, events = packed[:, :1].long(), packed[:, 1:2].long(), packed[:, 2:].unflatten(1, (-1, 4))
        columns = torch.arange(events.shape[1], device=self.device)
        positions = torch.where(columns < counts, lengths + columns, self.context)  # (B, K)
        with self._autocast():
            hidden = self._model.extend(events.long(), state.cache, positions)  # (B, K, D)
        last = (counts - 1).clamp(min=0)[..., None].expand(-1, 1, hidden.shape[2])
        state.hidden.copy_(torch.where(counts > 0, hidden.gather(1, last)[:, 0].float(), state.hidden))
        state.tokens.scatter_(1, positions, events[..., 3])

    def _draw(self, packed: Tensor, state: _Rows, penalised: bool) -> Tensor:
        """Tokens (B,) from columns of random words, temperature, penalty, length and, if tilted, the tilt."""
        words = packed[:, :_WORDS].long() & 0xFFFFFFFF
        numbers, lengths = packed.view(torch.float32), packed[:, _WORDS + 2 : _WORDS + 3]
        temperature, penalty = numbers[:, _WORDS, None], numbers[:, _WORDS + 1, None]
        tilts = numbers[:, _WORDS + 3 :] if packed.shape[1] > _WORDS + 3 else None
        head = self._model.head
        with self._autocast():
            if penalised:
                slots = torch.arange(self.context + 1, device=self.device)
                held = torch.where(slots < lengths, state.tokens, self.vocabulary).long()  # (B, T + 1)
                seen = state.hidden.new_zeros((len(held), self.vocabulary + 1), dtype=torch.bool)
                seen = seen.scatter_(1, held, True)[:, :-1]  # (B, V)
                logs = sampling.penalised(head, state.hidden, seen, temperature, penalty)
                return self._draw_joint(logs, words[:, 0], torch.ones_like(temperature), tilts)
            if isinstance(head, JointHead):
                return self._draw_joint(head(state.hidden), words[:, 0], temperature, tilts)
            return sampling.draw_digits(head, state.hidden, words, temperature, tilts)

    def _draw_moved(self, packed: Tensor, state: _Rows) -> Tensor:
        """Tokens and strengths (B, 3) from columns of random words, temperature and what a flow asks for."""
        words, numbers = packed[:, :_WORDS].long() & 0xFFFFFFFF, packed.view(torch.float32)
        temperature, asked = numbers[:, _WORDS, None], numbers[:, _WORDS + 1 :]
        with self._autocast():
            head = self._model.head
            return sampling.draw_moved(head, state.hidden, words, temperature, asked, self._draw_joint)

    def _kinds(self, packed: Tensor, state: _Rows) -> Tensor:
        with self._autocast():
            return self._model.head.kind_log_prob(state.hidden, packed.view(torch.float32)).float()

    def _part(self, number: int, size: int) -> _Part:
        rows = slice(number * size, (number + 1) * size)
        cache = KeyValueCache(*(part[:, rows] for part in self._everything.cache))
        return _Part(number, rows, _Rows(cache, self._everything.hidden[rows], self._everything.tokens[rows]))

    def _start(self, name, active: NDArray[np.bool_], function, *arrays: NDArray) -> list[tuple[slice, Callable]]:
        """Starts a step in each part with active rows; those rows, and what waits for the step's result."""
        started = []
        for part in self._parts:
            if active[part.rows].any():
                own = [array[part.rows] for array in arrays]
                shape = len(own[0]), sum(array.shape[1] for array in own)
                step = self._step((name, part.number), shape, partial(function, state=part.state))
                started.append((part.rows, step.start(*own)))
        return started

    def _step(self, name, shape: tuple[int, int], function) -> DeviceStep:
        if name not in self._steps:
            self._steps[name] = DeviceStep(function, shape, self.device, self._graph)
        return self._steps[name]

    def _padded(self, length: int) -> int:
        return min(self.context, max(SHORTEST_PROMPT, 1 << (length - 1).bit_length()))

    def _autocast(self):
        # Uncached: a captured step must not hold on to a copy that was made outside of it.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values).to(self.device)
