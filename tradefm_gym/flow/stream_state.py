"""What a start state holds for TradeFM: the stream before the records of its tape, and what is known of the asset."""

import numpy as np

from tradefm_gym.flow.placement import PLACEMENT_WIDTH, UNKNOWN_PLACEMENT
from tradefm_gym.flow.repeating import REPEATING
from tradefm_gym.market.features import FEATURE_STATE

TABLES = (4, 16, 24)  # what lies inside the bins of a tokenizer, see ``TradeTokenizer.tables_of``
HABITS = (6, 16)  # log-odds by digits of tokens, see ``habits``
MEETING = 100.0  # times likelier that an agent's quote is taken, for each usual spread of a gift, see ``leading``


STREAM_STATE = np.dtype(
    [
        ("stream", FEATURE_STATE),
        ("placement", np.float64, (PLACEMENT_WIDTH,)),  # where orders are placed, see ``placement``
        ("followers", np.float64, (2,)),  # how takers are followed, see ``followers``
        ("tables", np.float64, TABLES),  # which values lie inside the bins, NaN where it is not known
        # The asset's habits, see there: how much likelier some events are than the network says, how much longer a pace
        # lasts, how many of the takers that ask for more than the touch shows take just that, how much likelier takers
        # are on the side of the one before, and an agent's quote is taken that gives something away.
        ("habits", np.float64, HABITS),
        ("lasting", np.float64),
        ("trimmed", np.float64),
        ("repeating", np.float64, (REPEATING,)),
        ("meeting", np.float64),
    ],
    align=True,
)


def stream_states(
    streams: np.ndarray,
    placement: tuple[float, ...] = UNKNOWN_PLACEMENT,
    followers: tuple[float, float] = (0.0, 0.0),
    tables: np.ndarray | float = np.nan,
    habits: np.ndarray | float = 0.0,
    lasting: float = 0.0,
    trimmed: float = 0.0,
    repeating: np.ndarray | float = 0.0,
    meeting: float = 0.0,
) -> np.ndarray:
    """States ``(n,) STREAM_STATE`` of streams ``(n,) FEATURE_STATE`` of one asset."""
    states = np.zeros(len(streams), STREAM_STATE)
    states["stream"], states["placement"], states["followers"] = streams, placement, followers
    states["tables"], states["habits"], states["lasting"] = tables, habits, lasting
    states["trimmed"], states["repeating"], states["meeting"] = trimmed, repeating, meeting
    return states


def upgraded(stored: np.ndarray) -> np.ndarray:
    """States ``(n,) STREAM_STATE`` of others that were made before a state or its stream had a field."""
    states = stream_states(np.zeros(len(stored), FEATURE_STATE))
    names = stored.dtype.names or ()
    for name in set(STREAM_STATE.names or ()) & set(names) - {"stream"}:
        states[name] = stored[name]
    for name in set(FEATURE_STATE.names or ()) & set(stored["stream"].dtype.names or ()):
        states["stream"][name] = stored["stream"][name]
    if "meeting" not in names:
        states["meeting"] = np.where(states["habits"].any((1, 2)), MEETING, 0.0)
    return states
