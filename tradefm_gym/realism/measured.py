"""What a card keeps of an arm: samples of its paths, and its forecasts. Paths themselves are too large to keep."""

import json
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tradefm_gym.realism.distances import Sample
from tradefm_gym.realism.path import MarketPath
from tradefm_gym.realism.quantities import (
    BLOCK_S,
    LEAST_RETURNS,
    RETURN_SECONDS,
    mid_on_grid,
    samples,
    taker_response,
    windows,
)

MOST = 20_000  # values of a sample; of more, every k-th is kept
MOST_WINDOWS = 4_000
TOLD = 0.8  # of the paths must hold returns over an interval: those that do are the slow ones
QUIET_S = 60  # a path counts for facts of returns if it lasts so long
FILL_WINDOW = 64  # events

# (statistic, condition)
GIVEN = (
    ("touch_depth", "spread"),
    ("spread", "touch_depth"),
    ("inter_arrival", "previous"),
    ("next_move", "imbalance"),
    ("taker_response", "taker_size"),
)
NEXT_EVENTS = 16  # that a next move spans
# How rollouts fare as they go on: stretches of events from their start, the last to the end, and what is looked at.
STRETCHES = {"events_0_to_256": (0, 256), "events_256_to_1024": (256, 1024), "events_from_1024": (1024, None)}
ALONG = ("spread", "touch_depth", "imbalance", "inter_arrival", "order_size")
# What zipfile, zlib, lzma, numpy and columns without their like lead to where a file is damaged.
_DAMAGED = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError,
    RuntimeError, SyntaxError, struct.error, zlib.error, lzma.LZMAError, tokenize.TokenError, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(eq=False)
class Measured:
    """An arm of one set.

    Attributes:
        samples: by the names of ``quantities.QUANTITIES``.
        given: by "statistic|condition" of ``GIVEN`` the condition's and the statistic's sample.
        first, last: samples of the first and of the last quarter of each path, for rollouts.
        along: by "quantity|stretch" of ``ALONG`` and ``STRETCHES`` samples of rollouts as they go on.
        windows: (w, f) features of windows for the discriminator, and their blocks (w,).
        returns, volumes, signs: stretches of returns and volumes in a second, and of takers' sides.
        health: per path the share of events that left a side empty, and the largest spread in ticks (p, 2).
        fills: (w, 2) number and volume of fills in windows of ``FILL_WINDOW`` events, volume in median sizes.
        ensemble: (s, m, c) forecasts, or empty.
        truth: (s, c) what happened.
        blocks: (s, c) starts that are resampled together.
        seeds: how many paths were rolled out, 1 for a record.
    """

    samples: dict[str, Sample] = field(default_factory=dict)
    given: dict[str, tuple[Sample, Sample]] = field(default_factory=dict)
    first: dict[str, Sample] = field(default_factory=dict)
    last: dict[str, Sample] = field(default_factory=dict)
    along: dict[str, Sample] = field(default_factory=dict)
    windows: tuple[np.ndarray, np.ndarray] = (np.zeros((0, 1)), np.zeros(0, np.int64))
    returns: list[np.ndarray] = field(default_factory=list)
    volumes: list[np.ndarray] = field(default_factory=list)
    signs: list[np.ndarray] = field(default_factory=list)
    health: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    fills: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    ensemble: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0)))
    truth: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    blocks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    seeds: int = 1

    def save(self, path: Path, key: str) -> None:
        """Writes an ``.npz``; an existing file is replaced when all is written."""
        columns: dict[str, np.ndarray] = {"key": np.array(key), "seeds": np.array(self.seeds)}
        for name in ("samples", "first", "last", "along"):
            for quantity, sample in getattr(self, name).items():
                columns |= _columns(f"{name}/{quantity}", sample)
        for name, (x, y) in self.given.items():
            columns |= _columns(f"given/{name}/x", x) | _columns(f"given/{name}/y", y)
        for name in ("returns", "volumes", "signs"):
            columns |= {f"{name}/{i}": stretch for i, stretch in enumerate(getattr(self, name))}
        columns["windows/values"], columns["windows/block"] = self.windows
        columns |= {name: getattr(self, name) for name in _PLAIN}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.tmp")
        with temporary.open("wb") as stream:
            np.savez_compressed(stream, **columns)  # pyright: ignore[reportArgumentType]
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path, key: str) -> "Measured | None":
        """Reads what ``save`` wrote; None if there is nothing, something else, or something damaged."""
        try:
            with path.open("rb") as stream, np.load(stream) as archive:
                if str(archive["key"]) != key:
                    return None
                return cls._of({name: archive[name] for name in archive.files})
        except _DAMAGED:
            return None

    @classmethod
    def _of(cls, columns: dict[str, np.ndarray]) -> "Measured":
        found = cls(seeds=int(columns["seeds"]), windows=(columns["windows/values"], columns["windows/block"]))
        for name in _PLAIN:
            setattr(found, name, columns[name])
        for name in (name for name in columns if name.endswith("/values") and not name.startswith("windows")):
            kind, quantity, *rest = name.split("/")
            sample = Sample(columns[name], columns[name.removesuffix("values") + "block"])
            if kind != "given":
                getattr(found, kind)[quantity] = sample
            elif rest[0] == "x":
                y = f"given/{quantity}/y/"
                found.given[quantity] = (sample, Sample(columns[y + "values"], columns[y + "block"]))
        for name in ("returns", "volumes", "signs"):
            count = sum(column.startswith(f"{name}/") for column in columns)
            setattr(found, name, [columns[f"{name}/{i}"] for i in range(count)])
        return found


