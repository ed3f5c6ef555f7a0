"""Compact files for structured arrays: one narrow integer column a field, in a compressed ``.npz``.

A RECORD takes 80 bytes in memory and about 10 in such a file, because times and ids are stored as
differences and every column in the smallest integer type that holds it. Nothing is pickled.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_AS_DIFFERENCES = frozenset({"time_ns", "order_id", "mid2", "clock_ns"})
_LATER = frozenset({"spread", "bid_size", "ask_size"})  # of a RECORD; older files do not tell the touch
_NARROW = (np.int8, np.int16, np.int32, np.int64)


def pack(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Columns ``name.field`` of a structured array (n,), integers narrowed without loss."""
    return {f"{name}.{field}": _pack_column(field, array[field]) for field in array.dtype.names or ()}


def unpack(columns: Mapping[str, np.ndarray], name: str, dtype: np.dtype) -> np.ndarray:
    """The structured array that ``pack`` took apart; its fields and lengths are checked.

    Raises:
        ValueError: if a field is missing, has another length, or does not fit its type.
    """
    fields = list(dtype.names or ())
    fields = [field for field in fields if field not in _LATER or f"{name}.{field}" in columns]
    missing = [field for field in fields if f"{name}.{field}" not in columns]
    if missing:
        raise ValueError(f"the file lacks the columns {missing} of {name!r}; it must hold all of {fields}")
    length = len(columns[f"{name}.{fields[0]}"])
    array = np.zeros(length, dtype)
    for field in fields:
        column = columns[f"{name}.{field}"]
        if len(column) != length:
            raise ValueError(f"column {name}.{field} has {len(column)} rows where {length} are expected")
        if field in _AS_DIFFERENCES:
            column = np.cumsum(column, dtype=np.int64)
        array[field] = column
        if column.dtype.kind in "iu" and not np.array_equal(array[field], column):
            raise ValueError(f"column {name}.{field} holds values outside {array.dtype[field]}")
    return array


def _pack_column(field: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind not in "iu":
        return np.ascontiguousarray(column)
    wide = column.astype(np.int64)
    if field in _AS_DIFFERENCES:
        wide = np.diff(wide, prepend=np.int64(0))
    low, high = (int(wide.min()), int(wide.max())) if len(wide) else (0, 0)
    for dtype in _NARROW:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return wide.astype(dtype)
    return wide


def write_archive(path: str | Path, columns: Mapping[str, np.ndarray], description: dict) -> None:
    """Writes columns and a JSON description to ``path`` (.npz); a failure leaves nothing behind."""
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path {str(path)!r} must end in .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = np.frombuffer(json.dumps(description, sort_keys=True).encode(), np.uint8)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, description=encoded, **columns)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def archive_kind(path: str | Path) -> str:
    """What an archive says that it is; an empty string if it says nothing, or is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return str(json.loads(archive["description"].tobytes()).get("kind", ""))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError, AttributeError):
        return ""


def read_archive(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict]:
    """Reads what ``write_archive`` wrote.

    Args:
        path: the .npz file.
        kind: what the description must name as its ``kind``, e.g. ``"context bank"``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an archive of that kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path {str(path)!r} does not exist; it must name a {kind} (.npz)")
    try:
        with np.load(path, allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
        description = json.loads(columns.pop("description").tobytes())
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError, AttributeError) as error:
        raise ValueError(f"path {str(path)!r} is not a {kind} (.npz written by this package)") from error
    if not isinstance(description, dict) or description.get("kind") != kind:
        found = description.get("kind") if isinstance(description, dict) else description
        raise ValueError(f"path {str(path)!r} holds a {found!r}; a {kind!r} is needed")
    return columns, description
