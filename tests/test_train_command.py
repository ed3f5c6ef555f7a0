"""The command that trains: from days or shards to a checkpoint that plays."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from small_day import beginning

pytest.importorskip("torch")

from tradefm_gym import cli, modelling
from tradefm_gym.cli_model import TrainModel
from tradefm_gym.data.day import save_day
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.model.config import PRESETS, load_weights
from tradefm_gym.model.shards import open_shards
from tradefm_gym.model.training_config import DROPOUTS, RECIPES
from tradefm_gym.tokenizing import write_shards

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


@pytest.fixture(scope="module")
def shards(day, tmp_path_factory):
    """Shards of the day, and others of the same tokenizer."""
    folder = tmp_path_factory.mktemp("shards")
    save_day(folder / "longer.npz", beginning(5_000))
    own = write_shards([day], folder / "own")
    write_shards([folder / "longer.npz"], folder / "other", own.tokenizer)
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "mine")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(capsys, said, *arguments):
    """Runs the command, which must change nothing and say why in one sentence."""
    before = contents(arguments[1]) if arguments[1].exists() else None
    capsys.readouterr()
    assert command(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert before == (contents(arguments[1]) if arguments[1].exists() else None)


def without_data(folder):
    """Makes a run's state one of before it said what its data are."""
    path = folder / "training.safetensors"
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    state = json.loads(metadata["state"])
    assert len(state.pop("data")) == 64
    save_file(load_file(path), path, metadata=metadata | {"state": json.dumps(state)})


def test_a_run_of_other_data_is_refused(shards, copied, capsys):
    settings = ["--steps", "6", "--save-every", "3"]
    refused(capsys, "is a run of other data; pass", shards / "other", copied, *settings)
    tokenizer = (copied / "tokenizer.json").read_bytes()
    (copied / "tokenizer.json").unlink()
    refused(capsys, "is a run of other data; pass", shards / "other", copied, *settings)
    assert command(shards / "own", copied, *settings) == 0
    assert (copied / "tokenizer.json").read_bytes() == tokenizer


def test_a_run_that_does_not_say_its_data_goes_on_with_its_tokenizer_only(shards, copied, capsys):
    settings = ["--steps", "6", "--save-every", "3"]
    without_data(copied)
    assert command(shards / "own", copied, *settings) == 0
    (copied / "tokenizer.json").unlink()
    refused(capsys, "does not say of what data it is", shards / "own", copied, *settings)


def test_the_digest_is_of_what_is_trained_on_and_not_of_where_it_lies(day, shards, tmp_path):
    own, other = open_shards(shards / "own"), open_shards(shards / "other")
    moved = open_shards(shutil.copytree(own.folder, tmp_path / "moved"))
    assert own.digest == moved.digest == write_shards([day], tmp_path / "again").digest != other.digest


def test_weights_without_a_run_do_not_get_another_tokenizer(day, copied, capsys):
    (copied / "training.safetensors").unlink()
    vwap = ["--steps", "2", "--mid", "vwap"]
    refused(capsys, "pass another folder or --fresh", day, copied, *vwap)
    assert command(day, copied, *vwap, "--fresh") == 0
    assert load_weights(copied)[0].width == PRESETS["test"].width
    assert json.loads((copied / "tokenizer.json").read_text())["mid"] == "vwap"


def test_a_fresh_run_that_is_killed_leaves_nothing_of_the_one_before(shards, copied, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tradefm_gym.model.training.TrainingRun.step", killed)
        assert command(shards / "own", copied, "--steps", "6", "--save-every", "3", "--fresh") == 130
    assert not (copied / "training.safetensors").exists()
    assert (copied / "model.safetensors").exists()  # the tokenizer is theirs


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    day, shards, copied, tmp_path, capsys, device
):
    for data, out in ((day, tmp_path / "new"), (shards / "own", copied)):
        refused(capsys, f"device is {device!r} (", data, out, "--steps", "6", "--device", device)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with modelling.shards_of(day, tmp_path / "x") as opened:
        config = modelling.network("test", opened.tokenizer)
        for change, said in (({"device": device}, "device is"), ({"resume": False, "device": device}, "device is")):
            before = contents(copied)
            with pytest.raises(ValueError, match=said):
                modelling.train_model(opened, config, copied, replace(RECIPES["test"], **change))
            assert contents(copied) == before


def test_a_batch_that_processes_cannot_share_is_refused_before_anything_is_written(
    shards, copied, tmp_path, capsys, monkeypatch
):
    def uneven(processes, batch):
        raise ValueError(f"batch is {batch}; allowed is a multiple of the 3 processes")

    monkeypatch.setattr("tradefm_gym.model.processes.Processes.windows_each", uneven)
    for out, more in ((tmp_path / "new", []), (copied, ["--fresh"])):
        refused(capsys, "batch is 4; allowed is a multiple", shards / "own", out, "--steps", "6", *more)


def test_numbers_that_cannot_be_trained_with_are_one_sentence(shards, tmp_path, capsys):
    for more, said in (
        (["--seed", "-1"], "seed is -1; allowed is an integer from 0 on"),
        (["--minimum-events", "-1"], "minimum_events is -1; it must be"),
        (["--mid", "foo"], "mid is 'foo'; it must be one of"),
        (["--learning-rate", "nan"], "learning_rate is nan; allowed is a finite number"),
    ):
        refused(capsys, said, shards / "own", tmp_path / "new", *more)
    assert command(shards / "own", tmp_path / "new", "--steps", "9", "--learning-rate", "1e38") == 2
    error = capsys.readouterr().err
    assert "begin again with a smaller one" in error and error.count("\n") == 1


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
