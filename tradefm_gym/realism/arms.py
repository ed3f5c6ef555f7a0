"""Flows that go on from recorded moments: what a realism card compares."""

import hashlib
from pathlib import Path

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
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

NAMES = ("tradefm", "hawkes", "zero_intelligence")


def parsed(spec: str) -> tuple[str, str]:
    """Name and path of a flow as it is written: "tradefm", "hawkes" or "zero_intelligence", each also with ":PATH".

    Raises:
        ValueError: if it is none of these, or its path does not exist.
    """
    name, colon, path = spec.partition(":")
    if name not in NAMES or (colon and not path):
        raise ValueError(
            f"flow {spec!r} cannot go on from a recorded day; allowed are {', '.join(NAMES)}, or NAME:PATH"
        )
    if name == "tradefm":
        checkpoint(path or BUNDLED_MODEL)
    elif path and not Path(path).is_file():
        raise ValueError(f"flow {spec!r} names {path!r}, which is no file; it must be a JSON file of parameters")
    return name, path


def content(spec: str, fits: Path) -> str | None:
    """Hash of a flow's model or parameters; None where they are still to be fitted."""
    name, path = parsed(spec)
    if name == "tradefm":
        return checkpoint(path or BUNDLED_MODEL)[1]
    file = Path(path) if path else fits / f"{name}.json"
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else None


def parameters_file(spec: str, recorded: RecordedFlow, fits: Path) -> Path:
    """The parameters of a Hawkes or zero intelligence flow, fitted to the training part of the day if need be."""
    name, path = parsed(spec)
    file = Path(path) if path else fits / f"{name}.json"
    if not file.exists():
        fits.mkdir(parents=True, exist_ok=True)
        (fit_hawkes(recorded) if name == "hawkes" else ZeroIntelligenceParameters.fit(recorded)).save(file)
    return file


def arm(spec: str, recorded: RecordedFlow, at: np.ndarray, markets: int, fits: Path, **options) -> FlowModel:
    """A flow for ``markets`` markets whose start state i is the recorded market just before record ``at[i]``.

    Args:
        spec: as ``parsed`` reads it; without a path the parametric ones are fitted to the training part of the day.
        recorded: the day.
        at: (c,) ascending positions in ``recorded.records``.
        markets: N.
        fits: folder that keeps what was fitted, so that it is fitted once.
        **options: of the flow's class.
    """
    name, path = parsed(spec)
    if name == "tradefm":
        model = path or BUNDLED_MODEL
        tokenizer = TradeTokenizer.load(checkpoint(model)[0])
        bank = recorded_bank(recorded, tokenizer.depth_edges, tokenizer.half_life_s, tokenizer.mid_mode, at=at)
        return TradeFMFlow(model, markets, bank=bank, **options)
    file = parameters_file(spec, recorded, fits)
    if name == "hawkes":
        parameters = HawkesParameters.load(file)
        return HawkesFlow(markets, parameters, bank=recorded_hawkes_bank(recorded, parameters, at=at), **options)
    bank = prepare(recorded, horizon=BLOCK, at=at).bank
    return ZeroIntelligenceFlow(markets, ZeroIntelligenceParameters.load(file), bank=bank, **options)
