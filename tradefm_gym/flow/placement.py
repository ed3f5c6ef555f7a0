"""What the book decides about a generated order: whether it crosses, and where inside its depth bin it is placed.

A depth bin is several ticks wide, and the touch of a generated book lies elsewhere than that of the recorded one
that the model would have seen. Real orders do not lie evenly in a bin either: they join prices where others already
rest, and whoever finds a narrow spread does not narrow it further. A draw that ignores this makes the simulated
spread too narrow and loses takers. Shares, calibrated on an asset's training part, say how often an add

* ``cross`` (16, by depth bin as a buyer counts them): takes liquidity. It pays the opposite touch even if its bin
  ends before it: that it trades says more about the order than the bin. One whose whole bin lies beyond the touch
  always crosses,
* ``join``: joins a price of its own side that lies in the bin, if it neither crosses nor improves,
* ``touch``: joins the best of them when that is the touch,
* ``improve`` (4): improves its touch, if it does not cross and its bin reaches from there into the spread, at a
  spread of at most 1/2, 1, 2 times the asset's median, or more. One whose bin lies inside a spread wider than the
  median always does,
* ``sweep``: leaves nothing resting, if it crosses with more than the opposite touch shows. Such a taker walks the
  book as far as its size asks, at most ten levels; what is left then is dropped.

Where bins are places relative to the touch (``features.touch_place``) the model has said what crosses and improves.
Then only ``join`` and ``sweep`` are of use, and ``clear``: of the takers whose size is within a factor of 1.5 of what
the opposite touch shows, the share that takes just that. (Drawn from a bin, a size would hardly ever equal it, and
levels would be emptied too rarely: spreads like Shanghai's fell from 33 to 13 ticks.)

No taker pays more than ``walk`` ticks beyond the opposite touch: 99% of the real ones that exceed it do not. (A book
that generated takers empty far beyond what real ones do does not heal.) And a side is thin if fewer than ``depth``
lots rest within ``span`` ticks of the mid, which are the medians of what the ten best levels hold: see ``cancels``.

Everything else is drawn inside the bin as the tokenizer says.
"""

import math

import numpy as np
from numba import njit

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.recorded_starts import to_events
from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID, NOBODY
from tradefm_gym.market.events import BUY, LIMIT, NO_LIMIT, EventBlock
from tradefm_gym.market.features import (
    BEHIND,
    MID_BOOK,
    MID_TOUCH,
    OPPOSITE_TOUCH,
    OWN_TOUCH,
    mid_estimate,
    prices_of,
    touch_place,
)
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.prices import above, below
from tradefm_gym.market.resolve import is_empty
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.market.views import best_of_size, level_size, next_level

BINS = 16
JOIN, TOUCH, IMPROVE, SWEEP = BINS, BINS + 1, BINS + 2, BINS + 6  # after the shares that cross
CLEAR = IMPROVE  # where bins are places relative to the touch, so that an order is known to improve or not
_GAPING = 40.0  # usual spreads; those of the shared days reach 18
_ALIKE = 1.5  # sizes within this factor of each other may be meant to be equal
# Ticks: the asset's median spread, how far a taker goes at most, how far from the mid the tenth level usually lies.
SPREAD, WALK, SPAN = SWEEP + 1, SWEEP + 2, SWEEP + 3
DEPTH = SPAN + 1  # lots that usually rest on the ten best levels of a side
PLACEMENT_WIDTH = DEPTH + 1
UNKNOWN_PLACEMENT = (-1.0,) * PLACEMENT_WIDTH  # places every order as drawn

_LEVELS = 10  # levels of the book that calibration looks at
_LOWEST, _HIGHEST = 1, 2**30


