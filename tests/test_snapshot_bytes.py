"""Bytes that no market wrote: one sentence, or a market in order; never a crash, a hang or half a restored market."""

import struct

import numpy as np
import pytest
from forged_snapshots import DONE, sealed, sound, with_header
from forked_markets import CONFIG, LATE, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from market_checks import JIT

from tradefm_gym.market import layout, snapshot_kernels
from tradefm_gym.market.events import BACKGROUND, LAST_ANCHOR, ORDER
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot
from tradefm_gym.market.snapshot_bytes import pack, unpack

FUZZED = settings(
    max_examples=400 if JIT else 25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


BOTH = pytest.mark.parametrize("config", [CONFIG, LATE])


def assert_refused_or_in_order(data):
    """Whether bytes were taken; if so, a market made of them is in order and goes on."""
    try:
        snapshot = Snapshot.from_bytes(data)
    except ValueError as error:
        assert str(error).endswith(".") and "\n" not in str(error) and len(str(error)) < 400
        return False
    assert snapshot.to_bytes() == data
    if snapshot.config not in (CONFIG, LATE):
        return True
    market = MarketSimulator(2, snapshot.config)
    before = market.snapshot()
    try:
        market.restore(snapshot)
    except ValueError:
        assert market.snapshot() == before
        return False
    assert Snapshot.of(snapshot.config, market._arrays(), np.arange(2)) == snapshot
    herd = run(2, 0, 2, snapshot.config)
    herd.market, herd.steps = market, DONE
    for m in range(2):
        herd.seen(m)
    after = market.snapshot()  # with another seed, say, seats may have heard of more
    assert after == snapshot or snapshot.config == LATE
    market.restore(after)
    assert market.snapshot() == after
    herd.step()
    herd.seen(0)
    return True


@BOTH
@settings(FUZZED)
@given(data=st.data())
def test_damaged_bytes_are_refused(config, data):
    whole = bytearray(sound(config))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(whole) != sound(config):
        with pytest.raises(ValueError):
            Snapshot.from_bytes(bytes(whole))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 15, 16, 40, 47, 48, 500, 5000, -33, -32, -1])
def test_truncated_bytes_are_refused(length):
    with pytest.raises(ValueError, match=r"^data is .*\.$"):
        Snapshot.from_bytes(sound()[:length])
    assert not assert_refused_or_in_order(sealed(sound()[:length]))


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of extreme times, where the compiler is off
@BOTH
@settings(FUZZED)
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_bytes_with_a_digest_make_no_broken_market(config, flips):
    whole = bytearray(sound(config))
    for place, mask in flips:
        whole[int(place * (len(whole) - 33))] ^= mask
    assert_refused_or_in_order(sealed(whole))


@pytest.mark.filterwarnings("ignore:overflow encountered")  # of extreme times, where the compiler is off
@BOTH
@settings(FUZZED)
@given(data=st.data())
def test_numbers_written_over_make_no_broken_market(config, data):
    config, arrays = unpack(sound(config))
    under_way = ("log", "seen", "arrived", "sent", "names", "view_0_orders", "view_2_row") * (config == LATE)
    names = [name for name in sorted(arrays) if arrays[name].size]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(("orders", "orders", *under_way, *names)))
        array = arrays[name]
        if array.dtype.names:
            array = array[data.draw(st.sampled_from(array.dtype.names))]
        bounds = np.iinfo(array.dtype)
        interesting = st.integers(-2, 60) | st.sampled_from((bounds.min, bounds.max)) | st.integers(-(2**40), 2**40)
        value = min(max(data.draw(interesting), bounds.min), bounds.max)
        array[tuple(data.draw(st.integers(0, length - 1)) for length in array.shape)] = value
    assert_refused_or_in_order(pack(config, arrays))


KEYS = st.sampled_from(("name", "dtype", "shape", "fields", "itemsize", "self_trade", "levels"))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@settings(FUZZED)
@given(ANYTHING, st.sampled_from(("config", "arrays", "entry", "dtype", "shape", "name")))
def test_headers_of_any_form_are_refused(anything, where):
    def change(header):
        if where in ("config", "arrays"):
            header[where] = anything
        elif where == "entry":
            header["arrays"][3] = anything
        else:
            header["arrays"][3][where] = anything

    assert not assert_refused_or_in_order(with_header(change))