_PLAIN = ("health", "fills", "ensemble", "truth", "blocks")


def measure(paths: Sequence[MarketPath], quarters: bool = False) -> Measured:
    """Everything of ``Measured`` but the forecasts.

    Args:
        paths: of one asset; at least one event in all.
        quarters: whether first and last quarters, and stretches from the start on, are kept: for rollouts that started
            together.
    """
    pieces = [piece for path in paths for piece in path.pieces()]
    returns, volumes = _by_second(pieces)
    return Measured(
        samples=_samples(paths),
        given=_given(pieces),
        first=_samples([path.between(0, len(path) // 4) for path in paths]) if quarters else {},
        last=_samples([path.between(3 * len(path) // 4, len(path)) for path in paths]) if quarters else {},
        along=_along(paths) if quarters else {},
        windows=_windows(paths),
        returns=returns,
        volumes=volumes,
        signs=[piece.records["side"][piece.takes].astype(np.float64) for piece in pieces if piece.takes.any()],
        health=np.array([_health(path) for path in paths]),
        fills=np.concatenate([np.zeros((0, 2)), *(fills_by_window(path) for path in paths)]),
        seeds=len(paths),
    )


def fills_by_window(path: MarketPath) -> np.ndarray:
    """Number of fills and lots filled, in median sizes, in each whole window of ``FILL_WINDOW`` events (w, 2).

    A fill is one resting order that a taker met, of the background only.
    """
    count = len(path) // FILL_WINDOW
    ends = path.records["time_ns"][FILL_WINDOW - 1 : count * FILL_WINDOW : FILL_WINDOW]
    place = np.searchsorted(ends, path.fills["time_ns"])
    place = place[place < count]
    sizes = path.fills["size"][: len(place)] / float(path.scale["median_size"])
    return np.stack([np.bincount(place, minlength=count), np.bincount(place, sizes, count)], axis=1).astype(float)


def _columns(name: str, sample: Sample) -> dict[str, np.ndarray]:
    return {f"{name}/values": sample.values, f"{name}/block": sample.block.astype(np.int32)}


def _samples(paths: Sequence[MarketPath]) -> dict[str, Sample]:
    spans = np.array([path.end_ns - path.start_ns for path in paths]) / 1e9
    told = [seconds for seconds in RETURN_SECONDS if (spans >= LEAST_RETURNS * seconds).mean() >= TOLD]
    return {name: _every(sample) for name, sample in samples(paths, told).items()}


def _along(paths: Sequence[MarketPath]) -> dict[str, Sample]:
    found = {}
    for stretch, (first, last) in STRETCHES.items():
        parts = [path.between(first, min(last or len(path), len(path))) for path in paths if len(path) > first]
        told = samples(parts, ())
        found |= {f"{name}|{stretch}": _every(told[name]) for name in ALONG if name in told}
    return found


def _every(sample: Sample) -> Sample:
    step = -(-len(sample.values) // MOST)
    return Sample(sample.values[::step], sample.block[::step])


def _windows(paths: Sequence[MarketPath]) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MOST_WINDOWS``, of evenly chosen paths."""
    total = sum(len(path) // 64 for path in paths)
    features, blocks = windows(paths[:: max(1, total // MOST_WINDOWS)])
    return (features, blocks) if len(blocks) else (np.zeros((0, 1)), blocks)


def _given(pieces: Sequence[MarketPath]) -> dict[str, tuple[Sample, Sample]]:
    """Conditions and statistics, event by event."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {"|".join(pair): [] for pair in GIVEN}
    for number, path in enumerate(pieces):
        block = number * 100_000 + (path.seconds // BLOCK_S).astype(np.int64)
        both, touch = path.two_sided, path.book[:, 0].astype(np.float64)
        columns = {
            "spread": touch[:, 0] - touch[:, 2],
            "touch_depth": touch[:, [1, 3]].mean(1) / float(path.scale["median_size"]),
            "imbalance": (touch[:, 3] - touch[:, 1]) / np.maximum(touch[:, 1] + touch[:, 3], 1),
            "next_move": _next_move(path.mid),
            "taker_response": np.where(path.takes, taker_response(path), np.nan),
            "taker_size": path.records["filled"] / float(path.scale["median_size"]),
        }
        gaps = np.diff(path.records["time_ns"], prepend=path.start_ns) / 1e9
        columns["inter_arrival"], columns["previous"] = gaps, np.concatenate([gaps[:1], gaps[:-1]])
        for statistic, condition in GIVEN:
            y, x = columns[statistic], columns[condition]
            use = np.isfinite(y) & (both if statistic != "inter_arrival" else np.arange(len(path)) > 1)
            found[f"{statistic}|{condition}"].append((x[use], y[use], block[use]))
    pairs = {}
    for name, parts in found.items():
        x, y, block = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(x):
            pairs[name] = _every(Sample(x, block)), _every(Sample(y, block))
    return pairs


def _next_move(mid: np.ndarray) -> np.ndarray:
    """Change of the mid over the next events in basis points, NaN at the end."""
    moves = np.full(len(mid), np.nan)
    if len(mid) > NEXT_EVENTS:
        moves[:-NEXT_EVENTS] = 1e4 * (mid[NEXT_EVENTS:] / mid[:-NEXT_EVENTS] - 1)
    return moves


def _by_second(pieces: Sequence[MarketPath]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Log returns in basis points and volumes in median sizes, second by second."""
    returns, volumes = [], []
    for path in pieces:
        moves = 1e4 * np.diff(np.log(mid_on_grid(path, 1.0)))
        if len(moves) >= QUIET_S:
            filled = np.where(path.cancels, 0, path.records["filled"]) / float(path.scale["median_size"])
            seen = path.seconds < len(moves)
            volumes.append(np.bincount(path.seconds[seen].astype(np.int64), filled[seen], len(moves)))
            returns.append(moves)
    return returns, volumes


def _health(path: MarketPath) -> tuple[float, float]:
    both = path.two_sided
    spread = (path.book[:, 0, 0] - path.book[:, 0, 2])[both]
    return (float(1 - both.mean()) if len(both) else 1.0), float(spread.max(initial=0))


def pictured(measured: Measured) -> Measured:
    """What pictures need of it; the rest takes memory."""
    return replace(measured, given={}, first={}, last={}, along={}, windows=(np.zeros((0, 1)), np.zeros(0, np.int64)))


def described(key: dict) -> str:
    """A key as text, equal for equal content."""
    return json.dumps(key, sort_keys=True, default=str)
