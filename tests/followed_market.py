"""A market that reposts its two quotes around the mid that it sees, agents' orders included or not.

With them it follows whoever quotes inside its spread, and so pays for it by construction.
"""

import numpy as np
from quiet_flow import STEP_NS, quiet_bank

from tradefm_gym.market.events import BACKGROUND, BUY, CANCEL, LIMIT, NO_LIMIT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig

HALF_SPREAD = 4
DEPTH = 100_000


class FollowedFlow:
    """Four events a round: cancel and repost the ask, cancel and repost the bid, each 4 ticks from the mid."""

    name, version, block = "followed", "0", 1

    def __init__(self, num_envs, follows=True):
        self.num_envs, self.follows = num_envs, follows
        self.bank = quiet_bank([(996, DEPTH)], [(1004, DEPTH)])
        self.made = np.zeros(num_envs, np.int64)
        self.ids = np.zeros((num_envs, 2), np.int64)
        self.mid = np.zeros(num_envs, np.int64)

    def market_config(self, seats=1):
        return MarketConfig(seats=seats)

    def reset(self, market, rows, contexts, seeds, episodes):
        chosen = np.flatnonzero(rows)
        self.bank.load_into(market, chosen, np.asarray(contexts)[chosen])
        self.made[chosen] = 0
        self.ids[chosen] = 0, 1  # of the bid and of the ask in the bank

    def next_events(self, market, wanted):
        block = EventBlock.empty(self.num_envs, 1)
        seen = market.mid2 if self.follows else market.outside_mid2
        for m in np.flatnonzero(wanted):
            event, step = block.events[m, 0], int(self.made[m])
            if step % 4 == 0:
                self.mid[m] = (int(seen[m]) + 1) // 2 if step % 8 else int(seen[m]) // 2
            ask = step % 4 < 2
            event["time_ns"], event["owner"], event["max_rest"] = (step + 1) * STEP_NS, BACKGROUND, NO_LIMIT
            event["side"] = SELL if ask else BUY
            if step % 2 == 0:
                event["kind"], event["order_id"] = CANCEL, self.ids[m, int(ask)]
            else:
                self.ids[m, int(ask)] = 100 + step
                event["kind"], event["order_id"], event["size"] = LIMIT, 100 + step, DEPTH
                event["price"] = self.mid[m] + (HALF_SPREAD if ask else -HALF_SPREAD)
            self.made[m] += 1
        block.count[:] = wanted
        return block
