"""Checkpoints on the Hugging Face Hub, by names such as ``hf://organisation/name@revision``. Needs ``huggingface_hub``.

A revision is a branch, a tag or a commit; a commit, as a hash after a second ``@`` (see ``serving.checkpoint``), names
one model for good. Only the files of a checkpoint are fetched: no programs, no pickles.
"""

import re
from pathlib import Path
from typing import Any

from tradefm_gym.model import closed_loop
from tradefm_gym.model.config import CONFIG_FILE, WEIGHTS_FILE, load_weights
from tradefm_gym.model.tokenizer import TradeTokenizer

PREFIX = "hf://"
FILES = (CONFIG_FILE, WEIGHTS_FILE, "tokenizer.json", closed_loop.FILE, "README.md")
_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[\w-][\w./-]*", re.ASCII)


def fetch(name: str) -> Path:
    """Folder of a checkpoint on the hub, downloaded unless it is in the hub's cache.

    Args:
        name: ``hf://organisation/name``, perhaps with ``@revision``.

    Raises:
        ValueError: if there is no such checkpoint, or it cannot be had.
        ImportError: without ``huggingface_hub``.
    """
    repository, revision = parts(name)
    hub = _library()
    try:
        folder = hub.snapshot_download(repository, revision=revision, allow_patterns=list(FILES))
    except Exception as error:  # the library's own, of what it stands on, and of the system
        raise ValueError(f"model {name!r} cannot be had from the hub ({_first_line(error)})") from error
    if not (Path(folder) / CONFIG_FILE).is_file():
        raise ValueError(f"model {name!r} is no checkpoint: it holds no {CONFIG_FILE}")
    return Path(folder)


def push(folder: str | Path, name: str, private: bool = True) -> str:
    """Uploads a checkpoint folder, after the checks that whoever loads it will make.

    Args:
        folder: with weights, config and tokenizer.
        name: ``hf://organisation/name``, perhaps with ``@branch``; made if it does not exist.
        private: whether a new repository is.

    Returns:
        What names it from now on.
    """
    repository, branch = parts(name)
    folder = Path(folder)
    config, _ = load_weights(folder)
    TradeTokenizer.load(folder).check_network(config, folder)
    closed_loop.ClosedLoop.load(folder)
    hub = _library()
    try:
        api = hub.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        if branch is not None:
            api.create_branch(repository, branch=branch, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, revision=branch, allow_patterns=list(FILES),
            commit_message=f"Upload the checkpoint {folder.name}",
        )  # fmt: skip
    except Exception as error:
        raise ValueError(f"model folder {str(folder)!r} cannot be pushed to {name!r} ({_first_line(error)})") from error
    return f"{PREFIX}{repository}@{commit.oid}"


def parts(name: str) -> tuple[str, str | None]:
    """Repository and revision of a name."""
    repository, at, revision = name.removeprefix(PREFIX).partition("@")
    sound = _NAME.fullmatch(repository) and (not at or _REVISION.fullmatch(revision)) and ".." not in name
    if not name.startswith(PREFIX) or not sound:
        raise ValueError(f"model is {name!r}; on the hub it must be named {PREFIX}organisation/name[@revision]")
    return repository, revision or None


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError('the hub needs a package: pip install "tradefm-gym[hub]"') from error
    return huggingface_hub


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0].strip()}" if text else type(error).__name__
