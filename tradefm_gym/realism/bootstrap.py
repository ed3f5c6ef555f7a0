"""Intervals by resampling whole blocks: neighbours in time depend on each other, blocks of them hardly do.

A replicate is a weight per block: how often it was drawn. Statistics that are sums over samples are then products
of a table of weights with a table of sums per block, and nothing is ever copied. The first row of every table of
weights is the sample itself, each block once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tradefm_gym.arguments import numbers, shortened, whole

REPLICATES = 200
_QUANTILES = (0.025, 0.975)
_LEAST_LEFT = 0.5  # share of replicates that must be defined for an interval


class Estimate(NamedTuple):
    """A statistic and its 95% percentile interval over resampled blocks.

    The interval is widened to hold the value where the percentiles leave it out, as they may for a distance, which
    resampling can only blur upwards. It is NaN where a side has a single block, or where the statistic is undefined
    in more than half of the replicates.
    """

    value: float
    low: float
    high: float


def resampled(blocks: Sequence[int], replicates: int = REPLICATES, seed: int = 0) -> list[np.ndarray]:
    """Weights of blocks, drawn with replacement, for several samples that are resampled independently.

    The draws of the i-th sample depend on the seed, i and its number of blocks only, so two comparisons with the
    same first sample draw the same blocks of it.

    Args:
        blocks: number of blocks of each sample.
        replicates: how many, at least 1.
        seed: of the draws, at least 0.

    Returns:
        For each sample (1 + replicates, its blocks) float64, row 0 ones; (1, its blocks) everywhere if one of the
        samples has a single block, since that says nothing of spread.
    """
    replicates, seed = whole("replicates", replicates, 1), whole("seed", seed, 0)
    weights = []
    for place, number in enumerate(blocks):
        itself = np.ones((1, number))
        if min(blocks) > 1:
            random = np.random.default_rng([seed, place])
            drawn = random.multinomial(number, np.full(number, 1.0 / number), replicates)
            itself = np.concatenate([itself, drawn])
        weights.append(itself)
    return weights


def estimate(values: np.ndarray, blocks: Sequence[int] = ()) -> Estimate:
    """What ``values`` say: the sample's own, first, and the replicates'.

    Args:
        values: (1 + replicates,) float64.
        blocks: how many were resampled of each sample, of a statistic like a mean. Percentiles over few of them cover
            too little, by the square root of n / (n - 1) and since they know nothing of Student's t: five say 95% where
            it is 83%. So their distances from the value are stretched by as much.
    """
    value, replicates = float(values[0]), values[1:]
    defined = replicates[np.isfinite(replicates)]
    if not np.isfinite(value) or len(defined) < 2 or len(defined) < _LEAST_LEFT * len(replicates):
        return Estimate(value, np.nan, np.nan)
    low, high = (value + _stretch(blocks) * (float(end) - value) for end in np.quantile(defined, _QUANTILES))
    return Estimate(value, min(value, low), max(value, high))


def _stretch(blocks: Sequence[int]) -> float:
    number, free = sum(blocks), sum(blocks) - len(blocks)
    if free < 1:
        return 1.0
    from scipy.stats import norm, t

    return float(np.sqrt(number / free) * t.ppf(_QUANTILES[1], free) / norm.ppf(_QUANTILES[1]))


def dense(block: np.ndarray) -> tuple[np.ndarray, int]:
    """Labels (n,) as numbers from 0 in the order of the labels, (n,) int64, and how many there are."""
    labels, place = np.unique(block, return_inverse=True)
    return place.astype(np.int64), len(labels)


def sums(block: np.ndarray, number: int, columns: Sequence[np.ndarray]) -> np.ndarray:
    """Sums of each column (n,) within each block: (number, columns) float64."""
    return np.stack([np.bincount(block, column, number) for column in columns], axis=1)


def mean_of(values: np.ndarray, block: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """Mean of values (n,), with an interval over blocks, whose labels (n,) need not be in order."""
    place, number = dense(block)
    table = sums(place, number, [np.asarray(values, np.float64), np.ones(len(values))])
    total = resampled([number], replicates, seed)[0] @ table
    with np.errstate(invalid="ignore"):
        return estimate(total[:, 0] / total[:, 1], [number])


def series(name: str, value: np.ndarray, length: int | None = None) -> np.ndarray:
    """``value`` as (n,) float64, finite and not empty, of ``length`` if that is given; else a ValueError."""
    array = numbers(value)
    if array is None or array.ndim != 1 or not len(array) or (length is not None and len(array) != length):
        wanted = "a non-empty one-dimensional array" if length is None else f"a one-dimensional array of {length}"
        raise ValueError(f"{name} is {shortened(value)}; it must be {wanted} of numbers")
    array = array.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(array))
    if len(wrong):
        raise ValueError(f"{name} is {array[wrong[0]]} at {wrong[0]}; all of it must be finite")
    return array


def labels(name: str, value: np.ndarray, length: int) -> np.ndarray:
    """``value`` as (length,) int64 labels of blocks; else a ValueError."""
    array = numbers(value, "iu")
    if array is None or array.shape != (length,):
        raise ValueError(f"{name} is {shortened(value)}; it must be an array of {length} integers, one a sample")
    return array.astype(np.int64)
