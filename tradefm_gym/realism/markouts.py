"""What becomes of passive orders: the mid's move after a fill, signed for the maker, and how likely a fill is.

The markout of a fill is s * (mid after the horizon - mid before the taker came), s the maker's side: negative where
the price runs over the maker. In half-spreads (of the spread before the taker) a maker at the touch ends with
1 + markout. Adverse selection decides every passive policy, so real makers, generated ones and agents are asked alike.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import BUY, SELL
from tradefm_gym.realism.averages import figure, figures, replicated_means
from tradefm_gym.realism.bootstrap import estimate
from tradefm_gym.realism.intervention import AgentMarkets
from tradefm_gym.realism.path import MarketPath

EVENTS = (1, 10, 100)
SECONDS = (1, 10)
HORIZONS = (*(f"after_{k}_events" for k in EVENTS), *(f"after_{s}_s" for s in SECONDS))
BLOCK_EVENTS = 1000


def maker_samples(paths: Sequence[MarketPath]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Markouts of all fills in which a background order was the maker.

    Args:
        paths: of one asset.

    Returns:
        Markouts (k, h) by ``HORIZONS`` in basis points, NaN where the path ends before; half the spread before the
        taker (k,), likewise; and blocks (k,) int64, stretches of 1,000 events.
    """
    parts, first = [], 0
    for piece in (piece for path in paths for piece in path.pieces()):
        fills, event = filled_at(piece)
        touch = piece.touch_before[event].astype(np.float64)
        parts.append((
            *markouts(
                -fills["taker_side"].astype(np.float64), event, piece.mid, piece.mid_before[event],
                touch[:, 0] - touch[:, 2], piece.seconds,
            ),
            first + event // BLOCK_EVENTS,
        ))  # fmt: skip
        first += len(piece) // BLOCK_EVENTS + 1
    empty = (np.zeros((0, len(HORIZONS))), np.zeros(0), np.zeros(0, np.int64))
    bps, half, block = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return bps, half, block


