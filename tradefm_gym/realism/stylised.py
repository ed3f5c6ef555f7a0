"""Stylised facts of returns, volumes and trade signs (Cont 2001), with block-bootstrap intervals.

Series come as stretches without a gap. No product of two returns, and no sum of several, reaches across the seam
of two stretches. Stretches are cut into blocks for the resampling; a product belongs to the block of its earlier
return, a sum to that of its first.

Facts by name, where K stands for each lag and Q for each interval, in returns:

* ``return_autocorrelation_K``, and ``return_autocorrelation_rest``, the mean over all lags but the first, which the
  bounce between bid and ask rules.
* ``absolute_autocorrelation_K`` of absolute returns, ``absolute_autocorrelation_far``, the mean over the upper half
  of the lags, and ``absolute_decay_exponent``.
* ``excess_kurtosis_Q`` of sums of Q returns: fourth central moment over squared variance, less 3. ``kurtosis_left``
  is that of the longest interval over that of the shortest, 0 where sums have become Gaussian. A sample of a law
  without a fourth moment has more of it the longer it is: compare samples of like length.
* ``tail_exponent``: Hill's estimate on the largest 5% of absolute returns.
* ``volume_volatility_correlation`` of volumes and absolute returns of the same interval.
* ``sign_autocorrelation_K`` and ``sign_decay_exponent``, in trades.

A decay exponent g is that of autocorrelation ~ lag ** -g, least squares of logarithms over the lags before the first
at which the autocorrelation is not positive; it takes three.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.realism.bootstrap import REPLICATES, Estimate, estimate, resampled, series, sums

LAGS = 20
INTERVALS = (1, 2, 5, 10, 30, 60)
SIGN_LAGS = (1, 2, 3, 5, 8, 13, 20, 32, 50, 80)
BLOCK = 120  # returns: two minutes of seconds
SIGN_BLOCK = 500  # trades
TAIL = 0.05  # share of absolute returns that Hill's estimate looks at
_LEAST_LAGS = 3  # of a decay exponent
_FACTOR = 2.0  # that still counts as agreement


class _Stretches(NamedTuple):
    """Stretches one behind the other."""

    values: np.ndarray  # (n,) float64
    stretch: np.ndarray  # (n,) int64, which stretch each value is of
    block: np.ndarray  # (n,) int64 from 0
    blocks: int


def facts(
    returns: Sequence[np.ndarray],
    volumes: Sequence[np.ndarray] | None = None,
    signs: Sequence[np.ndarray] | None = None,
    *,
    lags: int = LAGS,
    intervals: Sequence[int] = INTERVALS,
    sign_lags: Sequence[int] = SIGN_LAGS,
    block: int = BLOCK,
    sign_block: int = SIGN_BLOCK,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The stylised facts of one sample, by the names that the module's text lists.

    Args:
        returns: (n_i,) float64 per stretch, over equal intervals of time.
        volumes: (n_i,) float64 per stretch, traded in the interval of each return; without them no correlation.
        signs: (t_i,) float64 per stretch, 1 for a buyer who takes and -1 for a seller, trade by trade; the stretches
            need not be those of ``returns``. Without them no facts of signs.
        lags: autocorrelations of returns are taken at 1 to this, at least 2.
        intervals: ascending, in returns, for the kurtosis.
        sign_lags: ascending, in trades.
        block: returns a block of the bootstrap holds, about; a stretch is cut into equal ones.
        sign_block: trades a block holds.
        replicates: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        By name an estimate; NaN where a fact is undefined, as for constant returns, or no stretch is long enough.

    Raises:
        ValueError: if a series is empty, not finite or of another length than its returns, or an option is not as
            said above.
    """
    whole("lags", lags, 2)
    _ascending("intervals", intervals)
    _ascending("sign_lags", sign_lags)
    moves = _joined("returns", returns, block)
    if volumes is not None and len(volumes) != len(returns):
        raise ValueError(f"volumes has {len(volumes)} stretches and returns {len(returns)}; they must be the same")
    traded = None
    if volumes is not None:
        lengths = [len(stretch) for stretch in returns]
        traded = np.concatenate([series("volumes", *pair) for pair in zip(volumes, lengths, strict=True)])
    (weights,) = resampled((moves.blocks,), replicates, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = _of_returns(moves, lags, intervals, weights)
        if traded is not None:
            found["volume_volatility_correlation"] = _correlation(moves, traded, weights)
        if signs is not None:
            takers = _joined("signs", signs, sign_block)
            (weights,) = resampled((takers.blocks,), replicates, seed)
            decay = _autocorrelations(takers, sign_lags, weights)
            found |= {f"sign_autocorrelation_{lag}": decay[:, i] for i, lag in enumerate(sign_lags)}
            found["sign_decay_exponent"] = _decay_exponent(decay, sign_lags)
    return {name: estimate(values) for name, values in found.items()}


class Part(NamedTuple):
    """One number of a fact, and whether the generated sample has it."""

    name: str  # as ``facts`` has it
    real: Estimate
    generated: Estimate
    within_interval: bool  # the generated value lies in the real 95% interval
    within_factor: bool  # it has the sign of the real value and is half to twice as large


class Agreement(NamedTuple):
    """Whether a fact of the recorded sample is one of the generated sample."""

    agrees: bool  # each part lies within the interval or the factor
    parts: tuple[Part, ...]

    @property
    def measurable(self) -> bool:
        """Whether the recorded sample has the fact: where a number is undefined there is nothing to agree with."""
        return all(np.isfinite(part.real.value) for part in self.parts)


def agreement(real: Mapping[str, Estimate], generated: Mapping[str, Estimate]) -> dict[str, Agreement]:
    """The four facts that a market's returns are known for, by name.

    ``no_autocorrelation``: that of returns at lag 1 and over the other lags. ``slow_decay``: autocorrelation of
    absolute returns at lag 1 and over the upper half of the lags. ``heavy_tails``: tail exponent, and excess
    kurtosis over the shortest interval. ``convergence_to_gaussian``: excess kurtosis over the longest interval, and
    the part of it that is left there.

    A number that is NaN on a side agrees with nothing; where it is the recorded one, the fact is not ``measurable``. A
    short real sample has wide intervals and so agrees with much.

    Args:
        real: of ``facts`` on the recorded sample.
        generated: of ``facts`` on the generated one, with the same lags and intervals.

    Raises:
        ValueError: if the two were not made with the same lags and intervals.
    """
    kinds = ("return_autocorrelation_", "absolute_autocorrelation_", "excess_kurtosis_")
    names, others = ({name for name in side if name.startswith(kinds)} for side in (real, generated))
    if names != others:
        raise ValueError(
            f"real and generated differ in {shortened(sorted(names ^ others))}; take both with equal lags and intervals"
        )
    intervals = sorted(int(name.rpartition("_")[2]) for name in names if name.startswith("excess_kurtosis_"))
    members = {
        "no_autocorrelation": ("return_autocorrelation_1", "return_autocorrelation_rest"),
        "slow_decay": ("absolute_autocorrelation_1", "absolute_autocorrelation_far"),
        "heavy_tails": ("tail_exponent", f"excess_kurtosis_{intervals[0]}"),
        "convergence_to_gaussian": (f"excess_kurtosis_{intervals[-1]}", "kurtosis_left"),
    }
    found = {}
    for fact, names in members.items():
        parts = tuple(_part(name, real[name], generated[name]) for name in names)
        found[fact] = Agreement(all(part.within_interval or part.within_factor for part in parts), parts)
    return found


def _part(name: str, real: Estimate, generated: Estimate) -> Part:
    here, there = real.value, generated.value
    near = here * there > 0 and abs(here) <= _FACTOR * abs(there) and abs(there) <= _FACTOR * abs(here)
    return Part(name, real, generated, real.low <= there <= real.high, near)


def _of_returns(moves: _Stretches, lags: int, intervals: Sequence[int], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Facts of returns alone, each (1 + replicates,)."""
    every = range(1, lags + 1)
    plain = _autocorrelations(moves, every, weights)
    absolute = _autocorrelations(moves._replace(values=np.abs(moves.values)), every, weights)
    kurtosis = {interval: _kurtosis(moves, interval, weights) for interval in intervals}
    return {
        **{f"return_autocorrelation_{lag}": plain[:, lag - 1] for lag in every},
        "return_autocorrelation_rest": plain[:, 1:].mean(axis=1),
        **{f"absolute_autocorrelation_{lag}": absolute[:, lag - 1] for lag in every},
        "absolute_autocorrelation_far": absolute[:, lags // 2 :].mean(axis=1),
        "absolute_decay_exponent": _decay_exponent(absolute, every),
        **{f"excess_kurtosis_{interval}": values for interval, values in kurtosis.items()},
        "kurtosis_left": kurtosis[intervals[-1]] / kurtosis[intervals[0]],
        "tail_exponent": _hill(moves, weights),
    }


def _autocorrelations(of: _Stretches, lags: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """(1 + replicates, lags): mean product of centred values over their variance; the mean is the replicate's."""
    values = of.values - of.values.mean()
    size, total, square = (weights @ sums(of.block, of.blocks, [np.ones_like(values), values, values**2])).T
    mean = total / size
    variance = _positive(square / size - mean**2, np.mean(values**2))
    found = np.full((len(weights), len(lags)), np.nan)
    for i, lag in enumerate(lags):
        early = np.flatnonzero(of.stretch[:-lag] == of.stretch[lag:])
        if not len(early):
            continue
        one, other = values[early], values[early + lag]
        columns = [np.ones(len(early)), one + other, one * other]
        pairs, both, product = (weights @ sums(of.block[early], of.blocks, columns)).T
        found[:, i] = (product / pairs - mean * both / pairs + mean**2) / variance
    return found


def _kurtosis(of: _Stretches, interval: int, weights: np.ndarray) -> np.ndarray:
    """Excess kurtosis (1 + replicates,) of sums of ``interval`` values that do not overlap."""
    length = np.bincount(of.stretch)
    start = np.repeat(np.cumsum(length) - length, length)
    place = np.arange(len(of.values)) - start
    first = np.flatnonzero((place % interval == 0) & (place + interval <= length[of.stretch]))
    if not len(first):
        return np.full(len(weights), np.nan)
    values = of.values[first[:, None] + np.arange(interval)].sum(axis=1)
    # Scaled and centred, so that the powers neither overflow nor cancel.
    values = (values - values.mean()) / (values.std() or 1.0)
    table = sums(of.block[first], of.blocks, [values**power for power in range(5)])
    size, *powers = (weights @ table).T
    m1, m2, m3, m4 = (power / size for power in powers)
    variance = _positive(m2 - m1**2, 1.0)
    return (m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4) / variance**2 - 3


def _hill(of: _Stretches, weights: np.ndarray) -> np.ndarray:
    """Hill's exponent (1 + replicates,): k over the sum of log(x_i / x_(k+1)) over the k largest absolute values."""
    size = np.abs(of.values)
    order = np.argsort(-size, kind="stable")
    ordered, block = size[order], of.block[order]
    logs = np.log(ordered)
    found = np.full(len(weights), np.nan)
    for row, weight in enumerate(weights):
        drawn = weight[block]
        below = np.cumsum(drawn)
        k = int(TAIL * below[-1])
        end = int(np.searchsorted(below, k, side="right"))  # the place of the (k+1)-th largest
        if k and ordered[end] > 0:
            # Copies of the (k+1)-th among the k largest add nothing.
            excess = drawn[:end] @ (logs[:end] - logs[end])
            found[row] = k / excess if excess > 0 else np.nan
    return found


def _correlation(moves: _Stretches, traded: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = (values - values.mean() for values in (np.abs(moves.values), traded))
    table = sums(moves.block, moves.blocks, [np.ones_like(x), x, y, x * x, y * y, x * y])
    size, *moments = (weights @ table).T
    x1, y1, xx, yy, xy = (moment / size for moment in moments)
    spread = _positive(xx - x1**2, np.mean(x**2)) * _positive(yy - y1**2, np.mean(y**2))
    return (xy - x1 * y1) / np.sqrt(spread)


def _decay_exponent(correlations: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    """Exponents (1 + replicates,) of autocorrelations (1 + replicates, lags)."""
    used = np.cumprod(correlations > 0, axis=1)
    x = np.log(np.asarray(lags, np.float64))
    y = np.log(np.where(used > 0, correlations, 1.0))
    size = used.sum(axis=1)
    x_mean, y_mean = (used @ x) / size, (used * y).sum(axis=1) / size
    off = used * (x - x_mean[:, None])
    slope = (off * (y - y_mean[:, None])).sum(axis=1) / (off**2).sum(axis=1)
    return np.where(size >= _LEAST_LAGS, -slope, np.nan)


def _positive(variance: np.ndarray, scale: float) -> np.ndarray:
    """A variance, NaN where it is nothing but rounding."""
    return np.where(variance > 1e-12 * scale, variance, np.nan)


def _joined(name: str, stretches: Sequence[np.ndarray], length: int) -> _Stretches:
    whole("sign_block" if name == "signs" else "block", length, 1)
    arrays = [series(name, stretch) for stretch in stretches]
    if not arrays:
        raise ValueError(f"{name} is {shortened(stretches)}; it must hold at least one stretch")
    if name == "signs" and not all(np.isin(array, (-1, 1)).all() for array in arrays):
        raise ValueError("signs has values other than 1 and -1; a trade has a taker on one side")
    blocks, number = [], 0
    for array in arrays:
        parts = max(1, round(len(array) / length))
        blocks.append(number + np.arange(len(array)) * parts // len(array))
        number += parts
    stretch = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    return _Stretches(np.concatenate(arrays), stretch, np.concatenate(blocks), number)


def _ascending(name: str, values: Sequence[int]) -> None:
    listed = [whole(f"an entry of {name}", value, 1) for value in values]
    if not listed or any(low >= high for low, high in itertools.pairwise(listed)):
        raise ValueError(f"{name} is {shortened(values)}; it must ascend and have an entry")
