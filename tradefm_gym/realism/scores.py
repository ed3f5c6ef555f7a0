"""Scores of ensembles of rollouts against what then happened, and whether the truth looks like one of them."""

from collections.abc import Sequence

import numpy as np

from tradefm_gym.arguments import numbers, shortened, whole
from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, dense, estimate, labels, resampled, series, sums

RANK_BINS = 10
LEAST_BLOCKS = 5  # that an interval of skill takes
LEAST_POOLED_BLOCKS = 8  # the same, of all sets together
LEAST_TOLD = 5  # truths that must differ from the commonest
_ROUNDING = 1e-9  # of the size of truths and members: scores within it are nothing but rounding

Scores = tuple[np.ndarray, np.ndarray, np.ndarray]  # arm, reference, block: (s,) each


def crps(ensemble: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The fair continuous ranked probability score of ensembles; smaller is better, in units of the truth.

    Mean |x_i - y| less half the mean |x_i - x_j| over pairs of different members, m (m - 1) of them, so that its
    expectation does not depend on the number of members (Ferro 2014). A single score may be negative.

    Args:
        ensemble: (s, m) float64, m >= 2 equally likely members for each start.
        truth: (s,) float64.

    Returns:
        (s,) float64.

    Raises:
        ValueError: if shapes do not match, there are fewer than two members, or a number is not finite.
    """
    ensemble, truth = _ensemble(ensemble, truth, 2)
    members = ensemble.shape[1]
    error = np.abs(ensemble - truth[:, None]).mean(axis=1)
    # Of the sorted members the i-th is the larger of its pair i times and the smaller m - 1 - i times.
    signs = 2 * np.arange(members) - (members - 1)
    return error - np.sort(ensemble, axis=1) @ signs / (members * (members - 1))


def ranks(ensemble: np.ndarray, truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """How many members are below the truth, (s,) int64 from 0 to m; among equals its place is drawn at random.

    Args:
        ensemble: (s, m) float64.
        truth: (s,) float64.
        seed: of the ties.
    """
    ensemble, truth = _ensemble(ensemble, truth, 1)
    random = np.random.default_rng(whole("seed", seed, 0))
    below = (ensemble < truth[:, None]).sum(axis=1)
    equal = (ensemble == truth[:, None]).sum(axis=1)
    return below + random.integers(0, equal + 1)


def rank_histogram(ranks: np.ndarray, members: int, bins: int = RANK_BINS) -> tuple[np.ndarray, np.ndarray]:
    """Counts of ranks in bins, and what they are to be if the truth is like a member.

    Args:
        ranks: (s,) int64 from 0 to ``members``.
        members: of the ensembles.
        bins: into which the ``members`` + 1 ranks are cut as equally as may be; at most one per rank.

    Returns:
        (bins,) int64 and (bins,) float64.
    """
    members, bins = whole("members", members, 1), whole("bins", bins, 2)
    array = numbers(ranks, "iu")
    if array is None or array.ndim != 1 or not len(array) or array.min() < 0 or array.max() > members:
        raise ValueError(f"ranks is {shortened(ranks)}; it must be a non-empty array of integers from 0 to {members}")
    bins = min(bins, members + 1)
    place = np.arange(members + 1) * bins // (members + 1)
    counts = np.bincount(place[array.astype(np.int64)], minlength=bins)
    return counts, np.bincount(place, minlength=bins) * (len(array) / (members + 1))


def uniformity(ranks: np.ndarray, members: int, bins: int = RANK_BINS) -> float:
    """The p-value of Pearson's chi-square test that ranks are uniform, over the bins of ``rank_histogram``.

    It takes starts as independent: with starts close in time it comes out too small.

    Raises:
        ImportError: if scipy is not installed.
    """
    try:
        from scipy.stats import chi2
    except ImportError as error:
        raise ImportError('The test of ranks needs scipy: pip install "tradefm-gym[realism]".') from error
    counts, expected = rank_histogram(ranks, members, bins)
    return float(chi2.sf(np.sum((counts - expected) ** 2 / expected), len(counts) - 1))


def comparable(truth: np.ndarray, ensemble: np.ndarray, scores: np.ndarray) -> bool:
    """Whether skill over a reference says anything: things happened, and the reference does not foresee them exactly.

    Where hardly anything ever happens, as trades within a second of a market that trades once a minute, a forecast of
    nothing has a score of about 0, and skill over it is a quotient of rounding.

    Args:
        truth: (s,) float64.
        ensemble: (s, m) float64, of the reference.
        scores: (s,) float64, of the reference.

    Returns:
        Whether at least ``LEAST_TOLD`` truths differ from the commonest one, as many from 0, and the mean score is
        above rounding.
    """
    size = max(float(np.abs(truth).mean()), float(np.abs(ensemble).mean()))
    values, counts = np.unique(truth, return_counts=True)
    told = min((np.abs(truth - usual) > _ROUNDING * size).sum() for usual in (values[counts.argmax()], 0.0))
    return bool(told >= LEAST_TOLD and scores.mean() > _ROUNDING * size)


def skill(
    arm: np.ndarray, reference: np.ndarray, block: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """1 - mean(arm) / mean(reference): 1 is perfect, 0 as good as the reference. Both meet the same starts.

    Args:
        arm: (s,) float64, scores of which smaller is better.
        reference: (s,) float64, scores at the same starts.
        block: (s,) int64, starts that are resampled together; of fewer than ``LEAST_BLOCKS`` the interval is NaN.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: if lengths differ, a score is not finite, or the mean reference is not positive.
    """
    return pooled_skill([(arm, reference, block)], replicates, seed, LEAST_BLOCKS)


def pooled_skill(
    sets: Sequence[Scores], replicates: int = REPLICATES, seed: int = 0, least: int = LEAST_POOLED_BLOCKS
) -> Estimate:
    """Skill over several sets of starts, as days or instruments, whose scores differ in size.

    The scores of a set are divided by its mean reference score and then pooled, so a set counts by its number of
    starts and not by how large its scores are. Each set's blocks are resampled within it. Too few of them tell
    nothing of their spread: the interval is NaN if they are fewer than ``least``, or a set has a single one.

    Args:
        sets: (arm, reference, block) as ``skill`` takes them.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        least: blocks of all sets together that an interval takes.

    Raises:
        ValueError: as ``skill`` does, or if there is no set.
    """
    if not len(sets):
        raise ValueError("sets is empty; skill takes at least one set of scores")
    tables = []
    for arm, reference, block in sets:
        arm = series("arm", arm)
        reference = series("reference", reference, len(arm))
        if not reference.mean() > 0:
            raise ValueError(f"reference has mean {reference.mean()}; skill needs a positive one to compare with")
        place, number = dense(labels("block", block, len(arm)))
        tables.append(sums(place, number, [np.ones_like(arm), arm, reference]))
    drawn = resampled([len(table) for table in tables], replicates, seed)
    total, starts = np.zeros((2, len(drawn[0])))
    for table, weights in zip(tables, drawn, strict=True):
        size, arm, reference = (weights @ table).T
        with np.errstate(divide="ignore", invalid="ignore"):
            # A replicate without a positive mean says nothing of the ratio.
            total += size * np.where(reference > 0, arm / reference, np.nan)
        starts += size
    found = estimate(1.0 - total / starts, [len(table) for table in tables])
    return found if sum(map(len, tables)) >= least else Estimate(found.value, np.nan, np.nan)


def _ensemble(ensemble: np.ndarray, truth: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    truth = series("truth", truth)
    array = numbers(ensemble)
    if array is None or array.ndim != 2 or len(array) != len(truth) or array.shape[1] < least:
        raise ValueError(
            f"ensemble is {shortened(ensemble)}; it must be an array ({len(truth)}, m) of numbers, m at least {least}"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("ensemble has numbers that are not finite")
    return array, truth
