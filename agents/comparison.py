"""What episodes say about policies: means and paired differences, with intervals clustered by context."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Controlled:
    """A mean without and with a control variate, each with its standard error.

    Attributes:
        plain: the mean of the values.
        plain_error: its standard error; values of one cluster may depend on each other.
        mean: of what is left of the values without the luck that the controls show.
        error: its standard error.
        variance: of what is left, as part of the values' own: so many times as many episodes does it save.
    """

    plain: float
    plain_error: float
    mean: float
    error: float
    variance: float


@dataclass(frozen=True)
class PolicySummary:
    """One policy's line of a comparison.

    Attributes:
        name: the policy.
        shortfall_bps: mean, of the arrival notional.
        shortfall_half_spreads: mean per lot.
        fill_rate: mean part of the parent order.
        maker_share: mean part of what was filled while resting.
        steps: mean decisions until the end.
        differences: by baseline: this policy's shortfall minus the baseline's, bps, over equal episodes.
        controlled: of episodes with ``control_bps``: "shortfall", "impact" (the mid's move from arrival to the end,
            against the agent) and "minus BASELINE", in bps.
    """

    name: str
    shortfall_bps: Estimate
    shortfall_half_spreads: Estimate
    fill_rate: float
    maker_share: float
    steps: float
    differences: dict[str, Estimate]
    controlled: dict[str, Controlled] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; an estimate is [mean, low, high]."""
        return asdict(self)


def bootstrap(values: np.ndarray, clusters: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """The mean of ``values`` and its 95% percentile interval when whole clusters are drawn again.

    Args:
        values: (n,) float64.
        clusters: (n,) label of what each value belongs to; values of one cluster may depend on each other.
        seed: of the resampling.
        resamples: how many.
    """
    values, clusters = np.asarray(values, np.float64), np.asarray(clusters)
    if values.ndim != 1 or values.shape != clusters.shape or not len(values):
        raise ValueError(f"values has shape {values.shape} and clusters {clusters.shape}; both must be (n,), n >= 1")
    _, label = np.unique(clusters, return_inverse=True)
    count = np.bincount(label)
    total = np.bincount(label, values)
    number = len(count)
    # How often each cluster is drawn: (resamples, clusters).
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1.0 / number), resamples)
    low, high = np.quantile((drawn @ total) / (drawn @ count), (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high))


def controlled(values: np.ndarray, controls: np.ndarray, clusters: np.ndarray, folds: int = 10) -> Controlled:
    """The mean of ``values`` less what ``controls`` explain of it, which must have the expectation 0.

    What is subtracted is the controls times the slopes of the values on them: those of least squares leave the least
    variance (Lavenberg and Welch, 1981). The slopes for one part of the clusters are those of all other parts, so that
    they do not know the controls that they are multiplied with: the mean is unbiased also for few values, where slopes
    of the values themselves would bias it by the order of 1 / n, and its error includes what their noise adds.

    Args:
        values: (n,) float64.
        controls: (n, c) float64.
        clusters: (n,) label of what each value belongs to; at least two, which are put into parts in turn.
        folds: parts of the clusters.

    Raises:
        ValueError: if shapes differ, or there are fewer than two clusters or folds.
    """
    values, controls, clusters = np.asarray(values, np.float64), np.asarray(controls, np.float64), np.asarray(clusters)
    if values.ndim != 1 or controls.shape[:1] != values.shape or controls.ndim != 2 or clusters.shape != values.shape:
        shapes = f"{values.shape}, {controls.shape} and {clusters.shape}"
        raise ValueError(f"values, controls and clusters have shapes {shapes}; they must be (n,), (n, c) and (n,)")
    names, label = np.unique(clusters, return_inverse=True)
    if len(names) < 2 or folds < 2:
        raise ValueError(f"clusters has {len(names)} labels and folds is {folds}; both must be at least 2")
    left, part = np.empty_like(values), label % folds
    for fold in range(min(folds, len(names))):
        inside, others = part == fold, part != fold
        spread = controls[others] - controls[others].mean(axis=0)
        slopes = np.linalg.lstsq(spread, values[others] - values[others].mean(), rcond=None)[0]
        left[inside] = values[inside] - controls[inside] @ slopes
    return Controlled(
        float(values.mean()),
        _clustered_error(values, label),
        float(left.mean()),
        _clustered_error(left, label),
        float(left.var() / max(values.var(), np.finfo(np.float64).tiny)),
    )


def _clustered_error(values: np.ndarray, label: np.ndarray) -> float:
    """Standard error of the mean of values (n,) whose clusters (n,) are numbered from 0."""
    sums = np.bincount(label, values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values))


def compare(
    episodes: dict[str, np.ndarray], baselines: tuple[str, ...] = ("crossing_twap", "passive_twap"), seed: int = 0
) -> list[PolicySummary]:
    """Summaries of policies that met the same episodes.

    Args:
        episodes: by policy's name, (n,) EPISODE in one order; see ``evaluate``. Those of an evaluation with control
            also get means without the luck of the market's path.
        baselines: policies to subtract, those of them that are there.
        seed: of the bootstrap. All intervals draw the same clusters.
    """
    _check_paired(episodes)
    return [_summary(name, rows, episodes, baselines, seed) for name, rows in episodes.items()]


def _summary(
    name: str, rows: np.ndarray, episodes: dict[str, np.ndarray], baselines: tuple[str, ...], seed: int
) -> PolicySummary:
    context = rows["context"]
    differences = {
        other: bootstrap(rows["shortfall_bps"] - episodes[other]["shortfall_bps"], context, seed)
        for other in baselines
        if other in episodes and other != name
    }
    return PolicySummary(
        name=name,
        shortfall_bps=bootstrap(rows["shortfall_bps"], context, seed),
        shortfall_half_spreads=bootstrap(rows["shortfall_half_spreads"], context, seed),
        fill_rate=float(rows["fill_rate"].mean()),
        maker_share=float(rows["maker_share"].mean()),
        steps=float(rows["steps"].mean()),
        differences=differences,
        controlled=_controlled(rows, {other: episodes[other] for other in differences}),
    )


def _controlled(rows: np.ndarray, baselines: dict[str, np.ndarray]) -> dict[str, Controlled]:
    if "control_bps" not in (rows.dtype.names or ()):
        return {}
    context = rows["context"]
    # One context has no others to compare with: then each seed stands for itself.
    clusters = context if len(np.unique(context)) > 1 else rows["seed"]
    found = {"shortfall": rows["shortfall_bps"], "impact": rows["move_bps"]}
    found |= {f"minus {name}": rows["shortfall_bps"] - other["shortfall_bps"] for name, other in baselines.items()}
    return {name: controlled(values, rows["control_bps"], clusters) for name, values in found.items()}


def _check_paired(episodes: dict[str, np.ndarray]) -> None:
    if not episodes:
        raise ValueError("episodes is empty; it must hold at least one policy")
    first_name, first = next(iter(episodes.items()))
    for name, rows in episodes.items():
        same = len(rows) == len(first) and all(
            (rows[field] == first[field]).all() for field in ("seed", "context", "side", "quantity")
        )
        if not same:
            raise ValueError(f"episodes of {name!r} are not those of {first_name!r}; paired differences need the same")
