"""What trading costs: fees and rebates by the lot and by the notional, and that the accounts balance."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from order_pair import Pair, agreed, among_limits, orders, play

from tradefm_gym.market import ledger
from tradefm_gym.market.accounts import equity
from tradefm_gym.market.config import MAX_RATE
from tradefm_gym.market.events import BUY, FILL_OR_KILL, FILLED, LIMIT, MARKET, MODIFY, PREVENTED, SELL
from tradefm_gym.market.simulator import MarketConfig

rates = st.one_of(st.integers(-MAX_RATE, MAX_RATE), st.sampled_from((0, 0, 1, -1, MAX_RATE, -MAX_RATE)))


@njit
def _notional_fee(notional, rate):
    return ledger.notional_fee(notional, rate)


@given(st.integers(1, ledger.MOST_NOTIONAL), rates)
@agreed
def test_the_fee_of_any_allowed_fill_is_its_share_rounded_up(notional, rate):
    charged = int(_notional_fee(np.int64(notional), np.int64(rate)))
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


HIGHEST, LARGEST = 2**30 - 1, 2**31 - 1
prices = st.one_of(st.integers(1, 9), st.sampled_from((HIGHEST - 1, HIGHEST, 2**20)))
sizes = st.one_of(st.integers(1, 9), st.sampled_from((LARGEST, 2**30, 4_294_971, 8_589_943)))


@given(
    st.lists(
        st.tuples(
            st.sampled_from((LIMIT, LIMIT, MARKET, MODIFY, FILL_OR_KILL)), st.sampled_from((BUY, SELL)), prices, sizes,
            st.integers(0, 5), st.sampled_from((-1, 0, 1)),
        ), max_size=40,
    ),
    st.sampled_from((0, 2**30, -(2**30))), st.sampled_from((0, MAX_RATE, -MAX_RATE)),
)  # fmt: skip
@agreed
def test_money_that_no_account_holds_is_not_traded(sequence, fee, rate):
    pair = Pair(maker_fee=fee, taker_fee=fee, maker_rate=rate, taker_rate=rate, self_trade="off")
    for order in sequence:
        pair.send(*order)  # the reference counts without bounds, and its accounts have to agree
        assert pair.simulator.accounts[0]["cash"].astype(object).sum() == 0


def test_an_order_for_more_money_than_64_bits_hold_is_prevented_and_counted():
    pair = Pair()
    pair.send(LIMIT, SELL, HIGHEST, LARGEST, 0, owner=1)
    record = pair.send(LIMIT, BUY, HIGHEST, LARGEST, 0, owner=0)
    assert (record["status"], record["filled"]) == (PREVENTED, 0)
    assert pair.simulator.counters[0, 3:5].tolist() == [1, LARGEST]
    most = ledger.MOST_NOTIONAL // HIGHEST
    assert pair.send(MARKET, BUY, 0, most, 1, owner=0)["status"] == FILLED
    assert pair.send(MARKET, BUY, 0, most, 1, owner=0)["status"] == PREVENTED  # the account is full now
    with pytest.raises(ValueError, match=r"accounts are worth up to 9.2\de\+21 in 1/1000 tick-lots; allowed is less"):
        equity(np.array([[(0, 2**31, 0, 0)]], pair.simulator.accounts.dtype), np.array([2**33]))


@pytest.mark.parametrize("name", ["maker_rate", "taker_rate"])
def test_rates_that_no_market_has_are_refused(name):
    for value in (MAX_RATE + 1, -MAX_RATE - 1):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed is -100000 to 100000"):
            MarketConfig(**{name: value})
    with pytest.raises(TypeError, match=f"{name} is 0.5; allowed is an int"):
        MarketConfig(**{name: 0.5})
