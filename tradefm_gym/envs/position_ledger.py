"""The ledger of roles that hold a position: kernels from tape and account to state, terms and reward.

With q the inventory, c the cash, f the fees and p the mid without own orders, the gain of decision k is

    c' - c + (q' - q) p          what was traded, against the mid at the decision
    + q' (p' - p)                what is held, marked to the new mid
    - (f' - f)

where a prime marks the next decision: exactly the change of c + q p - f. What is traded is divided into what
happened before the closing trade of the episode and that trade. All are integers, 1/1000 tick-lots.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.seat import (
    HALF_TICK,
    SEAT_FIELDS,
    learn_flow,
    look,
    read_tape,
    remember_move,
    unfilled_price,
)
from tradefm_gym.market.compiler import ROW
from tradefm_gym.market.ledger import notional_fee

STATE = np.dtype(
    [
        ("limit", np.int64),  # the largest position, lots
        ("size", np.int64),  # the largest quote, lots
        ("target", np.int64),  # the position that is wanted at the end of the interval
        ("profit", np.int64),  # sum of all terms, 1/1000 tick-lots
        ("peak", np.int64),  # the largest position so far, lots of either sign
        ("closing_cash", np.int64),  # the account just before the orders that close the interval
        ("closing_inventory", np.int64),
        *SEAT_FIELDS,
    ],
    align=True,
)
TERMS = 6
TRADED, HELD, FEES, LIQUIDATION, UNFILLED, PENALTY = range(TERMS)


@njit(**ROW)
def _book_terms(state, account, taker_fee, taker_rate, penalty, quadratic, terms):
    """Writes the terms of one interval, whose new mid is looked up already; True if the task is over.

    The first four add up to the change of the account marked to the mid; what could not be closed at the end and
    the penalty are charged on top.
    """
    old_mid2, inventory = state["previous_mid2"], account["inventory"]
    state["decision"] += 1
    over = state["decision"] == state["decisions"]
    cash, lots = (state["closing_cash"], state["closing_inventory"]) if over else (account["cash"], inventory)
    terms[TRADED] = cash - state["cash"] + (lots - state["inventory"]) * old_mid2 * HALF_TICK
    terms[HELD] = inventory * (state["decision_mid2"] - old_mid2) * HALF_TICK
    terms[FEES] = state["fees"] - account["fees"]
    terms[LIQUIDATION] = account["cash"] - cash + (inventory - lots) * old_mid2 * HALF_TICK
    terms[UNFILLED], terms[PENALTY] = 0, 0
    held = abs(inventory)
    if over and held > 0:
        side = -1 if inventory > 0 else 1
        price = unfilled_price(state, side)
        against_mid = side * (2 * price - state["decision_mid2"]) * HALF_TICK
        terms[UNFILLED] = -held * (against_mid + max(taker_fee, 0)) - max(notional_fee(held * price, taker_rate), 0)
    elif quadratic:
        terms[PENALTY] = -penalty * (held * held // state["limit"])
    else:
        terms[PENALTY] = -penalty * held
    state["cash"], state["inventory"], state["fees"] = account["cash"], inventory, account["fees"]
    state["peak"] = max(state["peak"], held)
    return over


@njit(**ROW)
def settle_row_of(
    state, resting, records, record_count, fills, fill_count, account, depth_prices, depth_sizes, prices, sizes, seat,
    taker_fee, taker_rate, penalty, quadratic, terms,
):  # fmt: skip
    """``settle_interval`` of one row; returns its reward, and whether the task is over."""
    _, bought, sold = read_tape(state, resting, records, record_count, fills, fill_count, seat)
    state["bought"] += bought
    state["sold"] += sold
    learn_flow(state)
    look(state, resting, depth_prices, depth_sizes, prices, sizes)
    remember_move(state)
    over = _book_terms(state, account, taker_fee, taker_rate, penalty, quadratic, terms)
    total = np.int64(0)
    for i in range(TERMS):
        total += terms[i]
    state["profit"] += total
    return 10_000.0 * float(total) / float(state["limit"] * state["arrival_mid2"] * HALF_TICK), over


@njit(cache=True, nogil=True, parallel=True)
def settle_interval(
    state,
    resting,
    records,
    record_count,
    fills,
    fill_count,
    accounts,
    depth_prices,
    depth_sizes,
    prices,
    sizes,
    rows,
    seat,
    taker_fee,
    taker_rate,
    penalty,
    quadratic,
    terms,
    reward,
    terminated,
):
    """Books one interval and looks at the book again.

    Args:
        state: (N,) STATE.
        resting: (N, .) RESTING.
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        fills: (N, R) FILL, ring.
        fill_count: (N,) int64.
        accounts: (N, A + 1) ACCOUNT.
        depth_prices: (N, 2, LEVELS + 1) ticks of the whole book.
        depth_sizes: (N, 2, LEVELS + 1) lots.
        prices: (N, 2, LEVELS) int64, written: the book without own orders.
        sizes: (N, 2, LEVELS) int64, written.
        rows: (N,) bool.
        seat: the role's account.
        taker_fee: 1/1000 ticks a lot.
        taker_rate: parts per million of the notional.
        penalty: 1/1000 ticks for each lot that is held at the end of the interval.
        quadratic: whether it is for inventory^2 / limit lots instead.
        terms: (N, TERMS) int64, written, 1/1000 tick-lots.
        reward: (N,) float64, written: their sum in basis points of the limit's arrival notional.
        terminated: (N,) bool, written.
    """
    for m in prange(state.shape[0]):
        for i in range(TERMS):
            terms[m, i] = 0
        reward[m] = 0.0
        terminated[m] = False
        if rows[m]:
            reward[m], terminated[m] = settle_row_of(
                state[m], resting[m], records[m], record_count[m], fills[m], fill_count[m], accounts[m, seat],
                depth_prices[m], depth_sizes[m], prices[m], sizes[m], seat, taker_fee, taker_rate, penalty, quadratic,
                terms[m],
            )  # fmt: skip
