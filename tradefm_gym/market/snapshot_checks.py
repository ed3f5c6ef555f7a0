"""Whether a market could be in a state: asked of every snapshot that no market has just handed out.

Kernels look at no bounds, so nothing may reach them that would lead them astray. An array that nothing here names
passes; if a kernel takes an index from it, its check belongs here.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NoReturn

import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.market import snapshot_kernels
from tradefm_gym.market.book import MAX_PRICE, MIN_PRICE
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.delays import EPISODE, LATEST
from tradefm_gym.market.events import (
    ACCOUNT,
    BACKGROUND,
    EVENT,
    FILL,
    LAST_ANCHOR,
    LAST_KIND,
    ORDER,
    RECORD,
    SWITCHED,
)
from tradefm_gym.market.latency import MAX_NS
from tradefm_gym.market.layout import (
    AGENT_END,
    CLOCK,
    CLOCK_WIDTH,
    COUNT,
    COUNTERS,
    EXECUTED,
    FILLS,
    FLOW_WAITING,
    FREE,
    HALTED,
    HIGH_WATER,
    LAST_PRICE,
    LOG_BASE,
    LOG_END,
    MID2,
    NEXT_ID,
    OUTSIDE_MID2,
    RECORDS,
    ROW_WIDTH,
)
from tradefm_gym.market.snapshot_parts import (
    MOST,
    MOST_LOGGED,
    PLACES,
    ROW_REST,
    each_market,
    earliest,
    in_use,
    seen_by_all,
)

_DTYPES = {
    "orders": ORDER,
    "records": RECORD,
    "fills": FILL,
    "flow_queue": EVENT,
    "agent_queue": EVENT,
    "log": EVENT,
}


def check(config: MarketConfig, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses arrays in which no market of this configuration could be, in one sentence."""
    count = len(arrays["clocks"]) if "clocks" in arrays and arrays["clocks"].ndim else 0
    for prefix, of_market, own in each_market(config, arrays):
        try:
            _check_market(of_market, own, count)
        except _UnsoundError as error:
            what, allowed = error.args
            where = f" in {prefix}: what that seat sees" if prefix else ""
            raise ValueError(f"snapshot has {what}{where}; allowed is {allowed}.") from None


class _UnsoundError(Exception):
    """What is wrong, and what is allowed."""


def _check_market(config: MarketConfig, arrays: Mapping[str, np.ndarray], count: int) -> None:
    sending = config.seats if any(config.order_latencies) else 0
    wholes = {
        "row": ((count, ROW_WIDTH), np.dtype(np.int64)),
        "clocks": ((count, CLOCK_WIDTH), np.dtype(np.int64)),
        "counters": ((count, len(COUNTERS)), np.dtype(np.int64)),
        "accounts": ((count, config.seats + 1), ACCOUNT),
        "names": ((count, 2), np.dtype(np.uint64)),
        "sent": ((count, sending), np.dtype(np.int64)),
        "arrived": ((count, sending), np.dtype(np.int64)),
        "seen": ((count, len(config.late_seats)), np.dtype(np.int64)),
    }
    for name, (shape, dtype) in wholes.items():
        _check_array(arrays, name, shape, dtype)
    _check_columns(config, arrays["row"], arrays["clocks"], arrays["log"].size if "log" in arrays else 0)
    _check_seen(arrays["row"], arrays["seen"])
    lengths = {name: length for name, (_, length) in in_use(config, arrays).items()}
    for name, length in lengths.items():
        _check_array(arrays, name, (int(length.sum()),), _DTYPES[name])
    for name, array in arrays.items():
        if name not in lengths and (array.ndim == 0 or len(array) != count):
            _refuse(f"{shortened(name)} of shape {array.shape}", f"one entry for each of {count} markets")
    _check_orders(config, arrays["orders"], lengths["orders"], arrays["row"][:, FREE])
    _check_tape(config, arrays["records"], arrays["fills"])
    _check_queues(config, arrays["flow_queue"], arrays["agent_queue"], lengths["agent_queue"])
    _check_log(config, arrays["log"], lengths["log"], arrays["clocks"])
    _check_channels(config, arrays, lengths["agent_queue"])


