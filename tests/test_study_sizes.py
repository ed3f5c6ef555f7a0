"""The size study runs through, and changes one thing at a time."""

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from small_day import beginning

pytest.importorskip("torch")

from tradefm_gym.data.day import save_day
from tradefm_gym.model.config import PRESETS, ModelConfig
from tradefm_gym.model.training_config import TrainingConfig

EXAMPLE = Path(__file__).parents[1] / "examples" / "study_sizes.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("study_sizes", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["study_sizes"] = module
    spec.loader.exec_module(module)
    return module


def test_arms_differ_from_the_bundled_network_in_one_thing(example):
    bundled = replace(PRESETS["mini"], spreads=16, books=512)
    configs = {arm: replace(bundled, **changes) for arm, changes in example.ARMS.items()}
    changed = {
        arm: {name for name, value in asdict(config).items() if value != getattr(bundled, name)}
        for arm, config in configs.items()
    }
    assert changed["1M"] == set()
    assert changed["1M, joint head"] == {"head", "head_width"}
    assert changed["1M, head 256"] == {"head_width"}
    assert changed["1M, context 128"] == changed["1M, context 512"] == {"context"}
    body = {"layers", "width", "heads", "kv_heads", "feed_width", "embedding_width", "head_width"}
    assert changed["0.3M"] <= body and changed["3M"] <= body
    for arm, millions in (("0.3M", 0.3), ("1M", 1.3), ("3M", 2.9)):
        assert configs[arm].parameter_count() == pytest.approx(millions * 1e6, rel=0.05)


def test_every_context_sees_as_many_events(example):
    for context in (128, 256, 512):
        config: ModelConfig = replace(PRESETS["mini"], context=context)
        assert example.settings(TrainingConfig(batch=32), config, 0).batch * context == 32 * 256
    with pytest.raises(ValueError, match="batch is 3; allowed is a multiple of 2"):
        example.settings(TrainingConfig(batch=3), replace(PRESETS["mini"], context=512), 0)


def test_a_short_study_writes_a_table(example, tmp_path):
    save_day(tmp_path / "short.npz", beginning(4_000))
    training = TrainingConfig(steps=2, batch=2, evaluate_every=2, save_every=2, progress=False, threads=1)
    arguments = example.Arguments(
        data=tmp_path / "short.npz", out=tmp_path / "out", arms=("0.3M", "1M, context 128"), minimum_events=0,
        training=training, speed=False,
    )  # fmt: skip
    example.main(arguments)
    less = replace(arguments, arms=("0.3M",), shares=(0.5,), seeds=1, out=tmp_path / "less")
    example.main(less)
    half = json.loads((tmp_path / "less" / "results.json").read_text())["0.3M, 0.5 of the data"]
    assert half["training_events"] == 1_376
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {arm: len(row["nats"]["short"]) for arm, row in results.items()} == {"0.3M": 2, "1M, context 128": 2}
    lines = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert lines[0] == "| network | parameters | events | short |" and lines[2].startswith(
        "| 0.3M | 312,264 | 2,751 | "
    )
    first = results["0.3M"]["nats"]["short"]
    assert first[0] != first[1]  # another seed
    again = (tmp_path / "out" / "0.3M-seed-0" / "training.safetensors").stat().st_mtime_ns
    example.main(arguments)  # goes on: nothing is left to train
    assert (tmp_path / "out" / "0.3M-seed-0" / "training.safetensors").stat().st_mtime_ns == again
