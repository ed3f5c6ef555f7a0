"""Snapshots as bytes: one format that describes itself, in which equal snapshots have equal bytes. No pickle.

======  =====================================================================================
bytes   what
======  =====================================================================================
8       ``TFGYMKT`` and a zero
4, 4    version of the format, length of the header; unsigned, little-endian as all that follows
header  JSON: ``config``, and of each array ``name``, ``dtype`` and ``shape``; keys sorted, no spaces
...     the arrays as they lie in memory, in the order of the header, which is that of their names
32      SHA-256 of everything before
======  =====================================================================================

A plain ``dtype`` is a string such as ``"<i8"``; one with fields is ``{"fields": [[name, string, offset], ...],
"itemsize": bytes}``. An array of any other kind is refused.
"""

import hashlib
import json
import math
import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tradefm_gym.arguments import shortened
from tradefm_gym.market.config import MarketConfig

MAGIC = b"TFGYMKT\0"
VERSION = 1
DIGEST = hashlib.sha256().digest_size
LITTLE = sys.byteorder == "little"

_PREFIX = struct.Struct("<8sII")
_PLAIN = ("<i8", "<u8", "<i4", "<u4", "<i2", "<u2", "|i1", "|u1", "|b1", "<f8", "<f4")
_MOST_AXES, _WIDEST = 8, 4096  # axes of an array, bytes of an entry
_LONGEST = 500  # characters of a reason


def pack(config: MarketConfig, arrays: Mapping[str, np.ndarray]) -> bytes:
    """A configuration and arrays as bytes."""
    names = sorted(arrays)
    listed = [{"name": name, "dtype": _described(arrays[name].dtype), "shape": arrays[name].shape} for name in names]
    for entry in listed:
        _read_dtype(entry["dtype"])  # what could not be read is not written
    header = json.dumps({"config": config.to_json(), "arrays": listed}, sort_keys=True, separators=(",", ":")).encode()
    parts: list[Any] = [_PREFIX.pack(MAGIC, VERSION, len(header)), header]
    for name in names:
        array = arrays[name] if LITTLE else arrays[name].astype(arrays[name].dtype.newbyteorder())
        parts.append(array.reshape(-1).view(np.uint8).data)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def unpack(data: bytes) -> tuple[MarketConfig, dict[str, np.ndarray]]:
    """The inverse of :func:`pack`; the arrays are copies.

    Raises:
        ValueError: if the bytes are cut off, damaged, of another format or of a newer version. What the arrays
            say is not looked at.
    """
    header, body = _open(data)
    if not isinstance(header, dict) or set(header) != {"config", "arrays"} or not isinstance(header["arrays"], list):
        raise ValueError("data has a header without config and arrays; allowed is a snapshot's.")
    config = _read_config(header["config"])
    arrays, begin = {}, 0
    for entry in header["arrays"]:
        name, dtype, shape = _read_entry(entry)
        end = begin + math.prod(shape) * dtype.itemsize
        if name in arrays or end > len(body):
            raise ValueError(f"data has an array {shortened(name)} twice or longer than what is there.")
        flat = np.frombuffer(bytearray(body[begin:end]), dtype)  # of its own, and where the machine likes it
        arrays[name] = (flat if LITTLE else flat.astype(dtype.newbyteorder())).reshape(shape)
        begin = end
    if begin != len(body):
        raise ValueError(f"data has {len(body) - begin} bytes after its last array; allowed are none.")
    return config, arrays


