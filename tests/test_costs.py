"""What trading costs: fees and rebates by the lot and by the notional, and that the accounts balance."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from market_checks import JIT
from numba import njit
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market import ledger
from tradefm_gym.market.config import MAX_RATE
from tradefm_gym.market.events import BUY, LIMIT, MARKET, MODIFY, SELL
from tradefm_gym.market.simulator import MarketConfig

rates = st.one_of(st.integers(-MAX_RATE, MAX_RATE), st.sampled_from((0, 0, 1, -1, MAX_RATE, -MAX_RATE)))


@njit
def _notional_fee(notional, rate):
    return ledger.notional_fee(notional, rate)


@given(st.integers(1, 2**30 - 1), st.integers(1, 2**31 - 1), rates)
@agreed
def test_the_fee_of_any_allowed_fill_is_its_share_rounded_up(price, size, rate):
    charged = int(_notional_fee(np.int64(price * size), np.int64(rate)))
    notional = min(price * size, ledger.MOST_NOTIONAL)  # where the cash of the fill fits an account
    assert charged == ceil(Fraction(notional * ledger.MONEY * rate, 10**6))
    assert abs(charged) < 2**60


@given(among_limits(orders(MARKET), orders(MODIFY), longest=40), rates, rates, st.integers(-9, 9))
@agreed
def test_cash_and_inventory_balance_and_the_venue_gets_the_fees_of_every_fill(sequence, maker, taker, lot):
    pair = play(sequence, maker_rate=maker, taker_rate=taker, maker_fee=lot, taker_fee=-lot, self_trade="off")
    accounts, fills = pair.simulator.accounts[0], pair.simulator.tape.read_fills(0)
    assert accounts["cash"].sum() == 0 and accounts["inventory"].sum() == 0
    notionals = fills["price"].astype(object) * fills["size"].astype(object)
    paid = dict.fromkeys((0, 1, -1), 0)
    for fill, notional in zip(fills, notionals, strict=True):
        paid[int(fill["maker"])] += int(fill["size"]) * lot + ceil(Fraction(notional * maker, 1000))
        paid[int(fill["taker"])] -= int(fill["size"]) * lot - ceil(Fraction(notional * taker, 1000))
    assert accounts["fees"].tolist() == [paid[0], paid[1], paid[-1]]


def test_a_fee_and_a_rebate_by_hand():
    pair = Pair(maker_rate=-100, taker_rate=250, maker_fee=0, taker_fee=2)
    pair.send(LIMIT, SELL, 1_003, 7, 0, owner=1)
    pair.send(LIMIT, BUY, 1_003, 3, 0, owner=0)
    # 3,009 tick-lots: 0.75225 of them and 6 for the lots; a rebate of 0.3009 of one, both in thousandths.
    assert pair.simulator.accounts[0]["fees"].tolist() == [753 + 6, -300, 0]


@pytest.mark.skipif(not JIT, reason="cash as large as that wraps silently only in compiled code")
def test_a_fill_too_large_for_any_account_is_charged_as_the_largest_that_fits():
    pair = Pair(maker_rate=MAX_RATE, taker_rate=-MAX_RATE)
    simulator = pair.simulator
    for side in (SELL, BUY):
        simulator.send(LIMIT, side, 2**30 - 1, 2**31 - 1, 0, (1 - side) // 2)
    most = ledger.MOST_NOTIONAL * MAX_RATE // 1000  # exact
    lots = (2**31 - 1) * simulator.config.taker_fee, (2**31 - 1) * simulator.config.maker_fee
    assert simulator.accounts[0]["fees"][:2].tolist() == [lots[0] - most, lots[1] + most]


@pytest.mark.parametrize("name", ["maker_rate", "taker_rate"])
def test_rates_that_no_market_has_are_refused(name):
    for value in (MAX_RATE + 1, -MAX_RATE - 1):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed is -100000 to 100000"):
            MarketConfig(**{name: value})
    with pytest.raises(TypeError, match=f"{name} is 0.5; allowed is an int"):
        MarketConfig(**{name: 0.5})
