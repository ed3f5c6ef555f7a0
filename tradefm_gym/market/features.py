"""Causal features of the order flow: one kernel for training and for rollouts.

A stream is a sequence of tape records. For each record that is an event of the flow (adds and
cancels, not prints) the kernel emits what TradeFM sees of it (arXiv 2602.23784, section on features),
using nothing that comes later:

* ``mid``: exponentially weighted VWAP of executions, half-life in wall time; before the first
  execution the book mid. The value *before* the event, so that an event cannot explain its own price.
* ``seconds``: time since the previous background event; for a participant's event, since any event.
* ``depth``: (price - mid) / mid in basis points, signed.
* ``volume``: log(1 + size / median add size of the asset).
* ``level``: (mid - opening price) / opening price in basis points, *after* the event.
* ``rate``: trailing executed size in median sizes per second, *after* the event.
* ``spread``, ``wide``: spread in ticks, and its logarithm (base 2) over the asset's median one, *after* the event.
* ``bid``, ``ask``: logarithm (base 2) of the lots at the touch over the median size, *after* the event.
* ``pace``: logarithm (base 2) of the asset's usual wait over the mean one of late, halved in weight every 256 events;
  0 where the usual one is not known, above 0 where the market is busier than usual.
* ``fast``, ``slow``: order-flow pressure, the sum over past takers of side x log2(1 + executed size / median
  size), each halved every 4 or every 64 events, *after* the event. What executed cannot be read from prices
  around an estimated mid, and takers follow takers: this is not among the paper's features.
"""

import math

import numpy as np
from numba import njit

from tradefm_gym.market.events import BUY, CANCEL, PRINT, RECORD, REJECTED

MID_VWAP = 0
MID_BOOK = 1
MID_TOUCH = 2  # the book mid; and ``depth`` is the place of the price relative to the touch, see ``touch_place``
EMPTY_SIZE = -99.0  # logarithm of no lots
RATE_HALF_LIFE_S = 60.0
FAST_DECAY, SLOW_DECAY = 0.5 ** (1 / 4), 0.5 ** (1 / 64)  # of the order-flow pressure, an event
WAIT_DECAY, LONG_WAIT_DECAY = 0.5 ** (1 / 256), 0.5 ** (1 / 2048)  # of the mean waits, an event
_LONGEST_WAIT = 64.0  # usual ones: a pause of the exchange is not the market's pace

# The running state of one stream, constants of the asset included.
FEATURE_STATE = np.dtype(
    [
        ("value", np.float64),  # decayed sum of price x size
        ("weight", np.float64),  # decayed sum of size
        ("execution_ns", np.int64),
        ("opening", np.float64),  # first execution price (ticks), 0 before it
        ("background_ns", np.int64),  # time of the last background event, -1 before it
        ("event_ns", np.int64),  # time of the last event of anyone, -1 before it
        ("book_mid", np.float64),  # ticks, 0 while unknown
        ("rate", np.float64),  # decayed executed size, in median sizes
        ("rate_ns", np.int64),
        ("median_size", np.float64),  # lots
        ("half_life_s", np.float64),
        ("rate_low", np.float64),  # terciles of the trailing rate over the asset's own day
        ("rate_high", np.float64),
        ("fast", np.float64),  # order-flow pressure
        ("slow", np.float64),
        ("taker", np.int64),  # side of the last background taker times how many events ago it came, 0 before it
        ("taker_mid", np.float64),  # mid estimate after it, ticks
        ("best_bid", np.float64),  # ticks, 0 while a side is empty
        ("best_ask", np.float64),
        ("usual_spread", np.float64),  # ticks, median over the calibration part; 0 where it is not known
        ("usual_wait", np.float64),  # seconds, mean over the calibration part; 0 where it is not known
        ("wait", np.float64),  # seconds, mean of late
        ("long_wait", np.float64),  # seconds, mean of longer ago; 0 where it is not known
        ("mid_mode", np.uint8),
        ("asset", np.uint8),  # class of the asset, as a tokenizer numbers them; 0: of none in particular
    ],
    align=True,
)

FEATURES = np.dtype(
    [
        ("mid", np.float64),
        ("seconds", np.float64),
        ("depth", np.float64),
        ("volume", np.float64),
        ("level", np.float64),
        ("rate", np.float64),
        ("fast", np.float64),
        ("slow", np.float64),
        ("spread", np.float64),
        ("wide", np.float64),
        ("bid", np.float64),
        ("ask", np.float64),
        ("pace", np.float64),
        ("time_ns", np.int64),
        ("order_id", np.int64),
        ("liquidity", np.uint8),
        ("flag", np.uint8),
        ("action", np.uint8),
        ("side", np.uint8),
        ("valid", np.uint8),  # 0: no mid is known yet, the event must be dropped
        ("taker", np.uint8),  # 1: an add that executed at once, at least in part; no input of the model
        ("asset", np.uint8),
    ],
    align=True,
)


