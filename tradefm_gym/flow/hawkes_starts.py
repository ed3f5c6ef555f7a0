"""Start states of a recorded day for the Hawkes flow: the book, and the excitement of what went before."""

from dataclasses import replace

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.hawkes import memory_dtype
from tradefm_gym.flow.hawkes_events import typed_day
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.hawkes_process import excitement
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.recorded_starts import BLOCK, CONTEXTS, prepare


def recorded_hawkes_bank(
    recorded: RecordedFlow,
    parameters: HawkesParameters,
    contexts: tuple[int, int, int] = CONTEXTS,
    at: np.ndarray | None = None,
) -> ContextBank:
    """A bank for ``HawkesFlow(..., bank=...)`` whose states go on from where a recorded day stands.

    Args:
        recorded: the day.
        parameters: of the flow that will go on; its kernels say what past events still do.
        contexts: how many start states to take from the train, validation and test part of the day.
        at: ``(c,)`` ascending positions in ``records`` with a two-sided book before them, where the states stand
            instead of ``contexts``; all of them count as training states.

    Raises:
        ValueError: if the day has no such states.
    """
    day = prepare(recorded, contexts, horizon=BLOCK, at=at)
    typed = typed_day(recorded)
    until = np.searchsorted(typed.rows, day.start)
    order = np.argsort(until, kind="stable")
    memory = np.zeros(len(until), memory_dtype(parameters))
    memory["excitement"][order] = excitement(parameters.process, typed.seconds, typed.types, until[order])
    return replace(day.bank, feature_state=memory)
