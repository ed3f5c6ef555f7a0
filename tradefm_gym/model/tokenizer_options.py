"""What is chosen when a tokenizer is calibrated; apart, so that the command line need not load the compiler."""

from dataclasses import dataclass


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
