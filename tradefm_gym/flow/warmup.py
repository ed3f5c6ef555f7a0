"""Start states from a user's own recorded day: the book, the tape's tail and the features' state at each."""

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from tradefm_gym.data.archive import archive_kind
from tradefm_gym.data.day import load_day
from tradefm_gym.data.recorded import RecordedFlow, asset_name, load
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.followers import calibrate_followers
from tradefm_gym.flow.placement import calibrate_placement
from tradefm_gym.flow.protocol import ContextBank, StartState
from tradefm_gym.flow.recorded_starts import BLOCK, prepare
from tradefm_gym.flow.stream_state import stream_states, upgraded
from tradefm_gym.market.features import FEATURE_STATE, day_features, new_state, observe


class Reading(Protocol):
    """How a model will read what comes after a start state: a ``TradeTokenizer``."""

    @property
    def depth_edges(self) -> np.ndarray:
        """(15,), see ``placement``."""
        ...

    @property
    def half_life_s(self) -> float:
        """Of its VWAP, in seconds."""
        ...

    @property
    def mid_mode(self) -> int:
        """MID_VWAP, MID_BOOK or MID_TOUCH."""
        ...

    def asset_of(self, name: str) -> int:
        """Class of an asset by its name, 0 where the model does not know it."""
        ...

    def tables_of(self, features: np.ndarray) -> np.ndarray:
        """What lies inside the bins of an asset, TABLES, by the FEATURES of its training part."""
        ...


def bank_of(path: str | Path, tokenizer: Reading) -> ContextBank:
    """Start states of a file: a context bank as it is, anything else as a recorded day; see ``recorded_bank``."""
    path = Path(path)
    if path.suffix == ".npz" and path.is_file() and archive_kind(path) == "context bank":
        return ContextBank.load(path)
    return recorded_bank(path, tokenizer)


def recorded_bank(
    source: RecordedFlow | str | Path,
    tokenizer: Reading,
    contexts: tuple[int, int, int] = (64, 16, 16),
    at: np.ndarray | None = None,
) -> ContextBank:
    """A bank over one recorded day, for flows that go on from where the record stands.

    Args:
        source: a recorded flow, or the path of a saved day (.npz), a data folder or a LOBSTER message file.
        tokenizer: of the model that will read on.
        contexts: how many start states to take from the train, validation and test part of the day.
        at: ``(c,)`` ascending positions in ``records`` with a two-sided book before them, where the states stand
            instead of ``contexts``; all of them count as training states.

    Returns:
        A bank with the STREAM_STATE of each context *before* the records that it carries.

    Raises:
        FileNotFoundError, ValueError: if the path holds no usable day; the message names it.
    """
    if isinstance(source, RecordedFlow):
        recorded = source
    else:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(
                f"context path {str(path)!r} does not exist; it must be a saved day (.npz), a data folder or a "
                "LOBSTER message file"
            )
        recorded = load_day(path) if path.suffix == ".npz" else load(path)
    day = prepare(recorded, contexts, horizon=BLOCK, at=at)  # the record is only a start: nothing of it is replayed
    part = split(recorded).train
    features, index, stream = features_of(recorded, tokenizer)
    spread, median = float(stream["usual_spread"][0]), float(stream["median_size"][0])
    shares = calibrate_placement(recorded, part, features, index, tokenizer.depth_edges, spread, tokenizer.mid_mode)
    followed = calibrate_followers(recorded.records[part.start : part.stop], median)
    tables = tokenizer.tables_of(features[(index >= part.start) & (index < part.stop)])
    states = np.zeros(len(day.bank), FEATURE_STATE)
    done = 0
    tails = np.diff(day.bank.record_start)
    for context in np.argsort(day.start - tails, kind="stable"):
        begin = max(int(day.start[context] - tails[context]), done)
        observe(stream, recorded.records[done:begin])
        states[context], done = stream[0], begin
    return replace(day.bank, feature_state=stream_states(states, shares, followed, tables))


def features_of(recorded: RecordedFlow, tokenizer: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """FEATURES (n,) of a day as a model reads it, where they stand in its records (n,), and the stream before it."""
    part = split(recorded).train
    calibration, asset = calibrate(recorded, part), tokenizer.asset_of(asset_name(recorded.meta))
    return day_features(
        recorded.records, part, calibration.median_size, tokenizer.half_life_s, tokenizer.mid_mode, calibration.spread,
        asset,
    )  # fmt: skip


def stream_before(start: StartState, half_life_s: float, mid_mode: int) -> np.ndarray:
    """``(1,) STREAM_STATE`` *before* the records of a start state.

    A bank made for TradeFM stores it. Other banks give no more than the asset's scale; then the stream
    begins with the first record.

    Args:
        start: a start state of any bank.
        half_life_s: as in ``recorded_bank``.
        mid_mode: as in ``recorded_bank``.
    """
    stored, spread = start.feature_state, float(start.scale["spread"])
    if stored is not None and {"stream", "placement"} <= set(stored.dtype.names or ()):
        state = upgraded(stored.reshape(1))
        state["stream"]["half_life_s"], state["stream"]["mid_mode"] = half_life_s, mid_mode
        state["stream"]["usual_spread"] = spread
        return state
    stream = new_state(1, float(start.scale["median_size"]), (0.0, 0.0), half_life_s, mid_mode, spread)
    stream["book_mid"] = 0.5 * start.mid2
    return stream_states(stream)
