"""A TradeFM checkpoint of random weights, small enough for tests: the loop around it is what they look at."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from test_features import random_records

from tradefm_gym.data.recorded import FlowMeta, RecordedFlow
from tradefm_gym.flow.placement import UNKNOWN_PLACEMENT
from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.stream_state import stream_states
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BACKGROUND, BUY, LIMIT, ORDER, RECORD, RESTED, SELL
from tradefm_gym.market.features import new_state, observe
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.config import PRESETS, random_weights, save_checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer

# Per bin how often an add crosses; join, touch, improve by spread, sweep; usual spread, longest walk, span, depth.
SHARES = (*[0.0] * 8, 0.5, 0.8, 0.9, *[1.0] * 5, 0.5, 0.5, 0.1, 0.3, 0.6, 0.9, 0.9, 2.0, 40.0, 30.0, 500.0)


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """A checkpoint of the ``test`` preset in a new folder."""
    features = observe(new_state(1, 100.0, (0.1, 1.0)), random_records(seed, 3_000))[0]
    tokenizer = TradeTokenizer.calibrate([features], pressure=True)
    config = replace(PRESETS["test"], **tokenizer.told)
    save_checkpoint(folder, config, random_weights(config, seed))
    tokenizer.save(folder / "tokenizer.json")
    return folder


def zero_intelligence_bank() -> ContextBank:
    """Zero intelligence's start states with the feature states that TradeFM wants."""
    bank = ZeroIntelligenceFlow(1).bank
    median = float(bank.scale["median_size"][0])
    return replace(bank, feature_state=stream_states(new_state(len(bank), median, (0.05, 0.2)), SHARES))


def book_bank(orders, median_size=100.0, placement=UNKNOWN_PLACEMENT) -> ContextBank:
    """One start state with the background orders (side, price, size) in order of arrival, the last of them on tape."""
    resting, record = np.zeros(len(orders), ORDER), np.zeros(1, RECORD)
    resting["owner"], resting["order_id"] = BACKGROUND, np.arange(len(orders))
    resting["time_ns"] = 1_000 * np.arange(len(orders))
    resting["side"], resting["price"], resting["size"] = np.array(orders).T
    bid, ask = (function(resting["price"][resting["side"] == s]) for function, s in ((np.max, BUY), (np.min, SELL)))
    for name in ("owner", "order_id", "time_ns", "side", "price", "size"):
        record[name] = resting[name][-1]
    record["kind"], record["status"], record["mid2"] = LIMIT, RESTED, bid + ask
    stream = new_state(1, median_size)
    stream["book_mid"] = 0.5 * (bid + ask)
    state = StartState(
        resting, record, int(record["time_ns"][0]), int(bid + ask), len(orders), np.ones((), SCALE),
        stream_states(stream, placement)[0],
    )  # fmt: skip
    return ContextBank.from_states([state], np.zeros(1, np.uint8), "a book made by hand")


def even_bank(placement=UNKNOWN_PLACEMENT) -> ContextBank:
    """One start state with 100 lots at each of 30 prices on both sides of 10,000."""
    return book_bank(
        [(side, 10_000 - side * away, 100) for away in range(1, 31) for side in (BUY, SELL)], 100.0, placement
    )


def generated_day(events: int) -> RecordedFlow:
    """Zero intelligence from a book made by hand, written down as a recorded day."""
    return written_down(ZeroIntelligenceFlow(1, bank=even_bank()), events)


def written_down(flow, events: int) -> RecordedFlow:
    """What one market of a flow does from its first start state on, as a recorded day."""
    market = MarketSimulator(1, flow.market_config())
    flow.reset(market, everyone(1), np.zeros(1, np.int64), np.ones(1, np.uint64), np.zeros(1, np.uint32))
    recorder = DayRecorder(market)
    for target in range(1_000, events + 1, 1_000):
        while (starved := market.advance(until_count=np.array([target]))).any():
            market.feed(flow.next_events(market, starved))
        recorder.collect()
    return recorder.finish(FlowMeta("ZERO", "made up", "2026-01-01", 1, "tick", 1, "lot", True, (0, 10**15), "a test"))


def records_of_tokens(flow, tokens, episode: int = 0) -> np.ndarray:
    """What becomes of one token in each row (N,), instead of what the network would have drawn: (N,) RECORD."""
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config())
    flow.reset(
        market, everyone(n), np.zeros(n, np.int64), np.arange(n).astype(np.uint64), np.full(n, episode, np.uint32)
    )
    flow._by_rows = False  # so that all rows are drawn by what follows
    flow.engine.sample = lambda bits, active, temperature: np.asarray(tokens)
    flow.engine.start_sample = lambda *arguments: lambda: (np.asarray(tokens), np.ones((n, 2)))
    market.feed(flow.next_events(market, everyone(n)))
    assert not market.advance(until_count=market.background_count + 1).any()
    return np.array([market.tape.read_records(row)[-1] for row in range(n)])


def everyone(n: int) -> np.ndarray:
    """A mask of all rows."""
    return np.ones(n, np.bool_)
