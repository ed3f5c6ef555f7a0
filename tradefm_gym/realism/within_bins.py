"""How many nats the raw event costs once its token is known: price in ticks, size in lots, time in units of the feed.

A token names bins. Which raw value of its bin an event has is told by the decoder's own within-bin quantiles, mixed
with a plain distribution over all raw values of the bin (uniform, or falling with the square where the bin is open),
since quantiles of a sample leave values out. The share of the plain one is chosen on other events. Each distribution
is over whole ticks, lots and time units and sums to one within its bin, so that token and within-bin nats together
are a code of the raw event, which may be compared between tokenizers.

Raw values k lie at x(k) in binning space; with F the decoder's distribution function, k has F(x(k + 1/2)) -
F(x(k - 1/2)), and the first and the last value of the bin have all beyond them, too.
"""

from typing import NamedTuple

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.market.features import BEHIND, BEHIND_TICKS, BETTER, BEYOND, INSIDE_FAR, MID_TOUCH, OPPOSITE_TOUCH
from tradefm_gym.model.tokenizer import DEPTHS, QUANTILES, SHORTEST_S, SIZES, TAKERS, TIMES, decompose
from tradefm_gym.realism.encoded_day import TOKEN, EncodedDay

DIGITS = ("price", "size", "time")
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)  # of the plain distribution
_FAR = 1 << 40  # raw values beyond it do not occur


class Chances(NamedTuple):
    """Probabilities (n,) of raw values given their bins, by the decoder's quantiles and by the plain distribution."""

    decoder: np.ndarray
    plain: np.ndarray


def within_bins(day: EncodedDay, recorded: RecordedFlow) -> tuple[dict[str, Chances], np.ndarray]:
    """Chances of the raw price, size and time of each event, and of which events they are known, (n,) bool.

    They are known where both sides of the book were before the event, and from the second event on.
    """
    records, before = recorded.records[day.index], recorded.records[np.maximum(day.index - 1, 0)]
    action, side, depth, volume, time = decompose(day.inputs[:, TOKEN])
    known = (before["spread"] > 0) & (before["mid2"] > 0) & (np.arange(len(records)) > 0)
    sign = np.where(side == 0, 1, -1)
    prices = (_touch_price if day.tokenizer.mid_mode == MID_TOUCH else _mid_price)(day, records, before, depth, sign)
    return {
        "price": prices,
        "size": _size(day, records["size"].astype(np.int64), volume, (action == 0) & (depth <= OPPOSITE_TOUCH)),
        "time": _time(day, recorded, time),
    }, known


def plain_share(chances: Chances, chosen: np.ndarray) -> float:
    """The share of the plain distribution that suits the events ``chosen`` (n,) bool best."""
    return min(SHARES, key=lambda share: float(within_nats(chances, share)[chosen].mean()))


def within_nats(chances: Chances, share: float) -> np.ndarray:
    """Nats (n,) of raw values given their bins."""
    return -np.log((1.0 - share) * chances.decoder + share * chances.plain)


def time_unit(recorded: RecordedFlow) -> int:
    """The coarsest unit in nanoseconds in which all times of a feed are whole numbers."""
    return max(1, int(np.gcd.reduce(np.diff(recorded.flow["time_ns"]))))


def _size(day: EncodedDay, lots: np.ndarray, digit: np.ndarray, takes: np.ndarray) -> Chances:
    edges, median = day.tokenizer.volume_edges, day.calibration.median_size
    ends = np.concatenate([[1], np.ceil(np.expm1(edges) * median - 1e-9).astype(np.int64)])
    first = np.minimum(np.maximum(ends[digit], 1), lots)
    last = np.where(digit < 15, np.maximum(ends[np.minimum(digit + 1, 15)] - 1, lots), _FAR)
    # The decoder rounds one of the bin's quantiles to whole lots.
    tables = np.rint(np.expm1(day.tables[[SIZES, TAKERS]]) * median)
    table = np.maximum(tables[takes.astype(np.int64), digit], 1)
    low, high = np.where(lots == first, -np.inf, lots - 0.5), np.where(lots == last, np.inf, lots + 0.5)
    decoder = ((table > low[:, None]) & (table < high[:, None])).mean(1)
    return Chances(decoder, _plain(lots, first, last, first))


def _time(day: EncodedDay, recorded: RecordedFlow, digit: np.ndarray) -> Chances:
    unit = time_unit(recorded)
    steps = np.rint(day.features["seconds"] * 1e9 / unit).astype(np.int64)
    edges = day.tokenizer.time_edges
    ends = np.ceil(10.0**edges * 1e9 / unit - 1e-6).astype(np.int64)
    ends[0] = int(SHORTEST_S * 1e9) // unit + 1  # the first bin goes to the shortest time itself
    ends = np.concatenate([[0], ends])
    first = np.minimum(ends[digit], steps)
    last = np.where(digit < 15, np.maximum(ends[np.minimum(digit + 1, 15)] - 1, steps), _FAR)

    def place(at: np.ndarray) -> np.ndarray:
        return np.log10(np.maximum(at * unit * 1e-9, SHORTEST_S))

    # All of the first bin lies at one place: the decoder tells nothing there.
    decoder = _cells(day.tables[TIMES], digit, place(steps - 0.5), place(steps + 0.5), steps, first, last)
    plain = _plain(steps, first, last, np.maximum(first, 1))
    return Chances(np.where(digit == 0, plain, decoder), plain)


