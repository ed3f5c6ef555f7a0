"""Kernels of time under way: when an order arrives, when a seat sees what happened, and who comes first in a tie.

Every draw is named by the market's seed and episode, by the seat and by the number of its order or of the market's
event. So it depends neither on other markets, nor on when somebody looks.
"""

import math

import numpy as np
from numba import njit

from tradefm_gym import rng
from tradefm_gym.market.compiler import SERIAL
from tradefm_gym.market.latency import (
    ENTRIES,
    FIXED,
    FLOOR,
    KIND,
    LENGTH,
    LOGNORMAL,
    MAX_NS,
    MEDIAN,
    NONE,
    QUANTILES,
    SIGMA,
)
from tradefm_gym.market.layout import CLOCK, LOG_BASE, LOG_END

# Columns of a market's names: what its draws are called by.
SEED, EPISODE = 0, 1

_SEAT_SHIFT = 48  # an index is a seat and, below it, the number of its order or of an event
LATEST = 2**62  # times beyond are cut, so that a latency can be added


@njit(**SERIAL)
def draw_ns(delays, seat, seed, episode, number, purpose):
    """The latency (ns) of a seat's message ``number``, drawn as row ``seat`` of ``delays`` says."""
    kind = np.int64(delays[seat, KIND])
    if kind == NONE:
        return np.int64(0)
    if kind == FIXED:
        return np.int64(delays[seat, MEDIAN])
    first, second = rng.uniforms(seed, episode, (np.int64(seat) << _SEAT_SHIFT) + number, purpose)
    if kind == LOGNORMAL:
        normal = math.sqrt(-2.0 * math.log(1.0 - first)) * math.cos(2.0 * math.pi * second)
        drawn = delays[seat, MEDIAN] * math.exp(delays[seat, SIGMA] * normal)
        return np.int64(min(max(drawn, delays[seat, FLOOR]), float(MAX_NS)) + 0.5)
    entries = np.int64(delays[seat, LENGTH])
    if kind == QUANTILES:
        place = first * (entries - 1)
        below = min(np.int64(place), max(entries - 2, 0))
        low, high = delays[seat, ENTRIES + below], delays[seat, ENTRIES + min(below + 1, entries - 1)]
        return np.int64(low + (place - below) * (high - low) + 0.5)
    return np.int64(delays[seat, ENTRIES + np.int64(first * entries)])


@njit(**SERIAL)
def goes_first(names, m, time_ns, owner, other):
    """Whether seat ``owner`` comes before seat ``other`` among orders that arrive at the same time.

    Each seat draws a number for each instant and the smaller goes first: all orders of the seats are equally likely.
    """
    own = rng.word(names[m, SEED], names[m, EPISODE], time_ns, rng.TURN, owner)
    others = rng.word(names[m, SEED], names[m, EPISODE], time_ns, rng.TURN, other)
    return own < others or (own == others and owner < other)


@njit(**SERIAL)
def stamp(clocks, names, delays, sent, arrived, events, count):
    """Turns times of sending into times of arrival, in place; a seat's orders do not overtake each other.

    Args:
        clocks: (N, CLOCK_WIDTH) int64.
        names: (N, 2) uint64.
        delays: (A, .) float64, see ``latency.table``.
        sent: (N, A) int64, orders that a seat has sent so far; counted up.
        arrived: (N, A) int64, when the last of them arrives; moved on.
        events: (N, K) EVENT; those that nobody can send are left alone.
        count: (N,) integers.
    """
    for m in range(events.shape[0]):
        for k in range(min(max(count[m], 0), events.shape[1])):
            event = events[m, k]
            seat = np.int64(event["owner"])
            if seat < 0 or seat >= delays.shape[0] or delays[seat, KIND] == NONE:
                continue
            leaves = min(max(event["time_ns"], clocks[m, CLOCK]), np.int64(LATEST))
            took = draw_ns(delays, seat, names[m, SEED], names[m, EPISODE], sent[m, seat], rng.ORDER_LATENCY)
            arrived[m, seat] = max(leaves + took, arrived[m, seat])
            sent[m, seat] += 1
            event["time_ns"] = arrived[m, seat]


@njit(**SERIAL)
def find_due(log, row, clocks, names, delays, seat, v, seen, shown, first, last):
    """Which events of the log a seat comes to see by now: places ``first`` to ``last`` of it, both written.

    News travel in order, as orders do.

    Args:
        log: (N, L) EVENT.
        row: (N, ROW_WIDTH) int64.
        clocks: (N, CLOCK_WIDTH) int64.
        names: (N, 2) uint64.
        delays: (A, .) float64.
        seat: whose view it is.
        v: its column.
        seen: (N, V) int64, events seen so far; moved on.
        shown: (N, V) int64, when the last of them was seen; moved on.
        first: (N,) int64.
        last: (N,) int32.
    """
    for m in range(log.shape[0]):
        place = seen[m, v] - row[m, LOG_BASE]
        first[m] = place
        while place < row[m, LOG_END]:
            took = draw_ns(delays, seat, names[m, SEED], names[m, EPISODE], seen[m, v], rng.DATA_LATENCY)
            at = max(min(log[m, place]["time_ns"], np.int64(LATEST)) + took, shown[m, v])
            if at > clocks[m, CLOCK]:
                break
            shown[m, v] = at
            seen[m, v] += 1
            place += 1
        last[m] = place


@njit(**SERIAL)
def forget_seen(log, row, least):
    """Drops from the log what all views have seen: the first ``least`` (N,) int64 events ever."""
    for m in range(log.shape[0]):
        gone = least[m] - row[m, LOG_BASE]
        if gone > 0:
            for place in range(gone, row[m, LOG_END]):
                log[m, place - gone] = log[m, place]
            row[m, LOG_BASE] += gone
            row[m, LOG_END] -= gone
