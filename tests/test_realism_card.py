"""The realism card: its verdicts on good and broken flows, and what they rest on."""

import ast
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from broken_day import doubled_sizes, halved_spread, shuffled_waits
from small_day import beginning

from tradefm_gym.cli_realism import print_card
from tradefm_gym.data.splits import calibrate, split
from tradefm_gym.flow.recorded_starts import scale_of
from tradefm_gym.market.events import PRINT
from tradefm_gym.realism import card as cards
from tradefm_gym.realism.card import Card, CardMaker
from tradefm_gym.realism.forecasts import outcomes
from tradefm_gym.realism.measured import STRETCHES, Measured, fills_by_window, measure
from tradefm_gym.realism.part_files import hash_of_files, read_rows
from tradefm_gym.realism.path import recorded_path
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.round_trip import RoundTripFlow
from tradefm_gym.realism.rows import Row, Rows
from tradefm_gym.realism.sections import (
    COLUMN_NAMES,
    SECTIONS,
    Subject,
    discriminator,
    fills,
    forecasts,
    rollout_drift,
    stylised_facts,
)
from tradefm_gym.realism.verdict import judged, overall

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
pytestmark = pytest.mark.skipif(not JIT, reason="whole days")

PIECE = 1_000  # events
JUDGED = ("distances", "conditional_distances", "rollout_drift", "health")


@pytest.fixture(scope="module")
def path():
    day = beginning(72_000)
    return recorded_path(day, scale_of(calibrate(day)))


@pytest.fixture(scope="module")
def thirds(path):
    """Pieces of one day, dealt in turn: what is recorded, what is generated, and the training part."""
    pieces = [path.between(i, i + PIECE) for i in range(0, len(path) - PIECE, PIECE)]
    return [pieces[i::3] for i in range(3)]


@pytest.fixture(scope="module")
def record(thirds):
    """What was recorded, and the rows of what needs no flow."""
    real = measure(thirds[0])
    arms = {"real": real, "floor": Measured(), "drift": measure(thirds[2])}
    return real, [row for name, measured in arms.items() for row in rows_of(real, name, measured)]


def rows_of(real, arm, measured):
    subject = Subject("day", arm, measured, real, replicates=20)
    return [row for name in JUDGED for row in SECTIONS[name](subject)]


def rows_with(record, generated):
    """All rows, with ``generated`` as a flow."""
    real, rows = record
    return rows + rows_of(real, "flow", measure(generated, quarters=True))


def failures(rows):
    return {found.rule for one in judged(rows, "day", "flow") for found in one.findings if found.outcome == "fails"}


def test_a_perfect_market_passes(record, thirds):
    rows = rows_with(record, thirds[1])
    assert failures(rows) == set()
    execution, _ = judged(rows, "day", "flow")
    assert (execution.fit, execution.why) == ("not shown", "attacks that pay: not measured")
    rows.append(Row("day", "exploit_pump", "paid", "flow", 0.0, n=200, seeds=200))
    execution, making = judged(rows, "day", "flow")
    assert (execution.use, execution.fit) == ("execution", "fit")
    # Pieces as short as these have no returns, and nobody forecast anything.
    assert execution.why.startswith("no rule fails; nothing is said by: taker size, log return 1s, ")
    assert "forecasts of return 256 events against Hawkes flow" in execution.why
    assert making.fit == "not shown" and "markout" in making.why
    said, why = overall([execution, making], "flow")
    assert (
        said == "flow is fit to train execution."
        and why == "For market making it is not shown, for want of: markout of passive fills."
    )


