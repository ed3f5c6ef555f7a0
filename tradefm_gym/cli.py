"""The command ``tradefm-gym``: measure this machine, or look whether the installation is sound."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Bench:
    """Measure events and steps per second on this machine."""

    suite: tyro.conf.Positional[Literal["rooms", "book"]] = "rooms"  # all rooms, or one order book beside its peers
    json: bool = False  # print a list of {name, value, unit, reference, ratio, target, met, hardware}
    quick: bool = False  # fewer and shorter repeats: seconds instead of minutes, figures to within a fifth
    only: str | None = None  # measure what has this in its name, such as "market" or "execution-replay"

    def run(self) -> int:
        """Measures and prints; a missed target does not fail the command."""
        from tradefm_gym import bench

        notes = Console(stderr=True)

        def skipped(name: str, reason: str) -> None:
            notes.print(f"skipped {name}: {reason}", soft_wrap=True, highlight=False)

        chosen = bench.benchmarks(self.only, self.suite)
        results = []
        for measurement in bench.run(chosen, self.quick, skipped):
            results.append(measurement.to_json())
            notes.print(f"{len(results)} of {len(chosen)}: {measurement.name}", highlight=False)
        if self.json:
            print(json.dumps(results, indent=2))
        else:
            print_table(results)
        return 0


@dataclass(frozen=True)
class Doctor:
    """Show versions and the compiler's cache, and check that this machine computes what others do."""

    def run(self) -> int:
        """Prints one line for each finding; 1 if one of them is wrong."""
        from tradefm_gym import doctor

        console = Console()
        sound = True
        for finding in doctor.examine():
            mark = "[green]ok   [/]" if finding.sound else "[red]wrong[/]"
            console.print(f"{mark} {finding.name}: {finding.value}", soft_wrap=True, highlight=False)
            sound &= finding.sound
        return 0 if sound else 1


def print_table(results: list[dict]) -> None:
    """A list of measurements, as people read it; the hardware is said once below."""
    table = Table()
    for column in ("name", "value", "unit", "threads", "reference", "ratio", "target", "met"):
        table.add_column(column, justify="left" if column in ("name", "unit") else "right", no_wrap=True)
    for row in results:
        numbers = [_number(row[key]) for key in ("reference", "ratio", "target")]
        met = {None: "", True: "yes", False: "no"}[row["met"]]
        threads = str(row["hardware"]["threads"])
        table.add_row(row["name"], _number(row["value"]), row["unit"], threads, *numbers, met)
    console = Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own
    console.print(table)
    if results:
        rest = {key: value for key, value in results[0]["hardware"].items() if key != "threads"}
        console.print(", ".join(f"{key} {value}" for key, value in rest.items()), soft_wrap=True, highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


Command = Annotated[Bench, tyro.conf.subcommand("bench")] | Annotated[Doctor, tyro.conf.subcommand("doctor")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; a mistake of the user is one sentence and exit status 2."""
    command = tyro.cli(Command, prog="tradefm-gym", description=__doc__, args=arguments)
    try:
        return command.run()
    except (ValueError, OSError) as error:
        print(f"tradefm-gym: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
