"""Token shards: order flow tokenized once, in files that training maps into memory.

A folder of shards holds ``tokenizer.json``, files of ``TOKENS`` records without a header (``train-00000.tokens``), and
``index.json``, which says where each segment lies: one day's events of one part, contiguous in time, in one file.
Nothing in it is a program or can name a file elsewhere. What is read is checked against the index before it is used.
"""

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.arguments import one_sentence, shortened
from tradefm_gym.model.config import FLAGS, LEVELS, LIQUIDITIES, VOCABULARY
from tradefm_gym.model.token_events import TOKENS
from tradefm_gym.model.tokenizer import TradeTokenizer

KIND, FORMAT_VERSION = "token shards", 1
INDEX_FILE = "index.json"
PARTS = ("train", "validation", "test")
_FILE_EVENTS = 1 << 24  # a file holds no more unless one segment does: 805 MB
_CHUNK = 1 << 20  # events that are checked at a time
_LARGEST_INDEX = 1 << 28  # bytes


class Segment(NamedTuple):
    """Where one day's events of one part lie."""

    set: str
    file: str
    start: int  # events before it in the file
    events: int
    crc: int  # CRC-32 of its bytes


@dataclass(frozen=True)
class Shards:
    """An opened folder of shards.

    Attributes:
        folder: where it is.
        tokenizer: what the tokens were made with.
        sets: what is known of each asset-day, by name, in order.
        segments: of each part, in the order of the sets.
        provenance: how the shards were made.
    """

    folder: Path
    tokenizer: TradeTokenizer
    sets: dict[str, dict[str, Any]]
    segments: dict[str, tuple[Segment, ...]]
    provenance: dict[str, Any] = field(default_factory=dict)

    def events(self, part: str) -> int:
        """Events of a part."""
        return sum(segment.events for segment in self.segments[part])

    @property
    def digest(self) -> str:
        """What identifies tokenizer and events, wherever they lie and in whatever files."""
        events = {part: [(s.set, s.events, s.crc) for s in self.segments[part]] for part in PARTS}
        return hashlib.sha256(json.dumps([self.tokenizer.to_json(), events]).encode()).hexdigest()

    def tokens(self, part: str, name: str | None = None) -> list[np.ndarray]:
        """``(n,) TOKENS`` of each segment of a part, of one set or of all; mapped, not read."""
        chosen = [s for s in self.segments[part] if name in (None, s.set)]
        return [_map(self.folder / s.file, s) for s in chosen]

    def latest(self, share: float) -> "Shards":
        """The same with the last ``share`` in (0, 1] of each training segment only, two events at least."""
        if not 0 < share <= 1:
            raise ValueError(f"share is {shortened(share)}; allowed is a share in (0, 1]")
        kept = []
        for segment in self.segments["train"]:
            events = max(2, round(share * segment.events))
            one = segment._replace(start=segment.start + segment.events - events, events=events)
            kept.append(one._replace(crc=_crc(_map(self.folder / one.file, one))))
        return replace(self, segments=self.segments | {"train": tuple(kept)})


