"""A small made-up market, and its day in the formats that feeds come in: encoders after the specifications."""

import datetime
import random
import struct
from dataclasses import dataclass
from types import SimpleNamespace
from zoneinfo import ZoneInfo

START_NS = 34_200 * 10**9


@dataclass
class Message:
    """What happened to one order; ``price`` in 1e-4, ``event`` as in the shared schema, "U" for a replace."""

    time_ns: int
    event: str  # A add, X partial cancel, D delete, E execution, P hidden execution, U replace
    order_id: int
    side: int
    price: int
    size: int
    new_id: int = 0


def made_up_day(count, seed=0, tick=100, replaces=True):
    """A day of a sound market: makers by price and time, takers that only show as executions."""
    rng = random.Random(seed)
    book = {1: {}, -1: {}}  # side -> price -> list of [id, size]
    live = {}
    messages, time_ns, next_id = [], START_NS, 1
    best = {1: None, -1: None}

    def add(order_id, side, price, size):
        book[side].setdefault(price, []).append([order_id, size])
        live[order_id] = (side, price)
        if best[side] is None or (price - best[side]) * side > 0:
            best[side] = price

    def remove(order_id):
        side, price = live.pop(order_id)
        level = book[side][price]
        level[:] = [order for order in level if order[0] != order_id]
        if not level:
            del book[side][price]
            if price == best[side]:
                best[side] = (max if side > 0 else min)(book[side]) if book[side] else None

    def order_of(order_id):
        side, price = live[order_id]
        return side, price, next(order for order in book[side][price] if order[0] == order_id)

    ids = []
    while len(messages) < count:
        time_ns += rng.randrange(1, 2_000_000)
        what = rng.random()
        if what < 0.5 or len(live) < 40:
            side = rng.choice((1, -1))
            other = best[-side]
            middle = (other if other is not None else 1_000_000) - side * tick * rng.randrange(1, 30)
            price, size = max(tick, middle), rng.randrange(1, 9) * 100
            add(next_id, side, price, size)
            ids.append(next_id)
            messages.append(Message(time_ns, "A", next_id, side, price, size))
            next_id += 1
        elif what < 0.9:
            while True:
                place = rng.randrange(len(ids))
                ids[place], ids[-1] = ids[-1], ids[place]
                order_id = ids[-1]
                if order_id in live:
                    break
                ids.pop()
            side, price, order = order_of(order_id)
            if replaces and what > 0.85:
                size = order[1] + 100
                remove(order_id)
                add(next_id, side, price, size)
                ids.append(next_id)
                messages.append(Message(time_ns, "U", order_id, side, price, size, next_id))
                next_id += 1
            elif what > 0.8 and order[1] > 100:
                order[1] -= 100
                messages.append(Message(time_ns, "X", order_id, side, price, 100))
            else:
                messages.append(Message(time_ns, "D", order_id, side, price, order[1]))
                remove(order_id)
        elif what < 0.99:
            side = rng.choice((1, -1))
            if best[side] is None:
                continue
            price = best[side]
            order = book[side][price][0]
            size = min(order[1], rng.randrange(1, 9) * 100)
            messages.append(Message(time_ns, "E", order[0], side, price, size))
            order[1] -= size
            if order[1] == 0:
                remove(order[0])
        else:
            messages.append(Message(time_ns, "P", 0, 1, 1_000_050, 100))
    return messages


# ---- NASDAQ TotalView-ITCH 5.0 ------------------------------------------------------------------------


def itch_message(kind, locate, time_ns, body):
    return struct.pack(">cHH", kind, locate, 0) + time_ns.to_bytes(6, "big") + body


def framed(*messages):
    return b"".join(struct.pack(">H", len(message)) + message for message in messages)


def itch_directory(stock, locate, time_ns=START_NS - 1000):
    body = stock.ljust(8).encode() + b"QN" + struct.pack(">I", 100) + b"NCZ PNN1N" + struct.pack(">I", 0) + b"N"
    return itch_message(b"R", locate, time_ns, body)


def itch_system(code, time_ns):
    return itch_message(b"S", 0, time_ns, code)


def itch_add(time_ns, order_id, side, size, price, stock, locate, mpid=None):
    body = struct.pack(">QcI", order_id, b"B" if side > 0 else b"S", size) + stock.ljust(8).encode()
    body += struct.pack(">I", price) + (mpid or b"")
    return itch_message(b"F" if mpid else b"A", locate, time_ns, body)


def itch_change(message, locate):
    """The message of anything but an add."""
    time_ns, order_id = message.time_ns, message.order_id
    if message.event == "X":
        return itch_message(b"X", locate, time_ns, struct.pack(">QI", order_id, message.size))
    if message.event == "D":
        return itch_message(b"D", locate, time_ns, struct.pack(">Q", order_id))
    if message.event == "E":
        return itch_message(b"E", locate, time_ns, struct.pack(">QIQ", order_id, message.size, 77))
    if message.event == "U":
        body = struct.pack(">QQII", order_id, message.new_id, message.size, message.price)
        return itch_message(b"U", locate, time_ns, body)
    body = struct.pack(">QcI", 0, b"B", message.size) + b"ABCD    " + struct.pack(">IQ", message.price, 5)
    return itch_message(b"P", locate, time_ns, body)


