"""Which order does a real cancel remove, of those that a generated cancel could mean?

    python examples/measure_cancels.py --data FOLDER

A generated cancel names side, depth bin and volume bin; ``tradefm_gym.flow.cancels`` chooses among the orders that
fit. This replays the training part of recorded days and finds, for each cancel that removed a whole order, how many
of the live orders that fit are newer. It prints how often the newest was the one, how often a random one would have
been, and how well the rule's 2^-k describes the ranks, beside the likeliest geometric law.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.data import RecordedFlow, calibrate, load, split
from tradefm_gym.flow.recorded_starts import to_events
from tradefm_gym.market.events import BACKGROUND, CANCEL, LIMIT, EventBlock
from tradefm_gym.market.features import day_features, touch_place
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer

SHOWN = 6  # ranks told apart in the second table


@dataclass
class Arguments:
    """What to measure."""

    data: Path
    assets: tuple[str, ...] = ("nasdaq_aapl_20120621_l50_1h", "nymex_clx5_mbo", "sse_600519_20230207")
    model: str = BUNDLED_MODEL  # whose bins


def cancel_ranks(day: RecordedFlow, tokenizer: TradeTokenizer) -> tuple[np.ndarray, np.ndarray]:
    """For each full cancel of the training part the newer orders that fit, and all that fit.

    Args:
        day: a day with orders known by id.
        tokenizer: whose depth and volume bins say what fits.

    Returns:
        ``rank (k,)`` int64, 0 if the newest was cancelled, and ``fitting (k,)`` int64, the cancelled one included.
    """
    part = split(day).train
    median = calibrate(day, part).median_size
    features, index, _ = day_features(day.records, part, median, tokenizer.half_life_s, tokenizer.mid_mode)
    mid = np.zeros(len(day.records))
    mid[index] = features["mid"]
    records = day.records[: part.stop]
    cancels = np.flatnonzero((records["kind"] == CANCEL) & (records["max_rest"] == 0) & (mid[: part.stop] > 0))
    book, result = _Book(records), []
    for i in cancels[cancels >= part.start].tolist():
        book.replay(i)
        ids, price, size = book.resting(int(records["side"][i]))
        if tokenizer.mid == "touch":
            bid, ask = day.touch[i - 1, [0, 2]].astype(float)
            depth = np.array([int(touch_place(one, records["side"][i], bid, ask)) for one in price.tolist()], np.int64)
        else:
            depth = np.searchsorted(tokenizer.depth_edges, 1e4 * (price - mid[i]) / mid[i], side="right")
        volume = np.searchsorted(tokenizer.volume_edges, np.log1p(size / median), side="right")
        cancelled = np.flatnonzero(ids == records["order_id"][i])
        if len(cancelled):  # else a fill of the replay, but not of the record, has removed it
            fits = (depth == depth[cancelled]) & (volume == volume[cancelled])
            # Ids are numbered in order of arrival.
            result.append((int((ids[fits] > records["order_id"][i]).sum()), int(fits.sum())))
    rank, fitting = np.array(result, np.int64).reshape(-1, 2).T
    return rank, fitting


class _Book:
    """The exact book of a day, up to any record of it."""

    def __init__(self, records: np.ndarray):
        self.events, self.done = to_events(records), 0
        self.rests = (records["kind"] == LIMIT) & (records["max_rest"] > 0)
        ids = int(records["order_id"].max(initial=0)) + 1
        orders = 1 << int(self.rests.sum()).bit_length()
        self.market = MarketSimulator(1, MarketConfig(orders=orders, flow_ids=ids))
        self.side = np.zeros(ids, np.int8)  # of the orders that have rested
        self.live = np.zeros(0, np.int64)  # ids that rest, and those that ended since they were last looked at

    def replay(self, until: int) -> None:
        """Carries out the records before ``until``."""
        rested = self.events[self.done : until][self.rests[self.done : until]]
        self.side[rested["order_id"]] = rested["side"]
        self.live = np.concatenate([self.live, rested["order_id"]])
        width = self.market.config.flow_queue
        while self.done < until:
            chunk = self.events[self.done : min(self.done + width, until)]
            self.market.feed(EventBlock(chunk[None].copy(), np.array([len(chunk)], np.int32)))
            self.market.advance(until_count=np.array([2**62]))
            self.done += len(chunk)

    def resting(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, prices and remaining lots of the orders of a side, (n,) int64 each."""
        price, size, _ = (values[0] for values in self.market.orders_of(BACKGROUND, self.live[None]))
        rests = size > 0
        self.live, price, size = self.live[rests], price[rests], size[rests]
        chosen = self.side[self.live] == side
        return self.live[chosen], price[chosen], size[chosen]


def geometric_ratio(rank: np.ndarray, fitting: np.ndarray) -> float:
    """The likeliest chance to pass over a fitting order for the next older one; the oldest is never passed over."""
    return float(rank.sum() / max(1, rank.sum() + (rank < fitting - 1).sum()))


def geometric(ratio: float, rank: np.ndarray, fitting: np.ndarray) -> np.ndarray:
    """The chance of each rank if an order is passed over with chance ``ratio``."""
    return np.where(rank < fitting - 1, 1 - ratio, 1.0) * ratio**rank


def expected_shares(ratio: float, fitting: np.ndarray) -> list[float]:
    """How often a geometric law takes each of the first ranks, over cancels with so many fitting orders."""
    ranks = np.arange(SHOWN)[:, None]  # (SHOWN, k) below
    return np.where(fitting > ranks, geometric(ratio, ranks, fitting), 0.0).mean(axis=1).tolist()


def main(arguments: Arguments) -> None:
    """Measures all assets and prints two tables."""
    tokenizer = TradeTokenizer.load(checkpoint(arguments.model)[0])
    console, shares = Console(width=120), Table(title="The newest order that fits; nats a cancel by three laws")
    for name in ("asset", "cancels", "fitting", "one fits", "newest", "random", "ratio", "2^-k", "ratio's", "random's"):
        shares.add_column(name, justify="right")
    ranks = Table("asset", "", *(str(k) for k in range(SHOWN)), "older", title="Share of each rank")
    for asset in arguments.assets:
        rank, fitting = cancel_ranks(load(arguments.data / asset), tokenizer)
        if not len(rank):
            console.print(f"{asset}: no full cancels")
            continue
        ratio = geometric_ratio(rank, fitting)
        laws = geometric(0.5, rank, fitting), geometric(ratio, rank, fitting), 1 / fitting
        nats = [f"{-np.log(np.maximum(law, 1e-300)).mean():.3f}" for law in laws]
        figures = [f"{share.mean():.1%}" for share in (fitting == 1, rank == 0, 1 / fitting)]
        shares.add_row(asset, f"{len(rank):,}", f"{fitting.mean():.1f}", *figures, f"{ratio:.3f}", *nats)
        recorded = [float((rank == k).mean()) for k in range(SHOWN)]
        expected = {"2^-k": expected_shares(0.5, fitting), f"ratio {ratio:.3f}": expected_shares(ratio, fitting)}
        for name, law in ({"recorded": recorded} | expected).items():
            ranks.add_row(asset, name, *(f"{share:.1%}" for share in [*law, 1 - sum(law)]))
    console.print(shares)
    console.print(ranks)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
