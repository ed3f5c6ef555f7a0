"""A market's state as a value: to copy, to compare, to save and to send to another process."""

import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.snapshot_bytes import DIGEST, pack, unpack
from tradefm_gym.market.snapshot_checks import check
from tradefm_gym.market.snapshot_parts import REBUILT, blank, in_use, take


class Snapshot:
    """The state of some markets at one moment: books, accounts, tapes, queues, clocks and counters.

    A value: its arrays cannot be written, two of equal markets are equal, and it can be pickled (as its bytes).
    The state of a flow, such as a model's cache, is no part of it.

    Attributes:
        config: the markets' capacities and rules.
        arrays: by name. Most have an entry for each market. Those of which a market uses a part (``orders``,
            ``records``, ``fills``, ``flow_queue``, ``agent_queue``) have the used parts one after another, rings
            from their oldest entry on; how long each is follows from ``row`` and ``clocks``.

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
        """Writes the bytes to a file, which is replaced at once or not at all."""
        path = Path(path)
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
        """Reads what :meth:`save` wrote; a ``ValueError`` as of :meth:`from_bytes` names the file."""
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
    wanted = {name for name in arrays if name not in REBUILT}
    if wanted != set(snapshot.arrays):
        odd = ", ".join(sorted(shortened(name) for name in wanted ^ set(snapshot.arrays)))
        raise ValueError(f"snapshot and market differ in their arrays ({odd}); allowed are the same.")
    parts = in_use(config, snapshot.arrays["row"], snapshot.arrays["clocks"])
    for name in wanted:
        kept, own = snapshot.arrays[name], arrays[name]
        shape = (int(parts[name][1].sum()),) if name in parts else (len(rows), *own.shape[1:])
        if kept.dtype != own.dtype or kept.shape != shape:
            raise ValueError(f"snapshot has {name} of another shape or dtype; allowed is {shape} of {own.dtype}.")
