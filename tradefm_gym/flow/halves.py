"""Letting events happen in markets whose flow works while they do: the rows go in parts that take turns.

While a flow's engine decodes one part of the rows on its device, the book, the features and the placement of another
one are done here. A row's events are those that it would have in one part.
"""

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.simulator import MarketSimulator


def go_on(market: MarketSimulator, flow: FlowModel, until: np.ndarray, **ends: np.ndarray) -> np.ndarray:
    """Goes on to a count (N,) int64 of background events, or to another end that ``MarketSimulator.advance`` knows.

    A flow with ``parts`` beyond 1 is told what it may ``begin`` with (see ``TradeFMFlow.begin``).

    Returns:
        (N,) bool, rows whose flow ended before that.
    """
    exhausted = np.zeros(market.num_markets, np.bool_)
    parts = _parts(market.num_markets, getattr(flow, "parts", 1))
    starved = market.advance(until_count=until, **ends)
    if len(parts) > 1:
        for rows in parts:
            flow.begin(market, starved & rows)  # pyright: ignore[reportAttributeAccessIssue]
    while starved.any():
        for rows in parts:
            wanted = starved & rows
            if not wanted.any():
                continue
            block = flow.next_events(market, wanted)
            ended = wanted & (block.count == 0)
            if ended.any():
                exhausted |= ended
                until = np.where(ended, market.background_count, until)
            market.feed(block)
            starved = np.where(rows, market.advance(until_count=until, **ends), starved)
            if len(parts) > 1:
                flow.begin(market, starved & rows)  # pyright: ignore[reportAttributeAccessIssue]
    return exhausted


def _parts(count: int, parts: int) -> list[np.ndarray]:
    """Masks (N,) of consecutive rows."""
    size, rows = -(-count // parts), np.arange(count)
    return [(rows >= first) & (rows < first + size) for first in range(0, count, size)]
