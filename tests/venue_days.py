"""One sound market whose takers are known, as different venues would record it in the shared schema."""

import json
import random
from dataclasses import dataclass, field

import numpy as np

START_NS = 34_200 * 10**9
COLUMNS = ("ts_ns", "event", "order_id", "side", "price", "size", "flag")
# A venue of its own: a check looks beside its folder for other recordings of the day, and other tests leave some.
META = {
    "ticker": "T",
    "venue": "made-up venues",
    "date": "2025-01-02",
    "tick_size": 100,
    "price_unit": "1e-4",
    "size_unit": "1",
}
ADD, PARTIAL_CANCEL, DELETE, EXECUTION, HIDDEN, CROSS, HALT = range(7)


@dataclass
class Order:
    """What arrived: an order with the fills (maker, price, size) that it brought, or a cancel."""

    time_ns: int
    event: int  # ADD, PARTIAL_CANCEL or DELETE
    order_id: int
    side: int
    price: int
    size: int
    fills: list = field(default_factory=list)

    @property
    def rest(self):
        return self.size - sum(size for _, _, size in self.fills)


def market(count, seed=0):
    """Orders and cancels by price and time; a seventh of the orders is marketable, some by several levels."""
    rng = random.Random(seed)
    sides, live, found = {1: {}, -1: {}}, {}, []
    time_ns, order_id = START_NS, 100

    def best(side):
        return max(sides[side], key=lambda price: price * side, default=None)

    while len(found) < count:
        time_ns += rng.randrange(1, 3_000_000)
        what = rng.random()
        if what >= 0.55 and len(live) >= 50:
            name = rng.choice(list(live))
            side, price, left = live[name]
            part = what < 0.6 and left > 100
            found.append(Order(time_ns, PARTIAL_CANCEL if part else DELETE, name, side, price, 100 if part else left))
            _lower(sides, live, name, 100 if part else left)
            continue
        side, size = rng.choice((1, -1)), rng.randrange(1, 9) * 100
        order_id += rng.randrange(1, 4)
        opposite = best(-side)
        takes = opposite is not None and len(live) >= 50 and rng.random() < 0.15
        away = rng.randrange(0, 3) if takes else -rng.randrange(1, 30)
        price = max(100, (1_000_000 if opposite is None else opposite) + side * 100 * away)
        order = Order(time_ns, ADD, order_id, side, price, size)
        while order.rest and (opposite := best(-side)) is not None and (price - opposite) * side >= 0:
            maker = sides[-side][opposite][0]
            lots = min(order.rest, live[maker][2])
            order.fills.append((maker, opposite, lots))
            _lower(sides, live, maker, lots)
        if order.rest:
            sides[side].setdefault(price, []).append(order_id)
            live[order_id] = side, price, order.rest
        found.append(order)
    return found


def _lower(sides, live, name, size):
    side, price, left = live[name]
    live[name] = side, price, left - size
    if left == size:
        del live[name]
        sides[side][price].remove(name)
        if not sides[side][price]:
            del sides[side][price]


def rows_of(orders, style):
    """The rows of COLUMNS of a venue that shows marketable orders in this style.

    "rest": only what is left of them, after the fills of their makers; "whole": as an add, then each trade as two
    fills, the taker's with a flag; "unflagged": the same without it; "cancels": the taker's part as cancels of it.
    """
    rows = []
    for order in orders:
        now, side = order.time_ns, order.side
        if order.event != ADD:
            rows.append((now, order.event, order.order_id, side, order.price, order.size, 0))
            continue
        makers = [(now, EXECUTION, maker, -side, price, size, 0) for maker, price, size in order.fills]
        if style == "rest":
            rows += makers
            if order.rest:
                rows.append((now, ADD, order.order_id, side, order.price, order.rest, 0))
            continue
        rows.append((now, ADD, order.order_id, side, order.price, order.size, 0))
        left = order.size
        for maker, (_, price, size) in zip(makers, order.fills, strict=True):
            left -= size
            rows.append(maker)
            if style == "cancels":
                event = PARTIAL_CANCEL if left else DELETE
                rows.append((now, event, order.order_id, side, order.price, size, 0))
            else:
                rows.append((now, EXECUTION, order.order_id, side, price, size, 2 if style == "whole" else 0))
    return rows


def folder(path, rows, meta=META, **columns):
    """A data folder of rows; ``columns`` replace those of the rows."""
    import polars

    path.mkdir(exist_ok=True)
    table = dict(zip(COLUMNS, np.array(rows, np.int64).T, strict=True)) | columns
    polars.DataFrame(table).write_parquet(path / "events.parquet")
    (path / "meta.json").write_text(json.dumps(meta))
    return path
