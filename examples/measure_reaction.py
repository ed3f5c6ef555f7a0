"""Does the market react to an agent as it reacts to real takers of that size?

    python examples/measure_reaction.py --data FOLDER

Prints, for each asset, the response of mid and signed flow by lag to

* a single order of an agent, with and without the participant flag, beside real takers of that size: all of them,
  and those that come out of the blue as the agent's does (no other taker among the 16 events before);
* a run of an agent's orders, which is how real takers mostly come, beside real takers within such a run;
* an agent that stands in for real takers: from the recorded moments before them, the same order in its name.

The agent acts in recorded moments of the held-out parts, where the market is as it was for the real takers, and in
the bundled start states of that asset (all that there is without ``--data``). For each arm the last column says at
how many lags mid and flow lie nearer to the real takers of that size than to zero.
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
    Response,
    agent_response,
    find_takers,
    replaced_response,
    taker_response,
)

LAGS = (1, 4, 16, 64)
MOMENTS = 64  # of the held-out parts, in which the agent acts
MOST_TAKERS = 256  # real ones in whose place the agent acts
QUIET = 16  # events without a taker before one that comes out of the blue


@dataclass
class Arguments:
    """What to measure."""

    data: Path | None = None
    assets: tuple[str, ...] = ("nasdaq_aapl_20120621_l50_1h", "nymex_clx5_mbo", "sse_600519_20230207")
    model: str = BUNDLED_MODEL
    seeds: int = 256
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
    """One asset: its recorded day, if there is one, and the places where an agent acts."""

    def __init__(self, asset: str | None, arguments: Arguments):
        self.arguments = arguments
        self.recorded = asset is not None
        bundled = TradeFMFlow(arguments.model).bank
        tick = bundled.scale["tick_bps"]
        wanted = tick[0]
        self.starts = {}
        if asset is not None and arguments.data is not None:
            self.day = load(arguments.data / asset, infer_opening=False)
            self.parts = split(self.day)
            calibration = calibrate(self.day, self.parts.train)
            self.median, wanted = calibration.median_size, 1e4 / calibration.mid
            held_out = range(self.parts.validation.start, self.parts.test.stop)
            at = np.linspace(held_out.start + 1, held_out.stop - 1, MOMENTS).astype(np.int64)
            bank = self.bank(at)
            self.starts["recorded"] = bank, np.arange(len(bank))
        # The start states of an asset are those with about its tick.
        near = np.abs(np.log(tick / wanted))
        self.starts["bundled"] = bundled, np.flatnonzero(near < 0.1)

    def bank(self, at: np.ndarray):
        """Start states at recorded moments, for the model."""
        tokenizer = TradeFMFlow(self.arguments.model).tokenizer
        return recorded_bank(self.day, tokenizer, at=at)

    def agents(self, orders: int, size: float) -> list[dict]:
        """An agent's orders out of the blue."""
        n, seed, result = self.arguments.seeds, self.arguments.seed, []
        for place, (bank, pool) in self.starts.items():
            if not len(pool):
                continue
            for name, flagged in (("flagged", True), ("not flagged", False)):
                flow = TradeFMFlow(self.arguments.model, n, bank=bank, flag_agents=flagged)
                contexts = pool[np.arange(n) % len(pool)]
                seeds = np.arange(seed, seed + n).astype(np.uint64)
                lots = np.maximum(np.round(size * bank.scale["median_size"][contexts]), 1).astype(np.int64)
                arms = agent_response(flow, contexts, seeds, lots, LAGS, orders, self.arguments.gap)
                result += [summary(f"agent, {name}, {place}: {side}", arms[side]) for side in ("buy", "sell", "both")]
        return result

    def takers(self, size: float, run: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Records of the training part, and the takers of a size there."""
        records = self.day.records[self.parts.train.start : self.parts.train.stop]
        around = (size * self.median / 1.5, size * self.median * 1.5)
        return records, find_takers(records, around, max(LAGS), run, run * self.arguments.gap)

    def single(self) -> list[dict]:
        """One large order."""
        result = self.agents(1, self.arguments.size)
        if self.recorded:
            records, takers = self.takers(self.arguments.size)
            result += self.real("real takers", records, takers)
            result += self.real("real takers out of the blue", records, out_of_the_blue(records, takers))
        return result

    def real(self, name: str, records: np.ndarray, takers: np.ndarray) -> list[dict]:
        """The response to real takers, if there are any to speak of."""
        return [summary(name, taker_response(records, self.median, takers, LAGS))] if len(takers) > 1 else []

    def run(self) -> list[dict]:
        """A run of orders of the median size; everything counts from the last one."""
        result = self.agents(self.arguments.run, 1.0)
        if self.recorded:
            for name, run in (("real takers", 1), ("real takers in a run", self.arguments.run)):
                records, takers = self.takers(1.0, run)
                result += self.real(name, records, takers)
        return result

    def replaced(self, size: float) -> list[dict]:
        """An agent in the place of the real takers of the validation and test parts."""
        result, records = [], self.day.records
        takers = np.concatenate([self._within(part, size) for part in (self.parts.validation, self.parts.test)])
        if len(takers) < 2:
            return []
        # Evenly over the time, if there are many.
        takers = takers[np.unique(np.linspace(0, len(takers) - 1, MOST_TAKERS).astype(np.int64))]
        k = self.arguments.repeats
        flow = TradeFMFlow(self.arguments.model, k * len(takers), bank=self.bank(takers))
        seeds = np.arange(self.arguments.seed, self.arguments.seed + flow.num_envs).astype(np.uint64)
        arms = replaced_response(flow, records, takers, seeds, LAGS)
        result += [summary(f"{name} in their place", response) for name, response in arms.items()]
        return result + self.real("real takers", records, takers)

    def _within(self, part: range, size: float) -> np.ndarray:
        around = (size * self.median / 1.5, size * self.median * 1.5)
        return part.start + find_takers(self.day.records[part.start : part.stop], around, max(LAGS))


def nearer(row: dict, real: dict | None) -> str:
    """At how many lags an arm's mid and flow lie nearer to the real takers than to zero."""
    if real is None or row is real:
        return ""
    pairs = [(np.array(row[name]), np.array(real[name])) for name in ("mid_bps", "flow")]
    counts = [int((np.abs(ours - theirs) < np.abs(ours)).sum()) for ours, theirs in pairs]
    return " ".join(f"{count}/{len(LAGS)}" for count in counts)


def print_table(console: Console, title: str, result: list[dict]) -> None:
    """Means and 95% half-widths by lag."""
    table = Table(title=f"{title}: mean and 95% half-width by lag in events")
    table.add_column("arm")
    table.add_column("n", justify="right")
    for unit in ("mid bps", "flow"):
        for lag in LAGS:
            table.add_column(f"{unit}, {lag}", justify="right")
    table.add_column("nearer", justify="right")
    real = next((row for row in result if row["arm"] == "real takers"), None)
    for row in result:
        cells = [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["mid_bps"], row["mid_half_width"], strict=True)]
        cells += [f"{m:+.2f} ±{h:.2f}" for m, h in zip(row["flow"], row["flow_half_width"], strict=True)]
        table.add_row(row["arm"], str(row["samples"]), *cells, nearer(row, real))
    console.print(table)


def main(arguments: Arguments) -> None:
    """Measure and print."""
    console, tables = Console(width=200), {}
    for asset in arguments.assets if arguments.data is not None else (None,):
        measurement, name = Measurement(asset, arguments), asset or "bundled start states"
        found = {
            f"{name}, one order of {arguments.size:g} median sizes": measurement.single(),
            f"{name}, last of {arguments.run} orders of one median size": measurement.run(),
        }
        for size in (1.0, arguments.size) if asset is not None else ():
            title = f"{name}, in the place of real takers of {size:g} median sizes, held-out parts"
            found[title] = measurement.replaced(size)
        for title, result in found.items():
            print_table(console, title, result)
        tables |= found
    if arguments.out is not None:
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(tables, indent=1))
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
