"""What a flow asks of a network's probabilities of the kinds of event: see ``model.closed_loop``.

From the order-flow pressure, the agents' part of it and the density of the book. What comes of that, the network's
probabilities decide (``model.corrections``).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.flow.followers import followers
from tradefm_gym.flow.repeating import repeated
from tradefm_gym.market.compiler import KERNEL
from tradefm_gym.market.features import MID_TOUCH, OPPOSITE_TOUCH, mid_estimate


class Corrections(NamedTuple):
    """How much is added: see ``model.closed_loop``."""

    persistence: np.ndarray  # (2,) float64, what a unit of fast and of slow pressure moves
    following: np.ndarray  # (N, 2) float64, times likelier that a unit of agents' fast and slow pressure makes takers
    answering: float  # how much is offered to those who follow agents, for each taker that follows
    restoring: float  # log-odds of cancels for each unit of the logarithm of a side's density over the usual one
    habits: np.ndarray  # (N, 6, 16) float64, see ``habits``
    repeating: np.ndarray  # (N, REPEATING) float64, log-odds that a taker is on the side of the one before
    meeting: np.ndarray  # (N,) float64, times likelier that an agent's quote is taken, see ``stream_state.MEETING``


@njit(**KERNEL)
def correct_row(corrections, dense, states, agents, placement, met, m, moves):
    """Writes row m of ``moves`` (see ``model.corrections.Moves``).

    It moves probability to takers of the side of the order-flow pressure and of the one before, to cancels on dense
    sides, and to what the asset does more often than the network.

    Args:
        corrections: Corrections.
        dense: (N, 2) float64, density of both sides (see ``placement``).
        states: (N,) FEATURE_STATE.
        agents: (N, AGENT_MEMORY) float64, the agents' pressure and their leads.
        placement: (N, PLACEMENT_WIDTH) float64, how often adds of each depth bin cross.
        met: how many times likelier takers that buy become since an agent offers to them, of ``leading.led``.
        m: row.
        moves: written.
    """
    state, by_touch = states[m], states[m]["mid_mode"] == MID_TOUCH
    for bin_ in range(16):
        moves.shares[m, 0, bin_] = _cross_share(placement, m, bin_, by_touch)
        moves.shares[m, 1, bin_] = _cross_share(placement, m, bin_ if by_touch else 15 - bin_, by_touch)
    # Who is told how an asset's takers repeat needs no persistence of those of other assets.
    repeats = corrections.repeating[m].any()
    moved = corrections.persistence[0] * state["fast"] + corrections.persistence[1] * state["slow"]
    moves.moved[m] = 0.0 if repeats else moved
    moves.repeating[m] = repeated(state, mid_estimate(state), corrections.repeating[m]) if repeats else 0.0
    moves.followed[m] = followers(agents[m], corrections.following[m]) + met
    moves.answering[m] = corrections.answering if by_touch else 0.0
    for s in range(2):
        moves.restoring[m, s] = corrections.restoring * dense[m, s]
    for action in range(2):
        for bin_ in range(16):
            habit, first = corrections.habits[m, action, bin_], 32 * action
            moves.kinds[m, first + bin_] = habit
            moves.kinds[m, first + 16 + (bin_ if by_touch else 15 - bin_)] = habit
    for digit in range(4):
        for bin_ in range(16):
            moves.digits[m, digit, bin_] = corrections.habits[m, 2 + digit, bin_]


@njit(**KERNEL)
def _cross_share(placement, m, bin_, by_touch) -> float:
    """How often an add takes liquidity, by its depth bin as a buyer counts them; uncalibrated, if beyond the mid."""
    if by_touch:
        return 1.0 if bin_ <= OPPOSITE_TOUCH else 0.0
    if placement[m, 0] < 0.0:
        return 1.0 if bin_ >= 8 else 0.0
    return placement[m, bin_]
