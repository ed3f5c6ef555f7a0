"""Drift of a tokenizer over a day: edges that stay against edges that are calibrated again each quarter.

The day's time is cut into quarters. Raw events of a quarter are coded by a Markov chain that has counted the tokens of
all quarters before it, and by the within-bin quantiles, under four tokenizers: the ``shipped`` one with the quantiles
of no asset in particular, the shipped edges with quantiles of the quarter before (``requantiled``, which asks for no
training), one ``frozen`` on the day's first quarter, and a ``rolling`` one, calibrated on the quarter before. The last
events of the quarter before calibrate nothing: on them the chain's strength and the shares of plain distributions are
chosen, for all of them. Code lengths are of raw events and so compare. A model knows the shipped tokenizer only; its
nats are told by quarter, of which the first two and most of the third lie in the part that it learned from.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.model.baselines import Markov
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.bootstrap import mean_of
from tradefm_gym.realism.code_length import BLOCK, RawCode, model_nats
from tradefm_gym.realism.encoded_day import TOKEN, EncodedDay
from tradefm_gym.realism.rows import of

QUARTERS = 4
EDGES = ("shipped", "requantiled", "frozen", "rolling")
_CHOOSING = 0.15  # share of a quarter, at its end, that calibrates nothing


def quarters(day: EncodedDay) -> np.ndarray:
    """Quarter of the day's time, from 0, of each event (n,) int64."""
    time = day.features["time_ns"].astype(np.float64)
    return np.minimum((QUARTERS * (time - time[0]) / max(time[-1] - time[0], 1.0)).astype(np.int64), QUARTERS - 1)


def drift_rows(day: EncodedDay, recorded: RecordedFlow, model: str) -> Iterator[dict[str, Any]]:
    """Code length by quarter under the three tokenizers, and nats of the model."""
    quarter = quarters(day)
    for number in range(1, QUARTERS):
        raw = {}
        for edges in EDGES:
            fitted = _fitted(day, quarter, edges, number)
            token, within, block = _chain_code(fitted, recorded, quarter, number)
            raw[edges] = token + within
            yield _row(number, f"{edges}_token", token, block)
            yield _row(number, f"{edges}_raw", raw[edges], block)
        yield _row(number, "rolling_less_frozen", raw["rolling"] - raw["frozen"], block)
        for edges in ("rolling", "requantiled"):
            yield _row(number, f"{edges}_less_shipped", raw[edges] - raw["shipped"], block)
    own = RawCode(replace(day, tables=day.tokenizer.tables), recorded, quarter == 0)
    segments = [day.inputs[quarter == number] for number in range(QUARTERS)]
    for number, nats in enumerate(model_nats(model, segments)):
        place = np.flatnonzero(quarter == number)[1:]
        known = own.known[place]
        block = np.arange(len(place))[known] // BLOCK
        yield _row(number, "model_token", nats[known], block)
        yield _row(number, "model_raw", (nats + own.nats[place].sum(1))[known], block)


def _fitted(day: EncodedDay, quarter: np.ndarray, edges: str, number: int) -> EncodedDay:
    """The day under a tokenizer of which the quarter ``number`` is the first to be new."""
    if edges == "shipped":
        return replace(day, tables=day.tokenizer.tables)
    place, _ = _cut(quarter, 0 if edges == "frozen" else number - 1)
    sample = day.features[place]
    if edges == "requantiled":
        return replace(day, tables=day.tokenizer.tables_of(sample))
    tokenizer = TradeTokenizer.calibrate([sample], day.tokenizer.mid, day.tokenizer.half_life_s)
    return replace(day, tokenizer=tokenizer, inputs=tokenizer.encode(day.features), tables=tokenizer.tables_of(sample))


def _chain_code(
    day: EncodedDay, recorded: RecordedFlow, quarter: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nats of tokens and within bins, and blocks, of the events of a quarter that met a two-sided book."""
    tokens = day.inputs[:, TOKEN]
    _, choosing = _cut(quarter, number - 1)
    earlier = np.flatnonzero(quarter < number)
    chain = Markov([tokens[earlier]], [tokens[choosing]])
    chain.strength = Markov(
        [tokens[earlier[: -len(choosing)]]], [tokens[choosing]]
    ).strength  # of one that is new to it
    raw = RawCode(day, recorded, np.isin(np.arange(len(quarter)), choosing))
    place = np.flatnonzero(quarter == number)
    nats = chain.event_nats(tokens[place])
    known = raw.known[place[1:]]
    return nats[known], raw.nats[place[1:]][known].sum(1), np.arange(len(nats))[known] // BLOCK


def _cut(quarter: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of a quarter that calibrate, and those at its end on which what is left is chosen."""
    place = np.flatnonzero(quarter == number)
    cut = int((1 - _CHOOSING) * len(place))
    return place[:cut], place[cut:]


def _row(number: int, metric: str, values: np.ndarray, block: np.ndarray) -> dict[str, Any]:
    about = {"quantity": f"tokenizer_quarter_{number + 1}", "metric": metric, "n": len(values), "seeds": 1}
    return about | of(mean_of(values, block))
