"""Parameters of flows as JSON files, which say what they are."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_parameters(path: str | Path, kind: str, version: int, values: dict[str, Any]) -> None:
    """Writes ``values`` with their kind and format version; an existing file is replaced only when all is written."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"kind": kind, "format": version, **values}, separators=(",", ":"))
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_parameters(path: str | Path, kind: str, version: int) -> dict[str, Any]:
    """Reads what ``write_parameters`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such file, or of another kind or format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"parameters path {str(path)!r} does not exist; it must name {kind} (JSON)")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"parameters path {str(path)!r} is no JSON: {error}") from error
    found = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if found != kind:
        raise ValueError(f"parameters path {str(path)!r} holds {found!r}; {kind!r} is needed")
    if values.get("format") != version:
        said = values.get("format")
        raise ValueError(f"parameters path {str(path)!r} has format {said!r}; this version reads format {version}")
    return values
