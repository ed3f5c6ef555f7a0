"""Generated order flow in files: a flow runs freely, and what happened is written down as a recorded day."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tradefm_gym.arguments import whole
from tradefm_gym.data.convert import check_new_folder
from tradefm_gym.data.recorded import FlowMeta, RecordedFlow
from tradefm_gym.data.written import write_folder
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.scenarios import described
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.simulator import MarketSimulator

_CHUNK = 1_024  # events between two readings of the tape


def simulate(flow: FlowModel, events: int, context: int, seed: int, tell=lambda made: None) -> RecordedFlow:
    """Lets one market run freely.

    Args:
        flow: for one market.
        events: background events.
        context: start state.
        seed: of the random numbers.
        tell: told how many events are made.

    Returns:
        The opening book and all that happened from there on.
    """
    market = MarketSimulator(1, flow.market_config(0))
    flow.reset(market, np.ones(1, bool), np.array([context]), np.array([seed], np.uint64), np.zeros(1, np.uint32))
    recorder, start_ns = DayRecorder(market), int(market.clock_ns[0])
    for made in range(min(_CHUNK, events), events + _CHUNK, _CHUNK):
        while (starved := market.advance(until_count=np.array([min(made, events)]))).any():
            block = flow.next_events(market, starved)
            if not block.count.any():
                raise ValueError(f"flow {flow.name!r} ends after {market.background_count[0]} events, not {events}")
            market.feed(block)
        recorder.collect()
        tell(min(made, events))
    session = (start_ns, int(market.clock_ns[0]) + 1)
    what = f"{flow.name} from start state {context}, seed {seed}"
    return recorder.finish(FlowMeta("SYNTH", "TradeFM", "generated", 1, "ticks", 1, "lots", True, session, what))


def run(
    flow: str, events: int, context: int | None, seed: int, out: Path, options: dict[str, Any], scenario: Any = None
) -> dict:  # fmt: skip
    """Simulates and writes a folder, with progress; returns what its ``meta.json`` says."""
    events, seed = whole("events", events, 1), whole("seed", seed, 0)
    check_new_folder(out)
    made = StressedFlow(make_flow(flow, 1, **options), scenario)
    states = made.bank.split("test")
    start = int(states[seed % len(states)]) if context is None else whole("context", context, 0, len(made.bank) - 1)
    columns = (TextColumn("{task.completed:,}/{task.total:,} events"), BarColumn(), TimeRemainingColumn())
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=events)
        day = simulate(made, events, start, seed, lambda count: progress.update(task, completed=count))
    provenance = {
        "generated": True, "flow": made.name, "flow_version": made.flow.version, "start_state": start,
        "start_states_from": made.bank.origin, "seed": seed, "events": events,
        "seconds": round(time.perf_counter() - started, 1),
    } | ({"scenario": described(made.usual)} if made.usual else {})  # fmt: skip
    return write_folder(day, out, {"provenance": provenance})
