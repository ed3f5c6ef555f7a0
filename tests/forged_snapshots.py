"""Bytes of a snapshot to be forged: a sound one, and what gives a forged one its digest or another header."""

import hashlib
import json
import struct
from functools import cache

from forked_markets import CONFIG, run

from tradefm_gym.market import layout

DONE = 12  # steps of the streams before


@cache
def sound(config=CONFIG):
    """Bytes of two markets in the middle of a stream, with orders of all owners, dead slots and waiting events."""
    snapshot = run(2, DONE, 2, config).market.snapshot()
    arrays = snapshot.arrays
    first = arrays["orders"][: arrays["row"][0, layout.HIGH_WATER]]
    assert {1, -1} <= set(first["side"].tolist()) and {-1, 0, 1, 2} <= set(arrays["orders"]["owner"].tolist())
    assert (first["size"] == 0).any() and len(arrays["flow_queue"]) and len(arrays["agent_queue"]) > 1
    assert config == CONFIG or (len(arrays["log"]) > 9 and arrays["row"][1, layout.LOG_END] and arrays["arrived"].all())
    return snapshot.to_bytes()


def sealed(data):
    """Bytes with the digest that they should have."""
    return bytes(data[:-32]) + hashlib.sha256(data[:-32]).digest()


def with_header(change):
    """Sound bytes with another header."""
    data = sound()
    length = struct.unpack("<I", data[12:16])[0]
    header = json.loads(data[16 : 16 + length])
    change(header)
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return sealed(data[:12] + struct.pack("<I", len(text)) + text + data[16 + length :])
