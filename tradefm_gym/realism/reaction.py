"""How a market answers a taker: mid and signed flow after a marketable order, by lag in background events.

Three sources, one definition. With t the taker's record and k background events after it,

    mid response      s * (mid[t + k] - mid[t - 1]) in basis points of mid[t - 1]
    flow response     s * sum over background takers j in (t, t + k] of side[j] * filled[j] / median size

where s is the taker's side. Agents' responses are paired: the same start state and the same random numbers
by proposal index with a buy, with a sell and without an agent. Real takers come in runs, so an agent may
send a run of orders too: then lags, mid and flow count from its last one, as they do for a real taker.

An agent's order comes out of the blue, a real taker at a moment that suits it. ``replaced_response`` takes that
difference away: a recorded day up to a real taker, then an agent's order of the same side and size in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import BUY, CANCEL, MARKET, PRINT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

LAGS = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Response:
    """Samples of one arm: ``mid`` in basis points and ``flow`` in median sizes, each ``(n, lags)``."""

    mid: np.ndarray
    flow: np.ndarray
    lags: tuple[int, ...]

    def mean(self) -> tuple[np.ndarray, np.ndarray]:
        """Means ``(lags,)`` of mid and flow."""
        return self.mid.mean(0), self.flow.mean(0)

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Half-widths ``(lags,)`` of the 95% normal intervals of the means."""
        n = len(self.mid)
        return 1.96 * self.mid.std(0, ddof=1) / np.sqrt(n), 1.96 * self.flow.std(0, ddof=1) / np.sqrt(n)


def agent_paths(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    side: int | np.ndarray,
    size: np.ndarray,
    lags: Sequence[int] = LAGS,
    orders: int = 1,
    gap: int = 4,
) -> Response:
    """Unsigned paths after an agent's market orders from the start state on, or after none.

    Args:
        flow: a flow for N markets.
        contexts: ``(N,)`` start states.
        seeds: ``(N,)`` uint64.
        side: BUY, SELL, or 0 for the arm without an agent; or ``(N,)`` of them.
        size: ``(N,)`` lots of each order.
        lags: background events after the last order.
        orders: how many orders.
        gap: background events between two of them.

    Returns:
        ``mid`` and ``flow`` of each market, not multiplied by a side: differences of arms are the responses.
    """
    n = flow.num_envs
    side = np.broadcast_to(np.asarray(side, np.int8), (n,))
    market = MarketSimulator(n, flow.market_config(1))
    flow.reset(market, np.ones(n, bool), contexts, seeds, np.zeros(n, np.uint32))
    before = market.outside_mid2.astype(np.float64)
    median = flow.bank.scale["median_size"][contexts]
    cursor = market.tape.record_count.copy()
    signed = np.zeros(n)
    mid, total = np.zeros((n, len(lags))), np.zeros((n, len(lags)))
    last = (orders - 1) * gap
    due = [i * gap for i in range(orders)]
    for count in sorted({*due, *(last + lag for lag in lags)}):
        while (starved := market.advance(until_count=np.full(n, count))).any():
            market.feed(flow.next_events(market, starved))
        for row in range(n):
            records = market.tape.read_records(row, int(cursor[row]))
            background = (records["owner"] < 0) & (records["kind"] != PRINT) & (records["kind"] != CANCEL)
            signed[row] += (records["side"] * records["filled"].astype(np.int64))[background].sum() / median[row]
        cursor[:] = market.tape.record_count
        if count - last in lags:
            i = list(lags).index(count - last)
            mid[:, i] = 1e4 * (market.outside_mid2 - before) / before
            total[:, i] = signed
        if count == last:  # the origin of both responses: just before the last order
            before = market.outside_mid2.astype(np.float64)
            signed[:] = 0.0
        if side.any() and count in due:
            market.submit(_market_orders(market, side, size, due.index(count)))
    return Response(mid, total, tuple(lags))


def _market_orders(market: MarketSimulator, side: np.ndarray, size: np.ndarray, order_id: int) -> EventBlock:
    block = EventBlock.empty(market.num_markets, 1)
    orders = block.events[:, 0]
    orders["time_ns"], orders["owner"], orders["kind"], orders["order_id"] = market.clock_ns, 0, MARKET, order_id
    orders["side"], orders["size"], orders["max_rest"] = side, size, 0
    block.count[:] = side != 0
    return block


