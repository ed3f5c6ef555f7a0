"""The command that makes a realism card."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")

from small_day import beginning

from tradefm_gym import cli
from tradefm_gym.cli_reading import Reading
from tradefm_gym.cli_realism import Realism
from tradefm_gym.data.day import save_day
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.flow.zero_intelligence_parameters import ZeroIntelligenceParameters
from tradefm_gym.realism import card as cards
from tradefm_gym.realism.card import Card, CardMaker, Effort
from tradefm_gym.realism.measured import Measured
from tradefm_gym.realism.probes import PROBES
from tradefm_gym.realism.recorded_set import RecordedSet

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0")
pytestmark = pytest.mark.skipif(not JIT, reason="whole days")

SMALL = Effort(starts=3, rollouts=3, seeds=2, events=256, replicates=20)


@pytest.fixture(scope="module")
def small_day(tmp_path_factory):
    path = tmp_path_factory.mktemp("day") / "small.npz"
    save_day(path, beginning(48_000))
    return path


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parameters")
    ZeroIntelligenceParameters.fit(beginning(48_000)).save(folder / "zero.json")
    return f"hawkes:{BUNDLED_DAY.parents[1] / 'parameters' / 'hawkes.json'},zero_intelligence:{folder / 'zero.json'}"


def command(small_day, flows, out, *more):
    effort = ["--starts", "3", "--rollouts", "3", "--seeds", "2", "--events", "256", "--quick"]
    return cli.main(["realism", "--data", str(small_day), "--flow", flows, "--out", str(out), *effort, *more])


def test_the_command_makes_a_card_and_goes_on_where_it_was(small_day, parameters, tmp_path, capsys, monkeypatch):
    pytest.importorskip("plotly")
    assert command(small_day, parameters, tmp_path) == 0
    said = capsys.readouterr().out
    assert "K-S distance from the test part" in said and "Verdict" in said and "market making" in said
    card = json.loads((tmp_path / "card.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {"format", "arguments", "hardware", "versions", "sets", "flows", "reference", "rows", "verdicts",
            "summary"} <= card.keys()  # fmt: skip
    assert {tuple(row) for row in card["rows"]} == {
        ("set", "quantity", "metric", "arm", "value", "low", "high", "n", "seeds")
    }
    assert {row["arm"] for row in card["rows"]} == {
        "real", "drift", "floor", "replayed", "round_trip", *card["flows"],
    }  # fmt: skip
    assert card["reference"].startswith("hawkes:")
    replayed = [row["value"] for row in card["rows"] if (row["arm"], row["metric"]) == ("replayed", "ks")]
    assert max(replayed) < 1e-9  # the day is known by ids
    page = (tmp_path / "card.html").read_text()
    assert "fit to train neither" in page and "floor" in page and "<code>drift</code>" in page
    assert page.count("<script>/**") == 1 and 'src="http' not in page and "<link" not in page
    rolled = []
    monkeypatch.setattr(CardMaker, "_rolled", lambda self, one, spec: rolled.append(spec) or Measured())
    monkeypatch.setattr(CardMaker, "_recorded", lambda self, one, name: rolled.append(name) or Measured())
    capsys.readouterr()
    assert command(small_day, parameters, tmp_path, "--json") == 0
    assert rolled == []
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == card["rows"]


def test_only_what_has_changed_is_made_again(small_day, parameters, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(CardMaker, "_check_sets", lambda self: None)
    monkeypatch.setattr(CardMaker, "_rolled", lambda self, one, spec: made.append(spec) or Measured())
    monkeypatch.setattr(CardMaker, "_recorded", lambda self, one, name: made.append(name) or Measured())
    zero = parameters.split(",")[1]

    def run(effort=SMALL, digest="x"):
        made.clear()
        made_again = CardMaker([RecordedSet("day", lambda: pytest.fail("read"), digest)], [zero], tmp_path, effort)
        assert isinstance(made_again.run(), Card)
        return list(made)

    recorded = ["real", "real_stretches", "drift", "replayed", "round_trip"]
    assert run() == [*recorded, zero]
    assert run() == []
    assert run(replace(SMALL, seeds=3)) == [zero]
    assert run(replace(SMALL, seeds=3), "y") == [*recorded, zero]
    (tmp_path / "parts" / "day" / "drift.measured.npz").write_bytes(b"broken")
    assert run(replace(SMALL, seeds=3), "y") == ["drift"]
    (tmp_path / "parts" / "day" / "real.measured.npz").write_bytes(b"")
    assert run(replace(SMALL, seeds=3), "y") == ["real"]
    monkeypatch.setattr(cards, "code_of_arms", lambda: "code of another version")
    assert run(replace(SMALL, seeds=3), "y") == [*recorded, zero]
    assert run(replace(SMALL, seeds=3), "y") == []


def test_probes_are_run_again_with_other_code(tmp_path, monkeypatch, parameters):
    asked = []
    monkeypatch.setitem(PROBES, "trained_on", lambda subject: asked.append(subject.arm) or [])
    for name in ("_rolled", "_recorded"):
        monkeypatch.setattr(CardMaker, name, lambda *_: Measured())
    monkeypatch.setattr(CardMaker, "_check_sets", lambda self: None)
    one, flows = RecordedSet("day", lambda: pytest.fail("read"), "x"), [parameters.split(",")[1]]

    def run():
        asked.clear()
        CardMaker([one], flows, tmp_path, SMALL, probes=["trained_on"]).run()
        return len(asked)

    assert (run(), run()) == (3, 0)
    monkeypatch.setattr(cards, "code_of_arms", lambda: "code of another version")
    assert (run(), run()) == (3, 0)


def test_folds_are_shown_and_pooled_but_not_judged(parameters, tmp_path, capsys):
    pytest.importorskip("plotly")
    save_day(tmp_path / "day.npz", beginning(60_000))
    assert command(tmp_path / "day.npz", parameters, tmp_path, "--folds", "2", "--starts", "8") == 0
    said = capsys.readouterr().out
    names = ["day", "day-fold1of2", "day-fold2of2"]
    for name in names:
        assert f"{name}: K-S distance from the test part" in said
    assert "day-folds: CRPS skill over" in said and "pooled: CRPS skill" not in said
    verdicts = said[said.index("Verdict") :]
    assert "not fit" in verdicts and "day-fold" not in verdicts
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["sets"] == names and {one["set"] for one in card["verdicts"]} == {"day"}
    page = (tmp_path / "card.html").read_text()
    assert 'id="day-fold2of2"' in page and "<h3>day-folds</h3>" in page


def test_probes_are_run_when_asked_for_and_kept(small_day, parameters, tmp_path, capsys, monkeypatch):
    pytest.importorskip("plotly")
    zero = parameters.split(",")[1]
    asked = ("--probes", "reaction,markouts,exploits,impact")
    assert command(small_day, zero, tmp_path, *asked) == 0
    said = capsys.readouterr().out
    for title in (
        "after takers",
        "Markout of passive fills",
        "Chance of a fill",
        "Scripted attacks",
        "Impact of parent",
    ):
        assert title in said and title in (tmp_path / "card.html").read_text()
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["arguments"]["probes"] == asked[1]
    names = {(row["quantity"], row["arm"]) for row in card["rows"]}
    for quantity in ("mid_response_up_to_1", "markout_bps", "fill_probability_touch"):
        assert {(quantity, "real"), (quantity, "drift"), (quantity, zero), (f"agent_{quantity}", zero)} <= names
    assert {("exploit_pump", zero), ("impact_against_size", zero), ("markout", zero)} <= names
    for name in PROBES:
        monkeypatch.setitem(PROBES, name, lambda subject: pytest.fail("asked again"))
    assert command(small_day, zero, tmp_path, *asked, "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == card["rows"]
    assert command(small_day, zero, tmp_path, "--json") == 0
    plain = json.loads(capsys.readouterr().out)
    assert not any(row["quantity"].startswith(("exploit", "markout")) for row in plain["rows"])
    assert all(one["fit"] != "fit" for one in plain["verdicts"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--flow", "replay"], "flow 'replay' cannot go on from a recorded day; allowed are tradefm, hawkes"),
        (["--flow", "hawkes,hawkes"], "it must name at least one, and none twice"),
        (["--flow", "hawkes:nowhere.json"], "names 'nowhere.json', which is no file"),
        (["--flow", "tradefm:nowhere"], "or a checkpoint folder, got 'nowhere'"),
        (["--flow", "hawkes", "--model", "folder"], "it must then name tradefm"),
        (["--starts", "1"], "starts is 1; it must be an integer of at least 2"),
        (["--events", "64"], "events is 64; it must be an integer of at least 128"),
        (["--probes", "impact,pump"], "probes names 'pump'; allowed are reaction, markouts, exploits, impact"),
        (["--folds", "-1"], "folds is -1; it must be an integer from 0 to 20"),
        (["--data", "nowhere"], "data 'nowhere' does not exist"),
    ],
)
def test_mistakes_are_one_sentence(small_day, tmp_path, capsys, arguments, said):
    pytest.importorskip("plotly")
    data = [] if "--data" in arguments else ["--data", str(small_day)]
    assert cli.main(["realism", *data, *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("tradefm-gym: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_interrupted_card_says_that_it_can_go_on(small_day, parameters, tmp_path, capsys, monkeypatch):
    pytest.importorskip("plotly")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CardMaker, "_recorded", interrupted)
    assert command(small_day, parameters, tmp_path / "out") == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("tradefm-gym: interrupted: what was computed is kept in ")
    assert error.endswith("and the same command goes on from there") and str(tmp_path / "out") in error


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("tradefm,hawkes", "tradefm:here,hawkes"),
        ("tradefm?habits=false", "tradefm:here?habits=false"),
        (
            "tradefm,tradefm:there,tradefm?anchor=background",
            "tradefm:here,tradefm:there,tradefm:here?anchor=background",
        ),
    ],
)
def test_a_model_stands_for_tradefm_with_options_or_without(asked, meant):
    made = Realism(data=(), reading=Reading(), flow=asked, model=Path("here"))
    assert made._flows() == meant.split(",")


def test_a_day_that_is_too_short_is_refused(tmp_path, capsys, parameters):
    pytest.importorskip("plotly")
    save_day(tmp_path / "short.npz", beginning(3_000))
    assert command(tmp_path / "short.npz", parameters, tmp_path / "out") == 2
    assert "events in its test part" in capsys.readouterr().err


def test_all_sets_are_looked_at_before_any_is_measured(parameters, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(CardMaker, "_measured", lambda self, one, name: measured.append(name) or Measured())
    sets = [RecordedSet(name, lambda n=n: beginning(n), name) for name, n in (("long", 48_000), ("short", 3_000))]
    with pytest.raises(ValueError, match=r"set 'short' has .* events in its test part"):
        CardMaker(sets, [parameters.split(",")[1]], tmp_path, SMALL).run()
    assert measured == []


def test_sets_that_were_measured_before_are_not_read_to_be_checked(parameters, tmp_path):
    maker = CardMaker(
        [RecordedSet("day", lambda: pytest.fail("read"), "x")], [parameters.split(",")[1]], tmp_path, SMALL
    )
    file = maker._part(maker.sets[0], "real_stretches", "measured.npz")
    Measured().save(file, maker._key(maker.sets[0], "real_stretches"))
    maker._check_sets()


@pytest.mark.parametrize("flow", ["hawkes", "zero_intelligence"])
def test_a_damaged_file_of_parameters_is_refused_before_a_day_is_read(flow, small_day, tmp_path, capsys):
    pytest.importorskip("plotly")
    (tmp_path / "bad.json").write_text('{"kind": ')
    assert command(small_day, f"zero_intelligence,{flow}:{tmp_path / 'bad.json'}", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "bad.json" in error and error.startswith("tradefm-gym: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folds_are_days_that_grow():
    one = RecordedSet("day", lambda: beginning(48_000), "x")
    folds = [one.fold(i, 2) for i in range(2)]
    assert [fold.name for fold in folds] == ["day-fold1of2", "day-fold2of2"]
    assert [fold.fold_of for fold in folds] == ["day", "day"]
    assert len({fold.digest for fold in folds}) == 2
    first, last = (fold.recorded for fold in folds)
    assert len(first) < len(last) == 48_000 and first.fills["time_ns"].max() <= first.records["time_ns"][-1]
