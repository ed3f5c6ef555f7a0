"""The command ``tradefm-gym``: measure this machine, check installation and days, fit and judge flows, train models."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from tradefm_gym.cli_model import Tokenize, Train
from tradefm_gym.cli_paper import Paper
from tradefm_gym.cli_reading import Reading
from tradefm_gym.cli_realism import Realism
from tradefm_gym.cli_view import View


@dataclass(frozen=True)
class Bench:
    """Measure events and steps per second on this machine."""

    # all rooms, one order book beside its peers, the model's engines and training, on a GPU too, or the environments
    # and what learns in them
    suite: tyro.conf.Positional[Literal["rooms", "book", "engine", "env"]] = "rooms"
    json: bool = False  # print a list of {name, value, unit, reference, ratio, target, met, hardware}
    markdown: bool = False  # print the table as Markdown
    quick: bool = False  # fewer and shorter repeats: seconds instead of minutes, figures to within a fifth
    only: str | None = None  # measure what has this in its name, such as "market" or "execution-replay"
    lines: Path | None = None  # append each figure to this file, a line of JSON, as soon as it is measured

    def run(self) -> int:
        """Measures and prints; a missed target does not fail the command."""
        from tradefm_gym import bench

        notes = Console(stderr=True)

        def skipped(name: str, reason: str) -> None:
            notes.print(f"skipped {name}: {reason}", soft_wrap=True, highlight=False, markup=False)

        chosen = bench.benchmarks(self.only, self.suite)
        results = []
        for measurement in bench.run(chosen, self.quick, skipped):
            results.append(measurement.to_json())
            if self.lines is not None:
                with self.lines.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
            notes.print(f"{len(results)} of {len(chosen)}: {measurement.name}", highlight=False)
        if self.json:
            print(json.dumps(results, indent=2))
        elif self.markdown:
            print(markdown_table(results))
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


_COLUMNS = ("name", "value", "unit", "threads", "reference", "ratio", "target", "met")


def print_table(results: list[dict]) -> None:
    """A list of measurements, as people read it; the hardware is said once below."""
    table = Table()
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("name", "unit") else "right", no_wrap=True)
    for row in results:
        table.add_row(*_cells(row))
    console = Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own
    console.print(table)
    if results:
        console.print(_hardware(results[0]), soft_wrap=True, highlight=False)


def markdown_table(results: list[dict]) -> str:
    """The same for a page of the documentation."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---|---:|---|---:|---:|---:|---:|---|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in results]
    return "\n".join([*lines, "", _hardware(results[0])] if results else lines)


def _cells(row: dict) -> list[str]:
    numbers = [_number(row[key]) for key in ("reference", "ratio", "target")]
    met = {None: "", True: "yes", False: "no"}[row["met"]]
    return [row["name"], _number(row["value"]), row["unit"], str(row["hardware"]["threads"]), *numbers, met]


def _hardware(row: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in row["hardware"].items() if key != "threads")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Check:
    """Execute a recorded day by its own ids in the exchange, and say where the two differ."""

    path: Annotated[Path, tyro.conf.Positional]  # a data folder, or a LOBSTER, Databento, ITCH 5.0 or CSV file
    reading: tyro.conf.OmitArgPrefixes[Reading]
    json: bool = False  # print the figures as JSON
    levels: int | None = None  # best levels to compare with recorded books and snapshots; 5, or as many as they have
    against: Path | None = None  # a recording of the same day with a book file, to compare the touch with

    def run(self) -> int:
        """Prints the figures; 1 if a difference is unexplained and reading is strict, or too much was left out."""
        from tradefm_gym.data.feed import open_feed
        from tradefm_gym.realism.recorded_day import MOST_LEFT_OUT, check_day

        against = None if self.against is None else open_feed(self.against)
        day = check_day(self.reading.open(self.path), self.levels, against)
        if self.json:
            print(json.dumps(day.to_json(), indent=2))
        else:
            print_day(day)
        if day.unexplained and not self.reading.lenient:
            first = min(day.unexplained, key=lambda finding: finding.first_row)
            at = f"row {first.first_row}: " if first.first_row >= 0 else ""
            example = f" ({first.example})" if first.example else ""
            more = f"; {day.unexplained_count} unexplained differences in all" if day.unexplained_count > 1 else ""
            print(f"tradefm-gym: {day.path}: {at}{first.kind}{example}{more}.", file=sys.stderr)
            return 1
        if day.left_out > MOST_LEFT_OUT:
            share = f"{day.left_out:.1%} of the rows were left out; at most {MOST_LEFT_OUT:.0%} may be"
            print(f"tradefm-gym: {day.path}: {share}.", file=sys.stderr)
            return 1
        return 0


