"""The example that leaves venues out."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

pytest.importorskip("torch")

from rich.console import Console
from small_tradefm import generated_day

from tradefm_gym.data.written import write_folder
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.token_events import mirror
from tradefm_gym.model.tokenizer import TradeTokenizer
from tradefm_gym.model.windows import Augmentation, reflag
from tradefm_gym.realism.encoded_day import EncodedDay

EXAMPLES = Path(__file__).parents[1] / "examples"
VENUES = {"first": "Here", "second": "There"}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("measure_transfer", EXAMPLES / "measure_transfer.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["measure_transfer"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def parts(example):
    tokenizer = TradeTokenizer.load(example.checkpoint("mini-2")[0])
    day = EncodedDay.of(generated_day(4_000), tokenizer)
    one = {name: day.features[place] for name, place in day.parts.items()}
    return {"first": one, "second": one}


def arguments(example, out):
    small = {"batch": 2, "evaluate_every": 1, "save_every": 1, "precision": "fp32"}
    given = example.Arguments(Path("none"), out, layers=1, width=32, context=32)
    training, adapting = (replace(one, steps=2, **small) for one in (given.training, given.adapting))
    return replace(given, training=training, adapting=adapting, scale=0.0)


def test_a_venue_is_left_out_scored_and_then_told(example, parts, tmp_path, monkeypatch):
    transfer = example.Transfer(arguments(example, tmp_path), "There", VENUES, parts, Console(quiet=True))
    assert list(transfer.source) == ["first"] and list(transfer.unseen) == ["second"]
    rows = transfer.run()
    assert [row["events"] for row in rows] == [0, 1_000, len(parts["second"]["train"])]
    for row in rows:
        assert row["n"] == len(parts["second"]["test"]) - 1
        chains = [row["markov"]] if row["markov_other"] is None else [row["markov"], row["markov_other"]]
        assert row["gain"]["value"] == pytest.approx(min(chains) - row["model"]["value"], abs=1e-9)
        assert row["gain"]["low"] <= row["gain"]["value"] <= row["gain"]["high"]
    assert rows[0]["markov_other"] is None and (tmp_path / "There" / "transfer.json").is_file()

    def trained_again(*_, **__):
        pytest.fail("a finished run trains no more")

    monkeypatch.setattr(example.TrainingRun, "step", trained_again)
    assert transfer.run() == rows
    assert "second" in rows[0]["set"]
    example.print_rows(rows, Console(quiet=True))


def test_where_windows_are_scaled_a_chain_counts_such_too(example, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(example, "SCALED_WINDOWS", 16)
    monkeypatch.setattr(example, "SHOTS", ())
    given = replace(arguments(example, tmp_path), scale=1.0)
    (row,) = example.Transfer(given, "There", VENUES, parts, Console(quiet=True)).run()
    assert row["markov_other"] != row["markov"]
    assert row["gain"]["value"] == pytest.approx(
        min(row["markov"], row["markov_other"]) - row["model"]["value"], abs=1e-9
    )


def test_what_is_no_better_than_the_start_is_not_kept(example, parts, tmp_path, monkeypatch):
    given = arguments(example, tmp_path)
    transfer = example.Transfer(given, "second", VENUES, parts, Console(quiet=True))
    learnt, chosen_on = (transfer._windows([parts["first"][name]]) for name in ("train", "validation"))
    example.train(transfer.config, learnt, chosen_on, tmp_path / "start", given.training)
    worse = replace(given.adapting, learning_rate=5.0)
    assert example.adapt(tmp_path / "start", tmp_path / "end", learnt, chosen_on, worse) == 0
    before, after = (load_weights(tmp_path / name)[1] for name in ("start", "end"))
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["Nowhere", "first-second"])
def test_a_venue_that_is_not_there_is_named(example, parts, tmp_path, name):
    with pytest.raises(SystemExit, match=rf"--leave-out names '{name}'; allowed are Here, There, first, second"):
        example.Transfer(arguments(example, tmp_path), name, VENUES, parts, Console(quiet=True))


def test_a_scale_moves_clocks_and_sizes_only(example, parts):
    segments, tokenizer = [parts["first"]["train"]], TradeTokenizer.load(example.checkpoint("mini-2")[0])
    batches = []
    for scale in (0.0, 1.0):
        windows = example.ScaledWindows(segments, tokenizer, 32)
        windows.scale = scale
        batches.append(windows.sample(8, np.random.default_rng(3))[0])
    plain = example.FlowWindows(segments, tokenizer, 32).sample(8, np.random.default_rng(3))[0]
    assert np.array_equal(batches[0], plain)
    # Windows are drawn before they are scaled, but every draw of a scale moves the next mirror: compare the first.
    kept, scaled = (batch[0, :, 3] for batch in batches)
    assert np.array_equal(kept >> 8, scaled >> 8) and not np.array_equal(kept & 255, scaled & 255)


def slow_scaled(segments, tokenizer, context, scale, batch, rng):
    """The twin of ``ScaledWindows.sample``: values are changed first, scaled last, and made tokens then."""
    settings, rows = Augmentation(), np.zeros((batch, context + 1, 4), np.int32)
    segments = [s[s["valid"] == 1] for s in segments]
    lengths = np.array([len(s) for s in segments], np.float64)
    for b, s in enumerate(rng.choice(len(segments), batch, p=lengths / lengths.sum())):
        start = int(rng.integers(0, max(len(segments[s]) - context, 1)))
        window = segments[s][start : start + context + 1].copy()
        if rng.random() < 0.5:
            window = mirror(window, tokenizer.mid)
        window["level"] += settings.level_shift_bps * rng.standard_normal()
        reflag(window, settings.reflag, rng, settings.takers)
        decades, octaves = scale * rng.standard_normal(2)
        window["seconds"] *= 10.0**decades
        window["volume"] = np.log1p(np.expm1(window["volume"]) * 2.0**octaves)
        rows[b, : len(window)] = tokenizer.encode(window)
    return rows[:, :-1]


def test_scaled_tokens_are_those_of_scaled_values(example, parts):
    tokenizer = TradeTokenizer.load(example.checkpoint("mini-2")[0])
    segments = [parts["first"]["train"], parts["first"]["train"][:20], parts["first"]["test"][:1]]
    segments[0] = segments[0].copy()
    segments[0]["valid"][5:50:7] = 0
    windows = example.ScaledWindows(segments, tokenizer, 32, Augmentation())
    windows.scale = 1.0
    drawn = windows.sample(200, np.random.default_rng(5))[0]
    assert np.array_equal(drawn, slow_scaled(segments[:2], tokenizer, 32, 1.0, 200, np.random.default_rng(5)))


def test_a_folder_of_days_is_read(example, tmp_path, monkeypatch):
    monkeypatch.setattr(example, "Transfer", FakeTransfer)
    for name in ("first", "second"):
        write_folder(generated_day(2_000), tmp_path / "days" / name)
    given = replace(arguments(example, tmp_path / "out"), data=tmp_path / "days", minimum_events=1_000)
    example.main(replace(given, leave_out=("first",)))
    assert FakeTransfer.given == ["first", {"first": "made", "second": "made"}, {"first", "second"}]
    with pytest.raises(SystemExit, match=r"--minimum-events is 2001; no day in .* has as many"):
        example.main(replace(given, minimum_events=2_001))


class FakeTransfer:
    """Keeps what it is made of."""

    given: ClassVar[list] = []

    def __init__(self, arguments, name, venues, parts, console):
        self.given[:] = [name, venues, set(parts)]
        assert all(set(of) == {"train", "validation", "test"} for of in parts.values())

    def run(self):
        return []


def test_a_folder_keeps_its_scale(example, tmp_path):
    for _ in range(2):
        example.check_scale(tmp_path / "settings.json", 1.0)
    with pytest.raises(SystemExit, match=r"--scale is 0.0, but the runs in .* have 1.0"):
        example.check_scale(tmp_path / "settings.json", 0.0)
