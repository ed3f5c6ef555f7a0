"""Parameters of flows as JSON files, which say what they are."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tradefm_gym.arguments import numbers, one_sentence, shortened


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


def check_writable(path: str | Path) -> None:
    """Refuses a path that :func:`write_parameters` could not write, before hours go into what is to be written.

    Raises:
        ValueError: naming ``out``, as the command line has it.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise ValueError(f"out is {str(path)!r}, a folder; it must name a file")
    folder = next(parent for parent in path.absolute().parents if os.path.exists(parent))  # others will be made
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "cannot be written to" if folder.is_dir() else "is no folder"
        raise ValueError(f"out is {str(path)!r}, but {str(folder)!r} {why}; it must name a file that can be written")


def read_parameters(
    path: str | Path, kind: str, version: int, needed: Iterable[str], also: Iterable[str] = ()
) -> dict[str, Any]:
    """Reads what ``write_parameters`` wrote: values with the keys ``needed``, perhaps with those of ``also``.

    Raises:
        FileNotFoundError: if there is no such file.
        OSError: if it cannot be read.
        ValueError: if it is no such file, of another kind or format version, or has other keys.
    """
    path = Path(path)
    with one_sentence(path, "read", f"{kind} (JSON)"):
        data = path.read_bytes() if path.exists() else None
    if data is None:
        raise FileNotFoundError(f"parameters path {str(path)!r} does not exist; it must name {kind} (JSON)")
    try:
        values = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"parameters path {str(path)!r} is no JSON: {_reason(error)}") from error
    found = values.get("kind") if isinstance(values, dict) else "something else than an object"
    if found != kind:
        raise ValueError(f"parameters path {str(path)!r} holds {shortened(found)}; {kind!r} is needed")
    said = values.get("format")
    if type(said) is not int or said != version:
        said = shortened(said)
        raise ValueError(f"parameters path {str(path)!r} has format {said}; this version reads format {version}")
    check_keys(f"parameters path {str(path)!r}", values, ("kind", "format", *needed), also)
    return values


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} in line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"


def check_keys(what: str, values: Any, needed: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuses what is no object with the keys ``needed``, perhaps with those of ``also``; ``what`` names it."""
    needed = tuple(needed)
    if not isinstance(values, dict):
        raise ValueError(f"{what} is {shortened(values)}; it must be an object")
    if lacking := [key for key in needed if key not in values]:
        raise ValueError(f"{what} lacks {', '.join(map(repr, lacking))}")
    if unknown := [key for key in values if key not in needed and key not in also]:
        named = ", ".join(map(shortened, unknown))
        raise ValueError(f"{what} has the unknown key {named}; known are {', '.join((*needed, *also))}")


def array_of(what: str, value: Any, axes: int, whole: bool = False) -> np.ndarray:
    """A number (``axes`` 0), a list of them or nested lists as an array, float64 or, of ``whole`` numbers, int64.

    Raises:
        ValueError: naming ``what``, if they are ragged or hold anything but such numbers.
    """
    array = numbers(value)
    fits = array is not None and (array.ndim == axes or (array.size == 0 and axes > 0))
    if array is None or not fits or (whole and array.size and array.dtype.kind != "i"):  # "u" is beyond int64
        kind = "whole number" if whole else "number"
        allowed = (f"a {kind}", f"a list of {kind}s", f"{axes} levels of lists of {kind}s, as long as each other")
        raise ValueError(f"{what} is {shortened(value)}; it must be {allowed[min(axes, 2)]}")
    return array.astype(np.int64 if whole else np.float64)