def edited(name, edit, config=CONFIG):
    """Sound bytes with one array changed in place, or replaced by what ``edit`` returns."""
    config, arrays = unpack(sound(config))
    changed = edit(arrays[name])
    arrays[name] = arrays[name] if changed is None else changed
    return pack(config, arrays)


def put(name, place, value, field=None, config=CONFIG):
    def edit(array):
        (array if field is None else array[field])[place] = value

    return lambda: edited(name, edit, config)


def late(name, place, value, field=None):
    return put(name, place, value, field, LATE)


def first(condition):
    """Place of the first order for which a condition holds."""
    orders = unpack(sound())[1]["orders"]
    return int(np.flatnonzero(condition(orders))[0])


def live(field, value):
    return lambda: put("orders", first(lambda orders: orders["size"] > 0), value, field)()


def with_array(name, array):
    config, arrays = unpack(sound())
    return pack(config, {**arrays, name: array})


def circle():
    """Two orders that queue behind each other."""

    def edit(orders):
        alone = np.flatnonzero((orders["size"] > 0) & (orders["prev"] < 0) & (orders["next"] < 0))
        one, two = (int(slot) for slot in alone[:2])
        orders["price"][two], orders["side"][two] = orders["price"][one], orders["side"][one]
        orders["next"][one], orders["next"][two], orders["prev"][one], orders["prev"][two] = two, one, two, one

    return edited("orders", edit)


def twice(*fields):
    """The second of two live orders of market 0 takes fields of the first."""

    def edit(orders):
        count = int(unpack(sound())[1]["row"][0, layout.HIGH_WATER])
        alone = (orders["size"] > 0) & (orders["prev"] < 0) & (orders["next"] < 0) & (orders["owner"] < 0)
        one, two = (int(slot) for slot in np.flatnonzero(alone[:count])[:2])
        for field in fields:
            orders[field][two] = orders[field][one]

    return lambda: edited("orders", edit)


def crowded_log(markets, length):
    """Markets that all claim so long a log; eight times 2^61 are 0 in 64 bits, and so much is there."""
    arrays = {name: array.copy() for name, array in MarketSimulator(markets, LATE).snapshot().arrays.items()}
    arrays["row"][:, layout.LOG_END] = length
    return pack(LATE, arrays)


