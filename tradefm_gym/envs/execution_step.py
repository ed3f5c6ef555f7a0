"""A whole decision of the execution role in one visit to each row, for sessions in which it sits alone and in time.

``RoleSteps`` says how it is called; it comes twice, as the loops of ``market.kernels`` do.
"""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.execution_ledger import settle_row_of
from tradefm_gym.envs.execution_orders import close_row_of, open_row_of
from tradefm_gym.envs.observation import clip, fill_row
from tradefm_gym.envs.seat import overran_row
from tradefm_gym.envs.stages import CLOSING, DONE, LOOKING, OPENING, PASSING
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
def _decide_row(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out, m,
):  # fmt: skip
    ledger = open_ledger(ledger_memory)
    clocks, rules, account = ledger.clocks, ledger.rules, ledger.accounts[m, seat]
    records, fills, row, own = ledger.records[m], ledger.fills[m], state[m], resting[m]
    ends[m] = ENDED
    if stage[m] <= CLOSING:
        orders = events[m]
        if stage[m] <= PASSING:
            count[m] = 0
            if stage[m] == OPENING:
                until[m] = clocks[m, COUNT] + interval
                count[m] = open_row_of(row, own, prices[m], sizes[m], actions[m], clocks[m, CLOCK], seat, orders)
                stage[m] = PASSING
            ends[m] = depart(
                book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count[m], until[m], m
            )
            if ends[m] != ENDED:
                return
            record_count, fill_count = clocks[m, RECORDS], clocks[m, FILLS]
            if overran_row(row, record_count, fill_count, records.shape[0], fills.shape[0]):
                ends[m] = OVERRUN
                return
            count[m] = close_row_of(row, own, records, record_count, fills, fill_count, clocks[m, CLOCK], seat, orders)
            stage[m] = CLOSING
        else:
            count[m] = 0
        ends[m] = depart(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, events, count[m], clocks[m, COUNT], m
        )
        if ends[m] != ENDED:
            return
        read_depth_row(book_memory, m, NOBODY, depth_prices, depth_sizes)
        reward[m], terminated[m] = settle_row_of(
            row, own, records, clocks[m, RECORDS], fills, clocks[m, FILLS], account, depth_prices[m], depth_sizes[m],
            prices[m], sizes[m], seat, rules[0, TAKER_FEE], rules[0, TAKER_RATE], terms[m],
        )  # fmt: skip
        stage[m] = LOOKING
    if stage[m] == LOOKING:
        ahead = np.int64(0)
        if row["resting"] > 0:
            ahead = max(queue_ahead_row(book_memory, m, seat, own[0]["order_id"]), np.int64(0))
        fill_row(row, scale[m], prices[m], sizes[m], clocks[m, CLOCK], own[0]["price"], ahead, out[m])
        clip(low, high, out[m])
        stage[m] = DONE


@njit(**SERIAL)
def decide(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out,
):  # fmt: skip
    """Takes the decision of each row as far as it goes: opens the interval, lets it pass, closes, books and looks.

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
        prices: (N, 2, LEVELS) int64 ticks, bids then asks, without own orders; read and written.
        sizes: (N, 2, LEVELS) int64 lots.
        scale: (N,) SCALE.
        low: (obs,) float32, the least values of an observation.
        high: (obs,) float32.
        actions: (N, act) float32, in [-1, 1] where a row is OPENING.
        stage: (N,) int64, where rows stand (``stages``); read and written.
        until: (N,) int64, background events by the end of the interval; written where a row is OPENING, else read.
        ends: (N,) int64, written: ENDED; STARVED, where the flow is to propose more; CRAMPED, where the book is to be
            widened, and then a further call must follow; REFUSED + a fault; or OVERRUN.
        events: (N, K) EVENT, scratch, and what was refused.
        count: (N,) int32, likewise.
        depth_prices: (N, 2, LEVELS + 1) int64, scratch.
        depth_sizes: (N, 2, LEVELS + 1) int64, scratch.
        terms: (N, k) int64, written, 1/1000 tick-lots.
        reward: (N,) float64, written.
        terminated: (N,) bool, written.
        out: (N, obs) float32, written.

    Returns:
        The largest of ``ends``, which is 0 where all is done.
    """
    for m in range(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _decide_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes,
            terms, reward, terminated, out, m,
        )  # fmt: skip
    return worst(ends)


@njit(**PARALLEL)
def decide_parallel(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out,
):  # fmt: skip
    """As :func:`decide`, over the threads."""
    for m in prange(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _decide_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes,
            terms, reward, terminated, out, m,
        )  # fmt: skip
    return worst(ends)
