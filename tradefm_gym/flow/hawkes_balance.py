"""The marks under which a Hawkes flow's spread is as wide, and its mid as restless, as recorded.

Nothing in the process knows the book, and two things are decided by how orders meet it: takers and cancels widen the
spread and orders near the touch close it; and cancels that keep to their side and depth can use up a side that chance
has made thin, where cancels of any order are the more frequent on the fuller side. One number for each is free in
``mark_tables``; they are set so that two figures of the simulated market equal those of the training part.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.hawkes import HawkesFlow, seed_bank
from tradefm_gym.flow.hawkes_events import TypedDay, mark_tables
from tradefm_gym.flow.hawkes_parameters import MARK_BITS, HawkesParameters
from tradefm_gym.market.simulator import MarketSimulator

_MARKETS = 32
_BURN_IN, _EVENTS, _EVERY = 1024, 4096, 16
_STRIDE = 64  # events over which the mid's change is looked at
_HALVINGS = 6
_SEED = 0x59EAD


class Balance(NamedTuple):
    """Two figures of a market."""

    spread: float  # geometric mean, ticks
    move: float  # mean absolute change of the mid over 64 events, ticks

    def away_from(self, other: "Balance") -> float:
        """Sum of the logarithms of both ratios."""
        return sum(abs(float(np.log(max(a, 1e-3) / max(b, 1e-3)))) for a, b in zip(self, other, strict=True))


def recorded_balance(recorded: RecordedFlow, day: TypedDay) -> Balance:
    """The figures of the training part."""
    rows = day.rows[day.train]
    touch = recorded.touch[rows].astype(np.int64)
    both = (touch[:, 1] > 0) & (touch[:, 3] > 0) & (touch[:, 2] > touch[:, 0])
    spread, mid = (touch[:, 2] - touch[:, 0])[both], (touch[:, 2] + touch[:, 0])[both] / 2
    return Balance(float(np.exp(np.log(spread).mean())), float(np.abs(mid[_STRIDE:] - mid[:-_STRIDE]).mean()))


def simulated_balance(parameters: HawkesParameters) -> Balance:
    """The same of 32 markets, from event 1,024 to 4,096 after the usual book."""
    flow = HawkesFlow(_MARKETS, parameters, seed_bank(parameters))
    market = MarketSimulator(_MARKETS, flow.market_config())
    seeds = np.arange(_MARKETS, dtype=np.uint64) + np.uint64(_SEED)
    zeros = np.zeros(_MARKETS, np.int64)
    flow.reset(market, np.ones(_MARKETS, bool), zeros, seeds, zeros.astype(np.uint32))
    spreads, mids = [], []
    for target in range(_BURN_IN, _EVENTS + 1, _EVERY):
        while (starved := market.advance(until_count=np.full(_MARKETS, target))).any():
            market.feed(flow.next_events(market, starved))
        bid, ask = market.touch()
        both = (bid > 0) & (ask > bid)
        spreads.append((ask - bid)[both])
        mids.append(market.mid2 / 2)
    moves = np.array(mids)[_STRIDE // _EVERY :] - np.array(mids)[: -_STRIDE // _EVERY]
    return Balance(float(np.exp(np.log(np.concatenate(spreads)).mean())), float(np.abs(moves).mean()))


def balanced(
    parameters: HawkesParameters, day: TypedDay, target: Balance, symmetric: bool, tell: Callable[[str], None]
) -> HawkesParameters:
    """The parameters with the marks under which both figures come nearest to ``target``, by halving."""
    tried: list[tuple[float, HawkesParameters]] = []

    def made(refilling: float, scattering: float) -> Balance:
        tell(f"balance of the book: refilling {refilling:.3f}, scattering {scattering:.3f}")
        changed = replace(parameters, marks=mark_tables(day, symmetric, 1 << MARK_BITS, refilling, scattering))
        found = simulated_balance(changed)
        facts = {"refilling": refilling, "scattering": scattering, "simulated": found._asdict()}
        report = parameters.report | {"balance": {"recorded": target._asdict(), **facts}}
        tried.append((found.away_from(target), replace(changed, report=report)))
        return found

    def moves_most(scattering: float) -> bool:
        """Whether the mid moves more than recorded where the spread is right; more refilling narrows it."""
        low, high = (0.0, 1.0) if made(0.0, scattering).spread > target.spread else (-1.0, 0.0)
        found = None
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            found = made(middle, scattering)
            low, high = (middle, high) if found.spread > target.spread else (low, middle)
        assert found is not None
        return found.move > target.move

    if moves_most(0.0):
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if moves_most(middle) else (low, middle)
    return min(tried, key=lambda entry: entry[0])[1]
