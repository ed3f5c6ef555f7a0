"""Recorded episodes as a page of HTML that needs nothing else: depth, orders, fills, position and ledger."""

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym import comparing
from tradefm_gym.arguments import one_sentence
from tradefm_gym.envs.episode import LEVELS, Episode

_LETTERS = {"i1": "int8", "i4": "int32", "f8": "float64"}


def write_view(episode: Episode, path: Path) -> None:
    """Writes the page of one episode; an existing file is replaced when all is written."""
    about = episode.about
    title = f"{_task(episode)}, seed {about['seed']}, episode {about['episode']}"
    _write(path, title, "", _costs(["basis points"], [episode]), [("", episode)], 0)


def write_comparison(named: Sequence[tuple[str, Episode]], path: Path) -> None:
    """Writes the page of two episodes of one seed, which opens where their actions part.

    Raises:
        ValueError: if the two are not of one seed and task.
    """
    (first, a), (second, b) = named
    parted = comparing.first_difference(a, b)
    title = f"{_task(a)}, seed {a.about['seed']}: {first} and {second}"
    where = "The two never differ." if parted is None else f"Their actions first differ at <b>decision {parted + 1}</b>"
    if parted is not None:
        said = [_action(episode, parted) for _, episode in named]
        where += f": {html.escape(first)} {said[0]}, {html.escape(second)} {said[1]}."
    introduction = f"<p>{where}</p>{_costs([first, second], [a, b])}"
    _write(path, title, introduction, "", named, 0 if parted is None else parted + 1)


def _write(
    path: Path, title: str, introduction: str, below: str, named: Sequence[tuple[str, Episode]], start: int
) -> None:
    page = (files("tradefm_gym") / "viewing.html").read_text(encoding="utf-8")
    data = json.dumps([_packed(name, episode) for name, episode in named]).replace("</", "<\\/")
    filled = {
        "__TITLE__": html.escape(title), "__INTRODUCTION__": introduction, "__BELOW__": below,
        "__START__": str(start), "__EPISODES__": data,
    }  # fmt: skip
    for mark, text in filled.items():
        page = page.replace(mark, text)
    temporary = path.with_name(f"{path.name}.tmp")
    with one_sentence(path, "written", "a file in a folder that exists"):
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)


def _task(episode: Episode) -> str:
    start = episode.about["start"]
    side = {1: "buy ", -1: "sell "}.get(start.get("side", 0), "")
    lots = f", {side}{start['quantity']} lots" if "quantity" in start else ""
    agent = f", {episode.about['agent']}" if "agent" in episode.about else ""
    return f"{episode.about['environment'].removesuffix('Env')} against {start['flow']}{agent}{lots}"


def _action(episode: Episode, decision: int) -> str:
    if decision >= len(episode.actions):
        return "has ended"
    return f"({', '.join(f'{value:.4g}' for value in episode.actions[decision])})"


def _packed(name: str, episode: Episode) -> dict[str, Any]:
    """What the script reads: small numbers as JSON, arrays as base64 of little-endian numbers."""
    about, looks = episode.about, len(episode.time_ns)
    columns = {
        "event": ("i4", episode.event), "prices": ("i4", episode.prices), "sizes": ("i4", episode.sizes),
        "mid2": ("i4", episode.mid2), "mid": ("f8", episode.mid), "twinMid": ("f8", episode.twin_mid),
        "inventory": ("i4", episode.inventory), "own": ("i4", episode.own), "quotes": ("i4", episode.quotes),
        "tapeMid2": ("i4", episode.tape_mid2),
        "fillEvent": ("i4", episode.fill_event), "fillPrice": ("i4", episode.fill_price),
        "fillSize": ("i4", episode.fill_size), "fillSide": ("i1", episode.fill_side),
        "fillMade": ("i1", episode.fill_made), "actions": ("f8", episode.actions), "rewards": ("f8", episode.rewards),
        "termValues": ("f8", episode.terms), "seconds": ("f8", (episode.time_ns - episode.time_ns[0]) / 1e9),
    }  # fmt: skip
    return {
        "name": html.escape(name), "looks": looks, "levels": LEVELS, "sign": about["sign"],
        "terms": [html.escape(term) for term in about["terms"]], "actionWidth": episode.actions.shape[1],
        "hasTwin": bool(looks > 1 and np.isfinite(episode.twin_mid[1:]).any()),
        "columns": {key: _encoded(*column) for key, column in columns.items()},
    }  # fmt: skip


def _encoded(letters: str, values: np.ndarray) -> dict[str, str]:
    raw = np.ascontiguousarray(values, np.dtype(_LETTERS[letters]).newbyteorder("<")).tobytes()
    return {"type": letters, "data": base64.b64encode(raw).decode("ascii")}


def _costs(heads: Sequence[str], episodes: Sequence[Episode]) -> str:
    """The attribution of ``comparing.costs`` as a table; of two episodes with their difference."""
    found = [comparing.costs(episode) for episode in episodes]
    bps = [{k: comparing.in_basis_points(e, v) for k, v in one.items()} for e, one in zip(episodes, found, strict=True)]
    for one in bps:
        one["sum"] = sum(one[name] for name in comparing.PAID)
    pair = len(episodes) == 2
    lines = [("cost of trades, bps", *heads, *(["second - first"] if pair else []))]
    names = [name for name in _SAID if all(name in one for one in bps)]
    body = []
    for name in names:
        values = [one[name] for one in bps]
        values += [values[1] - values[0]] if pair else []
        cells = "".join(f"<td>{value:+.3f}</td>" for value in values)
        body.append(f"<tr{' class=sum' if name == 'sum' else ''}><td>{_SAID[name]}</td>{cells}</tr>")
    totals = [episode.rewards.sum() for episode in episodes]
    totals += [totals[1] - totals[0]] if pair else []
    body.append("<tr><td>reward</td>" + "".join(f"<td>{value:+.3f}</td>" for value in totals) + "</tr>")
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"


_SAID = {
    "spread_paid": "spread paid as taker",
    "spread_earned": "spread paid as maker (below 0: earned)",
    "timing": "timing: the market's way from the arrival mid to each trade",
    "impact_on_twin": "of it impact: above the mid of the market without the agent at the decision before",
    "fees": "fees",
    "sum": "paid beyond the arrival mid",
    "adverse_selection": "adverse selection: against maker trades until the next decision, in no sum",
    "impact": "impact: after what was taken until the next decision, in no sum",
}
