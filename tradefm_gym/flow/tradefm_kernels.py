"""The kernels of the TradeFM flow: records to inputs, and tokens to proposals.

Each loop over markets comes twice, in the calling thread and over all, as in ``market.kernels``; a row touches its own
row only.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from tradefm_gym.flow.cancels import leaves_a_hole, order_to_cancel
from tradefm_gym.flow.followers import add_pressure
from tradefm_gym.flow.leading import led, remember_lead
from tradefm_gym.flow.placement import SPAN, density, place, place_by_touch, touch_lots, usual_touch
from tradefm_gym.flow.tilting import correct_row
from tradefm_gym.market.compiler import KERNEL, PARALLEL, ROW, SERIAL
from tradefm_gym.market.events import BACKGROUND, BUY, CANCEL, LIMIT, NO_LIMIT, SELL
from tradefm_gym.market.features import (
    MID_TOUCH,
    OWN_TOUCH,
    mid_estimate,
    observe_record,
    price_at,
    prices_of,
)
from tradefm_gym.market.layout import NEXT_ID
from tradefm_gym.model.numba_sampling import draw_row
from tradefm_gym.model.tokenizer import decode_values, encode_features
from tradefm_gym.rng import DECODE, REFILL, SAMPLE, bits

_LARGEST_SIZE = 1 << 24
_NEVER = 2.0**62  # lots
_MOST = 8.0  # times slower or faster than usual that a pace of late makes a market


class Decoding(NamedTuple):
    """How tokens become proposals: what lies inside the tokenizer's bins, and what a flow was told."""

    tables: np.ndarray  # (N, 4, 16, quantiles) float64, of each row's asset
    others_lead: bool  # agents' orders count as a touch once they add up to what a level usually holds
    lasting: np.ndarray  # (N,) float64, likewise: exponent of the pace that waits keep, see ``habits``
    trimmed: np.ndarray  # (N,) float64, likewise: share of the takers beyond the touch that take just the touch
    depth_edges: np.ndarray  # (15,) float64
    volume_edges: np.ndarray  # (15,) float64
    cancel_policy: int  # CANCEL_WHOLE or CANCEL_NEAREST
    match_cancels: bool
    book_decides: bool
    deterministic: bool


@njit(**ROW)
def woven(i, n):
    """The i-th of n rows as loops over threads take them: of both halves in turn.

    A thread gets consecutive turns. Where only one half of the rows is wanted (see ``halves``), half of the threads
    would otherwise have nothing to do.
    """
    return i // 2 + (i % 2) * ((n + 1) // 2)


# --- Records to inputs ---------------------------------------------------------------------------------


@njit(**SERIAL)
def read_tape(
    records, record_count, cursor, wanted, states, agents, scratch, edges, flag_agents, queue, queued, history, seen
):
    """Turns the records of wanted rows that are not read yet into inputs, as many as the queue (N, K, 4) takes.

    ``agents`` (N, AGENT_MEMORY) float64 is what is remembered of agents: the sums of ``followers``, and ``leading``.
    ``queued`` (N,) is how many inputs there are. They go into the ring ``history`` (N, H, 4) too, of which ``seen``
    (N,) counts all that ever came.
    """
    for m in range(wanted.shape[0]):
        _read_row(
            records, record_count, cursor, wanted, states, agents, scratch, edges, flag_agents, queue, queued, history,
            seen, m,
        )  # fmt: skip


@njit(**PARALLEL)
def read_tape_parallel(
    records, record_count, cursor, wanted, states, agents, scratch, edges, flag_agents, queue, queued, history, seen
):
    """As :func:`read_tape`, over the threads."""
    for i in prange(wanted.shape[0]):
        m = woven(i, wanted.shape[0])
        _read_row(
            records, record_count, cursor, wanted, states, agents, scratch, edges, flag_agents, queue, queued, history,
            seen, m,
        )  # fmt: skip


@njit(**KERNEL)
def _read_row(
    records, record_count, cursor, wanted, states, agents, scratch, edges, flag_agents, queue, queued, history, seen, m
):
    queued[m] = 0
    if not wanted[m]:
        return
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
            place, at = queued[m], seen[m] % history.shape[1]
            encode_features(scratch[m, 0], edges, queue[m, place])
            for column in range(4):
                history[m, at, column] = queue[m, place, column]
            queued[m] += 1
            seen[m] += 1


