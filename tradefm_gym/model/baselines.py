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

    def event_nats(self, sequence: np.ndarray) -> np.ndarray:
        """Negative log-likelihood (n - 1,) of each token of a sequence (n,) but the first."""
        return -np.log(self._probabilities([sequence], self.strength))

    def draw(self, start: int, uniforms: np.ndarray) -> np.ndarray:
        """A path of the chain.

        Args:
            start: token that the first one follows.
            uniforms: (n, 2) numbers in [0, 1): the first chooses between chain and unigram, the second the token.

        Returns:
            (n,) int64 tokens.
        """
        totals = np.cumsum(self._pair_counts)
        firsts = np.searchsorted(self._pairs, np.arange(VOCABULARY + 1) * VOCABULARY)
        unigram = np.cumsum(self.unigram.probabilities)
        path, token = np.zeros(len(uniforms), np.int64), int(start)
        for i, (choice, uniform) in enumerate(uniforms):
            first, count = firsts[token], int(self._context_counts[token])
            if choice * (count + self.strength) < count:
                before = int(totals[first - 1]) if first else 0
                token = int(self._pairs[np.searchsorted(totals, before + int(uniform * count), "right")] % VOCABULARY)
            else:
                token = min(int(np.searchsorted(unigram, uniform * unigram[-1], "right")), VOCABULARY - 1)
            path[i] = token
        return path

    def _nats(self, sequences, strength) -> float:
        return float(-np.log(self._probabilities(sequences, strength)).mean())

    def _probabilities(self, sequences, strength) -> np.ndarray:
        previous = np.concatenate([s[:-1] for s in sequences]).astype(np.int64)
        tokens = np.concatenate([s[1:] for s in sequences]).astype(np.int64)
        pairs = previous * VOCABULARY + tokens
        at = np.minimum(np.searchsorted(self._pairs, pairs), len(self._pairs) - 1)
        count = np.where(self._pairs[at] == pairs, self._pair_counts[at], 0)
        context = self._context_counts[previous]
        conditional = count / np.maximum(context, 1)
        weight = context / (context + strength)
        return weight * conditional + (1 - weight) * self.unigram.probabilities[tokens]
