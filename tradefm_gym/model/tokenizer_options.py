"""What is chosen when a tokenizer is calibrated; apart, so that the command line need not load the compiler."""

from dataclasses import dataclass

from tradefm_gym.arguments import one_of, shortened, whole

MIDS = ("touch", "book", "vwap")
LEAST_CALIBRATION_EVENTS = 1_000  # fewer say nothing about bins
_LONGEST_HALF_LIFE_S = 1e9


@dataclass(frozen=True)
class TokenizerOptions:
    """What a tokenizer that is calibrated on the data tells the model."""

    mid: str = "touch"  # what prices count from: the touch, the "book" mid, or the "vwap", the paper's
    pressure: bool = True  # tell the model the order-flow pressure
    book: bool = True  # tell the model the spread and the lots at the touch
    pace: bool = False  # tell the model whether the market is busier than usual
    assets: bool = False  # tell the model which of the days' assets it reads
    half_life_s: float = 10.0  # of the "vwap"
    calibration_events: int = 8_000_000  # of more training events every second, fourth ... calibrates

    def check(self) -> None:
        """Raises a ValueError for what is not allowed; by itself, since the command line would print a panel of it."""
        one_of("mid", self.mid, MIDS)
        whole("calibration_events", self.calibration_events, LEAST_CALIBRATION_EVENTS)
        value = self.half_life_s
        if not (isinstance(value, int | float) and 0 < value <= _LONGEST_HALF_LIFE_S):
            raise ValueError(f"half_life_s is {shortened(value)}; it must be positive and at most 1e9")
