"""A recorded day of 24,000 zero intelligence events, so that replay can be tested without real data."""

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from tradefm_gym.data.day import load_day, save_day
from tradefm_gym.data.recorded import FlowMeta
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.simulator import MarketSimulator

EVENTS = 24_000


@cache
def day_path():
    """Path of the saved day; the same bytes in every process."""
    flow = ZeroIntelligenceFlow(1)
    market = MarketSimulator(1, flow.market_config())
    flow.reset(market, np.ones(1, bool), np.zeros(1, np.int64), np.ones(1, np.uint64), np.zeros(1, np.uint32))
    recorder = DayRecorder(market)
    for target in range(2000, EVENTS + 1, 2000):
        while (starved := market.advance(until_count=np.array([target]))).any():
            market.feed(flow.next_events(market, starved))
        recorder.collect()
    day = recorder.finish(
        FlowMeta(
            ticker="ZERO", venue="made up", date="2026-01-01", tick_size=1, price_unit="tick", lot=1,
            size_unit="lot", replay_by_id=True, session_ns=(0, 10**15), source="a test",
        )
    )  # fmt: skip
    path = Path(tempfile.mkdtemp(prefix="tradefm_day_")) / "day.npz"
    save_day(path, day)
    return str(path)


def beginning(count):
    """The first records of the bundled day, as a day."""
    day = load_day(BUNDLED_DAY)
    short = {name: getattr(day, name)[:count] for name in ("records", "touch", "source_row")}
    fills = day.fills[day.fills["time_ns"] <= short["records"]["time_ns"][-1]]
    return replace(day, **short, fills=fills)


@cache
def cpu_flow(name):
    """The argument ``flow`` for a name of the tests."""
    return f"replay:{day_path()}" if name == "replay" else name
