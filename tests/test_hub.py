"""Checkpoints by name from a hub that is not asked over the network."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
from small_tradefm import write_checkpoint

from tradefm_gym import cli
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.model import hub
from tradefm_gym.model.config import load_weights
from tradefm_gym.model.serving import checkpoint, model_hash, model_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("models") / "mine")
    (folder / "training.safetensors").write_bytes(b"no part of a checkpoint")
    (folder / "program.py").write_text("raise SystemExit('a program was run')")
    return folder


@pytest.fixture(scope="module")
def cache(model, tmp_path_factory):
    """What the hub's library keeps of a repository: a folder for each commit, and which one a branch is at."""
    root = tmp_path_factory.mktemp("cache")
    repository = root / "models--desk--maker"
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(model, snapshot, ignore=shutil.ignore_patterns("training*", "*.py"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return root


class FakeHub:
    """The few things of ``huggingface_hub`` that are used."""

    def __init__(self, cache):
        self.cache, self.calls = cache, []
        self.HfApi = lambda: self

    def snapshot_download(self, repo_id, revision, allow_patterns):
        self.calls.append((repo_id, revision, tuple(allow_patterns)))
        if repo_id != "desk/maker" or revision not in (None, "main", COMMIT):
            raise RuntimeError(f"404: {repo_id} has no {revision}\n\nfor url: somewhere")
        return str(self.cache / "models--desk--maker" / "snapshots" / COMMIT)

    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append(("create_repo", repo_id, private))

    def create_branch(self, repo_id, branch, exist_ok):
        self.calls.append(("create_branch", repo_id, branch))

    def upload_folder(self, repo_id, folder_path, revision, allow_patterns, commit_message):
        self.calls.append(("upload_folder", repo_id, folder_path.name, revision, tuple(allow_patterns)))
        return SimpleNamespace(oid=COMMIT)


@pytest.fixture
def fake(cache, monkeypatch):
    library = FakeHub(cache)
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return library


@pytest.mark.parametrize("revision", ["", "@main", f"@{COMMIT}"])
def test_a_flow_plays_a_model_of_the_hub(fake, model, revision):
    flow = make_flow(f"tradefm:hf://desk/maker{revision}", 1)
    assert flow.name == f"tradefm:desk/maker@{model_hash(model)}"
    assert fake.calls == [("desk/maker", revision[1:] or None, hub.FILES)]
    assert flow.for_markets(2).name == flow.name


def test_a_hash_after_the_revision_pins_the_model(fake, model):
    pinned = f"hf://desk/maker@main@{model_hash(model)}"
    assert checkpoint(pinned)[1] == model_hash(model)
    with pytest.raises(ValueError, match="must have the hash 0000, got"):
        checkpoint("hf://desk/maker@main@0000")
    with pytest.raises(ValueError, match="must name a hash after '@'"):
        checkpoint("hf://desk/maker@main@")


def test_a_folder_s_name_may_hold_an_at_sign(model, tmp_path):
    digest = model_hash(model)
    for name in ("me@desk/mine", "run@2024", "run@large"):
        folder = tmp_path / name
        shutil.copytree(model, folder)
        assert checkpoint(folder) == (folder, digest)
        assert checkpoint(f"{folder}@{digest}") == (folder, digest)
        with pytest.raises(ValueError, match=r"must have the hash 0{12}, got"):
            checkpoint(f"{folder}@{'0' * 12}")
    with pytest.raises(ValueError, match="must have the hash 2025, got"):
        checkpoint(f"{tmp_path / 'me@desk' / 'mine'}@2025")
    with pytest.raises(ValueError, match=r"a checkpoint folder, got '.*mine@main'"):
        checkpoint(f"{model}@main")


@pytest.mark.parametrize(
    "name", ["hf://maker", "hf://desk/maker/more", "hf://desk/maker@", "hf://../maker", "hf://desk/maker@../x", "hf://"]
)
def test_what_is_no_name_on_the_hub_is_refused_without_asking(fake, name):
    with pytest.raises(ValueError, match=r"it must be named hf://organisation/name"):
        checkpoint(name)
    assert fake.calls == []


def test_what_the_hub_does_not_have_is_one_sentence(fake):
    with pytest.raises(ValueError) as refused:
        checkpoint("hf://desk/nothing")
    assert str(refused.value) == (
        "model 'hf://desk/nothing' cannot be had from the hub (RuntimeError: 404: desk/nothing has no None)"
    )


def test_a_repository_without_a_model_is_refused(fake, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "snapshot_download", lambda *args, **options: str(tmp_path))
    with pytest.raises(ValueError, match=r"it holds no config\.json"):
        checkpoint("hf://desk/maker")


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"tradefm-gym\[hub\]"):
        checkpoint("hf://desk/maker")


def test_a_model_is_pushed_with_its_own_files_only(fake, model, capsys):
    assert cli.main(["train", "push", str(model), "hf://desk/maker@dev"]) == 0
    assert capsys.readouterr().out == f"tradefm:hf://desk/maker@{COMMIT}\n"
    assert fake.calls == [
        ("create_repo", "desk/maker", True),
        ("create_branch", "desk/maker", "dev"),
        ("upload_folder", "desk/maker", "mine", "dev", hub.FILES),
    ]
    assert not any(name.endswith((".py", "training.safetensors")) for name in hub.FILES)


def test_an_unsound_model_is_not_pushed(fake, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")
    assert cli.main(["train", "push", str(tmp_path / "broken"), "hf://desk/maker"]) == 2
    assert "is not a tokenizer file" in capsys.readouterr().err and fake.calls == []


def test_a_tokenizer_of_another_network_is_not_pushed(fake, model, tmp_path):
    shutil.copytree(model, tmp_path / "mixed")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (tmp_path / "mixed" / "tokenizer.json").write_text(json.dumps(tokenizer | {"pressure_edges": [[], []]}))
    with pytest.raises(ValueError, match=r"pressures are 1 and a network of 49; the two must be equal"):
        hub.push(tmp_path / "mixed", "hf://desk/maker")
    assert fake.calls == []


def test_the_library_itself_finds_what_its_cache_holds(model, cache, monkeypatch):
    library = pytest.importorskip("huggingface_hub")

    real = library.snapshot_download
    real = getattr(real, "__wrapped__", real)
    monkeypatch.setattr(
        library, "snapshot_download",
        lambda repository, **options: real(repository, cache_dir=str(cache), local_files_only=True, **options),
    )  # fmt: skip
    folder, found = checkpoint("hf://desk/maker@main")
    assert found == model_hash(model) and model_name(folder) == "desk/maker"
    assert load_weights(folder)[0].layers == 2
    with pytest.raises(ValueError, match="cannot be had from the hub"):
        checkpoint("hf://desk/other")