class ShardWriter:
    """Writes shards; the folder appears, complete, when ``finish`` is called.

    Args:
        out: a folder that does not exist yet, or holds nothing.
        tokenizer: what the tokens are made with.
    """

    def __init__(self, out: Path, tokenizer: TradeTokenizer):
        self.out, self.tokenizer = out, tokenizer
        out.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=".", suffix=".partial"))
        self._sets: dict[str, dict[str, Any]] = {}
        self._segments: dict[str, list[Segment]] = {part: [] for part in PARTS}

    def add(self, name: str, meta: Mapping[str, Any], parts: Mapping[str, np.ndarray]) -> None:
        """Appends one asset-day: its ``(n,) TOKENS`` by part."""
        self._sets[name] = dict(meta)
        for part, tokens in parts.items():
            if len(tokens) < 2:  # nothing to predict
                continue
            file, start = self._place(part, len(tokens))
            with (self._partial / file).open("ab") as out:
                tokens.tofile(out)
            self._segments[part].append(Segment(name, file, start, len(tokens), _crc(tokens)))

    def finish(self, provenance: Mapping[str, Any]) -> Shards:
        """Writes index and tokenizer, and moves the folder to its place."""
        if not self._segments["train"]:
            raise ValueError("data holds no training events; shards need at least two with a known mid")
        order = {name: number for number, name in enumerate(sorted(self._sets))}
        segments = {part: sorted(self._segments[part], key=lambda s: order[s.set]) for part in PARTS}
        index = {
            "kind": KIND, "format": FORMAT_VERSION, "record_bytes": TOKENS.itemsize, "provenance": dict(provenance),
            "sets": {name: self._sets[name] for name in order},
            "segments": {part: [s._asdict() for s in segments[part]] for part in PARTS},
        }  # fmt: skip
        (self._partial / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        self.tokenizer.save(self._partial / "tokenizer.json")
        self._partial.chmod(0o755)
        if self.out.exists():
            self.out.rmdir()
        os.replace(self._partial, self.out)
        return open_shards(self.out, verify=False)

    def discard(self) -> None:
        """Removes what was written, if it has not been finished."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _place(self, part: str, events: int) -> tuple[str, int]:
        last = self._segments[part][-1] if self._segments[part] else None
        if last is None:
            return f"{part}-00000.tokens", 0
        end = last.start + last.events
        if end + events <= _FILE_EVENTS:
            return last.file, end
        return f"{part}-{int(last.file[-12:-7]) + 1:05d}.tokens", 0


def is_shards(folder: str | Path) -> bool:
    """Whether a folder has the index of shards."""
    return (Path(folder) / INDEX_FILE).is_file()


def open_shards(folder: str | Path, verify: bool = True) -> Shards:
    """Opens a folder of shards and checks it.

    Args:
        folder: what ``ShardWriter`` wrote.
        verify: read everything once, and compare checksums and ranges; otherwise only names and lengths.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if the folder holds no shards, other ones, or damaged ones.
    """
    folder = Path(folder)
    index = _read_index(folder / INDEX_FILE)
    tokenizer = TradeTokenizer.load(folder / "tokenizer.json")
    try:
        segments = {part: tuple(_segment(values) for values in index["segments"][part]) for part in PARTS}
        sets = {str(name): dict(meta) for name, meta in index["sets"].items()}
        provenance = dict(index["provenance"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{folder / INDEX_FILE} is no index of token shards: {error!r}") from None
    shards = Shards(folder, tokenizer, sets, segments, provenance)
    for segment in _all(shards):
        if segment.set not in sets:
            raise ValueError(f"{folder / INDEX_FILE} has a segment of {shortened(segment.set)}, which is no set of it")
    _check_lengths(shards)
    if verify:
        for segment in _all(shards):
            _verify(folder / segment.file, segment, tokenizer)
    return shards


def _all(shards: Shards) -> Iterator[Segment]:
    return (segment for part in PARTS for segment in shards.segments[part])


def _read_index(path: Path) -> dict[str, Any]:
    with one_sentence(path, "read", f"the index of {KIND}"):
        if not path.is_file():
            raise FileNotFoundError(2, f"there is no {INDEX_FILE}")
        size = path.stat().st_size
        text = path.read_bytes() if size <= _LARGEST_INDEX else b""
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({str(error) or 'nested too deeply'}); it must be an index") from None
    if not isinstance(index, dict) or index.get("kind") != KIND:
        found = index.get("kind") if isinstance(index, dict) else index
        raise ValueError(f"{path} holds {shortened(found)}; {KIND!r} are needed")
    for name, known in (("format", FORMAT_VERSION), ("record_bytes", TOKENS.itemsize)):
        if index.get(name) != known:
            raise ValueError(f"{path} has {name} {shortened(index.get(name))}; this version reads {known}")
    return index


def _segment(values: Mapping[str, Any]) -> Segment:
    segment = Segment(**values)
    numbers = (segment.start, segment.events, segment.crc)
    if not all(type(n) is int and n >= 0 for n in numbers) or not 2 <= segment.events < 2**40:
        raise ValueError(f"start, events and crc of a segment are {numbers}")
    # A name that leaves the folder would have another's files read.
    if not isinstance(segment.file, str) or segment.file != Path(segment.file).name or segment.file[-7:] != ".tokens":
        raise ValueError(f"file of a segment is {segment.file!r}")
    return segment


def _check_lengths(shards: Shards) -> None:
    ends: dict[str, int] = {}
    for segment in _all(shards):
        ends[segment.file] = max(ends.get(segment.file, 0), segment.start + segment.events)
    for name, events in ends.items():
        path, wanted = shards.folder / name, events * TOKENS.itemsize
        with one_sentence(path, "read", "a file of the index"):
            found = path.stat().st_size
        if found != wanted:
            raise ValueError(f"{path} has {found} bytes where its index says {wanted}; it is damaged")


def _map(path: Path, segment: Segment) -> np.ndarray:
    return np.memmap(path, TOKENS, "r", segment.start * TOKENS.itemsize, (segment.events,))


def _chunks(tokens: np.ndarray) -> Iterable[np.ndarray]:
    return (tokens[i : i + _CHUNK] for i in range(0, len(tokens), _CHUNK))


def _crc(tokens: np.ndarray) -> int:
    crc = 0
    for chunk in _chunks(tokens):
        crc = zlib.crc32(chunk.tobytes(), crc)
    return crc


def _verify(path: Path, segment: Segment, tokenizer: TradeTokenizer) -> None:
    tokens = _map(path, segment)
    if _crc(tokens) != segment.crc:
        raise ValueError(f"{path} is damaged: the events of {segment.set!r} do not have their checksum")
    # A checksum proves that nothing changed since; whoever wrote it may have written anything.
    told = (tokenizer.spreads * tokenizer.paces, tokenizer.pressures * (len(tokenizer.assets) + 1))
    sizes = (LIQUIDITIES * told[0], FLAGS * told[1], tokenizer.books or LEVELS, VOCABULARY)
    for chunk in _chunks(tokens):
        sound = all((chunk[way] < np.array(sizes)).all() for way in ("straight", "mirrored"))
        sound &= all((chunk[name] <= 1).all() for name in ("action", "side", "taker", "flag"))
        sound &= bool(np.isfinite(chunk["seconds"]).all() and np.isfinite(chunk["level"]).all())
        if not sound:
            raise ValueError(f"{path} has events of {segment.set!r} that its tokenizer does not have; it is foreign")
