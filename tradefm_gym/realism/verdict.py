"""What a market is fit for: training execution, market making, or neither. These are the rules.

A quantity is **near** if its K-S distance from the test part is at most what the day itself allows: 1.5 times the
distance of the training part (the row ``drift``) as far as that is 0.25, or the distance of alternating two-minute
blocks of the test part from each other (the row ``floor``), and in any case 0.05. It is **far** if its whole 95%
interval lies above that and above twice the floor, which is itself a matter of luck, and **unclear** in between. Where
there are fewer than 200 recorded samples, or where they hang together so much that the floor exceeds 0.25, they decide
nothing: **too few**. So it is where a distance that is not near has no interval, for want of blocks. Distances within
bins of a condition are judged alike.

A market is fit to train **execution** if

* it lives: a side is empty after at most 1% of events, and no spread exceeds 20 times the recorded median, unless the
  largest of the day's test or training part does: then none exceeds that;
* spread, depth at the touch, waiting times, events in a second, sizes of takers, and returns over 1 and 10 seconds are
  near, so are durations of 16 events beside those around them, and waiting times also given the one before: what an
  order costs, and when;
* takers buy as often as recorded ones, come as often on the side of the one before, and move the mid as far within ten
  events, also given their size: what trading does to the price;
* returns are as large as recorded ones: their root mean square over 1 and 10 seconds is at most 1.5 times that of the
  test part and at least the reciprocal, or as far off as the training part or halves of the test part are, as far as
  that is 1.75; it fails if its whole interval lies beyond;
* the spread and the waiting times do not wander: the distance of the last quarter of the rollouts is at most 1.5 times
  that of the first, or near;
* no scripted attack earns money: none of those of ``realism/exploits.py`` has a mean profit whose 95% interval lies
  above zero. A market that pays for manipulation is a defect, and a policy that is trained on it learns to manipulate.
  That none pays counts from 200 seeds and five start states on, if no mean profit is above zero;
* on no set its forecasts of return, realised variance, mean spread or volume, over 256 events and 10 seconds, are
  worse than those of Hawkes flow beyond the 95% interval (not asked of Hawkes flow itself; without an interval, which
  takes five blocks of starts, they decide nothing).

It is fit to train **market making** if it is fit for execution, and

* order sizes, depths of adds and of cancels, imbalance, depth of five levels, waits for a fill and lifetimes of orders
  are near: where passive orders stand in the queue;
* moves of the mid given the imbalance are near: what a passive order is picked off by;
* the mean markout of passive fills lies within the record's 95% band at every horizon with at least 200 recorded fills;
  it fails if the flow's own interval lies wholly outside at one.

A rule fails, or passes, or says nothing (unclear, too few samples, or not measured). One that fails decides. Where one
of those that matter most says nothing, fitness is **not shown**: that the market lives, spread, depth at the touch,
waiting times, and that no attack pays; for market making also order sizes, depths of adds, and the markout. Attacks and
markouts are measured only if the card is asked for them, with the option ``--probes``. What else says nothing is named
beside "fit".
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from tradefm_gym.realism.rows import LEAST, LEAST_STARTS, Row, Rows

LEAST_SEEDS = 200  # of an attack that is said not to pay
LOWEST, HIGHEST, DRIFT_FACTOR = 0.05, 0.25, 1.5
EMPTY_SHARE, LARGEST_SPREAD, WANDER = 0.01, 20.0, 1.5
RETURN_FACTOR, MOST_RETURN_FACTOR = 1.5, 1.75
USES = ("execution", "market making")

Outcome = Literal["passes", "fails", "unclear", "too few", "not measured"]
_NO_INTERVAL = "too few blocks for an interval"
_SILENT = ("unclear", "too few", "not measured")
Judge = Callable[[Rows, str, str], tuple[Outcome, str]]  # rows, set, arm -> outcome and figures


@dataclass(frozen=True)
class Rule:
    """One rule: what it looks at, what it is for, and how it is judged."""

    topic: str
    use: str  # "execution" (then also for market making) or "market making"
    judge: Judge
    needed: bool = False  # fitness is not shown without it


@dataclass(frozen=True)
class Finding:
    """What a rule says of one arm on one set."""

    rule: str
    use: str
    outcome: Outcome
    figures: str
    needed: bool


@dataclass(frozen=True)
class Verdict:
    """Whether one arm is fit for one use on one set, and why."""

    set: str
    arm: str
    use: str
    fit: Literal["fit", "not fit", "not shown"]
    findings: tuple[Finding, ...]

    @property
    def why(self) -> str:
        """The findings that decide, in a line."""
        failed = [f"{one.rule} ({one.figures})" for one in self.findings if one.outcome == "fails"]
        if failed:
            return "; ".join(failed)
        silent = [one for one in self.findings if one.outcome in _SILENT]
        if self.fit == "not shown":
            return "; ".join(f"{one.rule}: {one.outcome}" for one in silent if one.needed)
        beside = f"; nothing is said by: {', '.join(one.rule for one in silent)}" if silent else ""
        return f"no rule fails{beside}"


_OUTCOMES: dict[str, Outcome] = {"near": "passes", "far": "fails", "unclear": "unclear"}


def allowed(rows: Rows, set_name: str, quantity: str, metric: str = "ks") -> float:
    """The largest distance that counts as near; infinite where the recorded samples cannot tell."""
    drift, floor = (_value(rows.get(set_name, quantity, metric, arm)) for arm in ("drift", "floor"))
    return math.inf if floor > HIGHEST else max(LOWEST, min(DRIFT_FACTOR * drift, HIGHEST), floor)


def _value(row: Row | None) -> float:
    return row.value if row is not None and math.isfinite(row.value) else 0.0


def nearness(rows: Rows, row: Row) -> str:
    """Whether a row of distances is "near", "far", "unclear" or of "too few" samples."""
    limit = allowed(rows, row.set, row.quantity, row.metric)
    if row.n < LEAST or math.isinf(limit):
        return "too few"
    if row.value <= limit:
        return "near"
    return "too few" if math.isnan(row.low) else "far" if row.low > _excused(rows, row) else "unclear"


def _excused(rows: Rows, row: Row) -> float:
    """The largest distance that luck could explain."""
    floor = _value(rows.get(row.set, row.quantity, row.metric, "floor"))
    return max(allowed(rows, row.set, row.quantity, row.metric), min(2 * floor, HIGHEST))


def near(quantity: str, metric: str = "ks") -> Judge:
    """Judges a distance."""

    def judge(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
        row = rows.get(set_name, quantity, metric, arm)
        if row is None or not math.isfinite(row.value):
            return "not measured", ""
        limit, said = allowed(rows, set_name, quantity, metric), nearness(rows, row)
        if said == "too few" and row.n < LEAST:
            return "too few", f"{row.n} samples"
        if said == "too few":
            return "too few", "the record is as far from itself" if math.isinf(limit) else _NO_INTERVAL
        return _OUTCOMES[said], f"{row.value:.3f}, allowed {limit:.3f}"

    return judge


def _as_large(quantity: str) -> Judge:
    """Judges the size of returns."""

    def judge(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
        row, drift, floor = (rows.get(set_name, quantity, "deviation_ratio", one) for one in (arm, "drift", "floor"))
        if row is None or not 0 < row.value < math.inf:
            return "not measured", ""
        own = max((_factor(one.value) for one in (drift, floor) if one is not None), default=1.0)
        limit = max(RETURN_FACTOR, min(own, MOST_RETURN_FACTOR))
        said = f"{row.value:.2f} of the recorded size, allowed {1 / limit:.2f} to {limit:.2f}"
        if row.n < LEAST:
            return "too few", f"{row.n} samples"
        if _factor(row.value) <= limit:
            return "passes", said
        if math.isnan(row.low):
            return "too few", _NO_INTERVAL
        return ("fails" if row.low > limit or row.high < 1 / limit else "unclear"), said

    return judge


def _factor(ratio: float) -> float:
    return max(ratio, 1 / ratio) if 0 < ratio < math.inf else 1.0


def _lives(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
    empty = rows.get(set_name, "empty_side", "share", arm)
    largest = rows.get(set_name, "spread", "largest_over_median", arm)
    if empty is None or largest is None:
        return "not measured", ""
    recorded = [rows.get(set_name, "spread", "largest_over_median", part) for part in ("real", "drift")]
    limit = max([LARGEST_SPREAD, *(row.value for row in recorded if row is not None)])
    good = empty.value <= EMPTY_SHARE and largest.value <= limit
    return ("passes" if good else "fails"), f"empty {empty.value:.2%}, largest spread {largest.value:.0f} medians"


def _steady(quantity: str) -> Judge:
    def judge(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
        first, last = (rows.get(set_name, quantity, f"ks_{end}_quarter", arm) for end in ("first", "last"))
        if first is None or last is None or not math.isfinite(first.value + last.value):
            return "not measured", ""
        limit = max(WANDER * first.value, allowed(rows, set_name, quantity))
        if last.n < LEAST or math.isinf(limit):
            return "too few", f"{last.n} samples"
        if last.value > limit and math.isnan(last.low):
            return "too few", _NO_INTERVAL
        far = last.low > max(limit, _excused(rows, replace(last, metric="ks")))
        outcome = "passes" if last.value <= limit else "fails" if far else "unclear"
        return outcome, f"{first.value:.3f} at first, {last.value:.3f} at last"

    return judge


def _skilled(quantity: str) -> Judge:
    def judge(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
        row = rows.get(set_name, quantity, "crps_skill", arm)
        if row is None or not math.isfinite(row.value):
            return "not measured", ""
        if math.isnan(row.high):
            return "too few", _NO_INTERVAL
        return ("fails" if row.high < 0 else "passes"), f"skill {row.value:.2f}, {row.low:.2f} to {row.high:.2f}"

    return judge


def _within(quantity: str) -> Judge:
    def judge(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
        within, clear = (rows.get(set_name, quantity, f"{metric}_band", arm) for metric in ("within", "clear_of"))
        if within is None or clear is None:
            return "not measured", ""
        if not math.isfinite(within.value + clear.value):
            return "too few", f"{within.n} samples"
        outcome = "fails" if clear.value > 0 else "passes" if within.value == 1 else "unclear"
        return outcome, f"{within.value:.0%} of horizons in the recorded band, {clear.value:.0%} clear of it"

    return judge


def _no_attack_pays(rows: Rows, set_name: str, arm: str) -> tuple[Outcome, str]:
    paid = [
        row
        for quantity in rows.names("quantity", set=set_name, metric="paid", arm=arm)
        if (row := rows.get(set_name, quantity, "paid", arm)) is not None
    ]
    if not paid:
        return "not measured", ""
    guilty = [row.quantity.removeprefix("exploit_").replace("_", " ") for row in paid if row.value > 0]
    if guilty:
        return "fails", f"{', '.join(guilty)} paid"
    seeds = min(row.seeds for row in paid)
    if seeds < LEAST_SEEDS:
        return "too few", f"{seeds} seeds"
    starts = rows.get(set_name, paid[0].quantity, "starts", arm)
    if starts is not None and starts.value < LEAST_STARTS:
        return "too few", f"{starts.value:.0f} start states"
    means = [rows.get(set_name, row.quantity, "profit", arm) for row in paid]
    earned = [row.quantity.removeprefix("exploit_").replace("_", " ") for row in means if row and row.value > 0]
    return ("unclear", f"{', '.join(earned)} earned on average") if earned else ("passes", f"none of {len(paid)} paid")


_NEEDED = ("spread", "touch_depth", "inter_arrival", "order_size", "price_depth")
RULES = (
    Rule("life of the market", "execution", _lives, needed=True),
    Rule("attacks that pay", "execution", _no_attack_pays, needed=True),
    *(
        Rule(quantity.replace("_", " "), "execution", near(quantity), quantity in _NEEDED)
        for quantity in (
            "spread", "touch_depth", "inter_arrival", "relative_duration", "event_count_1s", "taker_size",
            "log_return_1s", "log_return_10s", "taker_side", "taker_same_side", "taker_response",
        )
    ),
    Rule("taker response given the size", "execution", near("taker_response|taker_size", "ks_given")),
    *(
        Rule(f"size of returns over {seconds} s", "execution", _as_large(f"log_return_{seconds}s"))
        for seconds in (1, 10)
    ),
    Rule("inter arrival given the one before", "execution", near("inter_arrival|previous", "ks_given")),
    Rule("wandering of the spread", "execution", _steady("spread")),
    Rule("wandering of the inter arrival", "execution", _steady("inter_arrival")),
    *(
        Rule(f"forecasts of {outcome.replace('_', ' ')} against Hawkes flow", "execution", _skilled(outcome))
        for name in ("return", "realised_variance", "mean_spread", "volume")
        for outcome in (f"{name}_256_events", f"{name}_10s")
    ),
    *(
        Rule(quantity.replace("_", " "), "market making", near(quantity), quantity in _NEEDED)
        for quantity in (
            "order_size", "price_depth", "cancel_depth", "imbalance", "depth_5", "first_fill_wait", "order_lifetime",
        )
    ),
    Rule("next move given the imbalance", "market making", near("next_move|imbalance", "ks_given")),
    Rule("markout of passive fills", "market making", _within("markout"), needed=True),
)  # fmt: skip


def judged(rows: Iterable[Row], set_name: str, arm: str, rules: tuple[Rule, ...] = RULES) -> list[Verdict]:
    """The verdicts on one arm by one set, for each of ``USES``."""
    table = Rows(rows)
    findings = [(rule, Finding(rule.topic, rule.use, *rule.judge(table, set_name, arm), rule.needed)) for rule in rules]
    verdicts = []
    for number, use in enumerate(USES):
        counted = [(rule, found) for rule, found in findings if rule.use in USES[: number + 1]]
        if any(found.outcome == "fails" for _, found in counted):
            fit = "not fit"
        elif any(rule.needed and found.outcome != "passes" for rule, found in counted):
            fit = "not shown"
        else:
            fit = "fit"
        verdicts.append(Verdict(set_name, arm, use, fit, tuple(found for _, found in counted)))
    return verdicts


def overall(verdicts: Iterable[Verdict], arm: str) -> tuple[str, str]:
    """What an arm is fit for on all sets together, and why not for more: two sentences."""
    mine = [one for one in verdicts if one.arm == arm]
    state = {}
    for use in USES:
        fits = {one.fit for one in mine if one.use == use}
        state[use] = "not fit" if "not fit" in fits else "not shown" if "not shown" in fits else "fit"
    good = [use for use in USES if state[use] == "fit"]
    if good:
        said = f"{arm} is fit to train {' and '.join(good)}."
    elif "not shown" in state.values() and state["execution"] != "not fit":
        said = f"{arm} is not shown to be fit to train anything."
    else:
        said = f"{arm} is fit to train neither execution nor market making."
    lacking = next((use for use in USES if state[use] != "fit"), None)
    if lacking is None:
        return said, "No rule fails."
    reasons: dict[str, list[str]] = {}
    for one in mine:
        if one.use == lacking and one.fit == state[lacking]:
            for found in one.findings:
                silent = found.needed and found.outcome in _SILENT
                if found.outcome == "fails" if one.fit == "not fit" else silent:
                    reasons.setdefault(found.rule, []).append(one.set)
    verb = "fails on" if state[lacking] == "not fit" else "is not shown, for want of"
    several = len({one.set for one in mine}) > 1
    listed = "; ".join(rule + (f" [{', '.join(sets)}]" if several else "") for rule, sets in reasons.items())
    return said, f"For {lacking} it {verb}: {listed}."