@njit(cache=True, nogil=True)
def size_code(lots):
    """Lots in eighths of doublings: 0 for none, 1 + 8 log2(lots) in steps of an eighth of an octave, at most 255.

    These are the exponent and the first three bits of the mantissa of a float64, which holds all lots exactly.
    """
    if lots <= 0:
        return 0
    return min((np.float64(lots).view(np.int64) >> 49) - 8183, 255)


def size_codes(lots: np.ndarray) -> np.ndarray:
    """``size_code`` of an array of lots, uint8."""
    code = (np.asarray(lots, np.float64).view(np.int64) >> 49) - 8183
    return np.where(np.asarray(lots) > 0, np.clip(code, 0, 255), 0).astype(np.uint8)


def new_state(
    count: int,
    median_size: float,
    rate_edges: tuple[float, float] = (0.0, 0.0),
    half_life_s: float = 10.0,
    mid_mode: int = MID_VWAP,
    usual_spread: float = 0.0,
    usual_wait: float = 0.0,
    asset: int = 0,
) -> np.ndarray:
    """Fresh states ``(count,) FEATURE_STATE`` at the start of a day.

    Args:
        count: number of streams.
        median_size: median add size of the asset in lots, from its calibration part.
        rate_edges: terciles of the trailing traded rate, from the calibration part.
        half_life_s: half-life of the VWAP in seconds of wall time.
        mid_mode: MID_VWAP (the paper's estimate), MID_BOOK (the book mid) or MID_TOUCH (prices relative to the touch).
        usual_spread: median spread of the asset in ticks, from its calibration part; 0 if it is not known.
        usual_wait: mean wait between events in seconds, from the same; 0 if it is not known.
        asset: class of the asset.

    Raises:
        ValueError: if ``median_size`` or ``half_life_s`` is not positive.
    """
    if not median_size > 0:
        raise ValueError(f"median_size must be positive, got {median_size}")
    if not half_life_s > 0:
        raise ValueError(f"half_life_s must be positive, got {half_life_s}")
    state = np.zeros(count, FEATURE_STATE)
    state["background_ns"] = -1
    state["event_ns"] = -1
    state["median_size"] = median_size
    state["half_life_s"] = half_life_s
    state["rate_low"], state["rate_high"] = rate_edges
    state["mid_mode"] = mid_mode
    state["usual_spread"] = usual_spread
    state["usual_wait"] = state["wait"] = state["long_wait"] = usual_wait
    state["asset"] = asset
    return state


@njit(cache=True, nogil=True)
def mid_estimate(state) -> float:
    """The mid estimate in ticks, 0 while there is none."""
    if state["mid_mode"] != MID_VWAP:
        if state["book_mid"] > 0.0:
            return state["book_mid"]
    if state["weight"] > 0.0:
        return state["value"] / state["weight"]
    return state["book_mid"]


# Places relative to the touch, in sixteen digits: beyond the opposite touch, at it, inside the spread (three thirds of
# it from there, and one tick better than the own touch), at the own touch, and behind it by 1, 2, 3 - 4, 5 - 8,
# 9 - 16, 17 - 32, 33 - 64, 65 - 256 and more ticks.
BEYOND, OPPOSITE_TOUCH, INSIDE_FAR, INSIDE_NEAR, BETTER, OWN_TOUCH, BEHIND = 0, 1, 2, 4, 5, 6, 7
BEHIND_TICKS = np.array([1, 2, 3, 5, 9, 17, 33, 65, 257], np.int64)  # nearest tick of each digit from BEHIND on


@njit(cache=True, nogil=True)
def touch_place(price, side, bid, ask) -> float:
    """Where a price lies relative to the touch that it meets: a digit and, after the point, where within it.

    Args:
        price: ticks.
        side: BUY or SELL.
        bid: best bid in ticks, 0 where it is not known.
        ask: best ask, likewise.
    """
    if bid <= 0.0 or ask <= 0.0:
        return OWN_TOUCH + 0.5
    spread = ask - bid
    better = price - bid if side == BUY else ask - price  # ticks inside the own touch
    if better >= spread:
        beyond = (better - spread) / spread
        return BEYOND + beyond / (1.0 + beyond) if beyond > 0.0 else OPPOSITE_TOUCH + 0.5
    if better > 1.0:
        share = better / spread
        return (INSIDE_NEAR if share <= 1 / 3 else (INSIDE_FAR + 1 if share <= 2 / 3 else INSIDE_FAR)) + share
    if better > 0.0:
        return BETTER + 0.5
    if better == 0.0:
        return OWN_TOUCH + 0.5
    behind = -better
    digit = 0
    while digit < 8 and behind >= BEHIND_TICKS[digit + 1]:
        digit += 1
    first = BEHIND_TICKS[digit]
    if digit == 8:
        return BEHIND + digit + 1.0 - (first - 0.5) / behind
    return BEHIND + digit + (behind - first + 0.5) / (BEHIND_TICKS[digit + 1] - first)


