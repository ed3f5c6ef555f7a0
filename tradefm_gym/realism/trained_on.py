"""Train on synthetic, test on real: what a classifier learns of a flow's markets, tried on the record.

A logistic regression is to tell, from the book and the recent flow, whether the next change of the mid is upwards. It
learns on paths of an arm, by events of which the answer is known, and is tried on the recorded test part. Beside it
stands the same classifier, trained on as many events of the recorded training part.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.realism.bootstrap import REPLICATES, estimate, resampled, sums
from tradefm_gym.realism.discriminator import pairs_won
from tradefm_gym.realism.path import MarketPath
from tradefm_gym.realism.rows import of

MOST = 20_000  # events that a classifier learns on; of more, evenly chosen ones
SKIPPED = 256  # first events of a path, whose book still is the recorded one that it began from
BLOCK = 512  # events that are resampled together
RECENT = (16, 64)  # events over which moves and flow are told
LEAST = 50  # events of either answer


class Examples(NamedTuple):
    """Features (n, f) float64 and whether the next change of the mid is upwards (n,) bool."""

    features: np.ndarray
    rises: np.ndarray


def examples(paths: Sequence[MarketPath], skipped: int = 0) -> Examples:
    """Events of paths with a two-sided book, before the last change of the mid."""
    pieces = [piece for path in paths for piece in path.between(min(skipped, len(path)), len(path)).pieces()]
    found = [_of_piece(piece) for piece in pieces if len(piece) > 1]
    if not found:
        return Examples(np.zeros((0, 1)), np.zeros(0, bool))
    return Examples(np.concatenate([one.features for one in found]), np.concatenate([one.rises for one in found]))


def trained_rows(
    taught: Examples, real: Examples, tested: Examples, seeds: int, replicates: int = REPLICATES
) -> Iterator[dict[str, Any]]:
    """Area under the curve and accuracy on ``tested`` after ``taught``, and how much that is less than after ``real``.

    Both learn on equally many events. Nothing is said where an answer is too rare.
    """
    count = min(len(taught.rises), len(real.rises), MOST)
    if any(min(one.rises.sum(), (~one.rises).sum()) < LEAST for one in (_thinned(taught, count), real, tested)):
        return
    scores = [_scores(_thinned(one, count), tested) for one in (taught, real)]
    block = np.arange(len(tested.rises)) // BLOCK
    areas = [_area(score, tested.rises, block, replicates) for score in scores]
    hits = [_accuracy(score, tested.rises, block, replicates) for score in scores]
    told = {"auc": areas[0], "auc_less_real": areas[0] - areas[1]}
    told |= {"accuracy": hits[0], "accuracy_less_real": hits[0] - hits[1]}
    for metric, values in told.items():
        about = {"quantity": "next_change_after", "metric": metric, "n": len(block), "seeds": seeds}
        yield about | of(estimate(values))


def _of_piece(path: MarketPath) -> Examples:
    """Examples of an unbroken stretch of two events or more."""
    mid, both = path.mid, path.two_sided
    moves = np.flatnonzero(np.diff(mid) != 0) + 1  # events that change it
    coming = np.searchsorted(moves, np.arange(len(path)), side="right")
    usable = both & (coming < len(moves))
    after = moves[np.minimum(coming, len(moves) - 1)] if len(moves) else np.zeros(len(path), np.int64)
    rises = mid[after] > mid[after - 1]
    return Examples(_features(path)[usable], rises[usable])


def _features(path: MarketPath) -> np.ndarray:
    """What a classifier is told (n, f): imbalances, spread, recent moves and recent signed flow."""
    ask, bid = path.book[:, :, 1].astype(np.float64), path.book[:, :, 3].astype(np.float64)
    spread = (path.book[:, 0, 0] - path.book[:, 0, 2]).astype(np.float64)
    columns = [_balance(bid[:, 0], ask[:, 0]), _balance(bid.sum(1), ask.sum(1)), np.log1p(np.maximum(spread, 0.0))]
    signed = np.where(path.takes, path.records["side"] * path.records["filled"].astype(np.float64), 0.0)
    flow = np.concatenate([[0.0], np.cumsum(signed / float(path.scale["median_size"]))])
    adds = np.where(path.cancels, -1.0, 1.0) * path.records["side"] * ~path.takes
    placed = np.concatenate([[0.0], np.cumsum(adds)])
    mids, at = np.concatenate([path.mid_before[:1], path.mid]), np.arange(1, len(path) + 1)
    for events in RECENT:
        before = np.maximum(at - events, 0)
        columns += [
            1e4 * np.log(mids[at] / mids[before]),
            np.tanh(flow[at] - flow[before]),
            placed[at] - placed[before],
        ]
    return np.stack(columns, axis=1)


def _balance(bid: np.ndarray, ask: np.ndarray) -> np.ndarray:
    return (bid - ask) / np.maximum(bid + ask, 1.0)


def _thinned(one: Examples, count: int) -> Examples:
    chosen = np.linspace(0, len(one.rises) - 1, count).astype(np.int64)
    return Examples(one.features[chosen], one.rises[chosen])


def _scores(taught: Examples, tested: Examples) -> np.ndarray:
    """Log odds (n,) of a rise."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            'Training on synthetic flow needs scikit-learn: pip install "tradefm-gym[realism]".'
        ) from error
    with threadpool_limits(1):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        return classifier.fit(taught.features, taught.rises).decision_function(tested.features)


def _area(score: np.ndarray, rises: np.ndarray, block: np.ndarray, replicates: int) -> np.ndarray:
    """Area under the curve of the sample and of replicates (1 + replicates,); both answers of a block go together."""
    weights = resampled([int(block[-1]) + 1], replicates)[0]
    won, pairs = pairs_won([score[rises], score[~rises]], [block[rises], block[~rises]], [weights, weights])
    return won / pairs


def _accuracy(score: np.ndarray, rises: np.ndarray, block: np.ndarray, replicates: int) -> np.ndarray:
    """Share of right answers of the sample and of replicates (1 + replicates,)."""
    number = int(block[-1]) + 1
    table = sums(block, number, [((score > 0) == rises).astype(np.float64), np.ones(len(rises))])
    total = resampled([number], replicates)[0] @ table
    return total[:, 0] / total[:, 1]
