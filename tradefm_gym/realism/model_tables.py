"""Tables of the probes that look at models: memory, code length, ageing of the tokenizer, worth as training data."""

import math
from collections.abc import Sequence

from tradefm_gym.realism.memorisation import CHAIN, RECORD
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.table_cells import Cell, ProbeTable
from tradefm_gym.realism.tokenizer_drift import EDGES, QUARTERS

# How the quantities of these probes begin.
_PREFIXED = ("longest_match", "extraction_", "membership", "code_length")
QUANTITIES = (
    *(prefix + name for prefix in ("", CHAIN, RECORD) for name in _PREFIXED),
    "tokenizer_quarter_",
    "next_change_after",
)

_WHOSE = {"": "the flow", CHAIN: "Markov chain", RECORD: "recorded test part"}
_MATCHES = {
    "in_train": "tokens found in the training part",
    "in_held_out": "in a part that no training saw",
    "train_less_held_out": "difference",
    "largest_in_train": "longest in the training part",
    "largest_in_held_out": "longest in the other",
}
_EXTRACTED = (
    ("sampled", 1), ("sampled", 4), ("sampled", 8), ("sampled_varied", 4), ("sampled_varied", 8),
    ("greedy", 4), ("greedy", 8), ("greedy_varied", 4), ("greedy_varied", 8),
)  # fmt: skip
_MEMBERSHIP = {
    "auc": "trained on or not",
    "auc_adjacent": "trained on or not, neighbouring hours",
    "auc_control": "both not trained on",
}
_CODES = ("token", "price", "size", "time", "raw")


def model_tables(rows: Rows, set_name: str, flows: Sequence[str]) -> list[ProbeTable]:
    """The tables of a day; those of probes that did not run have no lines."""
    return [
        _matches(rows, set_name, flows),
        _extraction(rows, set_name, flows),
        _membership(rows, set_name, flows),
        _codes(rows, set_name, flows),
        *(_ageing(rows, set_name, flow) for flow in flows),
        _lessons(rows, set_name, flows),
    ]


def _matches(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for prefix, whose in _WHOSE.items():
        for metric, said in _MATCHES.items():
            found = [rows.get(set_name, f"{prefix}longest_match", metric, flow) for flow in flows]
            lines += _line(f"{whose}: {said}", found)
    caption = "Mean length of the longest run of tokens from each event on that occurs there; parts of equal length"
    return ProbeTable("Longest matches with recorded orders", caption, ("", *flows), lines)


def _extraction(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for prefix, whose in (("", ""), (CHAIN, "Markov chain: ")):
        for kind, steps in _EXTRACTED:
            for part in ("train", "held_out"):
                found = [rows.get(set_name, f"{prefix}extraction_{part}", f"{kind}_{steps}", flow) for flow in flows]
                lines += _line(f"{whose}next {steps} {_said(kind)}, {_said(part)}", found)
    for metric in ("greedy_longest", "greedy_longest_varied"):
        for part in ("train", "held_out"):
            found = [rows.get(set_name, f"extraction_{part}", metric, flow) for flow in flows]
            lines += _line(f"{_said(metric)}, {_said(part)}", found)
    caption = "Share of moments from which the next events are continued exactly; varied: half of the tokens differ"
    return ProbeTable("Extraction of recorded orders", caption, ("", *flows), lines)


def _membership(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for prefix, whose in (("", ""), (CHAIN, "Markov chain that saw neither: ")):
        for metric, said in _MEMBERSHIP.items():
            found = [rows.get(set_name, f"{prefix}membership", metric, flow) for flow in flows]
            lines += _line(f"{whose}{said}", found)
    caption = "Area under the curve of the loss of windows of 64 events; 0.5 tells nothing"
    return ProbeTable("Membership of the training part", caption, ("", *flows), lines)


def _codes(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    lines = []
    for prefix, whose in (("", ""), (CHAIN, "Markov chain: ")):
        for metric in _CODES:
            said = {"token": "token", "raw": "raw event"}.get(metric, f"{metric} within its bin")
            lines += _line(
                f"{whose}{said}", [rows.get(set_name, f"{prefix}code_length", metric, flow) for flow in flows]
            )
    caption = "Nats per event of the test part; those of raw events compare between tokenizers"
    return ProbeTable("Code length", caption, ("", *flows), lines)


def _ageing(rows: Rows, set_name: str, flow: str) -> ProbeTable:
    asked = [
        (f"{edges} edges, Markov chain, {what}", f"{edges}_{what}") for what in ("token", "raw") for edges in EDGES
    ]
    asked += [
        ("rolling less frozen, raw", "rolling_less_frozen"),
        ("rolling less shipped, raw", "rolling_less_shipped"),
        ("requantiled less shipped, raw", "requantiled_less_shipped"),
    ]
    asked += [(f"shipped edges, {flow}, {what}", f"model_{what}") for what in ("token", "raw")]
    quantities = [f"tokenizer_quarter_{number}" for number in range(1, QUARTERS + 1)]
    lines = []
    for said, metric in asked:
        lines += _line(said, [rows.get(set_name, quantity, metric, flow) for quantity in quantities])
    caption = "Nats per event by quarter of the day's time; the model learned from the first 70%"
    return ProbeTable("Ageing of the tokenizer", caption, ("", *(f"quarter {n + 1}" for n in range(QUARTERS))), lines)


def _lessons(rows: Rows, set_name: str, flows: Sequence[str]) -> ProbeTable:
    metrics = ("auc", "auc_less_real", "accuracy", "accuracy_less_real")
    lines = []
    for arm, said in (("drift", "recorded training part"), *((flow, flow) for flow in flows)):
        lines += _line(said, [rows.get(set_name, "next_change_after", metric, arm) for metric in metrics])
    caption = "Direction of the mid's next change, learned on an arm and tried on the recorded test part"
    return ProbeTable("Train on synthetic, test on real", caption, ("", *map(_said, metrics)), lines)


def _said(metric: str) -> str:
    return metric.replace("_", " ").replace("auc", "area under the curve")


def _line(said: str, found: Sequence[Row | None]) -> list[tuple[str, tuple[Cell, ...]]]:
    """A line, unless nothing was found for it."""
    return [(said, tuple(map(_cell, found)))] if any(row is not None for row in found) else []


def _cell(row: Row | None) -> Cell:
    """Shares of exact continuations span many powers of ten."""
    if row is None or not math.isfinite(row.value):
        return Cell("-")
    known = math.isfinite(row.low + row.high)
    return Cell(_number(row.value), f"{_number(row.low)} to {_number(row.high)}" if known else "")


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.1e}"
