"""Where inside its depth bin a generated order is placed: the book decides what the bin leaves open.

A depth bin is several ticks wide. Real orders do not lie evenly in it: they join prices where others already
rest, an order whose bin reaches the opposite touch is mostly a taker, and whoever finds a narrow spread does
not narrow it further. A draw that ignores this makes the simulated spread too narrow. Eight shares,
calibrated on an asset's training part, say how often an add

* ``take``: crosses, if its bin holds the opposite touch but no price of its own side,
* ``take_shared``: crosses, if the bin holds both,
* ``join``: joins a price of its own side that lies in the bin, if it neither crosses nor improves,
* ``touch``: joins the best of them when that is the touch,
* ``improve_0`` to ``improve_3``: improves its touch, if it does not cross and the bin leaves room for that, at a
  spread of at most 1/2, 1, 2 times the asset's median, or more.

Everything else is drawn inside the bin as the tokenizer says.
"""

import numpy as np
from numba import njit

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.replay import to_events
from tradefm_gym.market.book import EMPTY_ASK, EMPTY_BID
from tradefm_gym.market.events import BUY, LIMIT, EventBlock
from tradefm_gym.market.features import FEATURE_STATE
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.prices import above, below
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

SHARES = ("take", "take_shared", "join", "touch", "improve_0", "improve_1", "improve_2", "improve_3")
PLACEMENT_WIDTH = len(SHARES) + 1  # the last entry is the asset's median spread in ticks
UNKNOWN_PLACEMENT = (-1.0,) * PLACEMENT_WIDTH  # places every order as drawn

# What a start state holds for TradeFM: the stream before the records of its tape, and the asset's placement.
STREAM_STATE = np.dtype([("stream", FEATURE_STATE), ("placement", np.float64, (PLACEMENT_WIDTH,))], align=True)


def stream_states(streams: np.ndarray, placement: tuple[float, ...] = UNKNOWN_PLACEMENT) -> np.ndarray:
    """States ``(n,) STREAM_STATE`` of streams ``(n,) FEATURE_STATE`` of one asset."""
    states = np.zeros(len(streams), STREAM_STATE)
    states["stream"], states["placement"] = streams, placement
    return states


_LEVELS = 10  # levels of the book that calibration looks at
_LOWEST, _HIGHEST = 1, 2**30


def calibrate_placement(
    recorded: RecordedFlow,
    part: range,
    features: np.ndarray,
    index: np.ndarray,
    depth_edges: np.ndarray,
    spread: float,
) -> tuple[float, ...]:
    """The shares of a part of a recorded day, then the median spread; a share that never arose is 1/2.

    Args:
        recorded: a day with orders known by id, or with a book file.
        part: index range into ``recorded.records``.
        features: ``(k,) FEATURES`` of the day's events; the mid estimate before each is read.
        index: ``(k,)`` where those events are among the records.
        depth_edges: ``(15,)`` of the tokenizer, basis points.
        spread: median spread of the part in ticks.
    """
    mid = np.zeros(len(recorded.records))
    mid[index] = features["mid"]
    adds = np.flatnonzero((recorded.records["kind"] == LIMIT) & (mid > 0))
    adds = adds[(adds >= max(part.start, 1)) & (adds < part.stop)]
    book = _levels_of(recorded, part.stop)
    counts = np.zeros((len(SHARES), 2), np.int64)
    edges = np.concatenate([[-1e4], depth_edges, [np.inf]])
    for i in adds.tolist():
        record, side = recorded.records[i], int(recorded.records[i]["side"])
        own, opposite = (book[i - 1, 1], book[i - 1, 0]) if side == BUY else (book[i - 1, 0], book[i - 1, 1])
        if own[0] == 0 or opposite[0] == 0:
            continue
        price, touch, best = int(record["price"]), int(opposite[0]), int(own[0])
        bin_ = int(np.searchsorted(depth_edges, 1e4 * (price - mid[i]) / mid[i], side="right"))
        low, high = mid[i] * (1 + 1e-4 * edges[bin_]), mid[i] * (1 + 1e-4 * edges[bin_ + 1])
        crosses, improves = (price - touch) * side >= 0, (price - best) * side > 0
        joined = own[(own > 0) & (own >= low) & (own < high)]
        if low <= touch < high:
            counts[1 if len(joined) else 0] += (crosses, 1)
        if crosses:
            continue
        # Whole ticks strictly between the touches that the bin holds.
        room = min(np.ceil(high) - 1, max(best, touch) - 1) - max(np.ceil(low), min(best, touch) + 1)
        if room >= 0:
            counts[4 + spread_bucket(abs(touch - best), spread)] += (improves, 1)
        if not improves and len(joined):
            counts[2] += (price in joined, 1)
            if joined[0] == best and price in joined:
                counts[3] += (price == best, 1)
    return (*((hits + 1) / (total + 2) for hits, total in counts.tolist()), float(spread))


