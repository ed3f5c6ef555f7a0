"""Does the market react to an agent as it reacts to real takers of that size?

    python examples/measure_reaction.py --data FOLDER

Prints, for one asset, three tables of the response of mid and signed flow by lag:

* a single order of an agent, with and without the participant flag, beside real takers of that size: all of them,
  and those that come out of the blue as the agent's does (no other taker among the 16 events before);
* a run of an agent's orders, which is how real takers mostly come, beside real takers within such a run;
* an agent that stands in for real takers: from the recorded moments before them, the same order in its name.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.data import calibrate, load, split
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import CANCEL
from tradefm_gym.model.serving import BUNDLED_MODEL
from tradefm_gym.realism.reaction import (
    LAGS,
    Response,
    agent_response,
    find_takers,
    replaced_response,
    taker_response,
)

QUIET = 16  # events without a taker before one that comes out of the blue


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
    repeats: int = 4  # seeds for each real taker that an agent stands in for
    seed: int = 0
    out: Path | None = None


def summary(name: str, response: Response) -> dict:
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


def out_of_the_blue(records: np.ndarray, takers: np.ndarray) -> np.ndarray:
    """Those of ``takers`` that no other taker precedes within 16 records."""
    executed = np.concatenate([[0], np.cumsum((records["filled"] > 0) & (records["kind"] != CANCEL))])
    return takers[(takers >= QUIET) & (executed[takers] == executed[np.maximum(takers - QUIET, 0)])]


class Measurement:
    """One asset's day, beside the start states and the model that it is compared with."""

    def __init__(self, arguments: Arguments):
        self.arguments = arguments
        if arguments.data is not None:
            self.day = load(arguments.data / arguments.asset, infer_opening=False)
            self.parts = split(self.day)
            self.median = calibrate(self.day, self.parts.train).median_size

    def agents(self, orders: int, size: float) -> list[dict]:
        """An agent's orders out of the blue, from bundled start states."""
        n, seed, result = self.arguments.seeds, self.arguments.seed, []
        for name, flagged in (("agent, flagged", True), ("agent, not flagged", False)):
            flow = TradeFMFlow(self.arguments.model, n, flag_agents=flagged)
            # The start states of one asset are those with its tick.
            tick, medians = flow.bank.scale["tick_bps"], flow.bank.scale["median_size"]
            pool = np.flatnonzero(tick == tick[0])
            contexts, seeds = pool[np.arange(n) % len(pool)], np.arange(seed, seed + n).astype(np.uint64)
            lots = np.maximum(np.round(size * medians[contexts]), 1).astype(np.int64)
            arms = agent_response(flow, contexts, seeds, lots, orders=orders, gap=self.arguments.gap)
            result += [summary(f"{name}: {side}", response) for side, response in arms.items()]
        return result

    def takers(self, size: float, run: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Records of the training part, and the takers of a size there."""
        records = self.day.records[self.parts.train.start : self.parts.train.stop]
        around = (size * self.median / 1.5, size * self.median * 1.5)
        return records, find_takers(records, around, run=run, within=run * self.arguments.gap)

    def single(self) -> list[dict]:
        """One large order."""
        result = self.agents(1, self.arguments.size)
        if self.arguments.data is not None:
            records, takers = self.takers(self.arguments.size)
            blue = out_of_the_blue(records, takers)
            result.append(summary("real takers", taker_response(records, self.median, takers)))
            result.append(summary("real takers out of the blue", taker_response(records, self.median, blue)))
        return result

    def run(self) -> list[dict]:
        """A run of orders of the median size; everything counts from the last one."""
        result = self.agents(self.arguments.run, 1.0)
        if self.arguments.data is not None:
            for name, run in (("real takers", 1), ("real takers in a run", self.arguments.run)):
                records, takers = self.takers(1.0, run)
                result.append(summary(name, taker_response(records, self.median, takers)))
        return result

    def replaced(self, size: float) -> list[dict]:
        """An agent in the place of the real takers of the validation and test parts."""
        result, records = [], self.day.records
        takers = np.concatenate([self._within(part, size) for part in (self.parts.validation, self.parts.test)])
        k = self.arguments.repeats
        probe = TradeFMFlow(self.arguments.model)
        edges, half_life, mode = probe.tokenizer.depth_edges, probe.tokenizer.half_life_s, probe.tokenizer.mid_mode
        bank = recorded_bank(self.day, edges, half_life, mode, at=takers)
        flow = TradeFMFlow(self.arguments.model, k * len(takers), bank=bank)
        seeds = np.arange(self.arguments.seed, self.arguments.seed + flow.num_envs).astype(np.uint64)
        arms = replaced_response(flow, records, takers, seeds)
        result += [summary(f"{name} in their place", response) for name, response in arms.items()]
        result.append(summary("real takers", taker_response(records, self.median, takers)))
        return result

    def _within(self, part: range, size: float) -> np.ndarray:
        around = (size * self.median / 1.5, size * self.median * 1.5)
        return part.start + find_takers(self.day.records[part.start : part.stop], around)


def print_table(console: Console, title: str, result: list[dict]) -> None:
    """Means and 95% half-widths by lag."""
    table = Table(title=f"{title}: mean and 95% half-width by lag in events")
    table.add_column("arm")
    table.add_column("n", justify="right")
    for unit in ("mid bps", "flow"):
        for lag in LAGS:
            table.add_column(f"{unit}, {lag}", justify="right")
    for row in result:
        cells = [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["mid_bps"], row["mid_half_width"], strict=True)]
        cells += [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["flow"], row["flow_half_width"], strict=True)]
        table.add_row(row["arm"], str(row["samples"]), *cells)
    console.print(table)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    console, measurement = Console(width=220), Measurement(arguments)
    tables = {
        f"one order of {arguments.size:g} median sizes": measurement.single(),
        f"last of {arguments.run} orders of one median size": measurement.run(),
    }
    if arguments.data is not None:
        for size in (1.0, arguments.size):
            title = f"in the place of real takers of {size:g} median sizes, held-out parts"
            tables[title] = measurement.replaced(size)
    for title, result in tables.items():
        print_table(console, title, result)
    if arguments.out is not None:
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(tables, indent=1))
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
