"""Is the bundled market alive? Closed-loop rollouts without an agent, by asset.

    python examples/check_market.py --data FOLDER

Prints, over 64 rollouts of 4,096 events, the share of events with an empty side and with a spread beyond 20 medians,
the median spread, traded lots and time per event; with ``--data`` beside what the assets' training parts show.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.data import FlowCalibration, calibrate, load
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import BUNDLED_MODEL


@dataclass
class Arguments:
    """What to run."""

    data: Path | None = None
    model: str = BUNDLED_MODEL
    context: Path | None = None
    """A recorded day to start from instead of the bundled start states."""
    rollouts: int = 64
    events: int = 4_096
    seed: int = 0
    cancel: str = "matched"
    placement: str = "book"
    out: Path | None = None


def rollout(flow: TradeFMFlow, contexts: np.ndarray, arguments: Arguments) -> dict[str, np.ndarray]:
    """Run all markets event by event; the touch after each event ``(events, N)``, and totals ``(N,)``."""
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config(1))
    seeds = np.arange(arguments.seed, arguments.seed + n).astype(np.uint64)
    flow.reset(market, np.ones(n, bool), contexts, seeds, np.zeros(n, np.uint32))
    start_ns, executed = market.clock_ns.copy(), market.executed.copy()
    spread = np.zeros((arguments.events, n))
    empty = np.zeros((arguments.events, n), bool)
    for i in range(arguments.events):
        while (starved := market.advance(until_count=np.full(n, i + 1))).any():
            market.feed(flow.next_events(market, starved))
        bid, ask = market.touch()
        empty[i] = (bid == 0) | (ask == 0)
        spread[i] = ask - bid
    return {
        "spread": spread,
        "empty": empty,
        "lots": (market.executed - executed) / arguments.events,
        "ms": (market.clock_ns - start_ns) / arguments.events / 1e6,
    }


def real_calibrations(data: Path | None) -> dict[str, FlowCalibration]:
    """Calibrations of the training parts of all sets in a folder that have one."""
    found = {}
    for path in sorted(p.parent for p in data.glob("*/events.parquet")) if data else []:
        try:
            day = load(path, infer_opening=False)
            if day.meta.replay_by_id:  # of two recordings of an asset the whole one
                found[path.name] = calibrate(day)
        except ValueError:  # too short to calibrate
            continue
    return found


def main(arguments: Arguments) -> None:
    """Run, compare, print."""
    n = arguments.rollouts
    flow = TradeFMFlow(
        arguments.model, n, cancel=arguments.cancel, placement=arguments.placement, context=arguments.context
    )
    contexts = np.linspace(0, len(flow.bank) - 1, n).astype(np.int64)
    result = rollout(flow, contexts, arguments)
    real = real_calibrations(arguments.data)
    table = Table(title=f"{n} rollouts of {arguments.events:,} events, {flow.name}")
    names = ("start states like", "n", "empty side", "worst", "> 20 medians", "spread, ticks", "real", "ratio")
    names = (*names, "lots/event", "real")
    for name in (*names, "ms/event", "real"):
        table.add_column(name, justify="right")
    rows = []
    tick_bps = flow.bank.scale["tick_bps"][contexts]
    for tick in np.unique(tick_bps):
        inside = tick_bps == tick
        # An asset is known by its tick in basis points: start states carry no name.
        asset = min(real, key=lambda name: abs(np.log(real[name].tick_bps / tick)), default=None)
        known = real[asset] if asset else None
        both = ~result["empty"][:, inside]
        median = float(np.median(result["spread"][:, inside][both]))
        row = {
            "asset": asset or f"tick of {tick:.3f} bps",
            "rollouts": int(inside.sum()),
            "empty": float(result["empty"][:, inside].mean()),
            "empty_worst": float(result["empty"][:, inside].mean(0).max()),
            "spread": median,
            "beyond_20_medians": float((result["spread"][:, inside][both] > 20 * median).mean()),
            "real_spread": known.spread if known else None,
            "lots": float(result["lots"][inside].mean()),
            "real_lots": known.lots_per_event if known else None,
            "ms": float(result["ms"][inside].mean()),
            "real_ms": known.event_ns / 1e6 if known else None,
        }
        rows.append(row)
        shown = [row["asset"], str(row["rollouts"]), f"{row['empty']:.4f}", f"{row['empty_worst']:.4f}"]
        shown.append(f"{row['beyond_20_medians']:.4f}")
        shown += [f"{median:.0f}", *([f"{known.spread:.0f}", f"{median / known.spread:.2f}"] if known else ["", ""])]
        shown += [f"{row['lots']:.2f}", f"{known.lots_per_event:.2f}" if known else ""]
        table.add_row(*shown, f"{row['ms']:.0f}", f"{row['real_ms']:.0f}" if known else "")
    Console(width=160).print(table)
    if arguments.out is not None:
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(rows, indent=1))
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
