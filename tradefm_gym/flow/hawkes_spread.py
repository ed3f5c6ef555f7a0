"""How wide the spread of a Hawkes flow is, and the marks with which it is as wide as recorded.

Nothing in the process itself knows the spread: takers and cancels widen it, orders inside narrow it, and where the two
balance is decided by how orders near the touch are placed. One number is free there (``mark_tables``), and set so that
the simulated spread equals that of the training part in its geometric mean.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.hawkes import HawkesFlow, seed_bank
from tradefm_gym.flow.hawkes_events import TypedDay, mark_tables
from tradefm_gym.flow.hawkes_parameters import MARK_BITS, HawkesParameters
from tradefm_gym.market.simulator import MarketSimulator

_MARKETS = 32
_BURN_IN, _EVENTS, _EVERY = 1024, 3072, 16
_HALVINGS = 6
_SEED = 0x59EAD


def recorded_spread(recorded: RecordedFlow, day: TypedDay) -> float:
    """Geometric mean of the spread over the training events, in ticks."""
    touch = recorded.touch[day.rows[day.train]].astype(np.int64)
    both = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 2] > touch[:, 0])
    return float(np.exp(np.log((touch[:, 2] - touch[:, 0])[both]).mean()))


def simulated_spread(parameters: HawkesParameters) -> float:
    """The same of 32 markets, from event 1,024 to 3,072 after the usual book."""
    flow = HawkesFlow(_MARKETS, parameters, seed_bank(parameters))
    market = MarketSimulator(_MARKETS, flow.market_config())
    seeds = np.arange(_MARKETS, dtype=np.uint64) + np.uint64(_SEED)
    zeros = np.zeros(_MARKETS, np.int64)
    flow.reset(market, np.ones(_MARKETS, bool), zeros, seeds, zeros.astype(np.uint32))
    total, seen = 0.0, 0
    for target in range(_BURN_IN, _EVENTS + 1, _EVERY):
        while (starved := market.advance(until_count=np.full(_MARKETS, target))).any():
            market.feed(flow.next_events(market, starved))
        bid, ask = market.touch()
        both = (bid > 0) & (ask > bid)
        total, seen = total + float(np.log((ask - bid)[both]).sum()), seen + int(both.sum())
    return float(np.exp(total / seen)) if seen else np.inf


def with_recorded_spread(
    parameters: HawkesParameters, day: TypedDay, target: float, symmetric: bool, tell: Callable[[str], None]
) -> HawkesParameters:
    """The parameters with the marks under which their spread comes nearest to ``target`` ticks.

    The more orders near the touch close the spread, the narrower it is: their share is found by halving.
    """
    tried: list[tuple[float, float, HawkesParameters]] = []

    def spread_with(refilling: float) -> float:
        tell(f"spread, refilling {refilling:.3f}")
        marks = mark_tables(day, symmetric, 1 << MARK_BITS, refilling)
        made = replace(parameters, marks=marks)
        spread = simulated_spread(made)
        facts = {"recorded": target, "simulated": spread, "refilling": refilling}
        tried.append(
            (abs(np.log(spread / target)), spread, replace(made, report=parameters.report | {"spread": facts}))
        )
        return spread

    low, high = (0.0, 1.0) if spread_with(0.0) > target else (-1.0, 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if spread_with(middle) > target else (low, middle)
    return min(tried, key=lambda entry: entry[0])[2]
