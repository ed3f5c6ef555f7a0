"""Train on synthetic, test on real: what a classifier that learned from simulated days is worth on a recorded one.

    tradefm-gym simulate --out runs/simulated --data DAY --context 0 --events 40000
    python examples/train_on_synthetic.py --real DAY --synthetic runs/simulated

``simulate`` writes generated flow as a data folder, like any recorded day, with its provenance; it is read and executed
as one here. Start state 0 stands in the training part, so that nothing of the test part goes into the simulation. The
probe ``trained_on`` of ``tradefm-gym realism`` does the same with rollouts that are never written.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.data import load
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.trained_on import SKIPPED, examples, trained_rows

METRICS = ("auc", "auc_less_real", "accuracy", "accuracy_less_real")


@dataclass
class Arguments:
    """What to learn from, and what to be tried on."""

    real: Path  # a recorded day: its training part teaches as well, its test part tries
    synthetic: tuple[Path, ...]  # folders that tradefm-gym simulate wrote


def day(path: Path) -> RecordedSet:
    """A day, recorded or simulated."""
    return RecordedSet(path.name, lambda: load(path), "")


def compared(arguments: Arguments) -> list[tuple[str, dict[str, dict]]]:
    """What each teacher's classifier is worth on the recorded test part: by name, rows by metric."""
    real = day(arguments.real)
    train, test = (examples([real.path.between(*real.part(name))]) for name in ("train", "test"))
    teachers = {f"{real.name}, training part": train}
    teachers |= {path.name: examples([day(path).path], SKIPPED) for path in arguments.synthetic}
    return [(name, {row["metric"]: row for row in trained_rows(one, train, test, 1)}) for name, one in teachers.items()]


def main(arguments: Arguments) -> None:
    """Prints the comparison."""
    table = Table(title=f"Direction of the next change of the mid, tried on the test part of {arguments.real.name}")
    table.add_column("learned from")
    for metric in METRICS:
        table.add_column(metric.replace("_", " "), justify="right")
    for name, rows in compared(arguments):
        cells = (rows.get(metric) for metric in METRICS)
        told = (f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" if row else "-" for row in cells)
        table.add_row(name, *told)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
