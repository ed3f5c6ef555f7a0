"""The exchange once more in plain Python: slow, obvious, and written against the rules rather than the kernels.

One market. Levels are lists in a dict, prices a sorted list, orders objects. ``tests/test_simulator.py``
compares it with the kernels after every event.
"""

from bisect import bisect_left, insort
from fractions import Fraction
from math import ceil

from tradefm_gym import rng
from tradefm_gym.market.events import (
    ABSOLUTE,
    CANCEL,
    CANCEL_NEAREST,
    CANCEL_RANDOM,
    CANCEL_WHOLE,
    CANCELLED,
    DROPPED,
    FILL_OR_KILL,
    FILLED,
    HALT,
    INSIDE,
    MARKET,
    MID,
    MODIFY,
    NO_LIMIT,
    NOOP,
    OPPOSITE,
    POST_ONLY,
    POST_ONLY_SLIDE,
    PREVENTED,
    PRINT,
    PRINTED,
    REJECTED,
    RESTED,
    SWITCHED,
)

MAX_PRICE = 2**30 - 1


class Order:
    """A resting order; ``slot`` is its place in the pool, which CANCEL_RANDOM refers to."""

    __slots__ = ("order_id", "owner", "price", "side", "size", "slot", "time_ns")

    def __init__(self, order_id, time_ns, price, size, owner, side, slot):
        self.order_id, self.time_ns, self.price, self.size = order_id, time_ns, price, size
        self.owner, self.side, self.slot = owner, side, slot


class Side:
    """One side of a book: queues by price, prices ascending."""

    def __init__(self, side):
        self.side = side
        self.queues = {}
        self.prices = []

    def best(self):
        if not self.prices:
            return None
        return self.prices[-1] if self.side > 0 else self.prices[0]

    def add(self, order):
        queue = self.queues.get(order.price)
        if queue is None:
            self.queues[order.price] = [order]
            insort(self.prices, order.price)
        else:
            queue.append(order)

    def remove(self, order):
        queue = self.queues[order.price]
        queue.remove(order)
        if not queue:
            del self.queues[order.price]
            del self.prices[bisect_left(self.prices, order.price)]

    def nearest(self, price):
        """The queue of the nearest price with a background order; ties go to the price nearer the touch."""
        # Few prices need a look: outward from ``price`` in both directions.
        start = bisect_left(self.prices, price)
        found = []
        for places in (range(start - 1, -1, -1), range(start, len(self.prices))):
            for place in places:
                queue = self.queues[self.prices[place]]
                if any(order.owner < 0 for order in queue):
                    found.append((abs(self.prices[place] - price), -self.side * self.prices[place]))
                    break
        if not found:
            return None
        return self.queues[-self.side * min(found)[1]]


