"""What the market says to a caller whose events or start states it does not take."""

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.market import events, kernels, loading
from tradefm_gym.market.book import MAX_PRICE, MIN_PRICE
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import BACKGROUND, CANCEL, EVENT, EventBlock
from tradefm_gym.market.state import StartStates

if TYPE_CHECKING:
    from tradefm_gym.market.copies import MarketCopies


def _named(names: str) -> str:
    """Constants of ``events`` with their values, as a sentence has them."""
    *some, final = [f"{name} ({getattr(events, name)})" for name in names.split()]
    return f"{', '.join(some)} or {final}"


_ANCHORS = _named("ABSOLUTE TOUCH OPPOSITE MID INSIDE")
_KINDS = _named("LIMIT MARKET CANCEL PRINT MODIFY FILL_OR_KILL POST_ONLY POST_ONLY_SLIDE HALT")
_OF_FLOWS = f"BACKGROUND ({BACKGROUND})", _KINDS
_OF_AGENTS = "a seat, 0 to {last}", _named("LIMIT MARKET CANCEL MODIFY FILL_OR_KILL POST_ONLY POST_ONLY_SLIDE")


def check_block(name: str, block: EventBlock, num_markets: int) -> None:
    """Refuses what is no block of N markets."""
    if not isinstance(block, EventBlock):
        raise ValueError(f"{name} is {shortened(block)}; allowed is an EventBlock.")
    events, count = block
    if not isinstance(events, np.ndarray) or events.dtype != EVENT or events.ndim != 2:
        raise ValueError(f"{name}.events is {shortened(events)}; allowed is an EVENT array of two axes.")
    if len(events) != num_markets:
        raise ValueError(f"{name}.events has {len(events)} rows; allowed is one for each of {num_markets}.")
    if not isinstance(count, np.ndarray) or count.dtype.kind not in "iu" or count.shape != (num_markets,):
        raise ValueError(f"{name}.count is {shortened(count)}; allowed are {num_markets} integers.")


def check_departed(block: EventBlock, ends: np.ndarray, market: "MarketCopies") -> None:
    """Refuses orders of which ``rows.depart`` said so; of a seat's own that is a queue without room for them."""
    if (refused := ends >= kernels.REFUSED).any():
        m = int(np.argmax(refused))
        width = block.events.shape[1]
        check_queued("orders", block, kernels.refusal(m * width, int(ends[m]) - kernels.REFUSED), market.config)


def check_queued(name: str, block: EventBlock, refusal: int, config: MarketConfig) -> None:
    """Refuses a block of which ``feed`` (``name`` is "block") or ``submit`` ("orders") said so."""
    if refusal < 0:
        return
    m, k, fault = kernels.read_refusal(refusal, block.events.shape[1])
    if fault == kernels.COUNT_WRONG:
        raise _wrong_count(name, block, m)
    if fault == kernels.FULL:
        raise ValueError(f"{name} brings {block.count[m]} events to market {m}, more than its queue has room for.")
    field, event = kernels.FAULTS[fault], block.events[m, k]
    owners, kinds = _OF_AGENTS if name == "orders" else _OF_FLOWS
    allowed = {
        "owner": owners.format(last=config.seats - 1),
        "kind": kinds,
        "anchor": _ANCHORS,
        "side": "BUY (1) or SELL (-1)",
        "size": "0 (all of it) or more lots" if event["kind"] == CANCEL else "1 lot or more",
        "price": f"{MIN_PRICE} to {MAX_PRICE} ticks",
        "order_id": f"0 to {config.agent_ids - 1}",
        "max_rest": "0 lots or more",
    }
    raise ValueError(f"{name} of market {m} has {field} {event[field]} in event {k}; allowed is {allowed[field]}.")


def check_counts(name: str, block: EventBlock) -> None:
    """Refuses a block whose rows have more events than it, or fewer than none."""
    wrong = np.flatnonzero((block.count < 0) | (block.count > block.events.shape[1]))
    if len(wrong):
        raise _wrong_count(name, block, int(wrong[0]))


def refuse_message(num_markets: int, config: MarketConfig, **fields: Any) -> NoReturn:
    """Says why no market can read a single message, or which number does not fit its field of an EVENT."""
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"{name} is {shortened(value)}; allowed is an integer.")
    row, kind, owner, anchor = (fields[name] for name in ("row", "kind", "owner", "anchor"))
    if not 0 <= row < num_markets:
        raise ValueError(f"row is {row}; allowed is 0 to {num_markets - 1}.")
    if not BACKGROUND <= owner < config.seats:
        raise ValueError(f"owner is {owner}; allowed is a seat, 0 to {config.seats - 1}, or BACKGROUND ({BACKGROUND}).")
    if not 0 <= kind <= events.LAST_KIND:
        raise ValueError(f"kind is {kind}; allowed is {_KINDS}.")
    if not 0 <= anchor <= events.LAST_ANCHOR:
        raise ValueError(f"anchor is {anchor}; allowed is {_ANCHORS}.")
    for name, value in fields.items():
        most = 2**62 if name in ("order_id", "time_ns") else 2**31 - 1
        if abs(int(value)) > most:
            raise ValueError(f"{name} is {value}; allowed is -{most} to {most}.")
    raise ValueError(f"the message {fields} cannot be read; allowed are integers.")


def check_executed(block: EventBlock, done: np.ndarray, ends: np.ndarray, config: MarketConfig) -> None:
    """Refuses a block at the event at which ``execute`` stopped."""
    m = int(np.argmax(ends))
    k, fault = int(done[m]), int(ends[m]) - kernels.REFUSED
    if fault < 0:
        return
    if fault == kernels.FULL:
        raise ValueError(
            f"event {k - 1} of market {m} finds {config.orders} orders resting; raise orders in MarketConfig."
        )
    field = kernels.FAULTS[fault]
    allowed = {"owner": f"a seat, 0 to {config.seats - 1}, or BACKGROUND ({BACKGROUND})", "kind": _KINDS}
    raise ValueError(
        f"block of market {m} has {field} {block.events[m, k][field]} in event {k}; "
        f"allowed is {allowed.get(field, _ANCHORS)}."
    )


def _wrong_count(name: str, block: EventBlock, m: int) -> ValueError:
    most = block.events.shape[1]
    return ValueError(f"{name}.count is {block.count[m]} for market {m}; allowed is 0 to {most} events.")


def check_orders(states: StartStates, which: np.ndarray, config: MarketConfig) -> None:
    """Refuses start states (k,) int64 that no book could have."""
    flow_ids = 1 << (config.flow_ids - 1).bit_length()
    chosen = states.orders, states.order_start, which
    failed = loading.check_orders(*chosen, config.orders, flow_ids, config.tick, config.lot)
    if failed >= 0:
        raise ValueError(
            f"orders of state {failed} make no book; allowed are at most {config.orders} background orders with "
            f"positive sizes (of whole lots, {config.lot}), prices in range (of whole ticks, {config.tick}), "
            f"different ids (modulo {flow_ids}) and every bid below every ask."
        )
