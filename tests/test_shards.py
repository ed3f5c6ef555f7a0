import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_day import beginning
from small_tradefm import generated_day

from tradefm_gym import cli
from tradefm_gym.data.day import save_day
from tradefm_gym.data.recorded import asset_name
from tradefm_gym.model import shards as shards_module
from tradefm_gym.model.shards import PARTS, open_shards
from tradefm_gym.model.token_events import TOKENS, tokenize
from tradefm_gym.model.tokenizer import MID_MODES, TradeTokenizer
from tradefm_gym.model.tokenizer_options import MIDS, TokenizerOptions
from tradefm_gym.model.windows import Augmentation, FlowWindows
from tradefm_gym.tokenizing import day_parts, day_paths, write_shards

TOLD = TokenizerOptions(pace=True, assets=True)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Two days, and a recording of the second that cannot be replayed by id and goes on for longer."""
    folder = tmp_path_factory.mktemp("days")
    generated = beginning(6_000)
    save_day(folder / "b_first_hours.npz", beginning(1_500))
    save_day(folder / "a_best_level.npz", replace(generated, meta=replace(generated.meta, replay_by_id=False)))
    save_day(folder / "zero.npz", generated_day(5_000))
    return folder


@pytest.fixture(scope="module")
def written(days, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "shards"
    return write_shards([days], out, options=TOLD)


@pytest.fixture
def copied(written, tmp_path):
    shutil.copytree(written.folder, tmp_path / "shards")
    return tmp_path / "shards"


def batches(source):
    sampled = [source.sample(8, np.random.default_rng(seed)) for seed in range(4)]
    return [array for batch in (*sampled, *source.windows(stride=32)) for array in batch]


def test_training_from_shards_gives_the_batches_of_training_from_days(days, written):
    read = list(day_parts(day_paths([days]), 10.0, "touch"))
    by_name, by_name_meta = {day.name: day.parts for day in read}, {day.name: day.meta for day in read}
    assets = tuple(dict.fromkeys(asset_name(by_name_meta[name]) for name in sorted(by_name)))
    samples = [by_name[name]["train"] for name in sorted(by_name)]
    tokenizer = TradeTokenizer.calibrate(samples, "touch", 10.0, written.tokenizer.provenance, True, True, True, assets)
    assert tokenizer.to_json() == written.tokenizer.to_json()
    for part in PARTS:
        known = [name for name in sorted(by_name) if part in by_name[name]]
        features = [by_name[name][part].copy() for name in known]
        for name, of in zip(known, features, strict=True):
            of["asset"] = tokenizer.asset_of(asset_name(by_name_meta[name]))
        for augmentation in (None, Augmentation()):
            direct = FlowWindows(features, tokenizer, 64, augmentation)
            mapped = FlowWindows(written.tokens(part), written.tokenizer, 64, augmentation)
            assert direct.events == mapped.events > 0
            assert all(np.array_equal(a, b) for a, b in zip(batches(direct), batches(mapped), strict=True))


def test_tokens_are_mapped_and_not_read(written):
    assert all(isinstance(tokens, np.memmap) and tokens.dtype == TOKENS for tokens in written.tokens("train"))
    assert not any(tokens.flags.writeable for tokens in written.tokens("train"))


def test_the_latest_events_of_each_day_can_be_had_alone(written):
    less = written.latest(0.25)
    for some, everything in zip(less.tokens("train"), written.tokens("train"), strict=True):
        np.testing.assert_array_equal(some, everything[-round(0.25 * len(everything)) :])
    for part in ("validation", "test"):
        assert less.segments[part] == written.segments[part]
    assert less.digest != written.digest  # a run on one does not go on with the other
    with pytest.raises(ValueError, match="share is 0; allowed is a share in"):
        written.latest(0)


def test_the_same_hours_are_not_trained_on_and_scored(written):
    parts = {part: [segment.set for segment in written.segments[part]] for part in PARTS}
    assert list(written.sets) == ["a_best_level", "b_first_hours", "zero"]
    assert parts["train"] == ["a_best_level", "b_first_hours", "zero"]
    assert parts["validation"] == parts["test"] == ["b_first_hours", "zero"]
    (kept,) = written.tokens("train", "a_best_level")
    last = max(written.tokens(part, "b_first_hours")[0]["time_ns"].max() for part in PARTS)
    assert kept["time_ns"].min() > last


def test_the_same_days_give_the_same_files_in_any_order_of_naming(days, written, tmp_path):
    one_by_one = sorted(days.iterdir(), reverse=True)
    again = write_shards(one_by_one, tmp_path / "again", options=TOLD)
    for path in written.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()


def test_several_processes_write_the_same_files(days, written, tmp_path):
    again = write_shards([days], tmp_path / "again", options=TOLD, workers=2)
    for path in written.folder.iterdir():
        assert path.read_bytes() == (again.folder / path.name).read_bytes()
    (tmp_path / "broken.npz").write_bytes(b"x")
    with pytest.raises(ValueError, match="is not a recorded day"):  # said by a worker
        write_shards([tmp_path / "broken.npz"], tmp_path / "out", minimum_events=0, workers=2)
    with pytest.raises(ValueError, match="workers is 0; it must be an integer of at least 1"):
        write_shards([days], tmp_path / "out", workers=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "broken.npz"]


def test_small_files_hold_the_same(days, written, tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_FILE_EVENTS", 3_000)
    monkeypatch.setattr(shards_module, "_CHUNK", 1_000)
    many = write_shards([days], tmp_path / "many", written.tokenizer, minimum_events=0)
    assert len(list(many.folder.glob("train-*.tokens"))) > 1
    opened = open_shards(many.folder)
    for part in PARTS:
        assert all(np.array_equal(a, b) for a, b in zip(opened.tokens(part), written.tokens(part), strict=True))


def test_of_many_events_every_second_or_fourth_calibrates(days, tmp_path):
    options = TokenizerOptions(calibration_events=2_000)
    provenance = write_shards([days], tmp_path / "out", options=options, minimum_events=0).tokenizer.provenance
    assert provenance["every"] == 4 and 1_000 < provenance["events"] <= 2_003


def test_every_mid_of_a_tokenizer_can_be_chosen():
    assert set(MIDS) == set(MID_MODES)


def test_the_command_says_what_it_wrote_and_leaves_nothing_else(days, tmp_path, capsys):
    out = tmp_path / "new" / "shards"
    assert cli.main(["data", "tokenize", str(days / "zero.npz"), "--out", str(out), "--minimum-events", "10"]) == 0
    assert "1 sets; events: " in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["shards"]
    with_its = ["--tokenizer", str(out), "--minimum-events", "10"]
    assert cli.main(["data", "tokenize", str(days / "zero.npz"), "--out", str(tmp_path / "again"), *with_its]) == 0
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()


def test_what_cannot_be_tokenized_is_refused_and_leaves_nothing(days, tmp_path, capsys):
    for data, more, said in (
        ([days], ["--minimum-events", "1000000"], "minimum_events is 1000000"),
        ([tmp_path], [], "must be recorded days, or folders that hold some"),
        ([days, days / "zero.npz"], [], "two days named 'zero'"),
        ([], [], "data names no days; it must name"),
        ([days], ["--mid", "foo"], "mid is 'foo'; it must be one of 'touch', 'book', 'vwap'"),
        ([days], ["--calibration-events", "-1"], "calibration_events is -1; it must be an integer of at least 1000"),
        ([days], ["--calibration-events", "999"], "calibration_events is 999"),
        ([days], ["--half-life-s", "nan"], "half_life_s is nan; it must be positive"),
        ([days], ["--minimum-events", "-1"], "minimum_events is -1; it must be an integer of at least 0"),
    ):
        out = tmp_path / "out"
        assert cli.main(["data", "tokenize", *map(str, data), "--out", str(out), *more]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").write_text("")
    assert cli.main(["data", "tokenize", str(days), "--out", str(tmp_path / "full")]) == 2


def _edit(folder, change):
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def _flip(folder):
    path = folder / "train-00000.tokens"
    data = bytearray(path.read_bytes())
    data[1_000] ^= 1
    path.write_bytes(data)


def _foreign(folder):
    """Tokens that their index does vouch for, but whose tokenizer has fewer classes."""
    tokenizer = TradeTokenizer.load(folder)
    replace(tokenizer, pressure_edges=np.zeros((2, 0))).save(folder / "tokenizer.json")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_flip, "is damaged: the events of 'b_first_hours' do not have their checksum"),
        (_foreign, "that its tokenizer does not have; it is foreign"),
        (lambda f: (f / "test-00000.tokens").write_bytes(b"x" * 480), "has 480 bytes where its index says"),
        (lambda f: (f / "test-00000.tokens").unlink(), "cannot be read"),
        (lambda f: (f / "index.json").unlink(), "cannot be read"),
        (lambda f: (f / "index.json").write_text("[" * 100_000), "is not JSON"),
        (lambda f: (f / "index.json").write_text("{}"), "holds None; 'token shards' are needed"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "is not a tokenizer file"),
        (lambda f: _edit(f, lambda i: i.update(format=2)), "has format 2; this version reads 1"),
        (lambda f: _edit(f, lambda i: i.pop("sets")), "is no index of token shards"),
        (lambda f: _edit(f, lambda i: i["segments"]["train"][0].update(file="../x.tokens")), "'../x.tokens'"),
        (lambda f: _edit(f, lambda i: i["segments"]["train"][0].update(events=-1)), "is no index of token shards"),
        (lambda f: _edit(f, lambda i: i["segments"]["train"][0].update(set="x")), "which is no set of it"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_shards_are_refused_in_one_sentence(copied, damage, said):
    damage(copied)
    with pytest.raises((ValueError, OSError)) as refused:
        open_shards(copied)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_day_of_too_many_classes_or_orders_is_refused(written):
    from test_tokenizer import features_of

    features = features_of(0)
    wide = replace(written.tokenizer, wide_edges=np.arange(63.0), touch_edges=np.arange(63.0))
    with pytest.raises(ValueError, match="books of the tokenizer make"):
        tokenize(features, wide)
    features["order_id"][5] = 2**31
    with pytest.raises(ValueError, match="order_id of a day"):
        tokenize(features, written.tokenizer)