CLOCKS = (layout.MID2, "doubled mid of -1"), (layout.RECORDS, "records of -1"), (layout.HALTED, "halts of -1")
STRUCTURE = [
    (put("orders", 0, 10**6, "next"), "queue whose links do not meet in market 0"),
    (live("next", -2), "queue whose links do not meet"),
    (live("prev", 10**6), "queue whose links do not meet"),
    (live("prev", -7), "queue whose links do not meet"),
    (lambda: put("orders", first(lambda o: (o["size"] > 0) & (o["prev"] >= 0)), 9_000, "price")(), "do not meet"),
    (live("size", -1), "an order that no owner could have"),
    (live("price", 0), "an order that no owner could have"),
    (live("price", 2**30), "an order that no owner could have"),
    (live("owner", 3), "an order that no owner could have"),
    (live("owner", -2), "an order that no owner could have"),
    (live("side", 0), "an order that no owner could have"),
    (live("order_id", -1), "an order that no owner could have"),
    (lambda: put("orders", first(lambda o: (o["size"] > 0) & (o["owner"] >= 0)), 16, "order_id")(), "no owner could"),
    (lambda: put("orders", first(lambda o: o["size"] == 0), 5, "price")(), "a dead slot with something in it"),
    (lambda: put("orders", first(lambda o: o["size"] == 0), 0, "next")(), "links do not meet|free slots"),
    (put("row", (0, layout.FREE), 149), "free slots that are not the dead ones in market 0"),
    (put("row", (1, layout.FREE), -1), "free slots that are not the dead ones in market 1"),
    (circle, "queue whose links do not meet"),
    (twice("order_id"), "two live orders of one owner with one id"),
    (twice("price", "side"), "two queues at one price"),
    (put("row", (0, layout.HIGH_WATER), 151), "high-water mark of 151; allowed is 0 to 150"),
    (put("row", (0, layout.HIGH_WATER), 0), r"orders of shape \(\d+,\)"),
    (put("row", (0, layout.LIVE), 1), "columns that follow from the rest"),
    (put("clocks", (0, layout.FLOW_HEAD), 1), "columns that follow from the rest"),
    *[(put("clocks", (1, column), -1), message) for column, message in CLOCKS],
    (put("clocks", (0, layout.FLOW_WAITING), 49), "waiting events of 49; allowed is 0 to 48"),
    (put("clocks", (0, layout.AGENT_END), 25), "waiting orders of 25; allowed is 0 to 24"),
    (put("flow_queue", 0, 0, "owner"), "waiting event of another owner"),
    (put("flow_queue", 0, 9, "kind"), "waiting event of another owner"),
    (put("agent_queue", 0, -1, "owner"), "a waiting order that no market takes"),
    (put("agent_queue", 0, 2**62, "time_ns"), "waiting orders out of time"),
    (put("records", 0, 9, "kind"), "a record of unknown kind"),
    (put("records", 0, -1, "filled"), "a record of unknown kind"),
    (put("fills", 0, 0, "size"), "a fill between parties"),
    (put("fills", 0, 3, "taker"), "a fill between parties"),
    (lambda: edited("accounts", lambda array: array[:, :2].copy()), r"accounts of shape \(2, 2\)"),
    (lambda: edited("records", lambda array: array[1:].copy()), "records of shape"),
    (lambda: edited("counters", lambda array: array.astype(np.int32)), "counters of dtype dtype.'int32'"),
    (lambda: edited("clocks", lambda array: array[:1].copy()), r"row of shape \(2, 24\)"),
    (lambda: with_array("more", np.zeros(3)), "more' of shape .* one entry for each of 2 markets"),
    (lambda: pack(CONFIG, {"row": np.zeros((2, 24), np.int64)}), "snapshot has .*row"),
    (lambda: pack(MarketConfig(), unpack(sound())[1]), "accounts of shape"),
    # What is under way.
    (late("seen", (0, 0), -1), "a log that does not begin"),
    (late("seen", (1, 1), 10**6), "a log that does not begin"),
    (late("row", (1, layout.LOG_BASE), 0), "a log that does not begin"),
    (late("row", (0, layout.LOG_END), -1), "logged events of -1; allowed is 0"),
    (late("row", (0, layout.LOG_END), 2**62), "logged events of 4611686018427387904; allowed is 0"),
    (late("row", (slice(None), layout.LOG_END), 2**62), "logged events of 4611686018427387904; allowed is 0"),
    (late("row", (0, layout.LOG_END), 2), "a log|log of shape"),
    (lambda: crowded_log(8, 2**61), "logged events of 2305843009213693952; allowed is 0 to 0"),
    (put("row", (0, layout.LOG_END), 1), "logged events of 1; allowed is 0 to 0"),
    (late("log", 0, 3, "owner"), "a logged event of unknown owner"),
    (late("log", 1, 9, "kind"), "a logged event of unknown owner"),
    (late("log", 2, LAST_ANCHOR + 1, "anchor"), "a logged event of unknown owner"),
    (late("log", 0, 2**40, "time_ns"), "logged events out of time"),
    (late("log", -1, 2**40, "time_ns"), "logged events out of time"),
    (late("names", (0, 1), 2**32), "an episode of a larger number"),
    (late("sent", (0, 0), -1), "counts or times of sent orders"),
    (late("sent", (0, slice(None)), 0), "an order under way that was not sent"),
    (late("arrived", (0, 1), 1), "counts or times of sent orders"),
    (late("arrived", (0, 1), 2**63 - 1), "counts or times of sent orders"),
    (late("arrived", (slice(None), slice(None)), 0), "an order under way that was not sent or overtakes"),
    (lambda: edited("seen", lambda array: array[:, :1].copy(), LATE), r"seen of shape \(2, 1\)"),
    (lambda: edited("log", lambda array: array[1:].copy(), LATE), "log of shape"),
    (late("view_0_orders", 0, 10**6, "next"), "meet in market 0 in view_0_: what that seat sees"),
    (late("view_2_row", (1, layout.FREE), 149), "dead ones in market 1 in view_2_: what that seat sees"),
    (late("view_2_clocks", (0, layout.HALTED), 2), "halts of 2 in view_2_"),
    (late("view_0_clocks", (0, layout.FLOW_WAITING), 1), r"flow_queue of shape \(0,\) in view_0_"),
    (late("view_0_fills", 0, 3, "maker"), "a fill between parties .* in view_0_"),
    (late("view_2_row", (0, layout.LOG_END), 1), "logged events of 1 in view_2_: .* allowed is 0 to 0"),
    (lambda: edited("view_0_accounts", lambda array: array[:1].copy(), LATE), r"accounts of shape \(1, 4\) in view_0_"),
    (lambda: pack(LATE, unpack(sound())[1]), "(sent|seen) of shape|no row in view_0_"),
    (lambda: pack(CONFIG, unpack(sound(LATE))[1]), "sent of shape"),
]


