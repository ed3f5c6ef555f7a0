"""A recorded episode: all that a picture or a comparison needs, in one file."""

import json
import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import one_sentence

VERSION = 1
LEVELS = 20  # a side


@dataclass(frozen=True)
class Episode:
    """One agent's episode of T decisions. It is looked at T + 1 times: at its start and after each decision.

    Prices are ticks, sizes lots, money 1/1000 tick-lots, times ns, doubled mids 0 while unknown.

    Attributes:
        time_ns: (T + 1,) int64.
        event: (T + 1,) int64, events of the tape before each look.
        prices: (T + 1, 2, LEVELS) int32, bids first; 0 where there is no level.
        sizes: (T + 1, 2, LEVELS) int32, own orders among them.
        mid2: (T + 1,) int64, doubled mid of the market, own orders among it.
        mid: (T + 1,) float64, the mid without them that rewards know.
        twin_mid: (T + 1,) float64, that of the market without the agent; NaN where there is none.
        inventory: (T + 1,) int64.
        cash: (T + 1,) int64.
        fees: (T + 1,) int64.
        own: (k, 3) int64, own resting orders: look, price, lots.
        quotes: (q, 4) int64, own orders while they rested: event of the tape that brought it, event that ended it (E if
            none has), price, lots at first.
        tape_time_ns: (E,) int64, events from the start on.
        tape_kind: (E,) uint8, see ``market.events``.
        tape_side: (E,) int8.
        tape_price: (E,) int32.
        tape_size: (E,) int32.
        tape_own: (E,) bool.
        tape_mid2: (E,) int32, after each event.
        fill_event: (F,) int64, which event of the tape executed it.
        fill_price: (F,) int32.
        fill_size: (F,) int32.
        fill_side: (F,) int8, 1 the agent bought, -1 it sold, 0 it had no part in it.
        fill_made: (F,) bool, the agent's order was resting.
        actions: (T, act) float64.
        rewards: (T,) float64.
        terms: (T, k) float64, basis points, as ``info["terms"]`` has them.
        about: what can be said in JSON: ``environment``, ``terms`` (names), ``sign`` (-1 where they are costs),
            ``basis_point`` (money), ``seed``, ``episode``, ``lost`` (events that the tape no longer held), ``start``
            and ``final`` (infos).
    """

    time_ns: np.ndarray
    event: np.ndarray
    prices: np.ndarray
    sizes: np.ndarray
    mid2: np.ndarray
    mid: np.ndarray
    twin_mid: np.ndarray
    inventory: np.ndarray
    cash: np.ndarray
    fees: np.ndarray
    own: np.ndarray
    quotes: np.ndarray
    tape_time_ns: np.ndarray
    tape_kind: np.ndarray
    tape_side: np.ndarray
    tape_price: np.ndarray
    tape_size: np.ndarray
    tape_own: np.ndarray
    tape_mid2: np.ndarray
    fill_event: np.ndarray
    fill_price: np.ndarray
    fill_size: np.ndarray
    fill_side: np.ndarray
    fill_made: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terms: np.ndarray
    about: dict[str, Any]

    def save(self, path: str | os.PathLike) -> Path:
        """Writes a compressed ``.npz``; an existing file is replaced when all is written."""
        path = Path(path)
        temporary = path.with_name(f"{path.name}.tmp")
        columns = {name: getattr(self, name) for name in _ARRAYS}
        with one_sentence(path, "written", "a file in a folder that exists"):
            with temporary.open("wb") as stream:
                about = json.dumps({"version": VERSION, **self.about})
                np.savez_compressed(stream, about=np.array(about), **columns)  # pyright: ignore[reportArgumentType]
            temporary.replace(path)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Episode":
        """Reads what ``save`` wrote.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if it is something else, or of another version.
        """
        said = f"path is {os.fspath(path)!r}; it must name an episode of version {VERSION}, as EpisodeRecorder writes"
        with one_sentence(path, "read", "an episode"):
            try:
                with np.load(path, allow_pickle=False) as stored:
                    about = json.loads(str(stored["about"]))
                    if about.pop("version") != VERSION:
                        raise ValueError(said)
                    return cls(**{name: stored[name] for name in _ARRAYS}, about=about)
            except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile):
                raise ValueError(said) from None


_ARRAYS = tuple(field.name for field in fields(Episode) if field.name != "about")