@dataclass(frozen=True)
class Convert:
    """Write a recorded day as a data folder: meta.json and events.parquet."""

    path: Annotated[Path, tyro.conf.Positional]  # a data folder, or a LOBSTER, Databento, ITCH 5.0 or CSV file
    out: Annotated[Path, tyro.conf.Positional]  # the folder to write
    reading: tyro.conf.OmitArgPrefixes[Reading]
    json: bool = False  # print what was written as JSON

    def run(self) -> int:
        """Streams the file; nothing is left behind where that fails."""
        from tradefm_gym.data.convert import convert

        meta = convert(self.reading.open(self.path), self.out)
        if self.json:
            print(json.dumps(meta, indent=2))
        else:
            rows, skipped = meta["quality"]["rows"], sum(meta["skipped"].values())
            print(f"{self.out}: {rows:,} rows" + (f", {skipped:,} left out: {meta['skipped']}" if skipped else ""))
        return 0


@dataclass(frozen=True)
class Data:
    """Recorded days: check one, convert it, or tokenize many to train on."""

    command: Annotated[
        Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
        | Annotated[Convert, tyro.conf.subcommand("convert", prefix_name=False)]
        | Annotated[Tokenize, tyro.conf.subcommand("tokenize", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Runs the chosen one."""
        return self.command.run()


def print_day(day) -> None:
    """The figures of a checked day, as people read them."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"{day.path}: {day.ticker}, {day.venue}, {day.date} ({day.format}, {day.mode})", highlight=False)
    figures = Table(show_header=False)
    for name in (
        "rows", "unknown_ids", "dead_cancels", "crossed_states", "crossed_in_session", "fills", "fills_differ",
        "fills_out_of_priority", "cancels", "cancels_differ", "inferred_opening", "volume", "volume_recorded",
    ):  # fmt: skip
        value = getattr(day, name)
        figures.add_row(name.replace("_", " "), "-" if value is None else f"{value:,}")
    console.print(figures)
    if day.agreement:
        table = Table("equal to", "what", "compared", "equal", "share")
        for row in day.agreement:
            table.add_row(row.against, row.what, f"{row.compared:,}", f"{row.equal:,}", f"{row.share:.3%}")
        console.print(table)
    for other in day.unread:
        console.print(f"not compared with {other.path}: {other.reason}", highlight=False, soft_wrap=True, markup=False)
    if day.explained or day.unexplained or day.skipped:
        table = Table("difference", "count", "first row", "reason")
        for finding in (*day.unexplained, *day.explained):
            row = str(finding.first_row) if finding.first_row >= 0 else ""
            table.add_row(finding.kind, f"{finding.count:,}", row, finding.reason or "[red]unexplained[/]")
        for reason, count in day.skipped.items():
            table.add_row("row left out", f"{count:,}", "", reason)
        console.print(table)
    console.print(f"unexplained differences: {day.unexplained_count:,}", highlight=False)


@dataclass(frozen=True)
class FitHawkes:
    """Fit Compound Hawkes to a recorded day, say how well it explains the day, and write what was found."""

    data: Path  # a saved day (.npz), a data folder, or a LOBSTER, Databento, ITCH 5.0 or CSV file
    reading: tyro.conf.OmitArgPrefixes[Reading]
    out: Path = Path("hawkes.json")  # then flow="hawkes:hawkes.json"
    decays: int = 12  # at most so many exponentials a kernel; how many is chosen on the validation part
    parts: int = 1  # parts of the training time, each with baselines of its own
    inhibition: Literal["choose", "yes", "no"] = "no"  # whether events may keep others away; takes ten times as long
    symmetric: bool = True  # both sides of the book share their parameters

    def run(self) -> int:
        """Fits on the training part, 70% of the day."""
        from tradefm_gym import fitting
        from tradefm_gym.flow.parameter_files import check_writable

        check_writable(self.out)
        options = {name: getattr(self, name) for name in ("decays", "parts", "inhibition", "symmetric")}
        fitting.hawkes(self.reading.load(self.data), self.out, options)
        return 0


@dataclass(frozen=True)
class FitZeroIntelligence:
    """Fit the rates and marks of zero intelligence to a recorded day."""

    data: Path  # a saved day (.npz), a data folder, or a LOBSTER, Databento, ITCH 5.0 or CSV file
    reading: tyro.conf.OmitArgPrefixes[Reading]
    out: Path = Path("zero_intelligence.json")  # then flow="zero_intelligence:zero_intelligence.json"

    def run(self) -> int:
        """Fits on the training part, 70% of the day."""
        from tradefm_gym import fitting
        from tradefm_gym.flow.parameter_files import check_writable

        check_writable(self.out)
        fitting.zero_intelligence(self.reading.load(self.data), self.out)
        return 0


@dataclass(frozen=True)
class FitTradeFM:
    """Find a recorded day's habits: with them a TradeFM network's markets do as much of everything as the day."""

    data: Path  # a saved day (.npz), a data folder, or a LOBSTER, Databento, ITCH 5.0 or CSV file
    reading: tyro.conf.OmitArgPrefixes[Reading]
    # Start states of the day (.npz) that know its habits, for gym.make(..., context="day.npz"); or the habits alone
    # (.json), for TradeFMFlow(context=DAY, habits="habits.json").
    out: Path = Path("habits.json")
    model: str = "mini-2"  # a bundled model, a checkpoint folder, or hf://organisation/name
    rounds: int = 8  # in which the network runs freely; the one nearest to the day is kept
    markets: int = 96  # that run at a time
    events: int = 1_536  # of each of them
    seed: int = 0

    def run(self) -> int:
        """Fits on the training part, 70% of the day."""
        from tradefm_gym import fitting
        from tradefm_gym.flow.parameter_files import check_writable

        check_writable(self.out)
        options = {name: getattr(self, name) for name in ("rounds", "markets", "events", "seed")}
        fitting.tradefm(self.reading.load(self.data), self.out, self.model, options)
        return 0


@dataclass(frozen=True)
class Fit:
    """Fit a flow to a recorded day."""

    command: Annotated[
        Annotated[FitHawkes, tyro.conf.subcommand("hawkes", prefix_name=False)]
        | Annotated[FitZeroIntelligence, tyro.conf.subcommand("zero-intelligence", prefix_name=False)]
        | Annotated[FitTradeFM, tyro.conf.subcommand("tradefm", prefix_name=False)],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> int:
        """Runs the chosen one."""
        return self.command.run()


@dataclass(frozen=True)
class Simulate:
    """Let a flow run freely, without agents, and write what happens as a data folder."""

    out: Path  # the folder to write: meta.json with the provenance, and events.parquet
    flow: str = "tradefm"  # tradefm, hawkes or zero_intelligence, each also with :PATH
    events: int = 100_000
    context: int | None = None  # number of the start state; by default one of the test part, by the seed
    seed: int = 0
    data: Path | None = None  # with tradefm: a recorded day or a context bank to start from
    # a stress scenario: one_sided_burst, volatility_shock, liquidity_withdrawal, thin, busy; or JSON with its name and
    # parameters, such as '{"name": "one_sided_burst", "side": "sell"}'
    scenario: str | None = None

    def run(self) -> int:
        """Simulates and writes."""
        from tradefm_gym import simulating

        if self.data is not None and self.flow.partition(":")[0] != "tradefm":
            raise ValueError(f"data is {str(self.data)!r} and flow {self.flow!r}; only tradefm starts from given data")
        options = {} if self.data is None else {"context": self.data}
        scenario = self.scenario
        if scenario is not None and scenario.startswith("{"):
            try:
                scenario = json.loads(scenario)
            except ValueError as error:
                raise ValueError(f"scenario is {self.scenario!r}; it must be a name, or JSON ({error})") from None
        meta = simulating.run(self.flow, self.events, self.context, self.seed, self.out, options, scenario)
        print(f"{self.out}: {meta['quality']['rows']:,} rows of {meta['provenance']['flow']}")
        return 0


Command = (
    Annotated[Bench, tyro.conf.subcommand("bench")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Realism, tyro.conf.subcommand("realism")]
    | Annotated[Paper, tyro.conf.subcommand("paper")]
    | Annotated[Simulate, tyro.conf.subcommand("simulate")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[View, tyro.conf.subcommand("view")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; a mistake of the user is one sentence and exit status 2, Ctrl-C one line and 130."""
    command = tyro.cli(Command, prog="tradefm-gym", description=__doc__, args=arguments)
    try:
        return command.run()
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"tradefm-gym: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:  # a command may say in it what is left of its work
        print(": ".join(["tradefm-gym: interrupted", *map(str, error.args)]), file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
