"""What the market says to a caller whose events or start states it does not take."""

import numpy as np

from tradefm_gym.market import kernels
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import BACKGROUND, EVENT, EventBlock


def check_shape(name: str, block: EventBlock, num_markets: int) -> None:
    """Refuses a block that is none of N markets."""
    events, count = block
    if events.dtype != EVENT or events.ndim != 2 or len(events) != num_markets:
        raise ValueError(f"{name}.events is {events.shape}; allowed is ({num_markets}, K) EVENT.")
    if count.shape != (num_markets,) or count.min() < 0 or count.max() > events.shape[1]:
        raise ValueError(f"{name}.count does not lie within 0 and {events.shape[1]} for each market.")


def check_queued(name: str, block: EventBlock, failed: int, config: MarketConfig) -> None:
    """Refuses a block of which ``feed`` or ``submit`` said so: market * 4 + reason, or -1."""
    if failed < 0:
        return
    m, problem = failed // 4, failed % 4
    count = block.count[m]
    if problem == kernels.FULL:
        raise ValueError(f"{name} brings {count} events to market {m}, more than its queue has room for.")
    if problem == kernels.STRANGER:
        owners = np.unique(block.events["owner"][m, :count]).tolist()
        allowed = f"a seat, 0 to {config.seats - 1}" if name == "orders" else f"BACKGROUND ({BACKGROUND})"
        raise ValueError(f"{name} of market {m} has the owners {owners}; allowed is {allowed}.")
    raise ValueError(f"{name} of market {m} has an unknown kind or anchor; see market/events.py for those allowed.")


def check_executed(block: EventBlock, done: np.ndarray, ends: np.ndarray, config: MarketConfig) -> None:
    """Refuses a block at the event at which ``execute`` stopped."""
    m = int(np.argmax(ends))
    k, problem = int(done[m]), int(ends[m]) - kernels.REFUSED
    if problem < 0:
        return
    if problem == kernels.FULL:
        raise ValueError(
            f"event {k - 1} of market {m} finds {config.orders} orders resting; raise orders in MarketConfig."
        )
    event = block.events[m, k]
    if problem == kernels.STRANGER:
        raise ValueError(f"event {k} of market {m} has the owner {event['owner']}; allowed is a seat or BACKGROUND.")
    raise ValueError(
        f"event {k} of market {m} has kind {event['kind']} and anchor {event['anchor']}; see market/events.py."
    )


def check_orders(orders: np.ndarray, ends: np.ndarray, config: MarketConfig) -> None:
    """Refuses start states that no book could have."""
    flow_ids = 1 << (config.flow_ids - 1).bit_length()
    failed = kernels.check_orders(orders, ends, config.orders, flow_ids)
    if failed >= 0:
        raise ValueError(
            f"orders of state {failed} make no book; allowed are at most {config.orders} background orders with "
            f"positive sizes, prices in range, different ids (modulo {flow_ids}) and every bid below every ask."
        )
