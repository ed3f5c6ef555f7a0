"""Recorded events through the tokenizer and back: what the decoding alone costs, with a model that is never wrong.

The tokens of a recorded stretch take the place of those that a network would draw. All else is as in a closed loop:
prices refer to the simulated mid, the book decides placement, cancels name no order.
"""

import numpy as np

from tradefm_gym.data.recorded import RecordedFlow
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.warmup import recorded_bank
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.features import day_features
from tradefm_gym.market.simulator import MarketSimulator
from tradefm_gym.model.serving import checkpoint
from tradefm_gym.model.tokenizer import TradeTokenizer


class RoundTripFlow(TradeFMFlow):
    """The record of a day as TradeFM would propose it if it always drew the recorded token.

    Rows end with the record.

    Args:
        model: as ``TradeFMFlow`` takes it; only its tokenizer is used.
        recorded: the day.
        at: (c,) ascending positions in ``recorded.records``, where the start states stand.
        num_envs: N.
    """

    def __init__(self, model: str, recorded: RecordedFlow, at: np.ndarray, num_envs: int) -> None:
        tokenizer = TradeTokenizer.load(checkpoint(model)[0])
        options = tokenizer.half_life_s, tokenizer.mid_mode
        bank = recorded_bank(recorded, tokenizer, at=at)
        super().__init__(
            model,
            num_envs,
            backend="numba",
            bank=bank,
            persistence=(0.0, 0.0),
            following=0.0,
            answering=0.0,
            restoring=0.0,
        )
        part = split(recorded).train
        features, index, _ = day_features(recorded.records, part, calibrate(recorded, part).median_size, *options)
        known = features["valid"] == 1
        self._tokens = tokenizer.encode(features[known])[:, 3]
        self._first = np.searchsorted(index[known], at)
        self._next = np.zeros(num_envs, np.int64)
        self.engine, self._by_rows = _Prompter(num_envs, self.config.context), False

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states; the record goes on from there. Arguments as in ``FlowModel.reset``."""
        super().reset(market, rows, contexts, seeds, episodes)
        self._next[rows] = self._first[np.asarray(contexts)[rows]]

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next recorded event of each wanted row, decoded."""
        wanted = wanted & (self._next < len(self._tokens))
        self.engine.tokens[:] = self._tokens[np.minimum(self._next, len(self._tokens) - 1)]
        block = super().next_events(market, wanted)
        self._next[wanted] += 1
        return block

    def _kept(self) -> dict[str, np.ndarray]:
        return super()._kept() | {"next": self._next}


class _Prompter:
    """In the place of an engine: it says the tokens that it was given, and remembers nothing."""

    def __init__(self, batch: int, context: int) -> None:
        self.tokens = np.zeros(batch, np.int32)
        self.lengths = np.zeros(batch, np.int32)
        self.batch, self.context = batch, context

    def sample(self, *_, **__) -> np.ndarray:
        return self.tokens.copy()

    def append(self, inputs: np.ndarray, active: np.ndarray) -> None: ...

    def extend(self, inputs: np.ndarray, counts: np.ndarray) -> None: ...

    def prefill(self, rows: np.ndarray, inputs: list[np.ndarray]) -> None: ...

    def export_row(self, row: int) -> None: ...

    def import_row(self, row: int, cache: None) -> None: ...

    def copy_rows(self, sources: np.ndarray, targets: np.ndarray) -> None: ...
