"""The execution role's ledger: kernels from the tape and the account to its state, terms and reward."""

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
from tradefm_gym.market.compiler import ROW, SERIAL
from tradefm_gym.market.ledger import notional_fee

STATE = np.dtype(
    [
        ("side", np.int64),
        ("quantity", np.int64),  # parent order, lots
        ("schedule", np.int64),  # cumulative, lots x 2^SCALE_BITS x decisions
        ("target", np.int64),  # lots that the schedule wants done by the end of this interval
        ("base", np.int64),  # the schedule if the agent had not bent it; VWAP and POV
        ("schedule_kind", np.int64),  # TWAP, VWAP or POV
        ("limit", np.int64),  # the worst price, ticks; 0: none
        ("participation", np.float64),  # part of what others trade, of POV
        ("usual_lots", np.float64),  # that others usually trade between two decisions
        ("pov_lots", np.int64),  # what somebody who keeps to it has traded by now
        ("pov_notional", np.int64),  # at which prices in all, 1/1000 tick-lots
        ("lots_read", np.int64),  # of ``market_lots`` and ``market_notional``
        ("notional_read", np.int64),
        ("cost", np.int64),  # sum of all terms, 1/1000 tick-lots
        *SEAT_FIELDS,
    ],
    align=True,
)


@njit(**SERIAL)
def begin_tasks(
    state, resting, rows, draws, usual, orders, paces, participation, schedule_kind, no_task, no_order
):  # fmt: skip
    """Writes the tasks of episodes that begin.

    Args:
        state: (N,) STATE, written.
        resting: (N, .) RESTING, written.
        rows: (k,) int64, the rows that begin.
        draws: (N, 4) uint32, of which the first says the side where none is fixed.
        usual: (k,) SCALE.
        orders: (k, 3) int64: side (0: drawn), quantity and decisions.
        paces: (k,) float64, background events that usually happen between two decisions.
        participation: (k,) float64.
        schedule_kind: TWAP, VWAP or POV.
        no_task: (1,) STATE of zeros.
        no_order: (1,) RESTING of zeros.
    """
    for i in range(rows.shape[0]):
        m = rows[i]
        state[m] = no_task[0]
        for k in range(resting.shape[1]):
            resting[m, k] = no_order[0]
        row, scale = state[m], usual[i]
        drawn = 1 if draws[m, 0] & np.uint32(1) else -1
        row["side"] = orders[i, 0] if orders[i, 0] != 0 else drawn
        row["quantity"], row["decisions"] = orders[i, 1], orders[i, 2]
        row["spread"] = np.int64(max(1.0, np.rint(scale["spread"])))
        row["pace"] = paces[i]
        row["variance"] = scale["volatility"] * scale["volatility"] * paces[i]
        row["schedule_kind"] = schedule_kind
        row["participation"] = participation[i]
        row["usual_lots"] = scale["lots_per_event"] * paces[i]


@njit(**ROW)
def _book_terms(state, account, taker_fee, taker_rate, terms):
    """Writes the four terms of one interval, all of them differences of the integer account.

    Spread, timing and fees add up to the account's loss against the arrival mid; only what is left unfilled
    at the deadline is not in the account and charged on top.

    Returns:
        True if the task is over.
    """
    bought = account["inventory"] - state["inventory"]  # signed
    mid2 = state["decision_mid2"]
    terms[0] = state["cash"] - account["cash"] - bought * mid2 * HALF_TICK
    terms[1] = bought * (mid2 - state["arrival_mid2"]) * HALF_TICK
    terms[2] = account["fees"] - state["fees"]
    terms[3] = 0
    state["cash"], state["inventory"], state["fees"] = account["cash"], account["inventory"], account["fees"]
    state["decision"] += 1
    left = state["quantity"] - state["executed"]
    if left > 0 and state["decision"] == state["decisions"]:
        price = unfilled_price(state, state["side"])
        against_arrival = state["side"] * (2 * price - state["arrival_mid2"]) * HALF_TICK
        terms[3] = left * (against_arrival + max(taker_fee, 0)) + max(notional_fee(left * price, taker_rate), 0)
    return left == 0 or state["decision"] == state["decisions"]


@njit(**ROW)
def _participate(state):
    """Lets somebody who takes ``participation`` of what others trade follow the interval, at its average price."""
    lots, notional = state["market_lots"] - state["lots_read"], state["market_notional"] - state["notional_read"]
    state["lots_read"], state["notional_read"] = state["market_lots"], state["market_notional"]
    due = np.int64(np.floor(state["participation"] * float(state["market_lots"])))
    taken = min(due, state["quantity"]) - state["pov_lots"]
    if lots > 0 and taken > 0:
        paid = float(taken) * float(notional) / float(lots)
        state["pov_lots"] += taken
        state["pov_notional"] += np.int64(np.floor(1000.0 * paid + 0.5))


@njit(**ROW)
def settle_row_of(
    state, resting, records, record_count, fills, fill_count, account, depth_prices, depth_sizes, prices, sizes, seat,
    taker_fee, taker_rate, terms,
):  # fmt: skip
    """``settle_interval`` of one row; returns its reward, and whether the task is over."""
    read_tape(state, resting, records, record_count, fills, fill_count, seat)
    _participate(state)
    learn_flow(state)
    over = _book_terms(state, account, taker_fee, taker_rate, terms)
    cost = terms[0] + terms[1] + terms[2] + terms[3]
    state["cost"] += cost
    look(state, resting, depth_prices, depth_sizes, prices, sizes)
    remember_move(state)
    return -10_000.0 * float(cost) / float(state["quantity"] * state["arrival_mid2"] * HALF_TICK), over


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
        terms: (N, 4) int64, written: spread, timing, fees, unfilled in 1/1000 tick-lots.
        reward: (N,) float64, written: minus their sum in basis points of the arrival notional.
        terminated: (N,) bool, written.
    """
    for m in prange(state.shape[0]):
        terms[m, 0], terms[m, 1], terms[m, 2], terms[m, 3] = 0, 0, 0, 0
        reward[m] = 0.0
        terminated[m] = False
        if rows[m]:
            reward[m], terminated[m] = settle_row_of(
                state[m], resting[m], records[m], record_count[m], fills[m], fill_count[m], accounts[m, seat],
                depth_prices[m], depth_sizes[m], prices[m], sizes[m], seat, taker_fee, taker_rate, terms[m],
            )  # fmt: skip
