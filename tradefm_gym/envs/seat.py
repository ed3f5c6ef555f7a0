"""What every seat keeps of its market: its own orders, the book without them and what it has read of the tape.

Row kernels, and the one that begins an episode. They take a row of whatever state a role has, as long as it holds the
fields of ``SEAT_FIELDS``, so that each role's kernels compile them into themselves.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import LEVELS, SLOW
from tradefm_gym.market.compiler import ROW, SERIAL
from tradefm_gym.market.events import CANCEL, CANCELLED, PRINT, RESTED
from tradefm_gym.market.rows import read_depth_row

MAX_RESTING = 16  # own orders at once; those of one side rest at one price
HALF_TICK = 500  # of money: doubled ticks to 1/1000 ticks

# How far an own order is, as its seat knows. Orders of a seat without latency are either at rest or gone.
RESTS, SENT, LEAVING, TAKING = range(4)  # at rest, on its way to rest, its cancel on its way, on its way to cross

SEAT_FIELDS = [
    ("decisions", np.int64),  # of the whole episode
    ("decision", np.int64),  # made so far
    ("executed", np.int64),  # lots, bought and sold alike
    ("made", np.int64),  # of these, lots executed while resting
    ("cash", np.int64),  # the account as it was last read
    ("inventory", np.int64),
    ("fees", np.int64),
    ("arrival_mid2", np.int64),  # doubled mids, without own orders
    ("previous_mid2", np.int64),
    ("decision_mid2", np.int64),
    ("spread", np.int64),  # last known one without own orders, ticks
    ("last_bid", np.int64),  # last visible prices of both sides, without own orders
    ("last_ask", np.int64),
    ("worst_fill", np.int64),  # worst price paid as taker in this interval, 0 if none
    ("own_count", np.int64),  # resting orders
    ("resting", np.int64),  # lots in them
    ("start_ns", np.int64),
    ("records", np.int64),  # cursors of the tape
    ("fills", np.int64),
    ("crossing", np.int64),  # 1: what the interval leaves over crosses at its end
    ("late", np.int64),  # 1: orders or news of the seat take time
    ("bought", np.int64),  # lots in the last interval
    ("sold", np.int64),
    ("messages", np.int64),  # orders and cancels that the market has met
    ("trades", np.int64),  # own fills
    ("market_lots", np.int64),  # lots that others traded with each other
    ("market_notional", np.int64),  # the same times their prices, tick-lots
    ("mid2_sum", np.int64),  # of the doubled mids after each decision
    ("fill_size", np.int64),  # the last fill, 0 while there is none
    ("fill_price", np.int64),
    ("fill_side", np.int64),  # 1 bought, -1 sold
    ("fill_role", np.int64),  # 1 maker, -1 taker
    ("flow", np.float64),  # signed lots taken by others in the last interval
    ("slow_flow", np.float64),
    ("variance", np.float64),  # of the mid's move over one interval, ticks squared
    ("pace", np.float64),  # background events that usually happen between two decisions
]
RESTING = np.dtype(
    [("order_id", np.int64), ("price", np.int64), ("size", np.int64), ("side", np.int64), ("stage", np.int64)],
    align=True,
)


@njit(**ROW)
def _find(resting, own_count, order_id):
    for i in range(own_count):
        if resting[i]["order_id"] == order_id:
            return i
    return -1


@njit(**ROW)
def _read_records(state, resting, records, record_count, seat):
    """Follows the tape of events: own orders that rest or go, and what others took."""
    capacity = records.shape[0]
    flow = 0.0
    for cursor in range(state["records"], record_count):
        record = records[cursor % capacity]
        kind = record["kind"]
        if record["owner"] == seat:
            state["messages"] += 1
            if kind == CANCEL:
                if record["status"] == CANCELLED:
                    at = _find(resting, state["own_count"], record["order_id"])
                    if at >= 0:
                        resting[at]["size"] -= record["size"]
                continue
            # Only a late seat has noted its order already, when it sent it.
            at = _find(resting, state["own_count"], record["order_id"]) if state["late"] == 1 else -1
            if record["status"] == RESTED:
                if at < 0:
                    at = state["own_count"]
                    state["own_count"] += 1
                    resting[at]["stage"] = RESTS
                order = resting[at]
                order["order_id"] = record["order_id"]
                order["price"] = record["price"]
                order["size"] = record["size"] - record["filled"]
                order["side"] = record["side"]
                if order["stage"] == SENT:
                    order["stage"] = RESTS
            elif at >= 0:
                resting[at]["size"] = 0
        elif kind != PRINT and kind != CANCEL:
            flow += float(record["side"]) * float(record["filled"])
    state["records"] = record_count
    return flow


@njit(**ROW)
def _read_fills(state, resting, fills, fill_count, seat):
    """Follows the tape of fills for those of the own orders; returns the lots bought and those sold."""
    capacity = fills.shape[0]
    bought, sold = np.int64(0), np.int64(0)
    for cursor in range(state["fills"], fill_count):
        fill = fills[cursor % capacity]
        side = np.int64(fill["taker_side"])
        if fill["maker"] == seat:
            at = _find(resting, state["own_count"], fill["maker_id"])
            if at >= 0:
                resting[at]["size"] -= fill["size"]
            side = -side
            state["made"] += fill["size"]
            state["fill_role"] = 1
        elif fill["taker"] == seat:
            state["fill_role"] = -1
            if state["worst_fill"] == 0 or side * fill["price"] > side * state["worst_fill"]:
                state["worst_fill"] = fill["price"]
        else:
            state["market_lots"] += fill["size"]
            state["market_notional"] += np.int64(fill["size"]) * fill["price"]
            continue
        state["trades"] += 1
        if side > 0:
            bought += fill["size"]
        else:
            sold += fill["size"]
        state["executed"] += fill["size"]
        state["fill_size"] = fill["size"]
        state["fill_price"] = fill["price"]
        state["fill_side"] = side
    state["fills"] = fill_count
    return bought, sold


@njit(**ROW)
def _drop_dead(state, resting):
    live = 0
    total = np.int64(0)
    for i in range(state["own_count"]):
        if resting[i]["size"] > 0:
            resting[live] = resting[i]
            total += resting[i]["size"]
            live += 1
    state["own_count"] = live
    state["resting"] = total


@njit(**ROW)
def read_tape(state, resting, records, record_count, fills, fill_count, seat):
    """Follows both rings of the tape; returns the signed lots that others took, and own lots bought and sold."""
    # All events first, then all fills: sizes only add up, so their order among each other is free,
    # and dead orders leave the list at the very end.
    flow = _read_records(state, resting, records, record_count, seat)
    bought, sold = _read_fills(state, resting, fills, fill_count, seat)
    _drop_dead(state, resting)
    return flow, bought, sold


@njit(**ROW)
def _free_book(state, resting, depth_prices, depth_sizes, prices, sizes):
    """Copies the depth without own orders, all of which rest at one price of their side.

    Those of a late seat may rest at many: its depth is read without them.

    Returns:
        True if both sides have somebody else's orders.
    """
    for side in range(2):
        level = 0
        for i in range(depth_prices.shape[1]):
            lots = np.int64(depth_sizes[side, i])
            for own in range(state["own_count"] if state["late"] == 0 else 0):
                if resting[own]["price"] == depth_prices[side, i]:  # a price has orders of one side only
                    lots -= resting[own]["size"]
            if lots > 0 and level < LEVELS:
                prices[side, level] = depth_prices[side, i]
                sizes[side, level] = lots
                level += 1
        for i in range(level, LEVELS):
            prices[side, i] = 0
            sizes[side, i] = 0
    return sizes[0, 0] > 0 and sizes[1, 0] > 0


@njit(**ROW)
def look(state, resting, depth_prices, depth_sizes, prices, sizes):
    """Refreshes all that is known of the book: free depth, mid, spread, last levels; the old mid is remembered."""
    state["previous_mid2"] = state["decision_mid2"]
    if _free_book(state, resting, depth_prices, depth_sizes, prices, sizes):
        state["decision_mid2"] = prices[0, 0] + prices[1, 0]
        state["spread"] = max(prices[1, 0] - prices[0, 0], np.int64(1))
    for level in range(LEVELS):
        if sizes[0, level] > 0:
            state["last_bid"] = prices[0, level]
        if sizes[1, level] > 0:
            state["last_ask"] = prices[1, level]


@njit(**ROW)
def unfilled_price(state, side):
    """What a lot costs (ticks) that the book could not fill: one spread beyond all that was seen of it."""
    last_level = state["last_ask"] if side > 0 else state["last_bid"]
    worst = (state["decision_mid2"] + 1) // 2 if side > 0 else state["decision_mid2"] // 2
    if last_level > 0 and side * last_level > side * worst:
        worst = last_level
    if state["worst_fill"] > 0 and side * state["worst_fill"] > side * worst:
        worst = state["worst_fill"]
    return worst + side * state["spread"]


@njit(**ROW)
def remember_move(state):
    """Lets the slow average of the mid's squared moves learn the last one, and the sum of mids the new one."""
    moved = 0.5 * float(state["decision_mid2"] - state["previous_mid2"])
    state["variance"] += (moved * moved - state["variance"]) / SLOW
    state["mid2_sum"] += state["decision_mid2"]


