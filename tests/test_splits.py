"""Splits by time with a gap, and calibration on the training part only."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_takers import feed_of, flow_of

from tradefm_gym.data import FlowCalibration, calibrate, split
from tradefm_gym.market.events import LIMIT, PRINT


@pytest.fixture(scope="module")
def flow():
    rng = np.random.default_rng(1)
    actions = [
        (rng.random() < 0.4, int(rng.choice([1, -1])), int(rng.integers(-1, 6)), int(rng.integers(1, 9)), k)
        for k in range(3000)
    ]
    return flow_of(feed_of(actions, True)[0], session=(50, 10**6))


def test_parts_are_in_order_apart_and_leave_out_the_opening(flow):
    parts = split(flow)
    time = flow.records["time_ns"]
    assert parts.train.start == flow.opening > 0
    assert parts.test.stop == len(flow)
    span = int(time[-1] - time[flow.opening])
    for earlier, later in ((parts.train, parts.validation), (parts.validation, parts.test)):
        assert time[later[0]] - time[earlier[-1]] >= span // 100
    assert abs(len(parts.train) / len(flow) - 0.7) < 0.02


def test_no_instant_is_shared_between_parts(flow):
    records = flow.records.copy()
    records["time_ns"] = time = records["time_ns"] // 7 * 7
    parts = split(replace(flow, records=records), gap_ns=0)
    assert time[parts.train[-1]] < time[parts.validation[0]]
    assert time[parts.validation[-1]] < time[parts.test[0]]


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (0.5, 0.5)])
def test_bad_fractions(flow, fractions):
    with pytest.raises(ValueError, match="three positive shares"):
        split(flow, fractions)


def test_a_gap_longer_than_a_part_is_refused(flow):
    with pytest.raises(ValueError, match="gap_ns is 2000; it must lie between"):
        split(flow, gap_ns=2000)


def test_calibration_reads_its_part_only_and_goes_through_json(flow):
    before = calibrate(flow)
    part = split(flow).train
    records = flow.records.copy()
    records["size"][part.stop :] += 1000
    assert calibrate(replace(flow, records=records)) == before
    assert FlowCalibration.from_dict(json.loads(json.dumps(before.to_dict()))) == before
    with pytest.raises(ValueError, match=r"unknown keys \['sprad'\]"):
        FlowCalibration.from_dict(before.to_dict() | {"sprad": 1})


def test_calibrated_values(flow):
    part = split(flow).train
    records, found = flow.records[part.start : part.stop], calibrate(flow)
    background = records[records["kind"] != PRINT]
    assert found.lots_per_event == background["filled"].sum() / len(background)
    assert found.median_size == np.median(records["size"][(records["kind"] == LIMIT) & (records["filled"] == 0)])
    assert found.tick_bps == pytest.approx(1e4 / found.mid)
    with pytest.raises(ValueError, match="too few events"):
        calibrate(flow, range(part.start, part.start))
