"""A whole decision of roles that hold a position in two loops over markets; see ``execution_step``."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import clip
from tradefm_gym.envs.position_ledger import settle_row_of
from tradefm_gym.envs.position_observation import fill_row
from tradefm_gym.envs.position_orders import close_row_of, quote_row_of, target_row_of
from tradefm_gym.envs.quoting import outside
from tradefm_gym.market.rows import (
    CLOCK,
    COUNT,
    ENDED,
    FILLS,
    NOBODY,
    OVERRUN,
    PARALLEL,
    RECORDS,
    ROW,
    SERIAL,
    TAKER_FEE,
    TAKER_RATE,
    ask_for,
    depart,
    open_ledger,
    queue_ahead_row,
    read_depth_row,
    worst,
)


@njit(**ROW)
def _open_quotes_row(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends, m,
):  # fmt: skip
    clocks = open_ledger(ledger_memory).clocks
    count[m], ends[m], until[m] = 0, ENDED, clocks[m, COUNT]
    if rows[m]:
        until[m] += interval
        now = clocks[m, CLOCK]
        count[m] = quote_row_of(state[m], resting[m], prices[m], sizes[m], actions[m], now, seat, events[m])
        ends[m] = depart(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count[m], until[m], m
        )


@njit(**SERIAL)
def open_quotes(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends,
):  # fmt: skip
    """Opens the interval in the rows and lets it pass as far as events are there.

    Args:
        book_memory: the books' block, as ``market.parts`` has it.
        ledger_memory: the ledgers' block.
        flow_queue: (N, Q) EVENT.
        agent_queue: (N, Q') EVENT.
        names: (N, 2) uint64, seed and episode.
        agent_ids: order ids of a seat.
        seat: the owner of the orders.
        interval: background events.
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots.
        actions: (N, act) float32, in [-1, 1] where ``rows``.
        rows: (N,) bool, rows that act.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
        until: (N,) int64, written: background events by the end of the interval.
        ends: (N,) int64, written: what ``rows.depart`` said, ENDED where nobody acts.

    Returns:
        The largest of ``ends``, which is 0 where all have ENDED; or minus the number of the first row, counted from 1,
        whose action is not in [-1, 1]: then nothing was done.
    """
    wrong = outside(actions, rows)
    if wrong < 0:
        return wrong
    for m in range(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _open_quotes_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, actions, rows, events, count, until, ends, m,
        )  # fmt: skip
    return worst(ends)


@njit(**PARALLEL)
def open_quotes_parallel(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends,
):  # fmt: skip
    """As :func:`open_quotes`, over the threads."""
    wrong = outside(actions, rows)
    if wrong < 0:
        return wrong
    for m in prange(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _open_quotes_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, actions, rows, events, count, until, ends, m,
        )  # fmt: skip
    return worst(ends)


@njit(**ROW)
def _open_target_row(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends, m,
):  # fmt: skip
    clocks = open_ledger(ledger_memory).clocks
    count[m], ends[m], until[m] = 0, ENDED, clocks[m, COUNT]
    if rows[m]:
        until[m] += interval
        now = clocks[m, CLOCK]
        count[m] = target_row_of(state[m], resting[m], prices[m], sizes[m], actions[m], now, seat, events[m])
        ends[m] = depart(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count[m], until[m], m
        )


@njit(**SERIAL)
def open_target(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends,
):  # fmt: skip
    """Opens the interval in the rows and lets it pass as far as events are there.

    Args:
        book_memory: the books' block, as ``market.parts`` has it.
        ledger_memory: the ledgers' block.
        flow_queue: (N, Q) EVENT.
        agent_queue: (N, Q') EVENT.
        names: (N, 2) uint64, seed and episode.
        agent_ids: order ids of a seat.
        seat: the owner of the orders.
        interval: background events.
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders.
        sizes: (N, 2, LEVELS) int64 lots.
        actions: (N, act) float32, in [-1, 1] where ``rows``.
        rows: (N,) bool, rows that act.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
        until: (N,) int64, written: background events by the end of the interval.
        ends: (N,) int64, written: what ``rows.depart`` said, ENDED where nobody acts.

    Returns:
        The largest of ``ends``, which is 0 where all have ENDED; or minus the number of the first row, counted from 1,
        whose action is not in [-1, 1]: then nothing was done.
    """
    wrong = outside(actions, rows)
    if wrong < 0:
        return wrong
    for m in range(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _open_target_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, actions, rows, events, count, until, ends, m,
        )  # fmt: skip
    return worst(ends)


@njit(**PARALLEL)
def open_target_parallel(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, actions, rows, events, count, until, ends,
):  # fmt: skip
    """As :func:`open_target`, over the threads."""
    wrong = outside(actions, rows)
    if wrong < 0:
        return wrong
    for m in prange(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _open_target_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, actions, rows, events, count, until, ends, m,
        )  # fmt: skip
    return worst(ends)


@njit(**ROW)
def _ahead(book_memory, m, seat, state, resting, side):
    """Lots ahead of the oldest own order of a side, 0 without one."""
    for i in range(state["own_count"]):
        if resting[i]["side"] == side:
            return max(queue_ahead_row(book_memory, m, seat, resting[i]["order_id"]), np.int64(0))
    return np.int64(0)


@njit(**ROW)
def _close_row(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, state, resting, prices, sizes, scale,
    low, high, rows, again, depth_prices, depth_sizes, events, count, ends, terms, reward, terminated,
    out, penalty, quadratic, m,
):  # fmt: skip
    ledger = open_ledger(ledger_memory)
    clocks, rules = ledger.clocks, ledger.rules
    count[m], ends[m] = 0, ENDED
    if rows[m]:
        row, own = state[m], resting[m]
        records, fills = ledger.records[m], ledger.fills[m]
        if not again:
            record_count, fill_count = clocks[m, RECORDS], clocks[m, FILLS]
            if record_count - row["records"] > records.shape[0] or fill_count - row["fills"] > fills.shape[0]:
                ends[m] = OVERRUN
                return
            count[m] = close_row_of(
                row,
                own,
                records,
                record_count,
                fills,
                fill_count,
                ledger.accounts[m, seat],
                clocks[m, CLOCK],
                seat,
                events[m],
            )
        ends[m] = depart(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count[m], clocks[m, COUNT], m
        )
        if ends[m] != ENDED:
            return
        read_depth_row(book_memory, m, NOBODY, depth_prices, depth_sizes)
        reward[m], terminated[m] = settle_row_of(
            row, own, records, clocks[m, RECORDS], fills, clocks[m, FILLS], ledger.accounts[m, seat], depth_prices[m],
            depth_sizes[m], prices[m], sizes[m], seat, rules[0, TAKER_FEE], rules[0, TAKER_RATE], penalty,
            quadratic, terms[m],
        )  # fmt: skip
    row, own = state[m], resting[m]
    ahead = (_ahead(book_memory, m, seat, row, own, 1), _ahead(book_memory, m, seat, row, own, -1))
    fill_row(row, own, scale[m], prices[m], sizes[m], clocks[m, CLOCK], ahead, out[m])
    clip(low, high, out[m])


@njit(**SERIAL)
def close(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, state, resting, prices, sizes, scale,
    low, high, rows, again, depth_prices, depth_sizes, events, count, ends, terms, reward, terminated,
    out, penalty, quadratic,
):  # fmt: skip
    """Closes the interval in the rows, books it, and looks at the book again.

    Args:
        book_memory: the books' block, as ``market.parts`` has it.
        ledger_memory: the ledgers' block.
        flow_queue: (N, Q) EVENT.
        agent_queue: (N, Q') EVENT.
        names: (N, 2) uint64, seed and episode.
        agent_ids: order ids of a seat.
        seat: the owner of the orders.
        state: (N,) STATE.
        resting: (N, .) RESTING, oldest first.
        prices: (N, 2, LEVELS) int64 ticks, written: the book without own orders.
        sizes: (N, 2, LEVELS) int64 lots, written.
        scale: (N,) SCALE.
        low: (obs,) float32, the least values of an observation.
        high: (obs,) float32.
        rows: (N,) bool, rows that acted; of the others only the observation is written.
        again: the closing orders were sent by an earlier call, after which the books had to be widened.
        depth_prices: (N, 2, LEVELS + 1) int64, scratch.
        depth_sizes: (N, 2, LEVELS + 1) int64, scratch.
        events: (N, K) EVENT, written.
        count: (N,) int32, written.
        ends: (N,) int64, written: ENDED; CRAMPED, where a second call must follow; REFUSED + a fault; or OVERRUN.
        terms: (N, k) int64, written, 1/1000 tick-lots.
        reward: (N,) float64, written.
        terminated: (N,) bool, written.
        out: (N, obs) float32, written.
        penalty: see ``position_ledger.settle_interval``.
        quadratic: likewise.

    Returns:
        The largest of ``ends``.
    """
    for m in range(state.shape[0]):
        _close_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, state, resting, prices, sizes,
            scale, low, high, rows, again, depth_prices, depth_sizes, events, count, ends, terms, reward, terminated,
            out, penalty, quadratic, m,
        )  # fmt: skip
    return worst(ends)


@njit(**PARALLEL)
def close_parallel(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, state, resting, prices, sizes, scale,
    low, high, rows, again, depth_prices, depth_sizes, events, count, ends, terms, reward, terminated,
    out, penalty, quadratic,
):  # fmt: skip
    """As :func:`close`, over the threads."""
    for m in prange(state.shape[0]):
        _close_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, state, resting, prices, sizes,
            scale, low, high, rows, again, depth_prices, depth_sizes, events, count, ends, terms, reward, terminated,
            out, penalty, quadratic, m,
        )  # fmt: skip
    return worst(ends)
