"""One recorded day as a card looks at it: its parts, the moments to forecast from, and its arms without a model."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.recorded_starts import BLOCK, prepare, scale_of
from tradefm_gym.flow.replay import ReplayFlow
from tradefm_gym.market.events import PRINT
from tradefm_gym.realism.forecasts import start_events
from tradefm_gym.realism.path import MarketPath, recorded_path, roll_out
from tradefm_gym.realism.round_trip import RoundTripFlow

STRETCH = 1024  # events after which what is run without order ids begins again from the recorded book


class RecordedSet:
    """A recorded day. What takes time is done when it is first asked for.

    Attributes:
        name: what the card calls it.
        digest: twelve hexadecimal digits that name the content of its files and how they are read.
        fold_of: name of the day that this is a fold of, None for a day.
    """

    def __init__(self, name: str, load: Callable[[], RecordedFlow], digest: str, fold_of: str | None = None) -> None:
        self.name, self.digest, self.fold_of = name, digest, fold_of
        self._load = load

    @cached_property
    def recorded(self) -> RecordedFlow:
        """The day."""
        return self._load()

    @cached_property
    def path(self) -> MarketPath:
        """The whole of it."""
        return recorded_path(self.recorded, scale_of(calibrate(self.recorded)))

    @cached_property
    def positions(self) -> np.ndarray:
        """Where the events of ``path`` stand in ``recorded.records``, (n,) int64."""
        return np.flatnonzero(self.recorded.flow["kind"] != PRINT) + self.recorded.opening

    def fold(self, number: int, folds: int) -> "RecordedSet":
        """Fold ``number`` of ``folds``: the day up to a time in its second half, as a day of its own.

        Folds grow: a flow is always fitted to what came before its test part. A model of one's own is not trained
        anew, and may have seen the test parts of all but the last.
        """

        def load() -> RecordedFlow:
            day = self.recorded
            time = day.records["time_ns"]
            share = 0.5 + 0.5 * (number + 1) / folds
            first = time[day.opening]
            end = int(np.searchsorted(time, first + np.int64(share * (time[-1] - first)), side="right"))
            short = {name: getattr(day, name)[:end] for name in ("records", "touch", "source_row")}
            fills = day.fills[day.fills["time_ns"] <= time[end - 1]]
            return replace(day, **short, fills=fills, book=None if day.book is None else day.book[:end])

        name = f"fold{number + 1}of{folds}"
        return RecordedSet(f"{self.name}-{name}", load, f"{self.digest}-{name}", self.name)

    def part(self, name: str) -> tuple[int, int]:
        """First and last event of "train", "validation" or "test" in ``path``, the latter not included."""
        part = getattr(split(self.recorded), name)
        first, last = np.searchsorted(self.positions, [part.start, part.stop])
        return int(first), int(last)

    def starts(self, wanted: int) -> np.ndarray:
        """Events of the test part at which forecasts start, (s,) int64.

        Raises:
            ValueError: if the test part is shorter than the longest horizon.
        """
        found = start_events(self.path, *self.part("test"), wanted)
        if len(found) < 2:
            first, last = self.part("test")
            raise ValueError(
                f"set {self.name!r} has {last - first} events in its test part, the last 15% of the day; there must be "
                "more than the longest horizon of forecasts, 1,024 events and 30 seconds"
            )
        return found

    def stretches(self) -> np.ndarray:
        """Events of the test part at which stretches of ``STRETCH`` begin, (s,) int64."""
        first, last = self.part("test")
        return self.starts(max(2, (last - first) // STRETCH))

    def test_path(self) -> MarketPath:
        """The test part, from the first moment in it at which a replay can begin."""
        return self.path.between(int(self.starts(2)[0]), self.part("test")[1])

    def replayed(self) -> list[MarketPath]:
        """The test part executed again, from its recorded book on: in one piece where orders are known by id."""
        last = self.part("test")[1]
        starts = self.starts(2)[:1] if self.recorded.meta.replay_by_id else self.stretches()
        day = prepare(self.recorded, horizon=BLOCK, at=self.positions[starts])
        events = last - int(starts[0]) if self.recorded.meta.replay_by_id else STRETCH
        return _run(ReplayFlow(len(starts), day), events)

    def round_trip(self, model: str) -> list[MarketPath]:
        """Stretches of the test part through the tokenizer of ``model`` and back, from the recorded book on."""
        starts = self.stretches()
        return _run(RoundTripFlow(model, self.recorded, self.positions[starts], len(starts)), STRETCH)

    def real_stretches(self) -> list[MarketPath]:
        """The stretches as recorded."""
        return [self.path.between(start, start + STRETCH) for start in self.stretches().tolist()]


def _run(flow: FlowModel, events: int) -> list[MarketPath]:
    each = np.arange(flow.num_envs)
    return roll_out(flow, each, each.astype(np.uint64), events, most=events)


def digest_of(path: Path, reading: str = "") -> str:
    """Hash of a file, or of the files in a folder, and of how they are read.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
    """
    if not path.exists():
        raise FileNotFoundError(f"data {str(path)!r} does not exist; it must be a recorded day")
    total = hashlib.sha256(reading.encode())
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:12]
