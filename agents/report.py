"""A comparison as a table in the terminal, as JSON and as a picture."""

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from tradefm_gym.agents.comparison import Estimate, PolicySummary

TITLES = {"crossing_twap": "crossing TWAP", "passive_twap": "passive TWAP"}
_COLOURS = ("#3b6fb6", "#c65f3c", "#4f9a5f", "#8866aa")


def comparison_table(summaries: list[PolicySummary], title: str, episodes: int) -> Table:
    """Summaries as a table; lower shortfalls are better and negative differences say "better than"."""
    baselines = list(dict.fromkeys(name for summary in summaries for name in summary.differences))
    table = Table(title=title, caption=f"{episodes} equal episodes each; [95% interval, bootstrap over contexts]")
    table.add_column("policy")
    minus = (f"minus {TITLES.get(name, name)}, bps" for name in baselines)
    for column in ("shortfall, bps", "half-spreads", *minus):
        table.add_column(column, justify="right", min_width=14)  # an interval stays on its line
    for column in ("filled", "as maker", "decisions"):
        table.add_column(column, justify="right")
    for summary in summaries:
        table.add_row(
            summary.name,
            _interval(summary.shortfall_bps),
            _interval(summary.shortfall_half_spreads),
            *(_interval(summary.differences[name]) if name in summary.differences else "" for name in baselines),
            f"{summary.fill_rate:.1%}",
            f"{summary.maker_share:.0%}",
            f"{summary.steps:.1f}",
        )
    return table


def controlled_table(summaries: list[PolicySummary], title: str) -> Table:
    """Means of an evaluation with control, plain and without the luck of the market's path, with standard errors.

    The last column is the part of the variance that is left: so many episodes are as good as all were.
    """
    table = Table(title=title, caption="± standard error, clustered by context")
    for column in ("policy", "bps", "plain", "with control", "variance left"):
        table.add_column(column, justify="left" if column in ("policy", "bps") else "right")
    for summary in summaries:
        for place, (name, found) in enumerate(summary.controlled.items()):
            plain, reduced = f"{found.plain:.2f} ±{found.plain_error:.2f}", f"{found.mean:.2f} ±{found.error:.2f}"
            table.add_row("" if place else summary.name, name, plain, reduced, f"{found.variance:.0%}")
    return table


def comparison_json(
    episodes: dict[str, np.ndarray], summaries: list[PolicySummary], description: dict[str, Any]
) -> dict[str, Any]:
    """All that was found, as plain data: what was run, the summaries, and every episode as columns."""
    return {
        **description,
        "policies": [summary.to_json() for summary in summaries],
        "episodes": {name: _columns(rows) for name, rows in episodes.items()},
    }


def hardware() -> dict[str, Any]:
    """The machine that figures were taken on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "system": platform.system(),
    }


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON; an existing file is replaced only when all is written."""
    _replace(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n"))


def write_picture(path: str | Path, comparisons: dict[str, list[PolicySummary]]) -> bool:
    """Draws each comparison: shortfalls on the left, paired differences on the right.

    Args:
        path: a PNG file, replaced only when all is written.
        comparisons: by title.

    Returns:
        False, and nothing is written, where matplotlib (the extra ``report``) is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 0.6 + 3.0 * len(comparisons)), layout="constrained")
    axes = figure.subplots(len(comparisons), 2, squeeze=False)
    for (left, right), (title, summaries) in zip(axes, comparisons.items(), strict=True):
        _draw_shortfalls(left, title, summaries)
        _draw_differences(right, summaries)
    _replace(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))
    return True


def _draw_shortfalls(axes: Any, title: str, summaries: list[PolicySummary]) -> None:
    for at, summary in enumerate(summaries):
        _draw_estimate(axes, at, summary.shortfall_bps, _COLOURS[0])
    axes.set_yticks(range(len(summaries)), [summary.name for summary in summaries])
    axes.invert_yaxis()
    axes.set_xlabel("implementation shortfall, bps (95% interval)")
    axes.set_title(title, loc="left", fontsize=10)


def _draw_differences(axes: Any, summaries: list[PolicySummary]) -> None:
    baselines = list(dict.fromkeys(name for summary in summaries for name in summary.differences))
    for number, baseline in enumerate(baselines):
        colour, label = _COLOURS[number % len(_COLOURS)], f"minus {TITLES.get(baseline, baseline)}"
        for at, summary in enumerate(summaries):
            if baseline in summary.differences:
                _draw_estimate(axes, at + 0.16 * (number - 0.5), summary.differences[baseline], colour, label)
                label = None
    axes.axvline(0.0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(summaries)), [summary.name for summary in summaries])
    axes.invert_yaxis()
    axes.set_xlabel("paired difference, bps (95% interval; below 0 is better)")
    if baselines:
        axes.legend(fontsize=8)


def _draw_estimate(axes: Any, at: float, estimate: Estimate, colour: str, label: str | None = None) -> None:
    axes.plot([estimate.low, estimate.high], [at, at], color=colour, linewidth=2)
    axes.plot([estimate.mean], [at], "o", color=colour, label=label)


def _interval(estimate: Estimate) -> str:
    return f"{estimate.mean:.2f}\n[{estimate.low:.2f}, {estimate.high:.2f}]"


def _columns(rows: np.ndarray) -> dict[str, list[Any]]:
    columns = {name: rows[name] for name in rows.dtype.names or ()}
    return {name: (np.round(c, 6) if c.dtype.kind == "f" else c).tolist() for name, c in columns.items()}


def _replace(path: str | Path, write: Callable[[Path], Any]) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
