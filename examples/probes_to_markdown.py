"""Write what probes found as Markdown tables across recorded days: cards of one day each, or one of several.

python examples/probes_to_markdown.py aapl/card.json goog/card.json > tables.md
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tyro
from card_to_markdown import head, line

from tradefm_gym.realism import stress
from tradefm_gym.realism.exploits import ATTACKS
from tradefm_gym.realism.impact import AFTER, PARTICIPATION
from tradefm_gym.realism.impact import SIZES as PARENT_SIZES
from tradefm_gym.realism.probes import AGENT
from tradefm_gym.realism.rows import LEAST, Row, Rows

SIZES = {"up_to_1": "up to 1 medians", "1_to_4": "1 to 4 medians"}
LAGS = (1, 10, 100)
HORIZONS = {f"after_{count}_events": f"{count} events" for count in (1, 10, 100)}
HORIZONS |= {f"after_{seconds}_s": f"{seconds} s" for seconds in (1, 10)}


@dataclass
class Arguments:
    """Which cards."""

    cards: tyro.conf.Positional[tuple[Path, ...]]
    flow: str = "tradefm"  # the one that is told of


class Probed:
    """What probes found of one flow on several days."""

    def __init__(self, cards: list[dict], flow: str):
        self.flow = flow
        self.rows = Rows([Row.from_json(row) for card in cards for row in card["rows"]])
        self.sets = list(dict.fromkeys(name for card in cards for name in card["sets"]))
        self.names = {name: _short(name) for name in self.sets}

    def row(self, name: str, quantity: str, metric: str, arm: str | None = None) -> Row | None:
        """A figure of the flow, or of another arm; None if the cards do not have it."""
        return self.rows.get(name, quantity, metric, arm or self.flow)

    def responses(self) -> list[str]:
        """The mid after takers, in basis points: of the record, of the flow, of agents."""
        lines = head(["mid after takers, bps", "lag", "real, 95%", "the flow", "agents"])
        for name in self.sets:
            for size, said in SIZES.items():
                for lag in LAGS:
                    asked = f"mid_response_{size}", f"lag_{lag}"
                    lines += self._beside(name, f"{self.names[name]}, {said}", f"{lag}", *asked)
        return lines

    def markouts(self) -> list[str]:
        """The mid against passive fills, in basis points."""
        lines = head(["markout, bps", "after", "real, 95%", "the flow", "agents"])
        for name in self.sets:
            for horizon, said in HORIZONS.items():
                lines += self._beside(name, self.names[name], said, "markout_bps", horizon)
        return lines

    def inside(self) -> list[str]:
        """In how many of the horizons of each day the flow and agents lie in the record's band."""
        lines = head(["inside the recorded band", *self.names.values()])
        wanted = [(f"mid_response_{size}", f"lag_{lag}") for size in SIZES for lag in LAGS]
        for said, prefix in (("mid after takers of the flow", ""), ("mid after agents' orders", AGENT)):
            lines.append(line([said, *(self._counted(name, prefix, wanted) for name in self.sets)]))
        fills = [("markout_bps", horizon) for horizon in HORIZONS]
        lines.append(line(["markouts of the flow", *(self._counted(name, "", fills) for name in self.sets)]))
        return lines

    def attacks(self) -> list[str]:
        """Mean profit of each attack for a unit traded, in basis points."""
        lines = head(["profit, bps a unit", *self.names.values()])
        for attack in ATTACKS:
            found = [self.row(name, f"exploit_{attack}", "bps") for name in self.sets]
            lines.append(line([attack.replace("_", " "), *map(_interval, found)]))
        return lines

    def parents(self) -> list[str]:
        """Impact of parent orders by size and by participation, and what is left of it."""
        asked = [(f"{size} slices, bps", f"impact_of_{size}", "at_end") for size in PARENT_SIZES]
        asked.append(("exponent against size", "impact_against_size", "exponent"))
        last = PARENT_SIZES[-1]
        asked += [(f"left of {last} after {lag} events", f"impact_of_{last}", f"kept_after_{lag}") for lag in AFTER]
        asked += [
            (f"at {100 * share:g}% participation, bps", f"impact_at_{100 * share:g}_percent", "at_end")
            for share in PARTICIPATION
        ]
        lines = head(["parent orders", *self.names.values()])
        for said, quantity, metric in asked:
            lines.append(line([said, *(_interval(self.row(name, quantity, metric)) for name in self.sets)]))
        return lines

    def stresses(self) -> list[str]:
        """What scenarios move and when that is over."""
        first, last = stress.LAGS[0], stress.LAGS[-1]
        asked = [(f"mid after {lag} events, bps", f"mid_after_{lag}") for lag in (first, last)]
        asked += [(f"{one} recovered after", f"{one}_recovery") for one in ("spread", "depth")]
        lines = head(["stress", *self.names.values()])
        for scenario in stress.STRESSES:
            for said, metric in asked:
                found = [self.row(name, f"stress_{scenario}", metric) for name in self.sets]
                lines.append(line([f"{scenario.replace('_', ' ')}: {said}", *map(_interval, found)]))
        return lines

    def controls(self) -> list[str]:
        """What the highest class of an indicator brings less the lowest."""
        lines = head(["highest less lowest class", *self.names.values()])
        for quantity in dict.fromkeys(
            q for q in self.rows.names("quantity", arm=self.flow) if q.startswith("control_")
        ):
            for metric in self.rows.names("metric", quantity=quantity, arm=self.flow):
                if metric.endswith("_range"):
                    found = [self.row(name, quantity, metric) for name in self.sets]
                    said = f"{quantity.removeprefix('control_')}: {metric.removesuffix('_range')}".replace("_", " ")
                    lines.append(line([said, *map(_interval, found)]))
        return lines

    def _beside(self, name: str, said: str, horizon: str, quantity: str, metric: str) -> list[str]:
        real = self.row(name, quantity, metric, "real")
        if real is None or not math.isfinite(real.value):
            return []
        theirs = [self.row(name, prefix + quantity, metric) for prefix in ("", AGENT)]
        cells = ["" if row is None else f"{row.value:.2f}" + " *" * _is_inside(row, real) for row in theirs]
        return [line([said, horizon, f"{_interval(real)} ({real.n:,})", *cells])]

    def _counted(self, name: str, prefix: str, wanted: list[tuple[str, str]]) -> str:
        pairs = [(self.row(name, prefix + one, metric), self.row(name, one, metric, "real")) for one, metric in wanted]
        known = [
            _is_inside(row, real)
            for row, real in pairs
            if row and real and real.n >= LEAST and math.isfinite(real.low + row.value)
        ]
        return f"{sum(known)} of {len(known)}"


