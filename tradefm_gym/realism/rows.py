"""The rows of a card: one number each, with its interval, and what it is the number of."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tradefm_gym.realism.bootstrap import Estimate

LEAST = 200  # recorded samples that tell anything
LEAST_STARTS = 5  # start states, of what is said of all of a day's moments


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        set: the recorded day, or "pooled" over all.
        quantity: what was measured, as "spread" or "return_64_events".
        metric: how it is judged, as "ks".
        arm: "real", "drift", "floor", "replayed", "round_trip", or a flow.
        value: NaN where it is undefined.
        low, high: its 95% interval, NaN where there is none.
        n: real samples behind it; of what probes found, samples of the arm.
        seeds: rollouts behind it, 1 for a record.
    """

    set: str
    quantity: str
    metric: str
    arm: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    seeds: int = 1

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON knows no NaN, it becomes null."""
        values = asdict(self)
        for name in ("value", "low", "high"):
            number = float(values[name])
            values[name] = float(f"{number:.6g}") if math.isfinite(number) else None
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """The inverse of ``to_json``."""
        known: dict[str, Any] = {field.name: values[field.name] for field in fields(cls)}
        known.update({name: math.nan for name in ("value", "low", "high") if known[name] is None})
        return cls(**known)


class Rows:
    """Rows by what they are about."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.all = list(rows)
        self._by_name = {(row.set, row.quantity, row.metric, row.arm): row for row in self.all}

    def get(self, set_name: str, quantity: str, metric: str, arm: str) -> Row | None:
        """The row of that name, None without one."""
        return self._by_name.get((set_name, quantity, metric, arm))

    def names(self, column: str, **wanted: str) -> list[str]:
        """Distinct entries of a column in their order, of the rows whose other columns are as ``wanted``."""
        chosen = (row for row in self.all if all(getattr(row, name) == value for name, value in wanted.items()))
        return list(dict.fromkeys(getattr(row, column) for row in chosen))


def of(estimate: Estimate) -> dict[str, float]:
    """An estimate as arguments of a row."""
    return {"value": float(estimate.value), "low": float(estimate.low), "high": float(estimate.high)}
