"""What the Hawkes flow needs to know: the process, the marks of its twelve types, and a book to begin with."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.flow.hawkes_events import TYPES
from tradefm_gym.flow.hawkes_process import HawkesProcess, spectral_radius
from tradefm_gym.flow.parameter_files import array_of, check_keys, read_parameters, write_parameters

KIND = "parameters of the Hawkes flow"
FORMAT = 1
BUNDLED = Path(__file__).parent / "parameters" / "hawkes.json"
MARK_BITS = 10  # binary logarithm of the marks a type has
_LARGEST_SIZE = 1 << 24  # lots
_LARGEST_TICKS = 1 << 20
_LARGEST_RATE = 1e6  # events per second
_FASTEST = 1e9  # decays per second
_LATEST = 9e9  # seconds of a clock that counts ns in 64 bits
_WIDEST = 2**31 - 1
_SIDES = ("bids", "asks")
_AXES = {"baseline": 2, "amplitudes": 3, "marks": 3, "bids": 2, "asks": 2}  # levels of lists, 1 for the others
_KEYS = ("report", "types", *HawkesProcess._fields, "mid", "marks", *_SIDES)


@dataclass(frozen=True, eq=False)
class HawkesParameters:
    """A fitted Compound Hawkes flow. All arrays are checked when it is made.

    Attributes:
        process: intensities of the twelve types of ``hawkes_events.TYPES``; ``edges`` counts as seconds of the clock.
        marks: (12, m, 3) int32, equally likely: ticks (see ``hawkes_events.mark_tables``), lots, lots that may rest.
        bids: (b, 2) int32, ticks below the mid and lots of the orders of a usual book, oldest first.
        asks: (a, 2) int32, the same above the mid.
        mid: price in ticks at which that book stands.
        report: where the parameters come from and how well they fit; JSON-able, not read by the flow.
    """

    process: HawkesProcess
    marks: np.ndarray
    bids: np.ndarray
    asks: np.ndarray
    mid: int
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_process(self.process)
        count, marks = len(TYPES), self.marks
        if marks.ndim != 3 or marks.shape[0] != count or marks.shape[2] != 3 or not 1 <= marks.shape[1] <= 1 << 16:
            raise ValueError(f"marks have shape {marks.shape}; it must be ({count}, 1 to 65536, 3)")
        if np.abs(marks[:, :, 0]).max() > _LARGEST_TICKS:
            raise ValueError(f"marks reach {np.abs(marks[:, :, 0]).max()} ticks; at most {_LARGEST_TICKS} are allowed")
        if marks[:, :, 1].min() < 1 or marks[:, :, 1].max() > _LARGEST_SIZE or marks[:, :, 2].min() < 0:
            raise ValueError(f"marks must have 1 to {_LARGEST_SIZE} lots, of which 0 or more may rest")
        for name in ("bids", "asks"):
            orders = getattr(self, name)
            if (
                orders.ndim != 2
                or orders.shape[1] != 2
                or len(orders) == 0
                or orders.min() < 0
                or orders[:, 1].min() < 1
            ):
                raise ValueError(f"{name} must hold pairs of ticks of at least 0 and lots of at least 1, one at least")
        if self.bids[:, 0].min() + self.asks[:, 0].min() < 1:
            raise ValueError("bids and asks must lie at least one tick apart")
        if not int(self.bids[:, 0].max()) < self.mid < 1 << 30:
            raise ValueError(f"mid is {self.mid}; it must lie above the lowest bid and below {1 << 30} ticks")
        if self.mid + int(self.asks[:, 0].max()) >= 1 << 30:
            raise ValueError(
                f"asks reach {self.asks[:, 0].max()} ticks above the mid; prices end below {1 << 30} ticks"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HawkesParameters) and self.version() == other.version()

    def __hash__(self) -> int:
        return hash(self.version())

    @property
    def radius(self) -> float:
        """Spectral radius of the integrated kernels."""
        return spectral_radius(self.process)

    def version(self) -> str:
        """Twelve hexadecimal digits that name these parameters."""
        total = hashlib.sha256(str(self.mid).encode())
        for array in (*self.process, self.marks, self.bids, self.asks):
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()[:12]

    def save(self, path: str | Path) -> None:
        """Writes a JSON file; an existing one is replaced only when all is written."""
        process = {name: np.asarray(array).tolist() for name, array in self.process._asdict().items()}
        marks: dict[str, Any] = {name: self.marks[i].tolist() for i, name in enumerate(TYPES)}
        for i in range(1, len(TYPES), 2):
            if np.array_equal(self.marks[i], self.marks[i - 1]):
                marks[TYPES[i]] = TYPES[i - 1]  # as the other side
        values = {
            "report": self.report,
            "spectral_radius": self.radius,
            "types": list(TYPES),
            **process,
            "mid": int(self.mid),
            "marks": marks,
            "bids": self.bids.tolist(),
            "asks": self.asks.tolist(),
        }
        write_parameters(path, KIND, FORMAT, values)

    @classmethod
    def load(cls, path: str | Path) -> "HawkesParameters":
        """Reads what ``save`` wrote and checks it.

        Raises:
            FileNotFoundError: if there is no such file.
            OSError: if it cannot be read.
            ValueError: if it does not hold sound parameters of this format.
        """
        values = read_parameters(path, KIND, FORMAT, _KEYS, ("spectral_radius",))
        where = f"parameters path {str(path)!r}"
        types = values["types"]
        if types != list(TYPES):
            said = f"{len(types)} types" if isinstance(types, list) else f"types {shortened(types)}"
            raise ValueError(f"{where} has {said}; the {len(TYPES)} of the flow are needed")
        try:
            process = HawkesProcess(
                *(array_of(name, values[name], _AXES.get(name, 1)) for name in HawkesProcess._fields)
            )
            marks = _narrow("marks", _marks(values["marks"]))
            bids, asks = (_narrow(name, values[name]) for name in _SIDES)
            if not isinstance(values["report"], dict):
                raise ValueError(f"report is {shortened(values['report'])}; it must be an object")
            found = cls(process, marks, bids, asks, whole("mid", values["mid"], 1), values["report"])
            said = array_of("spectral_radius", values.get("spectral_radius", found.radius), 0)
            if not abs(said - found.radius) < 1e-6:  # it follows from the rest, but people read it
                radius = f"spectral_radius is {shortened(said.tolist())}, that of the amplitudes {found.radius:.6f}"
                raise ValueError(f"{radius}; it must be the same or left out")
            return found
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _marks(by_name: Any) -> list[Any]:
    """The marks of each type, where one may name another that has the same."""
    check_keys("marks", by_name, TYPES)
    rows = []
    for name in TYPES:
        row = by_name[name]
        if isinstance(row, str):
            if row not in TYPES or isinstance(by_name[row], str):
                raise ValueError(
                    f"marks of {name!r} are {shortened(row)}; they must be lists or name a type with lists"
                )
            row = by_name[row]
        rows.append(row)
    return rows


def _narrow(name: str, value: Any) -> np.ndarray:
    """Lists of whole numbers as int32."""
    array = array_of(name, value, _AXES[name], whole=True)
    wide = array[(array < -_WIDEST) | (array > _WIDEST)]
    if len(wide):
        raise ValueError(f"{name} holds {wide[0]}; allowed is -{_WIDEST} to {_WIDEST}")
    return array.astype(np.int32)


def _check_process(process: HawkesProcess) -> None:
    baseline, edges, decays, amplitudes, floor = process
    for name, array in (("edges", edges), ("decays", decays)):
        if array.ndim != 1:
            raise ValueError(f"{name} has {array.ndim} axes; it must have one")
    count, many, parts = len(TYPES), len(decays), len(edges) + 1
    for name, array, shape in (
        ("baseline", baseline, (count, parts)),
        ("amplitudes", amplitudes, (count, count, many)),
        ("floor", floor, (count,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; for {count} types it must be {shape}")
    for name, array in process._asdict().items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds a number that is not finite; all must be")
    if many == 0 or not 1 / _FASTEST <= decays.min() <= decays.max() <= _FASTEST or (np.diff(decays) <= 0).any():
        allowed = f"from {1 / _FASTEST:g} to {_FASTEST:g} per second"
        raise ValueError(f"decays are {shortened(decays.tolist())}; they must be positive ({allowed}) and ascending")
    if (np.diff(edges) <= 0).any() or np.abs(edges).max(initial=0) > _LATEST:
        raise ValueError(f"edges are {shortened(edges.tolist())}; they must ascend, up to {_LATEST:g} seconds")
    if baseline.min() < 0 or floor.min() <= 0 or max(baseline.max(), floor.max()) > _LARGEST_RATE:
        raise ValueError("baseline and floor must lie between 0 and a million per second, the floor above 0")
    if np.abs(amplitudes).max(initial=0) > _LARGEST_RATE:
        raise ValueError(f"amplitudes reach {np.abs(amplitudes).max():.3g}; at most {_LARGEST_RATE:.3g} is allowed")
    radius = spectral_radius(process)
    if not radius < 1:
        raise ValueError(f"amplitudes have spectral radius {radius:.3f}; it must be below 1")
