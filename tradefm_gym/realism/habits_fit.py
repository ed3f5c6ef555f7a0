"""Finds an asset's habits: the flow runs freely from recorded moments, and what differs is made up for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.arguments import whole
from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.habits import ADD_SIZES, CANCEL_SIZES, CANCELS, MOST, TAKER_SIZES, WAITS, Habits
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.repeating import GAPS, REPEATING, TURNING, pairs_of
from tradefm_gym.flow.stream_state import HABITS
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import features_of, recorded_bank
from tradefm_gym.market.features import EMPTY_SIZE, MID_TOUCH, observe, size_codes
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer

# Of a difference of log-odds, what a round makes up for: kinds, sizes, waits, takers' sides. A network that keeps up a
# pace multiplies what it is given of it.
_RATES, _REPEATING_RATE = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.35]), 0.5
_STEP = 1.0  # at most
_SLOWER = 3.0  # rounds after which steps are half as long: else what follows from the last step is made up for again
_SELDOM = 3e-4  # share that is added to each, so that what hardly ever happens is left alone
_HARDLY = 0.01  # likewise to shares of takers
_TURNING_ERROR = 0.5  # of how takers' sides turn with the price, at most, for it to be told
_NEWTON = 25  # steps
_LEAST = 1_000  # events of a training part
_FEWEST = 100  # events, for a row to be told; takers, for a gap before them
# Exponents of a pace that are tried, from so many moments of the validation part, each so often.
_LASTING, _STARTS, _ROLLOUTS, _FEWEST_STARTS = (0.0, 0.35, 0.7), 24, 4, 8
_HORIZONS = (256, 1024)  # events
_FURTHER = 0.03  # total variation by which waits may stray for that


@dataclass(frozen=True)
class HabitOptions:
    """How much goes into finding habits."""

    rounds: int = 8
    markets: int = 96
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
    distances is kept, so that nothing is changed for the worse. How long a pace lasts is what best forecasts the
    durations of the validation part, by more than a standard error better than no such habit, of what keeps waits like
    those of the training part: a network that follows a pace by itself would run away with more of it.

    Args:
        recorded: a day.
        model: a checkpoint.
        options: the effort.
        progress: told how many rounds are done, and of how many.
        **settings: of ``TradeFMFlow``.

    Raises:
        ValueError: if the training part has fewer than 1,000 events, or for options that are out of range.
    """
    options = options or HabitOptions()
    for name, least in (("rounds", 1), ("markets", 1), ("burn_in", 0), ("events", options.burn_in + 1), ("seed", 0)):
        whole(name, getattr(options, name), least)
    part, meta = split(recorded).train, recorded.meta
    if len(part) < _LEAST:
        raise ValueError(
            f"recorded day {meta.ticker}, {meta.date}, has {len(part)} events in its training part, the first 70%; "
            f"habits take at least {_LEAST}"
        )
    tokenizer = TradeTokenizer.load(checkpoint(model)[0])
    bank = recorded_bank(recorded, tokenizer, (options.markets, 0, 0))
    features, index, _ = features_of(recorded, tokenizer)
    learned, scale = features[(index >= part.start) & (index < part.stop)], calibrate(recorded, part)

    def freely(habits: Habits) -> list[np.ndarray]:
        ran = _run(model, bank, np.arange(len(bank)), habits, options.events, options.seed, settings)
        return [events[options.burn_in :] for events in ran]

    def read(stretches: list[np.ndarray]) -> _Reading:
        return _Reading.of(stretches, tokenizer, scale.median_size, scale.spread)

    real = read([learned])
    # Rows are judged in all rounds or in none. Where the book does not decide a taker's size, nothing trims it.
    decided = tokenizer.mid_mode == MID_TOUCH and settings.get("placement", "book") == "book"
    gaps = real.gaps >= _FEWEST
    known = np.array([*(real.count >= _FEWEST), decided and real.takers >= _FEWEST, gaps.any()])
    turns = gaps.any() and real.turning_error < _TURNING_ERROR
    odds, walking, repeating = np.zeros(HABITS), 1.0, np.zeros(REPEATING)
    rounds: list[list[float | None]] = []
    turning: list[float | None] = []
    best, nearest, kept = Habits(odds), np.inf, 0
    steps = options.rounds + 1 + len(_LASTING)
    for number in range(options.rounds + 1):
        progress(number, steps)
        tried = Habits(odds, trimmed=1.0 - walking, repeating=repeating)
        seen = read(freely(tried))
        distances = seen.distances(real, gaps) * known
        rounds.append([round(float(one), 4) if known[row] else None for row, one in enumerate(distances)])
        turning.append(_rounded(seen.turning, seen.turning_error))
        if (total := float(distances.sum())) < nearest:
            best, nearest, kept = tried, total, number
        slower = 1.0 + number / _SLOWER
        told = known[: len(odds)] & (seen.count >= _FEWEST)
        more = np.log((real.shares + _SELDOM) / (seen.shares + _SELDOM)) * told[:, None]
        odds = _stepped(odds, _RATES[:, None] / slower * more)
        told = gaps & (seen.gaps >= _FEWEST)
        more = np.append((_log_odds(real.repeats) - _log_odds(seen.repeats)) * told, 0.0)
        if turns and seen.turning_error < _TURNING_ERROR:
            more[TURNING] = real.turning - seen.turning
        repeating = _stepped(repeating, _REPEATING_RATE / slower * more)
        if known[len(odds)] and seen.takers >= _FEWEST:
            walking = min(walking * (real.beyond + _HARDLY) / (seen.beyond + _HARDLY), 1.0)

    def strays(habits: Habits) -> float:
        waits = read(freely(habits)).shares[WAITS]
        return 0.5 * float(np.abs(real.shares[WAITS] - waits).sum()) - (rounds[kept][WAITS] or 0.0)

    validation = split(recorded).validation
    held_out, times = recorded_bank(recorded, tokenizer, (1, _STARTS, 0)), features["time_ns"][index < validation.stop]
    apart = min(max(len(validation) // max(_HORIZONS), 2), _FEWEST_STARTS)
    errors, strayed = {}, {}
    for number, lasting in enumerate(_LASTING, options.rounds + 1):
        progress(number, steps)
        tried = replace(best, lasting=lasting)
        error = _pace_error(model, held_out, times, tried, options.seed, settings)
        if error is None:
            break
        errors[lasting] = error
        # By moment, so that how hard a moment is does not blur the difference; moments that share events count once.
        fewer = np.array([part.mean() for part in np.array_split(error - errors[0.0], apart)])
        if fewer.mean() < -fewer.std(ddof=1) / len(fewer) ** 0.5:
            strayed[lasting] = strays(tried)
    asset = {name: getattr(meta, name) for name in ("ticker", "venue", "date")}
    report = {"asset": asset, "model": checkpoint(model)[1], "distances": rounds, "kept": kept}
    recorded_turning, unsure = (_rounded(one, real.turning_error) for one in (real.turning, real.turning_error))
    report["turning"] = {"recorded": recorded_turning, "error": unsure, "flow": turning}
    means = {lasting: float(error.mean()) for lasting, error in errors.items()}
    report["pace_error"] = {str(lasting): round(error, 4) for lasting, error in means.items()}
    report["strayed"] = {str(lasting): round(further, 4) for lasting, further in strayed.items()}
    steady = [lasting for lasting, further in strayed.items() if further <= _FURTHER]
    return replace(best, lasting=min(steady, key=means.__getitem__, default=0.0), report=report)


class _Reading(NamedTuple):
    """What is counted in stretches of events that follow each other."""

    shares: np.ndarray  # HABITS, how often events fall into each bin
    count: np.ndarray  # (6,) of how many, by row
    beyond: float  # share of takers that ask for more than the opposite touch shows
    takers: int
    repeats: np.ndarray  # (GAPS,) share of takers on the side of the one before
    gaps: np.ndarray  # (GAPS,) int64, how many
    turning: float  # by how much the log-odds of that fall with the price
    turning_error: float

    @classmethod
    def of(cls, stretches: list[np.ndarray], tokenizer: TradeTokenizer, median: float, spread: float) -> "_Reading":
        """From FEATURES, the lots of a median order and the ticks of the usual spread."""
        shares = _shares(np.concatenate(stretches), tokenizer)
        return cls(*shares, *_beyond(stretches, median), *_repeats(stretches, spread))

    def distances(self, real: "_Reading", gaps: np.ndarray) -> np.ndarray:
        """From a recorded one, by row, then of takers beyond the touch and of takers' sides after ``gaps`` (GAPS,).

        Kinds are shares of all events, so both their rows are one distribution.
        """
        apart = real.gaps / max(real.gaps.sum(), 1) * np.abs(real.repeats - self.repeats)
        sizes = 0.5 * np.abs(real.shares - self.shares).sum(1)
        return np.array([*sizes, abs(real.beyond - self.beyond), apart[gaps].sum()])


def _stepped(odds: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Log-odds after a step, which is neither too long nor leads too far."""
    return np.clip(odds + np.clip(step, -_STEP, _STEP), -MOST, MOST)


def _rounded(value: float, error: float) -> float | None:
    """A figure for the report, None where it could not be told."""
    return round(value, 3) if np.isfinite(error) else None


def _log_odds(shares: np.ndarray) -> np.ndarray:
    return np.log((shares + _HARDLY) / (1.0 - shares + _HARDLY))


def _pace_error(
    model: str | Path, bank: ContextBank, times: np.ndarray, habits: Habits, seed: int, settings: dict[str, Any]
) -> np.ndarray | None:
    """Errors (moments,) of the logarithm of how long ``_HORIZONS`` of events take from moments of the validation part.

    None if that part leaves too few moments.

    Args:
        model: a checkpoint.
        bank: start states.
        times: (n,) int64, when the day's events came up to the end of that part.
        habits: of the flow.
        seed: of the first rollout.
        settings: of the flow.
    """
    first = np.searchsorted(times, bank.clock_ns, side="right")
    starts = np.flatnonzero((bank.split_code == 1) & (first + max(_HORIZONS) <= len(times)))
    if len(starts) < _FEWEST_STARTS:
        return None
    ran = _run(model, bank, np.repeat(starts, _ROLLOUTS), habits, max(_HORIZONS), seed, settings)
    errors = []
    for horizon in _HORIZONS:
        clock = bank.clock_ns[starts]
        took = np.array([events["time_ns"][min(horizon, len(events)) - 1] for events in ran]).reshape(-1, _ROLLOUTS)
        ours, real = took - clock[:, None], times[first[starts] + horizon - 1] - clock
        errors.append(np.abs(np.median(np.log(np.maximum(ours, 1)), 1) - np.log(np.maximum(real, 1))))
    return np.mean(errors, 0)


def _run(
    model: str | Path,
    bank: ContextBank,
    contexts: np.ndarray,
    habits: Habits,
    count: int,
    seed: int,
    settings: dict[str, Any],
) -> list[np.ndarray]:
    """FEATURES of what a flow with these habits does from each context, ``count`` proposals."""
    n = len(contexts)
    flow = TradeFMFlow(model, n, bank=bank, habits=habits, **settings)
    market = MarketSimulator(n, flow.market_config())
    seeds = seed + np.arange(n, dtype=np.uint64)
    flow.reset(market, np.ones(n, np.bool_), contexts, seeds, np.zeros(n, np.uint32))
    first = market.tape.record_count.copy()
    while (wanted := market.advance(until_count=np.full(n, count))).any():
        market.feed(flow.next_events(market, wanted))
    features = []
    for m in range(n):
        start = bank.state(int(contexts[m]))
        assert start.feature_state is not None  # the bank was made for this flow
        stream = start.feature_state["stream"].reshape(1).copy()
        observe(stream, start.records)
        features.append(observe(stream, market.tape.read_records(m, int(first[m])))[0])
    return features


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


def _beyond(stretches: list[np.ndarray], median: float) -> tuple[float, int]:
    """Share of takers that ask for more than the opposite touch shows, and how many takers there are.

    What is shown is that after the event before, and told to an eighth of a doubling.

    Args:
        stretches: FEATURES of events that follow each other.
        median: lots of a median order.
    """
    beyond = takers = 0
    for events in stretches:
        before, event = events[:-1], events[1:]
        shown = np.where(event["side"] == 0, before["ask"], before["bid"])
        chosen = (event["taker"] == 1) & (event["valid"] == 1) & (shown != EMPTY_SIZE)
        asked = size_codes(np.rint(median * np.expm1(event["volume"][chosen])))
        beyond += int((asked > 8 * (shown[chosen] + np.log2(median)) + 1.5).sum())  # the way back from FEATURES
        takers += int(chosen.sum())
    return beyond / max(takers, 1), takers


def _repeats(stretches: list[np.ndarray], spread: float) -> tuple[np.ndarray, np.ndarray, float, float]:
    """How takers follow each other.

    Args:
        stretches: FEATURES of events that follow each other.
        spread: usual one, ticks.

    Returns:
        Share of takers on the side of the one before, and how many there are, by the gap between them (GAPS,); by how
        much the log-odds of that fall with how far the mid has gone on in between, by logistic regression with a
        constant for each gap; and its standard error, inf where it cannot be told.
    """
    same, gaps, moved = pairs_of(stretches, spread)
    count = np.bincount(gaps, minlength=GAPS)
    shares = np.bincount(gaps, same, GAPS) / np.maximum(count, 1)
    columns = np.column_stack([gaps[:, None] == np.flatnonzero(count >= _FEWEST), moved]).astype(np.float64)
    chosen = count[gaps] >= _FEWEST
    columns, wanted = columns[chosen], same[chosen].astype(np.float64)
    weights, information = np.zeros(columns.shape[1]), np.eye(columns.shape[1])
    for _ in range(_NEWTON):
        chance = 1.0 / (1.0 + np.exp(-columns @ weights))
        information = columns.T @ (columns * (chance * (1.0 - chance))[:, None]) + np.eye(columns.shape[1])
        weights += np.linalg.solve(information, columns.T @ (wanted - chance) - weights)
    spreads = len(wanted) >= _FEWEST and moved[chosen].any()
    error = float(np.linalg.inv(information)[-1, -1] ** 0.5) if spreads else np.inf
    return shares, count, -float(weights[-1]), error
