"""A run that ends at any moment goes on as if it had not, or says why it cannot."""

import json
import os
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file
from test_training import CONFIG, SETTINGS, CyclingWindows
from train_and_die import LIVES

from tradefm_gym.model import training_state
from tradefm_gym.model.training import train
from tradefm_gym.model.training_state import STATE_FILE

HERE = Path(__file__).parent


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != STATE_FILE}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_run_that_was_killed_gives_the_weights_of_one_that_was_not(tmp_path):
    source, step = CyclingWindows(), int(np.random.default_rng().integers(1, LIVES.steps))
    train(CONFIG, source, source, tmp_path / "whole", LIVES)
    command = [sys.executable, str(HERE / "train_and_die.py"), str(tmp_path / "killed"), str(step)]
    died = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HERE)})
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert (tmp_path / "killed" / STATE_FILE).is_file() == (step >= LIVES.save_every)
    train(CONFIG, source, source, tmp_path / "killed", LIVES)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "killed"), f"killed at step {step}"
    states = [load_file(tmp_path / name / STATE_FILE) for name in ("whole", "killed")]
    assert all(np.array_equal(values, states[1][name]) for name, values in states[0].items())


def test_a_run_that_died_while_writing_goes_on(tmp_path, monkeypatch):
    source = CyclingWindows()
    settings = replace(SETTINGS, steps=6, save_every=2, evaluate_every=3)
    train(CONFIG, source, source, tmp_path / "whole", settings)

    def half(arrays, path, metadata):
        save_file(arrays, path, metadata=metadata)
        if json.loads(metadata["state"])["result"]["step"] == 4:
            os.truncate(path, 1_000)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, source, source, tmp_path / "died", settings)
    train(CONFIG, source, source, tmp_path / "died", settings)
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "died")  # nothing half-written is left either


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(CONFIG, CyclingWindows(), CyclingWindows(), folder, SETTINGS)
    return folder


def _with_header(data: bytes, change) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _state(header, **changes):
    state = json.loads(header["__metadata__"]["state"])
    state["result"] |= changes
    header["__metadata__"]["state"] = json.dumps(state)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:100], "SafetensorError"),
        (lambda data: data[:-4], "SafetensorError"),
        (lambda data: b"\x80\x04" + data, "SafetensorError"),
        (lambda data: data[:-7] + bytes([data[-7] ^ 1]) + data[-6:], "do not have their checksum"),
        (lambda data: _with_header(data, lambda h: h.pop("__metadata__")), "KeyError: 'state'"),
        (lambda data: _with_header(data, lambda h: h["__metadata__"].update(state="[")), "JSONDecodeError"),
        (lambda data: _with_header(data, lambda h: _state(h, step="9")), "step is '9'"),
        (lambda data: _with_header(data, lambda h: _state(h, step=99)), "step is 99"),
        (lambda data: _with_header(data, lambda h: _state(h, history=[{}])), "KeyError: 'step'"),
        (lambda data: _with_header(data, lambda h: _state(h, more=1)), "its result holds"),
        (lambda data: data.replace(b'\\"loss_sum\\": 0.0', b'\\"loss_sum\\": NaN'), "loss_sum is nan"),
        (
            lambda data: _with_header(data, lambda h: h.update(other=h.pop("mean.norm.weight"))),
            "its arrays are not those of the model",
        ),
        (
            lambda data: _with_header(data, lambda h: h["mean.norm.weight"].update(shape=[32, 2])),
            "mean.norm.weight is F32 (32, 2), not F32 (64,)",
        ),
    ],
)
def test_a_damaged_state_is_refused_in_one_sentence_and_left_as_it_is(trained, tmp_path, damage, said):
    data = damage((trained / STATE_FILE).read_bytes())
    (tmp_path / STATE_FILE).write_bytes(data)
    with pytest.raises(ValueError) as refused:
        train(CONFIG, CyclingWindows(), CyclingWindows(), tmp_path, SETTINGS)
    assert f"is damaged ({said}" in str(refused.value) or said in str(refused.value)
    assert str(refused.value).endswith("pass another folder or --fresh (in Python resume=False)") and "\n" not in str(
        refused.value
    )
    assert bytes_of(tmp_path) == {} and (tmp_path / STATE_FILE).read_bytes() == data


def test_a_state_of_before_newer_settings_is_continued(trained, tmp_path):
    def older(header):
        state = json.loads(header["__metadata__"]["state"])
        for name in ("patience", "recompute", "parallel", "tensorboard"):
            del state["training"][name]
        del state["data"], state["loss_sum"]
        header["__metadata__"]["state"] = json.dumps(state)

    (tmp_path / STATE_FILE).write_bytes(_with_header((trained / STATE_FILE).read_bytes(), older))
    assert train(CONFIG, CyclingWindows(), CyclingWindows(), tmp_path, SETTINGS).step == SETTINGS.steps


def test_without_the_losses_before_it_a_state_tells_those_after_it(tmp_path):
    source, settings = CyclingWindows(), replace(SETTINGS, steps=4, evaluate_every=3, save_every=2, learning_rate=1e-9)

    class Deadly(CyclingWindows):
        def windows(self):
            raise KeyboardInterrupt  # at step 3, after the state of step 2

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, source, Deadly(), tmp_path, settings)

    def older(header):
        state = json.loads(header["__metadata__"]["state"])
        assert state["result"]["step"] == 2 and 10 < state.pop("loss_sum") < 30
        header["__metadata__"]["state"] = json.dumps(state)

    (tmp_path / STATE_FILE).write_bytes(_with_header((tmp_path / STATE_FILE).read_bytes(), older))
    first = train(CONFIG, source, source, tmp_path, settings).history[0]
    assert first["step"] == 3 and 5 < first["train"] < 15  # nats an event of a network that knows nothing
