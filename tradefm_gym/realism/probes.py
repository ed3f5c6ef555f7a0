"""Probes: sections of a card that roll markets out anew, most with an agent in them, and run only when asked for.

``reaction`` asks what takers do to the price, ``markouts`` what becomes of resting orders, ``exploits`` whether
scripted attacks earn money, ``impact`` what a parent order costs, ``control`` whether a flow does what its indicators
say and how it bears stress, ``extremes`` how it does in the most volatile tenth of the test part. ``memorisation`` asks
what a model kept of the orders that it learned from, ``code_length`` what raw events cost it, ``tokenizer_drift`` how a
tokenizer ages over a day, and ``trained_on`` what a classifier that learns from a flow is worth on the record. Those
that the record can answer are told of it and of its training part, too. What an agent met has quantities that begin
with ``agent_``, so that it stands beside what the flow's own takers and makers met.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism import (
    averages,
    bootstrap,
    code_length,
    control,
    discriminator,
    encoded_day,
    exploits,
    extremes,
    fill_chances,
    impact,
    intervention,
    markouts,
    matches,
    memorisation,
    response,
    stress,
    tokenizer_drift,
    trained_on,
    within_bins,
)
from tradefm_gym.realism.arms import parsed
from tradefm_gym.realism.part_files import hash_of
from tradefm_gym.realism.rows import LEAST, Row, Rows
from tradefm_gym.realism.sections import Subject

RECORDS = ("real", "drift")  # arms that are probed beside flows
# Probes that no record can answer.
OF_FLOWS = ("exploits", "impact", "control", "extremes", "memorisation", "code_length", "tokenizer_drift")
AGENT = "agent_"
_FIRST_SEED = np.uint64(1) << np.uint64(49)  # neither those of forecasts nor of long rollouts


def reaction(subject: Subject) -> list[Row]:
    """Mid and signed flow after takers by size and lag, and after an agent's orders of the recorded sizes."""
    assert subject.paths is not None and subject.recorded is not None
    rows = _rows(subject, response.taker_rows(subject.paths(), subject.arm, seeds=subject.measured.seeds))
    if subject.make_flow is not None:
        flow = subject.make_flow(subject.agents)
        sizes = response.sizes_of([subject.recorded.test_path()])
        rows += _agent_rows(subject, response.agent_rows(flow, *_starts(flow, subject.agents), sizes))
    return rows


def resting_orders(subject: Subject) -> list[Row]:
    """Markouts of passive fills and chances of a fill, of the background's orders and of agents' at the touch."""
    assert subject.paths is not None
    paths, seeds = subject.paths(), subject.measured.seeds
    told = [*markouts.markout_rows(paths, subject.arm, seeds), *fill_chances.fill_rows(paths, subject.arm, seeds)]
    rows = _rows(subject, told)
    if subject.make_flow is not None:
        flow = subject.make_flow(subject.agents)
        told, orders = markouts.agent_rows(flow, *_starts(flow, subject.agents))
        median = float(flow.bank.scale["median_size"][0])  # one day, one asset
        told += fill_chances.agent_fill_rows(orders, median, seeds=subject.agents)
        rows += _agent_rows(subject, told)
    return rows


def attacks(subject: Subject) -> list[Row]:
    """What scripted attacks earn, each seed from both sides."""
    assert subject.make_flow is not None
    flow = subject.make_flow(2 * subject.agents)
    return _rows(subject, exploits.audit_rows(flow, *_starts(flow, subject.agents), subject.arm))


def parent_orders(subject: Subject) -> list[Row]:
    """Impact of parent orders by size and by participation, and what of it stays."""
    assert subject.make_flow is not None
    flow = subject.make_flow(subject.agents)
    starts = _starts(flow, subject.agents)
    return _rows(subject, [*impact.size_rows(flow, *starts), *impact.participation_rows(flow, *starts)])


def told_and_stressed(subject: Subject) -> list[Row]:
    """What each control indicator does alone, and how markets recover from stress scenarios."""
    assert subject.make_flow is not None
    flow = subject.make_flow(subject.agents)
    starts = _starts(flow, subject.agents)
    return _rows(subject, [*control.control_rows(flow, *starts), *stress.stress_rows(flow, *starts)])


def extreme_windows(subject: Subject) -> list[Row]:
    """Volatility and nats in the most volatile tenth of the test part, and in the rest."""
    assert subject.flow_at is not None and subject.recorded is not None
    return _rows(subject, extremes.extreme_rows(subject.recorded, subject.flow_at))


def memory(subject: Subject) -> list[Row]:
    """How much of the training part a flow repeats, and what else of it a model gives away."""
    assert subject.paths is not None and subject.recorded is not None
    name, model, _ = parsed(subject.arm)
    day = _encoded(subject, model if name == "tradefm" else "")
    generated = [encoded_day.path_tokens(path, day.tokenizer) for path in subject.paths()]
    told = [*memorisation.match_rows(memorisation.Pieces(day), generated)]
    if name == "tradefm":
        told += [*memorisation.chance_rows(day), *memorisation.model_rows(day, model or BUNDLED_MODEL)]
    return _rows(subject, told)


def raw_codes(subject: Subject) -> list[Row]:
    """Code length of the test part's raw events; of flows with a likelihood of tokens only."""
    return _of_model(subject, code_length.code_rows)


def ageing(subject: Subject) -> list[Row]:
    """Code length by quarter of the day with frozen and with rolling edges; of flows with a tokenizer only."""
    return _of_model(subject, tokenizer_drift.drift_rows)


