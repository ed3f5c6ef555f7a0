"""What a classifier learns of markets whose rule is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from hand_path import add, path_of
from small_tradefm import generated_day, write_checkpoint

from tradefm_gym import cli
from tradefm_gym.realism import memorisation, tokenizer_drift, trained_on
from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.model_tables import QUANTITIES, model_tables
from tradefm_gym.realism.probe_tables import of_a_probe
from tradefm_gym.realism.probes import PROBES, chosen
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.rows import Rows
from tradefm_gym.realism.sections import Subject

MODELS = ("memorisation", "code_length", "tokenizer_drift", "trained_on")


def market(seed, sense, events=3_000):
    """A path whose mid moves every fourth event, mostly to where ``sense`` times the imbalance points."""
    random = np.random.default_rng(seed)
    heavy = np.repeat(random.choice([-1, 1], events // 4), 4)
    steps = np.where(random.random(events // 4) < 0.8, 1, -1) * sense * heavy[::4]
    bid = 10_000 + np.concatenate([[0], np.cumsum(steps)[:-1]]).repeat(4)
    path = path_of(
        [add(1, 5_000, i) for i in range(events)], [(b, b + 2) for b in bid.tolist()], start=(10_000, 10_002)
    )
    book = path.book.copy()
    book[:, :, 1], book[:, :, 3] = np.where(heavy > 0, 20, 80)[:, None], np.where(heavy > 0, 80, 20)[:, None]
    return replace(path, book=book)


def told(taught, tested):
    real = trained_on.examples([market(0, 1)])
    rows = trained_on.trained_rows(taught, real, tested, 1)
    return {row["metric"]: row for row in rows}


def test_an_example_is_an_event_and_the_next_change_of_the_mid():
    path = path_of(
        [add(1, 500, i) for i in range(6)], [(99, 101), (99, 101), (100, 102), (98, 100), (98, 100), (98, 100)]
    )
    found = trained_on.examples([path])
    assert found.rises.tolist() == [True, True, False]  # after the last change nothing is known
    assert len(found.features) == 3 and np.isfinite(found.features).all()
    assert len(trained_on.examples([path], skipped=2).rises) == 1
    assert len(trained_on.examples([path], skipped=10).rises) == 0


def test_what_is_learned_from_a_like_market_is_worth_as_much_and_from_its_opposite_nothing():
    tested = trained_on.examples([market(1, 1)])
    like = told(trained_on.examples([market(2, 1)]), tested)
    assert like["auc"]["low"] > 0.7 and like["auc_less_real"]["value"] == pytest.approx(0, abs=0.02)
    assert like["accuracy"]["value"] > 0.75
    opposite = told(trained_on.examples([market(3, -1)]), tested)
    assert opposite["auc"]["high"] < 0.3 and opposite["auc_less_real"]["high"] < -0.4


def test_nothing_is_said_where_an_answer_is_too_rare():
    tested = trained_on.examples([market(1, 1)])
    assert not told(trained_on.examples([market(2, 1, events=100)]), tested)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A subject whose flow is a checkpoint of random weights."""
    folder = write_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    recorded = generated_day(6_000)
    one = RecordedSet("day", lambda: recorded, "0")
    paths = lambda: [one.path.between(100, 600), one.path.between(600, 1_000)]  # noqa: E731
    return Subject(
        "day", f"tradefm:{folder}", Measured(seeds=2), Measured(), replicates=20, recorded=one,
        make_flow=lambda markets: pytest.fail("these probes roll nothing out"), paths=paths, agents=2,
    )  # fmt: skip


def test_the_probes_of_models_run_and_are_shown(small):
    assert chosen(MODELS) == MODELS
    train = replace(small, paths=lambda: [small.recorded.path.between(*small.recorded.part("train"))])
    rows = [row for name in MODELS[:3] for row in PROBES[name](small)] + PROBES[MODELS[3]](train)
    assert all(of_a_probe(row) and np.isfinite(row.value) for row in rows)
    assert len({(row.quantity, row.metric) for row in rows}) == len(rows)
    titles = [table.title for table in model_tables(Rows(rows), "day", [small.arm]) if table.lines]
    assert titles == [
        "Longest matches with recorded orders", "Extraction of recorded orders", "Membership of the training part",
        "Code length", "Ageing of the tokenizer", "Train on synthetic, test on real",
    ]  # fmt: skip
    found = {(row.quantity, row.metric): row.value for row in rows}
    # What was "generated" lies in the training part.
    assert found["longest_match", "largest_all_train"] > 100
    assert found["extraction_train", "sampled_4"] < 1e-9  # by random weights
    parts = sum(found["code_length", name] for name in ("token", "price", "size", "time"))
    assert found["code_length", "raw"] == pytest.approx(parts, rel=1e-6)
    assert found["tokenizer_quarter_2", "rolling_less_frozen"] == 0.0  # both were made of the first quarter
    for number in (2, 3, 4):
        name = f"tokenizer_quarter_{number}"
        assert found[name, "rolling_less_shipped"] == pytest.approx(
            found[name, "rolling_raw"] - found[name, "shipped_raw"], abs=1e-9
        )
    assert {row.quantity for row in rows if row.quantity.startswith("tokenizer")} == {
        f"tokenizer_quarter_{n + 1}" for n in range(tokenizer_drift.QUARTERS)
    }


def test_other_flows_have_matches_but_no_likelihood(small):
    other = replace(small, arm="hawkes")
    rows = PROBES["memorisation"](other)
    assert {row.quantity for row in rows} == {"longest_match"}
    assert PROBES["code_length"](other) == PROBES["tokenizer_drift"](other) == []


def test_the_record_itself_teaches_but_is_no_flow(small):
    assert PROBES["trained_on"](replace(small, arm="real")) == []
    day = replace(
        small, arm="drift", make_flow=None, paths=lambda: [small.recorded.path.between(*small.recorded.part("train"))]
    )
    rows = {row.metric: row for row in PROBES["trained_on"](day)}
    assert rows["auc_less_real"].value == 0.0 and rows["auc_less_real"].high == 0.0


def test_every_quantity_of_a_prefix_has_its_place():
    assert {f"{memorisation.CHAIN}code_length", "code_length", "tokenizer_quarter_", "next_change_after"} <= set(
        QUANTITIES
    )


def test_a_simulated_folder_is_a_day_to_learn_from(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "examples"))
    import train_on_synthetic

    folders = [tmp_path / name for name in ("real", "simulated")]
    for seed, folder in enumerate(folders):
        options = ["--flow", "zero_intelligence", "--events", "6000", "--seed", str(seed), "--out", str(folder)]
        assert cli.main(["simulate", *options]) == 0
    found = train_on_synthetic.compared(train_on_synthetic.Arguments(folders[0], (folders[1],)))
    assert [name for name, _ in found] == ["real, training part", "simulated"]
    for _, rows in found:
        assert set(rows) == set(train_on_synthetic.METRICS)
    assert found[0][1]["auc_less_real"]["value"] == 0.0
    # Both are of one flow, so either teaches the same.
    assert abs(found[1][1]["auc_less_real"]["value"]) < 0.1