@njit(**SERIAL)
def recall(history, rows, ends, out):
    """The last inputs of ``rows`` (k,) before number ``ends`` (k,), from the ring, to ``out`` (k, S, 4)."""
    for i in range(rows.shape[0]):
        _recall_row(history, rows, ends, out, i)


@njit(**PARALLEL)
def recall_parallel(history, rows, ends, out):
    """As :func:`recall`, over the threads."""
    for i in prange(rows.shape[0]):
        _recall_row(history, rows, ends, out, i)


@njit(**KERNEL)
def _recall_row(history, rows, ends, out, i):
    count, ring = out.shape[1], history.shape[1]
    for j in range(count):
        at = (ends[i] - count + j) % ring
        for column in range(4):
            out[i, j, column] = history[rows[i], at, column]


# --- Appending ----------------------------------------------------------------------------------------


@njit(**SERIAL)
def plan_appends(queue, queued, lengths, seen, context, first, counts, ends):
    """Divides what is queued for each row into a refill, if it gets full, and what is appended after it.

    A row that is full is filled again from its last T/2 inputs, the one that found it full included. If a row gets
    full more than once, the last time counts: a refill leaves nothing of what was there.

    Args:
        queue: (N, K, 4) int32; what is to be appended moves to the front.
        queued: (N,) int64.
        lengths: (N or more,) int32, inputs in the row's cache.
        seen: (N,) int64, how many ever came, the queued ones included.
        context: T.
        first: (N,) int64, the length at which a row counts as full until it is filled again for the first time.
        counts: (N,) int64, written: how many are to be appended, after the refill.
        ends: (N,) int64, written: the number of the input that a refill ends with, 0 for none.
    """
    half = context // 2
    for m in range(queued.size):
        full = first[m] if lengths[m] + queued[m] == seen[m] else context
        room = full - lengths[m]
        counts[m], ends[m] = queued[m], 0
        if queued[m] > room:
            counts[m] = (queued[m] - room - 1) % (context - half + 1)
            ends[m] = seen[m] - counts[m]
            for j in range(counts[m]):
                for column in range(4):
                    queue[m, j, column] = queue[m, queued[m] - counts[m] + j, column]


@njit(**SERIAL)
def first_refills(seeds, episodes, rows, context, out):
    """Spreads the lengths (N,) at which ``rows`` (k,) are first filled again over those from T/2 + 1 to T.

    By each row's own seed and episode, so it stays apart from its neighbours without depending on them.
    """
    for m in rows:
        word, _, _, _ = bits(seeds[m], episodes[m], np.uint64(0), REFILL)
        out[m] = context - ((np.int64(word) * (context - context // 2)) >> 32)


@njit(**SERIAL)
def list_reads(wanted, history, seen, counts, ends, lengths, context, rows, begins, sizes, events):
    """What wanted rows are to read, as ``NumbaEngine.read`` takes it: rows that are filled again come first.

    Args:
        wanted: (N,) bool.
        history: (N, H, 4) int32, the ring of the last inputs.
        seen: (N,) int64, how many ever came.
        counts: (N,) int64 of ``plan_appends``.
        ends: (N,) int64, likewise.
        lengths: (N or more,) int32, inputs in the row's cache.
        context: T.
        rows: (N,) int64, written: the wanted ones.
        begins: (N,) int64, written: 0 for one that is filled again, else its length.
        sizes: (N,) int64, written: how many inputs it reads.
        events: (N T, 4) int32, written: those inputs, one row's after the other's.

    Returns:
        How many rows there are.
    """
    listed, total = 0, 0
    for again in (True, False):
        for m in range(wanted.size):
            if wanted[m] and (ends[m] > 0) == again:
                rows[listed], begins[listed], sizes[listed] = m, lengths[m], counts[m]
                if again:
                    begins[listed], sizes[listed] = 0, counts[m] + context // 2
                for j in range(sizes[listed]):
                    at = (seen[m] - sizes[listed] + j) % history.shape[1]
                    for column in range(4):
                        events[total + j, column] = history[m, at, column]
                total += sizes[listed]
                listed += 1
    return listed


# --- Before a draw ------------------------------------------------------------------------------------


@njit(**SERIAL)
def prepare(seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves):
    """For wanted rows: random words (N, 5) by seed, episode and number of the proposal, and what is to be corrected.

    ``dense`` (N, 2) float64 is written: the density of both sides (see ``placement``). ``moves`` is what an engine
    takes; other arguments as in ``tilting.correct_row``.
    """
    for m in range(wanted.shape[0]):
        _prepare_row(
            seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves, m
        )


@njit(**PARALLEL)
def prepare_parallel(
    seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves
):
    """As :func:`prepare`, over the threads."""
    for i in prange(wanted.shape[0]):
        m = woven(i, wanted.shape[0])
        _prepare_row(
            seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves, m
        )


@njit(**KERNEL)
def _prepare_row(
    seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves, m
):
    if wanted[m]:
        a, b, c, d = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m]), SAMPLE)
        e, _, _, _ = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m] + 1), SAMPLE)
        words[m, 0], words[m, 1], words[m, 2], words[m, 3], words[m, 4] = a, b, c, d, e
        for s in range(2):
            dense[m, s] = density(book, m, s, placement[m])
        met = 0.0
        if corrections.meeting[m] > 0.0:
            remember_lead(book, m, agents[m], proposals[m] + 1)
            met = corrections.meeting[m] * led(agents[m], states[m]["usual_spread"])
        correct_row(corrections, dense, states, agents, placement, met, m, moves)


