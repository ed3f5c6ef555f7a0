"""What is wrong with a file, in one sentence."""

from pathlib import Path


class FeedError(ValueError):
    """A file that cannot be read, or a row that no feed can have.

    Attributes:
        path: the file, as it was named.
        row: number of the row or message in the file, from 0; None where the whole file is meant.
        reason: what is wrong.
    """

    def __init__(self, path: str | Path, reason: str, row: int | None = None):
        self.path, self.row, self.reason = str(path), row, reason
        at = "" if row is None else f"row {row}: "
        super().__init__(f"{path}: {at}{reason.rstrip('.')}.")
