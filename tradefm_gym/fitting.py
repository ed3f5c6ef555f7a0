"""Fitting flows to a recorded day, with progress and a report for people."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.habits import ROWS, Habits
from tradefm_gym.flow.hawkes_calibration import FitOptions, fit_hawkes
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.flow.zero_intelligence_parameters import ZeroIntelligenceParameters
from tradefm_gym.model.serving import checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.habits_fit import HabitOptions, fit_habits


def hawkes(recorded: RecordedFlow, out: Path, options: dict[str, Any]) -> HawkesParameters:
    """Fits Compound Hawkes, writes it to ``out`` and prints how well it explains the day.

    Args:
        recorded: a recorded day.
        out: the JSON file to write.
        options: arguments of ``FitOptions``.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading the day")
        parameters = fit_hawkes(recorded, FitOptions(**options), lambda text: progress.update(task, description=text))
    parameters.save(out)
    print_hawkes(parameters, out)
    return parameters


def zero_intelligence(recorded: RecordedFlow, out: Path) -> ZeroIntelligenceParameters:
    """Fits zero intelligence, writes it to ``out`` and prints its rates."""
    started = time.perf_counter()
    with Console(stderr=True).status("fitting"):
        parameters = ZeroIntelligenceParameters.fit(recorded)
    meta = recorded.meta
    provenance = {name: getattr(meta, name) for name in ("ticker", "venue", "date", "tick_size", "price_unit", "lot")}
    parameters.save(out, {"provenance": provenance, "seconds": round(time.perf_counter() - started, 1)})
    console = _console()
    console.print(f"{out}: {meta.ticker}, {meta.venue}, {meta.date}", highlight=False)
    table = Table("rate", "per second")
    table.add_row("limit orders", f"{parameters.limit_rate:.4g}")
    table.add_row("takers", f"{parameters.market_rate:.4g}")
    table.add_row("cancels, each resting order", f"{parameters.cancel_rate:.4g}")
    console.print(table)
    return parameters


def tradefm(recorded: RecordedFlow, out: Path, model: str, options: dict[str, Any]) -> Habits:
    """Finds the habits of a day, writes them and prints how near the network's markets come to it.

    Args:
        recorded: a recorded day.
        out: the JSON file of habits to write, or, if it ends with .npz, the context bank that is told them.
        model: a checkpoint.
        options: arguments of ``HabitOptions``.
    """
    effort = HabitOptions(**options)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running freely")
        habits = fit_habits(
            recorded, model, effort, lambda done, of: progress.update(task, completed=done, total=of)
        )  # fmt: skip
    if out.suffix == ".npz":
        habits.told(recorded_bank(recorded, TradeTokenizer.load(checkpoint(model)[0]))).save(out)
    else:
        habits.save(out)
    asset, console = habits.report["asset"], _console()
    console.print(f"{out}: {asset['ticker']}, {asset['venue']}, {asset['date']}", highlight=False)
    columns = (*(name.replace("_", " ") for name in ROWS), "takers beyond the touch", "takers' sides")
    table = Table("round", *columns, "sum")
    for number, distances in enumerate(habits.report["distances"]):
        kept = "*" if number == habits.report["kept"] else ""
        cells = ["-" if one is None else f"{one:.3f}" for one in distances]  # of some the day has too few
        table.add_row(f"{number}{kept}", *cells, f"{sum(one or 0.0 for one in distances):.3f}")
    console.print("distances from the day's training part, * kept; round 0 has no habits", highlight=False)
    console.print(table)
    turning = habits.report["turning"]
    if turning["error"] is not None:
        told = (turning["recorded"], turning["flow"][0], turning["flow"][habits.report["kept"]])
        record, without, kept = ("too few to tell" if one is None else f"{one:.2f}" for one in told)
        said = f"{record} in the record, {without} in the flow without habits, {kept} with them"
        console.print(f"takers turn with the price, log-odds a usual spread: {said}", highlight=False)
    errors, strayed = habits.report["pace_error"], habits.report["strayed"]
    if not errors:
        console.print("how long a pace lasts was not tried: the validation part is too short", highlight=False)
        return habits
    table = Table("a pace lasts by", "mean error of log durations, held out", "waits stray by")
    for lasting, error in errors.items():
        mark = "*" if float(lasting) == habits.lasting else ""
        table.add_row(f"{lasting}{mark}", f"{error:.3f}", f"{strayed[lasting]:+.3f}" if lasting in strayed else "")
    console.print(table)
    return habits


def print_hawkes(parameters: HawkesParameters, out: Path) -> None:
    """The report of a fit, as people read it."""
    report, console = parameters.report, _console()
    source, scores = report["provenance"], report["nats_per_event"]
    decays = ", ".join(f"{decay:.3g}" for decay in parameters.process.decays)
    console.print(f"{out}: {source['ticker']}, {source['venue']}, {source['date']}", highlight=False)
    console.print(
        f"decays {decays} per second; inhibition {'allowed' if report['fit']['inhibition'] else 'none'}; "
        f"spectral radius {parameters.radius:.3f}; {report['fit']['seconds']:.0f} s",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if missing := report["fit"].get("missing"):
        why = "no order of known place in the training part, so none in the flow"
        console.print(f"{why}: {', '.join(missing)}", highlight=False, soft_wrap=True)
    table = Table("nats per event", "events", "Hawkes", "Poisson")
    for part, score in scores.items():
        table.add_row(part, f"{score['events']:,}", f"{score['hawkes']:.4f}", f"{score['poisson']:.4f}")
    console.print(table)
    balance = report["balance"]
    table = Table("book", "recorded", "simulated")
    for name, what in (("spread", "spread, geometric mean, ticks"), ("move", "mid's move in 64 events, ticks")):
        table.add_row(what, *(f"{balance[side][name]:.2f}" for side in ("recorded", "simulated")))
    console.print(table)
    table = Table("type", "events", "K-S", "p", "mean", "median / 0.693", "95% / 2.996", "99% / 4.605", "K-S held out")
    held_out = scores["validation"]["goodness_of_fit"]
    for row, other in zip(scores["train"]["goodness_of_fit"], held_out, strict=True):
        quantiles = [f"{row['observed'][at]:.3f}" if row["observed"] else "-" for at in (4, 7, 8)]
        numbers = [_figure(row["ks"]), _figure(row["p_value"]), _figure(row["mean"])]
        table.add_row(row["type"], f"{row['events']:,}", *numbers, *quantiles, _figure(other["ks"]))
    console.print("residuals after time rescaling, beside unit exponentials", highlight=False)
    console.print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120)  # a pipe has no width of its own