def forecast_from(paths, starts, seed, members=32):
    """An arm whose every forecast is drawn from what the paths did from some moment on, and that meets ``starts``."""
    drawn = np.random.default_rng(seed).integers(0, len(paths), (len(starts), members))
    truth = np.array([outcomes(one) for one in starts])
    blocks = np.repeat(np.arange(len(starts))[:, None] * 8 // len(starts), len(COLUMN_NAMES), axis=1)
    ensemble = np.array([outcomes(one) for one in paths])[drawn]
    return Measured(ensemble=ensemble, truth=truth, blocks=blocks, seeds=len(paths))


def test_forecasts_of_a_perfect_market_are_honest_and_as_good_as_any(path):
    """Truths and members are of one day in turn: ranks are even, and a reference that is not like it is worse."""
    pieces = [path.between(i, i + 256) for i in range(6_000, len(path) - 256, 256)]
    real, mine = pieces[::2][:120], pieces[1::2]
    broken = [halved_spread(doubled_sizes(path)) for path in pieces[1::2]]
    arm, reference = forecast_from(mine, real, 0), forecast_from(broken, real, 1)
    told = {}
    for name, measured, other in (("flow", arm, reference), ("broken", reference, arm)):
        for row in forecasts(Subject("day", name, measured, Measured(), reference=other)):
            told[name, row.quantity, row.metric] = row
    for quantity in ("mean_spread_256_events", "volume_256_events", "volume_10s"):
        assert told["flow", quantity, "crps_skill"].low > 0 > told["broken", quantity, "crps_skill"].high
        assert told["broken", quantity, "rank_p"].value < 1e-3
    p_values = [row.value for (name, _, metric), row in told.items() if (name, metric) == ("flow", "rank_p")]
    assert len(p_values) == len(COLUMN_NAMES) and min(p_values) > 0.01 / len(p_values)
    skill_rules = {
        name: {rule for rule in failures([replace(row, arm="flow") for (arm, *_), row in told.items() if arm == name])
               if rule.startswith("forecasts")}
        for name in ("flow", "broken")
    }  # fmt: skip
    assert skill_rules["flow"] == set()
    assert {f"forecasts of {one} against Hawkes flow" for one in ("volume 10s", "mean spread 256 events")} <= (
        skill_rules["broken"]
    )


def test_a_classifier_does_not_tell_a_perfect_market_from_the_record(thirds):
    real, mine, broken = (measure(paths[:10]) for paths in (*thirds[:2], [doubled_sizes(path) for path in thirds[1]]))
    (row,) = discriminator(Subject("day", "flow", mine, real, replicates=20))
    assert row.metric == "auc" and row.low < 0.55 and row.value < 0.6
    (row,) = discriminator(Subject("day", "flow", broken, real, replicates=20))
    assert row.low > 0.7


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (shuffled_waits, "inter arrival given the one before"),
        (shuffled_waits, "relative duration"),
        (doubled_sizes, "order size"),
        (halved_spread, "spread"),
    ],
)
def test_a_broken_market_is_noticed(record, thirds, broken, noticed):
    rows = rows_with(record, [broken(path) for path in thirds[1]])
    assert noticed in failures(rows)
    assert judged(rows, "day", "flow")[1].fit == "not fit"


def test_a_dead_market_is_noticed(record, thirds):
    dead = [replace(path, book=path.book * (np.arange(len(path)) % 20 > 0)[:, None, None]) for path in thirds[1]]
    assert "life of the market" in failures(rows_with(record, dead))


@pytest.mark.parametrize(
    ("flows", "called"),
    [
        (
            ["tradefm:a/one", "hawkes:b/h.json", "zero_intelligence"],
            ["tradefm:one", "hawkes:h.json", "zero_intelligence"],
        ),
        (["tradefm:a/one", "hawkes:b/h.json", "tradefm:c/one"], ["tradefm:a/one", "hawkes:h.json", "tradefm:c/one"]),
    ],
)
def test_flows_are_called_by_the_end_of_their_path(flows, called):
    rows = [Row("day", "spread", "ks", arm, 0.1) for arm in ("floor", *flows)]
    verdicts = [one for spec in flows for one in judged(rows, "day", spec)]
    told = Card(rows, verdicts, {}, ["day"], flows, flows[1], {("day", flows[1]): Measured()}).labelled()
    assert told.flows == called and told.reference == called[1] and list(told.measured) == [("day", called[1])]
    assert [row.arm for row in told.rows] == ["floor", *called]
    assert [said for said, _ in told.summary.values()] == [
        f"{name} is not shown to be fit to train anything." for name in called
    ]


def test_rows_survive_json():
    row = Row("day", "spread", "ks", "flow", 0.25, n=3)
    state = json.loads(json.dumps(row.to_json(), allow_nan=False))
    assert list(state) == ["set", "quantity", "metric", "arm", "value", "low", "high", "n", "seeds"]
    assert state["low"] is None
    back = Row.from_json(state)
    assert (back.value, back.n, np.isnan(back.low)) == (0.25, 3, True)


