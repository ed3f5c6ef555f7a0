"""The probes of control, stress and extreme regimes, on markets of which the answer is known."""

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from hand_path import add, path_of
from quiet_flow import QuietFlow, quiet_bank
from small_tradefm import generated_day, write_checkpoint, zero_intelligence_bank

from tradefm_gym.flow.indicators import UNTOLD
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.scenarios import OneSidedBurst
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import BUY, LIMIT
from tradefm_gym.realism import control, extremes, stress
from tradefm_gym.realism.control import control_rows
from tradefm_gym.realism.extremes import extreme_rows, kinds_of, nats_of, variance
from tradefm_gym.realism.probe_tables import of_a_probe, probe_tables
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.stress import Stress, recovery, stress_rows

LADDER = quiet_bank([(999 - i, 10) for i in range(80)], [(1001 + i, 10) for i in range(80)])


class ObedientFlow(QuietFlow):
    """Adds of 10 lots times (1 + the liquidity that it is told), 1 where nobody tells; its waits listen to nothing."""

    name, indicators = "obedient", {"liquidity": 3}

    def __init__(self, num_envs):
        super().__init__(num_envs, LADDER)
        self.told = np.full(num_envs, UNTOLD)

    def reset(self, market, rows, contexts, seeds, episodes):
        super().reset(market, rows, contexts, seeds, episodes)
        self.told[rows] = UNTOLD

    def set_indicators(self, rows, fixed, shift):
        self.told[rows] = fixed[:, 0]

    def next_events(self, market, wanted):
        block = super().next_events(market, wanted)
        block.events["kind"], block.events["price"] = LIMIT, 800
        block.events["order_id"] = -1
        block.events["size"] = 10 * (1 + np.where(self.told == UNTOLD, 1, self.told))[:, None]
        return block


def told(rows):
    return {(row["quantity"], row["metric"]): row for row in rows}


def placed(rows, arm="flow"):
    made = [Row(set="day", **row) for row in rows]
    assert all(of_a_probe(row) for row in made)
    return probe_tables(Rows(made), "day", [arm]), probe_tables(Rows(made), "day", [arm], brief=True)


def test_an_indicator_that_is_obeyed_is_monotone_and_one_that_is_not_is_not():
    contexts, seeds = np.arange(6) % 3, np.arange(6, dtype=np.uint64)
    rows = control_rows(ObedientFlow(6), contexts, seeds, events=32)
    found = told(rows)
    for level, lots in ((0, 10), (1, 20), (2, 30)):
        row = found["control_liquidity", f"log_volume_at_{level}"]
        assert row["value"] == pytest.approx(np.log1p(lots / 10) - np.log1p(20 / 10))
    assert found["control_liquidity", "log_volume_monotone"]["value"] == 1.0
    assert found["control_liquidity", "log_volume_range"]["low"] > 0.5
    assert found["control_liquidity", "log_wait_monotone"]["value"] == 0.0
    assert found["regime_thin", "log_volume"]["value"] < 0 < found["regime_busy", "log_volume"]["value"]
    (table,), (brief,) = placed(rows)
    lines = {name: cells[0] for name, cells in table.lines}
    assert lines["flow: liquidity, 2 less 0"].value.endswith("monotone")
    assert lines["flow: liquidity, 2 less 0"].mark == "near" and lines["flow: liquidity 1"].mark == ""
    assert len(brief.lines) == 3 < len(table.lines)


def test_a_flow_without_indicators_has_regimes_only():
    rows = control_rows(ZeroIntelligenceFlow(4), np.arange(4), np.arange(4, dtype=np.uint64), events=64)
    assert {row["quantity"] for row in rows} == {"regime_thin", "regime_busy"}
    found = told(rows)
    assert found["regime_thin", "log_mean_wait"]["value"] == pytest.approx(np.log(2.0), abs=1e-6)
    assert found["regime_busy", "log_mean_wait"]["value"] == pytest.approx(np.log(0.5), abs=1e-6)
    assert found["regime_thin", "log_volume"]["value"] == 0.0


