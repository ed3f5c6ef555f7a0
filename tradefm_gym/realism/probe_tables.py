"""What probes found, as tables that the terminal and the page both print: the record's band first, flows below."""

import math
from collections.abc import Iterable, Sequence

from tradefm_gym.flow.indicators import INDICATORS
from tradefm_gym.realism import control, stress
from tradefm_gym.realism.exploits import ATTACKS
from tradefm_gym.realism.extremes import KINDS
from tradefm_gym.realism.fill_chances import DEPTHS, WAITS
from tradefm_gym.realism.impact import AFTER, PARTICIPATION
from tradefm_gym.realism.impact import SIZES as PARENT_SIZES
from tradefm_gym.realism.markouts import HORIZONS
from tradefm_gym.realism.model_tables import QUANTITIES as OF_MODELS
from tradefm_gym.realism.model_tables import model_tables
from tradefm_gym.realism.probes import AGENT
from tradefm_gym.realism.response import LAGS, SIZES
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.table_cells import Cell, ProbeTable, cell, words

_BRIEF_LAGS = (1, 10, 100, 1000)
_BRIEF_HORIZONS = ("after_1_events", "after_100_events", "after_1_s", "after_10_s")
_BRIEF_DEPTHS = ("inside", "touch", "behind_1")
_UNITS = {"markout_bps": "basis points", "markout_half_spreads": "half-spreads"}
_QUANTITIES = (
    "mid_response",
    "flow_response",
    "markout",
    "fill_probability",
    "exploit_",
    "impact_",
    "control_",
    "regime_",
    "stress_",
    *KINDS,
)
_STRESS_UNITS = {"mid": "mid, bps", "spread": "spread, share", "depth": "depth of five levels, share"}
_WITHIN = tuple(f"within_{wait}_{unit}" for unit, waits in WAITS.items() for wait in waits)
_MARKED = "marked by the record's 95% band"


def of_a_probe(row: Row) -> bool:
    """Whether a row has its place in these tables."""
    name = row.quantity.removeprefix(AGENT).removeprefix("buy_").removeprefix("sell_")
    return name.startswith((*_QUANTITIES, *OF_MODELS))


def probe_tables(rows: Rows, set_name: str, flows: Sequence[str], brief: bool = False) -> list[ProbeTable]:
    """Tables of the probes that ran on a day; none if none did.

    Args:
        rows: of the card.
        set_name: of the day.
        flows: as the rows name them.
        brief: fewer lags, depths and units, and no training part: for a terminal.
    """
    found = [
        *_responses(rows, set_name, flows, brief),
        *_markouts(rows, set_name, flows, brief),
        _fills(rows, set_name, flows, brief),
        _exploits(rows, set_name, flows),
        _impact(rows, set_name, flows),
        _controls(rows, set_name, flows, brief),
        _stresses(rows, set_name, flows),
        _extremes(rows, set_name, flows),
        *model_tables(rows, set_name, flows),
    ]
    return [table for table in found if table.lines]


def _responses(rows: Rows, set_name: str, flows: Sequence[str], brief: bool) -> Iterable[ProbeTable]:
    lags = [f"lag_{lag}" for lag in (_BRIEF_LAGS if brief else LAGS)]
    caption = f"After a taker of up to 1, 1 to 4 or more medians, signed for the taker, by lag in events; {_MARKED}"
    for quantity, what in (("mid_response", "Mid in basis points"), ("flow_response", "Takers' flow in medians")):
        lines = []
        for size in SIZES:
            name = f"{quantity}_{size}"
            lines += _beside_record(rows, set_name, name, lags, flows, "takers", words(size), brief)
        yield ProbeTable(f"{what} after takers", caption, ("", *map(words, lags)), lines)


def _markouts(rows: Rows, set_name: str, flows: Sequence[str], brief: bool) -> Iterable[ProbeTable]:
    horizons = _BRIEF_HORIZONS if brief else HORIZONS
    caption = f"The mid's move after a passive fill, signed for the maker, who loses by a negative one; {_MARKED}"
    for quantity in list(_UNITS)[: 1 if brief else None]:
        lines = _beside_record(rows, set_name, quantity, horizons, flows, "makers", "", brief)
        yield ProbeTable(f"Markout of passive fills in {_UNITS[quantity]}", caption, ("", *map(words, horizons)), lines)


