"""What a parent order does to the price: impact against size, what of it stays, and impact against participation.

A meta-order is a run of equal market orders of an agent, evenly spaced in background events. Its impact is the mid's
signed change since its beginning in basis points, less what the same market (start state and random numbers) did
without it. Half of the markets buy, half sell. Participation is the agent's share of all executed lots, planned with
what is usual in that market.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import BUY, CANCEL, SELL
from tradefm_gym.realism.averages import figure, figures, replicated_means
from tradefm_gym.realism.bootstrap import estimate
from tradefm_gym.realism.intervention import AgentMarkets

SIZES = (1, 2, 4, 8, 16)  # medians of the order size
PARTICIPATION = (0.01, 0.05, 0.1, 0.2, 0.5)
AFTER = (16, 64, 256)  # background events after the last slice
_LONGEST = 4096  # background events of one meta-order


def run_schedule(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    side: np.ndarray,
    lots: np.ndarray,
    at: Sequence[int],
    events: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mids while agents take at given events.

    Args:
        flow: for N markets.
        contexts: (N,) start states.
        seeds: (N,) uint64.
        side: (N,), 0 for no agent.
        lots: (N,) of each order.
        at: ascending numbers of background events after which an order is sent.
        events: background events in all.

    Returns:
        Mid in ticks before the first event and after each, (N, events + 1) float64; and background lots executed up to
        each, (N, events + 1).
    """
    n = flow.num_envs
    markets = AgentMarkets(flow, contexts, seeds, events)
    start = markets.mid
    for count in at:
        markets.run(count - markets.count)
        markets.take(side, lots)
    markets.run(events - markets.count)
    mid, executed = np.empty((n, events + 1)), np.zeros((n, events + 1))
    mid[:, 0] = start
    for row in range(n):
        records = markets.background(row)
        mid[row, 1:] = 0.5 * records["mid2"]
        executed[row, 1:] = np.cumsum(np.where(records["kind"] != CANCEL, records["filled"].astype(np.int64), 0))
    return mid, executed