@njit(**ROW)
def _read_past(state, records, record_count):
    """Fills the slow averages from the tape that the start state brought along."""
    capacity = records.shape[0]
    interval = max(np.int64(state["pace"] + 0.5), np.int64(1))
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


@njit(**ROW)
def _begin_row(
    book_memory, without, state, resting, records, record_count, fill_count, depth_prices, depth_sizes, prices, sizes,
    mid2, clock_ns, m,
):  # fmt: skip
    read_depth_row(book_memory, m, without, depth_prices, depth_sizes)
    row = state[m]
    row["decision_mid2"] = mid2[m]
    row["start_ns"] = clock_ns[m]
    row["records"] = record_count[m]
    row["fills"] = fill_count[m]
    look(row, resting[m], depth_prices[m], depth_sizes[m], prices[m], sizes[m])
    row["arrival_mid2"] = row["decision_mid2"]
    row["previous_mid2"] = row["decision_mid2"]
    _read_past(row, records[m], record_count[m])


@njit(**SERIAL)
def begin_episode(
    book_memory, without, state, resting, records, record_count, fill_count, depth_prices, depth_sizes, prices, sizes,
    rows, mid2, clock_ns,
):  # fmt: skip
    """Takes the first look at the rows' start states; what a role fixes, and the variance, is set already.

    Args:
        book_memory: the books' block.
        without: whose orders are overlooked, see ``market.views``.
        state: (N,) with SEAT_FIELDS.
        resting: (N, .) RESTING.
        records: (N, R) RECORD, ring.
        record_count: (N,) int64.
        fill_count: (N,) int64.
        depth_prices: (N, 2, LEVELS + 1) int64, scratch.
        depth_sizes: (N, 2, LEVELS + 1) int64, scratch.
        prices: (N, 2, LEVELS) int64, written.
        sizes: (N, 2, LEVELS) int64, written.
        rows: (k,) int64, the rows that begin.
        mid2: (N,) int64 last known doubled mid.
        clock_ns: (N,) int64.

    Returns:
        The first row without a mid, or -1.
    """
    wrong = np.int64(-1)
    for i in range(rows.shape[0]):
        m = rows[i]
        _begin_row(
            book_memory, without, state, resting, records, record_count, fill_count, depth_prices, depth_sizes, prices,
            sizes, mid2, clock_ns, m,
        )  # fmt: skip
        if wrong < 0 and state[m]["arrival_mid2"] <= 0:
            wrong = m
    return wrong


