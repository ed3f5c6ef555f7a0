"""Recorded order flow: loaders, rebuilt takers, splits and calibration."""

from tradefm_gym.data.recorded import FlowMeta, RecordedFlow, load
from tradefm_gym.data.splits import FlowCalibration, Splits, calibrate, split

__all__ = ["FlowCalibration", "FlowMeta", "RecordedFlow", "Splits", "calibrate", "load", "split"]
