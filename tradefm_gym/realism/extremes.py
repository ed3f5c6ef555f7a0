"""Extreme regimes: the most volatile tenth of the windows of a test part, beside the rest of it.

No flow was fitted to them. In each window a network is asked for its nats per event, given the recorded events before,
and every flow goes on freely from where the window begins; it cannot know what is to come, only what has been, so the
windows that follow an extreme one are told apart, too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow, asset_name
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.features import day_features
from tradefm_gym.realism.averages import figure, replicated_means
from tradefm_gym.realism.bootstrap import estimate
from tradefm_gym.realism.path import MarketPath, roll_out
from tradefm_gym.realism.recorded_set import RecordedSet

WINDOW = 128  # events
DECILE = 0.9
ROLLOUTS = 8  # of each window
LEAST = 20  # windows
KINDS = ("extreme", "other", "after_extreme")
_MARKETS = 64


def windows_of(one: RecordedSet) -> np.ndarray:
    """Events of the test part at which its windows begin, (w,) int64; ``WINDOW`` apart or a little more."""
    first, last = one.part("test")
    return one.starts((last - first) // WINDOW)


def variance(path: MarketPath) -> float:
    """Sum of squared moves of the mid over a path, square basis points."""
    mid = np.concatenate([path.mid_before[:1], path.mid])
    return float(((1e4 * np.diff(np.log(mid))) ** 2).sum())


def kinds_of(variances: np.ndarray) -> dict[str, np.ndarray]:
    """Which windows (w,) are in the top decile of ``variances`` (w,), which are not, and which follow one that is."""
    extreme = variances > np.quantile(variances, DECILE)
    return {"extreme": extreme, "other": ~extreme, "after_extreme": np.concatenate([[False], extreme[:-1]])}


def extreme_rows(
    one: RecordedSet, flow_at: Callable[[np.ndarray, int], FlowModel], arm: str = "flow", rollouts: int = ROLLOUTS
) -> list[dict[str, Any]]:
    """What a flow makes of extreme windows, of the others, and of those that follow extreme ones.

    Args:
        one: the recorded day.
        flow_at: the flow for N markets whose start states are moments of ``one``.
        arm: name.
        rollouts: of each window.

    Returns:
        Rows ``extreme_windows``, ``other_windows`` and ``after_extreme_windows`` with the metrics
        ``real_variance`` (mean, square basis points in 128 events), ``variance_over_real`` (the flow's mean over it)
        and, of a network, ``nats``; and ``extreme_less_other_windows`` with ``nats``. None of a day with fewer than 20
        windows. Intervals resample windows.
    """
    starts = windows_of(one)
    if len(starts) < LEAST:
        return []
    real = np.array([variance(one.path.between(start, start + WINDOW)) for start in starts.tolist()])
    flow = flow_at(one.positions[starts], _MARKETS)
    made = _rolled_out(flow, len(starts), rollouts)
    nats = nats_of(flow, one.recorded, one.positions[starts]) if hasattr(flow, "engine") else None
    kinds, rows, seeds = kinds_of(real), [], len(starts) * rollouts
    for name, chosen in kinds.items():
        quantity, n = f"{name}_windows", int(chosen.sum())
        means, _ = replicated_means(np.stack([real, made], axis=1)[chosen], np.flatnonzero(chosen))
        rows.append(figure(quantity, "real_variance", arm, estimate(means[:, 0]), n, seeds))
        rows.append(figure(quantity, "variance_over_real", arm, estimate(means[:, 1] / means[:, 0]), n, seeds))
        if nats is not None:
            rows.append(figure(quantity, "nats", arm, estimate(_mean(nats, chosen)), n, 1))
    if nats is not None:
        extreme, other = (_mean(nats, kinds[name]) for name in ("extreme", "other"))
        n = int(kinds["extreme"].sum())
        rows.append(figure("extreme_less_other_windows", "nats", arm, estimate(extreme - other), n, 1))
    return rows


def _mean(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return replicated_means(values[chosen][:, None], np.flatnonzero(chosen), seed=int(chosen.sum()))[0][:, 0]


def _rolled_out(flow: FlowModel, windows: int, rollouts: int) -> np.ndarray:
    """Mean variance of rollouts from each window's beginning, (w,) float64."""
    rows = np.repeat(np.arange(windows), rollouts)
    found = np.zeros(len(rows))
    for first in range(0, len(rows), flow.num_envs):
        places = np.arange(first, first + flow.num_envs) % len(rows)
        seeds = (np.uint64(1) << np.uint64(50)) + places.astype(np.uint64)
        paths = roll_out(flow, rows[places], seeds, WINDOW, most=WINDOW)
        found[places] = [variance(path) for path in paths]
    return found.reshape(windows, rollouts).mean(axis=1)


def nats_of(flow: Any, recorded: RecordedFlow, at: np.ndarray) -> np.ndarray:
    """Nats per event of a network in windows that begin at records ``at`` (w,), given half a context before each.

    Returns:
        (w,) float64.
    """
    tokenizer, engine, before = flow.tokenizer, flow.engine, flow.config.context // 2
    calibration = calibrate(recorded)
    features, index, _ = day_features(
        recorded.records, split(recorded).train, calibration.median_size, tokenizer.half_life_s, tokenizer.mid_mode,
        calibration.spread, tokenizer.asset_of(asset_name(recorded.meta)),
    )  # fmt: skip
    valid = features["valid"] == 1
    inputs, places = tokenizer.encode(features[valid]), np.searchsorted(index[valid], at)
    found = np.zeros(len(at))
    for first in range(0, len(at), engine.batch):
        begins = places[first : first + engine.batch]
        found[first : first + len(begins)] = _nats_of_batch(engine, inputs, begins, before)
    return found


def _nats_of_batch(engine: Any, inputs: np.ndarray, begins: np.ndarray, before: int) -> np.ndarray:
    """Of windows that begin at inputs ``begins`` (w,); a context that is full begins again, as it does in rollouts."""
    count, rows = min(WINDOW, len(inputs) - int(begins.max())), np.arange(len(begins))
    active, following = np.arange(engine.batch) < len(begins), np.zeros((engine.batch, 4), np.int32)
    total = np.zeros(len(begins))
    for step in range(count):
        if step % before == 0:
            engine.prefill(rows, [inputs[begin + step - before : begin + step] for begin in begins])
        following[: len(begins)] = inputs[begins + step]
        total -= engine.log_prob(following[:, 3])[: len(begins)]
        if (step + 1) % before:
            engine.append(following, active)
    return total / count
