"""The kernels of the TradeFM flow: records to inputs, and tokens to proposals."""

import math

import numpy as np
from numba import njit

from tradefm_gym.flow.cancels import order_to_cancel
from tradefm_gym.flow.followers import add_pressure, followers
from tradefm_gym.flow.placement import density, place, place_by_touch, usual_touch
from tradefm_gym.market.events import BACKGROUND, BUY, CANCEL, LIMIT, NO_LIMIT, SELL
from tradefm_gym.market.features import (
    MID_TOUCH,
    OPPOSITE_TOUCH,
    OWN_TOUCH,
    mid_estimate,
    observe_record,
    price_at,
    prices_of,
)
from tradefm_gym.market.layout import NEXT_ID
from tradefm_gym.model.tokenizer import decode_values, encode_features
from tradefm_gym.rng import DECODE, SAMPLE, bits

_LARGEST_SIZE = 1 << 24
_MOST_MOVED = 0.9  # of a side's takers at most become the other's


@njit(cache=True, nogil=True)
def read_tape(
    records,
    record_count,
    cursor,
    wanted,
    states,
    agents,
    scratch,
    edges,
    flag_agents,
    queue,
    queued,
):
    """Turns the records of wanted rows that are not read yet into inputs, as many as the queue (N, K, 4) takes.

    ``agents`` (N, AGENT_PRESSURE) float64 are the sums of ``followers``.
    """
    for m in range(wanted.shape[0]):
        if wanted[m]:
            ring = records.shape[1]
            while cursor[m] < record_count[m] and queued[m] < queue.shape[1]:
                record = records[m, cursor[m] % ring]
                cursor[m] += 1
                if observe_record(states[m], record, scratch[m, 0]) and scratch[m, 0]["valid"] == 1:
                    pressure = 0.0
                    if not flag_agents:
                        scratch[m, 0]["flag"] = 0
                    elif scratch[m, 0]["flag"] == 1 and scratch[m, 0]["taker"] == 1:
                        pressure = record["side"] * math.log2(1.0 + record["filled"] / states[m]["median_size"])
                    add_pressure(agents[m], pressure)
                    encode_features(scratch[m, 0], edges, queue[m, queued[m]])
                    queued[m] += 1


@njit(cache=True, nogil=True)
def draw(seeds, episodes, proposals, wanted, out):
    """Random words (N, 5) for the sampling of wanted rows, by seed, episode and number of the proposal."""
    for m in range(wanted.shape[0]):
        if wanted[m]:
            a, b, c, d = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m]), SAMPLE)
            e, _, _, _ = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m] + 1), SAMPLE)
            out[m, 0], out[m, 1], out[m, 2], out[m, 3], out[m, 4] = a, b, c, d, e


@njit(cache=True, nogil=True)
def tilt_kinds(book, states, agents, placement, wanted, persistence, following, restoring, kinds, tilt, strength):
    """Moves probability to takers of the side of the order-flow pressure and to cancels on dense sides.

    See ``model.closed_loop``.

    Args:
        book: BookState.
        states: (N,) FEATURE_STATE.
        agents: (N, AGENT_PRESSURE) float64, the agents' pressure.
        placement: (N, PLACEMENT_WIDTH) float64, how often adds of each depth bin cross.
        wanted: (N,) bool.
        persistence: (2,) float64, what a unit of fast and of slow pressure moves.
        following: (N, 2) float64, how many times likelier a unit of the agents' fast and slow pressure makes takers.
        restoring: log-odds of cancels for each unit of the logarithm of a side's density over the usual one.
        kinds: (N or more, 64) float32, log-probabilities by the network.
        tilt: (N or more, 64) float32, written: what is to be added to them.
        strength: (N, 2) float64, written: factor of the odds that a buy and a sell order crosses.
    """
    buys, sells = np.empty(16, np.float64), np.empty(16, np.float64)
    for m in range(wanted.shape[0]):
        if not wanted[m]:
            continue
        buy, sell = 0.0, 0.0
        for bin_ in range(16):
            if states[m]["mid_mode"] == MID_TOUCH:
                buys[bin_] = sells[bin_] = 1.0 if bin_ <= OPPOSITE_TOUCH else 0.0
            else:
                buys[bin_], sells[bin_] = _cross_share(placement, m, bin_), _cross_share(placement, m, 15 - bin_)
            buy += math.exp(kinds[m, bin_]) * buys[bin_]
            sell += math.exp(kinds[m, 16 + bin_]) * sells[bin_]
        moved = persistence[0] * states[m]["fast"] + persistence[1] * states[m]["slow"]
        moved = min(max(moved, -_MOST_MOVED * buy), _MOST_MOVED * sell)
        followed = followers(agents[m], following[m])
        strength[m, 0] = (buy + moved) / buy + max(followed, 0.0) if buy > 0.0 else 1.0
        strength[m, 1] = (sell - moved) / sell + max(-followed, 0.0) if sell > 0.0 else 1.0
        for bin_ in range(16):
            tilt[m, bin_] = math.log(1.0 + buys[bin_] * (strength[m, 0] - 1.0))
            tilt[m, 16 + bin_] = math.log(1.0 + sells[bin_] * (strength[m, 1] - 1.0))
        for s in range(2):
            tilt[m, 32 + 16 * s : 48 + 16 * s] = restoring * density(book, m, s, placement[m])