@pytest.mark.parametrize("number", range(len(STRUCTURE)))
def test_what_no_market_could_be_in_is_refused(number):
    make, message = STRUCTURE[number]
    with pytest.raises(ValueError, match=message) as raised:
        Snapshot.from_bytes(make())
    assert str(raised.value).startswith("snapshot has ")


def test_a_crossed_book_is_refused():
    def edit(orders):
        count = int(unpack(sound())[1]["row"][0, layout.HIGH_WATER])
        book = orders[:count]
        lone = (book["size"] > 0) & (book["side"] < 0) & (book["prev"] < 0) & (book["next"] < 0)
        book["price"][np.flatnonzero(lone)[0]] = 1

    with pytest.raises(ValueError, match="a bid at or above an ask in market 0"):
        Snapshot.from_bytes(edited("orders", edit))


def test_foreign_and_newer_bytes_are_refused():
    data = sound()
    wrongs = (
        (b"", "is no snapshot of a market"),
        (b"PK\x03\x04" + data, "is no snapshot of a market"),
        (sealed(data[:8] + struct.pack("<I", 2) + data[12:]), "format version 2; allowed is 1"),
        (sealed(data[:12] + struct.pack("<I", 2**32 - 1) + data[16:]), "header of 4294967295 bytes, more than there"),
        (sealed(data[:16] + b"x" + data[17:]), "header that is no JSON"),
        (sealed(data[:12] + struct.pack("<I", 10**5) + b"[" * 10**5 + data[16:]), "header that is no JSON"),
        (data[:-1] + bytes([data[-1] ^ 1]), "its digest differs"),
        (sealed(data[:-32] + b"more" + data[-32:]), "4 bytes after its last array"),
        (with_header(lambda header: header.pop("config")), "header without config and arrays"),
        (with_header(lambda header: header["config"].update(levels=63)), "a configuration that no market has"),
        (with_header(lambda header: header["config"].update(self_trade=5)), "as configuration; allowed is that of"),
        (with_header(lambda header: header["config"].update(new=5)), "MarketConfig has no field 'new'"),
        (with_header(lambda header: header["arrays"].append(header["arrays"][0])), "twice or longer than what"),
        (with_header(lambda header: header["arrays"][0].update(shape=[2, 10**9])), "longer than what is there"),
        (with_header(lambda header: header["arrays"][0].update(shape=[0, 2**39])), "without entries"),
        (with_header(lambda header: header["arrays"][0].update(shape=[True])), "an array of shape"),
        (with_header(lambda header: header["arrays"][0].update(dtype="|O")), r"of dtype '\|O'; allowed are plain"),
        (with_header(lambda header: header["arrays"][0].update(dtype={"fields": [], "itemsize": 8})), "of dtype"),
        (with_header(lambda header: header["arrays"][0]["dtype"]["fields"].pop()), "accounts of dtype"),
        (with_header(lambda header: header["arrays"][0]["dtype"]["fields"][0].__setitem__(2, 3)), "of dtype"),
    )  # fmt: skip
    for wrong, message in wrongs:
        with pytest.raises(ValueError, match=message) as raised:
            Snapshot.from_bytes(wrong)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="data is 'text'; allowed are bytes"):
        Snapshot.from_bytes("text")
    for kind in (bytearray, memoryview):
        assert Snapshot.from_bytes(kind(data)).to_bytes() == data