def agent_response(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    size: np.ndarray,
    lags: Sequence[int] = LAGS,
    orders: int = 1,
    gap: int = 4,
) -> dict[str, Response]:
    """Responses to an agent's market orders, paired over seeds; arguments as in ``agent_paths``.

    Returns:
        ``buy`` and ``sell``: signed response of that side against the arm without an agent;
        ``both``: half the difference of the two sides, which cancels any drift.
    """
    paths = {side: agent_paths(flow, contexts, seeds, side, size, lags, orders, gap) for side in (BUY, SELL, 0)}
    null = paths[0]

    def signed(side: int) -> Response:
        arm = paths[side]
        return Response(side * (arm.mid - null.mid), side * (arm.flow - null.flow), null.lags)

    buy, sell = signed(BUY), signed(SELL)
    both = Response(0.5 * (buy.mid + sell.mid), 0.5 * (buy.flow + sell.flow), null.lags)
    return {"buy": buy, "sell": sell, "both": both}


def replaced_response(
    flow: FlowModel,
    records: np.ndarray,
    takers: np.ndarray,
    seeds: np.ndarray,
    lags: Sequence[int] = LAGS,
) -> dict[str, Response]:
    """Responses to an agent that stands in for real takers, each from the recorded moment before it.

    Args:
        flow: a flow for N = k x len(takers) markets whose context i precedes ``takers[i]``; see ``recorded_bank``.
        records: ``(n,) RECORD`` of the day.
        takers: ``(c,)`` positions of the takers; the agent sends what each executed, at once: at its
            recorded time the flow might have gone on without it.
        seeds: ``(N,)`` uint64; k of them for each taker, taker by taker.
        lags: background events after the taker.

    Returns:
        ``agent``: signed response with the agent's order, ``nobody``: from the same moments with no order at all,
        signed by the side of the missing one. Each ``(c, lags)``, means over the k seeds.
    """
    repeats = flow.num_envs // len(takers)
    contexts = np.repeat(np.arange(len(takers)), repeats)
    order = records[takers][contexts]
    side, size = order["side"], order["filled"].astype(np.int64)

    def signed(sides: np.ndarray) -> Response:
        arm = agent_paths(flow, contexts, seeds, sides, size, lags)
        shape = (len(takers), repeats, len(lags))
        mid, total = (np.reshape(side[:, None] * values, shape).mean(1) for values in (arm.mid, arm.flow))
        return Response(mid, total, arm.lags)

    return {"agent": signed(side), "nobody": signed(np.zeros_like(side))}


def find_takers(
    records: np.ndarray, sizes: tuple[float, float], longest: int = max(LAGS), run: int = 1, within: int = 16
) -> np.ndarray:
    """Positions ``(k,)`` in ``records`` of the takers that executed between ``sizes``.

    Args:
        records: ``(n,) RECORD`` in order.
        sizes: executed size, [low, high) in lots.
        longest: background events that must follow.
        run: least number of takers of its side, itself included, within the last ``within`` events.
        within: see ``run``.
    """
    counted = np.flatnonzero((records["kind"] != PRINT) & (records["owner"] < 0))
    events = records[counted]
    executed = np.where(events["kind"] != CANCEL, events["filled"], 0)
    takers = np.flatnonzero((executed >= sizes[0]) & (executed < sizes[1]) & (executed > 0))
    takers = takers[(takers > 0) & (takers + longest < len(events))]
    takers = takers[events["mid2"][takers - 1] > 0]
    if run > 1:
        side_of = np.where(executed > 0, events["side"], 0)
        before = [np.count_nonzero(side_of[max(t - within, 0) : t + 1] == side_of[t]) for t in takers.tolist()]
        takers = takers[np.array(before, np.int64) >= run]
    return counted[takers]


def taker_response(records: np.ndarray, median_size: float, takers: np.ndarray, lags: Sequence[int] = LAGS) -> Response:
    """Responses to the takers of a tape or of a recorded day.

    Args:
        records: ``(n,) RECORD`` in order.
        median_size: lots.
        takers: ``(k,)`` positions, see ``find_takers``.
        lags: background events after the taker.

    Raises:
        ValueError: if there are fewer than two takers.
    """
    if len(takers) < 2:
        raise ValueError(f"takers holds {len(takers)} positions; a response needs at least 2")
    counted = np.flatnonzero((records["kind"] != PRINT) & (records["owner"] < 0))
    events, at = records[counted], np.searchsorted(counted, takers)
    mid = 0.5 * events["mid2"].astype(np.float64)
    signed = np.where(events["kind"] != CANCEL, events["side"] * events["filled"].astype(np.int64), 0) / median_size
    cumulative = np.concatenate([[0.0], np.cumsum(signed)])
    side = events["side"][at].astype(np.float64)[:, None]
    later = at[:, None] + np.asarray(lags)[None, :]
    start = mid[at - 1][:, None]
    return Response(
        side * 1e4 * (mid[later] - start) / start,
        side * (cumulative[later + 1] - cumulative[at + 1][:, None]),
        tuple(lags),
    )