@njit(cache=True, nogil=True)
def price_at(place, side, bid, ask) -> float:
    """The price in ticks of a place, the inverse of ``touch_place``; one of the two known sides at least is needed."""
    spread = ask - bid
    digit = int(place)
    within = place - digit
    own, opposite = (bid, ask) if side == BUY else (ask, bid)
    if digit <= OPPOSITE_TOUCH:
        beyond = spread * within / max(1.0 - within, 1e-7) if digit == BEYOND else 0.0
        return opposite + side * math.ceil(beyond - 1e-3)
    if digit <= BETTER:
        if spread <= 1.0:
            return own
        ticks = 1.0 if digit == BETTER else max(math.floor(within * spread + 0.5), min(2.0, spread - 1.0))
        return own + side * min(ticks, spread - 1.0)
    if digit == OWN_TOUCH:
        return own
    first = BEHIND_TICKS[digit - BEHIND]
    if digit == BEHIND + 8:
        return own - side * math.floor((first - 0.5) / max(1.0 - within, 1e-7) + 0.5)
    return own - side * (first + math.floor(within * (BEHIND_TICKS[digit - BEHIND + 1] - first)))


@njit(cache=True, nogil=True)
def prices_of(digit, side, bid, ask):
    """Lowest and highest price in ticks that a digit at or behind the own touch names; the others name the touch."""
    own = bid if side == BUY else ask
    if digit <= OWN_TOUCH:
        return own, own
    near = BEHIND_TICKS[digit - BEHIND]
    far = BEHIND_TICKS[digit - BEHIND + 1] - 1 if digit < BEHIND + 8 else np.int64(2**30)
    return (own - far, own - near) if side == BUY else (own + near, own + far)


@njit(cache=True, nogil=True)
def observe_record(state, record, out) -> bool:
    """Take one record into ``state``; write its features to ``out``.

    Args:
        state: one FEATURE_STATE record, updated in place.
        record: one RECORD of the tape.
        out: one FEATURES record, written only if the result is true.

    Returns:
        True if the record is an event of the flow (has a token), False for prints and refused orders.
    """
    now = record["time_ns"]
    is_event = record["kind"] != PRINT and record["status"] != REJECTED and record["price"] > 0
    if is_event:
        mid = mid_estimate(state)
        flagged = record["owner"] >= 0
        if state["event_ns"] >= 0 and state["usual_wait"] > 0.0:
            # Anybody's events count: in training a participant's are recorded ones that were given another flag.
            waited = min(max(now - state["event_ns"], 0) * 1e-9, _LONGEST_WAIT * state["usual_wait"])
            state["wait"] += (1.0 - WAIT_DECAY) * (waited - state["wait"])
            state["long_wait"] += (1.0 - LONG_WAIT_DECAY) * (waited - state["long_wait"])
        previous = state["event_ns"] if flagged else state["background_ns"]
        out["mid"] = mid
        out["seconds"] = 0.0 if previous < 0 else max(now - previous, 0) * 1e-9
        if state["mid_mode"] == MID_TOUCH:
            out["depth"] = touch_place(record["price"], record["side"], state["best_bid"], state["best_ask"])
        else:
            out["depth"] = 1e4 * (record["price"] - mid) / mid if mid > 0.0 else 0.0
        out["volume"] = math.log1p(record["size"] / state["median_size"])
        out["time_ns"] = now
        out["order_id"] = record["order_id"]
        out["flag"] = 1 if flagged else 0
        out["action"] = 1 if record["kind"] == CANCEL else 0
        out["side"] = 0 if record["side"] == BUY else 1
        out["valid"] = 1 if mid > 0.0 else 0
        taker = record["filled"] > 0 and record["kind"] != CANCEL
        out["taker"] = 1 if taker else 0
        pressure = record["side"] * math.log2(1.0 + record["filled"] / state["median_size"]) if taker else 0.0
        state["fast"] = FAST_DECAY * state["fast"] + pressure
        state["slow"] = SLOW_DECAY * state["slow"] + pressure
        if taker and not flagged:
            state["taker"] = record["side"]
        elif state["taker"] != 0:
            state["taker"] += 1 if state["taker"] > 0 else -1
        out["fast"], out["slow"] = state["fast"], state["slow"]
        known = state["usual_wait"] > 0.0 and state["wait"] > 0.0
        out["pace"] = math.log2(state["usual_wait"] / state["wait"]) if known else 0.0
        out["asset"] = state["asset"]
        state["event_ns"] = now
        if not flagged:
            state["background_ns"] = now
    decay = 0.5 ** (max(now - state["rate_ns"], 0) * 1e-9 / RATE_HALF_LIFE_S)
    state["rate"] *= decay
    state["rate_ns"] = now
    if record["filled"] > 0:
        elapsed = max(now - state["execution_ns"], 0) * 1e-9
        decay = 0.5 ** (elapsed / state["half_life_s"])
        state["value"] = state["value"] * decay + record["notional"]
        state["weight"] = state["weight"] * decay + record["filled"]
        state["execution_ns"] = now
        state["rate"] += record["filled"] / state["median_size"]
        if state["opening"] == 0.0:
            state["opening"] = record["notional"] / record["filled"]
    if record["mid2"] > 0:
        state["book_mid"] = 0.5 * record["mid2"]
    spread = record["spread"]
    state["best_bid"] = 0.5 * (record["mid2"] - spread) if spread > 0 else 0.0
    state["best_ask"] = 0.5 * (record["mid2"] + spread) if spread > 0 else 0.0
    if is_event:
        if abs(state["taker"]) == 1:
            state["taker_mid"] = mid_estimate(state)
        out["spread"] = spread
        usual = state["usual_spread"]
        out["wide"] = math.log2(spread / usual) if spread > 0 and usual > 0.0 else 0.0
        lots = math.log2(state["median_size"])
        out["bid"] = 0.125 * (record["bid_size"] - 1) - lots if record["bid_size"] > 0 else EMPTY_SIZE
        out["ask"] = 0.125 * (record["ask_size"] - 1) - lots if record["ask_size"] > 0 else EMPTY_SIZE
        after = mid_estimate(state)
        opening = state["opening"]
        out["level"] = 1e4 * (after - opening) / opening if opening > 0.0 and after > 0.0 else 0.0
        out["rate"] = state["rate"] * math.log(2.0) / RATE_HALF_LIFE_S
        out["liquidity"] = 0 if out["rate"] < state["rate_low"] else (1 if out["rate"] < state["rate_high"] else 2)
    return is_event