@njit(cache=True, nogil=True)
def _cross_share(placement, m, bin_) -> float:
    """How often an add takes liquidity, by its depth bin as a buyer counts them; uncalibrated, if beyond the mid."""
    if placement[m, 0] < 0.0:
        return 1.0 if bin_ >= 8 else 0.0
    return placement[m, bin_]


@njit(cache=True, nogil=True)
def _round_price(exact, side):
    # To the nearest tick, ties away from the spread.
    price = np.ceil(exact - 0.5) if side == BUY else np.floor(exact + 0.5)
    return min(max(price, 1.0), 2.0**30)


@njit(cache=True, nogil=True)
def propose(
    tokens,
    wanted,
    states,
    placement,
    seeds,
    episodes,
    proposals,
    clock_ns,
    book,
    depth_table,
    volume_table,
    time_table,
    depth_edges,
    volume_edges,
    strength,
    cancel_policy,
    match_cancels,
    book_decides,
    deterministic,
    events,
    count,
):
    """Decodes tokens (N,) into proposals (N, 1) EVENT, one for each wanted row."""
    uniforms = np.empty(5, np.float64)
    for m in range(wanted.shape[0]):
        if not wanted[m]:
            continue
        uniforms[:] = 0.5
        if not deterministic:
            a, b, c, d = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m]), DECODE)
            e, _, _, _ = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m] + 1), DECODE)
            uniforms[0], uniforms[1], uniforms[2] = a / 2.0**32, b / 2.0**32, c / 2.0**32
            uniforms[3], uniforms[4] = d / 2.0**32, e / 2.0**32
        proposals[m] += 1
        token = tokens[m]
        depth, size, seconds = decode_values(token, uniforms, depth_table, volume_table, time_table)
        state = states[m]
        side = BUY if (token >> 12) & 1 == 0 else SELL
        event = events[m, 0]
        event["owner"] = BACKGROUND
        event["side"] = side
        lots = np.int64(min(max(np.floor(size * state["median_size"] + 0.5), 1.0), _LARGEST_SIZE))
        max_rest = NO_LIMIT
        bin_ = (token >> 8) & 15
        if state["mid_mode"] == MID_TOUCH:
            bid, ask = usual_touch(book, m, state)
            bottom, top = prices_of(bin_, side, bid, ask)
            price = np.int64(min(max(price_at(depth, side, bid, ask), 1.0), 2.0**30))
            if book_decides and token >> 13 == 0:
                price, lots, max_rest = place_by_touch(
                    book, m, side, bin_, bottom, top, price, lots, placement[m], state["median_size"], uniforms[3],
                    uniforms[4],
                )  # fmt: skip
        else:
            mid = mid_estimate(state)
            price = np.int64(_round_price(mid * (1.0 + 1e-4 * depth), side))
            low = mid * (1.0 + 1e-4 * depth_edges[bin_ - 1]) if bin_ > 0 else 0.0
            high = mid * (1.0 + 1e-4 * depth_edges[bin_]) if bin_ < 15 else 2.0**30
            bottom, top = np.ceil(low), np.ceil(high) - 1.0
            if book_decides and token >> 13 == 0:
                crossing = strength[m, (1 - side) >> 1]
                price, max_rest = place(
                    book, m, side, bin_, low, high, price, lots, placement[m], crossing, uniforms[3], uniforms[4]
                )
        event["price"] = price
        event["size"] = np.int32(lots)
        event["max_rest"] = np.int32(max_rest)
        # Inter-arrivals count from the previous background event; an agent in between does not delay it.
        event["time_ns"] = max(state["background_ns"] + np.int64(seconds * 1e9), clock_ns[m])
        if token >> 13 == 1:
            event["kind"] = CANCEL
            event["order_id"] = cancel_policy
            if match_cancels:
                volume = (token >> 4) & 15
                least = np.expm1(volume_edges[volume - 1]) * state["median_size"] if volume > 0 else 1.0
                most = np.expm1(volume_edges[volume]) * state["median_size"] if volume < 15 else 2.0**40
                least_lots, most_lots = np.int64(np.ceil(least)), np.int64(np.ceil(most)) - 1
                s = 0 if side == BUY else 1
                slot = order_to_cancel(book, m, s, np.int64(bottom), np.int64(top), least_lots, most_lots, uniforms[3])
                if slot < 0 and state["mid_mode"] == MID_TOUCH and bin_ > OWN_TOUCH:
                    # Some other order behind the touch: the touch is what a wrong guess would change most.
                    best = np.int64(bid if side == BUY else ask)
                    first, last = (np.int64(1), best - 1) if side == BUY else (best + 1, np.int64(2**30))
                    slot = order_to_cancel(book, m, s, first, last, least_lots, most_lots, uniforms[3])
                if slot >= 0:
                    event["order_id"], event["size"] = book.orders[m, slot]["order_id"], 0
                elif density(book, m, s, placement[m]) < 0.0:
                    event["order_id"] = book.row[m, NEXT_ID]  # nobody's yet: a no-op
        else:
            event["kind"] = LIMIT
            event["order_id"] = -1  # the market numbers it
        count[m] = 1
