"""The execution role's ledger: kernels from the tape and the account to its state, terms and reward."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import LEVELS, SLOW
from tradefm_gym.market.events import CANCEL, CANCELLED, LIMIT, PRINT, RESTED
from tradefm_gym.market.ledger import notional_fee

MAX_RESTING = 16  # own orders at once; all rest at one price
HALF_TICK = 500  # of money: doubled ticks to 1/1000 ticks

STATE = np.dtype(
    [
        ("side", np.int64),
        ("quantity", np.int64),  # parent order, lots
        ("decisions", np.int64),  # of the whole episode
        ("decision", np.int64),  # made so far
        ("schedule", np.int64),  # cumulative, lots x 2^SCALE_BITS x decisions
        ("target", np.int64),  # lots that the schedule wants done by the end of this interval
        ("executed", np.int64),  # lots
        ("made", np.int64),  # of these, lots executed while resting
        ("cash", np.int64),  # the account as it was last read
        ("inventory", np.int64),
        ("fees", np.int64),
        ("cost", np.int64),  # sum of all terms, 1/1000 tick-lots
        ("arrival_mid2", np.int64),  # doubled mids, without own orders
        ("previous_mid2", np.int64),
        ("decision_mid2", np.int64),
        ("spread", np.int64),  # last known one without own orders, ticks
        ("last_level", np.int64),  # last visible price of the opposite side
        ("worst_fill", np.int64),  # worst price paid as taker in this interval, 0 if none
        ("own_price", np.int64),
        ("own_count", np.int64),  # resting orders
        ("resting", np.int64),  # lots in them
        ("start_ns", np.int64),
        ("records", np.int64),  # cursors of the tape
        ("fills", np.int64),
        ("crossing", np.int64),  # 1: what the interval leaves over crosses at its end
        ("fill_size", np.int64),  # the last fill, 0 while there is none
        ("fill_price", np.int64),
        ("fill_role", np.int64),  # 1 maker, -1 taker
        ("flow", np.float64),  # signed lots taken by others in the last interval
        ("slow_flow", np.float64),
        ("variance", np.float64),  # of the mid's move over one interval, ticks squared
    ],
    align=True,
)
RESTING = np.dtype([("order_id", np.int64), ("size", np.int64)], align=True)


@njit(cache=True, nogil=True)
def _find(resting, own_count, order_id):
    for i in range(own_count):
        if resting[i]["order_id"] == order_id:
            return i
    return -1


@njit(cache=True, nogil=True)
def _read_records(state, resting, records, record_count, seat):
    """Follows the tape of events: own orders that rest or go, and what others took."""
    capacity = records.shape[0]
    flow = 0.0
    for cursor in range(state["records"], record_count):
        record = records[cursor % capacity]
        if record["owner"] == seat:
            if record["kind"] == LIMIT and record["status"] == RESTED:
                resting[state["own_count"]]["order_id"] = record["order_id"]
                resting[state["own_count"]]["size"] = record["size"] - record["filled"]
                state["own_count"] += 1
                state["own_price"] = record["price"]
            elif record["kind"] == CANCEL and record["status"] == CANCELLED:
                at = _find(resting, state["own_count"], record["order_id"])
                if at >= 0:
                    resting[at]["size"] -= record["size"]
        elif record["kind"] != PRINT and record["kind"] != CANCEL:
            flow += float(record["side"]) * float(record["filled"])
    state["records"] = record_count
    return flow


@njit(cache=True, nogil=True)
def _read_fills(state, resting, fills, fill_count, seat):
    """Follows the tape of fills for those of the own orders."""
    capacity = fills.shape[0]
    side = state["side"]
    for cursor in range(state["fills"], fill_count):
        fill = fills[cursor % capacity]
        if fill["maker"] == seat:
            at = _find(resting, state["own_count"], fill["maker_id"])
            if at >= 0:
                resting[at]["size"] -= fill["size"]
            state["made"] += fill["size"]
            state["fill_role"] = 1
        elif fill["taker"] == seat:
            state["fill_role"] = -1
            if state["worst_fill"] == 0 or side * fill["price"] > side * state["worst_fill"]:
                state["worst_fill"] = fill["price"]
        else:
            continue
        state["executed"] += fill["size"]
        state["fill_size"] = fill["size"]
        state["fill_price"] = fill["price"]
    state["fills"] = fill_count


@njit(cache=True, nogil=True)
def _drop_dead(state, resting):
    live = 0
    total = np.int64(0)
    for i in range(state["own_count"]):
        if resting[i]["size"] > 0:
            resting[live]["order_id"] = resting[i]["order_id"]
            resting[live]["size"] = resting[i]["size"]
            total += resting[i]["size"]
            live += 1
    state["own_count"] = live
    state["resting"] = total


@njit(cache=True, nogil=True)
def read_tape(state, resting, records, record_count, fills, fill_count, seat):
    """Follows both rings of the tape; returns the signed lots that others took."""
    # All events first, then all fills: sizes only add up, so their order among each other is free,
    # and dead orders leave the list at the very end.
    flow = _read_records(state, resting, records, record_count, seat)
    _read_fills(state, resting, fills, fill_count, seat)
    _drop_dead(state, resting)
    return flow


@njit(cache=True, nogil=True)
def _free_book(state, depth_prices, depth_sizes, prices, sizes):
    """Copies the depth without own orders; they all rest at one price of one side.

    Returns:
        True if both sides have somebody else's orders.
    """
    for side in range(2):
        mine = state["resting"] if (side == 0) == (state["side"] > 0) else np.int64(0)
        level = 0
        for i in range(depth_prices.shape[1]):
            lots = np.int64(depth_sizes[side, i])
            if lots > 0 and mine > 0 and depth_prices[side, i] == state["own_price"]:
                lots -= mine
            if lots > 0 and level < LEVELS:
                prices[side, level] = depth_prices[side, i]
                sizes[side, level] = lots
                level += 1
        for i in range(level, LEVELS):
            prices[side, i] = 0
            sizes[side, i] = 0
    return sizes[0, 0] > 0 and sizes[1, 0] > 0


@njit(cache=True, nogil=True)
def _look(state, depth_prices, depth_sizes, prices, sizes):
    """Refreshes all that is known of the book: free depth, mid, spread, last opposite level."""
    if _free_book(state, depth_prices, depth_sizes, prices, sizes):
        state["decision_mid2"] = prices[0, 0] + prices[1, 0]
        state["spread"] = max(prices[1, 0] - prices[0, 0], np.int64(1))
    opposite = 1 if state["side"] > 0 else 0
    for level in range(LEVELS):
        if sizes[opposite, level] > 0:
            state["last_level"] = prices[opposite, level]


@njit(cache=True, nogil=True)
def unfilled_price(state, spread):
    """What a lot costs (ticks) that the book could not fill: one spread beyond all that was seen of it."""
    side = state["side"]
    worst = (state["decision_mid2"] + 1) // 2 if side > 0 else state["decision_mid2"] // 2
    if state["last_level"] > 0 and side * state["last_level"] > side * worst:
        worst = state["last_level"]
    if state["worst_fill"] > 0 and side * state["worst_fill"] > side * worst:
        worst = state["worst_fill"]
    return worst + side * spread


@njit(cache=True, nogil=True)
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
        price = unfilled_price(state, state["spread"])
        against_arrival = state["side"] * (2 * price - state["arrival_mid2"]) * HALF_TICK
        terms[3] = left * (against_arrival + max(taker_fee, 0)) + max(notional_fee(left * price, taker_rate), 0)
    return left == 0 or state["decision"] == state["decisions"]


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
        resting: (N, MAX_RESTING + 1) RESTING.
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
            row = state[m]
            read_tape(row, resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)
            terminated[m] = _book_terms(row, accounts[m, seat], taker_fee, taker_rate, terms[m])
            cost = terms[m, 0] + terms[m, 1] + terms[m, 2] + terms[m, 3]
            row["cost"] += cost
            reward[m] = -10_000.0 * float(cost) / float(row["quantity"] * row["arrival_mid2"] * HALF_TICK)
            row["previous_mid2"] = row["decision_mid2"]
            _look(row, depth_prices[m], depth_sizes[m], prices[m], sizes[m])
            moved = 0.5 * float(row["decision_mid2"] - row["previous_mid2"])
            row["variance"] += (moved * moved - row["variance"]) / SLOW


@njit(cache=True, nogil=True)
def _read_past(state, records, record_count, interval):
    """Fills the slow averages from the tape that the start state brought along."""
    capacity = records.shape[0]
    wanted = np.int64(SLOW) * interval
    flow, squares = 0.0, 0.0
    flows, moves, seen = 0, 0, np.int64(0)
    later_mid2 = state["decision_mid2"]
    total = 0.0
    cursor = record_count
    while cursor > 0 and cursor > record_count - capacity and seen < wanted:
        cursor -= 1
        record = records[cursor % capacity]
        if record["kind"] == PRINT:
            continue
        if record["kind"] != CANCEL:
            flow += float(record["side"]) * float(record["filled"])
        seen += 1
        if seen % interval == 0:
            if flows == 0:
                state["flow"] = flow
            total += flow
            flows += 1
            flow = 0.0
            if record["mid2"] > 0:
                moved = 0.5 * float(later_mid2 - record["mid2"])
                squares += moved * moved
                moves += 1
                later_mid2 = np.int64(record["mid2"])
    if flows > 0:
        state["slow_flow"] = total / flows
    if moves > 0:
        state["variance"] = squares / moves


@njit(cache=True, nogil=True, parallel=True)
def begin_episode(
    state, records, record_count, fill_count, depth_prices, depth_sizes, prices, sizes, rows, mid2, clock_ns, interval
):
    """Takes the first look at the rows' start states; side, quantity, decisions and variance are set already.

    Args:
        state: (N,) STATE.
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        fill_count: (N,) int64.
        depth_prices: (N, 2, LEVELS + 1) ticks.
        depth_sizes: (N, 2, LEVELS + 1) lots.
        prices: (N, 2, LEVELS) int64, written.
        sizes: (N, 2, LEVELS) int64, written.
        rows: (N,) bool.
        mid2: (N,) int64 last known doubled mid.
        clock_ns: (N,) int64.
        interval: background events between two decisions.
    """
    for m in prange(state.shape[0]):
        if rows[m]:
            row = state[m]
            row["decision_mid2"] = mid2[m]
            row["start_ns"] = clock_ns[m]
            row["records"] = record_count[m]
            row["fills"] = fill_count[m]
            _look(row, depth_prices[m], depth_sizes[m], prices[m], sizes[m])
            row["arrival_mid2"] = row["decision_mid2"]
            row["previous_mid2"] = row["decision_mid2"]
            _read_past(row, records[m], record_count[m], interval)
