"""What an event writes besides the book: its record, its fills, the accounts of both parties, clocks and counters."""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import INLINE, KERNEL, aside
from tradefm_gym.market.config import PREVENTION, MarketConfig
from tradefm_gym.market.events import ABSOLUTE, ACCOUNT, FILL, RECORD
from tradefm_gym.market.layout import (
    CLOCK_WIDTH,
    COUNTERS,
    EXECUTED,
    FILL_PLACE,
    FILLS,
    LAST_PRICE,
    MID2,
    RECORD_PLACE,
    RECORDS,
)
from tradefm_gym.market.memory import Part, carve, part_of

# Columns of ``rules``; from PREVENTS on the place of each owner's rule in PREVENTION, the background (-1) first.
MAKER_FEE = 0
TAKER_FEE = 1
MAKER_RATE = 2
TAKER_RATE = 3
FEES = 4  # both fees together, or RATED where there is a rate besides
PREVENTS = 6
CANCEL_NEWEST, CANCEL_OLDEST, CANCEL_BOTH = 1, 2, 3

RATED = -(2**62)
MONEY = 1000  # units of money in one tick-lot
MOST_CASH = 2**63 - 1
MOST_NOTIONAL = MOST_CASH // MONEY  # tick-lots; the cash of a larger fill fits no account
MOST_FEES = 2**61  # before a fill; the largest fees of one, by config.py, add less than is left to 2^63


class Ledger(NamedTuple):
    """All that an event writes besides the book."""

    records: np.ndarray  # (N, R) RECORD ring
    fills: np.ndarray  # (N, R') FILL ring
    accounts: np.ndarray  # (N, A + 1) ACCOUNT
    clocks: np.ndarray  # (N, CLOCK_WIDTH) int64, columns in layout.py
    counters: np.ndarray  # (N, len(COUNTERS)) int64
    rules: np.ndarray  # (1, 6 + A) int64, columns above


def parts(num_markets: int, config: MarketConfig) -> list[Part]:
    """Of what ledgers consist: the shapes and dtypes of :class:`Ledger`."""
    widths = (config.tape, config.fills, config.seats + 1, CLOCK_WIDTH, len(COUNTERS))
    dtypes = (RECORD, FILL, ACCOUNT, np.int64, np.int64)
    wholes = [((num_markets, width), dtype) for width, dtype in zip(widths, dtypes, strict=True)]
    return [*wholes, ((1, PREVENTS + config.seats), np.int64)]


def allocate(num_markets: int, config: MarketConfig) -> tuple[np.ndarray, Ledger]:
    """Ledgers of markets in which nothing has happened, and the block of memory in which they lie."""
    memory, views = carve(parts(num_markets, config))
    ledger = Ledger(*views)
    ledger.rules[0, MAKER_FEE] = config.maker_fee
    ledger.rules[0, TAKER_FEE] = config.taker_fee
    ledger.rules[0, MAKER_RATE] = config.maker_rate
    ledger.rules[0, TAKER_RATE] = config.taker_rate
    rated = config.maker_rate != 0 or config.taker_rate != 0
    ledger.rules[0, FEES] = RATED if rated else config.maker_fee + config.taker_fee
    ledger.rules[0, PREVENTS:] = [PREVENTION.index(rule) for rule in config.preventions]
    return memory, ledger


@njit(inline="always")
def open_ledger(memory):
    """The ledgers that lie in a block of memory, within a kernel."""
    return Ledger(
        part_of(memory, 0, RECORD),
        part_of(memory, 1, FILL),
        part_of(memory, 2, ACCOUNT),
        part_of(memory, 3, np.int64),
        part_of(memory, 4, np.int64),
        part_of(memory, 5, np.int64),
    )


@njit(**INLINE)
def write_record(
    ledger, m, now, order_id, price, size, max_rest, owner, kind, side, status, filled, notional, touch
):  # fmt: skip
    """Appends to the tape; ``touch`` is what ``views.touch_of`` says of the book."""
    place = ledger.clocks[m, RECORD_PLACE]
    ledger.clocks[m, RECORDS] += 1
    ledger.clocks[m, RECORD_PLACE] = place + 1 if place + 1 < ledger.records.shape[1] else 0
    record = ledger.records[m, np.uint64(place)]
    record["time_ns"] = now
    record["order_id"] = order_id
    record["price"] = price
    record["size"] = size
    record["max_rest"] = max_rest
    record["owner"] = owner
    record["kind"] = kind
    record["side"] = side
    record["anchor"] = ABSOLUTE
    record["status"] = status
    record["filled"] = filled
    record["mid2"] = ledger.clocks[m, MID2]
    record["spread"], record["bid_size"], record["ask_size"] = touch
    record["notional"] = notional


