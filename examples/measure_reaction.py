"""Does the market react to an agent as it reacts to real takers of that size?

    python examples/measure_reaction.py --data FOLDER

Prints, for one asset, the response of mid and signed flow to (a) an agent's market order with the participant
flag, (b) the same without the flag, (c) real takers of that size on the asset's training part.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.data import calibrate, load, split
from tradefm_gym.flow.tradefm import BUNDLED_MODEL, TradeFMFlow
from tradefm_gym.realism.reaction import LAGS, Response, agent_response, taker_response


@dataclass
class Arguments:
    """What to measure."""

    data: Path | None = None
    asset: str = "nasdaq_aapl_20120621_l50_1h"
    model: str = BUNDLED_MODEL
    seeds: int = 512
    size: float = 4.0  # of the agent's order, in median sizes
    seed: int = 0
    out: Path | None = None


def rows(name: str, response: Response) -> dict:
    """JSON-able summary of one arm."""
    (mid, flow), (mid_half, flow_half) = response.mean(), response.interval()
    return {
        "arm": name,
        "samples": len(response.mid),
        "lags": list(response.lags),
        "mid_bps": mid.tolist(),
        "mid_half_width": mid_half.tolist(),
        "flow": flow.tolist(),
        "flow_half_width": flow_half.tolist(),
    }


def main(arguments: Arguments) -> None:
    """Measure and print."""
    n = arguments.seeds
    result = []
    for name, flagged in (("agent, flagged", True), ("agent, not flagged", False)):
        flow = TradeFMFlow(arguments.model, n, flag_agents=flagged)
        # The start states of one asset are those with its scale.
        medians = flow.bank.scale["median_size"]
        pool = np.flatnonzero(flow.bank.scale["tick_bps"] == flow.bank.scale["tick_bps"][0])
        contexts = pool[np.arange(n) % len(pool)]
        seeds = np.arange(arguments.seed, arguments.seed + n).astype(np.uint64)
        size = np.maximum(np.round(arguments.size * medians[contexts]), 1).astype(np.int64)
        for side, response in agent_response(flow, contexts, seeds, size).items():
            result.append(rows(f"{name}, {side}", response))
    if arguments.data is not None:
        day = load(arguments.data / arguments.asset, infer_opening=False)
        part = split(day).train
        median = calibrate(day, part).median_size
        around = (arguments.size * median / 1.5, arguments.size * median * 1.5)
        real = taker_response(day.records[part.start : part.stop], median, around)
        result.append(rows("real takers", real))
    table = Table(title=f"response to a taker of {arguments.size:g} median sizes, 95% half-widths")
    table.add_column("arm")
    table.add_column("n", justify="right")
    for lag in LAGS:
        table.add_column(f"mid bps, {lag}", justify="right")
    for lag in LAGS:
        table.add_column(f"flow, {lag}", justify="right")
    for row in result:
        cells = [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["mid_bps"], row["mid_half_width"], strict=True)]
        cells += [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["flow"], row["flow_half_width"], strict=True)]
        table.add_row(row["arm"], str(row["samples"]), *cells)
    Console(width=220).print(table)
    if arguments.out is not None:
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=1))
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
