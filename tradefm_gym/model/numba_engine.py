"""Serving small models on a CPU without torch: the default engine of the environments.

The work is in `numba_kernels` (forward pass) and `numba_sampling` (heads); this file packs the weights, checks
arguments and keeps the rows' state. A row's results are the same bits whatever the batch, its neighbours and the number
of threads, and on any CPU with fused multiply-add.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tradefm_gym.model.config import (
    DIGIT_SIZES,
    DIGIT_STRIDES,
    INPUT_NAMES,
    VOCABULARY,
    ModelConfig,
    load_weights,
    parameter_shapes,
)
from tradefm_gym.model.corrections import KINDS, Moves
from tradefm_gym.model.engine_protocol import EngineLimits, RowCache
from tradefm_gym.model.numba_kernels import (
    Shape,
    State,
    Weights,
    layer_size,
    read_heads,
    run_tiles,
    scratch_size,
)
from tradefm_gym.model.numba_matrix import PANEL, multiply_matrix, pack_panels, whole_panels
from tradefm_gym.model.numba_plans import admit, admit_reads, append_plan, prefill_plan, read_plan, tasks_of
from tradefm_gym.model.numba_sampling import (
    Draw,
    Head,
    kind_log_prob_rows,
    log_prob_rows,
    pack_tables,
    sample_rows,
    sample_rows_moved,
    sample_rows_moved_parallel,
    sample_rows_parallel,
    sample_rows_penalised,
    work_size,
)
from tradefm_gym.model.vectors import DISABLE_JIT, LANES
from tradefm_gym.threads import thread_count, together

SERIAL_SAMPLES = 127  # so few rows are drawn in the calling thread


class NumbaEngine:
    """Engine for models of a few million parameters, fp32 on CPU threads; see `engine_protocol.Engine`.

    It uses as many threads as Numba may (`numba.set_num_threads`), see `threads`.

    Attributes:
        config: the network's shape.
        batch: B.
        context: T.
        vocabulary: V.
        lengths: (B,) int32, tokens in each row's cache; read only.
    """

    def __init__(self, config: ModelConfig, weights: Mapping[str, NDArray[np.float32]], batch: int):
        """Packs a copy of the weights and allocates the rows.

        Args:
            config: the network's shape; heads must be a multiple of 16 wide.
            weights: by the names of `config.parameter_shapes`.
            batch: number of rows, at least 1.
        """
        self._limits = EngineLimits(batch, config.context, config.input_sizes)
        if config.attention_width % LANES:
            raise ValueError(
                f"width / heads is {config.attention_width}; the Numba engine allows multiples of {LANES} (use torch's)"
            )
        expected = parameter_shapes(config)
        if {name: np.shape(values) for name, values in weights.items()} != expected:
            raise ValueError("weights do not have the names and shapes of the config; see parameter_shapes(config)")
        self.config, self.batch = config, batch
        self._input_sizes = np.array(config.input_sizes, np.int64)
        self.context, self.vocabulary = config.context, config.vocabulary
        units = -(-config.head_width // LANES) * LANES
        self._shape = _shape(config, units)
        self._weights = _pack_weights(config, self._shape, weights, units)
        tables = pack_tables(dict(weights), units) if units else np.zeros(0, np.float32)
        self._head = Head(units > 0, units, self._shape.head_stride, _aligned_copy(tables))
        self._state = _empty_state(self._shape, batch)
        self.lengths = np.zeros(batch, np.int32)
        self._seen = np.zeros((batch, self.context), np.int32)  # the tokens in each row's cache
        self._places = np.zeros((3, batch), np.int64)  # of events to append: source, row and position
        self._scratch: dict[int, NDArray[np.float32]] = {}  # work space by number of threads
        self._append_plans: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._work_size = work_size(units) if units else VOCABULARY
        self._work = _aligned(batch * self._work_size)
        self._kinds = np.zeros((2, batch, KINDS), np.float32)  # log-probabilities, and what is added
        self._joint_work: NDArray[np.float32] | None = None  # (B x V) and more: only the repetition penalty needs it

    @classmethod
    def from_checkpoint(cls, folder: str | Path, batch: int) -> "NumbaEngine":
        """Loads a checkpoint folder."""
        config, weights = load_weights(folder)
        return cls(config, weights, batch)

    def reset(self, rows: NDArray[np.bool_]) -> None:
        """Empties the caches of the rows where `rows` (B,) is true."""
        self.lengths[self._limits.mask("rows", rows)] = 0

    def prefill(
        self,
        rows: int | Sequence[int] | NDArray[np.integer],
        inputs: NDArray[np.integer] | Sequence[NDArray[np.integer]],
    ) -> None:
        """Replaces the caches of `rows` by the events given, (S, 4) for a single row or one (S, 4) a row."""
        targets, prompts = self._limits.prompts(rows, inputs)
        if not prompts:
            return
        sizes = np.array([len(prompt) for prompt in prompts], np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))
        events = np.ascontiguousarray(np.concatenate(prompts), np.int32)
        sources = np.arange(starts[-1])
        positions = sources - np.repeat(starts[:-1], sizes)
        owners = np.repeat(targets, sizes)
        self._run(events, sources, owners, positions, *prefill_plan(starts, thread_count()))
        self._seen[owners, positions] = events[:, 3]
        self.lengths[targets] = sizes

    def append(self, inputs: NDArray[np.integer], active: NDArray[np.bool_]) -> None:
        """Adds one event, `inputs` (B, 4), to the rows where `active` (B,) is true."""
        active = self._limits.mask("active", active)
        inputs = self._limits.events(inputs)
        if inputs.dtype != np.int32:  # the cast would bring what is out of range into it
            self._limits.in_range(inputs, active)
        inputs = np.ascontiguousarray(inputs, np.int32)
        count = self._admit(inputs[:, None], active.astype(np.int64))
        if count < 0:  # the kernel found what these name
            self._limits.has_room(active, self.lengths)
            self._limits.in_range(inputs, active)
        self._append(inputs, count, None)

    def extend(self, inputs: NDArray[np.integer], counts: NDArray[np.integer]) -> None:
        """Adds the first `counts` (B,) events of `inputs` (B, K, 4) to each row, in order."""
        inputs, counts = self._limits.several(inputs, counts)
        if inputs.dtype != np.int32:  # as in ``append``
            self._limits.several_in_range(inputs, counts)
        inputs = np.ascontiguousarray(inputs, np.int32)
        before = self.lengths.copy()
        count = self._admit(inputs, counts)
        if count < 0:
            self._limits.has_room_for(counts, self.lengths)
            self._limits.several_in_range(inputs, counts)
        self._append(inputs.reshape(-1, 4), count, before)

    def read(
        self,
        rows: NDArray[np.int64],
        begins: NDArray[np.int64],
        counts: NDArray[np.int64],
        events: NDArray[np.int32],
        then: Callable[[NDArray[np.int64]], None],
    ) -> None:
        """Has rows read events from given positions on, some perhaps anew from 0, and what is to follow with each.

        Args:
            rows: (k,), all different.
            begins: (k,), the position of each row's first event, at most its length: what lies there is replaced.
            counts: (k,), events of each row, 0 for one that needs no more than what follows.
            events: (n, 4), those of one row after the other; there may be more.
            then: called with some of the rows once they can be drawn from: with each row once, in any order, in this
                thread or in a helper's while others still read.
        """
        most = int(counts.sum())
        if self._places.shape[1] < most:
            self._places = np.zeros((3, most), np.int64)
        sizes, lengths, b = self._input_sizes, self.lengths, self.batch
        fault = -1 - admit_reads(events, sizes, rows, begins, counts, lengths, self.context, self._seen, self._places)
        if fault >= 0:
            said = ("needs more room", "has an event out of range", "is empty")[fault // b]
            raise ValueError(f"rows has row {fault % b}, which {said}")
        tiles, starts, firsts = read_plan(counts)
        turns = itertools.count()  # each number to one thread only
        network, places, size = (self._shape, self._weights, self._state), self._places, scratch_size(self._shape)
        threads = max(1, min(thread_count(), starts.size - 1))
        scratch = self._room(threads)

        def work(thread: int) -> None:
            while (task := next(turns)) < starts.size - 1:
                mine, counter = starts[task : task + 2], np.zeros(1, np.int64)
                run_tiles(*network, events, *places, tiles, mine, counter, scratch, thread * size)
                then(rows[firsts[task] : firsts[task + 1]])

        together(work, threads)

    @property
    def draw(self) -> Draw:
        """What `numba_sampling.draw_row` draws from, for callers that draw in what follows a `read`."""
        untilted = np.zeros((0, KINDS), np.float32)
        return Draw(self._head, self._state.head, *self._kinds, untilted, self._work, self._work_size)

    def _admit(self, inputs: NDArray[np.int32], counts: NDArray[np.int64]) -> int:
        if self._places.shape[1] < inputs.shape[0] * inputs.shape[1]:
            self._places = np.zeros((3, inputs.shape[0] * inputs.shape[1]), np.int64)
        return admit(inputs, self._input_sizes, counts, self.lengths, self.context, self._seen, *self._places)

    def _append(self, inputs: NDArray[np.int32], count: int, before: NDArray[np.int32] | None) -> None:
        """Appends the `count` events listed in `_places`; `before` (B,) are the lengths, None with one event a row."""
        if count == 0:
            return
        tasks = tasks_of(count)
        if before is None or int((self.lengths - before).max()) == 1:
            if (count, tasks) not in self._append_plans:
                self._append_plans[count, tasks] = append_plan(count, tasks, np.arange(count))
            plan = self._append_plans[count, tasks]
        else:
            rows, positions = self._places[1, :count], self._places[2, :count]
            plan = append_plan(count, tasks, np.flatnonzero(positions == before[rows]))
        self._run(inputs, *self._places, *plan)

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
        tilt = self._limits.tilt(tilt, active)
        bits = self._limits.draws(bits, active, self.lengths, temperature, repetition_penalty)
        tokens = np.empty(self.batch, np.int32)
        scale, outputs = np.float32(1 / temperature), self._state.head
        if repetition_penalty > 1:
            size = VOCABULARY + self._work_size
            if self._joint_work is None:
                self._joint_work = _aligned(self.batch * size)
            penalty, work = np.float32(repetition_penalty), self._joint_work
            sample_rows_penalised(
                self._head, outputs, active, bits, scale, penalty, tilt, self._seen, self.lengths, work, size, tokens
            )
            return tokens
        draw = sample_rows if self.batch <= SERIAL_SAMPLES else sample_rows_parallel
        draw(self._head, outputs, active, bits, scale, tilt, self._work, self._work_size, tokens)
        return tokens

    def start_sample(
        self, bits: NDArray[np.uint32], active: NDArray[np.bool_], temperature: float, moves: Moves
    ) -> Callable[[], tuple[NDArray[np.int32], NDArray[np.float64]]]:
        """Draws, tilted by what `moves` asks for; returns what gives the tokens (B,) and strengths (B, 2)."""
        active, moves = self._limits.mask("active", active), self._limits.moves(moves)
        bits = self._limits.draws(bits, active, self.lengths, temperature, 1.0)
        tokens, strength = np.empty(self.batch, np.int32), np.ones((self.batch, 2))
        draw = sample_rows_moved if self.batch <= SERIAL_SAMPLES else sample_rows_moved_parallel
        draw(
            self._head, self._state.head, active, bits, np.float32(1 / temperature), moves, *self._kinds, strength,
            self._work, self._work_size, tokens,
        )  # fmt: skip
        return lambda: (tokens, strength)

    def kind_log_prob(self, active: NDArray[np.bool_], temperature: float = 1.0) -> NDArray[np.float32]:
        """Natural log-probabilities (B, 64) of the kind of each active row's next event."""
        active = self._limits.ready(active, self.lengths, temperature)
        result, scale = np.zeros((self.batch, KINDS), np.float32), np.float32(1 / temperature)
        kind_log_prob_rows(self._head, self._state.head, active, scale, self._work, self._work_size, result)
        return result

    def log_prob(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Natural log-probability (B,) of `tokens` (B,) as the next token of each row."""
        tokens = self._limits.tokens(tokens)
        result = np.empty(self.batch, np.float32)
        log_prob_rows(self._head, self._state.head, tokens, self._work, result)
        return result

    def copy_rows(self, sources: NDArray[np.integer], targets: NDArray[np.integer]) -> None:
        """Copies the state of row sources[i] over that of row targets[i]; no row may be both."""
        sources, targets = self._limits.copies(sources, targets)
        for array in (*self._state, self._seen, self.lengths):
            by_row = array.reshape(self.batch, -1)
            by_row[targets] = by_row[sources]

    def export_row(self, row: int) -> RowCache:
        """Returns a copy of one row's state."""
        self._limits.rows("row", row)
        length = self.lengths[row]
        keys, values = self._caches(row)
        keys = keys.swapaxes(-1, -2).reshape(values.shape)  # (L, G, panels, d, PANEL) -> (L, G, T', d)
        hidden = self._state.hidden.reshape(self.batch, -1)[row, : self.config.width]
        return RowCache(
            keys[:, :, :length].copy(), values[:, :, :length].copy(), self._seen[row, :length].copy(), hidden.copy()
        )

    def import_row(self, row: int, cache: RowCache) -> None:
        """Replaces one row's state by a copy of `cache`."""
        self._limits.rows("row", row)
        config = self.config
        length = self._limits.cache(cache, config.layers, config.kv_heads, config.heads, config.width)
        keys, values = self._caches(row)
        padded = np.zeros_like(values)
        padded[:, :, :length] = cache.keys
        keys[:] = padded.reshape(*keys.shape[:3], PANEL, -1).swapaxes(-1, -2)
        values[:, :, :length] = cache.values
        self._seen[row, :length] = cache.tokens
        self.lengths[row] = length
        if length:
            stride = self._shape.width_stride
            scratch = _aligned(stride + self._shape.head_stride)  # hidden state, then the head's outputs
            scratch[: self.config.width] = cache.hidden
            rows = np.array([row], np.int64)
            read_heads(self._shape, self._weights, self._state, rows, 0, 1, scratch, 0, stride)

    def _run(self, inputs, sources, rows, positions, tiles, starts) -> None:
        threads, size = max(1, min(thread_count(), starts.size - 1)), scratch_size(self._shape)
        scratch, counter = self._room(threads), np.zeros(1, np.int64)
        shape, weights, state = self._shape, self._weights, self._state

        def work(thread: int) -> None:
            s0 = thread * size
            run_tiles(shape, weights, state, inputs, sources, rows, positions, tiles, starts, counter, scratch, s0)

        together(work, threads)

    def _room(self, threads: int) -> NDArray[np.float32]:
        if threads not in self._scratch:
            self._scratch[threads] = _aligned(threads * scratch_size(self._shape))
        return self._scratch[threads]

    def _caches(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Views of one row's keys (L, G, panels, d, PANEL) and values (L, G, T', d)."""
        shape = self._shape
        lead = (self.batch, shape.layers, shape.kv_heads)
        keys = self._state.keys.reshape(*lead, -1, shape.head_width, PANEL)[row]
        return keys, self._state.values.reshape(*lead, -1, shape.head_width)[row]


def _shape(config: ModelConfig, units: int) -> Shape:
    return Shape(
        layers=config.layers,
        width=config.width,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_width=config.attention_width,
        feed=config.feed_width,
        flags=config.input_sizes[1],
        context_stride=whole_panels(config.context),
        width_stride=whole_panels(config.width),
        query_stride=whole_panels(config.width),
        key_value_stride=whole_panels(2 * config.kv_heads * config.attention_width),
        feed_stride=whole_panels(config.feed_width),
        head_stride=whole_panels(len(DIGIT_SIZES) * units) if units else config.vocabulary,
        norm_eps=np.float32(config.norm_eps),
    )


def _empty_state(shape: Shape, batch: int) -> State:
    caches = batch * shape.layers * shape.kv_heads * shape.context_stride * shape.head_width
    # zeros, not garbage: attention multiplies the unused rest of a panel by zero, which must stay zero
    return State(
        _aligned(caches), _aligned(caches), _aligned(batch * shape.width_stride), _aligned(batch * shape.head_stride)
    )


def _pack_weights(config: ModelConfig, shape: Shape, weights: Mapping[str, NDArray], units: int) -> Weights:
    layers = _aligned(config.layers * layer_size(shape))
    at = 0
    for layer in range(config.layers):
        for part in _layer_panels(config, shape, weights, f"layers.{layer}."):
            layers[at : at + part.size] = part
            at += part.size
    head = weights["head.hidden.weight"] if units else weights["head.weight"]
    if units:
        padded = np.zeros((len(DIGIT_SIZES), units, config.width), np.float32)
        padded[:, : config.head_width] = head.reshape(len(DIGIT_SIZES), config.head_width, -1)
        head = padded.reshape(-1, config.width)
    events, conditions, levels = _input_tables(config, shape, weights)
    norm = _aligned(shape.width_stride)
    norm[: config.width] = weights["norm.weight"]
    return Weights(layers, _aligned_copy(pack_panels(head)), events, conditions, levels, norm, _angles(config))


def _layer_panels(config: ModelConfig, shape: Shape, weights: Mapping[str, NDArray], name: str) -> list[NDArray]:
    """One layer's matrices in the order of `numba_kernels.Weights.layers`, norms and score scale folded in."""
    attention, feed = weights[name + "attention_norm.weight"], weights[name + "feed_norm.weight"]
    key, value = weights[name + "attention.key.weight"], weights[name + "attention.value.weight"]
    score_scale = np.float32(config.attention_width**-0.5)
    gate_up = np.zeros((2, shape.feed_stride, config.width), np.float32)
    gate_up[0, : config.feed_width] = weights[name + "feed.gate.weight"] * feed
    gate_up[1, : config.feed_width] = weights[name + "feed.up.weight"] * feed
    return [
        pack_panels(np.concatenate((key, value)) * attention),
        pack_panels(weights[name + "attention.query.weight"] * attention * score_scale),
        pack_panels(weights[name + "attention.output.weight"]),
        pack_panels(gate_up.reshape(-1, config.width)),
        pack_panels(weights[name + "feed.down.weight"]),
    ]


def _input_tables(config: ModelConfig, shape: Shape, weights: Mapping[str, NDArray]) -> tuple[NDArray, ...]:
    """Embeddings times their share of the projection, summed: one row a token, one a (liquidity, flag), one a level."""
    projected = {}
    parts = np.split(weights["embed.project.weight"], len(config.embedding_tables), axis=1)
    for name, part in zip(config.embedding_tables, parts, strict=True):
        projected[name] = _product(weights[f"embed.{name}.weight"], part, shape.width_stride)
    liquidity, flag, level = (projected[name] for name in INPUT_NAMES[:3])
    conditions = liquidity[:, None] + flag  # (liquidities, flags, D)
    events = projected["token"]
    if config.digit_embeddings:
        tokens = np.arange(config.vocabulary)
        for digit, (stride, size) in enumerate(zip(DIGIT_STRIDES, DIGIT_SIZES, strict=True)):
            events = events + projected[f"digits.{digit}"][tokens // stride % size]
    return tuple(_aligned_copy(table.ravel()) for table in (events, conditions, level))


def _product(table: NDArray[np.float32], matrix: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """Table (n, E) times matrix (D, E) transposed: by our own kernel, as a BLAS would round by its own CPU's taste."""
    rows, depth = table.shape
    if DISABLE_JIT:  # plain Python would take seconds over the token table
        return np.pad(table @ matrix.T, ((0, 0), (0, stride - len(matrix))))
    out = _aligned(rows * stride)
    table = np.array(table, np.float32).ravel()
    multiply_matrix(table, 0, depth, rows, _aligned_copy(pack_panels(matrix)), 0, depth, stride, out, 0, stride)
    return out.reshape(rows, stride)


def _angles(config: ModelConfig) -> NDArray[np.float32]:
    """Rotary cosines, then sines, of each position: flat (T, head width)."""
    pairs = np.arange(0, config.attention_width, 2) / config.attention_width
    angles = np.arange(config.context)[:, None] * config.rope_base**-pairs
    return _aligned_copy(np.concatenate((np.cos(angles), np.sin(angles)), axis=1).ravel())


def _aligned(size: int) -> NDArray[np.float32]:
    """Float32 zeros that begin on a cache line: a vector load across two lines costs twice."""
    memory = np.zeros(size + 16, np.float32)
    skip = -memory.ctypes.data % 64 // memory.itemsize
    return memory[skip : skip + size]


def _aligned_copy(values: NDArray) -> NDArray[np.float32]:
    copy = _aligned(values.size)
    copy[:] = values
    return copy
