"""A checkpoint from a stranger can do no harm: what is no sound one is refused before anything is made of it."""

import hashlib
import json
import os
import pickle
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_tradefm import write_checkpoint, zero_intelligence_bank

from tradefm_gym import ExecutionRole, TradingSession
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.model import strange_files
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.serving import model_hash


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("models") / "sound")


@pytest.fixture
def folder(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "model")
    return tmp_path / "model"


class Harm:
    """What a pickle would run."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


def _json(name, **changes):
    def damage(folder):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | changes))

    return damage


def _weight(value):
    def damage(folder):
        weights = load_file(folder / "model.safetensors")
        weights["norm.weight"][3] = value
        save_file(weights, folder / "model.safetensors")

    return damage


def _bit(name, place):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)

    return damage


def _write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def _instead(name, make):
    def damage(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return damage


def _endless(path):
    path.symlink_to("/dev/zero")


TABLE = [[0.0] * 24] * 15
HUGE = 10**400  # JSON has integers that no float can hold
DAMAGES = {
    "weights are a pickle": (_write("model.safetensors", pickle.dumps(Harm())), "not a readable safetensors file"),
    "config is a pickle": (_write("config.json", pickle.dumps(Harm())), "is no text"),
    "tokenizer is a pickle": (_write("tokenizer.json", pickle.dumps(Harm())), "is no text"),
    "weights cut": (lambda f: _write("model.safetensors", (f / "model.safetensors").read_bytes()[:-9])(f), "readable"),
    "a bit of a weight": (_bit("model.safetensors", -1_000), "do not have their checksum"),
    "weights without number": (_weight(np.nan), "not finite"),
    "weights beyond use": (_weight(1e30), "holds a weight of 1e+30; allowed is 10000 at most"),
    "nested config": (_write("config.json", b"[" * 100_000), "nested too deeply"),
    "nested tokenizer": (_write("tokenizer.json", b"[" * 100_000), "is not a tokenizer file"),
    "endless layers": (_json("config.json", layers=10**12), "layers is 1000000000000; allowed is"),
    "endless context": (_json("config.json", context=10**9), "context is 1000000000; allowed is"),
    "wider than its weights": (_json("config.json", feed_width=4_096), "its config wants F32"),
    "endless waits": (_json("tokenizer.json", time_table=[*TABLE, [300.0] * 24]), "time_table must lie in [-12, 7]"),
    "endless sizes": (_json("tokenizer.json", volume_table=[*TABLE, [1e3] * 24]), "volume_table must lie in [0, 40]"),
    "classes that the network lacks": (_json("tokenizer.json", pressure_edges=[[], []]), "the two must be equal"),
    "edges that fall": (_json("tokenizer.json", depth_edges=[float(-i) for i in range(15)]), "non-decreasing"),
    "words for edges": (_json("tokenizer.json", level_edges=["a"] * 31), "is inconsistent"),
    "a tokenizer that is a list": (_write("tokenizer.json", b"[1]"), "is not a tokenizer file"),
    "a provenance that is none": (_json("tokenizer.json", provenance=3), "provenance must be an object"),
    "a half-life without end": (_json("tokenizer.json", half_life_s=float("inf")), "half_life_s must be positive"),
    "weights without end": (_instead("model.safetensors", _endless), "model.safetensors is no regular file"),
    "a config without end": (_instead("config.json", _endless), "or a checkpoint folder"),
    "a tokenizer that waits": (_instead("tokenizer.json", os.mkfifo), "tokenizer.json is no regular file"),
    "corrections without end": (_instead("closed_loop.json", _endless), "closed_loop.json is no regular file"),
    "corrections that wait": (_instead("closed_loop.json", os.mkfifo), "closed_loop.json is no regular file"),
    "a huge base": (_json("config.json", rope_base=HUGE), "rope_base is 1000"),
    "a huge epsilon": (_json("config.json", norm_eps=HUGE), "norm_eps is 1000"),
    "a huge format": (_json("config.json", format=HUGE), "format of the model configuration is 1000"),
    "a context of one": (_json("config.json", context=1), "context is 1; allowed is an integer from 2"),
    "huge edges": (_json("tokenizer.json", depth_edges=[HUGE] * 15), "is inconsistent: int too large"),
    "a huge half-life": (_json("tokenizer.json", half_life_s=HUGE), "half_life_s must be positive"),
    "a config of digits": (_write("config.json", b"9" * 5_000), "config.json is not JSON"),
    "a tokenizer of digits": (_write("tokenizer.json", b"9" * 5_000), "is not a tokenizer file"),
    "corrections beyond use": (_write("closed_loop.json", b'{"format": 1, "following": 9}'), "closed-loop corrections"),
}


def test_the_sound_one_is_read(sound):
    assert TradeFMFlow(sound, 1).name.startswith("tradefm:sound@")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_strange_checkpoint_is_refused_in_one_sentence(folder, name):
    damage, said = DAMAGES[name]
    damage(folder)
    with pytest.raises(ValueError) as refused:
        TradeFMFlow(folder, 1)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_texts_are_read_up_to_a_size(folder, monkeypatch):
    monkeypatch.setattr(strange_files, "LARGEST_TEXT", 100)
    with pytest.raises(ValueError, match=r"config.json has [\d,]+ bytes; allowed are 100"):
        TradeFMFlow(folder, 1)


def test_weights_are_hashed_and_read_up_to_a_size(folder, monkeypatch):
    monkeypatch.setattr(strange_files, "LARGEST_WEIGHTS", 100)
    for read in (model_hash, load_weights):
        with pytest.raises(ValueError, match=r"model\.safetensors has [\d,]+ bytes; allowed are 100"):
            read(folder)


def test_the_hash_is_that_of_the_files_one_after_the_other(folder):
    names = ("config.json", "tokenizer.json", "model.safetensors")
    whole = hashlib.sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()[:12]
    assert model_hash(folder) == whole


def test_the_shortest_context_is_played(folder):
    _json("config.json", context=2)(folder)
    flow = TradeFMFlow(folder, 1, bank=zero_intelligence_bank(), staggered=True)
    session = TradingSession(1, ExecutionRole(decisions=3), flow)
    session.seed(np.ones(1, bool), np.arange(1))
    session.reset()
    while session.running.any():
        session.step(np.zeros((1, 2), np.float32))


def test_weights_without_a_checksum_are_read_as_before(folder):
    _weight(1.0)(folder)  # written by another program
    TradeFMFlow(folder, 1)
