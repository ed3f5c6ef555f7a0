"""What the card says of forecasts: skill, where it says something, and ranks of the truth."""

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.rows import Rows
from tradefm_gym.realism.sections import COLUMN_NAMES, RANKED, Subject, forecasts, pooled_forecasts, pooled_ranks

COLUMN = COLUMN_NAMES.index("volume_1s")


def forecaster(truth, width, seed=0, members=16, blocks=8):
    """An arm whose members lie around the truth, (s, c)."""
    ensemble = truth[:, None] + np.random.default_rng(seed).normal(0, width, (len(truth), members, truth.shape[1]))
    block = np.repeat(np.arange(len(truth))[:, None] * blocks // len(truth), truth.shape[1], axis=1)
    return Measured(ensemble=ensemble, truth=truth, blocks=block, seeds=2)


def skills_of(rows):
    return {row.quantity: row for row in rows if row.metric == "crps_skill"}


def test_skill_is_pooled_over_sets():
    truth = np.random.default_rng(0).normal(size=(24, len(COLUMN_NAMES)))
    subjects = [
        Subject(name, "flow", forecaster(truth, 0.1, i), Measured(), reference=forecaster(truth, 1.0, 9 + i))
        for i, name in enumerate("ab")
    ]
    rows = skills_of(pooled_forecasts(subjects)).values()
    assert {(row.set, row.arm, row.n, row.seeds) for row in rows} == {("pooled", "flow", 48, 4)}
    assert len(rows) == len(COLUMN_NAMES) and all(0.5 < row.low < row.value < row.high < 1 for row in rows)


def test_no_skill_where_nothing_happens():
    """Neither of the set nor, of this set, of all together."""
    truth = np.random.default_rng(1).normal(size=(24, len(COLUMN_NAMES)))
    quiet = truth.copy()
    quiet[:, COLUMN] = 0
    subjects = []
    for name, truths in (("busy", truth), ("quiet", quiet)):
        reference = forecaster(truths, 1.0, 2)
        if name == "quiet":
            reference.ensemble[:, :, COLUMN] = 0
            reference.ensemble[0, 0, COLUMN] = 1e-13
        subjects.append(Subject(name, "flow", forecaster(truths, 0.1, 3), Measured(), reference=reference))
    busy, still = (skills_of(forecasts(one)) for one in subjects)
    assert "volume_1s" in busy and still.keys() == busy.keys() - {"volume_1s"}
    pooled = skills_of(pooled_forecasts(subjects))
    assert pooled["volume_1s"].n == 24 and pooled["volume_10s"].n == 48
    assert pooled["volume_1s"].value == pytest.approx(busy["volume_1s"].value)
    assert "volume_1s" not in skills_of(pooled_forecasts(subjects[1:]))


def test_shares_of_ranks_are_told_of_some_outcomes_and_pooled_of_all():
    """Nine members make ten ranks; truths rank 0, 0, 3 and 9 on one day, and 9 on the other."""
    ensemble = np.repeat(np.arange(9.0)[:, None], len(COLUMN_NAMES), axis=1)
    subjects = []
    for day, truth in (("a", [-1.0, -1.0, 2.5, 99.0]), ("b", [99.0] * 4)):
        truths = np.repeat(np.array(truth)[:, None], len(COLUMN_NAMES), axis=1)
        mine = Measured(ensemble=np.stack([ensemble] * 4), truth=truths, blocks=np.zeros_like(truths, int), seeds=2)
        subjects.append(Subject(day, "flow", mine, Measured()))
    rows = forecasts(subjects[0])
    assert {row.quantity for row in rows if row.metric.startswith("rank_share_")} == set(RANKED)
    shares = [Rows(rows).get("a", RANKED[0], f"rank_share_{i}", "flow") for i in range(1, 11)]
    assert [row.value for row in shares if row] == [0.5, 0, 0, 0.25, 0, 0, 0, 0, 0, 0.25]
    pooled = Rows(pooled_ranks(subjects))
    for name in COLUMN_NAMES:
        shares = [pooled.get("pooled", name, f"rank_share_{i}", "flow") for i in range(1, 11)]
        assert [row.value for row in shares if row] == [0.25, 0, 0, 0.125, 0, 0, 0, 0, 0, 0.625]
        p_value = pooled.get("pooled", name, "rank_p", "flow")
        assert p_value and p_value.value < 0.01 and (p_value.n, p_value.seeds) == (8, 4)
    assert pooled_ranks([Subject("a", "flow", Measured(), Measured())]) == []


def test_skill_of_each_column_resamples_its_own_blocks():
    truth = np.random.default_rng(2).normal(size=(24, len(COLUMN_NAMES)))
    mine = forecaster(truth, 0.1, 3)
    mine.blocks[:, COLUMN] = np.arange(24) // 8  # three are no interval
    rows = skills_of(forecasts(Subject("day", "flow", mine, Measured(), reference=forecaster(truth, 1.0, 4))))
    assert np.isnan(rows["volume_1s"].low) and np.isfinite(rows["volume_1s"].value)
    assert all(np.isfinite(row.low) for name, row in rows.items() if name != "volume_1s")
