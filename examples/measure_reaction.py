"""Does the market react to an agent as it reacts to real takers of that size?

    python examples/measure_reaction.py --data FOLDER

Prints, for one asset, the response of mid and signed flow to an agent's market orders with and without the
participant flag, and to real takers of that size on the asset's training part. Once for a single order that is
large by itself, once for a run of orders, which is how real takers come.
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
    size: float = 4.0  # of the agent's single order, in median sizes
    run: int = 4  # orders of the run, of one median size each
    gap: int = 4  # background events between two of them
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
    for orders, size in ((1, arguments.size), (arguments.run, 1.0)):
        what = f"{orders} x {size:g} median sizes"
        for name, flagged in (("flagged", True), ("not flagged", False)):
            flow = TradeFMFlow(arguments.model, n, flag_agents=flagged)
            # The start states of one asset are those with its tick.
            tick, medians = flow.bank.scale["tick_bps"], flow.bank.scale["median_size"]
            pool = np.flatnonzero(tick == tick[0])
            contexts = pool[np.arange(n) % len(pool)]
            seeds = np.arange(arguments.seed, arguments.seed + n).astype(np.uint64)
            lots = np.maximum(np.round(size * medians[contexts]), 1).astype(np.int64)
            arms = agent_response(flow, contexts, seeds, lots, orders=orders, gap=arguments.gap)
            result += [rows(f"{what}: agent {name}, {side}", response) for side, response in arms.items()]
        if arguments.data is not None:
            day = load(arguments.data / arguments.asset, infer_opening=False)
            part = split(day).train
            median = calibrate(day, part).median_size
            around, records = (size * median / 1.5, size * median * 1.5), day.records[part.start : part.stop]
            result.append(rows(f"{what}: real takers", taker_response(records, median, around)))
            if orders > 1:
                real = taker_response(records, median, around, run=orders, within=orders * arguments.gap)
                result.append(rows(f"{what}: real takers in a run", real))
    table = Table(title="response to takers: mean and 95% half-width by lag in events")
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
