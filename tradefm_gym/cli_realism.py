"""``tradefm-gym realism``: how like recorded days a flow is, as a card on the terminal, in JSON and as a page."""

import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tradefm_gym.arguments import one_sentence, shortened, whole
from tradefm_gym.cli_reading import Reading

_NEEDED = ("scipy", "sklearn", "plotly")
_MARKS = {
    "near": "[green]{} y[/]",
    "far": "[red]{} n[/]",
    "unclear": "{} ?",
    "too few": "{} -",
    "": "{}",
    "paid": "[red]{}[/]",
}


@dataclass(frozen=True)
class Realism:
    """Set flows against recorded days: distances, forecasts, stylised facts, and what a flow is fit to train.

    What was computed is kept in the out folder; the same command goes on where it was interrupted.
    """

    data: tuple[Path, ...]  # recorded days: saved days (.npz), data folders, LOBSTER, Databento, ITCH or CSV files
    reading: tyro.conf.OmitArgPrefixes[Reading]
    flow: str = "tradefm,hawkes,zero_intelligence"  # NAME or NAME:PATH, with commas; without a path they are fitted
    model: Path | None = None  # a checkpoint folder, which "tradefm" then stands for
    out: Path = Path("realism")  # folder of card.json, card.html, fits and parts
    starts: int | None = None  # moments of each test part to forecast from; 50
    rollouts: int | None = None  # forecasts from each of them; 32
    seeds: int | None = None  # long rollouts, for distributions; 32
    events: int | None = None  # events of a long rollout; 16,384
    # reaction, markouts, exploits, impact, control, extremes, with commas: also run markets with agents in them, under
    # stress, and from volatile moments, --seeds of them. Take 200 or more: fewer do not show that no attack pays, and
    # without exploits no flow is shown to be fit for anything.
    # memorisation, code_length, tokenizer_drift, trained_on: what models keep, what raw events cost them, how their
    # tokens age, and what is learned from a flow. None of these needs agents
    probes: str = ""
    folds: int = 0  # look at each day in so many growing parts, too, with baselines fitted to each; not by probes
    quick: bool = False  # a small effort, to see that it works: no figures to rely on
    json: bool = False  # print the card as JSON instead of tables

    def run(self) -> int:
        """Makes the card; 0 whatever it says."""
        import json

        from tradefm_gym import bench
        from tradefm_gym.realism.card import QUICK, CardMaker, Effort
        from tradefm_gym.realism.page import write_page

        lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if lacking:
            raise ImportError(f'realism needs {", ".join(lacking)}: pip install "tradefm-gym[realism]".')
        given = {name: getattr(self, name) for name in ("starts", "rollouts", "seeds", "events")}
        effort = replace(QUICK if self.quick else Effort(), **{k: v for k, v in given.items() if v is not None})
        whole("folds", self.folds, 0, 20)
        flows = self._flows()
        probes = [name.strip() for name in self.probes.split(",") if name.strip()]
        maker = CardMaker(self._sets(), flows, self.out, effort, probes=probes)
        with one_sentence(self.out, "written", "a folder that can be"):
            self.out.mkdir(parents=True, exist_ok=True)
        try:
            with _progress() as maker.report:
                card = maker.run()
        except KeyboardInterrupt:
            said = f"what was computed is kept in {str(self.out)!r}, and the same command goes on from there"
            raise KeyboardInterrupt(said) from None
        arguments = asdict(effort) | {"flow": ",".join(flows), "data": ", ".join(map(str, self.data))}
        arguments |= {"folds": self.folds, "quick": self.quick, "probes": ",".join(maker.probes)}
        card.about = {"arguments": arguments, "hardware": bench.hardware(_threads()), "versions": _versions()}
        card.save(self.out / "card.json")
        write_page(card.labelled(), self.out / "card.html")
        if self.json:
            print(json.dumps(card.to_json(), indent=1))
        else:
            print_card(card.labelled())
            print(f"{self.out / 'card.json'}, {self.out / 'card.html'}")
        return 0

    def _flows(self) -> list[str]:
        flows = [spec.strip() for spec in self.flow.split(",")]
        if self.model is not None:
            parts = [spec.partition("?") for spec in flows]
            if not any(name == "tradefm" for name, *_ in parts):
                said = "it must then name tradefm, without a path"
                raise ValueError(f"model is {str(self.model)!r}, and flow {self.flow!r}; {said}")
            flows = ["".join((f"{name}:{self.model}" if name == "tradefm" else name, *said)) for name, *said in parts]
        return flows

    def _sets(self) -> list[Any]:
        from tradefm_gym.realism.recorded_set import RecordedSet, digest_of

        names = [path.name if path.is_dir() else path.stem for path in self.data]
        if len(set(names)) < len(names):
            raise ValueError(f"data is {shortened(list(map(str, self.data)))}; no two of them may have one name")
        sets = []
        for name, path in zip(names, self.data, strict=True):
            digest = digest_of(path, repr(self.reading))
            day = RecordedSet(name, lambda path=path: self.reading.load(path), digest)
            sets += [day, *(day.fold(i, self.folds) for i in range(self.folds))]
        return sets


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Something to tell of progress: a bar on a terminal, elsewhere a line for each piece of work."""
    notes = Console(stderr=True)
    if not notes.is_terminal:
        told = []

        def note(what: str, done: int, of: int) -> None:
            if [what] != told[-1:]:
                told.append(what)
                notes.print(what, soft_wrap=True, highlight=False)

        yield note
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True) as progress:
        task = progress.add_task("reading")
        # Work that does not say how far it is shows a bar without an end.
        yield lambda what, done, of: progress.update(
            task, description=what, completed=done, total=of if of > 1 else None
        )


def print_card(card: Any) -> None:
    """The card as people read it: distances, skill and verdicts."""
    from tradefm_gym.realism.probe_tables import probe_tables
    from tradefm_gym.realism.rows import Rows

    console = Console(width=None if sys.stdout.isatty() else 150)  # a pipe has no width of its own
    rows = Rows(card.rows)
    for name in card.sets:
        console.print(_distances(card, rows, name))
        console.print(_figures(card, rows, name))
        if card.reference and len(card.flows) > 1:
            console.print(_skills(card, rows, name))
        for table in probe_tables(rows, name, card.flows, brief=True):
            console.print(probed_table(table, name))
    for name in card.pools if card.reference and len(card.flows) > 1 else []:
        console.print(_skills(card, rows, name))
    table = Table("set", "flow", "execution", "market making", title="Verdict", title_justify="left")
    for name in card.days:
        for flow in card.flows:
            fit = {one.use: one.fit for one in card.verdicts if (one.set, one.arm) == (name, flow)}
            table.add_row(name, flow, *(_coloured(fit[use]) for use in ("execution", "market making")))
    console.print(table)
    for said, why in card.summary.values():
        console.print(said, why, markup=False, highlight=False)


def _distances(card: Any, rows: Any, name: str) -> Table:
    from tradefm_gym.realism.card import RECORDED_ARMS
    from tradefm_gym.realism.verdict import nearness

    others = [flow for flow in card.flows if flow != card.reference] if card.reference else []
    arms = [*RECORDED_ARMS[1:], *card.flows]
    table = Table(title=f"{name}: K-S distance from the test part", title_justify="left")
    for column in ("quantity", "n", *arms, *(f"{flow} / {card.reference}" for flow in others)):
        table.add_column(column.replace("_", " "), justify="left" if column == "quantity" else "right")
    for quantity in rows.names("quantity", set=name, metric="ks"):
        found = [rows.get(name, quantity, "ks", arm) for arm in arms]
        cells = []
        for arm, row in zip(arms, found, strict=True):
            said = nearness(rows, row) if row and arm in card.flows else ""
            cells.append(_MARKS[said].format(_number(row)))
        ratios = [_number(rows.get(name, quantity, "ks_over_reference", flow), interval=True) for flow in others]
        n = max((row.n for row in found if row), default=0)
        table.add_row(quantity.replace("_", " "), f"{n:,}", *cells, *ratios)
    table.caption = "y near, n far, ? unclear, - too few recorded samples or blocks to tell"
    table.caption_justify = "left"
    return table


def _skills(card: Any, rows: Any, name: str) -> Table:
    """One line an outcome and flow, one column a horizon."""
    from tradefm_gym.realism.forecasts import EVENTS, OUTCOMES, SECONDS

    horizons = [f"{count}_events" for count in EVENTS] + [f"{seconds}s" for seconds in SECONDS]
    table = Table(title=f"{name}: CRPS skill over {card.reference}", title_justify="left")
    table.add_column("outcome")
    table.add_column("flow")
    for horizon in horizons:
        table.add_column(horizon.replace("_", " "), justify="right")
    for outcome in OUTCOMES:
        for flow in (flow for flow in card.flows if flow != card.reference):
            found = [rows.get(name, f"{outcome}_{horizon}", "crps_skill", flow) for horizon in horizons]
            cells = []
            for row in found:
                mark = (
                    "{}" if row is None else "[green]{}[/]" if row.low > 0 else "[red]{}[/]" if row.high < 0 else "{}"
                )
                cells.append(mark.format("" if row is None else f"{row.value:.2f}"))
            table.add_row(outcome.replace("_", " "), flow, *cells)
    table.caption = "coloured where the 95% interval leaves out 0; blank where too little happens"
    table.caption_justify = "left"
    return table


def _figures(card: Any, rows: Any, name: str) -> Table:
    arms = ["real", "drift", "replayed", "round_trip", *card.flows]
    table = Table(title=f"{name}: the market as a whole", title_justify="left")
    for column in ("", *arms):
        table.add_column(column.replace("_", " "), justify="right" if column else "left")
    for text, quantity, metric in (
        ("events with an empty side", "empty_side", "share"),
        ("largest spread, recorded medians", "spread", "largest_over_median"),
        ("classifier's area under the curve", "window_64_events", "auc"),
        ("fill counts, correlation of distributions", "fill_count_64_events", "distribution_correlation"),
        ("fill volumes, correlation of distributions", "fill_volume_64_events", "distribution_correlation"),
        ("the same of no fills at all", "fill_volume_64_events", "distribution_correlation_of_none"),
    ):
        table.add_row(text, *(_number(rows.get(name, quantity, metric, arm)) for arm in arms))
    agreed = []
    for arm in arms:
        facts = [rows.get(name, fact, "agrees", arm) for fact in rows.names("quantity", set=name, metric="agrees")]
        known = [row.value for row in facts if row is not None and math.isfinite(row.value)]
        agreed.append(f"{sum(known):.0f} of {len(known)}" if known else "")
    table.add_row("stylised facts that agree", *agreed)
    return table


def probed_table(found: Any, name: str) -> Table:
    """A table of a probe; its cells come with their intervals."""
    table = Table(title=f"{name}: {found.title}", title_justify="left", caption=found.caption, caption_justify="left")
    for number, column in enumerate(found.head):
        table.add_column(column, justify="right" if number else "left")
    for line, cells in found.lines:
        shown = [f"{cell.value} ({cell.interval})" if cell.interval else cell.value for cell in cells]
        table.add_row(line, *(_MARKS[cell.mark].format(text) for cell, text in zip(cells, shown, strict=True)))
    return table


def _coloured(fit: str) -> str:
    return {"fit": "[green]fit[/]", "not fit": "[red]not fit[/]"}.get(fit, fit)


def _number(row: Any, interval: bool = False) -> str:
    if row is None or not math.isfinite(row.value):
        return "-"
    text = f"{row.value:,.0f}" if abs(row.value) >= 100 else f"{row.value:.3f}"
    return f"{row.value:.2f} ({row.low:.2f}-{row.high:.2f})" if interval and math.isfinite(row.low) else text


def _threads() -> int:
    import numba

    return numba.get_num_threads()


def _versions() -> dict[str, str | None]:
    from tradefm_gym.bench import version

    names: Sequence[str] = ("tradefm-gym", "numpy", "numba", "scipy", "scikit-learn", "plotly")
    return {name: version(name) for name in names}