def _mid_price(day, records, before, digit, sign) -> Chances:
    """Prices at a distance from the mid in basis points."""
    mid, price, edges = day.features["mid"], records["price"].astype(np.int64), day.tokenizer.depth_edges
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    with np.errstate(invalid="ignore"):
        low, high = (mid * (1.0 + 1e-4 * bounds[digit + more]) for more in (0, 1))
    first = np.minimum(np.ceil(np.where(np.isfinite(low), low, -_FAR) - 1e-6).astype(np.int64), price)
    last = np.maximum(np.ceil(np.where(np.isfinite(high), high, _FAR) - 1e-6).astype(np.int64) - 1, price)

    def place(at: np.ndarray) -> np.ndarray:
        return 1e4 * (at - mid) / mid

    decoder = _cells(day.tables[DEPTHS], digit, place(price - 0.5), place(price + 0.5), price, first, last)
    # Open bins are counted outwards, from their edge.
    low_open = digit == 0
    outwards, start = np.where(low_open, -price, price), np.where(low_open, -last, first)
    end = np.where(low_open, _FAR, last)
    away = np.maximum(np.abs(np.where(low_open, last, first) - mid), 1).astype(np.int64)
    return Chances(decoder, _plain(outwards, start, end, away))


def _touch_price(day, records, before, digit, sign) -> Chances:
    """Prices at places relative to the touch; k counts ticks from the own touch, or beyond the opposite one."""
    spread = before["spread"].astype(np.int64)
    touch = (before["mid2"].astype(np.int64) - sign * spread) // 2
    better = sign * (records["price"].astype(np.int64) - touch)
    beyond, inside, behind = digit == BEYOND, (digit >= INSIDE_FAR) & (digit < BETTER), digit >= BEHIND
    k = np.where(beyond, better - spread, np.where(inside, better, np.where(behind, -better, 0)))
    group = np.clip(digit - BEHIND, 0, 8)
    third = np.clip(4 - digit, 0, 2)  # of the spread, from the own touch on
    first = np.where(beyond, 1, np.where(inside, np.maximum(third * spread // 3 + 1, 2), BEHIND_TICKS[group]))
    end = np.append(BEHIND_TICKS[1:], _FAR + 1)[group] - 1
    last = np.where(beyond, _FAR, np.where(inside, np.minimum((third + 1) * spread // 3, spread - 1), end))
    single = ~(beyond | inside | behind) | (spread <= 0)
    first, last = np.where(single, k, np.minimum(first, k)), np.where(single, k, np.maximum(last, k))

    def place(at: np.ndarray) -> np.ndarray:
        share = at / np.maximum(spread, 1)
        width = np.append(np.diff(BEHIND_TICKS), 1)[group]
        near = BEHIND_TICKS[group]
        bounded, outermost = (at - near + 0.5) / width, 1.0 - (near - 0.5) / np.maximum(at, near - 0.5)
        within = np.where(group == 8, outermost, bounded)
        return digit + np.where(beyond, share / (1 + share), np.where(inside, share, np.where(behind, within, 0.5)))

    decoder = _cells(day.tables[DEPTHS], digit, place(k - 0.5), place(k + 0.5), k, first, last)
    return Chances(decoder, _plain(k, first, last, np.maximum(first, 1)))


def _plain(value: np.ndarray, first: np.ndarray, last: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Uniform from ``first`` to ``last``; where the latter is far, ``scale`` / ((j + scale) (j + scale + 1))."""
    j = (value - first).astype(np.float64)
    return np.where(last < _FAR, 1.0 / (last - first + 1.0), scale / ((j + scale) * (j + scale + 1.0)))


def _cells(table, digit, low, high, value, first, last) -> np.ndarray:
    """Weight of the decoder's distribution between two places, the ends of a bin with all beyond them."""
    above = np.where(value == last, 1.0, _distribution(table, digit, high))
    below = np.where(value == first, 0.0, _distribution(table, digit, low))
    return np.maximum(above - below, 0.0)


def _distribution(table: np.ndarray, digit: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Distribution function (n,) at ``place`` of what the decoder draws in a bin: its quantiles, interpolated."""
    rows = table[digit]
    count = (rows <= place[:, None]).sum(1)
    left = np.clip(count - 1, 0, QUANTILES - 2)
    at = np.arange(len(rows))
    low, high = rows[at, left], rows[at, left + 1]
    part = (place - low) / np.where(high > low, high - low, 1.0)
    inner = (left + 0.5 + part) / QUANTILES
    return np.where(count == 0, 0.0, np.where(count == QUANTILES, 1.0, inner))
