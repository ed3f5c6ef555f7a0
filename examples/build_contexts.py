"""Make the start states and the recorded day that ship with a TradeFM model, without one recorded row.

    python examples/build_contexts.py --data FOLDER --model runs/mini-2 --out runs/contexts

For each asset books are drawn from what the books of its training part have in common (how many levels, how
far apart, how many orders on each and how large: histograms, no rows). The model begins in such a book with a stretch
of that part as its context, so that it knows what kind of asset this is, and goes on alone: the record is read once
and no order of it is in the book. After 2,048 events of its own, eight times what it remembers, nothing recorded is
left, and start states are taken from it at intervals. The bundled day is one such market, followed for longer.
(A context of zero intelligence instead told the model of no asset in particular: what began like CLX5 traded three and
a half times as often as the real one. Books that zero intelligence had filled kept a spread of less than half the
real one for 16,000 events.)
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from tradefm_gym.data import FlowMeta, RecordedFlow, load, split
from tradefm_gym.data.day import save_day
from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
from tradefm_gym.flow.recording import DayRecorder
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import BACKGROUND, BUY, ORDER, SELL
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.tokenizer import TradeTokenizer

BURN_IN = 2_048
DRAWN_BOOKS = 64
LARGEST_SIDE = 1_200  # orders of a drawn book's side; the farthest are left out
BANDS = (5, 20, 80)  # levels from here on are counted together with those up to the next
TAIL = 256  # records of tape that a start state carries
SAMPLE_EVERY = 16


@dataclass
class Arguments:
    """What to build, and from what."""

    data: Path
    model: Path = Path("runs/mini-2")
    out: Path = Path("runs/contexts")
    assets: tuple[str, ...] = (
        "nasdaq_aapl_20120621_l50_1h",
        "nymex_clx5_mbo",
        "sse_600519_20230207",
    )
    rows: int = 64  # markets an asset
    spare: int = 16  # more of them, in place of those that lost a side of their book
    takes: int = 2  # start states a market
    every: int = 1_024  # events between two of them
    day_asset: str = "nasdaq_aapl_20120621_l50_1h"
    day_events: int = 210_000
    cancel: str = "matched"
    seed: int = 20_260


def seeded_flow(path: Path, model: Path, rows: int, cancel: str) -> TradeFMFlow:
    """TradeFM in drawn books of one asset, with stretches of its training part as contexts."""
    day, tokenizer = load(path, infer_opening=False), TradeTokenizer.load(model)
    part = split(day).train
    at = np.linspace(part.start + len(part) // 8, part.stop - 1, DRAWN_BOOKS).astype(np.int64)
    seen = recorded_bank(day, tokenizer, at=at)
    states = drawn_books(seen, np.random.default_rng(0))
    bank = ContextBank.from_states(states, np.zeros(len(states), np.uint8), "drawn books")
    return TradeFMFlow(model, rows, bank=bank, cancel=cancel)


def drawn_books(seen: ContextBank, rng: np.random.Generator) -> list[StartState]:
    """The states of a bank with books whose levels, distances, orders and sizes are drawn independently from theirs."""
    counts, spreads = [], []
    gaps, orders, sizes = ([[] for _ in range(len(BANDS) + 1)] for _ in range(3))
    for context in range(len(seen)):
        state = seen.state(context)
        touch = {}
        for side in (BUY, SELL):
            of_side = state.orders[state.orders["side"] == side]
            prices, number = np.unique(of_side["price"], return_counts=True)
            if side == BUY:
                prices, number = prices[::-1], number[::-1]
            touch[side] = prices[0]
            counts.append(len(prices))
            distance = np.abs(np.diff(prices))
            for level, price in enumerate(prices):
                band = np.searchsorted(BANDS, level, side="right")
                orders[band].append(number[level])
                sizes[band].extend(of_side["size"][of_side["price"] == price])
                if level:
                    gaps[band].append(distance[level - 1])
        spreads.append(touch[SELL] - touch[BUY])
    gaps, orders, sizes = ([np.array(band) for band in kind] for kind in (gaps, orders, sizes))
    return [_drawn_book(seen.state(c), rng, rng.choice(spreads), rng.choice(counts, 2), gaps, orders, sizes)
            for c in range(len(seen))]  # fmt: skip


def _drawn_book(like: StartState, rng: np.random.Generator, spread: int, levels, gaps, orders, sizes) -> StartState:
    """A recorded state with a drawn book near its mid."""
    rows = []
    bid = like.mid2 // 2 - spread // 2
    for side, price, count in ((BUY, bid, levels[0]), (SELL, bid + spread, levels[1])):
        of_side = []
        for level in range(count):
            band = int(np.searchsorted(BANDS, level, side="right"))
            if level:
                price -= side * int(rng.choice(gaps[band]))
            if not 1 <= price < 2**30:
                break
            lots = rng.choice(sizes[band], rng.choice(orders[band]))
            if len(of_side) + len(lots) > LARGEST_SIDE:
                break
            of_side += [(side, price, int(size)) for size in lots]
        rows += of_side
    book = np.zeros(len(rows), ORDER)
    book["side"], book["price"], book["size"] = np.array(rows)[rng.permutation(len(rows))].T
    book["order_id"], book["owner"], book["time_ns"] = np.arange(len(rows)), BACKGROUND, np.arange(len(rows))
    return like._replace(orders=book, mid2=2 * bid + spread, next_id=len(rows))


class Rollout:
    """N markets in a closed loop with a flow, measured as they run."""

    def __init__(self, flow: TradeFMFlow, seed: int):
        n = flow.num_envs
        self.flow = flow
        self.market = MarketSimulator(n, replace(flow.market_config(), flow_ids=1 << 20, orders=1 << 14, tape=1 << 14))
        contexts = np.arange(n) % len(flow.bank)
        seeds = np.arange(seed, seed + n).astype(np.uint64)
        flow.reset(self.market, np.ones(n, bool), contexts, seeds, np.zeros(n, np.uint32))
        self.events = 0
        self.touches: list[np.ndarray] = []

    def run(self, events: int) -> None:
        """Advance all markets, sampling the touch every 16 events."""
        end = self.events + events
        while self.events < end:
            self.events = min(self.events + SAMPLE_EVERY, end)
            target = np.full(self.market.num_markets, self.events)
            while (starved := self.market.advance(until_count=target)).any():
                self.market.feed(self.flow.next_events(self.market, starved))
            prices, sizes = self.market.depth(1)
            self.touches.append(np.concatenate([prices[:, :, 0], sizes[:, :, 0]], axis=1))

    def emptied(self) -> np.ndarray:
        """Markets (N,) bool of which a sample found a side empty."""
        return np.any([(sample[:, 2:] == 0).any(1) for sample in self.touches], axis=0)

    def statistics(self, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Share of samples with an empty side, median spread (ticks and bps), touch size; of some markets or of all."""
        touch = np.concatenate([sample[rows] for sample in self.touches]).astype(float)
        both = (touch[:, 2] > 0) & (touch[:, 3] > 0)
        spread = (touch[:, 1] - touch[:, 0])[both]
        mid = 0.5 * (touch[:, 1] + touch[:, 0])[both]
        return {
            "empty": 1.0 - both.mean(),
            "spread_ticks": float(np.median(spread)),
            "spread_bps": float(np.median(1e4 * spread / mid)),
            "touch_size": float(np.median(touch[both, 2:])),
        }


