"""A card as one page of HTML that needs nothing else: tables, pictures and verdicts (the extra ``realism``)."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tradefm_gym.realism import pictures, verdict
from tradefm_gym.realism.card import RECORDED_ARMS, Card
from tradefm_gym.realism.measured import ALONG, STRETCHES
from tradefm_gym.realism.part_files import write_text
from tradefm_gym.realism.probe_tables import Cell, of_a_probe, probe_tables
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.sections import POOLED, RANK_SHARE

# Metrics that have a table or a picture; all others are listed.
_SHOWN = (
    "ks", "w1", "js", "ks_over_reference", "w1_over_reference", "ks_given", "fact", "agrees", "ks_first_quarter",
    "ks_last_quarter", "ks_last_over_first", "share", "largest_over_median", "auc", "crps", "crps_skill", "rank_p",
    "distribution_correlation", "distribution_correlation_of_none", "quantile_correlation", "window_correlation",
    "mean_over_real", "w1_given", "js_given",
    *(f"{metric}_{stretch}" for metric in ("ks", "w1") for stretch in STRETCHES),
)  # fmt: skip
_MARKS = {"near": " &#10003;", "far": " &#10007;", "unclear": " ?", "too few": " <small>too few</small>", "": ""}
_STYLE = """
:root { --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --good: #047857; --bad: #b91c1c; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 1240px; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } 
h2 { font-size: 21px; margin: 44px 0 8px; border-bottom: 2px solid var(--ink); }
h3 { font-size: 16px; margin: 28px 0 6px; } p, li { max-width: 90ch; } .soft, caption { color: var(--soft); }
nav a { margin-right: 16px; } a { color: #1d4ed8; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; margin: 6px 0 14px; }
th, td { padding: 3px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { border-bottom: 1px solid var(--soft); font-weight: 600; } caption { text-align: left; padding: 4px 0; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } td.text { white-space: normal; }
td { font-variant-numeric: tabular-nums; } small { color: var(--soft); font-size: 11px; }
.near, .fit, .passes { color: var(--good); font-weight: 600; } .far, .fails { color: var(--bad); font-weight: 600; }
.unfit, .paid { color: var(--bad); font-weight: 600; } .quiet { color: var(--soft); }
details { margin: 8px 0; } summary { cursor: pointer; color: #1d4ed8; }
.summary { border-left: 4px solid var(--ink); padding: 2px 14px; margin: 10px 0; background: #f9fafb; }
code { background: #f3f4f6; padding: 0 3px; border-radius: 3px; }
"""


def write_page(card: Card, path: Path) -> None:
    """Writes the page; an existing file is replaced when all is written."""
    from plotly.offline import get_plotlyjs

    rows = Rows(card.rows)
    body = [_head(card)]
    for set_name in card.sets:
        body.append(_set(card, rows, set_name))
    if len(card.sets) > 1:
        body.append(f'<h2 id="together">Sets together</h2>{_pooled(card, rows)}')
    body.append(_verdict(card))
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Realism card</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>{''.join(body)}</body></html>"
    )
    write_text(path, text)


def _head(card: Card) -> str:
    links = [(name, name) for name in card.sets] + ([("together", "sets together")] if len(card.sets) > 1 else [])
    links.append(("verdict", "verdict"))
    nav = "".join(f'<a href="#{html.escape(at)}">{html.escape(name)}</a>' for at, name in links)
    arguments = ", ".join(f"{name} {value}" for name, value in card.about.get("arguments", {}).items())
    machine = ", ".join(f"{name} {value}" for name, value in card.about.get("hardware", {}).items())
    said = "".join(f"<li>{html.escape(one)}</li>" for one, _ in card.summary.values())
    return f"""<h1>Realism card</h1><nav>{nav}</nav>
<ul>{said}</ul>
<p>Every flow is set against the held-out test part of a recorded day, the last 15% of its time, from start states in
it. <b>floor</b>: alternating two-minute blocks of the test part against each other, what a perfect market would score
on samples half as large; <b>drift</b>: the training part against the test part; <b>replayed</b>: the recorded orders
executed again; <b>round trip</b>: the recorded orders through the model's tokenizer and back, without their ids. Small
figures are 95% intervals by resampling two-minute blocks; n counts recorded samples.</p>
<p class="soft">{html.escape(arguments)}<br>{html.escape(machine)}</p>"""


def _set(card: Card, rows: Rows, name: str) -> str:
    arms = [*RECORDED_ARMS[1:], *card.flows]
    measured = {arm: card.measured[name, arm] for arm in ("real", *card.flows)}
    others = [flow for flow in card.flows if flow != card.reference]
    parts = [
        f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>',
        "<h3>Distances</h3>",
        _distances(
            rows,
            name,
            "ks",
            arms,
            "Kolmogorov-Smirnov; &#10003; near, &#10007; far, ? unclear by the rules at the end of the page",
        ),
        _more("Wasserstein-1 in standard deviations of the record", _distances(rows, name, "w1", arms)),
        _more("Jensen-Shannon divergence in bits", _distances(rows, name, "js", arms)),
    ]
    if card.reference and others:
        parts.append(_ratios(rows, name, others, card.reference))
    parts += [
        "<h3>Distributions</h3><p class='soft'>Shares of samples up to a value; K-S is the largest vertical gap.</p>",
        _picture(pictures.distributions(measured, card.flows)),
        "<h3>One given another</h3>",
        _distances(rows, name, "ks_given", arms, "K-S within bins of the condition, averaged"),
        "<h3>Forecasts</h3>",
    ]
    if card.reference and others:
        parts += [
            f"<p class='soft'>CRPS skill over {html.escape(card.reference)}: 1 is perfect, 0 as good as it; what lies "
            "below -1 is cut off. Starts are resampled in blocks as long as the horizon at least; fewer than five make "
            "no interval.</p>",
            _picture(pictures.skills(rows, name, card.flows, card.reference)),
        ]
    parts += [
        "<p class='soft'>Where the truth ranked among the members of each forecast, in bins of about a tenth: level "
        "where forecasts are honest, a valley where they are too sure, a slope where they are biased.</p>",
        _picture(pictures.rank_histograms(measured, rows, name, card.flows)),
        "<h3>Stylised facts</h3><p class='soft'>Of returns in one second; the band is the record's 95% interval.</p>",
        _picture(pictures.stylised(rows, name, card.flows)),
        _facts(rows, name, ["drift", "replayed", "round_trip", *card.flows]),
        "<h3>Rollouts</h3>",
        _rollouts(rows, name, card.flows),
        _along(rows, name, card.flows),
        _health(rows, name, ["real", *arms]),
        "<h3>Fills</h3>",
        _fills(rows, name),
        *_probes(rows, name, card.flows),
        _rest(rows, name),
    ]
    return "".join(parts)


# ---- tables ------------------------------------------------------------------------------------------


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], caption: str = "") -> str:
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in line) + "</tr>" for line in lines)
    caption = f"<caption>{caption}</caption>" if caption else ""
    return f'<div class="wide"><table>{caption}<tr>{heads}</tr>{body}</table></div>' if body else ""


def _cell(cell: str) -> str:
    return cell if cell.startswith("<td") else f"<td>{cell}</td>"


def _number(row: Row | None, mark: str = "") -> str:
    """A row's value with its interval."""
    if row is None or not math.isfinite(row.value):
        return '<span class="quiet">-</span>'
    value = f"{row.value:,.0f}" if abs(row.value) >= 100 else f"{row.value:.3f}"
    value = f'<span class="{mark}">{value}</span>' if mark else value
    return value + (f" <small>{row.low:.2f}-{row.high:.2f}</small>" if math.isfinite(row.low) else "")


def _distances(rows: Rows, name: str, metric: str, arms: Sequence[str], caption: str = "") -> str:
    lines = []
    for quantity in rows.names("quantity", set=name, metric=metric):
        if metric == "ks_given":
            shown = " given ".join(part.replace("_", " ") for part in quantity.split("|"))
        else:
            shown = quantity.replace("_", " ")
        found = {arm: rows.get(name, quantity, metric, arm) for arm in arms}
        n = max((row.n for row in found.values() if row), default=0)
        cells = []
        for arm, row in found.items():
            judged = row is not None and arm not in RECORDED_ARMS and metric.startswith("ks")
            said = verdict.nearness(rows, row) if judged and row else ""
            cells.append(_number(row, said if said in ("near", "far") else "") + _MARKS[said])
        lines.append([shown, f"{n:,}", *cells])
    return _table(["quantity", "n", *(arm.replace("_", " ") for arm in arms)], lines, caption)


def _ratios(rows: Rows, name: str, flows: Sequence[str], reference: str) -> str:
    lines = []
    for quantity in rows.names("quantity", set=name, metric="ks_over_reference"):
        cells = []
        for flow in flows:
            for metric in ("ks", "w1"):
                row = rows.get(name, quantity, f"{metric}_over_reference", flow)
                mark = "" if row is None else "near" if row.high < 1 else "far" if row.low > 1 else ""
                cells.append(_number(row, mark))
        lines.append([quantity.replace("_", " "), *cells])
    head = ["quantity", *(f"{flow} {metric}" for flow in flows for metric in ("K-S", "W1"))]
    return _table(head, lines, f"Distance over that of {html.escape(reference)}: below 1 is nearer to the record")


def _facts(rows: Rows, name: str, arms: Sequence[str]) -> str:
    lines = []
    for fact in rows.names("quantity", set=name, metric="agrees"):
        found = [rows.get(name, fact, "agrees", arm) for arm in arms]
        lines.append([fact.replace("_", " "), *map(_agrees, found)])
    caption = "Whether a fact lies inside the record's 95% interval, or within a factor of two; - where it has none"
    return _table(["fact", *(arm.replace("_", " ") for arm in arms)], lines, caption)


def _agrees(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return "-"
    return _word("passes", "yes") if row.value else _word("fails", "no")


def _rollouts(rows: Rows, name: str, flows: Sequence[str]) -> str:
    lines = []
    for quantity in rows.names("quantity", set=name, metric="ks_last_over_first"):
        cells = []
        for flow in flows:
            for metric in ("ks_first_quarter", "ks_last_quarter", "ks_last_over_first"):
                cells.append(_number(rows.get(name, quantity, metric, flow)))
        lines.append([quantity.replace("_", " "), *cells])
    head = ["quantity", *(f"{flow} {part}" for flow in flows for part in ("first", "last", "last / first"))]
    return _table(head, lines, "K-S of the first and of the last quarter of the rollouts")


def _along(rows: Rows, name: str, flows: Sequence[str]) -> str:
    lines = [
        [quantity.replace("_", " ")]
        + [_number(rows.get(name, quantity, f"ks_{stretch}", flow)) for flow in flows for stretch in STRETCHES]
        for quantity in ALONG
        if any(rows.get(name, quantity, f"ks_{stretch}", flow) for flow in flows for stretch in STRETCHES)
    ]
    head = ["quantity", *(f"{flow} {stretch.replace('_', ' ')}" for flow in flows for stretch in STRETCHES)]
    return _table(head, lines, "K-S of the rollouts as they go on, by events since their start")


def _health(rows: Rows, name: str, arms: Sequence[str]) -> str:
    figures = (
        ("events with an empty side, share", "empty_side", "share"),
        ("largest spread, recorded medians", "spread", "largest_over_median"),
        ("classifier of windows, area under the curve", "window_64_events", "auc"),
    )
    lines = [
        [text, *(_number(rows.get(name, quantity, metric, arm)) for arm in arms)] for text, quantity, metric in figures
    ]
    return _table(["", *(arm.replace("_", " ") for arm in arms)], lines)


def _fills(rows: Rows, name: str) -> str:
    metrics = (
        "distribution_correlation", "distribution_correlation_of_none", "quantile_correlation", "window_correlation",
        "mean_over_real",
    )  # fmt: skip
    arms = ("replayed", "round_trip")
    lines = [
        [f"{quantity.replace('_', ' ')}, {arm.replace('_', ' ')}"]
        + [_number(rows.get(name, quantity, metric, arm)) for metric in metrics]
        for quantity in rows.names("quantity", set=name, metric="distribution_correlation")
        for arm in arms
        if rows.get(name, quantity, "distribution_correlation", arm)
    ]
    caption = (
        "Windows of 64 events, recorded against executed: Pearson's correlation of the shares of windows in bins "
        "(20 of equal width of the square root; also of a market without fills), of the quantiles at 1% to 99%, and "
        "window by window"
    )
    return _table(["", *(metric.replace("_", " ") for metric in metrics)], lines, caption)


def _probes(rows: Rows, name: str, flows: Sequence[str]) -> Iterable[str]:
    """What probes found; green lies in the record's 95% band, red does not, or pays for an attack."""
    for table in probe_tables(rows, name, flows):
        lines = [[html.escape(line), *map(_marked, cells)] for line, cells in table.lines]
        yield f"<h3>{html.escape(table.title)}</h3>{_table(table.head, lines, html.escape(table.caption))}"


def _marked(cell: Cell) -> str:
    value = f'<span class="{cell.mark}">{cell.value}</span>' if cell.mark else cell.value
    return value + (f" <small>{cell.interval}</small>" if cell.interval else "")


def _rest(rows: Rows, name: str) -> str:
    """What sections without a picture of their own found."""
    found = [row for row in rows.all if row.set == name and not _has_a_place(row)]
    lines = [[row.quantity, row.metric.replace("_", " "), row.arm, _number(row), f"{row.n:,}"] for row in found]
    text = _table(["quantity", "metric", "arm", "value", "n"], lines)
    return f"<h3>More</h3>{text}" if text else ""


def _has_a_place(row: Row) -> bool:
    return row.metric in _SHOWN or row.metric.startswith(RANK_SHARE) or of_a_probe(row)


def _pooled(card: Card, rows: Rows) -> str:
    others = [flow for flow in card.flows if flow != card.reference]
    if not card.reference or not others:
        return "<p>Without Hawkes flow there is no skill to pool.</p>"
    return "".join(
        f"<h3>{html.escape(name)}</h3><p class='soft'>CRPS skill over {html.escape(card.reference)}, pooled over the "
        f"starts of {'all days' if name == POOLED else 'the folds of a day'}.</p>"
        + _picture(pictures.skills(rows, name, card.flows, card.reference))
        for name in card.pools
    )


# ---- verdict -----------------------------------------------------------------------------------------


def _verdict(card: Card) -> str:
    parts = ['<h2 id="verdict">Verdict</h2>']
    for arm, (said, why) in card.summary.items():
        parts.append(f'<div class="summary"><p><b>{html.escape(said)}</b> {html.escape(why)}</p></div>')
        mine = [one for one in card.verdicts if one.arm == arm]
        uses = _table(
            ["set", "use", "verdict"],
            [[html.escape(one.set), one.use, _word("fit" if one.fit == "fit" else "unfit", one.fit)] for one in mine],
        )
        last = {one.set: one for one in mine}  # the last use holds the rules of all
        lines = [
            [html.escape(name), one.use, one.rule, _word(one.outcome, one.outcome), one.figures]
            for name, found in last.items()
            for one in found.findings
        ]
        parts.append(uses + _more("rule by rule", _table(["set", "for", "rule", "outcome", "figures"], lines)))
    return "".join(parts) + f"<h3>The rules</h3>{_prose(verdict.__doc__ or '')}"


def _word(kind: str, text: str) -> str:
    return (
        f'<span class="{kind if kind in ("fit", "unfit", "passes", "fails") else "quiet"}">{html.escape(text)}</span>'
    )


def _more(title: str, content: str) -> str:
    return f"<details><summary>{html.escape(title)}</summary>{content}</details>" if content else ""


def _picture(figure) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True})


def _prose(text: str) -> str:
    """A docstring as HTML: paragraphs, lists, code and bold."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        block = html.escape(" ".join(block.split()) if not block.lstrip().startswith("* ") else block, quote=False)
        if block.lstrip().startswith("* "):
            items = re.split(r"(?:^|\n)\s*\* ", block)[1:]
            block = "<ul>" + "".join(f"<li>{' '.join(item.split())}</li>" for item in items) + "</ul>"
        else:
            block = f"<p>{block}</p>"
        block = re.sub(r"``(.+?)``", r"<code>\1</code>", block)
        parts.append(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", block))
    return "".join(parts)
