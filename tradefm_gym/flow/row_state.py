"""What something remembers of its markets, row by row, as a value: to keep, to put back, to carry to other rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tradefm_gym.arguments import row_numbers, shortened

_SHOWN, _BEFORE = 120, 40  # characters of an owner in a message; of them before the first difference


@dataclass(frozen=True, eq=False)
class RowState:
    """What a flow, a role or a session remembers of k markets besides its settings; can be pickled.

    Attributes:
        owner: whose it is, with its settings or its version: only a state of an equal one is put back.
        arrays: by name, (k, ...) each, copies that cannot be written.
    """

    owner: str
    arrays: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, owner: str, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> "RowState":
        """Copies of the rows (k,) int64 of arrays (N, ...)."""
        copies = {name: array[rows] for name, array in arrays.items()}
        for copy in copies.values():
            copy.flags.writeable = False
        return cls(owner, copies)

    @classmethod
    def of_flow(cls, flow: Any, arrays: Mapping[str, np.ndarray], rows: Any) -> "RowState":
        """Of the rows that ``FlowModel.snapshot`` is asked for."""
        return cls.of(owner_of_flow(flow), arrays, row_numbers(rows, flow.num_envs, repeats=True))

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def check(self, like: "RowState", count: int) -> None:
        """Refuses a state that ``count`` rows of what ``like`` is of, whatever its rows, cannot take."""
        if self.owner != like.owner:
            raise ValueError("state is one of {}; it must be one of {}".format(*_apart(self.owner, like.owner)))
        if self.arrays.keys() != like.arrays.keys():
            odd = ", ".join(sorted(self.arrays.keys() ^ like.arrays.keys()))
            raise ValueError(f"state of {self.owner} differs in its arrays ({odd}); it must have the same")
        for name, wanted in like.arrays.items():
            array, shape = self.arrays[name], (count, *wanted.shape[1:])
            if array.dtype != wanted.dtype or array.shape != shape:
                said = f"{array.dtype} {array.shape}; it must be {wanted.dtype} {shape}"
                raise ValueError(f"state of {self.owner} has {name} of {said}")

    def put(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
        """Writes what ``check`` has passed to rows (k,) int64 of the arrays named."""
        for name, array in arrays.items():
            array[rows] = self.arrays[name]


def put_into_flow(state: Any, flow: Any, arrays: Mapping[str, np.ndarray], rows: Any) -> None:
    """Checks a state, and writes it to the rows that ``FlowModel.restore`` is told."""
    rows = row_numbers(rows, flow.num_envs)
    checked_state(state).check(flow.snapshot(rows[:0]), len(rows))
    state.put(arrays, rows)


def owner_of_flow(flow: Any) -> str:
    """How messages call a flow; flows of other proposals have other names."""
    return f"flow {flow.name!r} of version {flow.version!r}"


def _apart(one: str, two: str) -> tuple[str, str]:
    """Two descriptions as messages show them: where they are long, from shortly before the first difference on."""
    if max(len(one), len(two)) <= _SHOWN:
        return one, two
    first = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    head, begin = one[: one.find("(") + 1] if "(" in one[:_SHOWN] else "", max(0, first - _BEFORE)
    begin = 0 if begin <= len(head) else begin
    lead = f"{head}... " if begin else ""
    shown = [f"{lead}{text[begin : begin + _SHOWN]}{'...' * (len(text) > begin + _SHOWN)}" for text in (one, two)]
    return shown[0], shown[1]


def checked_state(state: Any) -> RowState:
    """A RowState, or a sentence."""
    if not isinstance(state, RowState):
        raise ValueError(f"state is {shortened(state)}; it must be a RowState")
    return state
