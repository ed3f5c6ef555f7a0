"""A recorded day, or a stretch of a market, as a tokenizer sees it."""

from dataclasses import dataclass

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow, asset_name
from tradefm_gym.data.splits import FlowCalibration, calibrate, split
from tradefm_gym.market.features import day_features, new_state, observe
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.realism.path import MarketPath

PARTS = ("train", "validation", "test")
TOKEN = 3  # column of the inputs


@dataclass(frozen=True, eq=False)
class EncodedDay:
    """Events of a day with a known mid.

    Attributes:
        tokenizer: frozen.
        features: (n,) FEATURES.
        index: (n,) int64, where the events stand in the day's records.
        inputs: (n, 4) int32, what a model is told.
        tables: (4, 16, 24) what lies inside the bins of this asset, by its training part.
        calibration: scales of the training part.
        parts: first event of each part, and the one after its last.
    """

    tokenizer: TradeTokenizer
    features: np.ndarray
    index: np.ndarray
    inputs: np.ndarray
    tables: np.ndarray
    calibration: FlowCalibration
    parts: dict[str, slice]

    @classmethod
    def of(cls, recorded: RecordedFlow, tokenizer: TradeTokenizer) -> "EncodedDay":
        """Reads a day as the training of a model does."""
        parts = split(recorded)
        scales = calibrate(recorded, parts.train)
        features, index, _ = day_features(
            recorded.records, parts.train, scales.median_size, tokenizer.half_life_s, tokenizer.mid_mode, scales.spread,
            tokenizer.asset_of(asset_name(recorded.meta)),
        )  # fmt: skip
        known = features["valid"] == 1
        features, index = np.ascontiguousarray(features[known]), index[known]
        places = {}
        for name in PARTS:
            rows = getattr(parts, name)
            places[name] = slice(*np.searchsorted(index, [rows.start, rows.stop]).tolist())
        tables = tokenizer.tables_of(features[places["train"]])
        return cls(tokenizer, features, index, tokenizer.encode(features), tables, scales, places)

    def inputs_of(self, part: str) -> np.ndarray:
        """Inputs (k, 4) int32 of "train", "validation" or "test"."""
        return self.inputs[self.parts[part]]

    def tokens_of(self, part: str) -> np.ndarray:
        """Trade tokens (k,) int32 of a part."""
        return self.inputs[self.parts[part], TOKEN]


def path_tokens(path: MarketPath, tokenizer: TradeTokenizer) -> np.ndarray:
    """Trade tokens (k,) int32 of a path but for its first event, whose book is not known.

    An average of past trades begins anew with the path.
    """
    scale = path.scale
    state = new_state(
        1, float(scale["median_size"]), (0.0, 0.0), tokenizer.half_life_s, tokenizer.mid_mode, float(scale["spread"])
    )
    features = observe(state, path.records)[0]
    return tokenizer.encode(features[features["valid"] == 1])[1:, TOKEN]