@njit(**ROW)
def follow_row(state, resting, records, record_count, fills, fill_count, seat):
    """Reads the tape of an interval so far into what the seat sums up over it."""
    flow, bought, sold = read_tape(state, resting, records, record_count, fills, fill_count, seat)
    state["flow"] += flow
    state["bought"] += bought
    state["sold"] += sold


@njit(cache=True, nogil=True, parallel=True)
def follow_tape(state, resting, records, record_count, fills, fill_count, rows, seat):
    """``follow_row`` in the rows (N,) bool; the other arguments as in ``begin_episode``."""
    for m in prange(state.shape[0]):
        if rows[m]:
            follow_row(state[m], resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)


OVERRUNS = ("", "fills", "records")  # what has overrun the tape


@njit(**ROW)
def overran_row(row, record_count, fill_count, records, fills):
    """Which ring, of so many ``records`` and ``fills``, was written past what a seat has read in its row; 0: none."""
    if fill_count - row["fills"] > fills:
        return 1
    return 2 if record_count - row["records"] > records else 0


@njit(**SERIAL)
def overran(state, record_count, fill_count, records, fills, rows):
    """The same of the first of the rows in which it was."""
    for m in range(state.shape[0]):
        if rows[m]:
            ring = overran_row(state[m], record_count[m], fill_count[m], records, fills)
            if ring > 0:
                return ring
    return 0


@njit(**ROW)
def open_row(state):
    """Begins to sum up an interval."""
    state["worst_fill"], state["flow"], state["bought"], state["sold"] = 0, 0.0, 0, 0


@njit(**ROW)
def learn_flow(state):
    """Lets the slow average of what others took learn the last interval."""
    state["slow_flow"] += (state["flow"] - state["slow_flow"]) / SLOW


@njit(cache=True, nogil=True, parallel=True)
def catch_up(
    state, resting, records, record_count, fills, fill_count, accounts, depth_prices, depth_sizes, prices, sizes, rows,
    seat,
):  # fmt: skip
    """Ends an interval for a seat whose news are late: what it knows follows its view of the market.

    Args are those of a ledger's ``settle_interval``, all of the view; money is booked elsewhere, from the market.
    """
    for m in prange(state.shape[0]):
        if rows[m]:
            row, account = state[m], accounts[m, seat]
            _, bought, sold = read_tape(row, resting[m], records[m], record_count[m], fills[m], fill_count[m], seat)
            row["bought"] += bought
            row["sold"] += sold
            learn_flow(row)
            look(row, resting[m], depth_prices[m], depth_sizes[m], prices[m], sizes[m])
            remember_move(row)
            row["cash"], row["inventory"], row["fees"] = account["cash"], account["inventory"], account["fees"]
            row["decision"] += 1


@njit(cache=True, nogil=True)
def oldest_orders(state, resting, out):
    """Ids of the oldest own bid and ask to ``out`` (N, 2) int64, -1 where there is none.

    Args:
        state: (N,) with SEAT_FIELDS.
        resting: (N, .) RESTING, oldest first.
        out: written.
    """
    for m in range(state.shape[0]):
        out[m, :] = -1
        for i in range(state[m]["own_count"] - 1, -1, -1):
            out[m, 0 if resting[m, i]["side"] > 0 else 1] = resting[m, i]["order_id"]
