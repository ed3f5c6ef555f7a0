"""Training windows: stretches of one day's order flow as model inputs, targets and loss weights.

Three augmentations give the conditioning inputs a meaning and remove accidents of a few days:

* *participants*: no recorded event carries the participant flag, so 0 - 30% of the orders of a window,
  singly and in one-sided bursts, are re-flagged together with their cancels, and in half of the windows
  up to 15% of the takers besides: they are few, and what follows them is what a reaction is. (A larger share
  teaches that takers of the background grow rarer where a participant's are seen.) Flagged
  events are context and carry no loss; inter-arrivals of background events then count from the previous
  background event, exactly as in a rollout. An agent mostly acts on an event the moment it sees it, so in
  half of the windows a participant's orders follow their predecessor without delay.
* *anonymous*: a quarter of the windows do not say which asset they are of.
* *mirror* and *level shift*: buy and sell are exchanged with probability 1/2, and the opening price is
  moved at random, since a handful of days says nothing about drift or about absolute levels.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from tradefm_gym.model.token_events import TOKENS, tokenize
from tradefm_gym.model.tokenizer import TradeTokenizer, bin_of, time_bin

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Augmentation:
    """What training windows are subjected to. All off: ``Augmentation(0.0, 0.0, False, 0.0, 0.0)``."""

    reflag: float = 0.3  # largest share of a window's orders that become a participant's
    takers: float = 0.15  # largest share of a window's takers that do
    mirror: bool = True
    level_shift_bps: float = 60.0  # standard deviation of the shift of the opening price
    anonymous: float = 0.25  # share of windows whose asset is not told: what is learned of those that nobody knows


class FlowWindows:
    """Windows over segments of order flow; satisfies ``training.WindowSource``.

    Args:
        segments: ``(n,) TOKENS`` arrays, from ``tokenize`` or mapped from shards, or ``(n,) FEATURES`` ones; each is
            contiguous in one day and one part of the split.
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
        tokens = [s if s.dtype == TOKENS else tokenize(s, tokenizer) for s in segments]
        self.segments = [s for s in tokens if len(s) > 1]
        if not self.segments:
            raise ValueError("segments must hold at least two events with a known mid, got none")
        self.tokenizer = tokenizer
        self.context = context
        self.augmentation = augmentation or Augmentation(0.0, 0.0, False, 0.0, 0.0)
        lengths = np.array([len(s) for s in self.segments], np.float64)
        self._shares = lengths / lengths.sum()

    @property
    def events(self) -> int:
        """Events over all segments."""
        return sum(len(s) for s in self.segments)

    def sample(self, batch: int, rng: np.random.Generator) -> Batch:
        """A random batch.

        Returns:
            inputs ``(batch, T, 4) int32``, targets ``(batch, T) int32``, weights ``(batch, T) float32``.
        """
        chosen = rng.choice(len(self.segments), batch, p=self._shares)
        rows = np.zeros((batch, self.context + 1, 4), np.int32)
        weights = np.zeros((batch, self.context), np.float32)
        for b, s in enumerate(chosen):
            segment = self.segments[s]
            start = int(rng.integers(0, max(len(segment) - self.context, 1)))
            window = np.array(segment[start : start + self.context + 1])
            self._draw(window, rng, rows[b])
            weights[b, : len(window) - 1] = window["flag"][1:] == 0
        return rows[:, :-1].copy(), rows[:, 1:, 3].copy(), weights

    def windows(self, batch: int = 32, stride: int | None = None) -> Iterator[Batch]:
        """Every event once (but a segment's first), unaugmented, in batches of windows.

        With ``stride`` < T windows overlap and only the last ``stride`` events of each carry weight
        (all of them in the first window of a segment), so that predictions have a long context.
        """
        pieces = self._pieces(stride or self.context)
        while group := list(itertools.islice(pieces, batch)):
            rows = np.zeros((len(group), self.context + 1, 4), np.int32)
            weights = np.zeros((len(group), self.context), np.float32)
            for b, (piece, first) in enumerate(group):
                rows[b, : len(piece)] = piece
                weights[b, first : len(piece) - 1] = 1.0
            yield rows[:, :-1].copy(), rows[:, 1:, 3].copy(), weights

    def _pieces(self, stride: int) -> Iterator[tuple[np.ndarray, int]]:
        """Inputs of each window, and the first event of it that is scored."""
        for segment in self.segments:
            for start in range(0, len(segment) - 1, stride):
                scored = start + (self.context - stride if start else 0)
                end = min(start + self.context, len(segment) - 1)
                if scored < end:
                    yield segment["straight"][start : end + 1], scored - start

    def tokens(self) -> list[np.ndarray]:
        """Trade tokens of each segment, unaugmented: what the baselines are fitted on."""
        return [s["straight"][:, 3].astype(np.int32) for s in self.segments]

    def _draw(self, window: np.ndarray, rng: np.random.Generator, out: np.ndarray) -> None:
        """Inputs ``(T + 1, 4)`` of one window after augmentation; its flags and waiting times are changed in place."""
        settings = self.augmentation
        mirrored = settings.mirror and rng.random() < 0.5
        if mirrored:
            window["side"] = 1 - window["side"]
            window["level"] *= -1.0
        if settings.level_shift_bps > 0:
            window["level"] += settings.level_shift_bps * rng.standard_normal()
        if settings.reflag > 0 or settings.takers > 0:
            reflag(window, settings.reflag, rng, settings.takers)
        inputs = window["mirrored" if mirrored else "straight"]
        if self.tokenizer.assets and rng.random() < settings.anonymous:
            inputs[:, 1] %= 2 * self.tokenizer.pressures
        _write_inputs(window, inputs, self.tokenizer.edges, out)


def reflag(window: np.ndarray, share: float, rng: np.random.Generator, takers: float = 0.0) -> None:
    """Make up to ``share`` of a window's orders, and up to ``takers`` of its takers, a participant's, in place.

    Args:
        window: ``(n,) TOKENS`` of background events in time order.
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
def _write_inputs(window, inputs, edges, out):
    """Writes inputs ``(n, 4)`` as changed by a window's flags, waiting times and levels."""
    told = edges.touch.shape[0] == 0  # the price level
    for i in range(window.shape[0]):
        out[i, 0] = inputs[i, 0]
        out[i, 1] = inputs[i, 1] - (inputs[i, 1] & 1) + window[i]["flag"]
        out[i, 2] = bin_of(edges.level, window[i]["level"]) if told else np.int64(inputs[i, 2])
        out[i, 3] = inputs[i, 3] - (inputs[i, 3] & 15) + time_bin(edges.time, window[i]["seconds"])
