"""Two samples sorted and binned together once, for their distances under many weights of blocks."""

from typing import NamedTuple

import numpy as np

from tradefm_gym.arguments import whole

METRICS = ("ks", "w1", "js")


class Side(NamedTuple):
    """One of two samples."""

    values: np.ndarray  # (n,) float64
    block: np.ndarray  # (n,) int64 from 0
    blocks: int  # how many there are, also such as hold none of the values


class Pooled:
    """Distances between two samples whose blocks are weighted.

    Args:
        real: at least one value.
        generated: likewise.
        unit: of Wasserstein-1, the values' own unit; 0 leaves it undefined.
        bins: of the Jensen-Shannon divergence.
    """

    def __init__(self, real: Side, generated: Side, unit: float, bins: int) -> None:
        pooled = np.concatenate([real.values, generated.values])
        order = np.argsort(pooled, kind="stable")
        gaps = np.diff(pooled[order])
        # Within a run of equal values the distribution functions have not yet taken their step.
        self._ends = np.flatnonzero(gaps > 0)
        self._widths = gaps[self._ends] / unit if unit > 0 else np.full(len(self._ends), np.nan)
        self._unit = unit
        self._place = np.concatenate([real.block, real.blocks + generated.block])[order]
        self._sizes = [np.bincount(side.block, minlength=side.blocks) for side in (real, generated)]
        places = cells(real.values, generated.values, bins)
        number = 1 + max(place.max() for place in places)
        self._counts = [
            np.bincount(side.block * number + place, minlength=side.blocks * number).reshape(side.blocks, number)
            for side, place in zip((real, generated), places, strict=True)
        ]

    def distances(self, real: np.ndarray, generated: np.ndarray) -> dict[str, np.ndarray]:
        """Distances under weights of both sides' blocks, each (replicates, its blocks) float64.

        Returns:
            By metric (replicates,) float64, NaN where a side has no weight.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            real, generated = (
                weights / (weights @ size)[:, None]
                for weights, size in zip((real, generated), self._sizes, strict=True)
            )
        # The difference of two distribution functions is one cumulative sum, generated weights counted as negative.
        steps = np.concatenate([real, -generated], axis=1)
        ks, w1 = np.full((2, len(steps)), np.nan)
        for row in np.flatnonzero(np.isfinite(steps).all(axis=1)):
            gap = np.abs(np.cumsum(steps[row][self._place])[self._ends])
            ks[row] = gap.max(initial=0.0)
            w1[row] = gap @ self._widths if self._unit > 0 else np.nan
        with np.errstate(invalid="ignore"):  # a side without weight has infinite weights
            shares = real @ self._counts[0], generated @ self._counts[1]
            return {"ks": ks, "w1": w1, "js": _divergence(*shares)}


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of rows of shares (replicates, bins), in bits."""
    return np.clip(_entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2, 0.0, 1.0)


def _entropy(shares: np.ndarray) -> np.ndarray:
    return -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)


def deviation(values: np.ndarray) -> float:
    """The standard deviation, exactly 0 for a constant, of which rounding would make a little more."""
    return float(values.std()) if values.min() < values.max() else 0.0


def cells(real: np.ndarray, generated: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Which bins of equal real share values fall into: (n,) and (m,) int64, ascending with the values.

    A value that holds a bin's share or more has a bin of its own, as has every value where there are no more values
    than bins. What lies between two such values, or beyond one at the end, has a bin too, which is empty of real
    ones; other bins reach to their neighbours, and the outer ones to infinity.
    """
    whole("bins", bins, 2)
    atoms, counts = np.unique(real, return_counts=True)
    alone = counts * bins >= len(real) if len(atoms) > bins else np.ones(len(atoms), bool)
    quantile = (np.cumsum(counts) - counts) * bins // len(real)
    starts = np.ones(len(atoms), bool)
    starts[1:] = alone[1:] | alone[:-1] | (np.diff(quantile) > 0)
    first = np.flatnonzero(starts)
    single, lowest = alone[first], atoms[first]
    highest = atoms[np.append(first[1:] - 1, len(atoms) - 1)]
    after_single = np.append(True, single[:-1])  # below the first bin lies nothing that could reach up to it

    def numbered(values: np.ndarray) -> np.ndarray:
        # Bin i has the number 2 i + 1, and the even numbers are for what lies between.
        above = np.searchsorted(highest, values)
        place = np.minimum(above, len(first) - 1)
        number = 2 * place + 1
        short_of = (values < lowest[place]) & single[place]
        number -= np.where(short_of, np.where(after_single[place], 1, 2), 0)
        return number + ((above == len(first)) & single[-1])

    return numbered(real), numbered(generated)
