"""What a training run needs to go on, in one file: it is replaced in one move, never pickled, and checked when read."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tradefm_gym.model.config import ModelConfig, parameter_shapes
from tradefm_gym.model.strange_files import checksum_of
from tradefm_gym.model.training_config import FREE_SETTINGS, TrainingConfig, TrainingResult

STATE_FILE = "training.safetensors"
_PARTS = ("weight", "mean", "square")
_ANEW = "--fresh (in Python resume=False)"  # how to begin a run again
_ENTRY = ("step", "train", "validation", "seconds")


class SavedRun(NamedTuple):
    """What is known of a run that is gone on with."""

    result: TrainingResult
    arrays: dict[str, np.ndarray]
    data: str | None  # what identifies its data; None: it does not say
    loss_sum: float | None  # over the steps since the last evaluation; None: it does not say


def write_state(
    folder: Path,
    config: ModelConfig,
    training: TrainingConfig,
    result: TrainingResult,
    arrays: dict[str, np.ndarray],
    data: str | None = None,
    loss_sum: float = 0.0,
) -> None:
    """Writes the state of a run.

    Args:
        folder: the run's.
        config: the network's shape.
        training: its settings.
        result: where it stands.
        arrays: weights, moments of the gradient and the moving average, as ``weight.NAME``, ``mean.NAME`` ...
        data: what identifies the data that it trains on.
        loss_sum: over the steps since the last evaluation.
    """
    state = {
        "config": config.to_json(), "training": asdict(training), "result": asdict(result), "data": data,
        "loss_sum": loss_sum,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{STATE_FILE}"
    save_file(arrays, temporary, metadata={"state": json.dumps(state), "crc32": checksum_of(arrays)})
    temporary.chmod(0o644)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())  # or the name could reach the disk before the bytes
    os.replace(temporary, folder / STATE_FILE)


def read_state(folder: Path, config: ModelConfig, training: TrainingConfig, data: str | None = None) -> SavedRun:
    """Reads the state of a run, which must be one of this model, these settings and, where both are known, this data.

    Raises:
        ValueError: if it is another run's, or damaged.
    """
    path = folder / STATE_FILE
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            state = json.loads(metadata["state"])
            _check_same_run(path, state, config, training, data)
            result = _result(state["result"], training)
            loss_sum = state.get("loss_sum")  # older files lack it
            if loss_sum is not None and not (isinstance(loss_sum, int | float) and math.isfinite(loss_sum)):
                raise _Damaged(f"loss_sum is {loss_sum!r}")
            _check_arrays(file, config, training)
            arrays = {name: file.get_tensor(name) for name in file.keys()}
        if checksum_of(arrays) != metadata["crc32"]:
            raise _Damaged("the arrays do not have their checksum")
    except (_Damaged, SafetensorError, KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
        reason = str(error) if isinstance(error, _Damaged) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({reason}); pass another folder or {_ANEW}") from None
    return SavedRun(result, arrays, state.get("data"), loss_sum)


def data_of(folder: Path) -> str | None:
    """What identifies the data of the run in a folder; None where its state does not say, or cannot be read."""
    try:
        with safe_open(folder / STATE_FILE, framework="numpy") as file:
            return json.loads((file.metadata() or {})["state"]).get("data")
    except (OSError, SafetensorError, KeyError, AttributeError, RecursionError, json.JSONDecodeError):
        return None


class _Damaged(Exception):
    """Why a file cannot be used."""


def _check_same_run(
    path: Path, state: Mapping[str, Any], config: ModelConfig, training: TrainingConfig, data: str | None
) -> None:
    if state["config"] != config.to_json():
        raise ValueError(f"{path} is a run of another model; pass the same config, another folder or {_ANEW}")
    usual = json.loads(json.dumps(asdict(TrainingConfig())))  # older files lack newer settings
    for name, value in json.loads(json.dumps(asdict(training))).items():
        found = state["training"].get(name, usual[name])
        if name not in FREE_SETTINGS and found != value:
            raise ValueError(
                f"{name} is {value!r} but the run in {path} has {found!r}; pass that, another folder or {_ANEW}"
            )
    if data is not None and state.get("data") not in (None, data):  # older files do not say
        raise ValueError(f"{path} is a run of other data; pass the same data, another folder or {_ANEW}")


def _result(values: Mapping[str, Any], training: TrainingConfig) -> TrainingResult:
    if set(values) != {field.name for field in fields(TrainingResult)}:
        raise _Damaged(f"its result holds {sorted(values)}")
    result = TrainingResult(**values)
    whole = type(result.step) is int and type(result.best_step) is int
    if not whole or not 0 <= result.best_step <= result.step <= training.steps:
        raise _Damaged(f"step is {result.step!r}, best_step {result.best_step!r} of {training.steps}")
    numbers = [result.best_nats, result.seconds, *(entry[name] for entry in result.history for name in _ENTRY)]
    if not all(isinstance(n, int | float) and not math.isnan(n) for n in numbers):
        raise _Damaged("its result holds what is no number")
    return result


def _check_arrays(file, config: ModelConfig, training: TrainingConfig) -> None:
    parts = (*_PARTS, "average") if training.average else _PARTS
    expected = {f"{part}.{name}": shape for part in parts for name, shape in parameter_shapes(config).items()}
    if set(file.keys()) != expected.keys():
        raise _Damaged("its arrays are not those of the model")
    for name, shape in expected.items():
        header = file.get_slice(name)
        if tuple(header.get_shape()) != shape or header.get_dtype() != "F32":
            raise _Damaged(f"{name} is {header.get_dtype()} {tuple(header.get_shape())}, not F32 {shape}")
