"""From a recorded day to a Compound Hawkes flow, of the form that explains its validation part best."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version as installed_version

import numpy as np

from tradefm_gym.arguments import one_of, whole
from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.goodness import goodness_of_fit
from tradefm_gym.flow.hawkes_balance import balanced, recorded_balance
from tradefm_gym.flow.hawkes_events import TYPES, TypedDay, mark_tables, missing_types, typed_day
from tradefm_gym.flow.hawkes_fit import Fit, Form, fit
from tradefm_gym.flow.hawkes_parameters import MARK_BITS, HawkesParameters
from tradefm_gym.flow.hawkes_process import HawkesProcess, Observed, log_likelihood, poisson, spectral_radius
from tradefm_gym.flow.recorded_starts import prepare

_GAIN = 2e-3  # nats per event of the validation part: less is not worth more parameters
_LONGEST_MEMORY_S = 50.0
_FASTEST = 1e6  # per second
_STEPS = 200  # of a search from nothing
_STEPS_ON = 50  # of one that starts from a fit; with inhibition each takes long
_BOOK = 2048  # orders a side that a usual book keeps, the nearest

Progress = Callable[[str], None]


@dataclass(frozen=True)
class FitOptions:
    """What ``fit_hawkes`` may try."""

    decays: int = 12  # at most; 4, 8, ... and this number are compared on the validation part
    parts: int = 1  # parts of the training time with a baseline of their own; the last one goes on for ever
    inhibition: str = (
        "no"  # "yes", "no", or "choose": what explains the validation part better; takes ten times as long
    )
    symmetric: bool = True  # both sides of the book share their parameters
    choose_on: int = 30_000  # training events, the last ones, on which forms are compared; the winner is fitted on all

    def __post_init__(self) -> None:
        whole("decays", self.decays, 1, 12)
        whole("parts", self.parts, 1, 64)
        one_of("inhibition", self.inhibition, ("choose", "yes", "no"))
        whole("choose_on", self.choose_on, 100)


def fit_hawkes(
    recorded: RecordedFlow, options: FitOptions | None = None, progress: Progress | None = None
) -> HawkesParameters:
    """Fits process, marks and book to the training part of a recorded day.

    Decays lie evenly in logarithm between a memory of 50 s (less for a short part) and the shortest gaps; their number
    and whether amplitudes may be negative are chosen by the likelihood of the validation part. A type that the training
    part lacks never happens in the flow either.

    Raises:
        ValueError: if the day has too little in it.
        ImportError: if scipy is not installed.
    """
    options, tell = options or FitOptions(), progress or (lambda _: None)
    started = time.perf_counter()
    day = typed_day(recorded)
    marks = mark_tables(day, options.symmetric, 1 << MARK_BITS)
    train, validation = day.observed(day.train), day.observed(day.validation)
    edges, edges_ns = day.edges(options.parts)
    tried: list[dict] = []
    chosen = _chosen(day, validation, tuple(edges.tolist()), options, tried, tell)
    if len(train.counted) > options.choose_on:
        tell_all = _prefixed("all events", tell)
        chosen = fit(train, len(TYPES), chosen.form, chosen.process, None, 1e-7, _STEPS_ON, tell_all)
    tell("goodness of fit")
    seconds = time.perf_counter() - started
    report = _report(recorded, chosen, train, validation, tried, seconds)
    process = HawkesProcess(*(_rounded(array) for array in chosen.process))._replace(edges=edges_ns / 1e9)
    parameters = HawkesParameters(process, marks, *_usual_book(recorded, day), report)
    return balanced(parameters, day, recorded_balance(recorded, day), options.symmetric, tell)


def _chosen(
    day: TypedDay,
    validation: Observed,
    edges: tuple[float, ...],
    options: FitOptions,
    tried: list[dict],
    tell: Progress,
) -> Fit:
    """The fit of the form that explains the validation part best, on the last training events."""
    stop = day.train.stop
    part = day.observed(slice(max(day.train.start, stop - options.choose_on), stop))
    missing = missing_types(day, options.symmetric)
    best, best_score = None, -np.inf
    for count in sorted({*range(4, options.decays, 4), options.decays}):
        form = Form(_decays(day, count), edges, options.symmetric, inhibition=False, missing=missing)
        found, score = _scored(part, validation, form, None, tried, tell)
        if best is None or score > best_score + _GAIN:
            best, best_score = found, score
    assert best is not None
    if options.inhibition != "no":
        form = Form(best.form.decays, edges, options.symmetric, inhibition=True, missing=missing)
        found, score = _scored(part, validation, form, best, tried, tell)
        if options.inhibition == "yes" or score > best_score + _GAIN:
            best = found
    return best


def _scored(
    part: Observed, validation: Observed, form: Form, start: Fit | None, tried: list[dict], tell: Progress
) -> tuple[Fit, float]:
    begun = time.perf_counter()
    label = f"{len(form.decays)} decays" + (", inhibition" if form.inhibition else "")
    process = None if start is None else start.process
    steps = _STEPS_ON if form.inhibition else _STEPS
    found = fit(part, len(TYPES), form, process, None, 1e-7, steps, _prefixed(label, tell))
    score = log_likelihood(found.process, validation) / len(validation.counted)
    tried.append(
        {
            "decays": list(form.decays),
            "inhibition": form.inhibition,
            "train": found.log_likelihood / len(part.counted),
            "validation": score,
            "spectral_radius": spectral_radius(found.process),
            "seconds": round(time.perf_counter() - begun, 1),
        }
    )
    return found, score


def _decays(day: TypedDay, count: int) -> tuple[float, ...]:
    """``count`` decays per second, ascending, to two digits."""
    seconds = day.seconds[day.train]
    gaps = np.diff(seconds)
    slowest = max(1.0 / _LONGEST_MEMORY_S, 20.0 / (seconds[-1] - seconds[0]))
    fastest = min(max(1.0 / max(float(np.quantile(gaps, 0.05)), 1e-9), 10 * slowest), _FASTEST)
    if count == 1:
        return (float(f"{(slowest * fastest) ** 0.5:.1e}"),)
    return tuple(float(f"{decay:.1e}") for decay in np.geomspace(slowest, fastest, count))


def _rounded(array: np.ndarray) -> np.ndarray:
    """To six digits: files stay small, and no standard error is below that."""
    digits = 5 - np.floor(np.log10(np.maximum(np.abs(array), 1e-12)))
    return np.round(array * 10.0**digits) / 10.0**digits


def _prefixed(label: str, tell: Progress) -> Progress:
    return lambda text: tell(f"{label}: {text}")


def _usual_book(recorded: RecordedFlow, day: TypedDay) -> tuple[np.ndarray, np.ndarray, int]:
    """Bids and asks, (o, 2) ticks from the mid and lots each, and the mid: the book in the middle of training."""
    rows = day.rows[day.train]
    for share in (0.5, 0.6, 0.4, 0.7, 0.3, 0.8, 0.2):
        touch = recorded.touch[rows[int(share * len(rows))] - 1]
        if touch[1] > 0 and touch[3] > 0 and touch[2] > touch[0]:
            break
    else:
        raise ValueError("recorded flow has no two-sided book in the middle of its training part")
    state = prepare(recorded, at=rows[[int(share * len(rows))]]).bank.state(0)
    orders, sides = state.orders, []
    best = [int(orders["price"][orders["side"] > 0].max()), int(orders["price"][orders["side"] < 0].min())]
    mid = sum(best) // 2
    for side in (1, -1):
        own = orders[orders["side"] == side]
        ticks = side * (mid - own["price"].astype(np.int64))
        near = np.sort(np.argsort(ticks, kind="stable")[:_BOOK])
        sides.append(np.stack([ticks[near], own["size"][near]], axis=1).astype(np.int32))
    return sides[0], sides[1], mid


def _report(
    recorded: RecordedFlow, chosen: Fit, train: Observed, validation: Observed, tried: list[dict], seconds: float
) -> dict:
    process, meta = chosen.process, recorded.meta
    plain = poisson(train, len(TYPES), np.zeros(0))
    scores = {
        name: {
            "hawkes": log_likelihood(process, part) / len(part.counted),
            "poisson": log_likelihood(plain, part) / len(part.counted),
            "events": len(part.counted),
            "seconds": part.end - part.begin,
            "goodness_of_fit": [row.to_dict() for row in goodness_of_fit(process, part, TYPES)],
        }
        for name, part in (("train", train), ("validation", validation))
    }
    return {
        "provenance": {
            **{name: getattr(meta, name) for name in ("ticker", "venue", "date", "tick_size", "price_unit", "lot")},
            "tradefm_gym": installed_version("tradefm-gym"),
        },
        "fit": {
            "symmetric": chosen.form.symmetric,
            "inhibition": chosen.form.inhibition,
            "missing": [TYPES[i] for i in chosen.form.missing],
            "seconds": round(seconds, 1),
        },
        "nats_per_event": scores,
        "tried": tried,
    }