def lessons(subject: Subject) -> list[Row]:
    """What a classifier that learned on an arm is worth on the test part, beside one that learned on the record."""
    assert subject.paths is not None and subject.recorded is not None
    if subject.arm == "real":  # it would be tried on what it learned
        return []
    one = subject.recorded
    skipped = trained_on.SKIPPED if subject.make_flow is not None else 0
    taught = trained_on.examples(subject.paths(), skipped)
    real, tested = (trained_on.examples([one.path.between(*one.part(name))]) for name in ("train", "test"))
    return _rows(subject, trained_on.trained_rows(taught, real, tested, subject.measured.seeds, subject.replicates))


PROBES: dict[str, Callable[[Subject], list[Row]]] = {
    "reaction": reaction,
    "markouts": resting_orders,
    "exploits": attacks,
    "impact": parent_orders,
    "control": told_and_stressed,
    "extremes": extreme_windows,
    "memorisation": memory,
    "code_length": raw_codes,
    "tokenizer_drift": ageing,
    "trained_on": lessons,
}


def chosen(probes: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of ``PROBES``.

    Raises:
        ValueError: if one is not known.
    """
    for name in probes:
        if name not in PROBES:
            raise ValueError(f"probes names {name!r}; allowed are {', '.join(PROBES)}")
    return tuple(name for name in PROBES if name in probes)


@cache
def code() -> str:
    """Hash of what probes are computed with: when it changes they are run again."""
    own = sys.modules[__name__]
    return hash_of(
        own, response, markouts, fill_chances, exploits, impact, control, stress, extremes, intervention, averages,
        bootstrap, memorisation, matches, encoded_day, within_bins, code_length, tokenizer_drift, trained_on,
        discriminator,
    )  # fmt: skip


def against_record(rows: Iterable[Row], set_name: str, arm: str) -> list[Row]:
    """What the rows of probes say of a flow when they are held against the 95% bands of the record.

    Args:
        rows: of the record and of the flow; others are passed over.
        set_name: of the day.
        arm: the flow.

    Returns:
        Of responses the rows of ``response.inside_rows``, for the flow's takers and for agents. Of markouts in basis
        points the quantity ``markout`` with ``within_band``, the share of horizons whose mean lies in the band, and
        ``clear_of_band``, the share whose whole interval lies outside; both over horizons with at least 200 recorded
        fills, NaN without any. Agents are no part of these: always at the touch, they are no like of recorded makers.
    """
    here = [row for row in rows if row.set == set_name and row.arm in ("real", arm)]
    found = []
    for prefix in ("", AGENT):
        mine = [row for row in here if row.arm == arm and _is_response(row.quantity, prefix)]
        told = [asdict(row) for row in here if row.arm == "real"]
        told += [{**asdict(row), "quantity": row.quantity.removeprefix(prefix)} for row in mine]
        found += [_row(set_name, arm, one, prefix) for one in response.inside_rows(told, "real", arm)]
    return found + _markouts_against_record(Rows(here), set_name, arm)


def _is_response(quantity: str, prefix: str) -> bool:
    return quantity.startswith((f"{prefix}mid_response", f"{prefix}flow_response"))


def _markouts_against_record(rows: Rows, set_name: str, arm: str) -> list[Row]:
    within, clear, counts, seeds = [], [], [], 0
    for horizon in markouts.HORIZONS:
        real, mine = (rows.get(set_name, "markout_bps", horizon, name) for name in ("real", arm))
        if real is None or mine is None:
            continue
        counts.append(real.n)
        seeds = mine.seeds
        if real.n < LEAST or not np.isfinite([real.low, real.high, mine.value]).all():
            continue
        within.append(real.low <= mine.value <= real.high)
        clear.append(mine.high < real.low or mine.low > real.high)  # never without an interval
    if not counts:
        return []
    shares = {"within_band": within, "clear_of_band": clear}
    n = max(counts)
    return [
        Row(set_name, "markout", metric, arm, float(np.mean(of)) if of else math.nan, n=n, seeds=seeds)
        for metric, of in shares.items()
    ]


def _encoded(subject: Subject, model: str) -> encoded_day.EncodedDay:
    """The subject's day under a model's tokenizer, the bundled one's without a name."""
    assert subject.recorded is not None
    tokenizer = TradeTokenizer.load(checkpoint(model or BUNDLED_MODEL)[0])
    return encoded_day.EncodedDay.of(subject.recorded.recorded, tokenizer)


def _of_model(subject: Subject, told: Callable[..., Iterable[Mapping[str, Any]]]) -> list[Row]:
    """Rows of a TradeFM flow's model on the subject's day; none of other flows."""
    assert subject.recorded is not None
    name, model, _ = parsed(subject.arm)
    if name != "tradefm":
        return []
    return _rows(subject, told(_encoded(subject, model), subject.recorded.recorded, model or BUNDLED_MODEL))


def _starts(flow: FlowModel, agents: int) -> tuple[np.ndarray, np.ndarray]:
    """Start states (agents,) spread evenly over those of the test part, and seeds (agents,) uint64."""
    contexts = np.arange(agents) * len(flow.bank) // agents
    return contexts, _FIRST_SEED + np.arange(agents, dtype=np.uint64)


def _rows(subject: Subject, told: Iterable[Mapping[str, Any]]) -> list[Row]:
    return [_row(subject.set, subject.arm, one) for one in told]


def _agent_rows(subject: Subject, told: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows whose arms, "agent", "agent_buy" and "agent_sell", go to the front of the quantity."""
    return [_row(subject.set, subject.arm, one, f"{one['arm']}_") for one in told]


def _row(set_name: str, arm: str, one: Mapping[str, Any], prefix: str = "") -> Row:
    numbers = {name: one[name] for name in ("metric", "value", "low", "high", "n", "seeds")}
    return Row(set=set_name, quantity=prefix + one["quantity"], arm=arm, **numbers)
