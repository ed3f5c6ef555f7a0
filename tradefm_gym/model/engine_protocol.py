"""What a serving engine is: purely token ids in, token ids out.

Two engines share this contract: `numba_engine` (small models, no torch) and `engine` (torch, any size). An engine
holds B rows, each with its own key/value cache; it knows no market, no tokenizer and no agent.

Sampling is defined here once, by integers, so that the order in which a device sums probabilities cannot decide which
token is drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

PROBABILITY_ONE = 1 << 30  # probability 1 as an integer


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

    def sample(
        self,
        bits: NDArray[np.uint32],
        active: NDArray[np.bool_],
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
    ) -> NDArray[np.int32]:
        """Draws the next token of each active row from its last hidden state; changes nothing.

        Args:
            bits: (B, 5) random words. A factored head uses one a digit, a joint head the first only.
            active: (B,) rows to draw; the others return -1 and must not be used.
            temperature: divides the logits (of each digit, for a factored head).
            repetition_penalty: multiplies the log-probability of every token found in the row's cache, over the joint
                distribution of all V tokens whichever head the model has (so it then uses the first word only).
                1 = off.

        Returns:
            (B,) tokens.
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
        """Replaces one row's state by a copy of `cache`; continues bit for bit in an engine of the same kind."""
        ...


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