def size_rows(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    arm: str = "agent",
    sizes: Sequence[int] = SIZES,
    participation: float = 0.2,
    after: Sequence[int] = AFTER,
) -> list[dict[str, Any]]:
    """Impact of meta-orders of different size at one participation, in slices of one median size.

    Args:
        flow: for N markets.
        contexts: (N,) start states; intervals resample them.
        seeds: (N,) uint64.
        arm: name.
        sizes: ascending, in medians of the order size.
        participation: planned share of the executed lots, between 0 and 1.
        after: background events after the last slice at which the impact is looked at again.

    Raises:
        ValueError: if ``participation`` is not a share.

    Returns:
        Rows ``impact_of_Q`` with the metrics ``at_end`` (bps), ``kept_after_K`` (share of it, K events later; its
        interval tells nothing where the impact at the end is not clear of zero) and ``participation`` (what it came
        to); and ``impact_against_size`` with ``exponent``, of the power law through the impacts at the end.
    """
    _check_share(participation)
    n = flow.num_envs
    contexts = np.asarray(contexts, np.int64)
    scale = flow.bank.scale[contexts]
    lots = np.maximum(np.round(scale["median_size"]), 1).astype(np.int64)
    gap = int(np.clip(np.round(_gap(lots, participation, scale).mean()), 1, _LONGEST // max(sizes)))
    ends = [(size - 1) * gap + 1 for size in sizes]
    side, events = _alternating(n), max(ends) + max(after)
    alone, _ = run_schedule(flow, contexts, seeds, np.zeros(n, np.int64), lots, (), events)
    rows, at_end = [], []
    for size, end in zip(sizes, ends, strict=True):
        at = [gap * i for i in range(size)]
        mid, executed = run_schedule(flow, contexts, seeds, side, lots, at, end + max(after))
        impact = _impact(side, mid, alone)[:, [end, *(end + lag for lag in after)]]
        at_end.append(impact[:, 0])
        name = f"impact_of_{size}"
        rows += figures(name, ["at_end"], arm, impact[:, :1], contexts, n)
        means, _ = replicated_means(impact, contexts)
        with np.errstate(invalid="ignore", divide="ignore"):
            rows += [
                figure(name, f"kept_after_{lag}", arm, estimate(means[:, 1 + i] / means[:, 0]), n, n)
                for i, lag in enumerate(after)
            ]
        rows.append(_participation(name, arm, size * lots, executed[:, min(size * gap, end + max(after))], contexts))
    means, _ = replicated_means(np.stack(at_end, axis=1), contexts)
    rows.append(figure("impact_against_size", "exponent", arm, estimate(exponent(sizes, means)), n, n))
    return rows


def participation_rows(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    arm: str = "agent",
    participation: Sequence[float] = PARTICIPATION,
    events: int = 256,
    slices: int = 16,
) -> list[dict[str, Any]]:
    """Impact of equally long meta-orders at different participation.

    Args:
        flow: for N markets.
        contexts: (N,) start states; intervals resample them.
        seeds: (N,) uint64.
        arm: name.
        participation: planned shares of the executed lots.
        events: background events that a meta-order lasts.
        slices: orders of each; fewer where there would be less than a lot in one.

    Returns:
        Rows ``impact_at_P_percent`` with the metrics ``at_end`` (bps) and ``participation`` (what it came to).

    Raises:
        ValueError: if one of ``participation`` is not a share.
    """
    for share in participation:
        _check_share(share)
    n = flow.num_envs
    contexts = np.asarray(contexts, np.int64)
    side, usual = _alternating(n), flow.bank.scale["lots_per_event"][contexts]
    alone, _ = run_schedule(flow, contexts, seeds, np.zeros(n, np.int64), np.zeros(n, np.int64), (), events)
    rows = []
    for share in participation:
        wanted = share / (1 - share) * usual * events
        orders = int(np.clip(wanted.min(), 1, slices))
        lots = np.maximum(np.round(wanted / orders), 1).astype(np.int64)
        at = [events * i // orders for i in range(orders)]
        mid, executed = run_schedule(flow, contexts, seeds, side, lots, at, events)
        name = f"impact_at_{100 * share:g}_percent"
        rows += figures(name, ["at_end"], arm, _impact(side, mid, alone)[:, -1:], contexts, n)
        rows.append(_participation(name, arm, orders * lots, executed[:, -1], contexts))
    return rows


def exponent(sizes: Sequence[float], impacts: np.ndarray) -> np.ndarray:
    """Slopes (r,) of the least-squares line through log impacts (r, q) against log sizes (q,).

    NaN where an impact is not positive.
    """
    x = np.log(np.asarray(sizes, np.float64))
    x -= x.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(np.where(impacts > 0, impacts, np.nan))
    return (y @ x) / (x @ x)


def _check_share(participation: float) -> None:
    if not 0 < participation < 1:
        raise ValueError(f"participation is {participation}; it must lie between 0 and 1")


def _impact(side: np.ndarray, mid: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Signed difference to the market without the agent (N, events + 1) in basis points."""
    return side[:, None] * 1e4 * (mid - alone[:, : mid.shape[1]]) / mid[:, :1]


def _alternating(n: int) -> np.ndarray:
    return np.where(np.arange(n) % 2 == 0, BUY, SELL)


def _gap(lots: np.ndarray, participation: float, scale: np.ndarray) -> np.ndarray:
    """Background events from slice to slice (N,) float64."""
    return lots * (1 - participation) / (participation * scale["lots_per_event"])


def _participation(name, arm, ours, others, contexts) -> dict[str, Any]:
    means, _ = replicated_means(np.stack([ours, others], axis=1).astype(np.float64), contexts)
    n = len(ours)
    return figure(name, "participation", arm, estimate(means[:, 0] / means.sum(1)), n, n)
