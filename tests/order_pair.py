"""A market of the kernels beside one of the reference book: the same orders go to both, and they have to agree."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from market_checks import JIT, assert_same_book, assert_same_tape
from reference_book import ReferenceMarket

from tradefm_gym.market.events import ABSOLUTE, BACKGROUND, BUY, LIMIT, NO_LIMIT, PRINT, SELL
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

SMALL = {"levels": 64, "orders": 60, "seats": 2, "flow_ids": 64, "agent_ids": 16, "maker_fee": -2, "taker_fee": 5}

agreed = settings(
    max_examples=150 if JIT else 15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


class Pair:
    """One market, twice."""

    def __init__(self, **config):
        self.simulator = MarketSimulator(1, MarketConfig(**{**SMALL, **config}))
        self.reference = ReferenceMarket(self.simulator.config)
        self.seen = (0, 0)

    def send(
        self, kind, side=BUY, price=0, size=0, order_id=0, owner=BACKGROUND, time_ns=0, max_rest=NO_LIMIT,
        anchor=ABSOLUTE,
    ):  # fmt: skip
        """Sends one order to both; returns its record."""
        max_rest = int(max_rest)
        status = self.simulator.send(kind, side, price, size, order_id, owner, time_ns, max_rest, anchor)
        now = max(self.reference.clock, time_ns)
        self.reference.count += owner < 0 and kind != PRINT
        self.reference.process((time_ns, order_id, price, size, max_rest, owner, kind, side, anchor), now)
        self.seen = assert_same_tape(self.simulator, 0, self.reference, self.seen)
        assert_same_book(self.simulator, 0, self.reference)
        record = self.simulator.tape.read_records(0)[-1]
        assert record["status"] == status
        return record

    def rest(self, *orders):
        """Sends background limit orders ``(side, price, size)``, whose ids count from 0."""
        for order_id, (side, price, size) in enumerate(orders):
            self.send(LIMIT, side, price, size, order_id)
        return self

    def fills(self):
        """All fills as (maker_id, price, size)."""
        fills = self.simulator.tape.read_fills(0)
        return list(zip(fills["maker_id"].tolist(), fills["price"].tolist(), fills["size"].tolist(), strict=True))

    def levels(self):
        """Bids and asks as (price, lots), best first."""
        prices, sizes = (array[0].tolist() for array in self.simulator.depth(8))
        sides = zip(prices, sizes, strict=True)
        return [[level for level in zip(*side, strict=True) if level[0]] for side in sides]

    def ahead(self, order_id, owner=BACKGROUND):
        """Lots ahead of an order."""
        found = int(self.simulator.queue_ahead(owner, [order_id])[0])
        assert found == self.reference.ahead(owner, order_id)
        return found


def orders(kind, anchors=(ABSOLUTE,), max_rest=(NO_LIMIT,)):
    """A strategy for the arguments of :meth:`Pair.send`."""
    anchored = st.sampled_from(anchors).flatmap(
        lambda anchor: st.tuples(st.just(anchor), _PRICES if anchor == ABSOLUTE else st.integers(-4, 4))
    )
    return st.tuples(
        st.just(kind), st.sampled_from((BUY, SELL)), anchored, _SIZES, st.integers(-1, 12),
        st.sampled_from((BACKGROUND, BACKGROUND, 0, 1)), st.integers(0, 3), st.sampled_from(max_rest),
    ).map(lambda o: {"kind": o[0], "side": o[1], "price": o[2][1], "size": o[3], "order_id": o[4], "owner": o[5],
                     "time_ns": o[6], "max_rest": o[7], "anchor": o[2][0]})  # fmt: skip


_PRICES = st.one_of(st.integers(95, 105), st.integers(95, 105), st.integers(1, 400), st.sampled_from((-1, 0, 2**30)))
_SIZES = st.one_of(st.integers(1, 12), st.integers(1, 12), st.integers(-1, 60))


def among_limits(*strategies, longest=30):
    """Sequences of the orders asked for, among limit orders that give them something to meet."""
    return st.lists(st.one_of(orders(LIMIT), *strategies), min_size=1, max_size=longest)


def play(sequence, **config):
    """Sends a sequence to a new pair, compared after every order; times are after the clock."""
    pair = Pair(**config)
    for order in sequence:
        pair.send(**{**order, "time_ns": pair.reference.clock + order["time_ns"]})
    return pair
