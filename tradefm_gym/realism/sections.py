"""The sections of a card: each turns what was measured of one arm of one set into rows.

A section of your own is a function ``(subject) -> list[Row]`` and an entry in ``SECTIONS``; the card runs it for every
arm of every set, keeps its rows, and shows a metric that has no picture of its own in a table. One that needs more than
samples rolls the flow out itself: ``subject.make_flow``; what takes long so is a probe, run when it is asked for (see
``probes.PROBES``). A rule in ``verdict.RULES`` makes it count.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.realism.bootstrap import Estimate
from tradefm_gym.realism.discriminator import discriminate
from tradefm_gym.realism.distances import (
    Sample,
    compare,
    compare_given,
    deviation_floor,
    deviation_ratio,
    floor,
    floor_given,
    over_horizon,
    paired_ratio,
)
from tradefm_gym.realism.forecasts import COLUMNS
from tradefm_gym.realism.measured import ALONG, FILL_WINDOW, GIVEN, STRETCHES, Measured
from tradefm_gym.realism.path import MarketPath
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.rows import Row, of
from tradefm_gym.realism.scores import (
    RANK_BINS,
    comparable,
    crps,
    pooled_skill,
    rank_histogram,
    ranks,
    skill,
    uniformity,
)
from tradefm_gym.realism.stylised import agreement, facts

METRICS = ("ks", "w1", "js")
POOLED = "pooled"
RANK_SHARE = "rank_share_"  # and the number of a bin, from 1
# Outcomes whose histograms of ranks are kept of every set; of all outcomes they would make the card twice as long.
RANKED = (
    "return_256_events", "realised_variance_256_events", "mean_spread_256_events", "volume_256_events",
    "event_count_10s",
)  # fmt: skip
COLUMN_NAMES = tuple(f"{name}_{horizon}{'_events' if unit == 'events' else 's'}" for name, horizon, unit in COLUMNS)


@dataclass(frozen=True, eq=False)
class Subject:
    """One arm of one set, and what it is held against.

    Attributes:
        set: name of the recorded day.
        arm: name of the arm.
        measured: of the arm.
        real: of the test part.
        real_stretches: of those stretches of it that ``round_trip`` repeats.
        reference: of the reference flow, None where there is none or this is it.
        replicates: of the bootstrap.
        recorded: the day, None where there is none.
        make_flow: the flow for N markets, whose start states are ``recorded.starts`` of the card's effort; None for
            arms that are no flows.
        paths: what probes ask about takers and makers, the record or long rollouts; None for arms that are not probed.
        agents: markets with an agent in them, for probes.
        flow_at: the flow for N markets whose start states stand before given records of ``recorded``, (s,) int64.
    """

    set: str
    arm: str
    measured: Measured
    real: Measured
    real_stretches: Measured | None = None
    reference: Measured | None = None
    replicates: int = 200
    recorded: RecordedSet | None = None
    make_flow: Callable[[int], FlowModel] | None = None
    paths: Callable[[], Sequence[MarketPath]] | None = None
    agents: int = 0
    flow_at: Callable[[np.ndarray, int], FlowModel] | None = None

    def row(self, quantity: str, metric: str, estimate: Estimate | float, n: int) -> Row:
        """A row of this arm; ``n`` real samples."""
        numbers = of(estimate) if isinstance(estimate, Estimate) else {"value": float(estimate)}
        return Row(self.set, quantity, metric, self.arm, **numbers, n=n, seeds=self.measured.seeds)


def distances(subject: Subject) -> list[Row]:
    """Distance of every quantity from the test part, and as a share of the reference flow's."""
    rows = []
    if subject.arm == "real":
        return rows
    for name, real in subject.real.samples.items():
        found = _distance(subject, real, name)
        rows += [subject.row(name, metric, found[metric], len(real.values)) for metric in METRICS if found]
        if found and name.startswith("log_return_"):
            rows.append(subject.row(name, "deviation_ratio", _deviation(subject, real, name), len(real.values)))
        other = subject.reference and subject.reference.samples.get(name)
        if found and other:
            arm = subject.measured.samples[name]
            for metric in ("ks", "w1"):
                ratio = paired_ratio(real, arm, other, metric, subject.replicates)
                rows.append(subject.row(name, f"{metric}_over_reference", ratio, len(real.values)))
    return rows


