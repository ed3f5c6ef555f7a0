"""Compound Hawkes parameters made by hand, small enough to run with the compiler off."""

import numpy as np

from tradefm_gym.flow.hawkes_events import TYPES
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.hawkes_process import HawkesProcess


def small_process(edges=()) -> HawkesProcess:
    """Twelve types, two decays, some inhibition."""
    count = len(TYPES)
    baseline = np.repeat(np.array([0.5, 0.8, 1.0, 0.5, 1.4, 0.4]), 2)[:, None] * np.linspace(1.0, 2.0, len(edges) + 1)
    amplitudes = np.zeros((count, count, 2))
    for i in range(count):
        for j in range(count):
            amplitudes[i, j] = (0.02 + 0.01 * (i // 2 == j // 2), 0.015 * ((i + j) % 3))
    amplitudes[0:2, 10:12, 0] = -0.3  # after a taker nobody improves the touch for a while
    floor = 0.01 * baseline[:, 0]
    return HawkesProcess(baseline, np.array(edges, np.float64), np.array([2.0, 150.0]), amplitudes, floor)


def small_parameters(**changes) -> HawkesParameters:
    """A book of forty orders a side around 10,000 ticks."""
    ticks = {"limit inside": (1, 2, 4), "limit deep": (3, 5, 9), "cancel deep": (-5, -2, 0)}
    ticks["marketable"] = (-2, -1, 0)
    marks = np.zeros((len(TYPES), 6, 3), np.int64)
    for i, name in enumerate(TYPES):
        marks[i, :, 0] = np.repeat(ticks.get(name.split(" ", 1)[1], (0, 0, 0)), 2)
        marks[i, :, 1] = (10, 20, 30, 10, 50, 80)
    marks[10:, -1, 2] = 15  # a taker of whom something rests
    side = np.stack([1 + np.arange(40) // 4, 10 + 10 * (np.arange(40) % 4)], axis=1).astype(np.int32)
    values = {
        "process": small_process(),
        "marks": marks.astype(np.int32),
        "bids": side,
        "asks": side.copy(),
        "mid": 10_000,
        "report": {},
    }
    return HawkesParameters(**{**values, **changes})