def calibrate_placement(
    recorded: RecordedFlow,
    part: range,
    features: np.ndarray,
    index: np.ndarray,
    depth_edges: np.ndarray,
    spread: float,
    mid_mode: int = MID_BOOK,
) -> tuple[float, ...]:
    """The shares of a part of a recorded day, then the median spread, the longest walk, the usual span and depth.

    Args:
        recorded: a day with orders known by id, or with a book file.
        part: index range into ``recorded.records``.
        features: ``(k,) FEATURES`` of the day's events; the mid estimate before each is read.
        index: ``(k,)`` where those events are among the records.
        depth_edges: ``(15,)`` of the tokenizer, basis points.
        spread: median spread of the part in ticks.
        mid_mode: of the tokenizer; with MID_TOUCH bins are places relative to the touch, so an add is known to cross or
            to improve, and only ``join`` and ``sweep`` are of use.

    Returns:
        PLACEMENT_WIDTH floats. A share that never arose is 1/2; a bin without adds crosses if it lies beyond the mid.
    """
    mid = np.zeros(len(recorded.records))
    mid[index] = features["mid"]
    adds = np.flatnonzero((recorded.records["kind"] == LIMIT) & (mid > 0))
    adds = adds[(adds >= max(part.start, 1)) & (adds < part.stop)]
    book, sizes = _levels_of(recorded, part.stop)
    counts, walks, spans, depths = np.zeros((SPREAD, 2), np.int64), [0], [], []
    edges = np.concatenate([[-1e4], depth_edges, [np.inf]])
    for i in adds.tolist():
        record, side = recorded.records[i], int(recorded.records[i]["side"])
        s = 1 if side == BUY else 0  # asks are row 0
        own, opposite = book[i - 1, s], book[i - 1, 1 - s]
        if own[0] == 0 or opposite[0] == 0:
            continue
        price, touch, best = int(record["price"]), int(opposite[0]), int(own[0])
        last = own[_LEVELS - 1] if len(own) >= _LEVELS else 0  # a file may show fewer levels
        spans.append(abs(last - 0.5 * (touch + best)) if last > 0 else np.inf)
        depths.append(sizes[i - 1, s].sum())
        if mid_mode == MID_TOUCH:
            bid, ask = float(min(touch, best)), float(max(touch, best))
            bin_ = int(touch_place(price, side, bid, ask))
            low, high = prices_of(bin_, side, bid, ask) if bin_ > OWN_TOUCH else (price, price)
            high += 1  # the first tick that is not the bin's
        else:
            bin_ = int(np.searchsorted(depth_edges, 1e4 * (price - mid[i]) / mid[i], side="right"))
            low, high = mid[i] * (1 + 1e-4 * edges[bin_]), mid[i] * (1 + 1e-4 * edges[bin_ + 1])
        crosses, improves = (price - touch) * side >= 0, (price - best) * side > 0
        joined = own[(own > 0) & (own >= low) & (own < high)]
        counts[bin_ if side == BUY else BINS - 1 - bin_] += (crosses, 1)
        if crosses:
            shown = sizes[i - 1, 1 - s, 0]
            if mid_mode == MID_TOUCH and record["filled"] > 0 and _alike(record["size"], shown):
                counts[CLEAR] += (record["size"] == shown, 1)
            if record["filled"] > 0 and record["size"] > shown:
                counts[SWEEP] += (record["max_rest"] == 0, 1)
                walks.append(abs(price - touch))
            continue
        # Whole ticks strictly between the touches that the bin holds.
        room = min(np.ceil(high) - 1, max(best, touch) - 1) - max(np.ceil(low), min(best, touch) + 1)
        if mid_mode != MID_TOUCH and room >= 0 and (low <= best if side == BUY else best < high):
            counts[IMPROVE + spread_bucket(abs(touch - best), spread)] += (improves, 1)
        if not improves and len(joined):
            counts[JOIN] += (price in joined, 1)
            if joined[0] == best and price in joined:
                counts[TOUCH] += (price == best, 1)
    beyond = np.arange(BINS) >= BINS // 2  # the bins past the mid, in case a bin is never used
    cross = (counts[:BINS, 0] + beyond) / (counts[:BINS, 1] + 1)
    others = (counts[BINS:, 0] + 1) / (counts[BINS:, 1] + 2)
    walk = float(np.ceil(np.quantile(walks, 0.99)))
    span = float(np.median(spans)) if spans else 0.0
    depth = float(np.median(depths)) if spans and np.isfinite(span) else 0.0
    return (*cross.tolist(), *others.tolist(), float(spread), walk, span if depth else 0.0, depth)


