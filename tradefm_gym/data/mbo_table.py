"""Databento's CSV of market-by-order messages, as its website delivers it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tradefm_gym.data import arrow_csv
from tradefm_gym.data.arrow_csv import MISSING
from tradefm_gym.data.errors import FeedError
from tradefm_gym.data.feed import ReadOptions, Skips
from tradefm_gym.data.mbo import MESSAGE, UNDEFINED_PRICE

_LETTERS = {letter: ord(letter) for letter in "ABCFMNRT"}
_COLUMNS = ("ts_event", "ts_recv", "action", "side", "price", "size", "order_id", "flags")


class First(NamedTuple):
    """What the first message says about the file."""

    publisher_id: int
    symbol: str
    time_ns: int


def first_row(path: Path) -> First:
    """The first message of a file."""
    names = arrow_csv.header(path)
    columns = [name for name in ("publisher_id", "symbol", "ts_event") if name in names]
    for _, text in arrow_csv.text_batches(path, columns, Skips(str(path), True), block=1 << 16):
        if len(text["ts_event"]) == 0:
            continue
        time_ns, wrong = _time(text["ts_event"].slice(0, 1))
        if wrong[0]:
            raise FeedError(path, f"ts_event is {arrow_csv.said(text['ts_event'], 0)!r}; it must be a time", 0)
        publisher = arrow_csv.said(text["publisher_id"], 0) if "publisher_id" in text else ""
        symbol = arrow_csv.said(text["symbol"], 0) if "symbol" in text else None
        return First(int(publisher) if publisher and publisher.isdigit() else 0, symbol or path.name, int(time_ns[0]))
    raise FeedError(path, "the feed has no rows")


def messages(path: Path, options: ReadOptions, skips: Skips) -> Iterator[np.ndarray]:
    """Messages (n,) MESSAGE in batches, prices in 1e-9 and times since 1970."""
    import pyarrow.compute as pc

    from tradefm_gym.data.dbn import checked

    named = "symbol" in arrow_csv.header(path)
    symbol = options.symbol
    for rows, text in arrow_csv.text_batches(path, (*_COLUMNS, "symbol") if named else _COLUMNS, skips):
        out = np.zeros(len(rows), MESSAGE)
        out["row"] = rows
        event, wrong = _time(text["ts_event"])
        received, late = _time(text["ts_recv"])
        wrong |= late
        price, off = _price(text["price"])
        columns = {"price": price}
        wrong |= off
        for name in ("size", "order_id", "flags"):
            columns[name], off = arrow_csv.whole(text[name], 0)
            wrong |= off | (columns[name] == MISSING)
        wrong |= (columns["flags"] < 0) | (columns["flags"] > 255)
        for name in ("action", "side"):
            columns[name], off = arrow_csv.codes(text[name], _LETTERS)
            wrong |= off | (columns[name] == MISSING)
        if wrong.any():
            row = int(np.argmax(wrong))
            shown = ",".join(str(arrow_csv.said(text[name], row)) for name in _COLUMNS)[:120]
            skips.bad(
                "a column is no number or letter of the schema",
                int(rows[row]),
                f"{shown!r} is no message",
                int(wrong.sum()),
            )
        for name, values in columns.items():
            out[name] = np.where(wrong, 0, values)
        out["time_ns"] = np.where(columns["flags"] & 32 != 0, received, event)
        keep = ~wrong
        if named:
            symbols = text["symbol"]
            if symbol is None:
                symbol = arrow_csv.said(symbols, 0)
            mine = np.asarray(pc.equal(symbols, symbol or "").fill_null(False))
            if options.symbol is None and not mine.all():
                other = arrow_csv.said(symbols, int(np.argmin(mine)))
                raise FeedError(path, f"the file holds several symbols ({symbol}, {other}, ...); name one of them")
            keep &= mine
        yield checked(out[keep], skips)


def _time(text) -> tuple[np.ndarray, np.ndarray]:
    """ISO times, or nanoseconds since 1970."""
    if len(text) and (arrow_csv.said(text, 0) or "").isdigit():
        values, wrong = arrow_csv.whole(text, 0)
    else:
        values, wrong = arrow_csv.moments(text, "UTC")
    return values, wrong | (values == MISSING)


def _price(text) -> tuple[np.ndarray, np.ndarray]:
    """Prices in 1e-9; files give them as decimals, or as whole numbers in that unit."""
    import pyarrow.compute as pc

    decimal = pc.any(pc.match_substring(text.fill_null(""), ".")).as_py()
    values, wrong = arrow_csv.whole(text, 9 if decimal else 0)
    return np.where(values == MISSING, UNDEFINED_PRICE, values), wrong
