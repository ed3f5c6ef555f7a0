"""Flows that go on from recorded moments: what a realism card compares."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.arguments import known_names, shortened
from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.flow.habits import Habits
from tradefm_gym.flow.hawkes import HawkesFlow
from tradefm_gym.flow.hawkes_calibration import fit_hawkes
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.hawkes_starts import recorded_hawkes_bank
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.recorded_starts import BLOCK, prepare
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.flow.zero_intelligence_parameters import ZeroIntelligenceParameters
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.habits_fit import fit_habits

NAMES = ("tradefm", "hawkes", "zero_intelligence")
# What may be said of a flow after a "?", to measure what each part of it does. A TradeFM flow is given the asset's
# habits, unless habits=false, or others in a file (``tradefm-gym fit tradefm``), with habits=FILE.
OPTIONS = {
    "tradefm": ("temperature", "cancel", "placement", "deterministic", "anchor", "flag_agents", "persistence",
                "following", "answering", "restoring", "habits"),
    "hawkes": (),
    "zero_intelligence": (),
}  # fmt: skip


class Spec(NamedTuple):
    """A flow as it is written: what it is, a path or "", and the options of its class."""

    name: str
    path: str
    options: dict[str, Any]


def parsed(spec: str) -> Spec:
    """A flow as it is written: "tradefm", "hawkes" or "zero_intelligence", then ":PATH", then "?option=value&...".

    Values are numbers, true and false, words, or numbers with "/" between them, as in "persistence=0/0.001".

    Raises:
        ValueError: if it is none of these, its path does not exist, or its class has no such option.
    """
    flow, mark, said = spec.partition("?")
    name, colon, path = flow.partition(":")
    if name not in NAMES or (colon and not path):
        raise ValueError(
            f"flow {spec!r} cannot go on from a recorded day; allowed are {', '.join(NAMES)}, or NAME:PATH"
        )
    if name == "tradefm":
        checkpoint(path or BUNDLED_MODEL)
    elif path and not Path(path).is_file():
        raise ValueError(f"flow {spec!r} names {path!r}, which is no file; it must be a JSON file of parameters")
    pairs = [pair.partition("=") for pair in said.split("&")] if mark else []
    if not all(key and value for key, _, value in pairs) or len({key for key, *_ in pairs}) < len(pairs):
        raise ValueError(f"flow {spec!r} has {said!r} after the '?'; it must be option=value&option=value, none twice")
    try:
        known_names(f"flow {name!r}", [key for key, *_ in pairs], OPTIONS[name])
    except TypeError as error:  # here it is a user's text, not a programmer's call
        raise ValueError(str(error)) from None
    options = {key: _value(text) for key, _, text in pairs}
    said = next((text for key, _, text in pairs if key == "habits"), "true")
    if said not in ("true", "false"):
        if not Path(said).is_file():
            raise ValueError(f"flow {spec!r} has habits {shortened(said)}; allowed are true, false and a file of them")
        options["habits"] = Path(said)
    return Spec(name, path, options)


def check_parameters(spec: str) -> None:
    """Reads the file of parameters that a flow names and tries its options, before all the work.

    Raises:
        OSError, ValueError: if it cannot be read, or holds no sound parameters of that flow; if an option has
            a value that is not allowed.
    """
    name, path, options = parsed(spec)
    if name == "tradefm" and (said := _without_habits(options)):
        try:
            TradeFMFlow(path or BUNDLED_MODEL, **said)
        except ValueError as error:
            raise ValueError(f"flow {spec!r}: {error}") from None
    if isinstance(options.get("habits"), Path):
        Habits.load(options["habits"]).check_model(checkpoint(path or BUNDLED_MODEL)[1])
    if path and name != "tradefm":
        (HawkesParameters if name == "hawkes" else ZeroIntelligenceParameters).load(path)


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if "/" in text:
        return tuple(_value(part) for part in text.split("/"))
    try:
        return float(text)
    except ValueError:
        return text


def content(spec: str, fits: Path) -> str | None:
    """Hash of a flow's model or parameters, and its options; None where they are still to be fitted."""
    name, path, options = parsed(spec)
    said = f" {sorted(options.items())}" if options else ""
    model, file = checkpoint(path or BUNDLED_MODEL)[1] if name == "tradefm" else "", _fitted(spec, fits)
    if file is None:
        return model + said
    return model + hashlib.sha256(file.read_bytes()).hexdigest()[:12] + said if file.is_file() else None


def parameters_file(spec: str, recorded: RecordedFlow, fits: Path) -> Path | None:
    """What of a flow is fitted to the training part of the day, fitted if need be; None where nothing is.

    Of a TradeFM flow those are the asset's habits.
    """
    (name, path, options), file = parsed(spec), _fitted(spec, fits)
    if file is None or file.exists():
        return file
    fits.mkdir(parents=True, exist_ok=True)
    if name == "tradefm":
        fit_habits(recorded, path or BUNDLED_MODEL, **_without_habits(options)).save(file)
    else:
        (fit_hawkes(recorded) if name == "hawkes" else ZeroIntelligenceParameters.fit(recorded)).save(file)
    return file


def _fitted(spec: str, fits: Path) -> Path | None:
    """The file of what is fitted, whether or not it is there."""
    name, path, options = parsed(spec)
    if name != "tradefm":
        return Path(path) if path else fits / f"{name}.json"
    habits = options.get("habits", True)
    if isinstance(habits, Path) or not habits:
        return habits or None
    what = f"{checkpoint(path or BUNDLED_MODEL)[1]} {sorted(_without_habits(options).items())}"
    return fits / f"habits-{hashlib.sha256(what.encode()).hexdigest()[:12]}.json"


def _without_habits(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "habits"}


def arm(spec: str, recorded: RecordedFlow, at: np.ndarray, markets: int, fits: Path, **options) -> FlowModel:
    """A flow for ``markets`` markets whose start state i is the recorded market just before record ``at[i]``.

    Args:
        spec: as ``parsed`` reads it; without a path the parametric ones are fitted to the training part of the day, and
            of TradeFM flows the asset's habits are.
        recorded: the day.
        at: (c,) ascending positions in ``recorded.records``.
        markets: N.
        fits: folder that keeps what was fitted, so that it is fitted once.
        **options: of the flow's class, besides those of ``spec``.
    """
    name, path, said = parsed(spec)
    options, file = _without_habits(said) | options, parameters_file(spec, recorded, fits)
    if name == "tradefm":
        model = path or BUNDLED_MODEL
        bank = recorded_bank(recorded, TradeTokenizer.load(checkpoint(model)[0]), at=at)
        return TradeFMFlow(model, markets, bank=bank, habits=file, **options)
    assert file is not None
    if name == "hawkes":
        parameters = HawkesParameters.load(file)
        return HawkesFlow(markets, parameters, bank=recorded_hawkes_bank(recorded, parameters, at=at), **options)
    bank = prepare(recorded, horizon=BLOCK, at=at).bank
    return ZeroIntelligenceFlow(markets, ZeroIntelligenceParameters.load(file), bank=bank, **options)