@njit(**INLINE)
def notional_fee(notional, rate):
    """What ``rate`` parts per million of a notional (tick-lots) are in money, rounded up: the venue never loses by it.

    So a fee is at most one unit above the exact share of its fill, and a rebate at most one below. The product is
    taken in two parts, for notional x rate need not fit 64 bits.
    """
    thousands, rest = notional // 1000, notional % 1000  # a millionth of a tick-lot is 1/1000 of a unit
    return thousands * rate - (-rest * rate // 1000)


@njit(**KERNEL)
def has_room_for(ledger, m, maker, taker, notional):
    """Whether the money that a fill (tick-lots) moves fits the accounts of both parties beside what they have."""
    aside()
    if notional > MOST_NOTIONAL:
        return False
    last = ledger.accounts.shape[1] - 1
    provider = ledger.accounts[m, maker if maker >= 0 else last]
    remover = ledger.accounts[m, taker if taker >= 0 else last]
    cash = max(abs(provider["cash"]), abs(remover["cash"]))
    fees = max(abs(provider["fees"]), abs(remover["fees"]))
    return cash <= MOST_CASH - notional * MONEY and fees <= MOST_FEES


@njit(**INLINE)
def is_booked(ledger, maker, taker):
    """Whether a fill moves money: among the background's own orders without fees it does not."""
    return maker >= 0 or taker >= 0 or ledger.rules[0, FEES] != 0


@njit(**KERNEL)
def _charge_notional(ledger, m, maker, taker, notional):
    """Books the part of the fees that grows with the price."""
    aside()
    last = ledger.accounts.shape[1] - 1
    ledger.accounts[m, maker if maker >= 0 else last]["fees"] += notional_fee(notional, ledger.rules[0, MAKER_RATE])
    ledger.accounts[m, taker if taker >= 0 else last]["fees"] += notional_fee(notional, ledger.rules[0, TAKER_RATE])


@njit(**INLINE)
def write_fill(ledger, m, now, maker_id, maker, since_ns, taker_id, taker, taker_side, price, size):
    """Appends to the tape and books both parties."""
    clocks, rules = ledger.clocks, ledger.rules
    place = clocks[m, FILL_PLACE]
    clocks[m, FILLS] += 1
    clocks[m, FILL_PLACE] = place + 1 if place + 1 < ledger.fills.shape[1] else 0
    fill = ledger.fills[m, np.uint64(place)]
    fill["time_ns"] = now
    fill["maker_id"] = maker_id
    fill["taker_id"] = taker_id
    fill["wait_ns"] = now - since_ns
    fill["price"] = price
    fill["size"] = size
    fill["maker"] = maker
    fill["taker"] = taker
    fill["taker_side"] = taker_side
    clocks[m, EXECUTED] += size
    clocks[m, LAST_PRICE] = price
    fees = rules[0, FEES]
    if fees == RATED:
        _charge_notional(ledger, m, maker, taker, price * size)
        fees = rules[0, MAKER_FEE] + rules[0, TAKER_FEE]
    last = ledger.accounts.shape[1] - 1
    if maker < 0 and taker < 0:  # cash and inventory go from one pocket to the other
        both = ledger.accounts[m, last]
        both["fees"] += fees * size
        both["volume"] += 2 * size
        return
    provider = ledger.accounts[m, maker if maker >= 0 else last]
    remover = ledger.accounts[m, taker if taker >= 0 else last]
    cash = taker_side * price * size * MONEY
    lots = taker_side * size
    remover["cash"] -= cash
    remover["inventory"] += lots
    remover["fees"] += rules[0, TAKER_FEE] * size
    remover["volume"] += size
    provider["cash"] += cash
    provider["inventory"] -= lots
    provider["fees"] += rules[0, MAKER_FEE] * size
    provider["volume"] += size
