"""Training windows: stretches of one day's order flow as model inputs, targets and loss weights.

Two augmentations give the conditioning inputs a meaning and remove accidents of a few days:

* *participants*: no recorded event carries the participant flag, so 0 - 30% of the orders of a window,
  singly and in one-sided bursts, are re-flagged together with their cancels, and in half of the windows
  up to 15% of the takers besides: they are few, and what follows them is what a reaction is. (A larger share
  teaches that takers of the background grow rarer where a participant's are seen.) Flagged
  events are context and carry no loss; inter-arrivals of background events then count from the previous
  background event, exactly as in a rollout. An agent mostly acts on an event the moment it sees it, so in
  half of the windows a participant's orders follow their predecessor without delay.
* *mirror* and *level shift*: buy and sell are exchanged with probability 1/2, and the opening price is
  moved at random, since a handful of days says nothing about drift or about absolute levels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from tradefm_gym.model.tokenizer import TradeTokenizer, encode_features

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """What training windows are subjected to. All off: ``Augmentation(0.0, 0.0, False, 0.0)``."""

    reflag: float = 0.3  # largest share of a window's orders that become a participant's
    takers: float = 0.15  # largest share of a window's takers that do
    mirror: bool = True
    level_shift_bps: float = 60.0  # standard deviation of the shift of the opening price


class FlowWindows:
    """Windows over segments of order flow; satisfies ``training.WindowSource``.

    Args:
        segments: ``(n,) FEATURES`` arrays, each contiguous in one day and one part of the split.
        tokenizer: frozen bins.
        context: T, the number of predicted events in a window.
        augmentation: see Augmentation; ``None`` switches everything off.

    Raises:
        ValueError: if no segment is longer than one event.
    """

    def __init__(
        self,
        segments: list[np.ndarray],
        tokenizer: TradeTokenizer,
        context: int,
        augmentation: Augmentation | None = None,
    ):
        self.segments = [np.ascontiguousarray(s[s["valid"] == 1]) for s in segments]
        self.segments = [s for s in self.segments if len(s) > 1]
        if not self.segments:
            raise ValueError("segments must hold at least two events with a known mid, got none")
        self.tokenizer = tokenizer
        self.context = context
        self.augmentation = augmentation or Augmentation(0.0, 0.0, False, 0.0)

    @property
    def events(self) -> int:
        """Events over all segments."""
        return sum(len(s) for s in self.segments)

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """A random batch.

        Returns:
            inputs ``(batch, T, 4) int32``, targets ``(batch, T) int32``, weights ``(batch, T) float32``.
        """
        lengths = np.array([len(s) for s in self.segments], np.float64)
        chosen = rng.choice(len(lengths), batch, p=lengths / lengths.sum())
        rows = np.zeros((batch, self.context + 1, 4), np.int32)
        weights = np.zeros((batch, self.context), np.float32)
        for b, s in enumerate(chosen):
            segment = self.segments[s]
            start = int(rng.integers(0, max(len(segment) - self.context, 1)))
            window = segment[start : start + self.context + 1].copy()
            self._augment(window, rng)
            rows[b, : len(window)] = self._encode(window)
            weights[b, : len(window) - 1] = window["flag"][1:] == 0
        return rows[:, :-1].copy(), rows[:, 1:, 3].copy(), weights

    def windows(self, batch: int = 32, stride: int | None = None) -> Iterator[Batch]:
        """Every event once (but a segment's first), unaugmented, in batches of windows.

        With ``stride`` < T windows overlap and only the last ``stride`` events of each carry weight
        (all of them in the first window of a segment), so that predictions have a long context.
        """
        stride = stride or self.context
        pieces = []
        for segment in self.segments:
            inputs = self._encode(segment)
            for start in range(0, len(segment) - 1, stride):
                scored = start + (self.context - stride if start else 0)
                end = min(start + self.context, len(segment) - 1)
                if scored < end:
                    pieces.append((inputs[start : end + 1], scored - start))
        for i in range(0, len(pieces), batch):
            group = pieces[i : i + batch]
            rows = np.zeros((len(group), self.context + 1, 4), np.int32)
            weights = np.zeros((len(group), self.context), np.float32)
            for b, (piece, first) in enumerate(group):
                rows[b, : len(piece)] = piece
                weights[b, first : len(piece) - 1] = 1.0
            yield rows[:, :-1].copy(), rows[:, 1:, 3].copy(), weights

    def tokens(self) -> list[np.ndarray]:
        """Trade tokens of each segment, unaugmented: what the baselines are fitted on."""
        return [self._encode(s)[:, 3] for s in self.segments]

    def _encode(self, window: np.ndarray) -> np.ndarray:
        out = np.zeros((len(window), 4), np.int32)
        _encode_window(window, self.tokenizer.edges, out)
        return out

    def _augment(self, window: np.ndarray, rng: np.random.Generator) -> None:
        settings = self.augmentation
        if settings.mirror and rng.random() < 0.5:
            window["side"] = 1 - window["side"]
            if self.tokenizer.mid != "touch":  # which counts from the order's own side
                window["depth"] *= -1.0
            window["bid"], window["ask"] = window["ask"].copy(), window["bid"].copy()
            for signed in ("level", "fast", "slow"):
                window[signed] *= -1.0
        if settings.level_shift_bps > 0:
            window["level"] += settings.level_shift_bps * rng.standard_normal()
        if settings.reflag > 0 or settings.takers > 0:
            reflag(window, settings.reflag, rng, settings.takers)


def reflag(window: np.ndarray, share: float, rng: np.random.Generator, takers: float = 0.0) -> None:
    """Make up to ``share`` of a window's orders, and up to ``takers`` of its takers, a participant's, in place.

    Args:
        window: ``(n,) FEATURES`` of background events in time order.
        share: largest share of orders; a quarter of the windows stay untouched.
        rng: source of randomness.
        takers: largest share of takers; half of the other windows have none beyond ``share``.
    """
    if rng.random() < 0.25:
        return
    target = share * rng.random()
    single = target * (0.5 + 0.5 * rng.random())
    burst = (target - single) / 6.0  # a burst takes six adds of one side on average
    taken = takers * rng.random() * (rng.random() < 0.5)
    at_once = rng.random() < 0.5
    draws = rng.random((len(window), 3))
    _flag_orders(window, single, burst, taken, draws)
    if at_once:
        _act_at_once(window)
    _recount_time(window)


@njit(cache=True, nogil=True)
def _flag_orders(window, single, burst, taken, draws):
    left, side = 0, 0
    for i in range(window.shape[0]):
        if window[i]["action"] == 0:
            if window[i]["taker"] == 1 and draws[i, 2] < taken:
                window[i]["flag"] = 1
            elif left > 0 and window[i]["side"] == side:
                window[i]["flag"] = 1
                left -= 1
            elif draws[i, 0] < single:
                window[i]["flag"] = 1
            elif draws[i, 0] < single + burst:
                window[i]["flag"] = 1
                side = window[i]["side"]
                left = int(-np.log(1.0 - draws[i, 1]) * 5.0)
        else:
            # A cancel belongs to whoever placed the order; orders from before the window stay background.
            for j in range(i - 1, -1, -1):
                if window[j]["action"] == 0 and window[j]["order_id"] == window[i]["order_id"]:
                    window[i]["flag"] = window[j]["flag"]
                    break


@njit(cache=True, nogil=True)
def _act_at_once(window):
    """Moves each flagged order to the time of the event before it; its order in the flow stays."""
    for i in range(1, window.shape[0]):
        if window[i]["flag"] == 1:
            window[i]["time_ns"] = window[i - 1]["time_ns"]


@njit(cache=True, nogil=True)
def _recount_time(window):
    background = window[0]["time_ns"]
    if window[0]["flag"] == 1:
        background -= np.int64(window[0]["seconds"] * 1e9)
    for i in range(1, window.shape[0]):
        now = window[i]["time_ns"]
        previous = window[i - 1]["time_ns"] if window[i]["flag"] == 1 else background
        window[i]["seconds"] = max(now - previous, 0) * 1e-9
        if window[i]["flag"] == 0:
            background = now


@njit(cache=True, nogil=True)
def _encode_window(window, edges, out):
    for i in range(window.shape[0]):
        encode_features(window[i], edges, out[i])