def _open(data: bytes) -> tuple[Any, memoryview]:
    """The header and the arrays' bytes, once digest and version are what they should be."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ValueError(f"data is {shortened(data)}; allowed are bytes of a snapshot.")
    view = memoryview(data).cast("B")
    if len(view) < len(MAGIC) or bytes(view[: len(MAGIC)]) != MAGIC:
        raise ValueError("data is no snapshot of a market; allowed is what Snapshot.to_bytes returns.")
    if len(view) < _PREFIX.size + DIGEST:
        raise ValueError(f"data is cut off after {len(view)} bytes; allowed is a whole snapshot.")
    _, version, length = _PREFIX.unpack(view[: _PREFIX.size])
    if version != VERSION:
        raise ValueError(f"data is a snapshot of format version {version}; allowed is {VERSION}.")
    if hashlib.sha256(view[:-DIGEST]).digest() != bytes(view[-DIGEST:]):
        raise ValueError("data is a snapshot that was damaged or cut off: its digest differs.")
    begin, end = _PREFIX.size + length, len(view) - DIGEST
    if begin > end:
        raise ValueError(f"data has a header of {length} bytes, more than there are.")
    try:
        return json.loads(bytes(view[_PREFIX.size : begin])), view[begin:end]
    except (ValueError, RecursionError) as error:
        raise ValueError("data has a header that is no JSON.") from error


def _read_config(values: Any) -> MarketConfig:
    rules = values.get("self_trade", "") if isinstance(values, dict) else None
    if not isinstance(rules, str) and not (isinstance(rules, list) and all(isinstance(rule, str) for rule in rules)):
        raise ValueError(f"data has {shortened(values)} as configuration; allowed is that of a market.")
    try:
        return MarketConfig.from_json(values)
    except (ValueError, TypeError) as error:
        reason = str(error) if len(str(error)) < _LONGEST else "a number is far too large."
        raise ValueError(f"data has a configuration that no market has: {reason}") from error


def _read_entry(entry: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "shape"} or not isinstance(entry["name"], str):
        raise ValueError(f"data lists an array as {shortened(entry)}; allowed are name, dtype and shape.")
    shape = entry["shape"]
    counts = isinstance(shape, list) and all(type(count) is int and 0 <= count < 2**40 for count in shape)
    if not counts or not 1 <= len(shape) <= _MOST_AXES:
        raise ValueError(f"data has an array of shape {shortened(shape)}; allowed are 1 to {_MOST_AXES} counts.")
    if 0 in shape and max(shape) > 2**20:  # such a shape costs no bytes, and NumPy multiplies it out
        raise ValueError(f"data has an array of shape {shortened(shape)} without entries; allowed is up to 2^20.")
    return entry["name"], _read_dtype(entry["dtype"]), tuple(shape)


def _described(dtype: np.dtype) -> Any:
    dtype = dtype.newbyteorder("<")
    if dtype.fields is None:
        return dtype.str
    fields = [[name, field.str, offset] for name, (field, offset, *_) in dtype.fields.items()]
    return {"fields": fields, "itemsize": dtype.itemsize}


def _read_dtype(described: Any) -> np.dtype:
    if isinstance(described, str) and described in _PLAIN:
        return np.dtype(described)
    if isinstance(described, dict) and set(described) == {"fields", "itemsize"}:
        fields, itemsize = described["fields"], described["itemsize"]
        if _are_fields(fields) and type(itemsize) is int and 0 < itemsize <= _WIDEST:
            names, formats, offsets = map(list, zip(*fields, strict=True))
            parts = {"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize}
            try:
                return np.dtype(parts, align=True)  # type: ignore[call-overload]
            except ValueError:  # a name twice, or an offset that is no multiple of the field's size
                pass
    raise ValueError(f"data has an array of dtype {shortened(described)}; allowed are plain numbers and their fields.")


def _are_fields(fields: Any) -> bool:
    return (
        isinstance(fields, list)
        and len(fields) > 0
        and all(isinstance(field, list) and len(field) == 3 for field in fields)
        and all(isinstance(name, str) and name.isidentifier() for name, _, _ in fields)
        and all(isinstance(plain, str) and plain in _PLAIN for _, plain, _ in fields)
        and all(type(offset) is int and 0 <= offset < _WIDEST for _, _, offset in fields)
    )
