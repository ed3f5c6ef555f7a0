"""The pictures of a card, as plotly figures (the extra ``realism``)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tradefm_gym.realism.forecasts import EVENTS, OUTCOMES, SECONDS
from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.quantities import QUANTITIES
from tradefm_gym.realism.rows import Rows
from tradefm_gym.realism.scores import rank_histogram, ranks
from tradefm_gym.realism.sections import COLUMN_NAMES, RANKED, rank_bins

REAL = "#111827"
COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#db2777")
# Of these the axis is logarithmic: they span decades.
_DECADES = (
    "spread", "touch_depth", "depth_5", "order_size", "taker_size", "cancel_size", "inter_arrival",
    "relative_duration", "first_fill_wait", "order_lifetime",
)  # fmt: skip
_UNITS = {
    "log_return": "bp", "spread": "ticks", "touch_depth": "median orders", "depth_5": "median orders",
    "imbalance": "bid share less ask share", "order_size": "median orders", "taker_size": "median orders",
    "cancel_size": "median orders", "price_depth": "bp behind the mid", "cancel_depth": "bp behind the mid",
    "inter_arrival": "s", "relative_duration": "of the usual", "event_count_1s": "events",
    "volume_1s": "median orders", "taker_side": "buys 1, sells -1", "taker_same_side": "as the taker before: 1",
    "taker_response": "bp in 10 events", "first_fill_wait": "s", "order_lifetime": "s",
}  # fmt: skip
_POINTS = 200  # of a distribution function
_FONT = {"family": "system-ui, sans-serif", "size": 12, "color": "#374151"}


def colours(flows: Sequence[str]) -> dict[str, str]:
    """A colour for each flow, and that of the record."""
    return {"real": REAL} | {flow: COLOURS[i % len(COLOURS)] for i, flow in enumerate(flows)}


def distributions(measured: Mapping[str, Measured], flows: Sequence[str]) -> go.Figure:
    """Distribution functions of every quantity, recorded against each flow: K-S is the largest gap."""
    shown = [name for name in QUANTITIES if name in measured["real"].samples]
    figure, cells = _grid([f"{name.replace('_', ' ')}" for name in shown], 4, 200)
    paint = colours(flows)
    for (row, column), name in zip(cells, shown, strict=True):
        decades, seen = name in _DECADES, []
        for arm in ("real", *flows):
            sample = measured[arm].samples.get(name)
            if sample is None:
                continue
            values = np.sort(sample.values)
            if decades:
                values = np.maximum(values, values[values > 0].min() if (values > 0).any() else 1.0)
            shares = np.linspace(0, 1, _POINTS)
            at = np.quantile(values, shares, method="inverted_cdf")
            seen.append(np.quantile(values, [0.005, 0.995] if decades else [0.02, 0.98]))
            figure.add_scatter(
                x=_short(at), y=_short(shares), name=arm, legendgroup=arm, showlegend=(row, column) == cells[0],
                line={"color": paint[arm], "width": 2.4 if arm == "real" else 1.6, "shape": "hv"}, mode="lines",
                row=row, col=column,
            )  # fmt: skip
        low, high = float(np.min(seen)), float(np.max(seen))
        span = [np.log10(low) - 0.05, np.log10(high) + 0.05] if decades else [low, high]
        decade = 2 if span[1] - span[0] > 4 else 1
        unit = next((unit for start, unit in _UNITS.items() if name.startswith(start)), "")
        figure.update_xaxes(
            type="log" if decades else "linear", range=span, title={"text": unit, "standoff": 2, "font": {"size": 11}},
            dtick=decade if decades and span[1] - span[0] > 1 else None, row=row, col=column,
        )  # fmt: skip
        figure.update_yaxes(range=[0, 1], dtick=0.5, row=row, col=column)
    return figure


def skills(rows: Rows, set_name: str, flows: Sequence[str], reference: str) -> go.Figure:
    """Skill of forecasts over the reference by outcome and horizon, with intervals."""
    figure, cells = _grid([name.replace("_", " ") for name in OUTCOMES], 3, 220)
    paint = colours(flows)
    first = True
    for (row, column), outcome in zip(cells, OUTCOMES, strict=True):
        horizons = [(f"{count} ev.", f"{outcome}_{count}_events") for count in EVENTS]
        horizons += [(f"{seconds} s", f"{outcome}_{seconds}s") for seconds in SECONDS]
        horizons = [(text, name) for text, name in horizons if name in COLUMN_NAMES]
        for flow in (flow for flow in flows if flow != reference):
            found = [(text, rows.get(set_name, name, "crps_skill", flow)) for text, name in horizons]
            kept = [(text, one) for text, one in found if one is not None]
            if kept:
                values = np.array([(one.value, one.low, one.high) for _, one in kept])
                figure.add_scatter(
                    x=[text for text, _ in kept], y=_short(values[:, 0]), name=flow, legendgroup=flow,
                    showlegend=first, mode="lines+markers", line={"color": paint[flow], "width": 1.5},
                    marker={"size": 7},
                    error_y={
                        "type": "data", "symmetric": False, "array": _short(values[:, 2] - values[:, 0]),
                        "arrayminus": _short(values[:, 0] - values[:, 1]), "thickness": 1, "width": 3,
                    },
                    row=row, col=column,
                )  # fmt: skip
        first = False
        figure.add_hline(y=0, line={"color": REAL, "width": 1, "dash": "dot"}, row=row, col=column)  # pyright: ignore
        figure.update_xaxes(
            categoryorder="array", categoryarray=[text for text, _ in horizons], row=row, col=column
        )  # fmt: skip
        figure.update_yaxes(range=[-1, 1], dtick=0.5, row=row, col=column)
    return figure


def rank_histograms(measured: Mapping[str, Measured], rows: Rows, set_name: str, flows: Sequence[str]) -> go.Figure:
    """Where the truth stood among the members of each forecast: level bars where forecasts are honest."""
    titles = [
        name.replace("_", " ") if flow == flows[0] else "" for flow in flows for name in RANKED
    ]  # fmt: skip
    figure, cells = _grid(titles, len(RANKED), 130)
    paint = colours(flows)
    for (row, column), (flow, name) in zip(cells, [(flow, name) for flow in flows for name in RANKED], strict=True):
        found, c = measured[flow], COLUMN_NAMES.index(name)
        members = found.ensemble.shape[1]
        counts, expected = rank_histogram(
            ranks(found.ensemble[:, :, c], found.truth[:, c]), members, rank_bins(members)
        )
        p = rows.get(set_name, name, "rank_p", flow)
        figure.add_bar(
            x=list(range(1, len(counts) + 1)), y=counts.tolist(), name=flow, legendgroup=flow,
            showlegend=column == 1, marker={"color": paint[flow]}, row=row, col=column,
        )  # fmt: skip
        figure.add_scatter(
            x=list(range(1, len(counts) + 1)), y=_short(expected), mode="lines", showlegend=False,
            line={"color": REAL, "width": 1, "dash": "dot"}, hoverinfo="skip", row=row, col=column,
        )  # fmt: skip
        if p is not None:
            figure.add_annotation(
                x=0.98, y=0.98, xref="x domain", yref="y domain", text=f"p {p.value:.2g}", showarrow=False,
                xanchor="right", yanchor="top", font={"size": 11}, bgcolor="rgba(255,255,255,0.8)", row=row, col=column,
            )  # fmt: skip
        figure.update_xaxes(tickvals=[1, len(counts)], row=row, col=column)
    figure.update_layout(bargap=0.08)
    return figure


def stylised(rows: Rows, set_name: str, flows: Sequence[str]) -> go.Figure:
    """Autocorrelations, kurtosis against interval and memory of signs, the record with its interval."""
    panels = (
        ("autocorrelation of absolute returns", "absolute_autocorrelation_", "lag, s", "linear"),
        ("autocorrelation of returns", "return_autocorrelation_", "lag, s", "linear"),
        ("excess kurtosis of returns", "excess_kurtosis_", "interval, s", "log"),
        ("autocorrelation of takers' sides", "sign_autocorrelation_", "lag, trades", "log"),
    )
    figure, cells = _grid([title for title, *_ in panels], 4, 240)
    paint = colours(flows)
    for (row, column), (_, start, unit, kind) in zip(cells, panels, strict=True):
        for arm in ("real", *flows):
            names = [
                name for name in rows.names("quantity", set=set_name, metric="fact", arm=arm)
                if name.startswith(start) and name.removeprefix(start).isdigit()
            ]  # fmt: skip
            found = [rows.get(set_name, name, "fact", arm) for name in names]
            kept = [(int(name.removeprefix(start)), one) for name, one in zip(names, found, strict=True) if one]
            if not kept:
                continue
            x = [at for at, _ in kept]
            values = np.array([(one.value, one.low, one.high) for _, one in kept])
            if "kurtosis" in start:
                values = np.maximum(values, 0.1)  # a logarithmic axis ends somewhere
            if arm == "real":
                band = np.isfinite(values).all(axis=1)
                at = np.array(x)[band]
                figure.add_scatter(
                    x=[*at, *at[::-1]], y=_short([*values[band, 1], *values[band, 2][::-1]]), fill="toself",
                    fillcolor="rgba(17,24,39,0.12)", line={"width": 0}, mode="lines", hoverinfo="skip",
                    showlegend=False,
                    row=row, col=column,
                )  # fmt: skip
            figure.add_scatter(
                x=x, y=_short(values[:, 0]), name=arm, legendgroup=arm, showlegend=(row, column) == cells[0],
                mode="lines+markers", line={"color": paint[arm], "width": 2 if arm == "real" else 1.5},
                marker={"size": 5}, row=row, col=column,
            )  # fmt: skip
        if "kurtosis" in start:
            figure.update_yaxes(type="log", dtick=1, row=row, col=column)
        figure.update_xaxes(
            type=kind, title={"text": unit, "standoff": 2}, dtick="D2" if kind == "log" else None, row=row, col=column
        )
    return figure


def _grid(titles: Sequence[str], columns: int, height: int) -> tuple[go.Figure, list[tuple[int, int]]]:
    """Small pictures, ``columns`` a row and ``height`` pixels each; and the places of those that are used."""
    count = -(-len(titles) // columns)
    gap = min(70 / (height * count), 1 / max(count - 1, 1))
    figure = make_subplots(
        rows=count, cols=columns, subplot_titles=list(titles), horizontal_spacing=0.045,
        vertical_spacing=gap if count > 1 else 0,
    )  # fmt: skip
    figure.update_layout(
        height=height * count + 90, margin={"l": 40, "r": 10, "t": 70, "b": 40}, template="plotly_white", font=_FONT,
        legend={"orientation": "h", "y": 1, "yref": "container", "yanchor": "top", "x": 0, "font": {"size": 13}},
        hoverlabel={"namelength": -1},
    )  # fmt: skip
    figure.update_annotations(font={"size": 12.5, "color": REAL})
    figure.update_xaxes(showgrid=True, gridcolor="#f0f1f3", linecolor="#9ca3af", showline=True, ticks="outside")
    figure.update_yaxes(gridcolor="#f0f1f3", linecolor="#9ca3af", showline=True)
    return figure, [(i // columns + 1, i % columns + 1) for i in range(len(titles))]


def _short(values: Any) -> list[float | None]:
    """Numbers with four digits, so that the page stays small; no number where there is none."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in np.asarray(values, np.float64)]
