"""The market of Avellaneda and Stoikov on the exchange: a mid that diffuses, and takers who reach exponentially far."""

import numpy as np
from quiet_flow import STEP_NS, quiet_bank

from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import BUY, CANCEL, LIMIT, NO_LIMIT, SELL, EventBlock

MID, FAR = 10_000, 60  # ticks; nobody but the agent quotes nearer to the mid than FAR
GONE = 8_191  # an id that no order has


class PoissonFlow:
    """In each interval ``block`` - 4 chances of a taker of one lot, then the mid moves, and with it the far quotes.

    A quote that is d ticks from the mid at the interval's beginning is met by each chance of its side with a
    probability that falls by a factor of exp(-1 / ``reach``) for each tick. Draws belong to the row, whatever is done.

    Args:
        num_envs: N.
        decisions: intervals.
        chance: of a taker, for each of the ``block`` - 4.
        reach: ticks.
        move: how far the mid goes up or down in an interval, ticks.
        block: events of an interval.
    """

    name, version = "poisson", "0"

    def __init__(self, num_envs, decisions, chance, reach, move, block=12):
        self.num_envs, self.block = num_envs, block
        self.bank = quiet_bank([(MID - FAR, 10_000)], [(MID + FAR, 10_000)], spread=2.0 * FAR)
        self.bank.scale["volatility"] = move / block**0.5
        generator = np.random.default_rng(0)
        shape = (num_envs, decisions, block - 4)
        self.comes = generator.random(shape) < chance
        self.side = np.where(generator.random(shape) < 0.5, BUY, SELL)
        self.far = np.minimum(generator.exponential(reach, shape).astype(np.int64), FAR - 1)
        self.moves = move * np.where(generator.random(shape[:2]) < 0.5, 1, -1)
        self.mid, self.made = np.full(num_envs, MID), np.zeros(num_envs, np.int64)

    def market_config(self, seats=1):
        return MarketConfig(seats=seats, tape=256, fills=256, orders=64, flow_ids=8192, levels=256)

    def reset(self, market, rows, contexts, seeds, episodes):
        chosen = np.flatnonzero(rows)
        self.bank.load_into(market, chosen, np.asarray(contexts)[chosen])
        self.mid[rows], self.made[rows] = MID, 0

    def next_events(self, market, wanted):
        takers, block = self.block - 4, EventBlock.empty(self.num_envs, self.block)
        events, now = block.events, min(int(self.made.max()) // self.block, self.moves.shape[1] - 1)
        events["time_ns"] = (self.made[:, None] + np.arange(self.block) + 1) * STEP_NS
        events["order_id"], events["kind"], events["side"] = GONE, CANCEL, BUY
        comes, side = self.comes[:, now], self.side[:, now]
        head, tail = events[:, :takers], events[:, takers:]
        head["kind"], head["side"], head["size"] = np.where(comes, LIMIT, CANCEL), side, comes
        head["price"] = np.where(comes, self.mid[:, None] + side * self.far[:, now], 0)
        head["order_id"] = np.where(comes, 10 + now * self.block + np.arange(takers), GONE)
        head["max_rest"] = 0
        self.mid = np.where(wanted, self.mid + self.moves[:, now], self.mid)
        # New far quotes, then the old ones go; those of the bank have the ids 0 and 1.
        tail["kind"], tail["side"] = [LIMIT, LIMIT, CANCEL, CANCEL], [BUY, SELL, BUY, SELL]
        new = 4000 + 2 * (now + 1) + np.arange(2)
        old = np.arange(2) if now == 0 else new - 2
        tail["order_id"] = np.concatenate([new, old])
        tail["price"][:, :2], tail["size"][:, :2] = self.mid[:, None] + [-FAR, FAR], 10_000
        tail["max_rest"] = NO_LIMIT
        block.count[wanted] = self.block
        self.made[wanted] += self.block
        return block
