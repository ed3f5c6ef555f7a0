"""CSV files as batches of text columns, and text as whole numbers, exactly: nothing passes through a float."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import Skips
from tradefm_gym.data.streams import blocks

MISSING = np.int64(-(2**63))  # a value that the file leaves empty


def text_batches(
    path: Path,
    wanted: Sequence[str],
    skips: Skips,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    block: int = 1 << 21,
) -> Iterator[tuple[np.ndarray, dict]]:
    """The wanted columns of a CSV in batches: row numbers (n,) int64 and Arrow text arrays by name.

    Args:
        path: the file, whatever it is compressed with.
        wanted: names of columns.
        skips: lines with another number of columns raise, or are left out and counted.
        delimiter: what separates columns.
        names: names of all columns where the file has no header.
        block: bytes of text a batch.
    """
    try:
        import pyarrow
        from pyarrow import csv
    except ImportError as error:
        raise ImportError('Reading CSV needs pyarrow: pip install "tradefm-gym[data]".') from error
    columns = [_plain(name) for name in wanted]
    dropped: list[int] = []

    def invalid(row) -> str:
        dropped.append(row.number - 1)
        return "skip"

    parse = csv.ParseOptions(delimiter=delimiter, invalid_row_handler=invalid)
    convert = csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pyarrow.string()), include_columns=columns, strings_can_be_null=True,
        null_values=[""], check_utf8=False,
    )  # fmt: skip
    given = None if names is None else [_plain(name) for name in names]
    first = 0
    for lines in _whole_lines(path, block):
        if given is None:
            head, _, lines = lines.partition(b"\n")
            given = _split_header(head.decode(), delimiter)
        # Arrow numbers the rows of what it is given at once, and passes over empty lines.
        numbers, first = _numbers(lines, first)
        if len(numbers) == 0:
            continue
        read = csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=given)
        dropped.clear()
        try:
            table = csv.read_csv(io.BytesIO(lines), read, parse, convert).combine_chunks()
        except (pyarrow.ArrowException, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
            raise FeedError(path, f"not a CSV that can be read: {reason}", int(numbers[0])) from None
        if len(table) + len(dropped) != len(numbers):  # values with line ends in them
            numbers = numbers[0] + np.arange(len(table) + len(dropped))
            first = int(numbers[-1]) + 1
        if dropped:
            skips.bad("a line has another number of columns", int(numbers[dropped[0]]), count=len(dropped))
        if len(table):
            yield np.delete(numbers, dropped), {name: table.column(_plain(name)).chunk(0) for name in wanted}


def _whole_lines(path: Path, size: int) -> Iterator[bytes]:
    """A file in pieces of about ``size`` bytes that end with a line, in plain ASCII.

    Bytes beyond it are question marks: Arrow hands no bad line over that is no UTF-8.
    """
    rest = b""
    for block in blocks(path, size):
        data = rest + block.translate(_PLAIN)
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if end:
            yield data[:end]
        if len(rest) > max(size, 1 << 20):
            raise FeedError(path, "a line is longer than a megabyte; the file is no table")
    if rest:
        yield rest


def _numbers(lines: bytes, first: int) -> tuple[np.ndarray, int]:
    """Numbers (n,) int64 of the lines that are not empty, if theirs count from ``first``, and the next number."""
    count = lines.count(b"\n") + (not lines.endswith(b"\n"))
    numbers = np.arange(first, first + count)
    if lines.startswith((b"\n", b"\r\n")) or b"\n\n" in lines or b"\n\r\n" in lines:
        numbers = numbers[[bool(line.strip(b"\r")) for line in lines.split(b"\n")[:count]]]
    return numbers, first + count


_PLAIN = bytes(range(128)) + b"?" * 128


def _plain(name: str) -> str:
    return name.encode().translate(_PLAIN).decode()


def header(path: Path, delimiter: str = ",") -> list[str]:
    """The names in the first line of a file."""
    from tradefm_gym.data.streams import head

    line = head(path, 1 << 16).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    return _split_header(line, delimiter)


def _split_header(line: str, delimiter: str) -> list[str]:
    return [name.strip().strip('"') for name in line.split(delimiter)]


def said(text, row: int) -> str | None:
    """One value of a text array; bytes that are no text are shown as such."""
    value = text[row]
    return value.as_buffer().to_pybytes().decode("utf-8", "replace") if value.is_valid else None


def whole(text, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Decimal text times 10^digits: values (n,) int64, MISSING where empty, and which are no such number."""
    import pyarrow.compute as pc
    from pyarrow import ArrowException, decimal128

    kind = decimal128(38, max(digits, 0))
    try:
        values, wrong = _integers(pc.cast(text, kind)), np.zeros(len(text), bool)
    except ArrowException:
        values, wrong = np.zeros(len(text), np.int64), np.zeros(len(text), bool)
        for k in range(len(text)):
            try:
                values[k : k + 1] = _integers(pc.cast(text.slice(k, 1), kind))
            except (ArrowException, OverflowError):
                wrong[k] = True
    except OverflowError:
        values, wrong = _one_by_one(text, kind)
    if digits < 0:
        held = ~wrong & (values != MISSING)
        scale = 10**-digits
        wrong |= held & (values % scale != 0)
        values = np.where(held, values // scale, values)
    return values, wrong


def _one_by_one(text, kind) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.compute as pc

    values, wrong = np.zeros(len(text), np.int64), np.zeros(len(text), bool)
    for k in range(len(text)):
        try:
            values[k : k + 1] = _integers(pc.cast(text.slice(k, 1), kind))
        except OverflowError:
            wrong[k] = True
    return values, wrong


def _integers(decimals) -> np.ndarray:
    """The unscaled values of an array of decimal128, MISSING where null."""
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)[
        decimals.offset : decimals.offset + len(decimals)
    ]
    null = decimals.is_null().to_numpy(zero_copy_only=False)
    if ((words[:, 1] != words[:, 0] >> 63) & ~null).any():
        raise OverflowError("a number takes more than 64 bits")
    return np.where(null, MISSING, words[:, 0])


