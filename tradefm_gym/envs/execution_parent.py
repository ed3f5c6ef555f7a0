"""How big a parent order is where nobody says it: a part of what the start context's market usually trades."""

import math
from functools import lru_cache
from typing import NamedTuple

LEAST_PARENT = 64  # lots: below it a parent order cannot be divided finely enough to say anything
PARTICIPATION = 0.1  # of the volume that the horizon usually brings
THIN_PARTICIPATION = 0.5  # the same in a thin market
THIN_PARENT = 2  # lots: a single one cannot be divided at all
MAX_QUANTITY = 2**31 - 1


class Parent(NamedTuple):
    """A parent order made to measure."""

    quantity: int  # lots; 0: the market trades too little for any
    decisions: int
    reason: str  # why it is smaller than others, "" where it is not
    thin: bool  # the market usually trades less than a lot for each decision


@lru_cache(maxsize=4096)
def usual_parent(
    lots_per_event: float, interval: float, decisions: int, participation: float = PARTICIPATION, said: str = ""
) -> Parent:
    """max(64 lots, 10% (``participation``) of the horizon's usual volume), where that volume is at least 64 lots.

    Where it is not, 64 lots would be more than the whole market. A horizon that is merely short gets a parent of all
    that it usually trades. In a thin market, one that trades less than a lot for each decision, there are fewer
    decisions, one for each lot of the usual volume, and the parent is half of what these usually bring.

    Args:
        lots_per_event: that the market usually trades.
        interval: background events that usually happen between two decisions.
        decisions: asked for.
        participation: part of the usual volume.
        said: how ``reason`` calls the interval.
    """
    said = said or f"{interval:g} events"
    expected = lots_per_event * decisions * interval
    if not math.isfinite(expected):
        expected = 0.0
    if expected >= LEAST_PARENT:
        return Parent(min(max(LEAST_PARENT, math.floor(participation * expected)), MAX_QUANTITY), decisions, "", False)
    lots = math.floor(expected)
    reason = f"the context usually trades {lots} lots within {decisions} decisions of {said}"
    if expected >= decisions:
        return Parent(lots, decisions, f"{reason}, fewer than {LEAST_PARENT}: the parent order is all of them", False)
    quantity = math.floor(THIN_PARTICIPATION * lots_per_event * interval * lots) if lots else 0
    if quantity < THIN_PARENT:
        return Parent(0, decisions, f"{reason}, and a parent order needs at least {least_volume(decisions)}", True)
    reason += f", fewer than {LEAST_PARENT}: there are {lots} decisions for a parent order of {quantity}"
    return Parent(quantity, lots, reason, True)


def least_volume(decisions: int) -> int:
    """Lots that a market must usually trade within so many decisions for a parent order to fit it."""
    thin = math.ceil(math.sqrt(THIN_PARENT / THIN_PARTICIPATION * decisions))
    return min(LEAST_PARENT, decisions, thin)
