"""Orders that nobody should send, through every entry of the exchange: it takes them or refuses them in a sentence.

``pytest tests/test_fuzz_orders.py`` runs a few hundred sequences; ``python tests/fuzz_orders.py 600`` goes on for ten
minutes with new ones. Whatever came, the books are sound afterwards, uncrossed, and money and shares add up.
"""

import sys
import time
from collections import Counter

import numpy as np
from fuzzing import SLOWEST_S, go_on
from hypothesis import strategies as st
from market_checks import JIT, check_room, kernel_queues

from tradefm_gym.market.config import PREVENTION
from tradefm_gym.market.events import EVENT, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

WIDTH = 12
ENTRIES = ("submit", "feed", "execute", "strict", "send", "advance", "reset")
outcomes: Counter = Counter()

_EDGES = {name: (np.iinfo(EVENT[name]).min, np.iinfo(EVENT[name]).max) for name in EVENT.names or ()}
_USUAL = {
    "time_ns": (0, 50), "order_id": (-4, 20), "price": (95, 106), "size": (-1, 30), "max_rest": (-1, 20),
    "owner": (-1, 1), "kind": (0, 8), "side": (-1, 1), "anchor": (0, 3),
}  # fmt: skip


@st.composite
def events(draw) -> np.ndarray:
    """(WIDTH,) EVENT: usual values, those at the edges of their types, and bytes that mean nothing."""
    count = draw(st.integers(1, WIDTH))
    if draw(st.integers(0, 9)) == 0:
        raw = draw(st.binary(min_size=EVENT.itemsize * WIDTH, max_size=EVENT.itemsize * WIDTH))
        return np.frombuffer(raw, EVENT).copy()
    out = np.zeros(WIDTH, EVENT)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    for name, (low, high) in _USUAL.items():
        out[name] = generator.integers(low, high, WIDTH, endpoint=True)
    out["side"] = np.where(generator.random(WIDTH) < 0.95, generator.choice((-1, 1), WIDTH), out["side"])
    out["owner"] = np.where(generator.random(WIDTH) < 0.9, generator.choice((-1, 0), WIDTH), out["owner"])
    out["max_rest"] = np.where(generator.random(WIDTH) < 0.8, 2**31 - 1, out["max_rest"])
    for _ in range(max(0, draw(st.integers(-6, 3)))):
        name = draw(st.sampled_from(sorted(_EDGES)))
        low, high = _EDGES[name]
        out[name][draw(st.integers(0, count - 1))] = draw(st.sampled_from((low, low + 1, high - 1, high, 0)))
    return out


@st.composite
def configs(draw) -> MarketConfig:
    """A small market of any rules."""
    return MarketConfig(
        levels=64, orders=draw(st.integers(1, 40)), seats=2, flow_ids=draw(st.sampled_from((1, 16, 64, 2**30))),
        agent_ids=draw(st.integers(1, 16)), tape=64, fills=64, flow_queue=24, agent_queue=8,
        self_trade=tuple(draw(st.sampled_from(PREVENTION)) for _ in range(2)), maker_fee=draw(st.integers(-3, 3)),
        taker_fee=draw(st.integers(-3, 3)), tick=draw(st.sampled_from((1, 1, 5))), lot=draw(st.sampled_from((1, 1, 2))),
    )  # fmt: skip


steps = st.tuples(st.sampled_from(ENTRIES), events(), st.integers(-1, WIDTH + 1))
cases = st.tuples(configs(), st.integers(1, 3), st.lists(steps, min_size=1, max_size=12))


def run(case, slowest: float = SLOWEST_S) -> None:
    """Sends a sequence; anything but a sentence is a failure, and so is a book that is not sound after it."""
    config, num_markets, sequence = case
    market = MarketSimulator(num_markets, config)
    started = time.monotonic()
    for entry, sent, count in sequence:
        try:
            _enter(market, entry, sent, count)
            outcomes[entry, "taken"] += 1
        except ValueError as error:
            outcomes[entry, "refused"] += 1
            assert str(error).strip().endswith(".") and "\n" not in str(error), repr(error)
        check(market)
    assert time.monotonic() - started < slowest


def _enter(market: MarketSimulator, entry: str, sent: np.ndarray, count: int) -> None:
    rows = market.num_markets
    if count != 1:  # most blocks have the owners and ids that their entry takes
        sent = _owned(sent, entry, market.config.agent_ids)
    block = EventBlock(np.repeat(sent[None], rows, axis=0), np.full(rows, count, np.int32))
    if entry == "submit":
        market.submit(block)
    elif entry == "feed":
        market.feed(block)
    elif entry in ("execute", "strict"):
        market.execute(block, strict=entry == "strict")
    elif entry == "advance":
        market.advance(until_ns=np.full(rows, sent["time_ns"][0]))
    elif entry == "reset":
        market.reset(np.arange(rows) == count)
    else:
        for event in sent[: max(0, count)]:
            fields = {name: int(event[name]) for name in EVENT.names}
            market.send(**fields, row=count % (rows + 1))


def _owned(sent: np.ndarray, entry: str, agent_ids: int) -> np.ndarray:
    """The same events, of seats where orders are submitted and of the background where a flow feeds."""
    sent = sent.copy()
    if entry == "submit":
        sent["owner"] = np.abs(sent["owner"].astype(int)) % 2
        sent["order_id"] = np.abs(sent["order_id"]) % agent_ids
        sent["kind"] = np.where(np.isin(sent["kind"], (3, 8)), 0, sent["kind"])
        sent["size"] = np.maximum(sent["size"], 1)
        sent["max_rest"] = np.maximum(sent["max_rest"], 0)
        sent["side"] = np.where(sent["side"] == 0, 1, sent["side"])
    elif entry == "feed":
        sent["owner"] = -1
    return sent


def check(market: MarketSimulator) -> None:
    """Every queue and table agrees with the others, no book is crossed, and what one gained another lost."""
    bid, ask = market.touch()
    assert ((bid == 0) | (ask == 0) | (bid < ask)).all(), (bid, ask)
    for m in range(market.num_markets):
        for s in (0, 1):
            kernel_queues(market, m, s)
        check_room(market.book, m)
    assert not market.accounts["cash"].sum(axis=1).any()
    assert not market.accounts["inventory"].sum(axis=1).any()


if __name__ == "__main__":
    assert JIT, "the long run is for the compiled kernels"
    sys.exit(go_on(cases, run, outcomes, float(sys.argv[1]) if len(sys.argv) > 1 else 600))
