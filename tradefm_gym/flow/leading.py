"""Who takes a quote that is too good: what a network that runs freely lacks, and flows with habits are told.

A network trained on records never saw an agent who leads the touch wherever he likes. Others move along with his quote,
and where takers are rare hardly anybody hits it, so that he sells at a price that he made. Real ones would, who know
what the asset is worth. What it is worth here: the mid of all others, less what agents have led it. A quote on the
maker's own side of that is hit as often as the network says; one beyond it is a gift, and takers become likelier, the
more the larger it is.

While an agent's quote is better than all others of its side, moves of the others' touch up to his price are counted as
led by him. That is forgotten with a half-life of 256 events.
"""

import numpy as np
from numba import njit

from tradefm_gym.flow.followers import AGENT_PRESSURE
from tradefm_gym.market.layout import BEST
from tradefm_gym.market.resolve import is_empty
from tradefm_gym.market.views import best_of_size

_NEVER = 2.0**62  # lots that no agents' orders add up to
_FORGETTING = 0.5 ** (1 / 256)  # an event
# What a row remembers of agents after their pressure: ticks by which they led bids up and asks down, and the touch of
# all others and of agents (0: none), now and before; and at which proposal that is.
_RAISED, _OTHERS, _OWN = AGENT_PRESSURE, AGENT_PRESSURE + 2, AGENT_PRESSURE + 4
_WIDTH = 6
_NUMBER = AGENT_PRESSURE + 2 * _WIDTH
AGENT_MEMORY = _NUMBER + 1


@njit(cache=True, nogil=True)
def remember_lead(book, m, memory, proposal):
    """Lets an event pass in what a row remembers of agents' leads, ``memory`` (AGENT_MEMORY,).

    The same ``proposal`` (at least 1) may be asked for again, as where a draw that was begun is given up: it counts
    once, with the book as it is then.
    """
    if memory[_NUMBER] != proposal:
        memory[_NUMBER] = proposal
        for i in range(AGENT_PRESSURE, AGENT_PRESSURE + _WIDTH):
            memory[i + _WIDTH] = memory[i]
    for s in range(2):
        others, own = best_of_size(book, m, s, _NEVER), np.int64(book.row[m, BEST + s])
        now = 0.0 if is_empty(others) else float(others)
        better = 1.0 - 2.0 * s  # sign of a better price
        before, lead = memory[_OTHERS + s + _WIDTH], memory[_OWN + s + _WIDTH]
        raised = memory[_RAISED + s + _WIDTH] * _FORGETTING
        if now > 0.0 and before > 0.0 and lead > 0.0 and better * (lead - before) > 0.0:
            raised = max(raised + min(better * (now - before), better * (lead - before)), 0.0)
        memory[_RAISED + s] = raised
        memory[_OTHERS + s], memory[_OWN + s] = now, 0.0 if is_empty(own) else float(own)


@njit(cache=True, nogil=True)
def led(memory, spread) -> float:
    """By how many usual spreads, one at most, an agent asks less than it is worth, less what he bids above that.

    Args:
        memory: (AGENT_MEMORY,) of a row.
        spread: the asset's usual one, ticks.
    """
    bid, ask = memory[_OTHERS], memory[_OTHERS + 1]
    if bid <= 0.0 or ask <= 0.0:
        return 0.0
    spread = max(spread, 1.0)
    worth = 0.5 * (bid + ask) - memory[_RAISED] + memory[_RAISED + 1]
    lead = 0.0
    if 0.0 < memory[_OWN + 1] < ask:
        lead += min(max(worth - memory[_OWN + 1], 0.0) / spread, 1.0)
    if memory[_OWN] > bid:
        lead -= min(max(memory[_OWN] - worth, 0.0) / spread, 1.0)
    return lead