def _levels_of(recorded: RecordedFlow, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """After each record: prices and lots of the best asks and bids, each (stop, 2, levels).

    A price is 0 beyond the last level.
    """
    if recorded.book is not None:
        book = recorded.book[:stop]
        sizes = np.stack([book[:, :, 1], book[:, :, 3]], axis=1)
        return np.stack([book[:, :, 0], book[:, :, 2]], axis=1) * (sizes > 0), sizes
    events = to_events(recorded.records[:stop])
    ids = int(events["order_id"].max(initial=0)) + 1
    market = MarketSimulator(1, MarketConfig(orders=1 << ids.bit_length(), flow_ids=ids, flow_queue=64))
    prices, sizes = np.zeros((stop, 2, _LEVELS), np.int64), np.zeros((stop, 2, _LEVELS), np.int64)
    one = np.ones(1, np.int32)
    for i in range(stop):
        market.feed(EventBlock(events[None, i : i + 1], one))
        market.advance(until_count=np.array([2**62]))
        found, lots = market.depth(_LEVELS)
        prices[i], sizes[i] = (found * (lots > 0))[0, ::-1], lots[0, ::-1]
    return prices, sizes


@njit(cache=True, nogil=True)
def spread_bucket(spread, usual) -> int:
    """0 to 3 for a spread of at most 1/2, 1, 2 times the usual one, or more."""
    if 2 * spread <= usual:
        return 0
    if spread <= usual:
        return 1
    return 2 if spread <= 2 * usual else 3


@njit(cache=True, nogil=True)
def density(book, m, s, shares) -> float:
    """Logarithm of the lots of side ``s`` near the mid over the usual ones, from -1 to 1; 0 without calibration."""
    if shares[0] < 0.0 or shares[DEPTH] <= 0.0:
        return 0.0
    price, opposite = np.int64(book.row[m, BEST + s]), np.int64(book.row[m, BEST + 1 - s])
    if is_empty(price) or is_empty(opposite):
        return -1.0
    mid, lots = 0.5 * (price + opposite), np.int64(0)
    most = np.int64(math.e * shares[DEPTH]) + 1
    while not is_empty(price) and abs(price - mid) <= shares[SPAN] and lots < most:
        lots += level_size(book, m, s, price, NOBODY)
        price = next_level(book, m, s, price)
    return min(max(math.log(max(lots, 1) / shares[DEPTH]), -1.0), 1.0)


@njit(cache=True, nogil=True)
def place(book, m, side, bin_, low, high, drawn, size, shares, strength, first, second):
    """Price in ticks of an add whose bin is [low, high), and how many lots of it may rest.

    Args:
        book: BookState.
        m: row.
        side: BUY or SELL.
        bin_: depth bin, 0 to 15.
        low: lower end of the bin in ticks, float.
        high: upper end, float.
        drawn: price in ticks that the tokenizer's tables give, inside the bin.
        size: lots.
        shares: ``(PLACEMENT_WIDTH,)`` float64 of ``calibrate_placement``; a negative first one places every order as
            drawn.
        strength: factor of the odds of crossing, 1 as calibrated.
        first: uniform that decides between crossing and resting.
        second: uniform that decides between improving, joining and the price as drawn.
    """
    s = 0 if side == BUY else 1
    own, opposite = book.row[m, BEST + s], book.row[m, BEST + 1 - s]
    bottom, top = max(np.int64(np.ceil(low)), _LOWEST), min(np.int64(np.ceil(high)) - 1, _HIGHEST)
    one_sided = own == EMPTY_BID or own == EMPTY_ASK or opposite == EMPTY_BID or opposite == EMPTY_ASK
    if shares[0] < 0.0 or top < bottom or one_sided:
        return drawn, NO_LIMIT
    beyond = bottom > opposite if side == BUY else top < opposite  # the whole bin crosses
    share = 1.0 if beyond else shares[bin_ if side == BUY else BINS - 1 - bin_]
    share = share * strength / (1.0 + share * (strength - 1.0))
    if first < share:
        price = max(drawn, opposite) if side == BUY else min(drawn, opposite)
        price = min(price, max(top, opposite)) if side == BUY else max(price, min(bottom, opposite))
        farthest = opposite + side * np.int64(shares[WALK])
        if first < share * shares[SWEEP] and size > level_size(book, m, 1 - s, opposite, NOBODY):
            return _nearer(_walked(book, m, s, opposite, size, price), farthest, side), np.int64(0)
        return _nearer(price, farthest, side), NO_LIMIT
    return _rested(book, m, side, bottom, top, drawn, shares, second), NO_LIMIT


@njit(cache=True, nogil=True)
def touch_lots(state, shares) -> float:
    """Lots by which agents' orders count as a touch: what a level usually holds, and at least a median order."""
    return max(state["median_size"], shares[DEPTH] / _LEVELS)


@njit(cache=True, nogil=True)
def usual_touch(book, m, state, least):
    """Best bid and ask in ticks, float; a side that is empty lies the asset's usual spread away from the other.

    So does one that is left of a book that gapes, far from what was last paid: else whoever improves on the other side
    would carry the price to it. Agents' orders count only once they add up to ``least`` lots: else one of a lot, set
    and withdrawn, would lead everybody's prices wherever its owner likes at next to no risk.
    """
    bid, ask = best_of_size(book, m, 0, least), best_of_size(book, m, 1, least)
    spread = max(state["usual_spread"], 1.0)
    if bid == EMPTY_BID and ask == EMPTY_ASK:
        mid = mid_estimate(state)
        return math.floor(mid - 0.5 * spread), math.floor(mid - 0.5 * spread) + max(math.floor(spread), 1.0)
    if bid == EMPTY_BID:
        return float(ask) - math.floor(spread), float(ask)
    if ask == EMPTY_ASK:
        return float(bid), float(bid) + math.floor(spread)
    if ask - bid > _GAPING * spread and state["weight"] > 0.0:
        paid = state["value"] / state["weight"]
        if ask - paid > paid - bid:
            return float(bid), float(bid) + math.floor(spread)
        return float(ask) - math.floor(spread), float(ask)
    return float(bid), float(ask)


@njit(cache=True, nogil=True)
def _alike(size, other) -> bool:
    return size <= _ALIKE * other and other <= _ALIKE * size


@njit(cache=True, nogil=True)
def place_by_touch(book, m, side, digit, bottom, top, price, size, shares, least, trimmed, first, second):
    """Price in ticks and lots of an add whose digit names a place relative to the touch, and how many lots may rest.

    Args: as ``place`` takes them; ``digit`` and [``bottom``, ``top``] as ``features.prices_of`` has them, ``price`` as
    ``features.price_at`` says, ``least`` the lots by which agents' orders count as a touch, ``trimmed`` the share of
    the takers that ask for more than is shown who take just that.
    """
    if shares[0] < 0.0:
        return price, size, NO_LIMIT
    s = 0 if side == BUY else 1
    opposite = best_of_size(book, m, 1 - s, least)
    if digit <= OPPOSITE_TOUCH and not is_empty(opposite):
        farthest = opposite + side * np.int64(shares[WALK])
        shown = level_size(book, m, 1 - s, opposite, NOBODY)
        if (_alike(size, shown) and second < shares[CLEAR]) or (size > shown and second < trimmed):
            size = shown
        if trimmed > 0.0 and size == shown > 1 and _gapes(book, m, 1 - s, opposite, shares[SPAN]):
            size -= 1  # as with cancels (``leaves_a_hole``): then others join what is left
        if first < shares[SWEEP] and size > shown:
            return _nearer(_walked(book, m, s, opposite, size, price), farthest, side), size, np.int64(0)
        return _nearer(price, farthest, side), size, NO_LIMIT
    if digit > BEHIND + 1 and second < shares[JOIN]:
        joined = _nearest_level(book, m, s, np.int64(max(bottom, 1.0)), np.int64(min(top, 2.0**30)), price)
        if joined > 0:
            return joined, size, NO_LIMIT
    return price, size, NO_LIMIT


@njit(cache=True, nogil=True)
def _gapes(book, m, s, touch, span) -> bool:
    """Whether the level behind a touch lies more than ``span`` ticks behind it, or there is none."""
    behind = next_level(book, m, s, touch)
    return is_empty(behind) or abs(behind - touch) > span


@njit(cache=True, nogil=True)
def _nearer(price, limit, side):
    """The one of two prices that asks less of whoever pays it."""
    return min(price, limit) if side == BUY else max(price, limit)


@njit(cache=True, nogil=True)
def _walked(book, m, s, opposite, size, price):
    """The worst price that a taker of side ``s`` and ``size`` lots pays within ten levels, at least ``price``."""
    level, left = opposite, size
    for _ in range(_LEVELS):
        if left <= 0 or is_empty(level):
            break
        left -= level_size(book, m, 1 - s, level, NOBODY)
        price = max(price, level) if s == 0 else min(price, level)
        level = next_level(book, m, 1 - s, level)
    return price


@njit(cache=True, nogil=True)
def _rested(book, m, side, bottom, top, drawn, shares, second):
    """Price of an add that does not cross: it improves, joins, or lies where it was drawn."""
    s = 0 if side == BUY else 1
    own, opposite = book.row[m, BEST + s], book.row[m, BEST + 1 - s]
    inside_low = max(bottom, min(own, opposite) + 1)
    inside_high = min(top, max(own, opposite) - 1)
    if inside_low <= inside_high:
        bucket = spread_bucket(abs(opposite - own), shares[SPREAD])
        inside = bottom > own if side == BUY else top < own
        improve = 1.0 if inside and bucket > 1 else shares[IMPROVE + bucket]
        if second < improve:
            return min(max(drawn, inside_low), inside_high)
        second = (second - improve) / (1.0 - improve)
    # It stays at its touch or behind: that end of the bin, or the touch itself if the bin has no such end.
    if side == BUY:
        top = min(top, own)
        drawn = min(drawn, own)
    else:
        bottom = max(bottom, own)
        drawn = max(drawn, own)
    if top < bottom:
        return own
    joined = _nearest_level(book, m, s, bottom, top, drawn)
    if joined > 0 and second < shares[JOIN]:
        return own if bottom <= own <= top and second < shares[JOIN] * shares[TOUCH] else joined
    return drawn


@njit(cache=True, nogil=True)
def _nearest_level(book, m, s, bottom, top, price):
    """Occupied price of side ``s`` in [bottom, top] that is nearest to ``price``, -1 if there is none."""
    lower, upper = below(book, m, s, min(price, top)), above(book, m, s, max(price, bottom))
    if lower < bottom:
        lower = np.int64(-1)
    if upper > top:
        upper = np.int64(-1)
    if lower < 0 or upper < 0:
        return max(lower, upper)
    return lower if price - lower <= upper - price else upper