def _fills(rows: Rows, set_name: str, flows: Sequence[str], brief: bool) -> ProbeTable:
    lines = []
    queues = dict.fromkeys(name for name in rows.names("quantity", set=set_name) if "_touch_queue_" in name)
    depths = list(_BRIEF_DEPTHS if brief else DEPTHS)
    waits = [wait for wait in _WITHIN if not brief or wait != "within_1000_events"]
    quantities = [f"fill_probability_{depth}" for depth in depths]
    quantities += [] if brief else [name for name in queues if not name.startswith(AGENT)]
    for quantity in quantities:
        name = words(quantity.removeprefix("fill_probability_"))
        lines += _beside_record(rows, set_name, quantity, waits, flows, "orders", name, brief)
    caption = f"Of a first fill if the order is left alone, by better prices ahead of it on arrival; {_MARKED}"
    return ProbeTable("Chance of a fill", caption, ("", *map(words, waits)), lines)


def _beside_record(
    rows: Rows, set_name: str, quantity: str, metrics: Sequence[str], flows: Sequence[str], whose: str, name: str,
    brief: bool,
) -> list[tuple[str, tuple[Cell, ...]]]:  # fmt: skip
    """The record, its training part, and each flow's background and agents; lines without a value are left out."""
    lines = []
    arms = [("real", "", "recorded")] + ([] if brief else [("drift", "", "training part")])
    arms += [(flow, prefix, f"{flow} {who}") for flow in flows for prefix, who in (("", whose), (AGENT, "agents"))]
    for arm, prefix, said in arms:
        found = [rows.get(set_name, prefix + quantity, metric, arm) for metric in metrics]
        if not any(row is not None and math.isfinite(row.value) for row in found):
            continue
        bands = [rows.get(set_name, quantity, metric, "real") if arm in flows else None for metric in metrics]
        lines.append((f"{name}: {said}" if name else said, tuple(map(cell, found, bands))))
    return lines