def take_states(rollout: Rollout, takes: int, every: int) -> list[StartState]:
    """Start states at intervals; each carries its tape tail and the feature state before that tail."""
    states = []
    for _ in range(takes):
        rollout.run(every - TAIL)
        flow, market = rollout.flow, rollout.market
        # The flow has not read the last event yet: the tail begins where its stream stands.
        before = [flow.feature_state(row) for row in range(market.num_markets)]
        read = flow.records_read
        rollout.run(TAIL)
        for row in range(market.num_markets):
            tail = int(market.tape.record_count[row]) - int(read[row])
            state = StartState.capture(market, row, np.zeros((), SCALE), tail, before[row])
            states.append(renumbered(state))
    return states


def renumbered(state: StartState) -> StartState:
    """The same state with order ids from 0, so that an episode does not start near the end of the ids."""
    orders, records = state.orders.copy(), state.records.copy()
    label = {int(old): new for new, old in enumerate(orders["order_id"])}
    orders["order_id"] = np.arange(len(orders))
    records["order_id"] = [label.get(int(old), -1) for old in records["order_id"]]
    return state._replace(orders=orders, records=records, next_id=len(orders))


def measured_scale(rollout: Rollout, states: list[StartState], rows: np.ndarray) -> np.ndarray:
    """SCALE () of training states and their markets ``rows``: what agents' observations are normalised with."""
    scale = np.zeros((), SCALE)
    records = [state.records for state in states]
    events = sum(len(r) for r in records)
    mids = np.concatenate([r["mid2"] for r in records]) / 2
    statistics = rollout.statistics(rows)
    assert states[0].feature_state is not None
    scale["lots_per_event"] = sum(int(r["filled"].sum()) for r in records) / events
    scale["median_size"] = states[0].feature_state["stream"]["median_size"]
    scale["spread"], scale["touch_size"] = statistics["spread_ticks"], statistics["touch_size"]
    scale["volatility"] = np.concatenate([np.diff(r["mid2"]) / 2 for r in records]).std()
    scale["event_ns"] = np.mean([(r["time_ns"][-1] - r["time_ns"][0]) / (len(r) - 1) for r in records])
    scale["tick_bps"] = 1e4 / mids.mean()
    return scale