class ReferenceMarket:
    """One market of ``config``; ``records``, ``fills`` and ``accounts`` grow as lists of tuples."""

    def __init__(self, config, seed=0, episode=0):
        self.config, self.seed, self.episode = config, seed, episode
        self.sides = {1: Side(1), -1: Side(-1)}
        self.live = {}  # (owner, id) -> Order
        self.slots = []  # slot -> Order or None
        self.free = []
        self.residues = {}  # id modulo the id capacity -> id, of live background orders
        self.flow_ids = 1 << (config.flow_ids - 1).bit_length()
        self.next_id = 0
        self.background_live = 0
        self.records, self.fills = [], []
        self.accounts = [[0, 0, 0, 0] for _ in range(config.seats + 1)]
        self.flow, self.agents = [], []
        self.flow_head = self.agent_head = 0
        self.turns = {}
        self.clock = self.count = self.mid2 = self.outside_mid2 = self.last_price = self.executed = 0
        self.dropped_lots = self.prevented_lots = self.pool_full = self.halted = 0

    # --- Loop -------------------------------------------------------------------------------------------

    def feed(self, events):
        """``events``: tuples in the order of EVENT's fields."""
        self.flow.extend(events)

    def submit(self, events):
        waiting = self.agents[self.agent_head :] + list(events)
        self.agents = sorted(waiting, key=lambda event: (event[0], self.turn(event[0], event[5]), event[5]))
        self.agent_head = 0

    def turn(self, time_ns, owner):
        """What a seat has drawn for an instant; the smaller number goes first."""
        if self.config.seats == 1:
            return 0
        if (time_ns, owner) not in self.turns:
            words = rng.bits_array(self.seed, self.episode, time_ns, rng.TURN, owner + 1)
            self.turns[time_ns, owner] = int(words[0, -1])
        return self.turns[time_ns, owner]

    def advance(self, until_count=2**62, until_ns=2**62, until_volume=2**62):
        while True:
            agent = self.agents[self.agent_head] if self.agent_head < len(self.agents) else None
            if agent is not None and agent[0] <= self.clock:
                self.agent_head += 1
                self.process(agent, self.clock)
                continue
            if self.count >= until_count or self.executed >= until_volume or self.clock > until_ns:
                return False
            if self.flow_head == len(self.flow):
                return True
            event = self.flow[self.flow_head]
            time_ns = max(event[0], self.clock)
            if agent is not None and agent[0] <= min(time_ns, until_ns):
                self.agent_head += 1
                self.process(agent, agent[0])
                continue
            if time_ns > until_ns:
                self.clock = until_ns
                return False
            self.flow_head += 1
            self.count += event[6] != PRINT
            self.process(event, time_ns)

    # --- Events -----------------------------------------------------------------------------------------

    def process(self, event, now):
        _, order_id, price, size, max_rest, owner, kind, side, anchor = event
        self.clock = now
        status, filled, notional = REJECTED, 0, 0
        if kind == CANCEL:
            status, order_id, price, size, side = self.cancel(event)
        elif kind == PRINT:
            if owner < 0 and size > 0 and 1 <= price <= MAX_PRICE:
                status, filled, notional = PRINTED, size, price * size
                self.last_price = price
        elif kind == MODIFY:
            status, price, side, filled, notional = self.modify(event)
        elif kind == HALT:
            if owner < 0 and size in (0, 1):
                status = SWITCHED if self.halted != size else NOOP
                self.halted = size
        elif size > 0 and side in (1, -1) and size % self.config.lot == 0 and not self.halted:
            if kind == MARKET:
                max_rest = 0
                best = self.sides[-side].best()
                price = self.reference(-side) or 0
                if best is None:
                    status = NOOP
                else:
                    filled, notional, prevented = self.match(now, side, None, size, owner, order_id)
                    status = self.finish(now, side, price, size - filled, 0, owner, order_id, prevented)
            else:
                resolved = self.resolve(side, anchor, price)
                if owner < 0 and order_id < 0:
                    order_id = self.next_id
                    while order_id % self.flow_ids in self.residues:
                        order_id += 1
                price = 0 if resolved is None else min(max(resolved, 0), MAX_PRICE)
                accepted = self.is_price(resolved) and self.id_is_free(owner, order_id)
                if accepted and kind == FILL_OR_KILL and self.executable(side, price, size, owner) < size:
                    status, accepted = DROPPED, False
                    self.dropped_lots += size
                best = self.sides[-side].best()
                if (
                    accepted
                    and kind in (POST_ONLY, POST_ONLY_SLIDE)
                    and best is not None
                    and side * (price - best) >= 0
                ):
                    if kind == POST_ONLY_SLIDE:
                        price = best - side * self.config.tick
                    accepted = kind == POST_ONLY_SLIDE and self.is_price(price)
                if accepted:
                    filled, notional, prevented = self.match(now, side, price, size, owner, order_id)
                    status = self.finish(now, side, price, size - filled, max_rest, owner, order_id, prevented)
                    if owner < 0:
                        self.next_id = max(self.next_id, order_id + 1)
        bid, ask = self.sides[1].best(), self.sides[-1].best()
        if bid is not None and ask is not None:
            self.mid2 = bid + ask
        bid, ask = self.best_without(1, None), self.best_without(-1, None)
        if bid is not None and ask is not None:
            self.outside_mid2 = bid + ask
        self.records.append(
            (now, order_id, price, size, max_rest, owner, kind, side, ABSOLUTE, status, *self.touch(filled), notional)
        )

    def touch(self, filled):
        """Codes of the lots at the best bid and ask, ``filled``, doubled mid, spread: in the order of RECORD."""
        bid, ask = self.sides[1].best(), self.sides[-1].best()
        spread = ask - bid if bid is not None and ask is not None else 0
        codes = []
        for side, price in ((1, bid), (-1, ask)):
            lots = sum(order.size for order in self.sides[side].queues[price]) if price is not None else 0
            octave = lots.bit_length() - 1
            codes.append(1 + 8 * octave + (lots << 3 >> octave) - 8 if lots else 0)
        return (*codes, filled, self.mid2, spread)

    def id_is_free(self, owner, order_id):
        if owner >= 0:
            return 0 <= order_id < self.config.agent_ids and (owner, order_id) not in self.live
        return order_id >= 0 and order_id % self.flow_ids not in self.residues

    def is_price(self, price):
        return price is not None and 1 <= price <= MAX_PRICE and price % self.config.tick == 0

    def half(self, side):
        """The last mid as a price on the grid, rounded away from the spread; None if there never was one."""
        tick = self.config.tick
        if self.mid2 == 0:
            return None
        if side > 0:
            return self.mid2 // 2 // tick * tick
        return (self.mid2 + 2 * tick - 1) // (2 * tick) * tick

    def reference(self, side):
        best = self.sides[side].best()
        if best is not None:
            return best
        rounded = self.half(side)
        opposite = self.sides[-side].best()
        if opposite is None or rounded is None:
            return rounded
        return min(rounded, opposite - self.config.tick) if side > 0 else max(rounded, opposite + self.config.tick)

    def resolve(self, side, anchor, price):
        if anchor == ABSOLUTE:
            return price
        if anchor == MID:
            return None if self.mid2 == 0 else self.half(side) + side * price
        if anchor == OPPOSITE:
            reference = self.reference(-side)
            return None if reference is None or reference == 0 else reference - side * price
        if anchor == INSIDE:
            own, opposite = self.reference(side), self.reference(-side)
            if not opposite:
                return own or None
            inside = opposite - side * max(price, self.config.tick)
            return inside if not own else max(inside, own) if side > 0 else min(inside, own)
        reference = self.reference(side)
        return None if reference is None or reference == 0 else reference + side * price

    def match(self, now, side, limit, size, owner, order_id):
        left, notional = size, 0
        book = self.sides[-side]
        while left > 0:
            price = book.best()
            if price is None or (limit is not None and side * (price - limit) > 0):
                break
            maker = book.queues[price][0]
            if 0 <= owner == maker.owner and (rule := self.config.preventions[owner]) != "off":
                if rule != "cancel_newest":
                    self.withdraw(now, maker)
                if rule == "cancel_oldest":
                    continue
                return size - left, notional, left
            lots = min(left, maker.size)
            if not self.has_room_for(maker.owner, owner, price * lots):
                return size - left, notional, left
            wait = now - maker.time_ns
            self.fills.append((now, maker.order_id, order_id, wait, price, lots, maker.owner, owner, side))
            config = self.config
            for who, sign, fee, rate in (
                (owner, side, config.taker_fee, config.taker_rate),
                (maker.owner, -side, config.maker_fee, config.maker_rate),
            ):
                account = self.accounts[who]  # -1 is the last
                account[0] -= sign * price * lots * 1000
                account[1] += sign * lots
                account[2] += fee * lots + ceil(Fraction(price * lots * rate, 1000))
                account[3] += lots
            self.executed += lots
            self.last_price = price
            notional += price * lots
            left -= lots
            self.reduce(maker, lots)
        return size - left, notional, 0

    def has_room_for(self, maker, taker, notional):
        """Whether a fill moves no money, or what it moves fits 64 bits beside what both have."""
        config, accounts = self.config, (self.accounts[maker], self.accounts[taker])
        fees = config.maker_fee + config.taker_fee or config.maker_rate or config.taker_rate
        if maker < 0 and taker < 0 and not fees:
            return True
        return all(abs(cash) + 1000 * notional < 2**63 and abs(fees) <= 2**61 for cash, _, fees, _ in accounts)

    def withdraw(self, now, maker):
        """The exchange cancels an order that its owner would trade with."""
        self.prevented_lots += maker.size
        self.records.append(
            (now, maker.order_id, maker.price, maker.size, 0, maker.owner, CANCEL, maker.side, ABSOLUTE, CANCELLED,
             *self.touch(0), 0)
        )  # fmt: skip
        self.reduce(maker, maker.size)

    def executable(self, side, limit, size, owner):
        """Lots of an order that it could execute on arrival."""
        book, lots, notional = self.sides[-side], 0, 0
        for price in book.prices if side > 0 else reversed(book.prices):
            if side * (price - limit) > 0:
                break
            for order in book.queues[price]:
                if lots == size:
                    return lots
                if not (0 <= owner == order.owner) or self.config.preventions[owner] == "off":
                    part = min(size - lots, order.size)
                    notional += price * part
                    if not self.has_room_for(order.owner, owner, notional):
                        return lots
                    lots += part
                elif self.config.preventions[owner] != "cancel_oldest":
                    return lots
        return lots

    def modify(self, event):
        now, order_id, price, size, _, owner, _, side, anchor = event
        now = self.clock
        order = self.live.get((owner, order_id))
        if order is None:
            return NOOP, price, side, 0, 0
        side = order.side
        resolved = self.resolve(side, anchor, price)
        price = 0 if resolved is None else min(max(resolved, 0), MAX_PRICE)
        if size <= 0 or size % self.config.lot or not self.is_price(resolved):
            return REJECTED, price, side, 0, 0
        if price == order.price and size <= order.size:
            if size < order.size:
                self.reduce(order, order.size - size)
            return RESTED, price, side, 0, 0
        if self.halted:
            return REJECTED, price, side, 0, 0
        self.reduce(order, order.size)
        filled, notional, prevented = self.match(now, side, price, size, owner, order_id)
        status = self.finish(now, side, price, size - filled, NO_LIMIT, owner, order_id, prevented)
        return status, price, side, filled, notional

    def finish(self, now, side, price, left, max_rest, owner, order_id, prevented):
        if left == 0:
            return FILLED
        if prevented:
            self.prevented_lots += prevented
            return PREVENTED
        resting = max(0, min(left, max_rest))
        resting -= resting % self.config.lot
        if resting:
            if self.free:
                slot = self.free.pop()
            elif len(self.slots) < self.config.orders:
                slot = len(self.slots)
                self.slots.append(None)
            else:
                self.pool_full += 1
                return REJECTED
            order = Order(order_id, now, price, resting, owner, side, slot)
            self.slots[slot] = self.live[owner, order_id] = order
            self.sides[side].add(order)
            if owner < 0:
                self.residues[order_id % self.flow_ids] = order_id
                self.background_live += 1
        if resting < left:
            self.dropped_lots += left - resting
            return DROPPED
        return RESTED

    def reduce(self, order, lots):
        order.size -= lots
        if order.size == 0:
            self.sides[order.side].remove(order)
            del self.live[order.owner, order.order_id]
            self.slots[order.slot] = None
            self.free.append(order.slot)
            if order.owner < 0:
                del self.residues[order.order_id % self.flow_ids]
                self.background_live -= 1

    def cancel(self, event):
        _, order_id, price, size, _, owner, _, side, anchor = event
        refused = REJECTED, order_id, price, size, side
        if size < 0 or size % self.config.lot or order_id < CANCEL_RANDOM or (order_id < 0 and owner >= 0):
            return refused
        if order_id >= 0:
            order = self.live.get((owner, order_id))
        elif order_id == CANCEL_RANDOM:
            if price < 0:
                return refused
            order = self.pick(price)
        else:
            if side not in (1, -1):
                return refused
            resolved = self.resolve(side, anchor, price)
            if resolved is None:
                return refused
            price = min(max(resolved, 0), MAX_PRICE)
            if order_id == CANCEL_NEAREST and size > 0:
                return self.cancel_lots(side, price, size)
            queue = self.sides[side].nearest(price)
            order = None
            if queue is not None:
                candidates = [order for order in reversed(queue) if order.owner < 0]
                order = candidates[0]
                if order_id == CANCEL_WHOLE:
                    order = min(candidates, key=lambda order: abs(order.size - size))
                    size = 0
        if order is None:
            return NOOP, order_id, price, size, side
        lots = order.size if size == 0 else min(size, order.size)
        result = CANCELLED, order.order_id, order.price, lots, order.side
        self.reduce(order, lots)
        return result

    def cancel_lots(self, side, price, size):
        removed = []
        left = size
        while left > 0 and (queue := self.sides[side].nearest(price)) is not None:
            order = next(order for order in reversed(queue) if order.owner < 0)
            lots = min(left, order.size)
            removed.append((order.order_id, order.price))
            self.reduce(order, lots)
            left -= lots
        if not removed:
            return NOOP, CANCEL_NEAREST, price, size, side
        return CANCELLED, removed[0][0] if len(removed) == 1 else -1, removed[0][1], size - left, side

    def pick(self, number):
        if not self.background_live:
            return None
        slot = number * len(self.slots) // 2**31
        while self.slots[slot] is None or self.slots[slot].owner >= 0:
            slot = (slot + 1) % len(self.slots)
        return self.slots[slot]

    # --- Readings ---------------------------------------------------------------------------------------

    def best_without(self, side, owner):
        """Best price without ``owner``'s orders, or without any agent's (None)."""
        prices = self.sides[side].prices
        for price in reversed(prices) if side > 0 else prices:
            for order in self.sides[side].queues[price]:
                if order.owner != owner and (owner is not None or order.owner < 0):
                    return price
        return None

    def queues(self, side):
        """The side as nested tuples, best first: (price, ((id, owner, size, arrival, slot), ...))."""
        prices = self.sides[side].prices
        return [
            (price, [(o.order_id, o.owner, o.size, o.time_ns, o.slot) for o in self.sides[side].queues[price]])
            for price in (reversed(prices) if side > 0 else prices)
        ]

    def ahead(self, owner, order_id):
        order = self.live.get((owner, order_id))
        if order is None:
            return -1
        queue = self.sides[order.side].queues[order.price]
        return sum(other.size for other in queue[: queue.index(order)])
