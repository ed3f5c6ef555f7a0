"""A flow in whose markets nothing happens but the passing of events: what is left is the agent's doing."""

import numpy as np

from tradefm_gym.flow.protocol import SCALE, ContextBank, StartState
from tradefm_gym.market.events import BACKGROUND, BUY, CANCEL, LIMIT, NO_LIMIT, ORDER, RECORD, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig

STEP_NS = 1_000_000


def quiet_bank(bids, asks, lots_per_event=10.0, spread=2.0):
    """One start state; bids and asks are lists of (price, size), best first."""
    orders = np.zeros(len(bids) + len(asks), ORDER)
    orders["order_id"] = np.arange(len(orders))
    orders["owner"] = BACKGROUND
    orders["side"] = [BUY] * len(bids) + [SELL] * len(asks)
    orders["price"] = [price for price, _ in bids + asks]
    orders["size"] = [size for _, size in bids + asks]
    scale = np.zeros((), SCALE)
    scale["lots_per_event"], scale["median_size"], scale["touch_size"] = lots_per_event, 10, 100
    scale["spread"], scale["volatility"], scale["event_ns"] = spread, 0.25, STEP_NS
    scale["tick_bps"] = 1e4 / (0.5 * (bids[0][0] + asks[0][0]))
    state = StartState(orders, np.zeros(0, RECORD), 0, bids[0][0] + asks[0][0], len(orders), scale)
    return ContextBank.from_states([state] * 3, np.arange(3, dtype=np.uint8), "quiet")


class QuietFlow:
    """Proposes cancels of an order that does not exist, or what ``script`` says at that count.

    Args:
        num_envs: N.
        bank: start states.
        script: {index of the background event: (kind, side, price, size)}.
        last: the flow ends after this many events.
    """

    name, version, block = "quiet", "0", 8

    def __init__(self, num_envs, bank, script=None, last=10**9):
        self.num_envs, self.bank, self.script, self.last = num_envs, bank, script or {}, last
        self.made = np.zeros(num_envs, np.int64)

    def market_config(self, seats=1):
        return MarketConfig(seats=seats)

    def reset(self, market, rows, contexts, seeds, episodes):
        chosen = np.flatnonzero(rows)
        self.bank.load_into(market, chosen, np.asarray(contexts)[chosen])
        self.made[rows] = 0

    def next_events(self, market, wanted):
        block = EventBlock.empty(self.num_envs, self.block)
        for m in np.flatnonzero(wanted):
            count = min(self.block, self.last - int(self.made[m]))
            for k in range(count):
                index = int(self.made[m]) + k
                kind, side, price, size = self.script.get(index, (CANCEL, BUY, 0, 0))
                event = block.events[m, k]
                event["time_ns"] = (index + 1) * STEP_NS
                event["order_id"] = 1000 + index if kind == LIMIT else 60_000
                event["kind"], event["side"], event["price"], event["size"] = kind, side, price, size
                event["max_rest"] = NO_LIMIT
            block.count[m] = count
            self.made[m] += count
        return block