def _distance(subject: Subject, real: Sample, name: str) -> dict[str, Estimate]:
    if subject.arm == "floor":
        return floor(real, subject.replicates) if len(np.unique(real.block)) > 1 else {}
    arm = subject.measured.samples.get(name)
    return {} if arm is None else compare(real, arm, subject.replicates)


def _deviation(subject: Subject, real: Sample, name: str) -> Estimate:
    if subject.arm == "floor":
        return deviation_floor(real, subject.replicates)
    return deviation_ratio(real, subject.measured.samples[name], subject.replicates)


def conditional_distances(subject: Subject) -> list[Row]:
    """Distance of one statistic within bins of another (as LOB-Bench, Nagy et al. 2025)."""
    rows = []
    if subject.arm == "real":
        return rows
    for name in map("|".join, GIVEN):
        real, arm = subject.real.given.get(name), subject.measured.given.get(name)
        if real is None or arm is None:
            continue
        if subject.arm == "floor" and len(np.unique(real[0].block)) < 2:
            continue
        try:
            if subject.arm == "floor":
                found = floor_given(*real, replicates=subject.replicates)
            else:
                found = compare_given(*real, *arm, replicates=subject.replicates)
        except ValueError:  # no bin of the condition is ever visited
            continue
        rows += [subject.row(name, f"{metric}_given", found[metric], len(real[0].values)) for metric in METRICS]
    return rows


def stylised_facts(subject: Subject) -> list[Row]:
    """Facts of one-second returns, and whether the arm has the four that markets are known for.

    NaN where the record does not have one: of a market whose mid stands still in most seconds the tail is undefined.
    """
    if subject.arm == "floor" or not subject.measured.returns:
        return []
    n = sum(map(len, subject.real.returns))
    mine = _facts(subject.measured, subject.replicates)
    rows = [subject.row(name, "fact", estimate, n) for name, estimate in mine.items()]
    if subject.arm != "real" and subject.real.returns:
        found = agreement(_facts(subject.real, subject.replicates), mine)
        rows += [
            subject.row(name, "agrees", float(one.agrees) if one.measurable else np.nan, n)
            for name, one in found.items()
        ]
    return rows


def _facts(measured: Measured, replicates: int) -> dict[str, Estimate]:
    signs = measured.signs or None
    return facts(measured.returns, measured.volumes, signs, replicates=replicates)


def rollout_drift(subject: Subject) -> list[Row]:
    """Distances of the first and last quarter of the rollouts, their ratio, and those of stretches as they go on."""
    rows = []
    for name, real in subject.real.samples.items():
        first, last = subject.measured.first.get(name), subject.measured.last.get(name)
        if first is None or last is None:
            continue
        n = len(real.values)
        for metric, estimate in (
            ("ks_first_quarter", compare(real, first, subject.replicates)["ks"]),
            ("ks_last_quarter", compare(real, last, subject.replicates)["ks"]),
            ("ks_last_over_first", paired_ratio(real, last, first, "ks", subject.replicates)),
        ):
            rows.append(subject.row(name, metric, estimate, n))
    return rows + _along(subject)


def _along(subject: Subject) -> list[Row]:
    rows = []
    for name in ALONG:
        real = subject.real.samples.get(name)
        found = {stretch: subject.measured.along.get(f"{name}|{stretch}") for stretch in STRETCHES}
        kept = {stretch: sample for stretch, sample in found.items() if sample is not None}
        if real is None or not kept:
            continue
        told = over_horizon(real, list(kept.values()), subject.replicates)
        for metric in ("ks", "w1"):
            for stretch, estimate in zip(kept, told[metric], strict=True):
                rows.append(subject.row(name, f"{metric}_{stretch}", estimate, len(real.values)))
    return rows