def _levels_of(recorded: RecordedFlow, stop: int) -> np.ndarray:
    """Prices (stop, 2, levels) of the best asks and bids after each record, 0 beyond the last level."""
    if recorded.book is not None:
        book = recorded.book[:stop]
        return np.stack([book[:, :, 0] * (book[:, :, 1] > 0), book[:, :, 2] * (book[:, :, 3] > 0)], axis=1)
    events = to_events(recorded.records[:stop])
    ids = int(events["order_id"].max(initial=0)) + 1
    market = MarketSimulator(1, MarketConfig(orders=1 << ids.bit_length(), flow_ids=ids, flow_queue=64))
    prices = np.zeros((stop, 2, _LEVELS), np.int64)
    one = np.ones(1, np.int32)
    for i in range(stop):
        market.feed(EventBlock(events[None, i : i + 1], one))
        market.advance(until_count=np.array([2**62]))
        found, sizes = market.depth(_LEVELS)
        prices[i] = (found * (sizes > 0))[0, ::-1]
    return prices


@njit(cache=True, nogil=True)
def spread_bucket(spread, usual) -> int:
    """0 to 3 for a spread of at most 1/2, 1, 2 times the usual one, or more."""
    if 2 * spread <= usual:
        return 0
    if spread <= usual:
        return 1
    return 2 if spread <= 2 * usual else 3


@njit(cache=True, nogil=True)
def place(book, m, side, low, high, drawn, shares, first, second):
    """Price in ticks of an add whose bin is [low, high).

    Args:
        book: BookState.
        m: row.
        side: BUY or SELL.
        low: lower end of the bin in ticks, float.
        high: upper end, float.
        drawn: price in ticks that the tokenizer's tables give, inside the bin.
        shares: ``(PLACEMENT_WIDTH,)`` float64 of ``calibrate_placement``; a negative first one places every order as
            drawn.
        first: uniform that decides between crossing and resting.
        second: uniform that decides between improving, joining and the price as drawn.
    """
    s = 0 if side == BUY else 1
    own, opposite = book.row[m, BEST + s], book.row[m, BEST + 1 - s]
    bottom, top = max(np.int64(np.ceil(low)), _LOWEST), min(np.int64(np.ceil(high)) - 1, _HIGHEST)
    one_sided = own == EMPTY_BID or own == EMPTY_ASK or opposite == EMPTY_BID or opposite == EMPTY_ASK
    if shares[0] < 0.0 or top < bottom or one_sided:
        return drawn
    joined = _nearest_level(book, m, s, bottom, top, drawn)
    if bottom <= opposite <= top and first < (shares[1] if joined > 0 else shares[0]):
        return max(drawn, opposite) if side == BUY else min(drawn, opposite)
    if (bottom > opposite) if side == BUY else (top < opposite):
        return drawn  # the whole bin lies beyond the opposite touch
    inside_low = max(bottom, min(own, opposite) + 1)
    inside_high = min(top, max(own, opposite) - 1)
    if inside_low <= inside_high:
        improve = shares[4 + spread_bucket(abs(opposite - own), shares[8])]
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
    if joined > 0 and second < shares[2]:
        return own if bottom <= own <= top and second < shares[2] * shares[3] else joined
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