def test_a_quiet_market_never_recovers_from_a_burst():
    burst = {side: OneSidedBurst(side, stress.START, events=20) for side in ("buy", "sell")}
    stresses = {"one_sided_burst": Stress(burst["buy"], burst["sell"], 2)}
    contexts, seeds = np.arange(4) % 3, np.arange(4, dtype=np.uint64)
    rows = stress_rows(QuietFlow(4, LADDER), contexts, seeds, "flow", stresses, horizon=64)
    found = {metric: row["value"] for (_, metric), row in told(rows).items()}
    # 18 takers of 10 lots each walk 18 ticks of one side, whatever the side: the mid 9, the spread 18.
    assert found["mid_after_0"] == found["mid_after_64"] == pytest.approx(90.0)
    assert found["spread_after_16"] == pytest.approx(9.0) and found["depth_after_0"] == 0.0
    assert (found["mid_recovered"], found["mid_recovery"]) == (0.0, 64.0)
    assert (found["depth_recovered"], found["depth_recovery"]) == (1.0, 0.0)
    (table,), _ = placed(rows)
    assert next(name for name, _ in table.lines) == "flow: one sided burst, mid, bps"


def test_recovery_takes_two_looks_within_the_band():
    twin = np.array([[1.0, 2.0, 3.0, 2.0, 1.0, 2.0]] * 3)
    after = np.array([[9.0, 2.0, 9.0, 9.0, 2.0, 2.0], [2.0, 2.0, 9.0, 9.0, 9.0, 9.0], [2.0, 9.0, 2.0, 9.0, 2.0, 9.0]])
    events, ever = recovery(after, twin)
    assert events.tolist() == [4 * stress.STEP, 0, 5 * stress.STEP] and ever.tolist() == [True, True, False]


def test_the_most_volatile_windows_are_told_apart():
    kinds = kinds_of(np.array([1.0] * 8 + [50.0] + [1.0] * 11))
    assert np.flatnonzero(kinds["extreme"]).tolist() == [8]
    assert np.flatnonzero(kinds["after_extreme"]).tolist() == [9]
    assert (kinds["extreme"] == ~kinds["other"]).all()
    path = path_of([add(BUY, 990, 1)] * 3, [(990, 1010), (990, 1010), (992, 1010)])
    assert variance(path) == pytest.approx((1e4 * np.log(1001 / 1000)) ** 2)


@pytest.fixture(scope="module", name="day")
def _day():
    recorded = generated_day(30_000)
    return RecordedSet("day", lambda: recorded, "0" * 12)


def test_extreme_windows_of_a_day_that_the_flow_itself_has_made(day, monkeypatch):
    monkeypatch.setattr(extremes, "_MARKETS", 16)
    monkeypatch.setattr(control, "EVENTS", 16)
    rows = extreme_rows(day, lambda at, markets: ZeroIntelligenceFlow(markets), rollouts=1)
    found = told(rows)
    assert found["extreme_windows", "real_variance"]["value"] > found["other_windows", "real_variance"]["value"]
    assert "nats" not in {metric for _, metric in found}
    (table,), _ = placed(rows)
    assert [name.partition(" (")[0] for name, _ in table.lines] == [
        f"flow: {kind} windows" for kind in ("extreme", "other", "after extreme")
    ]


def test_nats_are_those_of_the_network_event_by_event(day, tmp_path):
    flow = make_flow(f"tradefm:{write_checkpoint(tmp_path / 'model')}", 2, bank=zero_intelligence_bank())
    at = day.positions[extremes.windows_of(day)[:3]]
    together = nats_of(flow, day.recorded, at)
    assert together.shape == (3,) and (together > 7.0).all()  # of random weights: about log 16,384
    alone = nats_of(flow, day.recorded, at[2:])
    assert alone[0] == pytest.approx(together[2], abs=1e-4)
