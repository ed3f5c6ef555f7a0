"""What would the realism card notice on a recorded day? Its test part, broken on purpose, in the place of a flow.

python examples/try_the_card.py DAY [DAY ...]
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from tradefm_gym.cli_reading import Reading
from tradefm_gym.realism.measured import Measured, measure
from tradefm_gym.realism.path import MarketPath
from tradefm_gym.realism.recorded_set import RecordedSet
from tradefm_gym.realism.rows import Row
from tradefm_gym.realism.sections import Subject, conditional_distances, distances, health
from tradefm_gym.realism.verdict import judged

PRICES, SIZES = [0, 2], [1, 3]  # columns of a book


@dataclass
class Arguments:
    """Which days."""

    days: tyro.conf.Positional[tuple[Path, ...]]


def untouched(path: MarketPath) -> MarketPath:
    """As it was."""
    return path


def doubled_sizes(path: MarketPath) -> MarketPath:
    """Orders, fills and depths twice as large."""
    records, book, fills = path.records.copy(), path.book.copy(), path.fills.copy()
    for name in ("size", "filled"):
        records[name] *= 2
    book[:, :, SIZES] *= 2
    fills["size"] *= 2
    return replace(path, records=records, book=book, fills=fills)


def halved_spread(path: MarketPath) -> MarketPath:
    """Touches half as far from each other."""
    book = path.book.copy()
    quarter = (book[:, 0, 0] - book[:, 0, 2]) // 4
    book[:, 0, 0] -= quarter
    book[:, 0, 2] += quarter
    return replace(path, book=book)


def shuffled_waits(path: MarketPath) -> MarketPath:
    """The same waits in any order: no calm and no hectic spells."""
    waits = np.diff(path.records["time_ns"], prepend=path.start_ns)
    return _timed(path, np.random.default_rng(0).permutation(waits))


def poisson_waits(path: MarketPath) -> MarketPath:
    """Waits without memory, as long on average."""
    waits = np.random.default_rng(0).exponential(1.0, len(path))
    return _timed(path, waits * ((path.end_ns - path.start_ns) / waits.sum()))


def doubled_returns(path: MarketPath) -> MarketPath:
    """A mid that strays twice as far from where it began."""
    book, records = path.book.copy(), path.records.copy()
    mid = (book[:, 0, 0] + book[:, 0, 2]) // 2
    strayed = np.where(path.two_sided, mid - mid[path.two_sided.argmax()], 0)
    for column in PRICES:
        book[:, :, column] = np.where(book[:, :, column] > 0, book[:, :, column] + strayed[:, None], 0)
    records["price"] += np.where(records["price"] > 0, strayed, 0).astype(records["price"].dtype)
    return replace(path, book=book, records=records)


def takers_at_random(path: MarketPath) -> MarketPath:
    """The same takers, on either side by the toss of a coin."""
    return _sided(path, np.random.default_rng(0).choice([-1, 1], len(path)))


def takers_buy(path: MarketPath) -> MarketPath:
    """The same takers, and all of them buy."""
    return _sided(path, np.ones(len(path), np.int64))


def prices_apart(path: MarketPath) -> MarketPath:
    """The mid moves as far as before, up or down by the toss of a coin for each 32 events, whoever takes."""
    signs = np.repeat(np.random.default_rng(0).choice([-1, 1], len(path) // 32 + 1), 32)[: len(path)]
    book, records = path.book.copy(), path.records.copy()
    good = np.maximum.accumulate(np.where(path.two_sided, np.arange(len(path)), 0))
    mid = ((book[:, 0, 0] + book[:, 0, 2]) // 2)[good]
    shift = mid[0] + np.cumsum(np.diff(mid, prepend=mid[0]) * signs) - mid
    for column in PRICES:
        book[:, :, column] = np.where(book[:, :, column] > 0, book[:, :, column] + shift[:, None], 0)
    before = np.concatenate([[0], shift[:-1]]).astype(records["price"].dtype)
    records["price"] += np.where(records["price"] > 0, before, 0).astype(before.dtype)
    return replace(path, book=book, records=records)


def _sided(path: MarketPath, sides: np.ndarray) -> MarketPath:
    records = path.records.copy()
    records["side"] = np.where(path.takes, sides, records["side"])
    return replace(path, records=records)


def _timed(path: MarketPath, waits: np.ndarray) -> MarketPath:
    records = path.records.copy()
    records["time_ns"] = path.start_ns + np.cumsum(waits.astype(np.int64))
    return replace(path, records=records)


BREAKS: dict[str, Callable[[MarketPath], MarketPath]] = {
    "nothing": untouched,
    "sizes doubled": doubled_sizes,
    "spread halved": halved_spread,
    "waits shuffled": shuffled_waits,
    "waits without memory": poisson_waits,
    "returns doubled": doubled_returns,
    "takers' sides at random": takers_at_random,
    "takers buy only": takers_buy,
    "prices apart from takers": prices_apart,
}


def noticed(day: RecordedSet) -> dict[str, str]:
    """For each of ``BREAKS`` the rules that fail, or else those that are unclear."""
    test, real = day.test_path(), measure([day.test_path()])
    arms = {"real": real, "drift": measure([day.path.between(*day.part("train"))]), "floor": Measured()}
    base = [row for name, measured in arms.items() for row in _rows(day.name, name, measured, real)]
    found = {}
    for name, broken in BREAKS.items():
        rows = base + _rows(day.name, "flow", measure([broken(test)]), real)
        findings = judged(rows, day.name, "flow")[-1].findings
        by_outcome = {of: [one.rule for one in findings if one.outcome == of] for of in ("fails", "unclear")}
        failed, unclear = (", ".join(rules) for rules in by_outcome.values())
        found[name] = failed or (f"unclear: {unclear}" if unclear else "no")
    return found


def _rows(set_name: str, arm: str, measured: Measured, real: Measured) -> list[Row]:
    subject = Subject(set_name, arm, measured, real)
    return [row for section in (distances, conditional_distances, health) for row in section(subject)]


def main(arguments: Arguments) -> None:
    """Print a table."""
    print("| broken | " + " | ".join(path.stem for path in arguments.days) + " |")
    print("|---|" + "---|" * len(arguments.days))
    columns = [noticed(RecordedSet(path.stem, lambda path=path: Reading().load(path), "")) for path in arguments.days]
    for name in BREAKS:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