def health(subject: Subject) -> list[Row]:
    """Share of events with an empty side, and the largest spread over the recorded median."""
    real = subject.real.samples.get("spread")
    if subject.arm == "floor" or real is None:
        return []
    empty, largest = subject.measured.health.T
    median = float(np.median(real.values))
    n = len(real.values)
    return [
        subject.row("empty_side", "share", float(empty.mean()), n),
        subject.row("spread", "largest_over_median", float(largest.max()) / median, n),
    ]


def discriminator(subject: Subject) -> list[Row]:
    """How well a classifier tells windows of 64 events from recorded ones.

    Not those of ``replayed``: a window that it learnt from as recorded has its twin there, and misleads it.
    """
    if subject.arm in ("real", "floor", "replayed"):
        return []
    (real, real_block), (arm, arm_block) = subject.real.windows, subject.measured.windows
    if min(len(np.unique(real_block)), len(np.unique(arm_block))) < 2:
        return []
    estimate = discriminate(real, arm, real_block, arm_block, replicates=subject.replicates)
    return [subject.row("window_64_events", "auc", estimate, len(real))]


def forecasts(subject: Subject) -> list[Row]:
    """Score of forecasts, their skill over the reference flow, ranks of the truth, and whether these are even.

    No skill where the reference cannot be held against: see ``scores.comparable``.
    """
    measured, rows = subject.measured, []
    if not measured.ensemble.size:
        return []
    starts, members, _ = measured.ensemble.shape
    for c, name in enumerate(COLUMN_NAMES):
        ensemble, truth = measured.ensemble[:, :, c], measured.truth[:, c]
        scores = crps(ensemble, truth)
        rows.append(subject.row(name, "crps", float(scores.mean()), starts))
        place = ranks(ensemble, truth)
        rows.append(subject.row(name, "rank_p", uniformity(place, members, rank_bins(members)), starts))
        if name in RANKED:
            shares = _rank_shares(place, members)
            rows += [subject.row(name, metric, share, starts) for metric, share in shares.items()]
        others = _reference_scores(subject, c)
        if others is not None:
            found = skill(scores, others, measured.blocks[:, c], subject.replicates)
            rows.append(subject.row(name, "crps_skill", found, starts))
    return rows


def _reference_scores(subject: Subject, c: int) -> np.ndarray | None:
    """Scores (s,) of the reference in a column, None where there is none or it says nothing."""
    if subject.reference is None:
        return None
    ensemble, truth = subject.reference.ensemble[:, :, c], subject.measured.truth[:, c]
    scores = crps(ensemble, truth)
    return scores if comparable(truth, ensemble, scores) else None


def rank_bins(members: int) -> int:
    """Bins of a rank histogram: equal ones of about a tenth, where the number of ranks has such a divisor."""
    good = [bins for bins in range(6, 13) if (members + 1) % bins == 0]
    return min(good, key=lambda bins: abs(bins - RANK_BINS)) if good else RANK_BINS


def _rank_shares(place: np.ndarray, members: int) -> dict[str, float]:
    """Shares of truths by bin of their ranks (s,), from the lowest on: all equal where forecasts are honest."""
    counts, _ = rank_histogram(place, members, rank_bins(members))
    return {f"{RANK_SHARE}{i + 1}": float(count / len(place)) for i, count in enumerate(counts)}


def to_pool(subject: Subject) -> Subject:
    """What ``pooled_forecasts`` needs of a subject; samples of many sets together take memory."""
    kept = [
        one and Measured(ensemble=one.ensemble, truth=one.truth, blocks=one.blocks, seeds=one.seeds)
        for one in (subject.measured, subject.reference)
    ]
    return Subject(subject.set, subject.arm, kept[0] or Measured(), Measured(), None, kept[1], subject.replicates)


