"""Longest matches: how far what was generated can be found, token by token, in what was recorded."""

from collections.abc import Sequence

import numpy as np

_END = -1  # after each sequence of the corpus, and of the queries: no token equals it


def longest_matches(queries: Sequence[np.ndarray], corpus: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Length of the longest run of tokens from each position on that occurs anywhere in the corpus.

    Runs of n tokens are numbered from those of n - 1 and the token that follows, and only positions whose run of
    n - 1 tokens occurs on the other side are looked at again.

    Args:
        queries: (k,) non-negative integers each.
        corpus: likewise; no run crosses from one sequence to the next.

    Returns:
        For each query (k,) int64.
    """
    known, asked = _joined(corpus), _joined(queries)
    length = np.zeros(len(asked), np.int64)
    here, there = np.flatnonzero(asked >= 0), np.flatnonzero(known >= 0)
    run_here, run_there = asked[here], known[there]
    matched = 0
    while True:
        common = np.intersect1d(run_here, run_there)
        keep_here, keep_there = np.isin(run_here, common), np.isin(run_there, common)
        here, there = here[keep_here], there[keep_there]
        if not len(here):
            break
        matched += 1
        length[here] = matched
        run_here, run_there = (
            np.searchsorted(common, run_here[keep_here]),
            np.searchsorted(common, run_there[keep_there]),
        )
        next_here, next_there = asked[here + matched], known[there + matched]
        go_here, go_there = next_here >= 0, next_there >= 0
        here, there = here[go_here], there[go_there]
        largest = 1 + max(next_here.max(initial=0), next_there.max(initial=0))
        run_here = run_here[go_here] * largest + next_here[go_here]
        run_there = run_there[go_there] * largest + next_there[go_there]
    ends = np.cumsum([len(query) + 1 for query in queries])
    return [part[:-1] for part in np.split(length, ends)[:-1]]


def _joined(sequences: Sequence[np.ndarray]) -> np.ndarray:
    parts = [np.append(np.asarray(one, np.int64), _END) for one in sequences]
    return np.concatenate([*parts, np.array([_END])])
