"""Code length of raw events: nats of the token plus those of price, size and time within its bins.

Nats of tokens compare only between models of one tokenizer: wider bins are easier to name. With what it takes to tell
the raw event from its token they compare between tokenizers, too (see ``within_bins``).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.model.baselines import Markov
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.likelihood import score_events
from tradefm_gym.model.serving import checkpoint, make_engine
from tradefm_gym.realism.bootstrap import mean_of
from tradefm_gym.realism.encoded_day import TOKEN, EncodedDay
from tradefm_gym.realism.rows import of
from tradefm_gym.realism.within_bins import DIGITS, plain_share, within_bins, within_nats

BLOCK = 512  # events that are resampled together
CHAIN = "markov_"
_ROWS = 64  # of the engine


class RawCode:
    """What the raw events of a day cost beyond their tokens.

    Args:
        day: as the tokenizer sees it.
        recorded: the same day.
        chosen: (n,) bool, events on which the shares of plain distributions are chosen.

    Attributes:
        nats: (n, 3) float64 for price, size and time.
        known: (n,) bool, whether the event met a two-sided book; the others have no raw price to speak of.
    """

    def __init__(self, day: EncodedDay, recorded: RecordedFlow, chosen: np.ndarray) -> None:
        chances, self.known = within_bins(day, recorded)
        learnt = chosen & self.known
        columns = (within_nats(chances[name], plain_share(chances[name], learnt)) for name in DIGITS)
        self.nats = np.stack(list(columns), axis=1)


def part_of(day: EncodedDay, part: slice) -> np.ndarray:
    """A part as (n,) bool."""
    inside = np.zeros(len(day.inputs), bool)
    inside[part] = True
    return inside


def model_nats(model: str, segments: list[np.ndarray]) -> list[np.ndarray]:
    """Nats (n - 1,) of the events of each segment (n, 4) under a model."""
    config, weights = load_weights(checkpoint(model)[0])
    return [scores.nats for scores in score_events(make_engine(config, weights, _ROWS), segments)]


def code_rows(day: EncodedDay, recorded: RecordedFlow, model: str) -> Iterator[dict[str, Any]]:
    """Token, within-bin and raw code length on the test part, under a model and under a Markov chain of the day."""
    raw = RawCode(day, recorded, part_of(day, day.parts["validation"]))
    scored = slice(day.parts["test"].start + 1, day.parts["test"].stop)
    known, within = raw.known[scored], raw.nats[scored]
    inputs = day.inputs_of("test")
    chain = Markov([day.tokens_of("train")], [day.tokens_of("validation")])
    for prefix, nats in (("", model_nats(model, [inputs])[0]), (CHAIN, chain.event_nats(inputs[:, TOKEN]))):
        columns = {"token": nats, "raw": nats + within.sum(1)}
        if not prefix:
            columns |= {name: within[:, place] for place, name in enumerate(DIGITS)}
        for metric, values in columns.items():
            found = mean_of(values[known], np.flatnonzero(known) // BLOCK)
            about = {"quantity": f"{prefix}code_length", "metric": metric, "n": int(known.sum()), "seeds": 1}
            yield about | of(found)
