"""Write the tables of a realism card as Markdown, and how they stand against what was aimed at.

python examples/card_to_markdown.py realism/card.json > tables.md
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tyro

from tradefm_gym.realism.forecasts import EVENTS, OUTCOMES, SECONDS
from tradefm_gym.realism.rows import LEAST, Row, Rows

RECORDED = ("floor", "drift", "round_trip")
FACTS = {
    "no_autocorrelation": "returns uncorrelated",
    "heavy_tails": "heavy tails",
    "slow_decay": "slow decay of absolute returns",
    "convergence_to_gaussian": "tends to a Gaussian",
}


@dataclass
class Arguments:
    """Which card."""

    card: tyro.conf.Positional[Path]
    flow: str = "tradefm"  # the one that is judged


class Tables:
    """The tables of one card."""

    def __init__(self, card: dict, flow: str):
        self.card, self.flow, self.reference = card, flow, card["reference"]
        self.rows, self.sets, self.flows = Rows(map(Row.from_json, card["rows"])), card["sets"], card["flows"]
        self.pools = [name for name in dict.fromkeys(row.set for row in self.rows.all) if name not in self.sets]

    def value(self, name: str, quantity: str, metric: str, arm: str) -> float:
        """A number, NaN if the card does not have it."""
        row = self.rows.get(name, quantity, metric, arm)
        return math.nan if row is None else row.value

    def distances(self, name: str) -> list[str]:
        """K-S distances of a set with their intervals."""
        arms = [*RECORDED, *self.flows]
        lines = head(["K-S", "n", *(arm.replace("_", " ") for arm in arms)])
        for quantity in self.rows.names("quantity", set=name, metric="ks"):
            found = [self.rows.get(name, quantity, "ks", arm) for arm in arms]
            if self.rows.get(name, quantity, "ks", self.flow) is None:
                continue
            n = max((row.n for row in found if row), default=0)
            lines.append(line([quantity.replace("_", " "), f"{n:,}", *map(_with_interval, found)]))
        return lines

    def skills(self, name: str) -> list[str]:
        """CRPS skill over the reference, bold where the interval leaves out zero."""
        horizons = [f"{count}_events" for count in EVENTS] + [f"{seconds}s" for seconds in SECONDS]
        lines = head(["skill", *(horizon.replace("_", " ") for horizon in horizons)])
        for outcome in OUTCOMES:
            found = [self.rows.get(name, f"{outcome}_{horizon}", "crps_skill", self.flow) for horizon in horizons]
            lines.append(line([outcome.replace("_", " "), *(_with_interval(row, True) for row in found)]))
        return lines

    def facts(self) -> list[str]:
        """In how many sets each stylised fact agrees with the record."""
        arms = ["drift", *self.flows]
        lines = head(["agrees with the record, sets", *(arm.replace("_", " ") for arm in arms)])
        for fact, said in FACTS.items():
            cells = []
            for arm in arms:
                known = [self.value(name, fact, "agrees", arm) for name in self.sets]
                known = [value for value in known if not math.isnan(value)]
                cells.append(f"{sum(known):.0f} of {len(known)}")
            lines.append(line([said, *cells]))
        return lines

    def targets(self) -> list[str]:
        """What was aimed at, set by set."""
        lines = head(["aimed at", *(_short(name) for name in self.sets), "holds"])
        checks = [
            *(
                (
                    f"skill of {outcome.replace('_', ' ')}, horizons above / below 0, none below",
                    lambda s, o=outcome: self._skilled(s, o),
                )
                for outcome in OUTCOMES
                if outcome != "duration"
            ),
            ("return K-S, 1 s, 0.5 of Hawkes or at the floor", lambda s: self._return(s, "log_return_1s")),
            ("return K-S, 10 s, likewise", lambda s: self._return(s, "log_return_10s")),
            ("spread K-S below Hawkes, within 1.5 of drift", lambda s: self._below(s, "spread", 1.0, 1.5)),
            ("spread W1 below Hawkes, within 1.5 of drift", lambda s: self._below(s, "spread", 1.0, 1.5, "w1")),
            ("inter-arrival K-S, 0.55 of Hawkes", lambda s: self._below(s, "inter_arrival", 0.55)),
            ("price-depth K-S, 0.6 of Hawkes", lambda s: self._below(s, "price_depth", 0.6)),
            *(
                (
                    f"{quantity.replace('_', ' ')} below Hawkes and zero intelligence",
                    lambda s, q=quantity: self._least(s, q),
                )
                for quantity in ("order_size", "touch_depth", "imbalance")
            ),
            (
                "fill counts, round trip, correlation 0.95 / of no fills / window by window",
                lambda s: self._fills(s, "fill_count_64_events"),
            ),
            (
                "fill volumes, round trip, correlation 0.95 / of no fills / window by window",
                lambda s: self._fills(s, "fill_volume_64_events"),
            ),
            ("last quarter of rollouts, 1.5 of the first (spread)", lambda s: self._drift(s, "spread")),
            ("a side empty in at most 1% of events", self._alive),
            ("largest spread at most 20 medians", self._wide),
            ("stylised facts that agree, of those that the record tells, all", self._agrees),
        ]
        for said, check in checks:
            found = [check(name) for name in self.sets]
            known = [good for good, _ in found if good is not None]
            lines.append(line([said, *(text for _, text in found), f"{sum(known)} of {len(known)}"]))
        return lines

    def _skilled(self, name: str, outcome: str):
        horizons = [f"{count}_events" for count in EVENTS] + [f"{seconds}s" for seconds in SECONDS]
        found = [self.rows.get(name, f"{outcome}_{horizon}", "crps_skill", self.flow) for horizon in horizons]
        known = [row for row in found if row and math.isfinite(row.low + row.high)]
        above, below = sum(row.low > 0 for row in known), sum(row.high < 0 for row in known)
        return (below == 0 if known else None), f"{above} / {below} of {len(known)}"

    def _agrees(self, name: str):
        known = [value for fact in FACTS if not math.isnan(value := self.value(name, fact, "agrees", self.flow))]
        return (sum(known) == len(known) if known else None), f"{sum(known):.0f} of {len(known)}"

    def _below(self, name: str, quantity: str, share: float, of_drift: float | None = None, metric: str = "ks"):
        ours, theirs, drift = (
            self.value(name, quantity, metric, arm) for arm in (self.flow, self.reference, "drift")
        )  # fmt: skip
        good = ours <= share * theirs and (of_drift is None or ours <= of_drift * drift)
        return _known(good, ours, theirs), f"{ours:.3f} / {theirs:.3f}"

    def _return(self, name: str, quantity: str):
        ours, theirs, floor = (self.value(name, quantity, "ks", arm) for arm in (self.flow, self.reference, "floor"))
        drift = self.rows.get(name, quantity, "ks", "drift")
        if drift is None or drift.n < LEAST:
            return None, ""  # too few in the test part to tell
        return _known(ours <= 0.5 * theirs or ours <= floor, ours, theirs), f"{ours:.3f} / {theirs:.3f}, {floor:.3f}"

    def _least(self, name: str, quantity: str):
        ours = self.value(name, quantity, "ks", self.flow)
        others = [self.value(name, quantity, "ks", flow) for flow in (self.reference, "zero_intelligence")]
        text = " / ".join(f"{value:.3f}" for value in (ours, *others))
        return _known(all(ours < other for other in others), ours, *others), text

    def _fills(self, name: str, quantity: str):
        value, none, each = (
            self.value(name, quantity, metric, "round_trip")
            for metric in ("distribution_correlation", "distribution_correlation_of_none", "window_correlation")
        )
        return _known(value >= 0.95, value), " / ".join(map(_figure, (value, none, each)))

    def _drift(self, name: str, quantity: str):
        value = self.value(name, quantity, "ks_last_over_first", self.flow)
        return _known(value <= 1.5, value), f"{value:.2f}"

    def _alive(self, name: str):
        value = self.value(name, "empty_side", "share", self.flow)
        return _known(value <= 0.01, value), f"{100 * value:.2f}%"

    def _wide(self, name: str):
        value = self.value(name, "spread", "largest_over_median", self.flow)
        return _known(value <= 20, value), f"{value:.1f}"


def _known(good: bool, *values: float) -> bool | None:
    return None if any(math.isnan(value) for value in values) else good


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _short(name: str) -> str:
    return " ".join(part.upper() for part in name.split("_")[:2])


def _with_interval(row: Row | None, bold: bool = False) -> str:
    if row is None or not math.isfinite(row.value):
        return ""
    text = f"{row.value:+.2f}" if bold else f"{row.value:.3f}"
    if not math.isfinite(row.low):
        return text
    text += f" [{row.low:.2f}, {row.high:.2f}]"
    return f"**{text}**" if bold and (row.low > 0 or row.high < 0) else text


def head(cells: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(cells), "|---|" + "---:|" * (len(cells) - 1)]


def line(cells: list[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def main(arguments: Arguments) -> None:
    """Print the tables."""
    card = json.loads(arguments.card.read_text())
    tables = Tables(card, arguments.flow)
    print(f"{card['hardware']}; arguments: {card['arguments']}\n")
    print("### What was aimed at\n", *tables.targets(), "", sep="\n")
    for name in tables.pools:
        print(f"### Forecasts, {name}\n", *tables.skills(name), "", sep="\n")
    print("### Stylised facts\n", *tables.facts(), "", sep="\n")
    for name in tables.sets:
        print(f"### {name}\n", *tables.distances(name), "", *tables.skills(name), "", sep="\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
