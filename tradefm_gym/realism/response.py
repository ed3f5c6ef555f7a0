"""How a market answers takers of different sizes, real ones, generated ones and an agent's, by lag in events.

One definition for all. With t the taker, s its side and k events after it, of the background and with an effect,

    mid response      s * (mid after t + k - mid before t) in basis points of the latter
    flow response     s * sum over takers j in (t, t + k] of side[j] * executed[j] / median size

An agent's order is paired: same start state, same random numbers by proposal index, once bought, once sold, once not
at all; the response is the signed difference to the last. Real takers choose their moment, and an agent's order comes
at any: what differs between them may be that (see ``reaction.replaced_response``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import BUY, CANCEL, SELL
from tradefm_gym.realism.averages import figure, figures
from tradefm_gym.realism.intervention import AgentMarkets
from tradefm_gym.realism.path import MarketPath
from tradefm_gym.realism.rows import LEAST

LAGS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# Executed size in medians of the order size: above the first, up to the second.
SIZES = {"up_to_1": (0.0, 1.0), "1_to_4": (1.0, 4.0), "above_4": (4.0, np.inf)}
JUDGED = (1, 100)  # lags over which the share of hits is told
_TRIES = 4  # times the longest lag in proposals until enough events had an effect


def taker_samples(
    paths: Sequence[MarketPath], lags: Sequence[int] = LAGS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Responses to all takers of paths.

    Args:
        paths: of one asset.
        lags: events; a response whose lag reaches beyond the path, or a break of the session, is NaN.

    Returns:
        ``size`` (k,) in medians; ``mid`` and ``flow`` (k, lags); ``block`` (k,) int64: takers of one stretch of as many
        events as the longest lag.
    """
    at, longest = np.asarray(lags, np.int64), max(lags)
    parts, first = [], 0
    for piece in (piece for path in paths for piece in path.pieces()):
        records, median = piece.records, float(piece.scale["median_size"])
        takes = np.flatnonzero(piece.takes)
        executed = np.where(piece.takes, records["side"] * records["filled"].astype(np.float64), 0.0) / median
        cumulative = np.cumsum(executed)
        side = records["side"][takes].astype(np.float64)[:, None]
        later = takes[:, None] + at[None, :]
        inside = later < len(piece)
        later = np.minimum(later, len(piece) - 1)
        before = piece.mid_before[takes][:, None]
        mid = np.where(inside, side * 1e4 * (piece.mid[later] - before) / before, np.nan)
        flow = np.where(inside, side * (cumulative[later] - cumulative[takes][:, None]), np.nan)
        parts.append((np.abs(executed[takes]), mid, flow, first + takes // longest))
        first += len(piece) // longest + 1
    empty = (np.zeros(0), np.zeros((0, len(lags))), np.zeros((0, len(lags))), np.zeros(0, np.int64))
    size, mid, flow, block = (np.concatenate(columns) for columns in zip(empty, *parts, strict=True))
    return size, mid, flow, block.astype(np.int64)


def taker_rows(
    paths: Sequence[MarketPath], arm: str, lags: Sequence[int] = LAGS, seeds: int = 1
) -> list[dict[str, Any]]:
    """Rows ``mid_response_SIZE`` and ``flow_response_SIZE`` by ``lag_K`` of the takers of paths.

    Args:
        paths: of one asset.
        arm: their name.
        lags: events.
        seeds: rollouts behind them, 1 for a record.
    """
    size, mid, flow, block = taker_samples(paths, lags)
    rows = []
    for name, (low, high) in SIZES.items():
        chosen = (size > low) & (size <= high)
        rows += _both(name, arm, mid[chosen], flow[chosen], block[chosen], lags, seeds)
    return rows


def agent_samples(
    flow: FlowModel, contexts: np.ndarray, seeds: np.ndarray, lots: np.ndarray, lags: Sequence[int] = LAGS
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Unsigned paths after an agent's market order at the start state, by its side: BUY, SELL and 0 for none.

    Args:
        flow: for N markets.
        contexts: (N,) start states.
        seeds: (N,) uint64.
        lots: (N,) of the order.
        lags: events.

    Returns:
        For each side mid (basis points of the start's) and flow (median sizes), each (N, lags).
    """
    return {side: _after_order(flow, contexts, seeds, side, lots, lags) for side in (BUY, SELL, 0)}


def agent_rows(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    sizes: Mapping[str, np.ndarray],
    arm: str = "agent",
    lags: Sequence[int] = LAGS,
) -> list[dict[str, Any]]:
    """Rows as ``taker_rows`` of an agent's orders; arms ``ARM`` (mean of both sides), ``ARM_buy`` and ``ARM_sell``.

    Intervals resample start states, with all their seeds.

    Args:
        flow: for N markets.
        contexts: (N,) start states, at least two different ones for an interval.
        seeds: (N,) uint64.
        sizes: for each name of ``SIZES`` executed sizes in medians (k,), from which the agent's are taken evenly:
            see ``sizes_of``.
        arm: name.
        lags: events.
    """
    n, rows = flow.num_envs, []
    contexts = np.asarray(contexts, np.int64)
    median = flow.bank.scale["median_size"][contexts]
    alone = _after_order(flow, contexts, seeds, 0, np.zeros(n), lags)
    for name, values in sizes.items():
        # A fixed order of sizes that knows nothing of the order of the start states.
        quantiles = (np.random.default_rng(0).permutation(n) + 0.5) / n
        lots = np.maximum(np.round(np.quantile(values, quantiles) * median), 1)
        arms = {}
        for side, word in ((BUY, "buy"), (SELL, "sell")):
            mid, signed = _after_order(flow, contexts, seeds, side, lots, lags)
            arms[word] = side * (mid - alone[0]), side * (signed - alone[1])
            rows += _both(name, f"{arm}_{word}", *arms[word], contexts, lags, n)
        mid, signed = (0.5 * (arms["buy"][i] + arms["sell"][i]) for i in (0, 1))
        rows += _both(name, arm, mid, signed, contexts, lags, n)
    return rows


def sizes_of(paths: Sequence[MarketPath]) -> dict[str, np.ndarray]:
    """Executed sizes in medians of the takers of paths by the names of ``SIZES``; classes without any are left out."""
    size = taker_samples(paths, (1,))[0]
    found = {name: size[(size > low) & (size <= high)] for name, (low, high) in SIZES.items()}
    return {name: values for name, values in found.items() if len(values)}


def inside_rows(rows: Sequence[Mapping[str, Any]], real: str, arm: str) -> list[dict[str, Any]]:
    """Whether an arm's responses lie inside the 95% bands of the real ones.

    Args:
        rows: of ``taker_rows`` and ``agent_rows``; others are passed over.
        real: name of the arm whose intervals are the bands.
        arm: name of the arm that is judged.

    Returns:
        Rows with the metric ``inside_lag_K``, value 1 or 0, where there is a band of at least 200; and by quantity
        ``inside_lags_1_to_100``, the share of those lags.
    """
    rows = [row for row in rows if row["metric"].startswith("lag_")]
    bands = {(row["quantity"], row["metric"]): row for row in rows if row["arm"] == real}
    found, hits = [], {}
    for row in rows:
        band = bands.get((row["quantity"], row["metric"]))
        if row["arm"] != arm or band is None or band["n"] < LEAST:
            continue
        if not np.isfinite([band["low"], band["high"], row["value"]]).all():
            continue
        inside = band["low"] <= row["value"] <= band["high"]
        found.append(figure(row["quantity"], f"inside_{row['metric']}", arm, float(inside), row["n"], row["seeds"]))
        if JUDGED[0] <= int(row["metric"].removeprefix("lag_")) <= JUDGED[1]:
            hits.setdefault(row["quantity"], []).append(inside)
    share = f"inside_lags_{JUDGED[0]}_to_{JUDGED[1]}"
    return found + [figure(name, share, arm, float(np.mean(values)), len(values)) for name, values in hits.items()]


def _both(name, arm, mid, flow, block, lags, seeds) -> list[dict[str, Any]]:
    metrics = [f"lag_{lag}" for lag in lags]
    return [
        *figures(f"mid_response_{name}", metrics, arm, mid, block, seeds),
        *figures(f"flow_response_{name}", metrics, arm, flow, block, seeds),
    ]


def _after_order(flow, contexts, seeds, side: int, lots, lags) -> tuple[np.ndarray, np.ndarray]:
    """Mid and flow (N, lags) after one market order, or none."""
    n, longest = flow.num_envs, max(lags)
    markets = AgentMarkets(flow, contexts, seeds, _TRIES * longest)
    start = markets.mid
    markets.take(np.full(n, side), np.asarray(lots, np.int64))
    markets.run(longest)
    while (short := longest - min(len(markets.effective(row)) for row in range(n))) > 0:
        if markets.count >= _TRIES * longest:
            raise ValueError(f"flow {flow.name} made fewer than {longest} effective events in {markets.count}")
        markets.run(min(2 * short, _TRIES * longest - markets.count))
    at = np.asarray(lags, np.int64) - 1
    mid, signed = np.empty((n, len(at))), np.empty((n, len(at)))
    for row in range(n):
        records = markets.effective(row)
        mid[row] = 1e4 * (0.5 * records["mid2"][at] - start[row]) / start[row]
        executed = np.where(records["kind"] != CANCEL, records["side"] * records["filled"].astype(np.float64), 0.0)
        signed[row] = np.cumsum(executed)[at] / markets.median[row]
    return mid, signed
