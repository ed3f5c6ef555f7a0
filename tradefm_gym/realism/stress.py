"""What scenarios do to markets, and how long these take to recover, beside the same markets without them.

A market and its twin have the same start state and draw the same words by proposal of the flow; they are compared after
equally many of its proposals. The twin's own wandering is the band that a market has to come back to.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.scenarios import LiquidityWithdrawal, OneSidedBurst, Scenario, VolatilityShock
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.events import INSERTED
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.realism.averages import figure, figures, replicated_means
from tradefm_gym.realism.bootstrap import estimate

START = 64  # events before a scenario begins
STEP = 16  # events between two looks at a market
HORIZON = 1024  # events for which it is followed
LAGS = (0, 16, 64, 256, 1024)
SOON, LATE = 256, 1024  # variances are told up to the one, and from there to the other
_BAND = (0.025, 0.975)
QUANTITIES = ("mid", "spread", "depth")
_DEPTH_LEVELS = 5


class Stress(NamedTuple):
    """A scenario as it is probed; ``buy`` and ``sell`` differ where it has a side, and markets take turns."""

    buy: Scenario
    sell: Scenario
    last: int  # proposals of the flow from its start after which it counts as over


STRESSES: Mapping[str, Stress] = {
    "one_sided_burst": Stress(OneSidedBurst("buy", START), OneSidedBurst("sell", START), 13),
    "volatility_shock": Stress(VolatilityShock(START), VolatilityShock(START), 256),
    "liquidity_withdrawal": Stress(LiquidityWithdrawal(START), LiquidityWithdrawal(START), 1),
}


def stress_rows(
    flow: FlowModel,
    contexts: np.ndarray,
    seeds: np.ndarray,
    arm: str = "flow",
    stresses: Mapping[str, Stress] | None = None,
    horizon: int = HORIZON,
) -> list[dict[str, Any]]:
    """What each scenario does, and what of it stays.

    Args:
        flow: for N markets.
        contexts: (N,) start states; intervals resample them.
        seeds: (N,) uint64.
        arm: name.
        stresses: by name, ``STRESSES`` by default.
        horizon: events for which markets are followed, a multiple of ``STEP``.

    Returns:
        Rows ``stress_NAME``. ``mid_after_K`` is the mid less the twin's in basis points, K events after the scenario,
        signed for the burst's side; ``spread_after_K`` and ``depth_after_K`` (lots of five levels) less the twin's, as
        a share of its mean. ``mid_recovery``, ``spread_recovery`` and ``depth_recovery`` are events until a market is
        back, for two looks, in the band that holds 95% of the twin's own values; who is not counts with the horizon,
        and ``..._recovered`` is the share of those who are. ``variance_during``, ``variance_soon`` and
        ``variance_late`` are realised variances of the mid over the twin's (geometric mean): until the scenario is
        over, in the 256 events after that, and from there on.
    """
    rows, stressed = [], StressedFlow(flow)
    contexts = np.asarray(contexts, np.int64)
    n, sign = flow.num_envs, np.where(np.arange(flow.num_envs) % 2 == 0, 1, -1)
    for name, stress in (stresses or STRESSES).items():
        chosen: list[Scenario | None] = [stress.buy if side > 0 else stress.sell for side in sign]
        under = _followed(stressed, contexts, seeds, chosen, stress.last, horizon)
        alone = _followed(stressed, contexts, seeds, [None] * n, stress.last, horizon)
        side = sign if stress.buy != stress.sell else np.ones(n)
        rows += _moved(f"stress_{name}", arm, under, alone, side, contexts, stress.last)
        rows += _recovered(f"stress_{name}", arm, under, alone, contexts, stress.last)
        rows += _variances(f"stress_{name}", arm, under, alone, contexts, stress.last)
    return rows


def _followed(
    flow: StressedFlow, contexts: np.ndarray, seeds: np.ndarray, scenarios: list[Scenario | None], last: int,
    horizon: int,
) -> np.ndarray:  # fmt: skip
    """Mid in ticks, spread in ticks and lots of five levels (N, looks, 3) float64.

    Looks come every ``STEP`` proposals of the flow: while the scenario is under way from its start, then from its end.
    """
    n = flow.num_envs
    market = MarketSimulator(n, replace(flow.market_config(0), tape=1 << 14))
    flow.choose(np.arange(n), scenarios)
    flow.reset(market, np.ones(n, bool), contexts, np.asarray(seeds, np.uint64), np.zeros(n, np.uint32))
    begun, looks = (market.background_count.copy(), market.tape.record_count.copy()), []
    for proposals in [*range(START, START + last, STEP), *range(START + last, START + last + horizon + 1, STEP)]:
        _run(flow, market, *begun, proposals)
        bid, ask = market.touch()
        depth = market.depth(_DEPTH_LEVELS)[1].sum(axis=(1, 2))
        looks.append(np.stack([0.5 * market.mid2, np.where((bid > 0) & (ask > 0), ask - bid, np.nan), depth], axis=1))
    return np.stack(looks, axis=1)


def _run(
    flow: StressedFlow, market: MarketSimulator, first: np.ndarray, records: np.ndarray, proposals: int
) -> None:  # fmt: skip
    """Until so many proposals of the flow have happened since the start: ``first`` events, ``records`` on the tape."""
    added = _added(flow, market, records)
    while True:
        while (starved := market.advance(until_count=first + proposals + added)).any():
            market.feed(flow.next_events(market, starved))
        before, added = added, _added(flow, market, records)
        if (added == before).all():
            return


def _added(flow: StressedFlow, market: MarketSimulator, records: np.ndarray) -> np.ndarray:
    """Events that have happened and were none of the flow's own, (N,) int64."""
    taken = [
        (market.tape.read_records(row, int(start))["order_id"] == INSERTED).sum() for row, start in enumerate(records)
    ]
    return np.array(taken) + flow.withdrawn


