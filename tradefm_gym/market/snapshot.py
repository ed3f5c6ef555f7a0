"""A market's state as a value: to copy, to compare, to save and to send to another process."""

import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tradefm_gym.arguments import one_sentence, shortened
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.snapshot_bytes import DIGEST, pack, unpack
from tradefm_gym.market.snapshot_checks import check
from tradefm_gym.market.snapshot_parts import blank, each_market, in_use, is_kept, take


class Snapshot:
    """The state of some markets at one moment: books, accounts, tapes, queues, clocks, counters, and what is under way.

    A value: its arrays cannot be written, two of equal markets are equal, and it can be pickled (as its bytes).
    The state of a flow, such as a model's cache, is no part of it.

    Attributes:
        config: the markets' capacities and rules.
        arrays: by name. Most have an entry for each market. Those of which a market uses a part (``orders``,
            ``records``, ``fills``, ``flow_queue``, ``agent_queue``, ``log``) have the used parts one after another,
            rings from their oldest entry on; how long each is follows from ``row`` and ``clocks``. What a seat with
            late data sees is there as another market, its arrays named ``view_SEAT_...``.

    Raises:
        ValueError: if no market could be in this state.
    """

    def __init__(self, config: MarketConfig, arrays: Mapping[str, np.ndarray]):
        if not isinstance(config, MarketConfig):
            raise ValueError(f"config is {shortened(config)}; it must be a MarketConfig")
        self._check(config, {name: np.array(array, order="C") for name, array in arrays.items()})

    @classmethod
    def of(cls, config: MarketConfig, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> "Snapshot":
        """The state of ``rows`` of a market with these arrays, which are taken as they are."""
        snapshot = cls.__new__(cls)
        snapshot._hold(config, take(config, arrays, rows))
        return snapshot

    def _check(self, config: MarketConfig, arrays: dict[str, np.ndarray]) -> None:
        for array in arrays.values():
            blank(array)
        check(config, arrays)
        self._hold(config, arrays)

    def _hold(self, config: MarketConfig, arrays: dict[str, np.ndarray]) -> None:
        for array in arrays.values():
            array.flags.writeable = False
        self.config, self.arrays = config, MappingProxyType(arrays)

    def __len__(self):
        return len(self.arrays["clocks"])

    def __repr__(self):
        return f"<Snapshot of {len(self)} markets, {self.digest[:12]}>"

    def __eq__(self, other):
        return self.digest == other.digest if isinstance(other, Snapshot) else NotImplemented

    def __hash__(self):
        return hash(self.digest)

    def __reduce__(self):
        return Snapshot.from_bytes, (self.to_bytes(),)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the bytes before it, as hexadecimal digits; equal for equal states."""
        return self.to_bytes()[-DIGEST:].hex()

    def to_bytes(self) -> bytes:
        """The snapshot in the format that ``snapshot_bytes`` describes; equal states give equal bytes."""
        return pack(self.config, self.arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """The inverse of :meth:`to_bytes`.

        It takes a small multiple of the bytes as memory. What a market of this configuration takes is looked at
        where one is made, see :meth:`MarketSimulator.from_snapshot`.

        Raises:
            ValueError: if the bytes are cut off, damaged, of another format or of a newer version, or say
                something that no market could be in.
        """
        snapshot = cls.__new__(cls)
        snapshot._check(*unpack(data))
        if snapshot.to_bytes() != bytes(data):
            raise ValueError("data is a snapshot written in another way than this format has; allowed is one way only.")
        return snapshot

    def save(self, path: str | os.PathLike) -> None:
        """Writes the bytes to a file, which is replaced at once or not at all.

        Raises:
            OSError: if the file cannot be written; one sentence that names it.
        """
        path = Path(path)
        with one_sentence(path, "written", "a file in a folder that exists"):
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(self.to_bytes())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Snapshot":
        """Reads what :meth:`save` wrote.

        Raises:
            OSError: if the file cannot be read; one sentence that names it.
            ValueError: as of :meth:`from_bytes`; it names the file.
        """
        with one_sentence(path, "read", "a file that Snapshot.save wrote"):
            data = Path(path).read_bytes()
        try:
            return cls.from_bytes(data)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def check_fits(snapshot: Snapshot, config: MarketConfig, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
    """Refuses a snapshot that ``rows`` of a market with these arrays cannot take."""
    if not isinstance(snapshot, Snapshot):
        raise ValueError(f"snapshot is {shortened(snapshot)}; it must be a Snapshot")
    if snapshot.config != config:
        raise ValueError("snapshot was taken from a market of another MarketConfig; allowed is an equal one.")
    if len(snapshot) != len(rows):
        raise ValueError(f"snapshot holds {len(snapshot)} rows for {len(rows)}; allowed is one each.")
    theirs = {prefix: kept for prefix, _, kept in each_market(config, snapshot.arrays)}
    for prefix, of_market, own in each_market(config, arrays):
        _check_arrays(of_market, prefix, theirs[prefix], own, len(rows))


def _check_arrays(
    config: MarketConfig, prefix: str, theirs: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], count: int
) -> None:
    wanted = {name for name in own if is_kept(name)}
    if wanted != set(theirs):
        odd = ", ".join(sorted(shortened(prefix + name) for name in wanted ^ set(theirs)))
        raise ValueError(f"snapshot and market differ in their arrays ({odd}); allowed are the same.")
    parts = in_use(config, theirs)
    for name in wanted:
        kept, array = theirs[name], own[name]
        shape = (int(parts[name][1].sum()),) if name in parts else (count, *array.shape[1:])
        if kept.dtype != array.dtype or kept.shape != shape:
            what = f"{prefix}{name} of another shape or dtype"
            raise ValueError(f"snapshot has {what}; allowed is {shape} of {array.dtype}.")