def _exploits(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for attack in (f"exploit_{name}" for name in ATTACKS):
        profits = [rows.get(set_name, attack, "profit", flow) for flow in flows]
        paid = [rows.get(set_name, attack, "paid", flow) for flow in flows]
        cells = []
        for profit, told in zip(profits, paid, strict=True):
            shown = cell(profit)
            pays = told is not None and told.value > 0
            cells.append(shown._replace(value=f"{shown.value} paid", mark="paid") if pays else shown)
        if any(row is not None for row in profits):
            lines.append((words(attack.removeprefix("exploit_")), tuple(cells)))
    caption = "Mean profit of an episode in basis points of the value of a median order, without fees"
    return ProbeTable("Scripted attacks", caption, ("attack", *flows), lines)


def _impact(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    asked = [(f"impact of {size} medians at its end, bps", f"impact_of_{size}", "at_end") for size in PARENT_SIZES]
    asked.append(("exponent of impact against size", "impact_against_size", "exponent"))
    largest = PARENT_SIZES[-1]
    asked += [
        (f"share of that of {largest} left after {lag} events", f"impact_of_{largest}", f"kept_after_{lag}")
        for lag in AFTER
    ]
    shares = [f"{100 * share:g}" for share in PARTICIPATION]
    asked += [(f"impact at {share}% participation, bps", f"impact_at_{share}_percent", "at_end") for share in shares]
    lines = []
    for name, quantity, metric in asked:
        found = [rows.get(set_name, quantity, metric, flow) for flow in flows]
        if any(row is not None for row in found):
            lines.append((name, tuple(map(cell, found))))
    caption = "Against the same market without the parent order; sizes in medians, at 20% participation"
    return ProbeTable("Impact of parent orders", caption, ("", *flows), lines)


def _controls(rows: Rows, set_name: str, flows: Sequence[str], brief: bool) -> ProbeTable:
    """For each indicator its classes, less the untold market, and the highest less the lowest."""
    lines = []
    for flow in flows:
        for indicator in INDICATORS:
            name = f"control_{indicator}"
            classes = [one.rpartition("_at_")[2] for one in rows.names("metric", set=set_name, quantity=name, arm=flow)]
            told = sorted({int(one) for one in classes if one.isdigit()})
            for value in [] if brief else told:
                lines.append(_measures(rows, set_name, name, f"_at_{value}", flow, f"{flow}: {indicator} {value}"))
            if told:
                said = f"{flow}: {indicator}, {told[-1]} less {told[0]}"
                line = _measures(rows, set_name, name, "_range", flow, said)
                lines.append((line[0], tuple(_one_way(rows, set_name, name, flow, *each) for each in _each(line[1]))))
        for regime in control.REGIMES:
            lines.append(_measures(rows, set_name, f"regime_{regime}", "", flow, f"{flow}: {regime}"))
    lines = [line for line in lines if any(cell.value != "-" for cell in line[1])]
    caption = (
        "Less the same market untold (same start and random numbers). Marked: the interval leaves out 0; monotone: "
        "each step from class to class goes that way, and its interval leaves out 0, too"
    )
    return ProbeTable("Indicators told alone", caption, ("", *map(words, control.MEASURES)), lines)


def _measures(
    rows: Rows, set_name: str, quantity: str, suffix: str, flow: str, said: str
) -> tuple[str, tuple[Cell, ...]]:  # fmt: skip
    found = [rows.get(set_name, quantity, f"{measure}{suffix}", flow) for measure in control.MEASURES]
    return said, tuple(_against_zero(row) for row in found)


def _each(cells: Sequence[Cell]) -> Iterable[tuple[str, Cell]]:
    return zip(control.MEASURES, cells, strict=True)


def _one_way(rows: Rows, set_name: str, quantity: str, flow: str, measure: str, cell: Cell) -> Cell:
    row = rows.get(set_name, quantity, f"{measure}_monotone", flow)
    return cell._replace(value=f"{cell.value} monotone") if row is not None and row.value > 0 else cell


def _against_zero(row: Row | None) -> Cell:
    """A cell, green where its interval leaves out 0."""
    found = cell(row)
    clear = row is not None and math.isfinite(row.low + row.high) and (row.low > 0 or row.high < 0)
    return found._replace(mark="near") if clear else found


def _stresses(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    """For each scenario what it moves by lag, when that is over, and what becomes of the variance."""
    lines = []
    for name in stress.STRESSES:
        for flow in flows:
            for quantity in stress.QUANTITIES:
                metrics = [f"{quantity}_after_{lag}" for lag in stress.LAGS]
                metrics += [f"{quantity}_recovery", f"{quantity}_recovered"]
                found = [rows.get(set_name, f"stress_{name}", metric, flow) for metric in metrics]
                lines.append((f"{flow}: {words(name)}, {_STRESS_UNITS[quantity]}", tuple(map(cell, found))))
            metrics = [f"variance_{part}" for part in ("during", "soon", "late")]
            found = [rows.get(set_name, f"stress_{name}", metric, flow) for metric in metrics]
            told = (cell(found[0]), Cell(""), Cell(""), *map(cell, found[1:]), Cell(""), Cell(""))
            lines.append((f"{flow}: {words(name)}, variance ratio: until 0, 256, then", told))
    lines = [line for line in lines if any(cell.value not in ("", "-") for cell in line[1])]
    caption = (
        "Less the same market without the scenario, by events after its end; recovered: events until a market is back "
        "in the band of its twin (the horizon where it is not), and the share that is"
    )
    head = ("", *(f"after {lag}" for lag in stress.LAGS), "recovered after", "share recovered")
    return ProbeTable("Stress scenarios", caption, head, lines)


def _extremes(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for flow in flows:
        for kind in (*KINDS, "extreme_less_other"):
            quantity = f"{kind}_windows"
            found = [
                rows.get(set_name, quantity, metric, flow) for metric in ("real_variance", "variance_over_real", "nats")
            ]
            if any(row is not None for row in found):
                windows = max(row.n for row in found if row is not None)
                lines.append((f"{flow}: {words(quantity)} ({windows})", tuple(map(cell, found))))
    caption = "Windows of 128 events by the mid's realised variance, the top decile apart; nats given the events before"
    return ProbeTable("Extreme regimes", caption, ("", "recorded variance", "variance / recorded", "nats"), lines)
