"""An asset's habits: what it does more often, in other sizes and at other waits than a network that runs freely.

A network that was trained on several assets gives each its due as long as it reads the record. In histories of its own
making it drifts: takers like Bitstamp's come twice as often there and four times as large, those like AAPL's half as
often, and waits are shorter than recorded ones. Habits are log-odds that are added to what the network says, whatever
the moment, so that as much of everything comes as in the asset's training part (see ``realism.habits_fit``).

Nor does it know more of the pace than its 256 events show, and on some assets it returns to the usual one within
hundreds of events where the record takes thousands. So waits are multiplied by the mean wait of the last 2,048 events
or so over the usual one, to a power: by as much as the record keeps of a pace and the network does not.

Nor does it know exactly how much the touch shows. Takers like AAPL's and GOOG's take what is there and no more: of the
recorded ones 4 to 6% ask for more than the touch shows, of those of a network that runs freely a quarter did, and each
of them moved the price. So a share of them takes just what is shown.

Nor does it keep to a side for as long as takers like AAPL's do, or turn where the price has gone on: log-odds make up
for both, see ``repeating``.

Nor does it know that a quote is too good: with habits takers become ``MEETING`` times likelier for each usual spread by
which an agent quotes beyond what the asset is worth, see ``leading``.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import numbers, shortened
from tradefm_gym.flow.parameter_files import array_of, read_parameters, write_parameters
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.repeating import REPEATING
from tradefm_gym.flow.stream_state import HABITS, MEETING, upgraded

KIND = "habits of an asset"
FORMAT = 1
MOST, LONGEST = 3.0, 0.9  # log-odds, and the exponent of a pace
# Rows of the log-odds: of the depth bins of adds and of cancels, as a buyer counts them; of the volume bins of adds
# that rest, of takers and of cancels; of the time bins.
ROWS = ("adds", "cancels", "add_sizes", "taker_sizes", "cancel_sizes", "waits")
ADDS, CANCELS, ADD_SIZES, TAKER_SIZES, CANCEL_SIZES, WAITS = range(len(ROWS))


@dataclass(frozen=True, eq=False)
class Habits:
    """What a flow is told of an asset.

    Attributes:
        log_odds: (6, 16) float64, by ``ADDS`` and so on, and bin of the tokenizer.
        lasting: exponent of the pace that waits keep, in [0, 0.9].
        trimmed: share, in [0, 1], of the takers who ask for more than the touch shows that take just that.
        repeating: (9,) float64, log-odds that a taker is on the side of the one before, see ``repeating``.
        report: what they were fitted to, and how near the flow came.
    """

    log_odds: np.ndarray
    lasting: float = 0.0
    trimmed: float = 0.0
    repeating: np.ndarray = field(default_factory=lambda: np.zeros(REPEATING))
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, shape in (("log_odds", HABITS), ("repeating", (REPEATING,))):
            given = getattr(self, name)
            odds, allowed = numbers(given), f"{shape} numbers in [-{MOST:g}, {MOST:g}]"
            if odds is None or odds.shape != shape:
                said = shortened(given) if odds is None else f"of shape {odds.shape}"
                raise ValueError(f"{name} is {said}; it must be {allowed}")
            wrong = odds[~(np.abs(odds) <= MOST)]
            if len(wrong):
                raise ValueError(f"{name} has {wrong[0]:g}; it must be {allowed}")
            object.__setattr__(self, name, odds.astype(np.float64))
        for name, most in (("lasting", LONGEST), ("trimmed", 1.0)):
            value = numbers(getattr(self, name))
            if value is None or value.shape != () or not 0 <= value <= most:
                raise ValueError(f"{name} is {shortened(getattr(self, name))}; allowed is a number in [0, {most:g}]")
        if not isinstance(self.report, dict):
            raise ValueError(f"report is {shortened(self.report)}; it must be a dict, or an object in a file")

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name what a flow is told."""
        told = self.log_odds.tobytes() + self.repeating.tobytes() + repr((self.lasting, self.trimmed)).encode()
        return hashlib.sha256(told).hexdigest()[:12]

    def check_model(self, model_hash: str) -> None:
        """Refuses a network other than the one that they were fitted with; what is made by hand may be told to any.

        Raises:
            ValueError: if the report names another model.
        """
        fitted = self.report.get("model", model_hash)
        if fitted != model_hash:
            raise ValueError(
                f"habits were fitted with model {shortened(fitted)}, and the flow's is {model_hash!r}; they must be "
                "those of the same network"
            )

    def told(self, bank: ContextBank) -> ContextBank:
        """Start states of the asset, with these habits.

        Raises:
            ValueError: if they were not made for TradeFM.
        """
        states = bank.feature_state
        if states is None or not {"stream", "placement"} <= set(states.dtype.names or ()):
            raise ValueError("habits were given with start states that have none; allowed are those of a recorded day")
        states = upgraded(states)
        states["habits"], states["lasting"], states["trimmed"] = self.log_odds, self.lasting, self.trimmed
        states["repeating"], states["meeting"] = self.repeating, MEETING
        return replace(bank, feature_state=states)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file; a failed write leaves the old one."""
        values = {"log_odds": self.log_odds.tolist(), "lasting": self.lasting, "trimmed": self.trimmed}
        values |= {"repeating": self.repeating.tolist(), "report": self.report}
        write_parameters(path, KIND, FORMAT, values)

    @classmethod
    def load(cls, path: str | Path) -> "Habits":
        """Reads what ``save`` wrote.

        Raises:
            FileNotFoundError, ValueError: if there is no such file or it is of another kind.
        """
        values = read_parameters(path, KIND, FORMAT, ("log_odds", "lasting", "report"), ("trimmed", "repeating"))
        where = f"parameters path {str(path)!r}"
        odds = array_of(f"{where}: log_odds", values["log_odds"], 2)
        repeating = array_of(f"{where}: repeating", values.get("repeating", [0.0] * REPEATING), 1)
        try:
            return cls(odds, values["lasting"], values.get("trimmed", 0.0), repeating, values["report"])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
