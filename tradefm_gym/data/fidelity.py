"""Do the rebuilt records reproduce the record? Execute them in a plain price-time book and compare fills."""

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.market.events import CANCEL, LIMIT


@dataclass(frozen=True)
class Fidelity:
    """How far executing the records agrees with the recorded fills."""

    takers: int  # recorded takers
    takers_equal: int  # of which size and notional executed equal the record
    lots: int  # recorded lots executed
    lots_equal: int  # of which executed against the recorded maker, by the recorded taker
    spurious_lots: int  # executed by orders beyond what the record says
    missing_cancels: int  # cancels whose order was gone or smaller

    @property
    def share_takers(self) -> float:
        """Share of takers whose executed size and notional are those of the record."""
        return self.takers_equal / max(1, self.takers)

    @property
    def share_lots(self) -> float:
        """Share of recorded lots that the same taker executed against the same maker."""
        return self.lots_equal / max(1, self.lots)


class _Book:
    """Price-time priority with dictionaries; heaps name the best level, emptied levels are skipped lazily."""

    def __init__(self) -> None:
        self.levels: dict[int, dict[int, OrderedDict[int, int]]] = {1: {}, -1: {}}
        self.heaps: dict[int, list[int]] = {1: [], -1: []}
        self.home: dict[int, tuple[int, int]] = {}

    def rest(self, order: int, side: int, price: int, size: int) -> None:
        level = self.levels[side].get(price)
        if level is None:
            level = self.levels[side][price] = OrderedDict()
            heappush(self.heaps[side], -side * price)
        level[order] = size
        self.home[order] = (side, price)

    def cancel(self, order: int, size: int) -> int:
        if order not in self.home:
            return 0
        side, price = self.home[order]
        return self._take(side, price, order, size)

    def match(self, side: int, price: int, size: int) -> list[tuple[int, int, int]]:
        """Execute up to ``size`` against the other side; returns (maker, price, lots)."""
        fills = []
        heap, levels = self.heaps[-side], self.levels[-side]
        while size > 0 and heap:
            best = side * heap[0]
            if best not in levels:
                heappop(heap)
                continue
            if (price - best) * side < 0:
                break
            maker = next(iter(levels[best]))
            lots = self._take(-side, best, maker, size)
            fills.append((maker, best, lots))
            size -= lots
        return fills

    def _take(self, side: int, price: int, order: int, size: int) -> int:
        level = self.levels[side][price]
        lots = min(size, level[order])
        level[order] -= lots
        if level[order] == 0:
            del level[order], self.home[order]
            if not level:
                del self.levels[side][price]
        return lots


def check(flow: RecordedFlow) -> Fidelity:
    """Execute a flow's records in order, the opening book first, and count where the fills agree.

    Args:
        flow: a recorded flow that replays by order id.
    """
    if not flow.meta.replay_by_id:
        raise ValueError(f"{flow.meta.source}: replay_by_id is False; its records do not rebuild the book by order id.")
    book = _Book()
    recorded: dict[tuple[int, int], int] = {}
    for fill in flow.fills:
        key = (int(fill["taker_id"]), int(fill["maker_id"]))
        recorded[key] = recorded.get(key, 0) + int(fill["size"])
    names = ("kind", "order_id", "side", "price", "size", "max_rest", "filled", "notional")
    equal = lots_equal = spurious = missing = 0
    for k, (kind, order, side, price, size, most, filled, notional) in enumerate(
        zip(*(flow.records[name].tolist() for name in names), strict=True)
    ):
        if kind == CANCEL:
            missing += book.cancel(order, size) != size
        elif kind == LIMIT and k < flow.opening:
            book.rest(order, side, price, size)
        elif kind == LIMIT:
            fills = book.match(side, price, size)
            done = sum(f[2] for f in fills)
            equal += filled > 0 and done == filled and sum(f[1] * f[2] for f in fills) == notional
            spurious += max(0, done - filled)
            lots_equal += sum(min(lots, recorded.get((order, maker), 0)) for maker, _, lots in fills)
            if min(size - done, most) > 0:
                book.rest(order, side, price, min(size - done, most))
    flown = flow.flow
    takers = int(np.sum((flown["kind"] == LIMIT) & (flown["filled"] > 0)))
    return Fidelity(takers, equal, int(flow.fills["size"].sum()), lots_equal, spurious, missing)