def markouts(
    side: np.ndarray, event: np.ndarray, mid: np.ndarray, before: np.ndarray, spread: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Markouts of fills (k, h) by ``HORIZONS`` and half the spreads (k,), both in basis points of the mid before.

    Args:
        side: (k,) of the makers.
        event: (k,) int64, the taker's position in the path.
        mid: (n,) ticks after each event.
        before: (k,) ticks before the taker.
        spread: (k,) ticks before the taker; not positive where a side was empty, which makes the half NaN.
        seconds: (n,) ascending.
    """
    n = len(mid)
    later = np.full((len(event), len(HORIZONS)), np.nan)
    for column, lag in enumerate(EVENTS):
        at = event + lag
        later[:, column] = np.where(at < n, mid[np.minimum(at, n - 1)], np.nan)
    for column, horizon in enumerate(SECONDS, len(EVENTS)):
        until = seconds[event] + horizon
        at = np.searchsorted(seconds, until, side="right") - 1
        later[:, column] = np.where(until <= seconds[-1], mid[at], np.nan)
    moved = side[:, None] * (later - before[:, None])
    half = np.where(spread > 0, 0.5e4 * spread / before, np.nan)
    return 1e4 * moved / before[:, None], half


def markout_rows(paths: Sequence[MarketPath], arm: str, seeds: int = 1) -> list[dict[str, Any]]:
    """Rows ``markout_bps`` and ``markout_half_spreads`` of the background's makers; metrics are ``HORIZONS``.

    The latter is the mean markout over the mean half-spread of the same fills: where spreads vary, the mean of their
    ratios would be a matter of the few fills in the narrowest.
    """
    return _rows(arm, *maker_samples(paths), seeds)


def filled_at(path: MarketPath) -> tuple[np.ndarray, np.ndarray]:
    """Fills of a path's own events, (k,) FILL, and the positions (k,) int64 of the events that caused them."""
    takes = np.flatnonzero(path.takes)
    records, fills = path.records[takes], path.fills
    cause = {
        key: position
        for key, position in zip(
            zip(records["time_ns"].tolist(), records["order_id"].tolist(), records["side"].tolist(), strict=True),
            takes.tolist(),
            strict=True,
        )
    }
    keys = zip(fills["time_ns"].tolist(), fills["taker_id"].tolist(), fills["taker_side"].tolist(), strict=True)
    event = np.array([cause.get(key, -1) for key in keys], np.int64)
    return fills[event >= 0], event[event >= 0]


class _Quoter:
    """Agents with one order at the touch each, which follows it, and what happened to them."""

    def __init__(self, markets: AgentMarkets, side: np.ndarray, lots: np.ndarray):
        n = len(side)
        self.markets, self.side, self.lots = markets, side, lots
        self.order_id = np.full(n, -1, np.int64)
        self.price, self.born, self.ahead = (np.zeros(n, np.int64) for _ in range(3))
        self.born_s = np.zeros(n)
        self.orders: list[np.ndarray] = []  # row, born, born_s, ahead, until, until_s, filled

    def quote(self, now_s: np.ndarray) -> None:
        """Withdraws what is no longer at the touch of the others, and joins it."""
        bid, ask = self.markets.market.touch_excluding(None)
        touch = np.where(self.side == BUY, bid, ask)
        astray = (self.order_id >= 0) & (touch != self.price)
        if astray.any():
            self.markets.cancel(self.order_id, astray)
            self.end(astray, now_s, False)
        fresh = (self.order_id < 0) & (touch > 0)
        if fresh.any():
            order_id = self.markets.rest(np.where(fresh, self.side, 0), touch, self.lots)
            self.order_id[fresh], self.price[fresh] = order_id, touch[fresh]
            self.born[fresh], self.born_s[fresh] = self.markets.count, now_s[fresh]
            self.ahead[fresh] = self.markets.market.queue_ahead(0, self.order_id)[fresh]

    def end(self, which: np.ndarray, now_s: np.ndarray, filled: bool) -> None:
        """Notes the end of orders."""
        rows = np.flatnonzero(which)
        self.orders.append(np.stack([
            rows, self.born[rows], self.born_s[rows], self.ahead[rows], np.full(len(rows), self.markets.count),
            now_s[rows], np.full(len(rows), filled),
        ], axis=1).astype(np.float64))  # fmt: skip
        self.order_id[rows] = -1


def agent_makers(
    flow: FlowModel, contexts: np.ndarray, seeds: np.ndarray, events: int = 1024, size: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Agents that rest at the touch, half of them buying, and follow it after every event of the background.

    Args:
        flow: for N markets.
        contexts: (N,) start states.
        seeds: (N,) uint64.
        events: background events of each market.
        size: of an order in medians.

    Returns:
        Markouts (k, h) by ``HORIZONS`` and half-spreads (k,) in basis points, the market of each (k,) int64; and all
        their orders (o, 7) float64: market, event and second of arrival, lots ahead then, event and second of its end,
        whether that was its first fill. (An order that only just reached its end is one that was withdrawn.)
    """
    n = flow.num_envs
    side = np.where(np.arange(n) % 2 == 0, BUY, SELL)
    markets = AgentMarkets(flow, contexts, seeds, events)
    quoter = _Quoter(markets, side, np.maximum(np.round(size * markets.median), 1).astype(np.int64))
    mid, spread, seconds = (np.empty((n, events + 1)) for _ in range(3))
    start_ns = markets.market.clock_ns.copy()
    rows, at = [], []

    def look() -> None:
        bid, ask = markets.market.touch_excluding(None)
        mid[:, markets.count], seconds[:, markets.count] = markets.mid, (markets.market.clock_ns - start_ns) / 1e9
        spread[:, markets.count] = np.where((bid > 0) & (ask > 0), ask - bid, 0)

    look()
    for count in range(events):
        quoter.quote(seconds[:, count])
        held = markets.inventory
        markets.run(1)
        look()
        filled = markets.inventory != held
        if filled.any():
            rows.append(np.flatnonzero(filled))
            at.append(np.full(int(filled.sum()), count + 1))
            # What is left of an order has lost its place in the sample, not in the queue.
            markets.cancel(quoter.order_id, filled)
            quoter.end(filled, seconds[:, count + 1], True)
    quoter.end(quoter.order_id >= 0, seconds[:, events], False)
    row, event = np.concatenate([np.zeros(0, np.int64), *rows]), np.concatenate([np.zeros(0, np.int64), *at])
    bps, half = np.empty((len(row), len(HORIZONS))), np.empty(len(row))
    for market in np.unique(row).tolist():
        of = row == market
        one = event[of]
        bps[of], half[of] = markouts(
            np.full(len(one), float(side[market])), one, mid[market], mid[market, one - 1], spread[market, one - 1],
            seconds[market],
        )  # fmt: skip
    return bps, half, row, np.concatenate([np.zeros((0, 7)), *quoter.orders])


def agent_rows(
    flow: FlowModel, contexts: np.ndarray, seeds: np.ndarray, arm: str = "agent", events: int = 1024
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows as ``markout_rows`` of agents, and their orders for ``fill_chances.agent_fill_rows``.

    Arguments as ``agent_makers`` takes them; intervals resample markets.
    """
    bps, half, row, orders = agent_makers(flow, contexts, seeds, events)
    return _rows(arm, bps, half, row, flow.num_envs), orders


def _rows(arm: str, bps: np.ndarray, half: np.ndarray, block: np.ndarray, seeds: int) -> list[dict[str, Any]]:
    rows = figures("markout_bps", HORIZONS, arm, bps, block, seeds)
    known = np.isfinite(half)[:, None] & np.isfinite(bps)
    both = np.concatenate([np.where(known, bps, np.nan), np.where(known, half[:, None], np.nan)], axis=1)
    means, count = replicated_means(both, block)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = means[:, : len(HORIZONS)] / means[:, len(HORIZONS) :]
    for column, metric in enumerate(HORIZONS):
        estimated = estimate(ratios[:, column])
        rows.append(figure("markout_half_spreads", metric, arm, estimated, int(count[column]), seeds))
    return rows
