"""What a serving engine is: purely token ids in, token ids out.

Two engines share this contract: `numba_engine` (small models, no torch) and `engine` (torch, any size). An engine
holds B rows, each with its own key/value cache; it knows no market, no tokenizer and no agent.

Sampling is defined here once, by integers, so that the order in which a device sums probabilities cannot decide which
token is drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tradefm_gym.arguments import numbers, shortened
from tradefm_gym.model.config import DIGIT_SIZES, INPUT_NAMES
from tradefm_gym.model.corrections import KINDS, Moves

PROBABILITY_ONE = 1 << 30  # probability 1 as an integer
LEAST_TEMPERATURE = 1e-6  # by which logits can be divided without leaving float32
_LARGEST = float(np.finfo(np.float32).max)


class RowCache(NamedTuple):
    """The state of one engine row, detached: what a context bank stores and a fork copies.

    `S` is the number of tokens in the cache.
    """

    keys: NDArray[np.float32]  # (L, kv heads, S, head width), rotary positions already applied
    values: NDArray[np.float32]  # (L, kv heads, S, head width)
    tokens: NDArray[np.int32]  # (S,) trade tokens, for the repetition penalty
    hidden: NDArray[np.float32]  # (width,) last hidden state, after the final norm


class Engine(Protocol):
    """Batched serving with one key/value cache and one length a row.

    A row's results never depend on the batch size, on its neighbours or on the thread count of the CPU engine; the
    torch engine promises this for a fixed (device, dtype, batch, library) only.
    """

    batch: int  # B, fixed at construction
    context: int  # T, tokens that a row can hold
    vocabulary: int  # V
    lengths: NDArray[np.int32]  # (B,) tokens in each row's cache; read only

    def reset(self, rows: NDArray[np.bool_]) -> None:
        """Empties the caches of the rows where `rows` (B,) is true."""
        ...

    def prefill(
        self,
        rows: int | Sequence[int] | NDArray[np.integer],
        inputs: NDArray[np.integer] | Sequence[NDArray[np.integer]],
    ) -> None:
        """Replaces the caches of some rows by the events given; their last hidden state is then ready for sampling.

        Args:
            rows: a row index, or several different ones.
            inputs: for a single row (S, 4), else one (S, 4) array a row, 1 <= S <= T: liquidity, flag, level, token.

        Raises:
            ValueError: a row twice or out of range, an empty or too long prompt, an input out of range.
        """
        ...

    def append(self, inputs: NDArray[np.integer], active: NDArray[np.bool_]) -> None:
        """Adds one event, `inputs` (B, 4), to the rows where `active` (B,) is true.

        Raises:
            ValueError: an active row is full (prefill it with its last events first) or an input is out of range;
                nothing has changed then.
        """
        ...

    def extend(self, inputs: NDArray[np.integer], counts: NDArray[np.integer]) -> None:
        """Adds several events to each row in one call: as ``append``, one after another.

        The Numba engine gives the same bits either way, the torch engine the same up to rounding.

        Args:
            inputs: (B, K, 4), a row's events in order.
            counts: (B,) integers from 0 to K, how many of them there are.

        Raises:
            ValueError: a row has no room for all of its events or an input is out of range; nothing has changed then.
        """
        ...

    def sample(
        self,
        bits: NDArray[np.uint32],
        active: NDArray[np.bool_],
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
        tilt: NDArray[np.float32] | None = None,
    ) -> NDArray[np.int32]:
        """Draws the next token of each active row from its last hidden state; changes nothing.

        Args:
            bits: (B, 5) random words. A factored head uses one a digit, a joint head the first only.
            active: (B,) rows to draw; the others return -1 and must not be used.
            temperature: divides the logits (of each digit, for a factored head); at least 1e-6.
            repetition_penalty: multiplies the log-probability of every token found in the row's cache, over the joint
                distribution of all V tokens whichever head the model has (so it then uses the first word only).
                1 = off.
            tilt: (B, 64) added to the log-probability of each (action, side, depth) after temperature and penalty,
                whereupon the distribution is normalised again. Finite, or -inf where a kind is ruled out, for an
                active row not everywhere. None = off.

        Returns:
            (B,) tokens.
        """
        ...

    def start_sample(
        self, bits: NDArray[np.uint32], active: NDArray[np.bool_], temperature: float, moves: Moves
    ) -> Callable[[], tuple[NDArray[np.int32], NDArray[np.float64]]]:
        """Begins to draw as ``sample`` does, tilted by what ``moves`` and the probabilities make of each other.

        On a GPU this returns while the device still works; what is appended or drawn meanwhile comes after it.

        Args:
            bits: as in ``sample``.
            active: likewise.
            temperature: likewise.
            moves: B rows of what a flow asks for, see ``corrections``.

        Returns:
            What waits for the result: tokens (B,), and strengths (B, 2), by which the odds of taking liquidity grew.
        """
        ...

    def kind_log_prob(self, active: NDArray[np.bool_], temperature: float = 1.0) -> NDArray[np.float32]:
        """Natural log-probabilities (B, 64) of the next event's kind (action, side, depth) in each active row.

        The other rows hold nothing of use. The array is the caller's.
        """
        ...

    def log_prob(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Natural log-probability (B,) of `tokens` (B,) as the next token of each row; for tests and diagnosis."""
        ...

    def copy_rows(self, sources: NDArray[np.integer], targets: NDArray[np.integer]) -> None:
        """Copies the state of row sources[i] over that of row targets[i]; no row may be both."""
        ...

    def export_row(self, row: int) -> RowCache:
        """Returns a copy of one row's state."""
        ...

    def import_row(self, row: int, cache: RowCache) -> None:
        """Replaces one row's state by a copy of `cache`.

        It continues bit for bit in an engine of the same kind (the torch engine: of the same batch, in the same row).
        """
        ...


