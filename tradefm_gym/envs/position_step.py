"""A whole decision of roles that hold a position in one visit to each row; see ``execution_step``."""

import numpy as np
from numba import njit, prange

from tradefm_gym.envs.observation import clip
from tradefm_gym.envs.position_ledger import settle_row_of
from tradefm_gym.envs.position_observation import fill_row
from tradefm_gym.envs.position_orders import close_row_of, quote_row_of, target_row_of
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
def _ahead(book_memory, m, seat, state, resting, side):
    """Lots ahead of the oldest own order of a side, 0 without one."""
    for i in range(state["own_count"]):
        if resting[i]["side"] == side:
            return max(queue_ahead_row(book_memory, m, seat, resting[i]["order_id"]), np.int64(0))
    return np.int64(0)


@njit(**ROW)
def _decide_row(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out, penalty, quadratic, quoting, m,
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
                until[m], now = clocks[m, COUNT] + interval, clocks[m, CLOCK]
                if quoting:
                    count[m] = quote_row_of(row, own, prices[m], sizes[m], actions[m], now, seat, orders)
                else:
                    count[m] = target_row_of(row, own, prices[m], sizes[m], actions[m], now, seat, orders)
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
            count[m] = close_row_of(
                row, own, records, record_count, fills, fill_count, account, clocks[m, CLOCK], seat, orders
            )
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
            prices[m], sizes[m], seat, rules[0, TAKER_FEE], rules[0, TAKER_RATE], penalty, quadratic, terms[m],
        )  # fmt: skip
        stage[m] = LOOKING
    if stage[m] == LOOKING:
        ahead = (_ahead(book_memory, m, seat, row, own, 1), _ahead(book_memory, m, seat, row, own, -1))
        fill_row(row, own, scale[m], prices[m], sizes[m], clocks[m, CLOCK], ahead, out[m])
        clip(low, high, out[m])
        stage[m] = DONE


@njit(**SERIAL)
def decide(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out, penalty, quadratic, quoting,
):  # fmt: skip
    """As ``execution_step.decide``, with three arguments more.

    ``penalty`` and ``quadratic``: see ``position_ledger.settle_interval``. ``quoting``: actions are quotes, see
    ``position_orders.open_quotes``, or else targets, see ``open_target`` there.
    """
    for m in range(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _decide_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes,
            terms, reward, terminated, out, penalty, quadratic, quoting, m,
        )  # fmt: skip
    return worst(ends)


@njit(**PARALLEL)
def decide_parallel(
    book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting, prices,
    sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes, terms, reward,
    terminated, out, penalty, quadratic, quoting,
):  # fmt: skip
    """As :func:`decide`, over the threads."""
    for m in prange(state.shape[0]):
        ask_for(book_memory, ledger_memory, flow_queue, m + 1)
        _decide_row(
            book_memory, ledger_memory, flow_queue, agent_queue, names, agent_ids, seat, interval, state, resting,
            prices, sizes, scale, low, high, actions, stage, until, ends, events, count, depth_prices, depth_sizes,
            terms, reward, terminated, out, penalty, quadratic, quoting, m,
        )  # fmt: skip
    return worst(ends)
