"""A flow under which impact is linear and nothing else moves prices: one lot at every tick, laid out anew each time."""

import numpy as np
from quiet_flow import STEP_NS, quiet_bank

from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import CANCEL, LIMIT, NO_LIMIT, SELL, EventBlock

BID, ASK, DEPTH = 9_999, 10_001, 500  # DEPTH asks, ticks


class LinearFlow:
    """Restores the asks that seat 0 took, but for the lowest: those below ``ASK`` + permanent x all that it holds.

    So x lots at once, after E lots, cost x (x - 1) / 2 + x floor(permanent E) ticks more than x lots at ``ASK``.

    Args:
        num_envs: N.
        permanent: ticks that each lot bought moves the price for good, below 1.
        block: events of an interval: all happen before the next orders, so it must be no less than the parent order.
    """

    name, version = "linear", "0"

    def __init__(self, num_envs, permanent, block):
        self.num_envs, self.permanent, self.block = num_envs, permanent, block
        self.bank = quiet_bank([(BID, 1000)], [(ASK + i, 1) for i in range(DEPTH)])
        self.made, self.held = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    def market_config(self, seats=1):
        return MarketConfig(seats=seats, tape=1024, fills=1024, orders=1024, flow_ids=8192, flow_queue=self.block)

    def reset(self, market, rows, contexts, seeds, episodes):
        chosen = np.flatnonzero(rows)
        self.bank.load_into(market, chosen, np.asarray(contexts)[chosen])
        self.made[rows], self.held[rows] = 0, 0

    def next_events(self, market, wanted):
        block, now = EventBlock.empty(self.num_envs, self.block), market.accounts["inventory"][:, 0]
        before, after = (np.floor(self.permanent * held).astype(np.int64) for held in (self.held, now))
        place = np.arange(self.block)
        restored = place < (before + now - self.held - after)[:, None]  # from the new lowest ask to the old next one
        events, index = block.events, self.made[:, None] + place
        events["time_ns"], events["side"], events["size"] = (index + 1) * STEP_NS, SELL, 1
        events["kind"] = np.where(restored, LIMIT, CANCEL)
        events["order_id"] = np.where(restored, 1000 + index, 8191)
        events["price"] = np.where(restored, ASK + after[:, None] + place, 0)
        events["max_rest"] = NO_LIMIT
        block.count[wanted] = self.block
        self.made[wanted] += self.block
        self.held[wanted] = now[wanted]
        return block
