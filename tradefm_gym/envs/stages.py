"""Where a row stands within a decision, for the loops that take a decision as far as it goes in one visit.

A row is visited once where all that happens is at hand, and that is what makes a step fast: its book, tape and state
are fetched from memory once. It is visited again after its flow proposed more events, or its book was widened.
"""

import numpy as np
from numba import njit

from tradefm_gym.market.rows import SERIAL

OPENING, PASSING, CLOSING, LOOKING, DONE = range(5)
"""The orders that open the interval are next; they are sent and the interval passes; those that close it are sent;
all is booked, and the observation is left to write; nothing is."""


@njit(**SERIAL)
def outside(actions, rows):
    """Minus the number, counted from 1, of the first of the rows whose action is not in [-1, 1]; 0 if there is none."""
    for m in range(actions.shape[0]):
        if rows[m]:
            for i in range(actions.shape[1]):
                if not abs(actions[m, i]) <= 1.0:  # a NaN fails this too
                    return np.int64(-1 - m)
    return np.int64(0)


@njit(**SERIAL)
def begin_decision(first, rows, actions, stage):
    """Writes where rows begin; what takes no part is only looked at.

    Args:
        first: OPENING, or CLOSING where others have seen to all before.
        rows: (N,) bool, rows that take part.
        actions: (N, act) float32, in [-1, 1] where ``rows``.
        stage: (N,) int64, written unless an action is wrong.

    Returns:
        What ``outside`` does.
    """
    wrong = outside(actions, rows)
    if wrong == 0:
        for m in range(stage.shape[0]):
            stage[m] = first if rows[m] else LOOKING
    return wrong