# --- Tokens to proposals ------------------------------------------------------------------------------


@njit(cache=True, nogil=True)
def _round_price(exact, side):
    # To the nearest tick, ties away from the spread.
    price = np.ceil(exact - 0.5) if side == BUY else np.floor(exact + 0.5)
    return min(max(price, 1.0), 2.0**30)


@njit(**SERIAL)
def propose(
    tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
    events, count, uniforms, kept,
):  # fmt: skip
    """Decodes tokens (N,) into proposals (N, 1) EVENT, one for each wanted row.

    ``uniforms`` (N, 5) float64 and ``kept`` (N, 2, YOUNGEST) int64 are room to work.
    """
    for m in range(wanted.shape[0]):
        _propose_row(
            tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
            events, count, uniforms, kept, m,
        )  # fmt: skip


@njit(**PARALLEL)
def propose_parallel(
    tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
    events, count, uniforms, kept,
):  # fmt: skip
    """As :func:`propose`, over the threads."""
    for i in prange(wanted.shape[0]):
        m = woven(i, wanted.shape[0])
        _propose_row(
            tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
            events, count, uniforms, kept, m,
        )  # fmt: skip


@njit(**KERNEL)
def _propose_row(
    tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
    events, count, uniforms, kept, m,
):  # fmt: skip
    if not wanted[m]:
        return
    for i in range(5):
        uniforms[m, i] = 0.5
    if not decoding.deterministic:
        a, b, c, d = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m]), DECODE)
        e, _, _, _ = bits(seeds[m], episodes[m], np.uint64(2 * proposals[m] + 1), DECODE)
        uniforms[m, 0], uniforms[m, 1], uniforms[m, 2] = a / 2.0**32, b / 2.0**32, c / 2.0**32
        uniforms[m, 3], uniforms[m, 4] = d / 2.0**32, e / 2.0**32
    proposals[m] += 1
    token = tokens[m]
    depth, size, seconds = decode_values(token, uniforms[m], decoding.tables[m])
    state = states[m]
    if decoding.lasting[m] > 0.0 and state["long_wait"] > 0.0:
        seconds *= min(max((state["long_wait"] / state["usual_wait"]) ** decoding.lasting[m], 1.0 / _MOST), _MOST)
    side = BUY if (token >> 12) & 1 == 0 else SELL
    event = events[m, 0]
    event["owner"] = BACKGROUND
    event["side"] = side
    lots = np.int64(min(max(np.floor(size * state["median_size"] + 0.5), 1.0), _LARGEST_SIZE))
    max_rest = NO_LIMIT
    bin_ = (token >> 8) & 15
    if state["mid_mode"] == MID_TOUCH:
        least = touch_lots(state, placement[m]) if decoding.others_lead else _NEVER
        bid, ask = usual_touch(book, m, state, least)
        bottom, top = prices_of(bin_, side, bid, ask)
        price = np.int64(min(max(price_at(depth, side, bid, ask), 1.0), 2.0**30))
        if decoding.book_decides and token >> 13 == 0:
            price, lots, max_rest = place_by_touch(
                book, m, side, bin_, bottom, top, price, lots, placement[m], least, decoding.trimmed[m],
                uniforms[m, 3], uniforms[m, 4],
            )  # fmt: skip
    else:
        mid = mid_estimate(state)
        price = np.int64(_round_price(mid * (1.0 + 1e-4 * depth), side))
        low = mid * (1.0 + 1e-4 * decoding.depth_edges[bin_ - 1]) if bin_ > 0 else 0.0
        high = mid * (1.0 + 1e-4 * decoding.depth_edges[bin_]) if bin_ < 15 else 2.0**30
        bottom, top = np.ceil(low), np.ceil(high) - 1.0
        if decoding.book_decides and token >> 13 == 0:
            crossing = strength[m, (1 - side) >> 1]
            price, max_rest = place(
                book, m, side, bin_, low, high, price, lots, placement[m], crossing, uniforms[m, 3], uniforms[m, 4]
            )
    event["price"] = price
    event["size"] = np.int32(lots)
    event["max_rest"] = np.int32(max_rest)
    # Inter-arrivals count from the previous background event; an agent in between does not delay it.
    event["time_ns"] = max(state["background_ns"] + np.int64(seconds * 1e9), clock_ns[m])
    if token >> 13 == 1:
        event["kind"] = CANCEL
        event["order_id"] = decoding.cancel_policy
        if decoding.match_cancels:
            volume = (token >> 4) & 15
            least = np.expm1(decoding.volume_edges[volume - 1]) * state["median_size"] if volume > 0 else 1.0
            most = np.expm1(decoding.volume_edges[volume]) * state["median_size"] if volume < 15 else 2.0**40
            least_lots, most_lots = np.int64(np.ceil(least)), np.int64(np.ceil(most)) - 1
            s = 0 if side == BUY else 1
            bottom, top = np.int64(bottom), np.int64(top)
            slot = order_to_cancel(book, m, s, bottom, top, least_lots, most_lots, uniforms[m, 3], kept[m])
            if slot < 0 and state["mid_mode"] == MID_TOUCH and bin_ > OWN_TOUCH:
                # Some other order behind the touch: the touch is what a wrong guess would change most.
                best = np.int64(bid if side == BUY else ask)
                first, last = (np.int64(1), best - 1) if side == BUY else (best + 1, np.int64(2**30))
                slot = order_to_cancel(book, m, s, first, last, least_lots, most_lots, uniforms[m, 3], kept[m])
            span = placement[m, SPAN]
            alone = slot >= 0 and state["mid_mode"] == MID_TOUCH and span > 0.0
            if alone and leaves_a_hole(book, m, s, slot, span):
                event["order_id"] = book.row[m, NEXT_ID]  # nobody's yet: a no-op
            elif slot >= 0:
                event["order_id"], event["size"] = book.orders[m, slot]["order_id"], 0
            elif dense[m, s] < 0.0:
                event["order_id"] = book.row[m, NEXT_ID]  # nobody's yet: a no-op
    else:
        event["kind"] = LIMIT
        event["order_id"] = -1  # the market numbers it
    count[m] = 1


@njit(**SERIAL)
def draw_rows(
    rows, wanted, draw, scale, is_moved, seeds, episodes, proposals, words, corrections, agents, moves, tokens, states,
    placement, clock_ns, book, dense, strength, decoding, events, count, uniforms, kept,
):  # fmt: skip
    """Prepares, draws and proposes for ``rows`` (k,) int64, one after the other while each lies in the caches.

    ``draw`` is the engine's, ``scale`` 1 / temperature, ``is_moved`` whether ``moves`` asks for anything; ``tokens``
    (N,) are written. Other arguments as in ``prepare`` and ``propose``.
    """
    for i in range(rows.size):
        m = rows[i]
        _prepare_row(
            seeds, episodes, proposals, wanted, words, book, corrections, dense, states, agents, placement, moves, m
        )
        tokens[m] = draw_row(draw, m, words, scale, is_moved, moves, strength)
        _propose_row(
            tokens, wanted, states, placement, seeds, episodes, proposals, clock_ns, book, dense, strength, decoding,
            events, count, uniforms, kept, m,
        )  # fmt: skip
