"""Start states of a flow that knows no recorded day: markets that ran on it for a while."""

from collections.abc import Callable

import numpy as np

from tradefm_gym.flow.protocol import SCALE, ContextBank, FlowModel, StartState
from tradefm_gym.market.events import LIMIT
from tradefm_gym.market.simulator import MarketSimulator

OPENING_NS = 34_200_000_000_000  # 09:30
CONTEXTS = (64, 16, 16)  # train, validation, test
_SEED = 0x5EED_B00C
_EPISODE = 2**32 - 1  # no environment counts that far: the bank's draws are its own
_BURN_IN = 4096
_TAPE_TAIL = 512


def burnt_in_bank(flow: FlowModel, origin: str, memory: Callable[[], np.ndarray] | None = None) -> ContextBank:
    """States of 96 markets after 4,096 events; the scale is measured on the training ones alone.

    Args:
        flow: a flow for 96 markets, whose bank holds the one state from which all of them start.
        origin: of the bank.
        memory: gives what the flow itself remembers in each market, (96,) of its own dtype.
    """
    count = sum(CONTEXTS)
    market = MarketSimulator(count, flow.market_config())
    everyone, zeros = np.ones(count, bool), np.zeros(count, np.int64)
    seeds = np.arange(count, dtype=np.uint64) + np.uint64(_SEED)
    flow.reset(market, everyone, zeros, seeds, np.full(count, _EPISODE, np.uint32))
    training = slice(0, CONTEXTS[0])
    touches = []
    for target in range(flow.block, _BURN_IN + 1, flow.block):
        while (starved := market.advance(until_count=np.full(count, target))).any():
            market.feed(flow.next_events(market, starved))
        if target > _BURN_IN // 2:
            touches.append(_touch_of(market, training))
    tapes = [market.tape.read_records(row, _BURN_IN // 2) for row in range(count)]
    scale = _measure_scale(tapes[training], np.concatenate(touches, axis=1))
    kept = [None] * count if memory is None else list(memory())
    states = [StartState.capture(market, row, scale, _TAPE_TAIL, kept[row]) for row in range(count)]
    return ContextBank.from_states(states, np.repeat(np.arange(3, dtype=np.uint8), CONTEXTS), origin)


def _measure_scale(tapes: list[np.ndarray], touches: np.ndarray) -> np.ndarray:
    """SCALE () of tapes (RECORD arrays) and of spreads and touch sizes sampled beside them (3, s)."""
    scale = np.zeros((), SCALE)
    events = sum(len(tape) for tape in tapes)
    steps = np.concatenate([np.diff(tape["mid2"]) / 2 for tape in tapes])
    adds = np.concatenate([tape["size"][tape["kind"] == LIMIT] for tape in tapes])
    scale["lots_per_event"] = sum(int(tape["filled"].sum()) for tape in tapes) / events
    scale["median_size"] = np.median(adds)
    scale["spread"] = np.median(touches[0])
    scale["touch_size"] = np.median(touches[1:])
    scale["volatility"] = steps.std()
    scale["event_ns"] = np.mean([(tape["time_ns"][-1] - tape["time_ns"][0]) / (len(tape) - 1) for tape in tapes])
    scale["tick_bps"] = 1e4 / (np.mean([tape["mid2"].mean() for tape in tapes]) / 2)
    return scale


def _touch_of(market: MarketSimulator, rows: slice) -> np.ndarray:
    """Spread, bid size and ask size (3, r) of the rows that have both sides."""
    prices, sizes = market.depth(1)  # (N, 2, 1) each, bids first
    prices, sizes = prices[rows, :, 0], sizes[rows, :, 0]
    both = (sizes > 0).all(axis=1)
    return np.stack([prices[both, 1] - prices[both, 0], sizes[both, 0], sizes[both, 1]])