def test_bytes_are_written_in_one_way_only():
    spaced = sound()
    length = struct.unpack("<I", spaced[12:16])[0]
    loose = spaced[:12] + struct.pack("<I", length + 1) + spaced[16 : 16 + length] + b" " + spaced[16 + length :]
    with pytest.raises(ValueError, match="written in another way"):
        Snapshot.from_bytes(sealed(loose))
    config, arrays = unpack(sound())
    arrays["orders"].view(np.uint8)[ORDER.itemsize - 1] = 7  # behind the last field
    with pytest.raises(ValueError, match="written in another way"):
        Snapshot.from_bytes(pack(config, arrays))


def test_a_file_is_named_and_an_unknown_array_is_kept_until_a_market_says_no(tmp_path):
    path = tmp_path / "market.bin"
    path.write_bytes(sound()[:-5])
    with pytest.raises(ValueError, match=r"market\.bin: data is a snapshot that was damaged or cut off"):
        Snapshot.load(path)
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "nothing.bin")
    more = Snapshot.from_bytes(with_array("more", np.arange(6).reshape(2, 3)))
    assert more.arrays["more"].tolist() == [[0, 1, 2], [3, 4, 5]]
    market = MarketSimulator(2, CONFIG)
    before = market.snapshot()
    with pytest.raises(ValueError, match=r"differ in their arrays \('more'\); allowed are the same"):
        market.restore(more)
    assert market.snapshot() == before


# --- The check of pools and its twin ---------------------------------------------------------------------------


def plain_fault(orders, free):
    """What ``pool_fault`` finds in one pool, said with sets and dicts: whether anything is wrong."""
    live, dead = {}, set()
    for slot, order in enumerate(orders.tolist()):
        order_id, _, price, size, after, before, owner, side = order
        if size == 0:
            dead.add(slot)
            if order[:4] != (0, 0, 0, 0) or order[5:] != (0, 0, 0):
                return True
            continue
        if size < 0 or not 1 <= price < 2**30 or side not in (1, -1) or not -1 <= owner < 3 or order_id < 0:
            return True
        if owner >= 0 and order_id >= 16:
            return True
        live[slot] = (price, side, before, after)
    for slot, (price, side, before, after) in live.items():
        if before != -1 and (before not in live or live[before][3] != slot or live[before][:2] != (price, side)):
            return True
        if after != -1 and (after not in live or live[after][2] != slot):
            return True
    met = set()
    for slot, (_, _, before, _) in live.items():
        while before == -1 and slot != -1:
            met.add(slot)
            slot = live[slot][3]
    while free in dead:
        dead.remove(free)
        free = int(orders["next"][free])
    bids = [price for price, side, *_ in live.values() if side > 0]
    asks = [price for price, side, *_ in live.values() if side < 0]
    return met != set(live) or bool(dead) or free != -1 or max(bids, default=0) >= min(asks, default=2**30)


@settings(FUZZED)
@given(st.data())
def test_the_check_of_pools_equals_its_plain_twin(data):
    arrays = unpack(sound())[1]
    count = int(arrays["row"][0, layout.HIGH_WATER])
    orders, free = arrays["orders"][:count].copy(), arrays["row"][0, layout.FREE]
    for _ in range(data.draw(st.integers(0, 3))):
        field = data.draw(st.sampled_from((*ORDER.names, "next", "next", "prev")))
        target = data.draw(st.integers(0, count - 1))
        if data.draw(st.booleans()):
            orders[field][target] = orders[field][data.draw(st.integers(0, count - 1))]
        else:
            orders[field][target] = data.draw(st.integers(-2, count + 1) if field != "side" else st.integers(-2, 2))
    if data.draw(st.integers(0, 9)) == 0:
        free = np.int64(data.draw(st.integers(-2, count)))
    at, fault = snapshot_kernels.pool_fault(orders, np.array([count]), np.array([free]), 3, 16)
    assert (at == 0) == (fault != 0) == plain_fault(orders, int(free))
    assert BACKGROUND == -1
