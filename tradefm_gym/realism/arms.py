"""Flows that go on from recorded moments: what a realism card compares."""

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


def arm(spec: str, recorded: RecordedFlow, at: np.ndarray, markets: int, fits: Path, **options) -> FlowModel:
    """A flow for ``markets`` markets whose start state i is the recorded market just before record ``at[i]``.

    Args:
        spec: "tradefm", "hawkes" or "zero_intelligence", each also with ":PATH" of one's own model or parameters;
            without a path the parametric ones are fitted to the training part of the day.
        recorded: the day.
        at: (c,) ascending positions in ``recorded.records``.
        markets: N.
        fits: folder that keeps what was fitted, so that it is fitted once.
        **options: of the flow's class.
    """
    name, _, path = spec.partition(":")
    if name not in NAMES:
        raise ValueError(
            f"flow {spec!r} cannot go on from a recorded day; allowed are {', '.join(NAMES)}, or NAME:PATH"
        )
    if name == "tradefm":
        model = path or BUNDLED_MODEL
        tokenizer = TradeTokenizer.load(checkpoint(model)[0])
        bank = recorded_bank(recorded, tokenizer.depth_edges, tokenizer.half_life_s, tokenizer.mid_mode, at=at)
        return TradeFMFlow(model, markets, bank=bank, **options)
    file = Path(path) if path else fits / f"{name}.json"
    if name == "hawkes":
        if not path and not file.exists():
            fits.mkdir(parents=True, exist_ok=True)
            fit_hawkes(recorded).save(file)
        parameters = HawkesParameters.load(file)
        return HawkesFlow(markets, parameters, bank=recorded_hawkes_bank(recorded, parameters, at=at), **options)
    if not path and not file.exists():
        fits.mkdir(parents=True, exist_ok=True)
        ZeroIntelligenceParameters.fit(recorded).save(file)
    bank = prepare(recorded, horizon=BLOCK, at=at).bank
    return ZeroIntelligenceFlow(markets, ZeroIntelligenceParameters.load(file), bank=bank, **options)
