"""Letting events happen in markets whose flow works while they do: the rows go in parts that take turns.

While a flow's engine decodes one part of the rows on its device, the book, the features and the placement of another
one are done here. A row's events are those that it would have in one part.
"""

from collections.abc import Callable

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.simulator import MarketSimulator


def go_on(
    market: MarketSimulator,
    flow: FlowModel,
    until: np.ndarray,
    starved: np.ndarray | None = None,
    advance: Callable[..., np.ndarray] | None = None,
    **ends: np.ndarray,
) -> np.ndarray:
    """Goes on to a count (N,) int64 of background events, or to another end that ``MarketSimulator.advance`` knows.

    Rows (N,) bool that are known to be starved get their events first. A flow with ``parts`` beyond 1 is told what it
    may ``begin`` with (see ``TradeFMFlow.begin``).

    Args:
        market: N markets.
        flow: theirs.
        until: (N,) int64.
        starved: (N,) bool.
        advance: lets events happen in the place of the market's own method, which it is like.
        **ends: further ends.

    Returns:
        (N,) bool, rows whose flow ended before that.
    """
    exhausted = np.zeros(market.num_markets, np.bool_)
    advance = advance or market.advance
    if starved is None or not starved.any():
        starved = advance(until_count=until, **ends)
    count = getattr(flow, "parts", 1)
    if count == 1:
        while starved.any():
            until = _feed(market, flow, starved, until, exhausted)
            starved = advance(until_count=until, **ends)
        return exhausted
    parts = _parts(market.num_markets, count)
    for rows in parts:
        flow.begin(market, starved & rows)  # pyright: ignore[reportAttributeAccessIssue]
    while starved.any():
        for rows in parts:
            if (wanted := starved & rows).any():
                until = _feed(market, flow, wanted, until, exhausted)
                starved = np.where(rows, advance(until_count=until, **ends), starved)
                flow.begin(market, starved & rows)  # pyright: ignore[reportAttributeAccessIssue]
    return exhausted


def _feed(market: MarketSimulator, flow: FlowModel, wanted: np.ndarray, until: np.ndarray, exhausted: np.ndarray):
    """Gives wanted rows their next events; the counts (N,) to go on to, lower for those that are ``exhausted`` now."""
    block = flow.next_events(market, wanted)
    ended = wanted & (block.count == 0)
    if ended.any():
        exhausted |= ended
        until = np.where(ended, market.background_count, until)
    market.feed(block)
    return until


def _parts(count: int, parts: int) -> list[np.ndarray]:
    """Masks (N,) of consecutive rows."""
    size, rows = -(-count // parts), np.arange(count)
    return [(rows >= first) & (rows < first + size) for first in range(0, count, size)]
