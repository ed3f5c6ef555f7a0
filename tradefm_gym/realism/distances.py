"""How far generated samples are from recorded ones: distances of distributions, with block-bootstrap intervals.

Metrics, all 0 for equal distributions:

* ``ks``: the two-sample Kolmogorov-Smirnov statistic, the largest gap between the distribution functions.
* ``w1``: Wasserstein-1 after both samples are standardised by the mean and deviation of the real one. The deviation
  is a unit: replicates do not estimate it anew. NaN where the real sample is constant.
* ``js``: Jensen-Shannon divergence in bits, 0 to 1, on bins of equal real share. A value that holds a bin's share
  or more has a bin of its own, as has every value where there are no more values than bins; what falls between two
  such values, or beyond them, is counted apart.

Statistics given another one follow LOB-Bench (Nagy et al. 2025).

Distances of finite samples are above 0 also where their laws are equal, and resampling adds as much noise again: near
that level intervals lie high, and none holds 0. How far recorded data are from themselves is told by ``floor``; only
what is well above that is a difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tradefm_gym.arguments import one_of, shortened
from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, dense, estimate, labels, resampled, series, sums
from tradefm_gym.realism.pooled import METRICS, Pooled, Side, cells, deviation

BINS = 32  # of the Jensen-Shannon divergence
GIVEN_BINS = 10  # of the condition


@dataclass(frozen=True, eq=False)
class Sample:
    """Values of one statistic, and which of them are resampled together.

    Attributes:
        values: (n,) float64, finite, at least one.
        block: (n,) int64, any labels: stretches of time, or of one rollout. Labels ascend with time where alternating
            blocks are to be neighbours.

    Raises:
        ValueError: if the values are empty, not finite or not one-dimensional, or the labels do not match them.
    """

    values: np.ndarray
    block: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", series("values", self.values))
        object.__setattr__(self, "block", labels("block", self.block, len(self.values)))

    def where(self, chosen: np.ndarray) -> "Sample":
        """The part of the sample that ``chosen`` (n,) bool says."""
        return Sample(self.values[chosen], self.block[chosen])


def compare(
    real: Sample, generated: Sample, replicates: int = REPLICATES, seed: int = 0, bins: int = BINS
) -> dict[str, Estimate]:
    """Distances between two samples by metric, see the module's text; blocks of both are resampled.

    Args:
        real: what was recorded.
        generated: what is compared with it.
        replicates: of the bootstrap.
        seed: of the bootstrap. Equal seeds draw equal blocks of an equal real sample.
        bins: of the Jensen-Shannon divergence.
    """
    return {
        name: estimate(values) for name, values in _replicated([real, generated], replicates, seed, bins)[0].items()
    }


def floor(real: Sample, replicates: int = REPLICATES, seed: int = 0, bins: int = BINS) -> dict[str, Estimate]:
    """Distances of the recorded sample from itself: its even blocks, in the order of their labels, from its odd ones.

    The halves are half as large as the samples that ``compare`` sees, so this errs upwards: by the square root of
    two for ``ks`` and ``w1`` and by two for ``js``, where the generated sample is as large as the real one.

    Raises:
        ValueError: if the sample has a single block.
    """
    even, odd = _halves(real)
    return compare(real.where(even), real.where(odd), replicates, seed, bins)


def paired_ratio(
    real: Sample,
    a: Sample,
    b: Sample,
    metric: str = "w1",
    replicates: int = REPLICATES,
    seed: int = 0,
    bins: int = BINS,
) -> Estimate:
    """The distance of ``a`` from ``real`` over that of ``b``: below 1, ``a`` is nearer.

    In each replicate both meet the same blocks of the real sample, so that its luck cancels.
    """
    one_of("metric", metric, METRICS)
    of_a, of_b = (values[metric] for values in _replicated([real, a, b], replicates, seed, bins))
    with np.errstate(divide="ignore", invalid="ignore"):
        return estimate(of_a / of_b)


def deviation_ratio(real: Sample, generated: Sample, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """Root mean square of ``generated`` over that of ``real``; blocks of both are resampled."""
    sides = []
    for sample in (real, generated):
        place, number = dense(sample.block)
        sides.append(sums(place, number, [sample.values**2, np.ones(len(sample.values))]))
    blocks = [len(side) for side in sides]
    with np.errstate(divide="ignore", invalid="ignore"):
        (squares, n), (their_squares, m) = (
            (weights @ side).T for weights, side in zip(resampled(blocks, replicates, seed), sides, strict=True)
        )
        return estimate(np.sqrt(their_squares / m / (squares / n)), blocks)


def deviation_floor(real: Sample, replicates: int = REPLICATES, seed: int = 0) -> Estimate:
    """``deviation_ratio`` of the recorded sample's odd blocks to its even ones."""
    even, odd = _halves(real)
    return deviation_ratio(real.where(even), real.where(odd), replicates, seed)


