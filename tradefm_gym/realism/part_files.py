"""Part files of a card: rows with a key of all that they depend on, so that a card that is made again reads them."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

from tradefm_gym.realism.rows import Row


def read_rows(path: Path, key: str) -> list[Row] | None:
    """Rows that ``write_rows`` kept with that key; None if there is nothing, or something else."""
    try:
        state = json.loads(path.read_text())
        return [Row.from_json(row) for row in state["rows"]] if state["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_rows(path: Path, key: str, rows: Sequence[Row]) -> None:
    """Keeps rows with their key."""
    write_text(path, json.dumps({"key": key, "rows": [row.to_json() for row in rows]}))


def write_text(path: Path, text: str) -> None:
    """Writes a file under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def file_name(name: str) -> str:
    """A name as part of a file's: the same if it may be, else with a few digits that tell it from others."""
    slug = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)[-60:]
    return slug if slug == name else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def hash_of(*modules: ModuleType) -> str:
    """Twelve hexadecimal digits that change with the code of modules."""
    return hash_of_files(Path(str(module.__file__)) for module in modules)


def hash_of_files(paths: Iterable[Path]) -> str:
    """Twelve hexadecimal digits that change with the content of files, in their order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()[:12]
