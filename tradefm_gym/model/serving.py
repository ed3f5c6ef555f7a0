"""From a model's name to an engine: the bundled weights, their hash, and which engine suits a network."""

import hashlib
import re
from pathlib import Path

from tradefm_gym.model import closed_loop, hub, strange_files

BUNDLED_MODEL = "mini-2"
WEIGHTS = Path(__file__).parent / "weights"
_HASH = re.compile("[0-9a-f]{0,64}", re.IGNORECASE)  # none, too, is refused with a sentence of its own
_HASH_DIGITS = 12
_CHUNK = 1 << 20  # bytes that are hashed at once
BACKENDS = ("auto", "numba", "torch")


def checkpoint(model: str | Path) -> tuple[Path, str]:
    """Folder and hash of a model.

    Args:
        model: a bundled model's name, the path of a checkpoint folder, or ``hf://organisation/name[@revision]`` on the
            Hugging Face Hub; perhaps followed by ``@`` and the hash that it must have (on the hub, after a revision).

    Raises:
        ValueError: if it is none of these, or has another hash.
    """
    name, at, wanted = _named(str(model))
    if at and not wanted:
        raise ValueError(f"model must name a hash after '@', or end before it, got {str(model)!r}")
    for folder in [hub.fetch(name)] if name.startswith(hub.PREFIX) else (WEIGHTS / name, Path(name)):
        if _is_model(folder):
            found = model_hash(folder)
            if wanted and wanted != found:
                raise ValueError(f"model {name!r} must have the hash {wanted}, got {found}: it is another model")
            return folder, found
    bundled = sorted(p.name for p in WEIGHTS.glob("*") if p.is_dir())
    raise ValueError(f"model must be one of the bundled {bundled} or a checkpoint folder, got {str(model)!r}")


def _named(model: str) -> tuple[str, str, str]:
    """What comes before the hash, whether there is an ``@``, and the hash."""
    if not model.startswith(hub.PREFIX):
        name, at, wanted = model.rpartition("@")  # the last one: a path may hold others
        # A folder may be called run@2024; but what is as long as a hash always is one, lest a pin be passed over.
        is_own = len(wanted) not in (0, _HASH_DIGITS) and not _is_model(Path(name)) and _is_model(Path(model))
        return (name, at, wanted) if at and _HASH.fullmatch(wanted) and not is_own else (model, "", "")
    repository, at, rest = model.partition("@")
    revision, second, wanted = rest.partition("@")
    return f"{repository}{at}{revision}", second, wanted


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def model_name(folder: Path) -> str:
    """What a checkpoint is called: its folder's name, or that of its repository where the hub's cache holds it."""
    repository = folder.parent.parent.name
    if folder.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name


def model_hash(folder: Path) -> str:
    """Twelve hexadecimal digits that name weights, tokenizer and closed-loop corrections.

    Raises:
        ValueError: if a file is missing, no regular one or larger than any checkpoint's; none has been read then.
    """
    paths = []
    for name in ("config.json", "tokenizer.json", "model.safetensors", closed_loop.FILE):
        path = folder / name
        if not path.exists():
            if name == closed_loop.FILE:  # few checkpoints have one
                continue
            raise ValueError(f"model folder {str(folder)!r} lacks {name}; it must hold config, tokenizer and weights")
        is_weights = name == "model.safetensors"
        strange_files.check_size(path, strange_files.LARGEST_WEIGHTS if is_weights else strange_files.LARGEST_TEXT)
        paths.append(path)
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(_CHUNK):
                total.update(part)
    return total.hexdigest()[:_HASH_DIGITS]


def make_engine(
    config, weights, batch: int, backend: str = "auto", device: str = "cpu", parts: int = 1, prefill: int | None = None
):
    """The engine for a network: Numba up to 20M parameters, torch above or on a GPU, there in bf16.

    ``parts`` and ``prefill`` (``prefill_batch``) are torch's; the Numba engine has no use for them.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend == "auto":
        backend = "numba" if device == "cpu" and config.parameter_count() < 20_000_000 else "torch"
    if backend == "numba":
        from tradefm_gym.model.numba_engine import NumbaEngine

        return NumbaEngine(config, weights, batch)
    try:
        from tradefm_gym.model.engine import TorchEngine
    except ImportError as error:
        raise ImportError('backend "torch" needs PyTorch: pip install "tradefm-gym[torch]"') from error
    precision = "fp32" if device == "cpu" else "bf16"
    return TorchEngine(config, weights, batch, device=device, precision=precision, parts=parts, prefill_batch=prefill)