def _looks(last: int) -> int:
    """How many looks come before the scenario is over."""
    return len(range(0, last, STEP))


def _moved(quantity, arm, under, alone, side, contexts, last) -> list[dict[str, Any]]:
    after, twin = under[:, _looks(last) :], alone[:, _looks(last) :]
    lags = [lag for lag in LAGS if lag // STEP < after.shape[1]]
    places = [lag // STEP for lag in lags]
    usual = np.nanmean(twin, axis=1, keepdims=True)
    moved = (after - twin) / usual
    moved[:, :, 0] *= 1e4 * side[:, None]
    rows = []
    for column, name in enumerate(QUANTITIES):
        metrics = [f"{name}_after_{lag}" for lag in lags]
        rows += figures(quantity, metrics, arm, moved[:, places, column], contexts, len(contexts))
    return rows


def recovery(after: np.ndarray, twin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events (N,) until ``after`` (N, looks) is back in the band of ``twin`` (N, looks) for two looks.

    Returns:
        Those events, the horizon where it never is, and whether it ever is, (N,) bool.
    """
    low, high = np.nanquantile(twin, _BAND, axis=1, keepdims=True)
    within = (after >= low) & (after <= high)
    back = within[:, :-1] & within[:, 1:]
    ever = back.any(axis=1)
    return np.where(ever, STEP * back.argmax(axis=1), STEP * (after.shape[1] - 1)), ever


def _recovered(quantity, arm, under, alone, contexts, last) -> list[dict[str, Any]]:
    rows, n = [], len(contexts)
    for column, name in enumerate(QUANTITIES):
        found = recovery(under[:, _looks(last) :, column], alone[:, _looks(last) :, column])
        values = np.stack(found, axis=1).astype(np.float64)
        rows += figures(quantity, [f"{name}_recovery", f"{name}_recovered"], arm, values, contexts, n)
    return rows


def _variances(quantity, arm, under, alone, contexts, last) -> list[dict[str, Any]]:
    """Ratios of realised variances, as geometric means: one market that breaks must not decide for all."""
    rows, n, over = [], len(contexts), _looks(last)
    parts = {
        "variance_during": slice(0, over),
        "variance_soon": slice(over, over + SOON // STEP),
        "variance_late": slice(over + SOON // STEP, over + LATE // STEP),
    }
    squares = [np.diff(one[:, :, 0], axis=1) ** 2 for one in (under, alone)]
    for metric, part in parts.items():
        # Half a tick in all is what a market that did not move at all counts with.
        moved = [np.log(np.maximum(square[:, part].sum(axis=1), 0.25)) for square in squares]
        if squares[0][:, part].size:
            means, _ = replicated_means((moved[0] - moved[1])[:, None], contexts)
            rows.append(figure(quantity, metric, arm, estimate(np.exp(means[:, 0])), n, n))
    return rows
