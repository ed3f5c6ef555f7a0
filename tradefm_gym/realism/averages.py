"""Means with block-bootstrap intervals, and the rows of figures that they become."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, dense, estimate, resampled, sums


def replicated_means(
    values: np.ndarray, block: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Means of columns over the sample and over resampled blocks of it.

    Columns are resampled together, so that ratios and fits of the means can be had from the replicates.

    Args:
        values: (n, c) float64; NaN is left out, column by column.
        block: (n,) integers; samples of one block stay together.
        replicates: R.
        seed: of the draws.

    Returns:
        (1 + R, c) float64, row 0 the sample's own, NaN where nothing was drawn; and how many samples each column has,
        (c,) int64.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return np.full((1, values.shape[1]), np.nan), np.zeros(values.shape[1], np.int64)
    place, number = dense(np.asarray(block))
    known = np.isfinite(values)
    total = sums(place, number, list(np.where(known, values, 0.0).T))
    count = sums(place, number, list(known.T.astype(np.float64)))
    (weights,) = resampled([number], replicates, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ total) / (weights @ count), known.sum(0)


def averages(
    values: np.ndarray, block: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> tuple[list[Estimate], np.ndarray]:
    """Mean of each column with its interval, and its number of samples; arguments as in ``replicated_means``."""
    means, count = replicated_means(values, block, replicates, seed)
    blocks = [len(np.unique(block))]
    return [estimate(column, blocks) for column in means.T], count


def figure(quantity: str, metric: str, arm: str, estimate_: Estimate | float, n: int, seeds: int = 1) -> dict[str, Any]:
    """One row of a card: ``quantity``, ``metric``, ``arm``, ``value``, ``low``, ``high``, ``n`` samples, ``seeds``."""
    value, low, high = estimate_ if isinstance(estimate_, Estimate) else (float(estimate_), np.nan, np.nan)
    return {
        "quantity": quantity, "metric": metric, "arm": arm, "value": value, "low": low, "high": high, "n": int(n),
        "seeds": int(seeds),
    }  # fmt: skip


def figures(
    quantity: str, metrics: Sequence[str], arm: str, values: np.ndarray, block: np.ndarray, seeds: int = 1
) -> list[dict[str, Any]]:
    """Rows of the means of columns ``values`` (n, c), one metric each."""
    estimates, count = averages(values, block)
    return [
        figure(quantity, metric, arm, one, n, seeds)
        for metric, one, n in zip(metrics, estimates, count, strict=True)
    ]  # fmt: skip
