"""Names for what kind of market a start context is, by the end of its tape: each is one half of its bank's part.

A regime is relative to the other contexts of the same part (``split``): "wild" means more so than the median one.
"""

import numpy as np

from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.market.events import CANCEL, PRINT

# Measure, name of the lower half, name of the upper half. A context at the median is in the lower one.
HALVES = (
    ("moves", "calm", "wild"),
    ("spread", "tight", "wide"),
    ("traded", "thin", "liquid"),
    ("pace", "slow", "fast"),
)
REGIMES = tuple(name for _, *names in HALVES for name in names)


def regimes(bank: ContextBank, contexts: np.ndarray) -> dict[str, np.ndarray]:
    """Of each name in ``REGIMES``, which of the contexts (k,) are of it (k,) bool."""
    figures = [_measured(bank, context) for context in contexts.tolist()]
    found = {}
    for measure, lower, upper in HALVES:
        values = np.array([one[measure] for one in figures])
        found[upper] = values > np.median(values)
        found[lower] = ~found[upper]
    return found


def _measured(bank: ContextBank, context: int) -> dict[str, float]:
    """What ``HALVES`` compares, of one context.

    Root mean square of the mid's moves and mean spread as parts of the price, median orders taken an event, and events
    a nanosecond.
    """
    state = bank.state(context)
    records = state.records[(state.records["kind"] != PRINT) & (state.records["mid2"] > 0)]
    if len(records) < 2:
        return dict.fromkeys((measure for measure, *_ in HALVES), 0.0)
    mid2 = records["mid2"].astype(np.float64)
    spreads = records["spread"][records["spread"] > 0]
    taken = records["filled"][records["kind"] != CANCEL].sum() / len(records)
    lasted = max(int(records["time_ns"][-1] - records["time_ns"][0]), 1)
    return {
        "moves": float(np.sqrt(np.mean(np.diff(mid2) ** 2)) / mid2.mean()),
        "spread": float(spreads.mean() / mid2.mean()) if len(spreads) else 0.0,
        "traded": float(taken / max(float(state.scale["median_size"]), 1.0)),
        "pace": len(records) / lasted,
    }