def build_bank(arguments: Arguments, console: Console) -> ContextBank:
    """Start states of all assets; whole markets go to one part, so that parts share no history."""
    states, codes = [], []
    for asset in track(arguments.assets, description="contexts", console=console):
        markets = arguments.rows + arguments.spare
        flow = seeded_flow(arguments.data / asset, arguments.model, markets, arguments.cancel)
        rollout = Rollout(flow, arguments.seed)
        rollout.run(BURN_IN)
        rollout.touches.clear()
        taken = take_states(rollout, arguments.takes, arguments.every)
        sound = np.flatnonzero(~rollout.emptied())[: arguments.rows]
        if len(sound) < arguments.rows:
            raise SystemExit(f"--spare {arguments.spare} is too few: only {len(sound)} markets kept both sides")
        taken = [taken[take * markets + market] for take in range(arguments.takes) for market in sound]
        row = np.arange(len(taken)) % arguments.rows
        code = np.select([row < 0.7 * arguments.rows, row < 0.85 * arguments.rows], [0, 1], 2).astype(np.uint8)
        train = [s for s, c in zip(taken, code, strict=True) if c == 0]
        scale = measured_scale(rollout, train, sound[np.unique(row[code == 0])])
        console.print(asset, {k: round(v, 4) for k, v in rollout.statistics().items()}, scale)
        console.print(f"{rollout.emptied().sum()} of {markets} markets lost a side")
        states += [s._replace(scale=scale) for s in taken]
        codes.append(code)
    return ContextBank.from_states(states, np.concatenate(codes), f"closed-loop {arguments.model.name}")


def record_day(arguments: Arguments, console: Console) -> RecordedFlow:
    """One generated market as a recorded day."""
    flow = seeded_flow(arguments.data / arguments.day_asset, arguments.model, 1, arguments.cancel)
    rollout = Rollout(flow, arguments.seed + 10_000)
    rollout.run(BURN_IN)
    market = rollout.market
    start_ns, recorder = int(market.clock_ns[0]), DayRecorder(market)
    for _ in track(range(0, arguments.day_events, 4 * TAIL), description="day", console=console):
        rollout.run(4 * TAIL)
        recorder.collect()
    meta = FlowMeta(
        ticker="SYNTH",
        venue="TradeFM",
        date="generated",
        tick_size=1,
        price_unit="ticks",
        lot=1,
        size_unit="lots",
        replay_by_id=True,
        session_ns=(start_ns, int(market.clock_ns[0]) + 1),
        source=f"closed-loop rollout of {arguments.model.name}",
    )
    return recorder.finish(meta)


def main(arguments: Arguments) -> None:
    """Build and save both."""
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    bank = build_bank(arguments, console)
    bank.save(arguments.out / f"{arguments.model.name}.npz")
    console.print(f"{len(bank)} start states, version {bank.digest()}")
    day = record_day(arguments, console)
    save_day(arguments.out / "day.npz", day)
    console.print(f"a day of {len(day):,} records: {day.summary()}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
