"""``tradefm-gym paper``: what the paper published, beside what was measured here."""

import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NONE = "not measured"
NO_CARD = "no card given"


@dataclass(frozen=True)
class Paper:
    """Print the figures of the TradeFM paper beside ours, of cards that tradefm-gym realism wrote."""

    card: tuple[Path, ...] = ()  # card.json files; by default the figures that the package comes with
    json: bool = False  # print them as JSON
    keep: Path | None = None  # also write the rows that were used to a file, as the package comes with

    def run(self) -> int:
        """Prints; what was not measured says so."""
        from tradefm_gym.realism.paper import beside, keep, rows_of

        rows = rows_of(self.card)
        found = beside(rows)
        if self.keep is not None:
            keep(rows, [_about(path) for path in self.card], self.keep)
        if self.json:
            print(json.dumps([_plain(one) for one in found], indent=1))
        else:
            print_figures(found, "no figures of a tradefm flow in the card" if self.card else NO_CARD)
        return 0


def print_figures(found: list[Any], without: str = NO_CARD) -> None:
    """Two tables for each set and flow, as people read them; ``without`` says why there are none."""
    from tradefm_gym.model.config import PRESETS
    from tradefm_gym.realism.paper import CLAIMS, ERRORS

    console = Console(width=None if sys.stdout.isatty() else 150)
    subjects = dict.fromkeys((one.set, one.arm) for one in found if one.table == ERRORS)
    for name, arm in subjects:
        title = f"{name}, {arm}" if name else without
        console.print(_errors([one for one in found if (one.table, one.set, one.arm) == (ERRORS, name, arm)], title))
    for name in dict.fromkeys(name for name, _ in subjects):
        console.print(_claims([one for one in found if (one.table, one.set) == (CLAIMS, name)], name or without))
    count = PRESETS["paper"].parameter_count()
    console.print(f"parameters: the paper's model 524,392,448, the preset paper {count:,}", highlight=False)


def _errors(found: list[Any], title: str) -> Table:
    from tradefm_gym.realism.paper import ERRORS, LEAST

    table = Table(title=f"{ERRORS}: the paper's, and ours ({title})", title_justify="left")
    columns = ("figure", "paper", "its Hawkes", "ratio", "ours", "Hawkes", "zero intelligence", "ratio", "n")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for one in found:
        ratio = "" if one.ratio is None else f"{one.ratio:.2f}"
        others = (_value(row, "") for row in (one.hawkes, one.zero_intelligence))
        theirs = one.published, one.published_hawkes, one.published_ratio
        table.add_row(one.said, *theirs, _value(one.model), *others, ratio, _count(one))
    table.caption = f"few: fewer than {LEAST} recorded samples, on which even a perfect generator may score badly"
    table.caption_justify = "left"
    return table


def _claims(found: list[Any], title: str) -> Table:
    from tradefm_gym.realism.paper import CLAIMS

    table = Table(title=f"{CLAIMS}: the paper's, and ours ({title})", title_justify="left")
    for column in ("figure", "paper", "arm", "ours", "n"):
        table.add_column(column, justify="right" if column in ("ours", "n") else "left")
    lines = ((one.said, one.published, one.arm, _value(one.model), _count(one)) for one in found)
    for line in dict.fromkeys(lines):  # what no flow has part in comes with each
        table.add_row(*line)
    return table


def _count(one: Any) -> str:
    return "" if one.model is None else f"{one.n:,}{'' if one.enough else ' (few)'}"


def _value(row: Any, none: str = NONE) -> str:
    if row is None or not math.isfinite(row.value):
        return none
    interval = f" ({row.low:.3f}-{row.high:.3f})" if math.isfinite(row.low + row.high) else ""
    return f"{row.value:.3f}{interval}"


def _plain(one: Any) -> dict[str, Any]:
    """A figure as plain values; what is NaN becomes null."""
    values = asdict(one)
    values |= {name: row.to_json() for name in ("model", "hawkes", "zero_intelligence") if (row := getattr(one, name))}
    return values | {"measured": one.model is not None, "enough": one.enough}


def _about(path: Path) -> dict[str, Any]:
    """With what a card was made; where the days lay is nobody's business."""
    card = json.loads(path.read_text())
    about = {name: card[name] for name in ("sets", "arguments", "hardware", "versions") if name in card}
    about.get("arguments", {}).pop("data", None)
    return about