def pooled_forecasts(subjects: Sequence[Subject], name_of_all: str = POOLED) -> list[Row]:
    """Skill of one flow over the reference, pooled over those of its sets in which it says something."""
    rows = []
    usable = [s for s in subjects if s.measured.ensemble.size and s.reference is not None]
    for c, name in enumerate(COLUMN_NAMES):
        sets, starts, seeds = [], 0, 0
        for subject in usable:
            measured, others = subject.measured, _reference_scores(subject, c)
            if others is not None:
                scores = crps(measured.ensemble[:, :, c], measured.truth[:, c])
                sets.append((scores, others, measured.blocks[:, c]))
                starts, seeds = starts + len(scores), seeds + measured.seeds
        if sets:
            estimate = pooled_skill(sets, usable[0].replicates)
            rows.append(Row(name_of_all, name, "crps_skill", usable[0].arm, **of(estimate), n=starts, seeds=seeds))
    return rows


def pooled_ranks(subjects: Sequence[Subject], name_of_all: str = POOLED) -> list[Row]:
    """Rank histograms of one flow over the starts of all its sets."""
    rows, usable = [], [one for one in subjects if one.measured.ensemble.size]
    if not usable:
        return rows
    members = usable[0].measured.ensemble.shape[1]
    seeds = sum(one.measured.seeds for one in usable)
    for c, name in enumerate(COLUMN_NAMES):
        place = np.concatenate([ranks(one.measured.ensemble[:, :, c], one.measured.truth[:, c]) for one in usable])
        figures = {"rank_p": uniformity(place, members, rank_bins(members))} | _rank_shares(place, members)
        arm, n = usable[0].arm, len(place)
        rows += [Row(name_of_all, name, metric, arm, value, n=n, seeds=seeds) for metric, value in figures.items()]
    return rows


def fills(subject: Subject) -> list[Row]:
    """Fills of recorded orders that went through the tokenizer and back, against the recorded fills.

    Per window of 64 events the number of fills and the volume filled. ``distribution_correlation``: Pearson's, of the
    shares of windows of the two samples in 20 bins of equal width of the square root, counts in whole numbers.
    ``distribution_correlation_of_none``: what a market without a fill has, close to 1 where most windows have none.
    ``quantile_correlation``: Pearson's, of the two samples' quantiles at 1%, 2%, ..., 99%.
    ``window_correlation``: Pearson's, window by window.
    """
    real, mine = subject.real_stretches, subject.measured.fills
    if len(mine) == len(subject.real.fills):  # the whole test part in one piece
        real = subject.real
    if subject.arm not in ("round_trip", "replayed") or real is None or len(real.fills) < 2:
        return []
    rows, n = [], len(real.fills)
    for column, name in enumerate((f"fill_count_{FILL_WINDOW}_events", f"fill_volume_{FILL_WINDOW}_events")):
        x, y = real.fills[:, column], mine[:, column]
        if not len(y):
            continue
        edges = np.linspace(0, np.sqrt(max(x.max(), y.max(), 1)), 21) ** 2
        if column == 0:
            edges = np.append(np.unique(np.ceil(edges)), np.inf) - 0.5
        real_shares, shares, none = (
            np.histogram(values, edges)[0] / len(values) for values in (x, y, np.zeros_like(x))
        )
        points = np.linspace(0.01, 0.99, 99)
        figures = {
            "distribution_correlation": _correlation(real_shares, shares),
            "distribution_correlation_of_none": _correlation(real_shares, none),
            "quantile_correlation": _correlation(np.quantile(x, points), np.quantile(y, points)),
            "mean_over_real": float(y.mean() / x.mean()) if x.mean() else np.nan,
        }
        if len(x) == len(y):
            figures["window_correlation"] = _correlation(x, y)
        rows += [subject.row(name, metric, value, n) for metric, value in figures.items()]
    return rows


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else float("nan")


SECTIONS: dict[str, Callable[[Subject], list[Row]]] = {
    "distances": distances,
    "conditional_distances": conditional_distances,
    "stylised_facts": stylised_facts,
    "rollout_drift": rollout_drift,
    "health": health,
    "discriminator": discriminator,
    "forecasts": forecasts,
    "fills": fills,
}
