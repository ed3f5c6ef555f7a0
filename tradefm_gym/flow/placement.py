"""Where inside its depth bin a generated order is placed: the book decides what the bin leaves open.

A depth bin is several ticks wide. Real orders do not lie evenly in it: they join prices where others already
rest, and an order whose bin reaches the opposite touch is mostly a taker. A draw that ignores this turns a
third of the takers into quotes inside the spread and spreads orders over empty prices, and the simulated
spread comes out two to four times too narrow. Four shares, calibrated on an asset's training part, say how
often an add

* ``take``: crosses, if its bin holds the opposite touch but no price of its own side,
* ``take_shared``: crosses, if the bin holds both,
* ``join``: joins a price of its own side that lies in the bin, if it does not cross,
* ``touch``: joins the best of them when that is the touch.

Everything else is drawn inside the bin as the tokenizer says, but never crosses.
"""

import numpy as np
from numba import njit

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.replay import to_events
from tradefm_gym.market.book import BEST, EMPTY_ASK, EMPTY_BID, above, below
from tradefm_gym.market.events import BUY, LIMIT, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

SHARES = ("take", "take_shared", "join", "touch")
_LEVELS = 10  # levels of the book that calibration looks at
_LOWEST, _HIGHEST = 1, 2**30


def calibrate_placement(
    recorded: RecordedFlow, part: range, features: np.ndarray, index: np.ndarray, depth_edges: np.ndarray
) -> dict[str, float]:
    """The four shares of a part of a recorded day; a share that never arose is 1/2.

    Args:
        recorded: a day with orders known by id, or with a book file.
        part: index range into ``recorded.records``.
        features: ``(k,) FEATURES`` of the day's events; the mid estimate before each is read.
        index: ``(k,)`` where those events are among the records.
        depth_edges: ``(15,)`` of the tokenizer, basis points.
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
        price, touch = int(record["price"]), int(opposite[0])
        depth = 1e4 * (price - mid[i]) / mid[i]
        bin_ = int(np.searchsorted(depth_edges, depth, side="right"))
        low, high = mid[i] * (1 + 1e-4 * edges[bin_]), mid[i] * (1 + 1e-4 * edges[bin_ + 1])
        crosses = (price - touch) * side >= 0
        joined = own[(own > 0) & (own >= low) & (own < high)]
        if low <= touch < high:
            counts[1 if len(joined) else 0] += (crosses, 1)
        if not crosses and len(joined):
            counts[2] += (price in joined, 1)
            if joined[0] == own[0] and price in joined:
                counts[3] += (price == own[0], 1)
    return {name: float((hits + 1) / (total + 2)) for name, (hits, total) in zip(SHARES, counts, strict=True)}


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
def place(book, m, side, low, high, drawn, shares, first, second) -> int:
    """Price in ticks of an add whose bin is [low, high).

    Args:
        book: BookState.
        m: row.
        side: BUY or SELL.
        low: lower end of the bin in ticks, float.
        high: upper end, float.
        drawn: price in ticks that the tokenizer's tables give, inside the bin.
        shares: (4,) float64 in the order of ``SHARES``; a negative first one places every order as drawn.
        first: uniform that decides between crossing and resting.
        second: uniform that decides between joining and the price as drawn.
    """
    if shares[0] < 0.0:
        return drawn
    s = 0 if side == BUY else 1
    own, opposite = book.row[m, BEST + s], book.row[m, BEST + 1 - s]
    bottom, top = max(np.int64(np.ceil(low)), _LOWEST), min(np.int64(np.ceil(high)) - 1, _HIGHEST)
    if top < bottom:
        return drawn
    joined = _nearest_level(book, m, s, bottom, top, drawn)
    if opposite != EMPTY_ASK and opposite != EMPTY_BID:
        if bottom <= opposite <= top:
            if first < (shares[1] if joined > 0 else shares[0]):
                return max(drawn, opposite) if side == BUY else min(drawn, opposite)
            # It rests: what is left of the bin ends a tick before the opposite touch.
            drawn = min(drawn, opposite - 1) if side == BUY else max(drawn, opposite + 1)
    if joined > 0:
        if second < shares[2]:
            if bottom <= own <= top and second < shares[2] * shares[3]:
                return own
            return joined
    return drawn


@njit(cache=True, nogil=True)
def _nearest_level(book, m, s, bottom, top, price) -> int:
    """Occupied price of side ``s`` in [bottom, top] that is nearest to ``price``, -1 if there is none."""
    lower, upper = below(book, m, s, min(price, top)), above(book, m, s, max(price, bottom))
    if lower < bottom:
        lower = np.int64(-1)
    if upper > top:
        upper = np.int64(-1)
    if lower < 0 or upper < 0:
        return max(lower, upper)
    return lower if price - lower <= upper - price else upper
