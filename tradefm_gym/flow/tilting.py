"""What is added to a network's probabilities of the kinds of event: see ``model.closed_loop``.

The loops over markets come twice, as in ``market.kernels``.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit, prange

from tradefm_gym.flow.followers import followers
from tradefm_gym.flow.placement import density
from tradefm_gym.market.compiler import KERNEL, PARALLEL, SERIAL
from tradefm_gym.market.features import INSIDE_FAR, MID_TOUCH, OPPOSITE_TOUCH, OWN_TOUCH

_MOST_MOVED = 0.9  # of a side's takers at most become the other's
_MOST_ANSWERED = 12.0  # times likelier at most


class Corrections(NamedTuple):
    """How much is added: see ``model.closed_loop``."""

    persistence: np.ndarray  # (2,) float64, what a unit of fast and of slow pressure moves
    following: np.ndarray  # (N, 2) float64, times likelier that a unit of agents' fast and slow pressure makes takers
    answering: float  # how much is offered to those who follow agents, for each taker that follows
    restoring: float  # log-odds of cancels for each unit of the logarithm of a side's density over the usual one


@njit(**SERIAL)
def weigh(book, placement, wanted, dense):
    """Density of both sides of wanted rows (see ``placement``) to ``dense`` (N, 2) float64."""
    for m in range(wanted.shape[0]):
        _weigh_row(book, placement, wanted, dense, m)


@njit(**PARALLEL)
def weigh_parallel(book, placement, wanted, dense):
    """As :func:`weigh`, over the threads."""
    for m in prange(wanted.shape[0]):
        _weigh_row(book, placement, wanted, dense, m)


@njit(**KERNEL)
def _weigh_row(book, placement, wanted, dense, m):
    if wanted[m]:
        for s in range(2):
            dense[m, s] = density(book, m, s, placement[m])


@njit(**SERIAL)
def tilt_kinds(corrections, dense, states, agents, placement, wanted, kinds, tilt, strength):
    """Moves probability to takers of the side of the order-flow pressure and to cancels on dense sides.

    See ``model.closed_loop``.

    Args:
        corrections: Corrections.
        dense: (N, 2) float64, what ``weigh`` found.
        states: (N,) FEATURE_STATE.
        agents: (N, AGENT_PRESSURE) float64, the agents' pressure.
        placement: (N, PLACEMENT_WIDTH) float64, how often adds of each depth bin cross.
        wanted: (N,) bool.
        kinds: (N or more, 64) float32, log-probabilities by the network.
        tilt: (N or more, 64) float32, written: what is to be added to them.
        strength: (N, 2) float64, written: factor of the odds that a buy and a sell order crosses.
    """
    for m in range(wanted.shape[0]):
        _tilt_row(corrections, dense, states, agents, placement, wanted, kinds, tilt, strength, m)


@njit(**PARALLEL)
def tilt_kinds_parallel(corrections, dense, states, agents, placement, wanted, kinds, tilt, strength):
    """As :func:`tilt_kinds`, over the threads."""
    for m in prange(wanted.shape[0]):
        _tilt_row(corrections, dense, states, agents, placement, wanted, kinds, tilt, strength, m)


@njit(**KERNEL)
def _tilt_row(corrections, dense, states, agents, placement, wanted, kinds, tilt, strength, m):
    if not wanted[m]:
        return
    state, by_touch = states[m], states[m]["mid_mode"] == MID_TOUCH
    buy, sell = 0.0, 0.0
    for bin_ in range(16):
        share = _cross_share(placement, m, bin_, by_touch)
        if share > 0.0:  # most cross never
            buy += math.exp(kinds[m, bin_]) * share
        share = _cross_share(placement, m, bin_ if by_touch else 15 - bin_, by_touch)
        if share > 0.0:
            sell += math.exp(kinds[m, 16 + bin_]) * share
    moved = corrections.persistence[0] * state["fast"] + corrections.persistence[1] * state["slow"]
    moved = min(max(moved, -_MOST_MOVED * buy), _MOST_MOVED * sell)
    followed = followers(agents[m], corrections.following[m])
    strength[m, 0] = (buy + moved) / buy + max(followed, 0.0) if buy > 0.0 else 1.0
    strength[m, 1] = (sell - moved) / sell + max(-followed, 0.0) if sell > 0.0 else 1.0
    for bin_ in range(16):
        share = _cross_share(placement, m, bin_, by_touch)
        tilt[m, bin_] = math.log(1.0 + share * (strength[m, 0] - 1.0)) if share > 0.0 else 0.0
        share = _cross_share(placement, m, bin_ if by_touch else 15 - bin_, by_touch)
        tilt[m, 16 + bin_] = math.log(1.0 + share * (strength[m, 1] - 1.0)) if share > 0.0 else 0.0
    if by_touch and followed != 0.0:
        taken = buy if followed > 0.0 else sell
        _answer(kinds[m], tilt[m], corrections.answering * abs(followed) * taken, 16 if followed > 0.0 else 0)
    for s in range(2):
        for bin_ in range(16):
            tilt[m, 32 + 16 * s + bin_] = corrections.restoring * dense[m, s]


@njit(**KERNEL)
def _answer(kinds, tilt, wanted, first):
    """Makes orders that rest at the touch or better likelier by ``wanted`` in all; kind ``first`` opens their side."""
    usual = 0.0
    for bin_ in range(INSIDE_FAR, OWN_TOUCH + 1):
        usual += math.exp(kinds[first + bin_])
    if usual > 0.0:
        more = math.log(1.0 + min(wanted / usual, _MOST_ANSWERED))
        for bin_ in range(INSIDE_FAR, OWN_TOUCH + 1):
            tilt[first + bin_] += more


@njit(**KERNEL)
def _cross_share(placement, m, bin_, by_touch) -> float:
    """How often an add takes liquidity, by its depth bin as a buyer counts them; uncalibrated, if beyond the mid."""
    if by_touch:
        return 1.0 if bin_ <= OPPOSITE_TOUCH else 0.0
    if placement[m, 0] < 0.0:
        return 1.0 if bin_ >= 8 else 0.0
    return placement[m, bin_]