@njit(cache=True, nogil=True)
def _observe_all(state, records, out, index):
    count = 0
    for i in range(records.shape[0]):
        if observe_record(state[0], records[i], out[count]):
            index[count] = i
            count += 1
    return count


def observe(state: np.ndarray, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run records through one stream.

    Args:
        state: ``(1,) FEATURE_STATE``, updated in place, so that a stream may come in pieces.
        records: ``(n,) RECORD`` in tape order.

    Returns:
        ``(features (k,) FEATURES, index (k,) int64)``: the events among the records, and where they were.

    Raises:
        TypeError: if ``records`` has another dtype than RECORD.
    """
    if records.dtype != RECORD:
        raise TypeError(f"records must have dtype RECORD, got {records.dtype}")
    # One spare row: the kernel needs a place to write before it knows that a record is no event.
    out = np.zeros(len(records) + 1, FEATURES)
    index = np.zeros(len(records) + 1, np.int64)
    count = _observe_all(state, np.ascontiguousarray(records), out, index)
    return out[:count].copy(), index[:count].copy()


def day_features(
    records: np.ndarray,
    calibration: range,
    median_size: float,
    half_life_s: float = 10.0,
    mid_mode: int = MID_VWAP,
    usual_spread: float = 0.0,
    asset: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of a whole recorded day, with liquidity tier and pace relative to the day's calibration part.

    Args:
        records: ``(n,) RECORD`` of one day in feed order.
        calibration: index range into ``records`` of the training part; fixes the terciles of the traded rate.
        median_size: median add size of that part, lots.
        half_life_s: half-life of the VWAP in seconds.
        mid_mode: MID_VWAP, MID_BOOK or MID_TOUCH.
        usual_spread: median spread of that part, ticks.
        asset: class of the asset.

    Returns:
        ``features (k,) FEATURES``, ``index (k,)`` of each event among the records, and the state ``(1,) FEATURE_STATE``
        at the start of the day.
    """
    features, index = observe(new_state(1, median_size, (0.0, 0.0), half_life_s, mid_mode, usual_spread), records)
    inside = features[(index >= calibration.start) & (index < calibration.stop)]
    low, high = np.quantile(inside["rate"], [1 / 3, 2 / 3])
    waits = np.diff(inside["time_ns"]) * 1e-9
    wait = float(np.minimum(waits, _LONGEST_WAIT * waits.mean()).mean()) if len(waits) else 0.0
    start = new_state(1, median_size, (float(low), float(high)), half_life_s, mid_mode, usual_spread, wait, asset)
    features, index = observe(start.copy(), records)
    return features, index, start
