"""From recorded days to parameters of the Hawkes flow, and the commands that do it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from flow_paths import run, started
from market_checks import JIT
from small_hawkes import small_parameters

from tradefm_gym import cli
from tradefm_gym.data.day import load_day, save_day
from tradefm_gym.data.splits import split
from tradefm_gym.flow import hawkes_balance, hawkes_calibration
from tradefm_gym.flow.hawkes import HawkesFlow, seed_bank
from tradefm_gym.flow.hawkes_balance import Balance, balanced, recorded_balance, simulated_balance
from tradefm_gym.flow.hawkes_events import (
    CANCEL_DEEP,
    CANCEL_TOUCH,
    LIMIT_DEEP,
    LIMIT_INSIDE,
    LIMIT_TOUCH,
    MARKETABLE,
    TYPES,
    _classify,
    mark_tables,
    missing_types,
    typed_day,
)
from tradefm_gym.flow.hawkes_parameters import HawkesParameters
from tradefm_gym.flow.hawkes_starts import recorded_hawkes_bank
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.flow.thinning import simulate
from tradefm_gym.market.events import CANCEL, LIMIT, RECORD

pytestmark = pytest.mark.skipif(not JIT, reason="whole days")


@pytest.fixture(scope="module")
def bundled():
    return load_day(BUNDLED_DAY)


def first_records(day, count):
    """A shorter day."""
    short = {name: getattr(day, name)[:count] for name in ("records", "touch", "source_row")}
    fills = day.fills[day.fills["time_ns"] <= short["records"]["time_ns"][-1]]
    return replace(day, **short, fills=fills)


def test_types_and_marks_follow_from_the_book_before():
    cases = [  # kind, side, price, filled; bid 100, ask 105 before
        (LIMIT, 1, 103, 0, LIMIT_INSIDE, 2),
        (LIMIT, -1, 101, 0, LIMIT_INSIDE, 1),
        (LIMIT, 1, 100, 0, LIMIT_TOUCH, 5),
        (LIMIT, -1, 108, 0, LIMIT_DEEP, 8),
        (LIMIT, 1, 97, 0, LIMIT_DEEP, 8),
        (LIMIT, 1, 106, 30, MARKETABLE, -1),
        (LIMIT, -1, 100, 30, MARKETABLE, 0),
        (CANCEL, 1, 100, 0, CANCEL_TOUCH, 0),
        (CANCEL, -1, 109, 0, CANCEL_DEEP, -4),
    ]
    records = np.zeros(len(cases), RECORD)
    for field, column in (("kind", 0), ("side", 1), ("price", 2), ("filled", 3)):
        records[field] = [case[column] for case in cases]
    kind, ticks, known = _classify(records, np.tile(np.int32([100, 7, 105, 9]), (len(cases), 1)))
    assert kind.tolist() == [case[4] for case in cases]
    assert ticks.tolist() == [case[5] for case in cases]
    assert known.all()
    _, _, known = _classify(records, np.tile(np.int32([100, 7, 0, 0]), (len(cases), 1)))  # no asks
    assert known.tolist() == [False, False, True, False, False, False, True, True, False]


def test_times_are_smoothed_within_their_tick_and_breaks_do_not_count(bundled):
    day = typed_day(bundled)
    assert (np.diff(day.seconds) >= 0).all()
    np.testing.assert_allclose(day.seconds, (day.time_ns - day.time_ns[0]) / 1e9, atol=2e-9)
    coarse = bundled.records.copy()
    coarse["time_ns"] = coarse["time_ns"] // 10**7 * 10**7
    late = coarse["time_ns"] > np.median(coarse["time_ns"])
    coarse["time_ns"][late] += 7200 * 10**9  # a lunch
    smoothed = typed_day(replace(bundled, records=coarse))
    gaps = np.diff(smoothed.seconds)
    assert (gaps >= 0).all() and (gaps > 0).mean() > 0.999
    away = smoothed.seconds - (smoothed.time_ns - smoothed.time_ns[0]) / 1e9
    assert ((0 <= away[: len(away) // 3]) & (away[: len(away) // 3] <= 0.01 + 1e-9)).all()
    assert smoothed.seconds[-1] < day.seconds[-1] + 1


def test_marks_are_those_of_the_training_part_in_their_shares(bundled):
    day = typed_day(bundled)
    tables = mark_tables(day, True, 1024)
    for i in range(0, len(TYPES), 2):
        np.testing.assert_array_equal(tables[i], tables[i + 1])
        own = day.marks[day.train][day.types[day.train] // 2 == i // 2]
        for column in (1,) if i // 2 == LIMIT_TOUCH else (0, 1):
            assert tables[i, :, column].mean() == pytest.approx(own[:, column].mean(), rel=(0.03, 0.1)[column], abs=0.2)
    assert (tables[2 * LIMIT_TOUCH, :, 0] == 0).all()
    moved = mark_tables(day, True, 1024, 0.25, 0.5)
    assert (moved[2 * LIMIT_TOUCH, :, 0] > 0).mean() == pytest.approx(0.25, abs=0.01)
    assert (moved[2 * CANCEL_DEEP, :, 0] == 0).mean() == pytest.approx(0.5, abs=0.01)
    assert (mark_tables(day, True, 1024, -0.25)[2 * LIMIT_INSIDE, :, 0] == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert not np.array_equal(*mark_tables(day, False, 1024)[:2])


def test_the_balance_of_the_bundled_flow_is_that_of_its_day(bundled):
    parameters, target = HawkesFlow(1).parameters, recorded_balance(bundled, typed_day(bundled))
    found = simulated_balance(parameters)
    assert 2 / 3 < found.spread / target.spread < 3 / 2
    assert 2 / 3 < found.move / target.move < 3 / 2


def test_balancing_comes_nearer_to_its_target(bundled, monkeypatch):
    monkeypatch.setattr(hawkes_balance, "_HALVINGS", 2)
    day = typed_day(bundled)
    plain = simulated_balance(small_parameters(marks=mark_tables(day, True, 1024)))
    target, told = Balance(0.5 * plain.spread, 0.3 * plain.move), []
    found = balanced(small_parameters(), day, target, True, told.append)
    assert found.report["balance"]["recorded"] == target._asdict() and len(told) > 5
    assert simulated_balance(found).away_from(target) < plain.away_from(target)


def test_a_bank_of_a_recorded_day_remembers_what_went_before(bundled):
    parameters = HawkesFlow(1).parameters
    at = np.array([5000, 5001, 9000])
    bank = recorded_hawkes_bank(bundled, parameters, at=at)
    assert len(bank) == 3 and bank.feature_state is not None
    flow = HawkesFlow(3, parameters, bank)
    market = started(flow, np.arange(3))
    levels = flow.snapshot().arrays["excitement"].sum(axis=2)
    assert (levels >= 0).all() and len(np.unique(levels.sum(axis=1))) == 3
    run(flow, market, 64)
    assert (market.background_count == 64).all()
    assert (market.clock_ns > bundled.records["time_ns"][at - 1]).all()


def test_the_commands_fit_a_day_and_say_how_well(bundled, tmp_path, capsys, monkeypatch):
    pytest.importorskip("scipy")
    monkeypatch.setattr(hawkes_balance, "_HALVINGS", 1)
    save_day(tmp_path / "day.npz", first_records(bundled, 9000))
    out = tmp_path / "hawkes.json"
    assert cli.main(["fit", "hawkes", "--data", str(tmp_path / "day.npz"), "--out", str(out), "--decays", "3"]) == 0
    said = capsys.readouterr().out
    assert "spectral radius 0." in said and "buy limit inside" in said and "Poisson" in said
    parameters = HawkesParameters.load(out)
    report = parameters.report
    for part in ("train", "validation"):
        scores = report["nats_per_event"][part]
        assert scores["hawkes"] > scores["poisson"] + 0.5
        assert [row["type"] for row in scores["goodness_of_fit"]] == list(TYPES)
    flow = load_day(tmp_path / "day.npz")
    assert report["nats_per_event"]["train"]["events"] == len(split(flow).train), "the training part, and no more"
    assert parameters.radius < 0.95 and "/" not in json.dumps(report["provenance"])
    market = started(made := HawkesFlow(2, out, seed_bank(parameters)))
    run(made, market, 256, 64)
    out = tmp_path / "zi.json"
    assert cli.main(["fit", "zero-intelligence", "--data", str(tmp_path / "day.npz"), "--out", str(out)]) == 0
    assert "limit orders" in capsys.readouterr().out and out.is_file()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["day.npz", "hawkes.json", "zi.json"]


def test_what_the_training_part_lacks_never_happens_in_the_flow(bundled, tmp_path, capsys, monkeypatch):
    """As on a stock whose spread is always one tick: nothing is inside it."""
    pytest.importorskip("scipy")
    monkeypatch.setattr(hawkes_balance, "_HALVINGS", 1)
    day = typed_day(short := first_records(bundled, 9000))
    one_sided = day._replace(types=np.where(day.types == 2 * LIMIT_INSIDE, 2 * LIMIT_TOUCH, day.types))
    assert missing_types(day, True) == missing_types(one_sided, True) == ()
    assert missing_types(one_sided, False) == (2 * LIMIT_INSIDE,)
    inside = day.types // 2 == LIMIT_INSIDE
    day = day._replace(types=np.where(inside, 2 * LIMIT_TOUCH + day.types % 2, day.types))
    monkeypatch.setattr(hawkes_calibration, "typed_day", lambda recorded: day)
    save_day(tmp_path / "day.npz", short)
    out = tmp_path / "hawkes.json"
    assert cli.main(["fit", "hawkes", "--data", str(tmp_path / "day.npz"), "--out", str(out), "--decays", "1"]) == 0
    assert "so none in the flow: buy limit inside, sell limit inside" in capsys.readouterr().out
    parameters = HawkesParameters.load(out)
    assert parameters.report["fit"]["missing"] == list(TYPES[:2])
    rows = parameters.report["nats_per_event"]["train"]["goodness_of_fit"]
    assert [row["events"] for row in rows[:2]] == [0, 0] and rows[2]["ks"] < 0.5
    process = parameters.process
    assert not process.baseline[:2].any() and not process.amplitudes[:2].any() and not process.amplitudes[:, :2].any()
    assert process.baseline[2:].all() and process.floor[:2].max() < 1e-9
    simulated = simulate(process, 4000, 1)
    assert np.flatnonzero(np.bincount(simulated.types, minlength=len(TYPES)) == 0).tolist() == [0, 1]
    market = started(made := HawkesFlow(2, out, seed_bank(parameters)))
    run(made, market, 256, 64)


def test_a_day_without_enough_in_it_is_one_sentence(bundled, tmp_path, capsys):
    save_day(tmp_path / "day.npz", first_records(bundled, bundled.opening + 90))
    assert cli.main(["fit", "hawkes", "--data", str(tmp_path / "day.npz"), "--out", str(tmp_path / "x.json")]) == 2
    assert "background events in its training part" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