def moments(text, zone: str) -> tuple[np.ndarray, np.ndarray]:
    """ISO 8601 text as nanoseconds since 1970 (n,) int64, read in ``zone`` where it names none; which are none."""
    import pyarrow
    import pyarrow.compute as pc

    def plain(part):
        return pc.cast(
            pc.assume_timezone(
                pc.cast(part, pyarrow.timestamp("ns")), zone, ambiguous="earliest", nonexistent="earliest"
            ),
            pyarrow.int64(),
        )

    def zoned(part):
        return pc.cast(pc.cast(part, pyarrow.timestamp("ns", "UTC")), pyarrow.int64())

    for read in (zoned, plain):
        try:
            out = read(text)
            return np.asarray(out.fill_null(int(MISSING))), out.is_null().to_numpy(zero_copy_only=False)
        except pyarrow.ArrowException:
            continue
    values, wrong = np.zeros(len(text), np.int64), np.ones(len(text), bool)
    for k in range(len(text)):
        for read in (zoned, plain):
            try:
                out = read(text.slice(k, 1))
                if not out.is_null().to_numpy(zero_copy_only=False)[0]:
                    values[k], wrong[k] = out[0].as_py(), False
                break
            except pyarrow.ArrowException:
                continue
    return values, wrong


def codes(text, meanings: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (n,) int64 that the texts stand for, MISSING where empty, and which stand for none."""
    import pyarrow
    import pyarrow.compute as pc

    known = pyarrow.array(list(meanings), pyarrow.string())
    at = pc.index_in(text, known)
    null = text.is_null().to_numpy(zero_copy_only=False)
    unknown = at.is_null().to_numpy(zero_copy_only=False) & ~null
    place = np.asarray(at.fill_null(0)).astype(np.int64)
    values = np.array(list(meanings.values()) or [0], np.int64)[place]
    return np.where(null, MISSING, values), unknown
