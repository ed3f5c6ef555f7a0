"""Running flows without agents, and looking at what they left on the tape."""

import hashlib

import numpy as np

from tradefm_gym.market.events import RECORD
from tradefm_gym.market.simulator import MarketSimulator


def started(flow, contexts=0, seed=7, episode=0):
    """A market for the flow, all rows reset: row m has the seed ``seed + m``."""
    n = flow.num_envs
    market = MarketSimulator(n, flow.market_config())
    flow.reset(
        market,
        np.ones(n, bool),
        np.broadcast_to(np.asarray(contexts, np.int64), n),
        np.arange(n, dtype=np.uint64) + np.uint64(seed),
        np.full(n, episode, np.uint32),
    )
    return market


def run(flow, market, events, step=16):
    """Goes on until each row has seen so many background events, in steps."""
    for target in range(step, events + 1, step):
        while (starved := market.advance(until_count=np.full(flow.num_envs, target, np.int64))).any():
            market.feed(flow.next_events(market, starved))


def tape(market, row, last=10**9):
    """The last records of a row."""
    count = int(market.tape.record_count[row])
    return market.tape.read_records(row, max(0, count - min(last, market.config.tape)))


def fingerprint(records):
    """Sixteen hexadecimal digits of all fields."""
    total = hashlib.sha256()
    for field in RECORD.names:
        total.update(np.ascontiguousarray(records[field]).tobytes())
    return total.hexdigest()[:16]
