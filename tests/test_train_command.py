"""The command that trains: from days or shards to a checkpoint that plays."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_day import beginning

pytest.importorskip("torch")

from tradefm_gym import cli, modelling
from tradefm_gym.cli_model import TrainModel
from tradefm_gym.data.day import save_day
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.model.config import PRESETS, load_weights
from tradefm_gym.model.training_config import DROPOUTS, RECIPES

QUICK = ["--preset", "test", "--batch", "4", "--minimum-events", "0", "--no-progress"]


def command(data, out, *more):
    return cli.main(["train", "model", "--data", str(data), "--out", str(out), *QUICK, *more])


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    path = tmp_path_factory.mktemp("days") / "short.npz"
    save_day(path, beginning(4_000))
    return path


@pytest.fixture(scope="module")
def trained(day, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert command(day, out, "--steps", "6", "--save-every", "3") == 0
    return out


def test_a_checkpoint_is_complete_and_plays(trained):
    names = ["README.md", "config.json", "model.safetensors", "scores.json", "tokenizer.json", "training.safetensors"]
    assert sorted(path.name for path in trained.iterdir()) == names
    assert [path.name for path in trained.parent.iterdir()] == ["mine"]  # the day's shards are gone
    assert make_flow(f"tradefm:{trained}", 1).name.startswith("tradefm:mine@")
    card, scores = (trained / "README.md").read_text(), json.loads((trained / "scores.json").read_text())
    assert "| short | SYNTH, TradeFM, generated |" in card and "Steps 6 (kept: step 6" in card
    assert {"model", "unigram", "copy-previous", "markov", "markov (own set)", "events"} == set(scores["short"])
    assert f"| short | {scores['short']['model']:.3f} |" in card


def test_shards_train_what_days_do(day, trained, tmp_path):
    shards = tmp_path / "shards"
    assert cli.main(["data", "tokenize", str(day), "--out", str(shards), "--minimum-events", "0"]) == 0
    assert command(shards, tmp_path / "mine", "--steps", "6", "--save-every", "3") == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json", "scores.json"):
        assert (tmp_path / "mine" / name).read_bytes() == (trained / name).read_bytes()


def test_of_many_sets_all_are_scored_as_one(day, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(modelling, "_MOST_SETS", 0)
    monkeypatch.setattr(modelling, "_MOST_EVENTS", 0)
    with modelling.shards_of(day, tmp_path / "x") as shards:
        table = modelling.scores(shards, load_weights(trained)[0], trained)
    assert list(table) == ["all"] and list(table["all"]) == ["model"]


def test_a_run_goes_on_and_another_is_refused(day, trained, tmp_path, capsys):
    assert command(day, trained, "--steps", "6", "--save-every", "3") == 0
    capsys.readouterr()
    for more, said in (
        (["--steps", "7"], "steps is 7 but the run in"),
        (["--steps", "6", "--mid", "vwap"], "is not the tokenizer of the data"),
        (["--steps", "6", "--no-pressure"], "is not the tokenizer of the data"),
    ):
        before = {path: path.read_bytes() for path in trained.iterdir()}
        assert command(day, trained, *more) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert before == {path: path.read_bytes() for path in trained.iterdir()}


def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, capsys):
    for data, said in ((tmp_path / "nothing", "nothing"), (tmp_path, "must be recorded days")):
        assert command(data, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_several_processes_want_shards(day, tmp_path, capsys, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert command(day, tmp_path / "out") == 2
    assert "several processes train on shards" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_its_settings(preset):
    settings = TrainModel(preset=preset).settings()  # type: ignore[arg-type]
    assert replace(settings, resume=True, progress=True) == RECIPES[preset]
    assert settings.batch % (settings.micro_batch or settings.batch) == 0
    changed = TrainModel(preset=preset, steps=7, compile=False, fresh=True).settings("cuda")  # type: ignore[arg-type]
    assert (changed.steps, changed.compile, changed.resume, changed.device) == (7, False, False, "cuda")
    assert set(DROPOUTS) <= set(PRESETS)


def test_the_example_trains_on_the_bundled_day(tmp_path):
    script = Path(__file__).parents[1] / "examples" / "train_tradefm.py"
    more = ["--preset", "test", "--steps", "2", "--evaluate-every", "2", "--no-progress"]
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, str(script), *more], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "155,833 training events" in done.stdout and "runs/test: " in done.stdout
    assert (tmp_path / "runs" / "test" / "README.md").is_file()