def compare_given(
    real_x: Sample,
    real_y: Sample,
    generated_x: Sample,
    generated_y: Sample,
    given_bins: int = GIVEN_BINS,
    replicates: int = REPLICATES,
    seed: int = 0,
    bins: int = BINS,
) -> dict[str, Estimate]:
    """Distances of Y within quantile bins of X, averaged over the bins by their real share.

    Bins of X that the generated sample never visits are left out, see ``covered``; the distance of X itself tells of
    them. ``w1`` is in units of the deviation of all of the real Y.

    Args:
        real_x: the condition, recorded.
        real_y: the statistic; sample i of Y belongs to sample i of X, blocks are equal.
        generated_x: as ``real_x``.
        generated_y: as ``real_y``.
        given_bins: quantile bins of the real X; few values of X give a bin each.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        bins: of the Jensen-Shannon divergence within a bin of X.

    Raises:
        ValueError: if X and Y do not match, or the generated X visits no bin of the real one.
    """
    _same_blocks("real", real_x, real_y)
    _same_blocks("generated", generated_x, generated_y)
    cells_real, cells_generated = cells(real_x.values, generated_x.values, given_bins)
    visited = np.intersect1d(cells_real, cells_generated)
    if not len(visited):
        raise ValueError("generated_x visits no bin of real_x; there is nothing to compare")
    (block_real, number_real), (block_generated, number_generated) = dense(real_x.block), dense(generated_x.block)
    weights_real, weights_generated = resampled((number_real, number_generated), replicates, seed)
    unit = deviation(real_y.values)
    total = np.zeros((len(METRICS), len(weights_real)))
    share = np.zeros(len(weights_real))
    for cell in visited:
        here, there = cells_real == cell, cells_generated == cell
        real = Side(real_y.values[here], block_real[here], number_real)
        generated = Side(generated_y.values[there], block_generated[there], number_generated)
        found = Pooled(real, generated, unit, bins).distances(weights_real, weights_generated)
        mass = weights_real @ np.bincount(block_real[here], minlength=number_real)
        # A replicate may draw no block that visits the bin.
        mass[np.isnan(found["ks"])] = 0.0
        share += mass
        total += np.stack([np.where(mass > 0, mass * found[name], 0.0) for name in METRICS])
    with np.errstate(invalid="ignore"):
        return {name: estimate(values / share) for name, values in zip(METRICS, total, strict=True)}


def floor_given(
    real_x: Sample,
    real_y: Sample,
    given_bins: int = GIVEN_BINS,
    replicates: int = REPLICATES,
    seed: int = 0,
    bins: int = BINS,
) -> dict[str, Estimate]:
    """What ``floor`` is to ``compare``, for ``compare_given``."""
    _same_blocks("real", real_x, real_y)
    even, odd = _halves(real_x)
    halves = real_x.where(even), real_y.where(even), real_x.where(odd), real_y.where(odd)
    return compare_given(*halves, given_bins=given_bins, replicates=replicates, seed=seed, bins=bins)


def covered(real_x: Sample, generated_x: Sample, given_bins: int = GIVEN_BINS) -> float:
    """The share of the real X in those of its quantile bins that the generated X visits at all."""
    cells_real, cells_generated = cells(real_x.values, generated_x.values, given_bins)
    return float(np.isin(cells_real, cells_generated).mean())


def over_horizon(
    real: Sample | Sequence[Sample],
    generated: Sequence[Sample],
    replicates: int = REPLICATES,
    seed: int = 0,
    bins: int = BINS,
) -> dict[str, list[Estimate]]:
    """How distances grow as a rollout goes on.

    Args:
        real: one sample that all stretches are compared with, or the matching stretch of each.
        generated: consecutive stretches of the rollouts, each over all rollouts; blocks are whole rollouts or groups
            of them.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        bins: of the Jensen-Shannon divergence.

    Returns:
        By metric an estimate for each stretch.
    """
    stretches = list(generated)
    references = [real] * len(stretches) if isinstance(real, Sample) else list(real)
    if not stretches or len(references) != len(stretches):
        raise ValueError(
            f"generated has {len(stretches)} stretches, real {len(references)}; both need as many, and one"
        )
    each = [compare(*pair, replicates, seed, bins) for pair in zip(references, stretches, strict=True)]
    return {name: [found[name] for found in each] for name in METRICS}


def _replicated(samples: Sequence[Sample], replicates: int, seed: int, bins: int) -> list[Mapping[str, np.ndarray]]:
    """Distances (1 + replicates,) of each later sample from the first."""
    real, *others = (Side(sample.values, *dense(sample.block)) for sample in samples)
    drawn, *by_other = resampled([side.blocks for side in (real, *others)], replicates, seed)
    unit = deviation(real.values)
    return [
        Pooled(real, other, unit, bins).distances(drawn, weights)
        for other, weights in zip(others, by_other, strict=True)
    ]


def _halves(real: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Which samples lie in even blocks and which in odd ones."""
    place, number = dense(real.block)
    if number < 2:
        raise ValueError("real has one block; a floor takes at least two, to set one against the other")
    return place % 2 == 0, place % 2 == 1


def _same_blocks(side: str, x: Sample, y: Sample) -> None:
    if not np.array_equal(x.block, y.block):
        raise ValueError(f"{side}_x and {side}_y have different blocks, {shortened(x.block)} and {shortened(y.block)}")
