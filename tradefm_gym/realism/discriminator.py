"""Whether a classifier can tell generated windows from recorded ones (needs scikit-learn: the extra ``realism``)."""

from typing import NamedTuple

import numpy as np

from tradefm_gym.arguments import numbers, one_of, shortened, whole
from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, dense, estimate, labels, resampled

MODELS = ("boosting", "logistic")
FOLDS = 5


class _Side(NamedTuple):
    """Windows of one class."""

    features: np.ndarray  # (n, f) float64, NaN where missing
    block: np.ndarray  # (n,) int64 from 0
    blocks: int


def discriminate(
    real: np.ndarray,
    generated: np.ndarray,
    real_block: np.ndarray,
    generated_block: np.ndarray,
    model: str = "boosting",
    folds: int = FOLDS,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of a classifier of windows: 0.5 cannot tell real from generated, 1 always can.

    Cross-validated by block: no block is both learnt from and scored. Both classes weigh the same whatever their
    numbers. The area is taken within each fold, since classifiers of two folds do not share a scale, and averaged
    over the pairs of windows. The interval resamples blocks of the scored windows and keeps the classifiers; what
    learning on other windows would change is not in it.

    Args:
        real: (n, f) float64, features of recorded windows. Numbers that are not finite count as missing.
        generated: (m, f) float64.
        real_block: (n,) int64, windows that depend on each other.
        generated_block: (m,) int64; its labels have nothing to do with those of the real blocks.
        model: "boosting", trees on histograms, or "logistic", a regression on standardised features, missing ones
            replaced by the median and told apart.
        folds: of the cross-validation, at least 2; no more than a side has blocks are used.
        replicates: of the bootstrap.
        seed: of folds, classifier and bootstrap.

    Raises:
        ValueError: if shapes do not match or a side has fewer than two blocks.
        ImportError: if scikit-learn is not installed.
    """
    one_of("model", model, MODELS)
    folds, seed = whole("folds", folds, 2), whole("seed", seed, 0)
    ours, theirs = _side("real", real, real_block), _side("generated", generated, generated_block)
    if ours.features.shape[1] != theirs.features.shape[1]:
        raise ValueError(
            f"real has {ours.features.shape[1]} features and generated {theirs.features.shape[1]}; "
            "they must have the same"
        )
    folds = min(folds, ours.blocks, theirs.blocks)
    random = np.random.default_rng(seed)
    parts = _dealt(ours, folds, random), _dealt(theirs, folds, random)
    weights = resampled([ours.blocks, theirs.blocks], replicates, seed)
    score = _scores((ours, theirs), parts, model, seed)
    won, pairs = np.zeros((2, len(weights[0])))
    for fold in range(folds):
        held = [part == fold for part in parts]
        scores = [of[chosen] for of, chosen in zip(score, held, strict=True)]
        blocks = [side.block[chosen] for side, chosen in zip((ours, theirs), held, strict=True)]
        won_here, pairs_here = pairs_won(scores, blocks, weights)
        won += won_here
        pairs += pairs_here
    with np.errstate(invalid="ignore"):
        return estimate(won / pairs)


def area(
    first: np.ndarray,
    second: np.ndarray,
    first_block: np.ndarray,
    second_block: np.ndarray,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Estimate:
    """Area under the ROC curve of a score: how often one of the first scores more than one of the second.

    Args:
        first: (n,) float64 scores.
        second: (m,) float64 scores.
        first_block: (n,) int64, scores that depend on each other.
        second_block: (m,) int64; its labels have nothing to do with those of the first.
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """  # fmt: skip
    (ours, number), (theirs, others) = dense(first_block), dense(second_block)
    won, pairs = pairs_won([first, second], [ours, theirs], resampled([number, others], replicates, seed))
    return estimate(won / pairs)


def _side(name: str, features: np.ndarray, block: np.ndarray) -> _Side:
    array = numbers(features)
    if array is None or array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} is {shortened(features)}; it must be a non-empty array (windows, features) of numbers"
        )
    array = array.astype(np.float64)
    place, number = dense(labels(f"{name}_block", block, len(array)))
    if number < 2:
        raise ValueError(f"{name}_block has one block; it must have at least two, one to learn from and one to score")
    return _Side(np.where(np.isfinite(array), array, np.nan), place, number)


def _dealt(side: _Side, folds: int, random: np.random.Generator) -> np.ndarray:
    """A fold for each window (n,): blocks in random order go to the fold that has the fewest windows as yet."""
    size = np.bincount(side.block)
    fold_of, filled = np.zeros(side.blocks, np.int64), np.zeros(folds)
    for place, one in enumerate(random.permutation(side.blocks)):
        # Every fold gets a block before any gets a second one.
        fold_of[one] = place if place < folds else np.argmin(filled)
        filled[fold_of[one]] += size[one]
    return fold_of[side.block]


def _scores(
    sides: tuple[_Side, _Side], parts: tuple[np.ndarray, np.ndarray], model: str, seed: int
) -> list[np.ndarray]:
    """Scores (n,) and (m,) by classifiers that have not learnt from the fold; larger is more like a real window."""
    try:
        import sklearn  # noqa: F401
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError('The discriminator needs scikit-learn: pip install "tradefm-gym[realism]".') from error
    features, fold = np.concatenate([side.features for side in sides]), np.concatenate(parts)
    number = len(sides[0].features)
    is_real = np.arange(len(features)) < number
    score = np.zeros(len(features))
    # Sums of several threads come in any order, and a split may hang on the last bit of one.
    with threadpool_limits(1):
        for out in range(fold.max() + 1):
            held = fold == out
            # Nothing is learnt from a feature that is missing everywhere, and binning refuses it.
            known = features[:, ~np.isnan(features[~held]).all(axis=0)]
            if known.shape[1]:
                classifier = _classifier(model, seed).fit(known[~held], is_real[~held])
                score[held] = classifier.predict_proba(known[held])[:, 1]
    return np.split(score, [number])


def _classifier(model: str, seed: int):
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if model == "boosting":
        # Early stopping would hold out single windows, whose neighbours are learnt from.
        return HistGradientBoostingClassifier(class_weight="balanced", early_stopping=False, random_state=seed)  # pyright: ignore[reportArgumentType]
    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )


def pairs_won(
    scores: list[np.ndarray], blocks: list[np.ndarray], weights: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the pairs in which the real window scores more, and of all pairs: (1 + replicates,) each."""
    value, place = np.unique(np.concatenate(scores), return_inverse=True)
    places = np.split(place, [len(scores[0])])
    won, pairs = np.zeros((2, len(weights[0])))
    for row in range(len(won)):
        above, below = (
            np.bincount(at, drawn[row][block], len(value))
            for at, block, drawn in zip(places, blocks, weights, strict=True)
        )
        # Windows that score the same win half.
        won[row] = above @ (np.cumsum(below) - below / 2)
        pairs[row] = above.sum() * below.sum()
    return won, pairs
