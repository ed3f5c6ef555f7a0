"""The realism card: flows and recorded days side by side, arm by arm and section by section.

What an arm gave and what a section made of it are kept as part files in the out folder, each with a key of all that it
depends on; a card that is made again computes what is missing or has changed.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened, whole
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.realism import bootstrap, discriminator, distances, pooled, probes, scores, sections, stylised
from tradefm_gym.realism.arms import arm as make_arm
from tradefm_gym.realism.arms import check_parameters, content, parameters_file, parsed
from tradefm_gym.realism.forecasts import blocks_of, ensembles, truths
from tradefm_gym.realism.measured import Measured, described, measure, pictured
from tradefm_gym.realism.part_files import file_name, hash_of, hash_of_files, read_rows, write_rows, write_text
from tradefm_gym.realism.path import MarketPath, roll_out
from tradefm_gym.realism.probes import PROBES, against_record, chosen
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.rows import Row
from tradefm_gym.realism.sections import POOLED, SECTIONS, Subject, pooled_forecasts, pooled_ranks, to_pool
from tradefm_gym.realism.verdict import Verdict, judged, overall

FORMAT = 2  # rises when what is measured of an arm, or how it is rolled out, changes
RECORDED_ARMS = ("real", "drift", "floor", "replayed", "round_trip")
_MARKETS = 64  # side by side at most
# What decides the paths of an arm and what is kept of them; of this file FORMAT tells.
_PACKAGES = ("data", "flow", "market", "model")
_MODULES = ("arms", "forecasts", "habits_fit", "measured", "path", "quantities", "recorded_set", "round_trip")

Section = Callable[[Subject], list[Row]]
Report = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


@dataclass(frozen=True)
class Effort:
    """How much is rolled out.

    Attributes:
        starts: moments of each test part at which forecasts start.
        rollouts: of each of them.
        seeds: long rollouts, for distributions; and markets with an agent in them, for probes.
        events: events of each long rollout.
        replicates: of the bootstrap.
    """

    starts: int = 50
    rollouts: int = 32
    seeds: int = 32
    events: int = 16_384
    replicates: int = 200

    def __post_init__(self) -> None:
        for name, least in (("starts", 2), ("rollouts", 2), ("seeds", 2), ("events", 128), ("replicates", 10)):
            whole(name, getattr(self, name), least)


QUICK = Effort(starts=8, rollouts=8, seeds=8, events=1_024, replicates=50)


@dataclass(eq=False)
class Card:
    """A finished card.

    Attributes:
        rows: every number.
        verdicts: of each flow, on each set, for each use.
        summary: by flow what it is fit for, and why not for more.
        sets, flows: names in order.
        reference: the flow that others are held against, None without one.
        measured: by (set, arm), for pictures.
        about: arguments, versions and hardware.
    """

    rows: list[Row]
    verdicts: list[Verdict]
    summary: dict[str, tuple[str, str]]
    sets: list[str]
    flows: list[str]
    reference: str | None
    measured: dict[tuple[str, str], Measured] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def pools(self) -> list[str]:
        """Names under which the rows of several sets are pooled: of all days, and of the folds of each."""
        return [name for name in dict.fromkeys(row.set for row in self.rows) if name not in self.sets]

    @property
    def days(self) -> list[str]:
        """Sets that are judged; folds are not."""
        judged_sets = {one.set for one in self.verdicts}
        return [name for name in self.sets if name in judged_sets]

    def labelled(self) -> "Card":
        """The card for people: a flow is called by the last part of its path, where that tells it from the others."""
        short = {spec: _short(spec) for spec in self.flows}
        called = {spec: text if list(short.values()).count(text) == 1 else spec for spec, text in short.items()}
        verdicts = [replace(one, arm=called[one.arm]) for one in self.verdicts]
        return replace(
            self,
            rows=[replace(row, arm=called.get(row.arm, row.arm)) for row in self.rows],
            verdicts=verdicts,
            summary={called[spec]: overall(verdicts, called[spec]) for spec in self.flows},
            flows=[called[spec] for spec in self.flows],
            reference=self.reference and called[self.reference],
            measured={(name, called.get(arm, arm)): one for (name, arm), one in self.measured.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """The card as plain values: ``rows``, ``verdicts``, ``summary``, and what it was made with."""
        return {
            "format": FORMAT,
            **self.about,
            "sets": self.sets,
            "flows": self.flows,
            "reference": self.reference,
            "rows": [row.to_json() for row in self.rows],
            "verdicts": [{**asdict(one), "why": one.why} for one in self.verdicts],
            "summary": {arm: list(said) for arm, said in self.summary.items()},
        }

    def save(self, path: Path) -> None:
        """Writes ``to_json``; an existing file is replaced when all is written."""
        write_text(path, json.dumps(self.to_json(), indent=1))


class CardMaker:
    """Makes a card.

    Args:
        sets: the recorded days, with different names.
        flows: as ``arms.parsed`` reads them; the first Hawkes flow is the reference.
        out: folder of part files and fits.
        effort: how much is rolled out.
        report: told of progress.
        probes: names of ``probes.PROBES`` to run on whole days; they cost about as much as all the rest, each.

    Raises:
        ValueError: if a flow or a probe is not known, a flow is named twice or its parameters are unsound, or two sets
            have one name.
    """

    def __init__(
        self,
        sets: Sequence[RecordedSet],
        flows: Sequence[str],
        out: Path,
        effort: Effort | None = None,
        report: Report = lambda what, done, of: None,
        probes: Sequence[str] = (),
    ) -> None:
        for what, names in (("data", [one.name for one in sets]), ("flow", list(flows))):
            if not names or len(set(names)) < len(names):
                raise ValueError(f"{what} is {shortened(names)}; it must name at least one, and none twice")
        for spec in flows:
            check_parameters(spec)
        self.sets, self.flows, self.out = list(sets), list(flows), out
        self.effort, self.report, self.probes = effort or Effort(), report, chosen(probes)
        self.reference = next((spec for spec in flows if parsed(spec).name == "hawkes"), None)
        model = next((flow.path for flow in map(parsed, flows) if flow.name == "tradefm"), "")
        self.model = model or BUNDLED_MODEL  # whose tokenizer the round trip goes through

    def run(self) -> Card:
        """Measures what is not measured yet, and puts everything together.

        Raises:
            ValueError: if a set is too short; before anything is measured.
        """
        self._check_sets()
        rows: list[Row] = []
        measured: dict[tuple[str, str], Measured] = {}
        subjects: dict[tuple[str, str | None], list[Subject]] = {}
        for one in self.sets:
            arms = {name: self._measured(one, name) for name in ("real", "real_stretches", *RECORDED_ARMS[1:])}
            arms["floor"] = arms["real"]
            arms |= {spec: self._measured(one, spec) for spec in self.flows}
            keys = {name: self._key(one, name) for name in arms}
            for name in (*RECORDED_ARMS, *self.flows):
                subject = self._subject(one, name, arms)
                reference = self.reference if subject.reference else None
                used = [keys[key] for key in (name, "real", "real_stretches", reference) if key]
                rows += self._sections(one, subject, used)
                rows += self._probed(one, subject)
                if name in self.flows and self.probes:
                    rows += against_record(rows, one.name, name)
                if name in self.flows:
                    subjects.setdefault((name, one.fold_of), []).append(to_pool(subject))
                if name == "real" or name in self.flows:
                    measured[one.name, name] = pictured(arms[name])
        for (_, day), several in subjects.items():
            if len(several) > 1:
                name = POOLED if day is None else f"{day}-folds"
                rows += pooled_forecasts(several, name) + pooled_ranks(several, name)
        days = [one.name for one in self.sets if one.fold_of is None]  # a model may have been trained on folds
        verdicts = [verdict for spec in self.flows for day in days for verdict in judged(rows, day, spec)]
        summary = {spec: overall(verdicts, spec) for spec in self.flows}
        names = [one.name for one in self.sets]
        return Card(rows, verdicts, summary, names, self.flows, self.reference, measured)

    def _check_sets(self) -> None:
        """Refuses sets that are too short for forecasts, of those that were not measured before."""
        for one in self.sets:
            name = "real_stretches"  # kept only of sets that are long enough
            if Measured.load(self._part(one, name, "measured.npz"), self._key(one, name)) is None:
                self.report(f"{one.name}: reading", 0, 1)
                one.starts(2)

    def _subject(self, one: RecordedSet, name: str, arms: dict[str, Measured]) -> Subject:
        is_flow = name in self.flows
        reference = self.reference if is_flow and name != self.reference else None
        return Subject(
            one.name,
            name,
            arms[name],
            arms["real"],
            arms["real_stretches"],
            arms[reference] if reference else None,
            self.effort.replicates,
            one,
            (lambda markets: self._flow(one, name, markets)) if is_flow else None,
            cache(lambda: self._paths(one, name)) if is_flow or name in probes.RECORDS else None,
            self.effort.seeds,
            (lambda at, markets: make_arm(name, one.recorded, at, markets, self._fits(one))) if is_flow else None,
        )

    # ---- arms --------------------------------------------------------------------------------

    def _measured(self, one: RecordedSet, name: str) -> Measured:
        """An arm of a set, from its part file if that is what would be made."""
        if name == "floor":
            return Measured()
        if name in self.flows and content(name, self._fits(one)) is None:
            self.report(f"{one.name}: fitting {name}", 0, 1)
            parameters_file(name, one.recorded, self._fits(one))
        file, key = self._part(one, name, "measured.npz"), self._key(one, name)
        found = Measured.load(file, key)
        if found is None:
            found = self._rolled(one, name) if name in self.flows else self._recorded(one, name)
            found.save(file, key)
        return found

    def _recorded(self, one: RecordedSet, name: str) -> Measured:
        self.report(f"{one.name}: {name}", 0, 1)
        found = measure(self._paths(one, name))
        self.report(f"{one.name}: {name}", 1, 1)
        return found

    def _paths(self, one: RecordedSet, name: str) -> list[MarketPath]:
        """What an arm did: the test part, the training part, ..., or the long rollouts of a flow; equal each time."""
        if name in self.flows:
            flow = self._flow(one, name, min(_MARKETS, self.effort.seeds))
            return self._long(one, name, flow, len(one.starts(self.effort.starts)))
        if name == "replayed":
            return one.replayed()
        if name == "round_trip":
            return one.round_trip(self.model)
        if name == "real_stretches":
            return one.real_stretches()
        return [one.path.between(*one.part("train")) if name == "drift" else one.test_path()]

    def _rolled(self, one: RecordedSet, spec: str) -> Measured:
        """Long rollouts and forecasts of a flow."""
        effort = self.effort
        starts = one.starts(effort.starts)
        flow = self._flow(one, spec, min(_MARKETS, effort.seeds))
        found = measure(self._long(one, spec, flow, len(starts)), quarters=True)
        what, done = f"{one.name}: forecasts of {spec}", 0
        total = len(starts) * effort.rollouts

        def rolled(count: int) -> None:
            nonlocal done
            done += count
            self.report(what, done, total)

        found.ensemble = ensembles(flow, range(len(starts)), effort.rollouts, progress=rolled)
        found.truth = truths(one.path, starts)
        found.blocks = blocks_of(starts, found.truth)
        return found

    def _flow(self, one: RecordedSet, spec: str, markets: int) -> FlowModel:
        at = one.positions[one.starts(self.effort.starts)]
        return make_arm(spec, one.recorded, at, markets, self._fits(one))

    def _long(self, one: RecordedSet, spec: str, flow: FlowModel, starts: int) -> list[MarketPath]:
        effort, paths = self.effort, []
        contexts = np.arange(effort.seeds) * starts // effort.seeds
        seeds = (np.uint64(1) << np.uint64(48)) + np.arange(effort.seeds, dtype=np.uint64)  # not those of forecasts
        total = -(-effort.seeds // flow.num_envs) * effort.events
        for first in range(0, effort.seeds, flow.num_envs):
            chosen = np.arange(first, first + flow.num_envs) % effort.seeds
            done = len(paths) // flow.num_envs * effort.events
            paths += roll_out(
                flow, contexts[chosen], seeds[chosen], effort.events, most=effort.events,
                progress=lambda made, done=done: self.report(f"{one.name}: rollouts of {spec}", done + made, total),
            )  # fmt: skip
        return paths[: effort.seeds]

    # ---- sections ----------------------------------------------------------------------------

    def _sections(self, one: RecordedSet, subject: Subject, used: list[str]) -> list[Row]:
        key = described({"used": used, "replicates": self.effort.replicates, "code": _code()})
        return [row for name in SECTIONS for row in self._kept(one, subject, name, SECTIONS[name], key)]

    def _probed(self, one: RecordedSet, subject: Subject) -> list[Row]:
        if subject.paths is None or one.fold_of is not None:
            return []
        key = described(self._about(one, subject.arm) | {"probes": probes.code()})
        asked = [name for name in self.probes if subject.make_flow is not None or name not in probes.OF_FLOWS]
        return [row for name in asked for row in self._kept(one, subject, name, PROBES[name], key)]

    def _kept(self, one: RecordedSet, subject: Subject, name: str, section: Section, key: str) -> list[Row]:
        """Rows of a section, from its part file if that is what would be made."""
        file = self._part(one, subject.arm, f"{name}.json")
        found = read_rows(file, key)
        if found is None:
            self.report(f"{one.name}: {name.replace('_', ' ')} of {subject.arm}", 0, 1)
            found = section(subject)
            write_rows(file, key, found)
        return found

    # ---- part files --------------------------------------------------------------------------

    def _key(self, one: RecordedSet, name: str) -> str:
        """All that an arm of a set depends on."""
        key = self._about(one, name)
        if name in self.flows:
            key["rollouts"] = self.effort.rollouts
        if name == "round_trip":
            key["content"] = checkpoint(self.model)[1]
        return described(key)

    def _about(self, one: RecordedSet, name: str) -> dict[str, Any]:
        """What the paths of an arm depend on, forecasts aside."""
        key: dict[str, Any] = {"format": FORMAT, "code": code_of_arms(), "data": one.digest, "arm": name}
        if name in self.flows:
            key["content"] = content(name, self._fits(one))
            key |= {part: getattr(self.effort, part) for part in ("starts", "seeds", "events")}
        return key

    def _fits(self, one: RecordedSet) -> Path:
        return self.out / "fits" / f"{one.name}-{one.digest}-{code_of_arms()}"

    def _part(self, one: RecordedSet, name: str, end: str) -> Path:
        return self.out / "parts" / one.name / f"{file_name(name)}.{end}"


def _short(spec: str) -> str:
    flow, mark, said = spec.partition("?")
    name, colon, path = flow.partition(":")
    return (f"{name}:{Path(path).name}" if colon else name) + mark + said


@cache
def code_of_arms() -> str:
    """Hash of the code that decides what arms do and what is measured of them; its results are made again with it."""
    package = Path(__file__).parents[1]
    folders = [path for name in _PACKAGES for path in sorted((package / name).rglob("*.py"))]
    return hash_of_files([*folders, package / "rng.py", *(package / "realism" / f"{name}.py" for name in _MODULES)])


@cache
def _code() -> str:
    """Hash of what sections are computed with: their rows are quickly made again."""
    return hash_of(sections, distances, pooled, bootstrap, stylised, scores, discriminator)
