"""Recorded order flow: loaders, rebuilt takers, splits and calibration."""

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Feed, ReadOptions, open_feed
from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, load
from tradefm_gym.data.splits import FlowCalibration, Splits, calibrate, split

__all__ = [
    "Feed",
    "FeedError",
    "FlowCalibration",
    "FlowMeta",
    "ReadOptions",
    "RecordedFlow",
    "Splits",
    "calibrate",
    "load",
    "open_feed",
    "split",
]
