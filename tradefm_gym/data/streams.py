"""Files as streams of bytes, whatever they are compressed with: the compression is told by the first bytes."""

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tradefm_gym.data.errors import FeedError

_BROKEN = (EOFError, OSError, zlib.error, lzma.LZMAError, ValueError)


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Opens a file for reading, decompressed on the way.

    Raises:
        ImportError: for zstandard without pyarrow.
    """
    with open(path, "rb") as file:
        magic = file.read(6)
    if magic.startswith(b"\x1f\x8b"):
        return cast(gzip.GzipFile, gzip.open(path, "rb"))
    if magic.startswith(b"\xfd7zXZ"):
        return lzma.open(path, "rb")
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            import pyarrow
        except ImportError as error:
            raise ImportError('Reading zstandard needs pyarrow: pip install "tradefm-gym[data]".') from error
        return io.BufferedReader(_Readable(pyarrow.input_stream(str(path), compression="zstd")))
    return open(path, "rb")


class _Readable(io.RawIOBase):
    """An Arrow stream as a raw Python one, so that readers may ask for lines."""

    def __init__(self, stream):
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file, decompressed; what cannot be decompressed is an error."""
    try:
        with open_bytes(path) as file:
            return file.read(size)
    except _BROKEN as error:
        raise FeedError(path, f"the file cannot be decompressed ({_reason(error)})") from None


def blocks(path: Path, size: int = 1 << 22) -> Iterator[bytes]:
    """The file in pieces of ``size`` bytes, decompressed; the last one is shorter.

    Raises:
        FeedError: where the compressed file ends early or is damaged.
    """
    done, parts, held = 0, [], 0
    try:
        with open_bytes(path) as file:
            while part := file.read1(size - held):  # no more than there is, so that what comes before damage counts
                parts.append(part)
                done, held = done + len(part), held + len(part)
                if held == size:
                    yield b"".join(parts)
                    parts, held = [], 0
        if parts:
            yield b"".join(parts)
    except _BROKEN as error:
        said = f"the file is truncated or damaged after {done:,} decompressed bytes ({_reason(error)})"
        raise FeedError(path, said) from None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
