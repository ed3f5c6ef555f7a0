"""What episodes say about policies: means and paired differences, with intervals clustered by context."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


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
    """

    name: str
    shortfall_bps: Estimate
    shortfall_half_spreads: Estimate
    fill_rate: float
    maker_share: float
    steps: float
    differences: dict[str, Estimate]

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


def compare(
    episodes: dict[str, np.ndarray], baselines: tuple[str, ...] = ("crossing_twap", "passive_twap"), seed: int = 0
) -> list[PolicySummary]:
    """Summaries of policies that met the same episodes.

    Args:
        episodes: by policy's name, (n,) EPISODE in one order; see ``evaluate``.
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
    )


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
