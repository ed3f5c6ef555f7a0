"""Finds an asset's habits: the flow runs freely from moments of the training part, and what differs is made up for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import whole
from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import split
from tradefm_gym.flow.habits import ADD_SIZES, CANCEL_SIZES, CANCELS, MOST, TAKER_SIZES, WAITS, Habits
from tradefm_gym.flow.placement import HABITS
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import features_of, recorded_bank
from tradefm_gym.market.features import MID_TOUCH, observe
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer

# Of a difference of log-odds, what a round makes up for: kinds, sizes, waits. A network that keeps up a pace multiplies
# what it is given of it.
_RATES = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.35])
_STEP = 1.0  # at most
_SELDOM = 3e-4  # share that is added to each, so that what hardly ever happens is left alone
_FEWEST = 100  # events, for a row to be told


@dataclass(frozen=True)
class HabitOptions:
    """How much goes into finding habits."""

    rounds: int = 6
    markets: int = 32
    events: int = 1_536  # of each market and round
    burn_in: int = 256  # of those, that do not count
    seed: int = 0


def fit_habits(
    recorded: RecordedFlow,
    model: str | Path = BUNDLED_MODEL,
    options: HabitOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    **settings: Any,
) -> Habits:
    """The habits with which a flow is nearest to the training part of a recorded day.

    In each round the flow runs freely, and what comes too rarely becomes likelier. The round with the smallest sum of
    distances is kept, so that nothing is changed for the worse.

    Args:
        recorded: a day.
        model: a checkpoint.
        options: the effort.
        progress: told how many rounds are done, and of how many.
        **settings: of ``TradeFMFlow``.
    """
    options = options or HabitOptions()
    for name, least in (("rounds", 1), ("markets", 1), ("burn_in", 0), ("events", options.burn_in + 1), ("seed", 0)):
        whole(name, getattr(options, name), least)
    tokenizer = TradeTokenizer.load(checkpoint(model)[0])
    bank = recorded_bank(recorded, tokenizer, (options.markets, 0, 0))
    part = split(recorded).train
    features, index, _ = features_of(recorded, tokenizer)
    real, known = _shares(features[(index >= part.start) & (index < part.stop)], tokenizer)
    odds, rounds = np.zeros(HABITS), []
    best, nearest, kept = odds, np.inf, 0
    for number in range(options.rounds + 1):
        progress(number, options.rounds + 1)
        seen, counted = _shares(_run(model, bank, Habits(odds), options, settings), tokenizer)
        told = (known >= _FEWEST) & (counted >= _FEWEST)
        # Kinds are shares of all events, so both their rows are one distribution.
        distances = 0.5 * np.abs(real - seen).sum(1) * told
        rounds.append(distances.round(4).tolist())
        if (total := float(distances.sum())) < nearest:
            best, nearest, kept = odds, total, number
        more = np.log((real + _SELDOM) / (seen + _SELDOM)) * told[:, None]
        odds = np.clip(odds + np.clip(_RATES[:, None] * more, -_STEP, _STEP), -MOST, MOST)
    meta = recorded.meta
    asset = {name: getattr(meta, name) for name in ("ticker", "venue", "date")}
    return Habits(best, {"asset": asset, "model": checkpoint(model)[1], "total_variation": rounds, "kept": kept})


def _run(
    model: str | Path, bank: ContextBank, habits: Habits, options: HabitOptions, settings: dict[str, Any]
) -> np.ndarray:
    """FEATURES of what a flow with these habits does."""
    n = len(bank)
    flow = TradeFMFlow(model, n, bank=bank, habits=habits, **settings)
    market = MarketSimulator(n, flow.market_config())
    each = np.arange(n)
    flow.reset(market, np.ones(n, np.bool_), each, options.seed + each.astype(np.uint64), np.zeros(n, np.uint32))
    first = market.tape.record_count.copy()
    while (wanted := market.advance(until_count=np.full(n, options.events))).any():
        market.feed(flow.next_events(market, wanted))
    features = []
    for m in range(n):
        start = bank.state(m)
        assert start.feature_state is not None  # the bank was made for this flow
        stream = start.feature_state["stream"].reshape(1).copy()
        observe(stream, start.records)
        features.append(observe(stream, market.tape.read_records(m, int(first[m])))[0][options.burn_in :])
    return np.concatenate(features)


def _shares(features: np.ndarray, tokenizer: TradeTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """How often events fall into each bin, and how many there are, by row of ``HABITS``."""
    events = features[features["valid"] == 1]
    tokens, cancels, takers = tokenizer.encode(events)[:, 3], events["action"] == 1, events["taker"] == 1
    depth, sells = (tokens >> 8) & 15, (tokens >> 12) & 1
    if tokenizer.mid_mode != MID_TOUCH:
        depth = np.where(sells == 1, 15 - depth, depth)
    volume, rests = (tokens >> 4) & 15, ~cancels & ~takers
    counts = np.zeros(HABITS)
    counts[: CANCELS + 1] = np.bincount(16 * cancels + depth, minlength=32).reshape(2, 16)
    for row, chosen in ((ADD_SIZES, rests), (TAKER_SIZES, takers), (CANCEL_SIZES, cancels)):
        counts[row] = np.bincount(volume[chosen], minlength=16)
    counts[WAITS] = np.bincount(tokens & 15, minlength=16)
    totals = counts.sum(1)
    totals[: CANCELS + 1] = len(events)
    return counts / np.maximum(totals, 1)[:, None], totals
