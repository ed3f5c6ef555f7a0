"""Choose the persistence of a TradeFM checkpoint: how much order-flow pressure moves the side of takers.

    python examples/calibrate_persistence.py --data FOLDER --model runs/mini-2

The model runs freely from recorded moments of the training parts, and its own takers are followed as the real ones
are: the signed flow that comes after them is compared with the record's, for takers of one and of four median
sizes. Of a grid the pair with the smallest mean squared distance, in standard errors of both sides, is written to
the checkpoint's ``closed_loop.json``. No agent takes part, and nothing of validation or test is read.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from tradefm_gym.data import calibrate, load, split
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.closed_loop import ClosedLoop
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.reaction import Response, find_takers, taker_response

LAGS = (4, 16, 64)
SIZES = (1.0, 4.0)  # of takers, in median sizes
FEWEST = 30  # takers of a size, for it to count


@dataclass
class Arguments:
    """Where to look, and what to try."""

    data: Path
    model: Path
    assets: tuple[str, ...] = ("nasdaq_aapl_20120621_l50_1h", "nymex_clx5_mbo", "sse_600519_20230207")
    fast: tuple[float, ...] = (0.0,)  # 0.003 and 0.006 were no better
    slow: tuple[float, ...] = (0.0, 0.0005, 0.001, 0.002)
    restoring: float = 0.5  # what a dense side does to its cancels; 0 lets books like 600519's grow dense
    rollouts: int = 32  # of each asset
    burn_in: int = 512  # events
    events: int = 1_536  # measured
    seed: int = 0


class Asset:
    """The training part of one recorded day, and the model in moments of it."""

    def __init__(self, name: str, arguments: Arguments):
        self.name, self.arguments = name, arguments
        day = load(arguments.data / name, infer_opening=False)
        part = split(day).train
        self.median = calibrate(day, part).median_size
        self.real = self._responses([day.records[part.start : part.stop]])
        at = np.linspace(part.start + len(part) // 8, part.stop - 1, arguments.rollouts).astype(np.int64)
        tokenizer = TradeTokenizer.load(arguments.model)
        self.bank = recorded_bank(day, tokenizer.depth_edges, tokenizer.half_life_s, tokenizer.mid_mode, at=at)

    def generated(self, persistence: tuple[float, float]) -> dict[float, Response]:
        """Responses to the model's own takers."""
        n, burn_in = self.arguments.rollouts, self.arguments.burn_in
        flow = TradeFMFlow(
            self.arguments.model, n, bank=self.bank, persistence=persistence, restoring=self.arguments.restoring
        )
        market = MarketSimulator(n, flow.market_config())
        seeds = np.arange(self.arguments.seed, self.arguments.seed + n).astype(np.uint64)
        flow.reset(market, np.ones(n, bool), np.arange(n), seeds, np.zeros(n, np.uint32))
        start = market.tape.record_count.copy()
        for end in (burn_in, burn_in + self.arguments.events):
            while (starved := market.advance(until_count=np.full(n, end))).any():
                market.feed(flow.next_events(market, starved))
            if end == burn_in:
                start = market.tape.record_count.copy()
        return self._responses([market.tape.read_records(row, int(start[row])) for row in range(n)])

    def distance(self, persistence: tuple[float, float]) -> tuple[list[float], list[str]]:
        """Squared distances from the record in standard errors, and what they compare."""
        distances, shown = [], []
        for size, ours in self.generated(persistence).items():
            real = self.real[size]
            error = np.hypot(ours.interval()[1], real.interval()[1]) / 1.96
            distances += (((ours.mean()[1] - real.mean()[1]) / error) ** 2).tolist()
            shown.append(f"{size:g}: {ours.mean()[1].round(2)} / {real.mean()[1].round(2)}")
        return distances, shown

    def _responses(self, tapes: list[np.ndarray]) -> dict[float, Response]:
        result = {}
        for size in SIZES:
            around = (size * self.median / 1.5, size * self.median * 1.5)
            found = [(tape, find_takers(tape, around, longest=max(LAGS))) for tape in tapes]
            several = [taker_response(tape, self.median, at, LAGS) for tape, at in found if len(at) > 1]
            if sum(len(one.mid) for one in several) >= FEWEST:
                mid, flow = (np.concatenate([getattr(one, name) for one in several]) for name in ("mid", "flow"))
                result[size] = Response(mid, flow, LAGS)
        return result


def main(arguments: Arguments) -> None:
    """Try the grid, keep the best pair."""
    console = Console(width=160)
    assets = [Asset(name, arguments) for name in arguments.assets]
    scores: dict[tuple[float, float], float] = {}
    grid = [(fast, slow) for fast in arguments.fast for slow in arguments.slow]
    for pair in track(grid, description="persistence", console=console):
        found = [asset.distance(pair) for asset in assets]
        scores[pair] = float(np.mean([d for distances, _ in found for d in distances]))
        console.print(f"{pair}: mean squared distance {scores[pair]:.2f}")
        for asset, (_, shown) in zip(assets, found, strict=True):
            console.print(f"  {asset.name}: flow after takers at {LAGS}, generated / real: {'; '.join(shown)}")
    best = min(scores, key=scores.__getitem__)
    provenance = {
        "assets": list(arguments.assets),
        "part": "train",
        "rollouts": arguments.rollouts,
        "events": arguments.events,
        "seed": arguments.seed,
        "mean_squared_distance": {str(list(pair)): round(score, 3) for pair, score in scores.items()},
    }
    ClosedLoop(best, arguments.restoring, provenance).save(arguments.model)
    console.print(f"persistence {best} written to {arguments.model}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