def itch_file(messages, stock="ABCD", locate=7, other="ZZZ", full=True):
    """A file with a second stock in it, whose orders have the same ids."""
    parts = [itch_system(b"O", START_NS - 2000)] if full else []
    parts += [itch_directory(other, locate + 1), itch_directory(stock, locate)]
    for k, message in enumerate(messages):
        if message.event == "A":
            mpid = b"NSDQ" if k % 5 == 0 else None
            parts.append(
                itch_add(
                    message.time_ns, message.order_id, message.side, message.size, message.price, stock, locate, mpid
                )
            )
        else:
            parts.append(itch_change(message, locate))
        if other and k % 3 == 0:
            parts.append(itch_add(message.time_ns, 5_000_000 + k, 1, 100, 5000, other, locate + 1))
    parts.append(itch_system(b"C", messages[-1].time_ns))
    return framed(*parts)


# ---- Databento MBO ------------------------------------------------------------------------------------


def midnight_ns(date="2025-01-15", zone="UTC"):
    day = datetime.date.fromisoformat(date)
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


def mbo_record(time_ns, order_id, price, size, action, side, flags=128, sequence=0, instrument=42):
    """A record of the MBO schema; price in 1e-9."""
    return struct.pack(
        "<BBHIQQqIBBccQiI", 14, 160, 1, instrument, time_ns, order_id, price, size, flags, 0, action, side, time_ns, 0,
        sequence,
    )  # fmt: skip


def mbo_records(messages, origin):
    """Fills come as trade, fill and the cancel of what was filled."""
    out = []
    for number, message in enumerate(messages):
        time_ns, price = origin + message.time_ns, message.price * 100_000
        side = b"B" if message.side > 0 else b"A"
        taker = b"A" if message.side > 0 else b"B"
        if message.event == "E":
            out.append(mbo_record(time_ns, 0, price, message.size, b"T", taker, 0, number))
            out.append(mbo_record(time_ns, message.order_id, price, message.size, b"F", side, 0, number))
            out.append(mbo_record(time_ns, message.order_id, price, message.size, b"C", side, 128, number))
        elif message.event == "P":
            out.append(mbo_record(time_ns, 0, price, message.size, b"T", b"N", 128, number))
        else:
            action = b"A" if message.event == "A" else b"C"
            out.append(mbo_record(time_ns, message.order_id, price, message.size, action, side, 128, number))
    return out


def dbn_file(messages, date="2025-01-15", symbols=("ABCD",)):
    """A DBN file; its header comes from databento-dbn itself."""
    import databento_dbn

    day = datetime.date.fromisoformat(date)
    mappings = [
        SimpleNamespace(
            raw_symbol=symbol,
            intervals=[SimpleNamespace(start_date=day, end_date=day + datetime.timedelta(days=1), symbol=str(42 + k))],
        )
        for k, symbol in enumerate(symbols)
    ]
    header = databento_dbn.Metadata(
        dataset="GLBX.MDP3", start=midnight_ns(date), stype_in=databento_dbn.SType.RAW_SYMBOL,
        stype_out=databento_dbn.SType.INSTRUMENT_ID, schema=databento_dbn.Schema.MBO, symbols=list(symbols),
        mappings=mappings, end=midnight_ns(date) + 86_400 * 10**9,
    )  # fmt: skip
    return bytes(header) + b"".join(mbo_records(messages, midnight_ns(date)))


# ---- CSV ----------------------------------------------------------------------------------------------

CSV_MAP = {
    "columns": {"time": "ts", "event": "type", "order_id": "id", "side": "side", "price": "px", "size": "qty"},
    "events": {"new": "add", "reduce": "partial_cancel", "cancel": "delete", "fill": "execution", "print": "hidden"},
    "sides": {"B": "buy", "S": "sell"},
    "time": "ns",
    "price_unit": "1e-4",
    "tick_size": 100,
    "ticker": "ABCD",
    "date": "2025-01-15",
}
_CSV_EVENTS = {"A": "new", "X": "reduce", "D": "cancel", "E": "fill", "P": "print"}


def csv_file(messages):
    """What CSV_MAP describes: prices as decimals."""
    lines = ["ts,type,id,side,px,qty,venue"]
    for m in messages:
        side = "B" if m.side > 0 else "S"
        price = f"{m.price // 10_000}.{m.price % 10_000:04d}"
        lines.append(f"{m.time_ns},{_CSV_EVENTS[m.event]},{m.order_id},{side},{price},{m.size},X")
    return ("\n".join(lines) + "\n").encode()


_LOBSTER = {"A": 1, "X": 2, "D": 3, "E": 4, "P": 5}
LOBSTER_NAME = "ABCD_2025-01-15_34200000_57600000_message_10.csv"


def lobster_file(messages):
    """A message file of LOBSTER."""
    lines = []
    for m in messages:
        seconds = f"{m.time_ns // 10**9}.{m.time_ns % 10**9:09d}"
        lines.append(f"{seconds},{_LOBSTER[m.event]},{m.order_id},{m.size},{m.price},{m.side}")
    return ("\n".join(lines) + "\n").encode()