@dataclass(frozen=True)
class EngineLimits:
    """What an engine takes: the checks that all engines share. Each raises a ``ValueError`` that names its argument."""

    batch: int  # B
    context: int  # T
    input_sizes: tuple[int, ...]  # values of each of the four input columns; the last one is V

    def __post_init__(self) -> None:
        if not isinstance(self.batch, (int, np.integer)) or isinstance(self.batch, bool) or self.batch < 1:
            raise ValueError(f"batch is {shortened(self.batch)}; allowed is a positive integer")

    def mask(self, name: str, mask: Any) -> NDArray[np.bool_]:
        """A boolean array (B,), C-contiguous."""
        mask = np.ascontiguousarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (self.batch,):
            raise ValueError(f"{name} is {mask.dtype} {mask.shape}; allowed is bool {(self.batch,)}")
        return mask

    def rows(self, name: str, rows: Any) -> NDArray[np.int64]:
        """Different row indices (k,); a single one becomes (1,)."""
        array = numbers(rows)
        if array is None or array.ndim > 1 or (array.size and array.dtype.kind == "f"):  # an empty list becomes floats
            raise ValueError(f"{name} is {shortened(rows)}; allowed are different integers in [0, {self.batch})")
        array = np.atleast_1d(array)
        if (array < 0).any() or (array >= self.batch).any() or np.unique(array).size != array.size:
            raise ValueError(f"{name} is {shortened(rows)}; allowed are different integers in [0, {self.batch})")
        return array.astype(np.int64)

    def prompts(self, rows: Any, inputs: Any) -> tuple[NDArray[np.int64], list[NDArray]]:
        """Row indices (k,) and as many prompts (S, 4)."""
        targets = self.rows("rows", rows)
        if np.ndim(rows) == 0:
            inputs = [inputs]
        try:
            listed = list(inputs)
        except TypeError:
            raise ValueError(f"inputs is {shortened(inputs)}; allowed is one array (S, 4) a row") from None
        prompts = [self._integers(prompt) for prompt in listed]
        if len(prompts) != targets.size:
            raise ValueError(f"inputs holds {len(prompts)} prompts for {targets.size} rows; allowed is one a row")
        for prompt in prompts:
            if prompt.ndim != 2 or prompt.shape[1] != 4 or not 1 <= len(prompt) <= self.context:
                raise ValueError(f"inputs has shape {prompt.shape}; allowed is (S, 4) with 1 <= S <= {self.context}")
        if prompts and self._wrong(np.concatenate(prompts)).any():  # thousands of rows are refilled at once
            for prompt in prompts:
                self.in_range(prompt)
        return targets, prompts

    def events(self, inputs: Any) -> NDArray[np.integer]:
        """One event a row (B, 4); whether those of active rows are in range is for ``in_range``."""
        inputs = self._integers(inputs)
        if inputs.shape != (self.batch, 4):
            raise ValueError(f"inputs has shape {inputs.shape}; allowed is {(self.batch, 4)}")
        return inputs

    def several(self, inputs: Any, counts: Any) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """Events (B, K, 4), and how many of them each row gets (B,), C-contiguous; see ``several_in_range``."""
        inputs, array = self._integers(inputs), numbers(counts, "iu")
        if inputs.ndim != 3 or inputs.shape[::2] != (self.batch, 4):
            raise ValueError(f"inputs has shape {inputs.shape}; allowed is ({self.batch}, K, 4)")
        most = inputs.shape[1]
        if array is None or array.shape != (self.batch,) or (array < 0).any() or (array > most).any():
            raise ValueError(f"counts is {shortened(counts)}; allowed are {self.batch} integers in [0, {most}]")
        return inputs, np.ascontiguousarray(array, np.int64)

    def several_in_range(self, inputs: NDArray[np.integer], counts: NDArray[np.int64]) -> None:
        """Events (B, K, 4) of which the first ``counts`` (B,) of each row are in range."""
        for j in range(int(counts.max(initial=0))):
            self.in_range(inputs[:, j], counts > j)

    def has_room_for(self, counts: NDArray[np.int64], lengths: NDArray[np.int32]) -> None:
        """Rows that can take ``counts`` (B,) more events."""
        if (short := (counts > 0) & (lengths + counts > self.context)).any():
            row = int(np.argmax(short))
            raise ValueError(
                f"counts has {counts[row]} for row {row}, which holds {lengths[row]} of {self.context} tokens; "
                f"allowed is at most {self.context - lengths[row]}"
            )

    def in_range(self, inputs: NDArray[np.integer], active: NDArray[np.bool_] | None = None) -> None:
        """Events (n, 4) of which each column lies within its size; of rows where ``active`` (B,) is true, if given."""
        wrong = self._wrong(inputs)
        if active is not None:
            wrong &= active
        if wrong.any():
            first = int(np.argmax(wrong))
            said = f"is out of range, event {first} being" if active is None else f"of row {first} is"
            sizes = ", ".join(f"{name} {size}" for name, size in zip(INPUT_NAMES, self.input_sizes, strict=True))
            raise ValueError(f"inputs {said} {inputs[first].tolist()}; allowed is below {sizes}")

    def has_room(self, active: NDArray[np.bool_], lengths: NDArray[np.int32]) -> None:
        """Active rows that can take one more event."""
        if (full := active & (lengths >= self.context)).any():
            row = int(np.argmax(full))
            raise ValueError(f"active has row {row}, which is full ({self.context} tokens); prefill it first")

    def draws(
        self, bits: Any, active: NDArray[np.bool_], lengths: NDArray[np.int32], temperature: float, penalty: float
    ) -> NDArray[np.uint32]:
        """Random words (B, 5), C-contiguous, for active rows that hold something to draw from."""
        words = np.ascontiguousarray(bits)
        if words.shape != (self.batch, len(DIGIT_SIZES)):
            raise ValueError(f"bits has shape {words.shape}; allowed is {(self.batch, len(DIGIT_SIZES))}")
        if words.dtype != np.uint32:
            raise ValueError(f"bits has dtype {words.dtype}; allowed is uint32")
        if not _is_number(penalty) or not 1 <= penalty < np.inf:
            raise ValueError(f"repetition_penalty is {shortened(penalty)}; allowed is 1 or more")
        self.ready(active, lengths, temperature)
        return words

    def ready(self, active: Any, lengths: NDArray[np.int32], temperature: float) -> NDArray[np.bool_]:
        """A mask (B,) of rows that hold something to predict from, at a temperature that can be."""
        active = self.mask("active", active)
        if not _is_number(temperature) or not LEAST_TEMPERATURE <= temperature <= _LARGEST:
            raise ValueError(
                f"temperature is {shortened(temperature)}; allowed is a positive number of at least "
                f"{LEAST_TEMPERATURE:g} and finite in float32"
            )
        if (empty := active & (lengths == 0)).any():
            row = int(np.argmax(empty))
            raise ValueError(f"active has row {row}, which is empty; prefill it or append to it first")
        return active

    def tilt(self, tilt: Any, active: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What is added to the log-probabilities of the kinds of event (B, KINDS), C-contiguous; none is (0, KINDS).

        In active rows it is finite, or minus infinity for some kinds but not for all.
        """
        if tilt is None:
            return np.zeros((0, KINDS), np.float32)
        array = np.ascontiguousarray(tilt)
        if array.dtype != np.float32 or array.shape != (self.batch, KINDS):
            raise ValueError(f"tilt is {array.dtype} {array.shape}; allowed is float32 {(self.batch, KINDS)}, or None")
        sound = (array < np.inf).all(1) & (array > -np.inf).any(1)  # NaN is neither
        if (wrong := active & ~sound).any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"tilt of row {row} is {shortened(array[row])}, of which {int(np.isfinite(array[row]).sum())} are "
                f"finite; allowed are finite numbers and -inf, not all of them -inf"
            )
        return array

    def moves(self, moves: Any) -> Moves:
        """B rows of Moves, float64."""
        wanted = Moves.none(0)
        if not isinstance(moves, Moves) or any(
            array.dtype != np.float64 or array.shape != (self.batch, *like.shape[1:])
            for array, like in zip(moves, wanted, strict=True)
        ):
            raise ValueError(f"moves is {shortened(moves)}; allowed are Moves of {self.batch} rows, float64")
        return moves

    def tokens(self, tokens: Any) -> NDArray[np.int64]:
        """One token a row (B,), C-contiguous."""
        array, vocabulary = numbers(tokens, "iu"), self.input_sizes[-1]
        if array is None or array.shape != (self.batch,) or (array < 0).any() or (array >= vocabulary).any():
            raise ValueError(f"tokens is {shortened(tokens)}; allowed are {self.batch} integers in [0, {vocabulary})")
        return np.ascontiguousarray(array, np.int64)

    def copies(self, sources: Any, targets: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to copy from and, as many, rows to copy to; no row is both."""
        to, origins = self.rows("targets", targets), numbers(sources)
        if origins is None or np.atleast_1d(origins).shape != to.shape or np.isin(origins, to).any():
            raise ValueError(
                f"sources is {shortened(sources)}; allowed is one row for each target, none of them a target"
            )
        self.rows("sources", np.unique(origins))
        return np.atleast_1d(origins).astype(np.int64), to

    def cache(self, cache: RowCache, layers: int, kv_heads: int, heads: int, width: int) -> int:
        """A detached row that fits a network of ``heads`` and ``width``; returns how many tokens it holds."""
        if not isinstance(cache, RowCache):
            raise ValueError(f"cache is {shortened(cache)}; allowed is a RowCache")
        tokens, vocabulary = numbers(cache.tokens, "iu"), self.input_sizes[-1]
        if tokens is None or tokens.ndim != 1 or (tokens < 0).any() or (tokens >= vocabulary).any():
            said = f"cache has tokens {shortened(cache.tokens)}"
            raise ValueError(f"{said}; allowed are integers (length,) in [0, {vocabulary})")
        length = len(tokens)
        expected = (layers, kv_heads, length, width // heads)
        shapes = np.shape(cache.keys), np.shape(cache.values)
        if length > self.context or shapes != (expected, expected):
            raise ValueError(
                f"cache has keys of shape {shapes[0]} and values of shape {shapes[1]} for {length} tokens; this engine "
                f"allows {expected} and at most {self.context} tokens"
            )
        if np.shape(cache.hidden) != (width,):
            raise ValueError(f"cache has a hidden state of shape {np.shape(cache.hidden)}; allowed is {(width,)}")
        for name in ("keys", "values", "hidden"):
            array = numbers(getattr(cache, name), "f")
            if array is None or not (np.abs(array) <= _LARGEST).all():  # also where it is no number
                raise ValueError(f"cache has {name} that are no finite numbers of float32; allowed is nothing else")
        return length

    def _wrong(self, inputs: NDArray[np.integer]) -> NDArray[np.bool_]:
        wrong = np.zeros(len(inputs), np.bool_)
        for column, size in zip(inputs.T, self.input_sizes, strict=True):
            wrong |= (column < 0) | (column >= size)
        return wrong

    def _integers(self, inputs: Any) -> NDArray[np.integer]:
        array = numbers(inputs, "iu")
        if array is None:
            raise ValueError(f"inputs is {shortened(inputs)}; allowed are integers")
        return array


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def integer_weights(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Turns probabilities (..., n) into int64 weights: x 2^30, rounded to the nearest (half up)."""
    scaled = np.asarray(probabilities, np.float64) * PROBABILITY_ONE
    return np.floor(scaled + 0.5).astype(np.int64)


def sample_integers(probabilities: NDArray[np.floating], bits: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Draws an index a row: the first whose cumulative weight exceeds (bits x total) >> 32.

    This is the definition; engines may compute it otherwise, but to the same index.

    Args:
        probabilities: (B, n) float32, each row summing to about one.
        bits: (B,) uint32 random words.

    Returns:
        (B,) int64 indices.
    """
    cumulative = np.cumsum(integer_weights(probabilities), axis=-1)
    # bits < 2^32 and total < 2^31, so the product fits 63 bits
    threshold = (np.asarray(bits, np.int64) * cumulative[..., -1]) >> 32
    return (cumulative > threshold[..., None]).argmax(axis=-1)
