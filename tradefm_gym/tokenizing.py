"""Recorded days into token shards: each day is read, split by time and tokenized by itself, so days may be many."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tradefm_gym.arguments import whole
from tradefm_gym.data.convert import check_new_folder
from tradefm_gym.data.day import load_day
from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, asset_name, load
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.market.features import FEATURES, day_features
from tradefm_gym.model.shards import PARTS, Shards, ShardWriter
from tradefm_gym.model.token_events import tokenize
from tradefm_gym.model.tokenizer import MID_MODES, TradeTokenizer
from tradefm_gym.model.tokenizer_options import TokenizerOptions

_MARGIN_NS = 60 * 10**9  # between a recording that only trains and another of the same hours


class DayParts(NamedTuple):
    """One asset-day as features, ``(n,) FEATURES`` by part."""

    name: str
    meta: FlowMeta
    parts: dict[str, np.ndarray]


def day_paths(sources: Sequence[Path]) -> dict[str, Path]:
    """Recorded days by name, in order: files and data folders as they are, other folders for what they hold.

    Raises:
        ValueError: if there is none, or two have the same name.
    """
    found: dict[str, Path] = {}
    for source in sources:
        inside = sorted([p.parent for p in source.glob("*/events.parquet")] + list(source.glob("*.npz")))
        for path in inside if source.is_dir() and not (source / "events.parquet").is_file() else [source]:
            name = path.name.removesuffix(".npz")
            if name in found:
                raise ValueError(f"data has two days named {name!r}, {found[name]} and {path}; names must differ")
            found[name] = path
    if not sources:
        raise ValueError("data names no days; it must name recorded days, or folders that hold some")
    if not found:
        names = ", ".join(str(source) for source in sources)
        raise ValueError(f"data is {names}; it must be recorded days, or folders that hold some (events.parquet, .npz)")
    return dict(sorted(found.items()))


def day_parts(
    paths: dict[str, Path], half_life_s: float, mid: str, minimum_events: int = 0, workers: int = 1
) -> Iterator[DayParts]:
    """Features of each day, split by time into train, validation and test (70 / 15 / 15%, with a gap).

    Days that cannot be replayed by id come last. Where another recording has the same asset and day, they only train,
    on the hours after it: the same hours must not be trained on here and scored there.

    Args:
        paths: from ``day_paths``.
        half_life_s: half-life of the VWAP.
        mid: what prices count from.
        minimum_events: smaller days are left out.
        workers: processes that read days; the order is the same for any number.
    """
    read = partial(_read, half_life_s=half_life_s, mid=mid, minimum_events=minimum_events)
    ends: dict[tuple[str, str], int] = {}
    later = {}
    for found in in_order(partial(read, by_id=True), paths.items(), workers):
        if not found.by_id:
            later[found.name] = paths[found.name]
        elif found.day is not None:
            meta = found.day.meta
            ends.setdefault((meta.ticker, meta.date), found.end_ns)
            yield found.day
    for found in in_order(partial(read, by_id=False), later.items(), workers):
        if (day := found.day) is None:
            continue
        end, train = ends.get((day.meta.ticker, day.meta.date)), day.parts["train"]
        yield day if end is None else day._replace(parts={"train": train[train["time_ns"] > end + _MARGIN_NS]})


def in_order(function: Callable, items: Iterable, workers: int) -> Iterator:
    """``map`` in several processes, which stay at most two items each ahead of whoever takes the results."""
    if workers == 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def write_shards(
    sources: Sequence[Path],
    out: Path,
    tokenizer: TradeTokenizer | None = None,
    options: TokenizerOptions | None = None,
    minimum_events: int = 0,
    workers: int = 1,
    tell: Callable[[str], None] = lambda text: None,
) -> Shards:
    """Tokenizes recorded days into a new folder of shards; memory follows the largest day.

    Args:
        sources: recorded days, or folders of them.
        out: a folder that does not exist yet; it appears once all is written.
        tokenizer: frozen bins; without one they are calibrated on the training parts, by ``options``.
        options: of a tokenizer to be calibrated.
        minimum_events: days with fewer are left out.
        workers: processes that read days; the files are the same for any number.
        tell: told what is being done.
    """
    check_new_folder(out)
    chosen = options or TokenizerOptions()
    chosen.check()
    workers, minimum_events = whole("workers", workers, 1), whole("minimum_events", minimum_events, 0)
    paths = day_paths(sources)
    provenance = {
        "made_by": f"tradefm-gym {version('tradefm-gym')}", "minimum_events": minimum_events,
        "split": "70 / 15 / 15% of each day by time, a gap of at most 60 s before validation and test",
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".", suffix=".features") as spool:
        if tokenizer is None:
            kept = _spooled(
                day_parts(paths, chosen.half_life_s, chosen.mid, minimum_events, workers), Path(spool), tell
            )
            if not kept:
                raise ValueError(f"minimum_events is {minimum_events}; none of the {len(paths)} days has as many")
            tokenizer, days = _calibrated(kept, chosen), iter(kept)
        else:
            days = day_parts(paths, tokenizer.half_life_s, tokenizer.mid, minimum_events, workers)
        writer = ShardWriter(out, tokenizer)
        try:
            for day in days:
                tell(f"{day.name}: tokens")
                asset = tokenizer.asset_of(asset_name(day.meta))
                parts = {part: tokenize(features, tokenizer, asset) for part, features in day.parts.items()}
                writer.add(day.name, _told(day.meta), parts)
            return writer.finish(provenance)
        finally:
            writer.discard()


class _Found(NamedTuple):
    name: str
    by_id: bool
    end_ns: int
    day: DayParts | None  # None: of the other kind, or too small


def _read(item: tuple[str, Path], half_life_s: float, mid: str, minimum_events: int, by_id: bool) -> _Found:
    """One day, if it can (``by_id``) or cannot be replayed by id."""
    name, path = item
    # What is inferred about the opening book comes from later rows: training must not see it.
    day = load_day(path) if path.suffix == ".npz" else load(path, infer_opening=False)
    wanted = day.meta.replay_by_id == by_id and len(day.flow) >= minimum_events
    parts = DayParts(name, day.meta, _features(day, half_life_s, mid)) if wanted else None
    return _Found(name, day.meta.replay_by_id, int(day.records["time_ns"][-1]), parts)


def _features(day: RecordedFlow, half_life_s: float, mid: str) -> dict[str, np.ndarray]:
    parts = split(day)
    calibration = calibrate(day, parts.train)
    features, index, _ = day_features(
        day.records, parts.train, calibration.median_size, half_life_s, MID_MODES[mid], calibration.spread
    )
    rows = {part: getattr(parts, part) for part in PARTS}
    return {part: features[(index >= r.start) & (index < r.stop)] for part, r in rows.items()}


def _told(meta: FlowMeta) -> dict:
    return {
        "ticker": meta.ticker, "venue": meta.venue, "date": meta.date, "source": Path(meta.source).name,
        "replay_by_id": meta.replay_by_id, "counts": dict(meta.counts),
    }  # fmt: skip


def _spooled(days: Iterator[DayParts], folder: Path, tell: Callable[[str], None]) -> list[DayParts]:
    """The days with their features in files, to be gone through twice."""
    kept = []
    for number, day in enumerate(days):
        tell(f"{day.name}: features")
        mapped = {}
        for part, features in day.parts.items():
            path = folder / f"{number}-{part}"
            features.tofile(path)
            mapped[part] = np.memmap(path, FEATURES, "r") if len(features) else features
        kept.append(day._replace(parts=mapped))
    return kept


def _calibrated(days: Sequence[DayParts], options: TokenizerOptions) -> TradeTokenizer:
    ordered = sorted(days, key=lambda day: day.name)
    stride, total = 1, sum(len(day.parts["train"]) for day in ordered)
    while total // stride > options.calibration_events:
        stride *= 2
    provenance = {"sets": [day.name for day in ordered], "part": "train, 70% of each day by time"}
    if stride > 1:
        provenance["every"] = stride
    assets = tuple(dict.fromkeys(asset_name(day.meta) for day in ordered))
    return TradeTokenizer.calibrate(
        [np.array(day.parts["train"][::stride]) for day in ordered], options.mid, options.half_life_s, provenance,
        options.pressure, options.book, options.pace, assets if options.assets else (),
    )  # fmt: skip
