"""What a network says of recorded events, one by one: nats of each, and whether it is what the network expects most.

Through an engine, so that a small network needs no torch; ``training.evaluate`` gives the same mean.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tradefm_gym.model.engine_protocol import Engine

_COLDEST = 1e-3  # temperature at which every digit is the likeliest one
_MIDDLE = np.uint32(1 << 31)


class EventScores(NamedTuple):
    """Scores of all events of a segment but its first.

    Attributes:
        nats: (n - 1,) float64, negative log-likelihood of each event given those before it.
        expected: (n - 1,) bool, whether each event is the greedy one: of every digit the likeliest, in their order.
    """

    nats: np.ndarray
    expected: np.ndarray


class _Window(NamedTuple):
    segment: int
    start: int
    scored: int  # first event whose successor is scored
    end: int


def score_events(engine: Engine, segments: Sequence[np.ndarray], greedy: bool = False) -> list[EventScores]:
    """Scores events given the half to whole context before them, as ``FlowWindows.windows(stride=T // 2)`` does.

    Args:
        engine: of any batch; its rows are used up.
        segments: (n, 4) int32 model inputs, each contiguous.
        greedy: whether to ask for the greedy events, too, which takes longer; ``expected`` is false without.

    Returns:
        Scores of each segment; empty for one of fewer than two events.
    """
    found = [EventScores(np.zeros(max(len(s) - 1, 0)), np.zeros(max(len(s) - 1, 0), bool)) for s in segments]
    windows = list(_windows(engine.context, segments))
    for first in range(0, len(windows), engine.batch):
        _score_group(engine, segments, windows[first : first + engine.batch], greedy, found)
    return found


def _windows(context: int, segments: Sequence[np.ndarray]) -> Iterator[_Window]:
    stride = context // 2
    for number, segment in enumerate(segments):
        last = len(segment) - 1
        for start in range(0, last, stride):
            scored = start + (context - stride if start else 0)
            if scored < last:
                yield _Window(number, start, scored, min(start + context, last))


def _score_group(
    engine: Engine, segments: Sequence[np.ndarray], group: list[_Window], greedy: bool, found: list[EventScores]
) -> None:
    engine.prefill(np.arange(len(group)), [segments[w.segment][w.start : w.scored + 1] for w in group])
    inputs = np.zeros((engine.batch, 4), np.int32)
    targets, bits = np.zeros(engine.batch, np.int32), np.full((engine.batch, 5), _MIDDLE, np.uint32)
    for step in range(max(w.end - w.scored for w in group)):
        active = np.zeros(engine.batch, bool)
        for row, window in enumerate(group):
            if window.scored + step < window.end:
                inputs[row] = segments[window.segment][window.scored + step]
                targets[row] = segments[window.segment][window.scored + step + 1, 3]
                active[row] = True
        if step:  # the first one is the end of the prompt
            engine.append(inputs, active)
        nats = -engine.log_prob(targets)
        best = engine.sample(bits, active, temperature=_COLDEST) if greedy else np.full(engine.batch, -1)
        for row in np.flatnonzero(active):
            scores, at = found[group[row].segment], group[row].scored + step
            scores.nats[at], scores.expected[at] = nats[row], best[row] == targets[row]
