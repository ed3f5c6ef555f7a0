"""What callers hand in, checked where it comes in: each refusal is one sentence that names the argument.

It says the value and what is allowed. A value that is not allowed, whatever its type, is a ``ValueError``; a name
that does not exist is a ``TypeError``, as Python has it.
"""

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

_SHOWN = 80  # characters of a value in a message
_LISTED = 16  # entries of an array


def shortened(value: Any) -> str:
    """A value as messages show it: on one line, its middle left out where it is long; large arrays by their shape."""
    if isinstance(value, np.ndarray) and value.size > _LISTED:
        return f"an array of shape {value.shape} and dtype {str(value.dtype)[:_SHOWN]}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}...{text[-17:]}"


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """An integer, Python's or NumPy's, from ``least`` to ``most``; a truth value is none."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        if least <= value and (most is None or value <= most):
            return int(value)
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
    raise ValueError(f"{name} is {shortened(value)}; it must be an integer {allowed}")


def flag(name: str, value: Any) -> bool:
    """True or False. Nothing else will do: ``"no"`` and ``"False"`` count as true in Python."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} is {shortened(value)}; it must be True or False")
    return bool(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of the words ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shortened(value)}; it must be one of {', '.join(map(repr, allowed))}")
    return value


def numbers(value: Any, kinds: str = "iuf") -> np.ndarray | None:
    """``value`` as an array if it is one of plain numbers, of these NumPy kinds; else None."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError):  # ragged; a tensor that is elsewhere, or part of a graph
        return None
    return array if array.dtype.kind in kinds else None


def rows_mask(name: str, value: Any, count: int) -> np.ndarray:
    """A boolean array (count,) that says which rows are meant."""
    if not isinstance(value, np.ndarray) or value.dtype != np.bool_ or value.shape != (count,):
        raise ValueError(f"{name} is {shortened(value)}; it must be a boolean array of length {count}")
    return value


def row_numbers(rows: Any, count: int, repeats: bool = False) -> np.ndarray:
    """Numbers of some of ``count`` markets (k,) int64, None for all; none twice, unless ``repeats``."""
    if rows is None:
        return np.arange(count)
    array = numbers(rows)
    if array is None or (array.size and array.dtype.kind == "f"):  # an empty list becomes floats
        raise ValueError(f"rows is {shortened(rows)}; allowed are integers from 0 to {count - 1}.")
    chosen = array.astype(np.int64).reshape(-1)
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= count):
        raise ValueError(f"rows reach from {chosen.min()} to {chosen.max()}; allowed is 0 to {count - 1}.")
    if not repeats and len(np.unique(chosen)) != len(chosen):
        raise ValueError("rows names a market twice; allowed is once.")
    return chosen


@contextmanager
def one_sentence(path: str | os.PathLike, done: str, allowed: str) -> Iterator[None]:
    """What the system says of a file that cannot be ``done`` ("read", "written"), as one sentence of that class."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise type(error)(f"path {os.fspath(path)!r} cannot be {done} ({reason}); it must name {allowed}") from error


def known_names(owner: str, names: Iterable[str], allowed: Sequence[str]) -> None:
    """Refuses names of arguments that ``owner`` does not have."""
    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, 1, 0.7)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{owner} has no argument {name!r}; allowed are {', '.join(allowed) or 'none'}{guess}")
