"""Files that a stranger may have written: read with limits, and checked before anything is made of them."""

import json
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_TEXT = 1 << 24  # bytes of a JSON file
LARGEST_WEIGHTS = 1 << 33  # bytes of a file of weights: two billion of them, four times the largest preset
LARGEST_WEIGHT = 1e4  # trained weights are of the order of 1; far larger ones overflow in what is computed from them


def check_size(path: Path, most: int) -> None:
    """Refuses what is no regular file (a device may be endless, and a pipe may wait for ever) or a larger one."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is no regular file; allowed is nothing else")
    if status.st_size > most:
        raise ValueError(f"{path} has {status.st_size:,} bytes; allowed are {most:,}")


def read_text(path: Path) -> str:
    """A text file of at most 16 MiB.

    Raises:
        ValueError: if it is larger, no regular file, or no UTF-8.
    """
    check_size(path, LARGEST_TEXT)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text: byte {error.start} is not UTF-8") from None


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON object; ``what`` says what it should be.

    Raises:
        ValueError: if the file holds none.
    """
    text = read_text(path)
    try:
        values = json.loads(text)
    except RecursionError:
        raise ValueError(f"{path} is not JSON: it is nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits is one too
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}; {what} is an object")
    return values


def check_weights(path: Path, weights: Mapping[str, np.ndarray], checksum: str | None) -> None:
    """Refuses weights that are not finite, beyond all use, or not those that were written.

    Args:
        path: where they come from.
        weights: by name.
        checksum: what the file says that ``checksum_of`` must give; older files say nothing.
    """
    for name, values in weights.items():
        largest = float(np.abs(values).max())
        if not np.isfinite(largest):
            raise ValueError(f"{name} in {path} holds values that are not finite; weights must be finite")
        if largest > LARGEST_WEIGHT:
            raise ValueError(f"{name} in {path} holds a weight of {largest:.3g}; allowed is {LARGEST_WEIGHT:g} at most")
    if checksum is not None and checksum != checksum_of(weights):
        raise ValueError(f"{path} is damaged: its weights do not have their checksum")


def checksum_of(arrays: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of arrays by name, in the order of their names."""
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(np.ascontiguousarray(arrays[name]).data.cast("B"), crc)
    return f"{crc:08x}"