def test_what_was_measured_survives_its_file(thirds, tmp_path):
    measured = measure(thirds[0][:2], quarters=True)
    measured.ensemble, measured.truth = np.ones((2, 3, 4)), np.ones((2, 4))
    measured.save(tmp_path / "a.npz", "key")
    assert Measured.load(tmp_path / "a.npz", "another") is None and Measured.load(tmp_path / "b.npz", "key") is None
    back = Measured.load(tmp_path / "a.npz", "key")
    assert back is not None and back.seeds == 2
    for name in ("samples", "first", "last", "along"):
        mine, theirs = getattr(measured, name), getattr(back, name)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[key].values, theirs[key].values) for key in mine)
        assert all(np.array_equal(mine[key].block, theirs[key].block) for key in mine)
    for key, pair in measured.given.items():
        assert all(np.array_equal(x.values, y.values) for x, y in zip(pair, back.given[key], strict=True))
    for name in ("returns", "volumes", "signs"):
        mine, theirs = getattr(measured, name), getattr(back, name)
        assert len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))
    assert np.array_equal(back.windows[0], measured.windows[0], equal_nan=True)
    assert np.array_equal(back.ensemble, measured.ensemble) and np.array_equal(back.fills, measured.fills)


def test_damaged_part_files_are_none(thirds, tmp_path):
    file = tmp_path / "a.npz"
    measure(thirds[0][:1], quarters=True).save(file, "key")
    whole = file.read_bytes()
    assert Measured.load(file, "key") is not None
    for damaged in (b"", b"PK half a file", whole[: len(whole) // 2], whole[:-1]):
        file.write_bytes(damaged)
        assert Measured.load(file, "key") is None
    for at in np.linspace(40, len(whole) - 60, 60).astype(int).tolist():
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        Measured.load(file, "key")  # raises nothing; a few bytes say nothing that is read
    file.write_bytes(whole)
    with np.load(file) as archive:
        columns = {name: archive[name] for name in archive.files}
    for name in ("seeds", "ensemble", "blocks", "samples/spread/block", "given/touch_depth|spread/y/values"):
        np.savez(file, **{one: column for one, column in columns.items() if one != name})
        assert Measured.load(file, "key") is None
    rows = tmp_path / "rows.json"
    for damaged in (b"", b"\xff\xfe", b"[]", b'{"key": "key"}', b'{"key": "key", "rows": [{"set": 1}]}'):
        rows.write_bytes(damaged)
        assert read_rows(rows, "key") is None


def test_code_that_decides_what_is_measured_is_part_of_the_keys(tmp_path):
    """All realism modules that those listed import are listed; ``distances`` only holds their samples."""
    folder, listed = Path(cards.__file__).parent, set(cards._MODULES)
    for name in listed:
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tradefm_gym.realism."):
                assert (node.module or "").rpartition(".")[2] in {*listed, "distances"}
    files = [tmp_path / name for name in ("a.py", "b.py")]
    for file in files:
        file.write_text("x = 1\n")
    before = hash_of_files(files)
    files[1].write_text("x = 2\n")
    assert hash_of_files(files) != before and cards.code_of_arms() == cards.code_of_arms()


def test_drift_is_the_training_part_and_real_the_test_part(tmp_path):
    day = beginning(24_000)
    one, parts = RecordedSet("day", lambda: day, "x"), split(day)
    maker = CardMaker([one], ["zero_intelligence"], tmp_path)
    time = day.records["time_ns"]
    for arm, part in (("drift", parts.train), ("real", parts.test), ("real_stretches", parts.test)):
        paths = maker._paths(one, arm)
        assert min(path.records["time_ns"][0] for path in paths) >= time[part.start]
        assert max(path.records["time_ns"][-1] for path in paths) <= time[part.stop - 1]
    (drift,) = maker._paths(one, "drift")
    assert len(drift) == (day.records["kind"][parts.train.start : parts.train.stop] != PRINT).sum()


def test_returns_are_told_only_where_most_paths_hold_them(path):
    long = [path.between(first, first + 6_000) for first in range(0, 60_000, 6_000)]
    short = [one.between(0, 20) for one in long]
    assert "log_return_1s" in measure(long).samples
    assert "log_return_1s" not in measure([*long[:2], *short[2:]]).samples


def test_fills_are_counted_in_whole_windows(thirds):
    path = thirds[0][0]
    counted = fills_by_window(path)
    assert counted.shape == (PIECE // 64, 2)
    whole = path.between(0, 64 * (PIECE // 64))
    assert counted[:, 0].sum() == len(whole.fills)
    assert counted[:, 1].sum() == pytest.approx(whole.fills["size"].sum() / float(path.scale["median_size"]))


def test_equal_fills_correlate_fully(thirds):
    real = measure(thirds[0])
    rows = fills(Subject("day", "round_trip", real, real, real))
    figures = {(row.quantity, row.metric): row.value for row in rows}
    nothing = [figures.pop((name, "distribution_correlation_of_none")) for name in {name for name, _ in figures}]
    assert len(figures) == 8 and all(value == pytest.approx(1) for value in figures.values())
    assert len(nothing) == 2 and max(nothing) < 0.99
    assert fills(Subject("day", "flow", real, real, real)) == []


def test_distances_are_told_as_rollouts_go_on(path):
    """Spreads of the generated market gape from event 256 on."""
    long = [path.between(first, first + 1_500) for first in range(6_000, len(path) - 1_500, 1_500)]
    real, generated = measure(long[::2]), []
    for one in long[1::2]:
        book = one.book.copy()
        book[256:, 0, 0] += 1_000
        generated.append(replace(one, book=book))
    mine = measure(generated, quarters=True)
    assert [len(mine.along[f"spread|{stretch}"].values) for stretch in STRETCHES] == [
        sum(one.two_sided[first:last].sum() for one in generated) for first, last in STRETCHES.values()
    ]  # fmt: skip
    rows = Rows(rollout_drift(Subject("day", "flow", mine, real, replicates=20)))
    spread, sizes = (
        [rows.get("day", name, f"ks_{one}", "flow") for one in STRETCHES] for name in ("spread", "order_size")
    )
    assert spread[0].high < 0.5 and [row.value for row in spread[1:]] == pytest.approx([1, 1])
    assert all(row.value < 0.2 and row.n == len(real.samples["order_size"].values) for row in sizes)
    short = measure([one.between(0, 200) for one in long], quarters=True)
    assert {name.partition("|")[2] for name in short.along} == {"events_0_to_256"}
    assert not measure(long[:1]).along


def test_facts_that_the_record_lacks_are_not_counted(capsys):
    page = pytest.importorskip("tradefm_gym.realism.page", exc_type=ImportError)
    random = np.random.default_rng(0)
    still = np.append(np.zeros(950), random.normal(size=20)) * 3.0  # the largest 5% begin at 0
    real, mine = (Measured(returns=[values], volumes=[np.ones(len(values))]) for values in (still, 2 * still))
    rows = stylised_facts(Subject("day", "flow", mine, real, replicates=20))
    found = {row.quantity: row.value for row in rows if row.metric == "agrees"}
    assert np.isnan(found.pop("heavy_tails")) and len(found) == 3 and np.isfinite(list(found.values())).all()
    agreed = f"{sum(found.values()):.0f} of 3"
    print_card(Card(rows, [], {}, ["day"], ["flow"], None))
    assert next(line for line in capsys.readouterr().out.splitlines() if "stylised facts" in line).count(agreed) == 1
    table = page._facts(Rows(rows), "day", ["flow"])
    assert table.count("<td>-</td>") == 1 and table.count("yes") + table.count("no<") == 3


def test_recorded_tokens_take_the_place_of_the_networks():
    day = beginning(24_000)
    one = RecordedSet("day", lambda: day, "x")
    start = one.stretches()[:1]
    (path,) = one.round_trip("mini-1")[:1]
    flow = RoundTripFlow("mini-1", day, one.positions[start], 1)
    from tradefm_gym.market.simulator import MarketSimulator

    market = MarketSimulator(1, flow.market_config())
    everyone = np.ones(1, bool)
    flow.reset(market, everyone, np.zeros(1, np.int64), np.zeros(1, np.uint64), np.zeros(1, np.uint32))
    seen = int(market.tape.record_count[0])
    for count in range(200):
        target = market.background_count + 1
        while market.advance(until_count=target).any():
            market.feed(flow.next_events(market, everyone))
        assert int(market.tape.record_count[0]) == seen + count + 1
    made, real = market.tape.read_records(0, seen), one.path.records[start[0] : start[0] + 200]
    assert np.array_equal(made["side"], real["side"]) and np.array_equal(made["kind"], real["kind"])
    assert 0 < len(path) <= 1024
