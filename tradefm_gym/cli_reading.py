"""How the commands read recorded days."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """How to read a recorded day; its format is recognised by its content."""

    lenient: bool = False  # leave out and count rows that no feed can have, instead of ending at the first
    symbol: str | None = None  # the instrument, where the file holds several
    date: str | None = None  # YYYY-MM-DD, where the file does not say
    tick_size: int | None = None  # price units a tick, instead of what the file says or lets guess
    columns: str | None = None  # the column map of another CSV, as JSON or a file of it; see tradefm_gym/data/table.py

    def open(self, path: Path):
        """A file as a feed."""
        from tradefm_gym.data.feed import ReadOptions, open_feed
        from tradefm_gym.data.table import column_map

        columns = None if self.columns is None else column_map(self.columns)
        return open_feed(path, ReadOptions(self.lenient, self.symbol, self.date, self.tick_size, columns))

    def load(self, path: Path):
        """A file as a recorded flow."""
        from tradefm_gym.data.day import load_day
        from tradefm_gym.data.recorded import load
        from tradefm_gym.data.table import column_map

        if path.suffix == ".npz":
            return load_day(path)
        columns = None if self.columns is None else column_map(self.columns)
        return load(
            path, tick_size=self.tick_size, symbol=self.symbol, date=self.date, columns=columns, lenient=self.lenient
        )  # fmt: skip