def _is_inside(row: Row, real: Row) -> bool:
    return real.n >= LEAST and real.low <= row.value <= real.high


def _short(name: str) -> str:
    asset = name.split("_")[1] if "_" in name else name
    return asset.upper()


def _interval(row: Row | None) -> str:
    if row is None or not math.isfinite(row.value):
        return ""
    places = 0 if abs(row.value) >= 100 else 1 if abs(row.value) >= 10 else 2
    text = f"{row.value:.{places}f}"
    return f"{text} [{row.low:.{places}f}, {row.high:.{places}f}]" if math.isfinite(row.low) else text


def main(arguments: Arguments) -> None:
    """Print the tables."""
    cards = [json.loads(path.read_text()) for path in arguments.cards]
    probed = Probed(cards, arguments.flow)
    for card in cards:
        print(f"{', '.join(card['sets'])}: {card['hardware']}; arguments: {card['arguments']}\n")
    tables = {
        "Attacks": probed.attacks(), "Responses to takers": probed.responses(), "Markouts": probed.markouts(),
        "Inside": probed.inside(), "Parent orders": probed.parents(), "Stress": probed.stresses(),
        "Control": probed.controls(),
    }  # fmt: skip
    for title, lines in tables.items():
        print(f"### {title}\n", *lines, "", sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
