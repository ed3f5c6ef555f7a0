import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from tradefm_gym.model.config import (
    DIGIT_SIZES,
    DIGIT_STRIDES,
    PRESETS,
    VOCABULARY,
    ModelConfig,
    load_config,
    load_weights,
    parameter_shapes,
    random_weights,
    save_checkpoint,
)


def test_published_parameter_counts():
    assert PRESETS["paper"].parameter_count() == 524_392_448
    assert PRESETS["250m"].parameter_count() == 250_677_248


@pytest.mark.parametrize(
    ("name", "low", "high"), [("125m", 120e6, 130e6), ("20m", 18e6, 22e6), ("mini", 1e6, 3e6), ("test", 2e5, 6e5)]
)
def test_other_presets_have_their_size(name, low, high):
    assert low < PRESETS[name].parameter_count() < high


def test_digits_span_the_vocabulary():
    assert np.prod(DIGIT_SIZES) == VOCABULARY
    assert np.dot(DIGIT_STRIDES, np.subtract(DIGIT_SIZES, 1)) == VOCABULARY - 1
    assert np.dot(DIGIT_STRIDES, (0, 1, 7, 7, 11)) == 6011  # the paper's worked example


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS.keys())
def test_json_round_trip(config):
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("layers", 2.0),
        ("layers", True),
        ("heads", 3),
        ("heads", 128),  # one-wide heads cannot be rotated
        ("kv_heads", 3),
        ("vocabulary", 100),
        ("head", "both"),
        ("head", "joint"),  # with a head_width
        ("head_width", 0),
        ("digit_embeddings", 1),
        ("dropout", 1.0),
        ("norm_eps", 0),
        ("rope_base", float("nan")),
        ("rope_base", 10**400),
        ("norm_eps", 10**400),
        ("context", 1),
    ],
)
def test_bad_values_are_named(field, value):
    values = PRESETS["mini"].to_json() | {field: value}
    with pytest.raises(ValueError, match=r" is .*; allowed is "):
        ModelConfig.from_json(values)


def test_foreign_json_is_refused():
    values = PRESETS["mini"].to_json()
    with pytest.raises(ValueError, match="format"):
        ModelConfig.from_json(values | {"format": 99})
    with pytest.raises(ValueError, match="unknown \\['colour'\\]"):
        ModelConfig.from_json(values | {"colour": 1})
    del values["layers"]
    with pytest.raises(ValueError, match="lacks \\['layers'\\]"):
        ModelConfig.from_json(values)


def test_checkpoint_round_trip_and_replacement(tmp_path):
    config = PRESETS["test"]
    folder = tmp_path / "checkpoint"
    for seed in range(2):
        weights = random_weights(config, seed)
        save_checkpoint(folder, config, weights, {"tokenizer.json": "{}", "README.md": "# card\n"})
        read_config, read = load_weights(folder)
        assert read_config == config == load_config(folder)
        assert read.keys() == weights.keys()
        for name, values in weights.items():
            np.testing.assert_array_equal(read[name], values)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]  # nothing temporary stays behind
    assert {(folder / name).stat().st_mode & 0o777 for name in ("model.safetensors", "config.json")} == {0o644}
    (folder / ".saving").mkdir()  # by a process that was killed
    save_checkpoint(folder, config, weights)
    assert not (folder / ".saving").exists()


def test_failed_save_leaves_the_old_checkpoint(tmp_path):
    config = PRESETS["test"]
    weights = random_weights(config)
    save_checkpoint(tmp_path / "checkpoint", config, weights)
    with pytest.raises(ValueError, match="parameter_shapes"):
        save_checkpoint(tmp_path / "checkpoint", config, {"norm.weight": weights["norm.weight"]})
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "checkpoint", config, weights, {"no/such/folder.json": ""})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    load_weights(tmp_path / "checkpoint")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_weights(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_weights(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PRESETS["test"].to_json()))
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="not a readable safetensors"):
        load_weights(tmp_path)


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "dtype", "nan"])
def test_wrong_weights_are_refused(tmp_path, fault):
    config = PRESETS["test"]
    weights = random_weights(config)
    save_checkpoint(tmp_path / "checkpoint", config, weights)
    if fault == "missing":
        del weights["norm.weight"]
    elif fault == "unknown":
        weights["extra.weight"] = np.ones(1, np.float32)
    elif fault == "shape":
        weights["norm.weight"] = np.ones(3, np.float32)
    elif fault == "dtype":
        weights["norm.weight"] = weights["norm.weight"].astype(np.float64)
    else:
        weights["norm.weight"][0] = np.nan
    save_file(weights, tmp_path / "checkpoint" / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks|wants F32|not finite"):
        load_weights(tmp_path / "checkpoint")


def test_parameter_names_are_unique_and_ordered():
    shapes = parameter_shapes(PRESETS["mini"])
    assert next(iter(shapes)) == "embed.liquidity.weight"
    assert shapes["embed.project.weight"] == (128, 9 * 32)
    assert shapes["head.prefix.4.3.weight"] == (16, 64)
    assert "head.prefix.0.0.weight" not in shapes
