"""Whether a flow does what its control indicators say: each is told alone, on fixed start states and random numbers.

Every market runs once for each class of an indicator, and all runs of it draw the same words by proposal, so that the
classes differ by what was told and by what came of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.scenarios import Busy, Control, Scenario, Thin, indicators_of
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.events import BACKGROUND, CANCEL
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.realism.averages import figure, figures, replicated_means
from tradefm_gym.realism.bootstrap import estimate

# Of a run: mean log(1 + size / median) of adds; mean and variance of log10 seconds between events; the natural
# logarithm of the mean of those seconds; executed lots an event, in medians; mean spread over the usual one.
MEASURES = ("log_volume", "log_wait", "log_wait_variance", "log_mean_wait", "traded", "spread")
EVENTS = 256
_CLASSES = 5  # of an indicator that has more, evenly spaced
_SHORTEST_S = 1e-6
REGIMES: Mapping[str, Scenario] = {"thin": Thin(), "busy": Busy()}


def classes_of(flow: FlowModel) -> dict[str, tuple[int, ...]]:
    """The classes of each indicator that are told, ascending."""
    return {
        name: tuple(np.unique(np.linspace(0, count - 1, min(count, _CLASSES)).round().astype(int)).tolist())
        for name, count in indicators_of(flow).items()
    }


def control_rows(
    flow: FlowModel, contexts: np.ndarray, seeds: np.ndarray, arm: str = "flow", events: int = EVENTS
) -> list[dict[str, Any]]:
    """What each indicator does, and the regimes made of them.

    Args:
        flow: for N markets.
        contexts: (N,) start states; intervals resample them.
        seeds: (N,) uint64.
        arm: name.
        events: background events of a run.

    Returns:
        Rows ``control_INDICATOR`` with the metrics ``MEASURE_at_CLASS``, less what the same market does untold;
        ``MEASURE_range``, the highest class less the lowest; and ``MEASURE_monotone``, 1 if every step from class to
        class goes one way and each one's interval leaves out 0. Rows ``regime_thin`` and ``regime_busy`` with the
        metrics ``MEASURE``, likewise less the untold.
    """
    stressed, n = StressedFlow(flow), flow.num_envs
    contexts = np.asarray(contexts, np.int64)
    usual = measured(stressed, contexts, seeds, None, events)
    rows = []
    for name, scenario in REGIMES.items():
        moved = measured(stressed, contexts, seeds, scenario, events) - usual
        rows += figures(f"regime_{name}", MEASURES, arm, moved, contexts, n)
    for name, classes in classes_of(flow).items():
        told = [
            measured(stressed, contexts, seeds, Control(**{name: value}, fixed=True), events) - usual
            for value in classes
        ]
        for value, moved in zip(classes, told, strict=True):
            rows += figures(f"control_{name}", [f"{one}_at_{value}" for one in MEASURES], arm, moved, contexts, n)
        rows += _over_classes(f"control_{name}", arm, told, contexts)
    return rows


def _over_classes(quantity: str, arm: str, told: Sequence[np.ndarray], contexts: np.ndarray) -> list[dict[str, Any]]:
    """Highest class less the lowest, and whether all steps between them go one way, of each measure."""
    n = len(contexts)
    rows = figures(quantity, [f"{one}_range" for one in MEASURES], arm, told[-1] - told[0], contexts, n)
    steps = [replicated_means(after - before, contexts)[0] for before, after in pairwise(told)]
    for column, measure in enumerate(MEASURES):
        found = [estimate(step[:, column]) for step in steps]
        one_way = all(one.low > 0 for one in found) or all(one.high < 0 for one in found)
        rows.append(figure(quantity, f"{measure}_monotone", arm, float(one_way), n, n))
    return rows


def measured(
    flow: StressedFlow, contexts: np.ndarray, seeds: np.ndarray, scenario: Scenario | None, events: int
) -> np.ndarray:
    """``MEASURES`` (N, 6) of markets that run for so many events under a scenario."""
    n = flow.num_envs
    config = replace(flow.market_config(0), tape=1 << (events + 2048).bit_length())
    market = MarketSimulator(n, config)
    flow.choose(np.arange(n), [scenario] * n)
    flow.reset(market, np.ones(n, bool), contexts, np.asarray(seeds, np.uint64), np.zeros(n, np.uint32))
    before, start_ns, until = market.tape.record_count.copy(), market.clock_ns.copy(), market.background_count + events
    while (starved := market.advance(until_count=until)).any():
        market.feed(flow.next_events(market, starved))
    scale = flow.bank.scale[contexts]
    found = [
        _measures(market.tape.read_records(row, int(before[row])), int(start_ns[row]), scale[row]) for row in range(n)
    ]
    return np.array(found)


def _measures(records: np.ndarray, start_ns: int, scale: np.ndarray) -> list[float]:
    records = records[records["owner"] == BACKGROUND]
    adds, median = records[records["kind"] != CANCEL], float(scale["median_size"])
    wait = np.diff(records["time_ns"], prepend=start_ns) * 1e-9
    logs = np.log10(np.maximum(wait, _SHORTEST_S))
    return [
        float(np.log1p(adds["size"] / median).mean()) if len(adds) else np.nan,
        float(logs.mean()),
        float(logs.var()),
        float(np.log(max(wait.mean(), _SHORTEST_S))),
        float(adds["filled"].sum() / median / len(records)),
        float(records["spread"].mean() / scale["spread"]),
    ]