def _refuse(what: str, allowed: str) -> NoReturn:
    raise _UnsoundError(what, allowed)


def _check_array(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if name not in arrays:
        _refuse(f"no {name}", f"an array of shape {shape}")
    array = arrays[name]
    if array.shape != shape:
        _refuse(f"{name} of shape {array.shape}", str(shape))
    if array.dtype != dtype:
        _refuse(f"{name} of dtype {shortened(array.dtype)}", "that of a market")


def _check_columns(config: MarketConfig, row: np.ndarray, clocks: np.ndarray, logged: int) -> None:
    ranges = (
        ("high-water mark", row, HIGH_WATER, 0, config.orders),
        ("first free slot", row, FREE, -1, config.orders),
        ("next id", row, NEXT_ID, 0, 2**63 - 1),
        ("count of forgotten events", row, LOG_BASE, 0, MOST_LOGGED),
        ("count of logged events", row, LOG_END, 0, logged),
        ("count of background events", clocks, COUNT, 0, MOST),
        ("doubled mid", clocks, MID2, 0, 2 * MAX_PRICE),
        ("doubled mid without agents", clocks, OUTSIDE_MID2, 0, 2 * MAX_PRICE),
        ("last price", clocks, LAST_PRICE, 0, MAX_PRICE),
        ("volume", clocks, EXECUTED, 0, MOST),
        ("count of records", clocks, RECORDS, 0, MOST),
        ("count of fills", clocks, FILLS, 0, MOST),
        ("count of waiting events", clocks, FLOW_WAITING, 0, config.flow_queue),
        ("count of waiting orders", clocks, AGENT_END, 0, config.agent_queue * max(1, config.seats)),
        ("switch of halts", clocks, HALTED, 0, 1),
    )
    for what, array, column, low, high in ranges:
        values = array[:, column]
        wrong = values[(values < low) | (values > high)]
        if len(wrong):
            _refuse(f"a {what} of {wrong[0]}", f"{low} to {high}")
    for array, columns in ((row, ROW_REST), (clocks, PLACES)):
        if array[:, columns].any():
            _refuse("numbers in columns that follow from the rest", "0")


def _check_orders(config: MarketConfig, orders: np.ndarray, lengths: np.ndarray, free: np.ndarray) -> None:
    ends = np.cumsum(lengths)
    m, fault = snapshot_kernels.pool_fault(orders, ends, np.ascontiguousarray(free), config.seats, config.agent_ids)
    if m >= 0:
        _refuse(f"{snapshot_kernels.FAULTS[fault]} in market {m}", "what a market can hold")
    live = orders["size"] > 0
    owner, order_id = orders["owner"].astype(np.int64), orders["order_id"]
    bits = (1 << (config.flow_ids - 1).bit_length()) - 1
    ids = (owner + 1) << 32 | np.where(owner < 0, order_id & bits, order_id)  # below 2^30, as ids of agents are
    queues = orders["price"].astype(np.int64) << 1 | (orders["side"] > 0)
    if _any_twice(ids, live, ends):
        _refuse("two live orders of one owner with one id", "one")
    if _any_twice(queues, live & (orders["prev"] < 0), ends):
        _refuse("two queues at one price", "one")


def _any_twice(keys: np.ndarray, which: np.ndarray, ends: np.ndarray) -> bool:
    """Whether two of the chosen entries of one market have the same key."""
    for begin, end in pairwise([0, *ends.tolist()]):
        found = np.sort(keys[begin:end][which[begin:end]])
        if (found[1:] == found[:-1]).any():
            return True
    return False


def _check_tape(config: MarketConfig, records: np.ndarray, fills: np.ndarray) -> None:
    # Side, price and size of a record are what was proposed, however wild.
    known = (records["kind"] <= LAST_KIND) & (records["anchor"] <= LAST_ANCHOR) & (records["status"] <= SWITCHED)
    if not (known & (records["filled"] >= 0)).all():
        _refuse("a record of unknown kind, anchor or status", "what a market writes")
    sound = (fills["size"] > 0) & (fills["price"] >= MIN_PRICE) & (fills["price"] <= MAX_PRICE)
    for party in ("maker", "taker"):
        sound &= (fills[party] >= BACKGROUND) & (fills[party] < config.seats)
    if not (sound & (np.abs(fills["taker_side"]) == 1)).all():
        _refuse("a fill between parties or at a price that there are not", "what a market writes")


def _check_queues(config: MarketConfig, flow: np.ndarray, agents: np.ndarray, lengths: np.ndarray) -> None:
    if not ((flow["owner"] == BACKGROUND) & (flow["kind"] <= LAST_KIND) & (flow["anchor"] <= LAST_ANCHOR)).all():
        _refuse("a waiting event of another owner, kind or anchor", "what can be fed")
    if snapshot_kernels.first_wrong(agents, config.seats, config.agent_ids) >= 0:
        _refuse("a waiting order that no market takes", "what can be submitted")
    if _falls(agents["time_ns"], lengths):
        _refuse("waiting orders out of time", "an order by time")


def _falls(times: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether in one of the markets a time is before the one that precedes it."""
    market = np.repeat(np.arange(len(lengths)), lengths)
    return bool(((times[1:] < times[:-1]) & (market[1:] == market[:-1])).any())


def _check_seen(row: np.ndarray, seen: np.ndarray) -> None:
    """A log begins where the slowest seat stands, and nobody has seen more than has happened."""
    wrong = row[:, LOG_BASE] != seen_by_all(seen)
    ends = row[:, LOG_BASE] + row[:, LOG_END]
    wrong |= (seen > ends[:, None]).any(axis=1) if seen.shape[1] else row[:, LOG_END] != 0
    if wrong.any():
        _refuse("a log that does not begin with the first event that a seat has not seen", "one that does")


def _check_log(config: MarketConfig, log: np.ndarray, lengths: np.ndarray, clocks: np.ndarray) -> None:
    # As on the tape, the other fields are what was proposed.
    owned = (log["owner"] >= BACKGROUND) & (log["owner"] < config.seats)
    if not (owned & (log["kind"] <= LAST_KIND) & (log["anchor"] <= LAST_ANCHOR)).all():
        _refuse("a logged event of unknown owner, kind or anchor", "what a market carries out")
    if _falls(log["time_ns"], lengths) or (log["time_ns"] > np.repeat(clocks[:, CLOCK], lengths)).any():
        _refuse("logged events out of time", "an order by time up to the clock")


def _check_channels(config: MarketConfig, arrays: Mapping[str, np.ndarray], lengths: np.ndarray) -> None:
    """Orders of a seat arrive as they were sent: none that waits comes after the last."""
    if (arrays["names"][:, EPISODE] >= 2**32).any():
        _refuse("an episode of a larger number", "less than 2^32")
    sent, arrived, first = arrays["sent"], arrays["arrived"], earliest(arrays["clocks"])
    if not sent.shape[1]:
        return
    prompt = [seat for seat, latency in enumerate(config.order_latencies) if not latency]
    late = (arrived == 0) | ((arrived > first) & (arrived > 0) & (arrived <= LATEST + MAX_NS))
    if sent[:, prompt].any() or arrived[:, prompt].any() or not (late & (sent >= 0) & (sent <= MOST)).all():
        _refuse("counts or times of sent orders that do not fit", "what a market writes")
    orders, market = arrays["agent_queue"], np.repeat(np.arange(len(lengths)), lengths)
    last = np.maximum(arrived, first)
    last[:, prompt] = np.iinfo(np.int64).max
    waiting = np.zeros_like(sent)
    np.add.at(waiting, (market, orders["owner"]), 1)
    waiting[:, prompt] = 0
    if (orders["time_ns"] > last[market, orders["owner"]]).any() or (waiting > sent).any():
        _refuse("an order under way that was not sent or overtakes another", "what a market writes")
