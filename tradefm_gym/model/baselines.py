"""Likelihood baselines over trade tokens: what a model has to beat to have learned anything.

Each returns nats per event on a list of token sequences; free weights are fitted on training tokens
(and chosen on validation tokens), never on what is scored.
"""

import numpy as np

from tradefm_gym.model.config import VOCABULARY

_WEIGHTS = np.concatenate([np.linspace(0.01, 0.99, 50), [0.995, 0.999]])


class Unigram:
    """Token frequencies, mixed with the uniform distribution by add-``alpha`` smoothing."""

    def __init__(self, train: list[np.ndarray], alpha: float = 0.1):
        counts = np.bincount(np.concatenate(train), minlength=VOCABULARY) + alpha
        self.probabilities = counts / counts.sum()

    def nats(self, sequences: list[np.ndarray]) -> float:
        """Mean negative log-likelihood of all but each sequence's first token."""
        tokens = np.concatenate([s[1:] for s in sequences])
        return float(-np.log(self.probabilities[tokens]).mean())


class CopyPrevious:
    """With some probability the previous token again, else a unigram draw."""

    def __init__(self, train: list[np.ndarray], validation: list[np.ndarray]):
        self.unigram = Unigram(train)
        self.weight = 0.0
        scores = [self._nats(validation, w) for w in _WEIGHTS]
        self.weight = float(_WEIGHTS[int(np.argmin(scores))])

    def nats(self, sequences: list[np.ndarray]) -> float:
        """Mean negative log-likelihood of all but each sequence's first token."""
        return self._nats(sequences, self.weight)

    def _nats(self, sequences, weight) -> float:
        previous = np.concatenate([s[:-1] for s in sequences])
        tokens = np.concatenate([s[1:] for s in sequences])
        p = weight * (tokens == previous) + (1 - weight) * self.unigram.probabilities[tokens]
        return float(-np.log(p).mean())


class Markov:
    """First-order chain, interpolated with the unigram: weight n / (n + k) for a context seen n times.

    ``k`` is chosen on validation tokens.
    """

    def __init__(self, train: list[np.ndarray], validation: list[np.ndarray]):
        self.unigram = Unigram(train)
        previous = np.concatenate([s[:-1] for s in train]).astype(np.int64)
        tokens = np.concatenate([s[1:] for s in train]).astype(np.int64)
        self._pairs, self._pair_counts = np.unique(previous * VOCABULARY + tokens, return_counts=True)
        self._context_counts = np.bincount(previous, minlength=VOCABULARY)
        candidates = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
        self.strength = min(candidates, key=lambda k: self._nats(validation, k))

    def nats(self, sequences: list[np.ndarray]) -> float:
        """Mean negative log-likelihood of all but each sequence's first token."""
        return self._nats(sequences, self.strength)

    def _nats(self, sequences, strength) -> float:
        previous = np.concatenate([s[:-1] for s in sequences]).astype(np.int64)
        tokens = np.concatenate([s[1:] for s in sequences]).astype(np.int64)
        pairs = previous * VOCABULARY + tokens
        at = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        count = np.where(self._pairs[at] == pairs, self._pair_counts[at], 0)
        context = self._context_counts[previous]
        conditional = count / np.maximum(context, 1)
        weight = context / (context + strength)
        p = weight * conditional + (1 - weight) * self.unigram.probabilities[tokens]
        return float(-np.log(p).mean())
