"""What is added to a network's probabilities of the next event, given what a flow asks for: see ``closed_loop``.

A kind is an action, a side and a depth, in the order of tokens: adds that buy, adds that sell, cancels of bids, cancels
of asks, 16 depths each. Engines do this between two steps of one draw, so that nothing has to come back in between.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from tradefm_gym.market.features import INSIDE_FAR, OWN_TOUCH
from tradefm_gym.model.config import DIGIT_SIZES

DEPTHS = DIGIT_SIZES[2]
KINDS = math.prod(DIGIT_SIZES[:3])  # kinds of event: action, side and depth, in the order of tokens
MOST_MOVED = 0.9  # of a side's takers at most become the other's
MOST_ANSWERED = 12.0  # times likelier at most
ANSWERS = slice(INSIDE_FAR, OWN_TOUCH + 1)  # depths of orders that rest at the touch or better


class Moves(NamedTuple):
    """What a flow asks for, float64, a row each."""

    shares: np.ndarray  # (B, 2, 16) how often adds that buy and adds that sell take liquidity, by depth
    moved: np.ndarray  # (B,) probability that goes from takers that sell to those that buy
    repeating: np.ndarray  # (B,) log-odds that a taker buys, however many takers there are
    followed: np.ndarray  # (B,) how many times likelier takers that buy become; negative: that sell
    answering: np.ndarray  # (B,) orders offered at the touch or better for each taker that follows
    restoring: np.ndarray  # (B, 2) log-odds of cancels of bids and of asks
    kinds: np.ndarray  # (B, 64) log-odds of each kind on the row's asset, before all of these
    digits: np.ndarray  # (B, 4, 16) likewise of the sizes of adds that rest, of takers and of cancels, and of waits

    @classmethod
    def none(cls, batch: int) -> "Moves":
        """That nothing be changed."""
        shapes = ((batch, 2, DEPTHS), batch, batch, batch, batch, (batch, 2), (batch, KINDS), (batch, 4, DEPTHS))
        return cls(*(np.zeros(shape) for shape in shapes))


@njit(cache=True, nogil=True)
def tilt_row(moves, row, kinds, tilt, strength):
    """What is added to the log-probabilities of one row's kinds.

    Args:
        moves: Moves.
        row: which row of them.
        kinds: (64,) float32, log-probabilities by the network; with the asset's log-odds afterwards.
        tilt: (64,) float32, written: what is added to those by the network.
        strength: (2,) float64, written: factor of the odds that a buy and a sell order takes liquidity.
    """
    _add_kinds(moves.kinds, row, kinds)
    buy, sell = 0.0, 0.0
    for depth in range(DEPTHS):
        share = moves.shares[row, 0, depth]
        if share > 0.0:  # most never do
            buy += math.exp(kinds[depth]) * share
        share = moves.shares[row, 1, depth]
        if share > 0.0:
            sell += math.exp(kinds[DEPTHS + depth]) * share
    moved, followed = moves.moved[row], moves.followed[row]
    if moves.repeating[row] != 0.0 and buy > 0.0 and sell > 0.0:
        odds = math.exp(moves.repeating[row])
        moved += buy * sell * (odds - 1.0) / (buy * odds + sell)  # then a buyer is so many times likelier
    moved = min(max(moved, -MOST_MOVED * buy), MOST_MOVED * sell)
    strength[0] = (buy + moved) / buy + max(followed, 0.0) if buy > 0.0 else 1.0
    strength[1] = (sell - moved) / sell + max(-followed, 0.0) if sell > 0.0 else 1.0
    for side in range(2):
        for depth in range(DEPTHS):
            share = moves.shares[row, side, depth]
            more = math.log(1.0 + share * (strength[side] - 1.0)) if share > 0.0 else 0.0
            tilt[DEPTHS * side + depth] = more + moves.kinds[row, DEPTHS * side + depth]
            other = DEPTHS * (2 + side) + depth
            tilt[other] = moves.restoring[row, side] + moves.kinds[row, other]
    if moves.answering[row] > 0.0 and followed != 0.0:
        taken = buy if followed > 0.0 else sell
        wanted = moves.answering[row] * abs(followed) * taken
        _answer(kinds, tilt, wanted, DEPTHS if followed > 0.0 else 0)


@njit(cache=True, nogil=True)
def size_class(moves, row, kind):
    """Whose sizes those of a kind are: 0 adds that rest, 1 takers, 2 cancels."""
    if kind >= KINDS // 2:
        return 2
    return 1 if moves.shares[row, kind // DEPTHS, kind % DEPTHS] > 0.5 else 0


@njit(cache=True, nogil=True)
def _add_kinds(moves_kinds, row, kinds):
    """Log-probabilities of kinds, those of the asset's considered."""
    total, usual = 0.0, True
    for kind in range(KINDS):
        usual &= moves_kinds[row, kind] == 0.0
    if usual:  # a sum of shares is 1 up to rounding only
        return
    for kind in range(KINDS):
        total += math.exp(kinds[kind] + moves_kinds[row, kind])
    total = math.log(total)
    for kind in range(KINDS):
        kinds[kind] += moves_kinds[row, kind] - total


@njit(cache=True, nogil=True)
def _answer(kinds, tilt, wanted, first):
    """Makes orders that rest at the touch or better likelier by ``wanted`` in all; kind ``first`` opens their side."""
    usual = 0.0
    for depth in range(INSIDE_FAR, OWN_TOUCH + 1):
        usual += math.exp(kinds[first + depth])
    if usual > 0.0:
        more = math.log(1.0 + min(wanted / usual, MOST_ANSWERED))
        for depth in range(INSIDE_FAR, OWN_TOUCH + 1):
            tilt[first + depth] += more
