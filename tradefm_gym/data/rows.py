"""Rows of a recorded feed in one schema, and what has to happen to them before takers can be rebuilt.

The schema is that of ``events.parquet`` in the project's data folders: one row per message, the id,
side and price being those of the *resting* order. Row order is the venue's message order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tradefm_gym.data.clock import out_of_order

ADD, PARTIAL_CANCEL, DELETE, EXECUTION, HIDDEN, CROSS, HALT = range(7)

# Bits of ``flag``.
SNAPSHOT = 1  # a row of the opening book
OWN_FILL = 2  # the taker's own fill, beside the resting order's
NO_SIDE = 4  # auction or side-less fill
FIRST_SEEN = 8  # an add of an order first seen in a modify
OTHER_PRICE = 16  # executed at another price than the order's, as the feed itself says

_COLUMNS = ("time_ns", "event", "order_id", "side", "price", "size", "flag")


@dataclass(frozen=True)
class FeedRows:
    """n feed rows: ``time_ns``, ``order_id``, ``price``, ``size`` int64; ``event``, ``side``, ``flag`` int8.

    ``price`` is in units of the set (not ticks), ``size`` in raw units (not lots). ``source`` (n,) int64
    is the row number in the file, which survives every reordering below.
    """

    time_ns: np.ndarray
    event: np.ndarray
    order_id: np.ndarray
    side: np.ndarray
    price: np.ndarray
    size: np.ndarray
    flag: np.ndarray
    source: np.ndarray

    @classmethod
    def build(cls, time_ns, event, order_id, side, price, size, flag=None, first: int = 0) -> "FeedRows":
        """Number the rows of a file from ``first`` on; columns must hold whole numbers.

        Raises:
            ValueError: if a column holds text, missing values or fractions, or does not fit; it names column and row.
        """
        n = len(time_ns)
        named = zip(_COLUMNS, (time_ns, event, order_id, side, price, size, flag), strict=True)
        for name, column in named:
            if column is not None:
                _check_whole(name, np.asarray(column), first)
        flag = np.zeros(n, np.int8) if flag is None else flag
        return cls(
            *(
                np.ascontiguousarray(a, np.int64) if wide else np.ascontiguousarray(a, np.int8)
                for a, wide in (
                    (time_ns, True),
                    (event, False),
                    (order_id, True),
                    (side, False),
                    (price, True),
                    (size, True),
                    (flag, False),
                )
            ),
            np.arange(first, first + n, dtype=np.int64),
        )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.time_ns)

    def take(self, index: np.ndarray) -> "FeedRows":
        """The rows of ``index`` (integers or a mask), in that order."""
        return FeedRows(*(getattr(self, name)[index] for name in (*_COLUMNS, "source")))

    def concat(self, other: "FeedRows") -> "FeedRows":
        """These rows, then those of ``other``."""
        return FeedRows(*(np.concatenate([getattr(self, c), getattr(other, c)]) for c in (*_COLUMNS, "source")))


def _check_whole(name: str, column: np.ndarray, first: int) -> None:
    if column.dtype.kind not in "iufb":
        raise ValueError(f"column {name} has type {column.dtype}; it must hold whole numbers")
    bits = 8 if name in ("event", "side", "flag") else 64
    rule, wrong = "it must hold whole numbers", np.zeros(len(column), bool)
    if column.dtype.kind == "f":
        wrong = ~np.isfinite(column) | (column != np.floor(column))
    if not wrong.any() and (column.dtype.kind in "fu" or bits == 8):  # others fit as they are
        rule = f"it must lie in [-2^{bits - 1}, 2^{bits - 1})"
        wrong = (column >= 2.0 ** (bits - 1)) | (column < -(2.0 ** (bits - 1)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"column {name} is {column[row]} in row {first + row}; {rule}")


@dataclass(frozen=True)
class Source:
    """What a reader hands over: the rows of a file, what is known about them, and the book file if there is one."""

    rows: FeedRows
    meta: dict
    # Source rows (k,) -> (k, levels, 4) int64 ask price, ask size, bid price, bid size, in raw units.
    book: Callable[[np.ndarray], np.ndarray] | None


def validate(rows: FeedRows, tick: int, where: str) -> None:
    """Refuse what cannot be a feed, naming the first bad row.

    Args:
        rows: the rows as read.
        tick: tick size in price units.
        where: what to call the source in the message.
    """
    if len(rows) == 0:
        raise ValueError(f"{where}: the feed has no rows.")
    if tick <= 0:
        raise ValueError(f"{where}: tick_size is {tick}; it must be a positive number of price units.")
    checks = (
        ((rows.time_ns < -(2**61)) | (rows.time_ns > 2**61), "time_ns", rows.time_ns, "times lie within 2^61 ns"),
        (out_of_order(rows.time_ns), "time_ns", rows.time_ns, "time must not decrease"),
        ((rows.event < ADD) | (rows.event > HALT), "event", rows.event, "event codes are 0 to 6"),
        (np.abs(rows.side) > 1, "side", rows.side, "sides are +1, -1 or 0"),
        ((rows.size <= 0) & (rows.event != HALT), "size", rows.size, "sizes must be positive"),
        ((rows.side == 0) & (rows.event <= EXECUTION), "side", rows.side, "orders need a side of +1 or -1"),
        # Executions of hidden orders may happen at the midpoint; orders on the book may not.
        ((rows.price % tick != 0) & (rows.event <= EXECUTION), "price", rows.price, f"prices are multiples of {tick}"),
        (np.abs(rows.price) // tick >= 2**29, "price", rows.price, "prices must stay below 2^29 ticks"),
    )
    for bad, name, values, rule in checks:
        if bad.any():
            at = int(np.argmax(bad))
            row, count = int(rows.source[at]), int(bad.sum())
            raise ValueError(f"{where}: {name} is {values[at]} in row {row}; {rule} ({count} such rows).")


def dense_ids(rows: FeedRows) -> tuple[np.ndarray, np.ndarray]:
    """Give every *life* of an order its own number: an id that is added again is a new order.

    Returns:
        ``life`` (n,) int64, -1 for rows that name no order, and ``born`` (lives,) int64: the row of the
        add, or -1 for an order that is only ever cancelled or executed (it rested before the feed began).
    """
    n = len(rows)
    named = (rows.event <= EXECUTION) | ((rows.event == CROSS) & (rows.order_id > 0))
    order = np.lexsort((np.arange(n), rows.order_id))
    ids = rows.order_id[order]
    added = np.cumsum((rows.event == ADD)[order])
    first = np.r_[True, ids[1:] != ids[:-1]]
    # Adds seen before this id's first row, subtracted so that each id counts its own adds only.
    before = np.maximum.accumulate(np.where(first, added - (rows.event == ADD)[order], 0))
    generation = np.empty(n, np.int64)
    generation[order] = added - before
    keys = np.stack([rows.order_id, generation], axis=1)[named]
    life = np.full(n, -1, np.int64)
    if len(keys):
        _, where, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(where), np.int64)
        rank[np.argsort(where)] = np.arange(len(where))  # numbered by first appearance
        life[named] = rank[inverse.reshape(-1)]
    born = np.full(int(life.max(initial=-1)) + 1, -1, np.int64)
    adds = np.flatnonzero((rows.event == ADD) & (life >= 0))
    born[life[adds]] = adds
    return life, born


def resting_price(rows: FeedRows, life: np.ndarray, born: np.ndarray) -> np.ndarray:
    """Price of each life (lives,) int64: of its add, else of its last cancel, else of its last execution."""
    price = np.zeros(len(born), np.int64)
    for events in ((EXECUTION, CROSS), (PARTIAL_CANCEL, DELETE), (ADD,)):
        hit = np.flatnonzero(np.isin(rows.event, events) & (life >= 0))
        price[life[hit]] = rows.price[hit]
    return price
