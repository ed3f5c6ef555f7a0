"""Snapshots with the largest numbers, and those that would take more memory than there is."""

from dataclasses import replace

import pytest
from forged_snapshots import DONE, sound, with_header
from forked_markets import CONFIG, LATE, run

from tradefm_gym.market import copies, layout, memory
from tradefm_gym.market.events import LIMIT
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot
from tradefm_gym.market.snapshot_bytes import pack, unpack


@pytest.mark.filterwarnings("ignore:overflow encountered")  # where the compiler is off
@pytest.mark.parametrize("config", [CONFIG, LATE])
def test_a_market_that_begins_with_the_largest_numbers_can_always_be_saved(config):
    arrays = unpack(sound(config))[1]
    for prefix in ("", *(f"view_{seat}_" for seat in config.late_seats)):
        clocks = arrays[f"{prefix}clocks"]
        clocks[:, [layout.COUNT, layout.EXECUTED]] = 2**62
        for column, ring in ((layout.RECORDS, config.tape), (layout.FILLS, config.fills)):
            clocks[clocks[:, column] >= ring, column] = 2**62  # a ring that is not full says how many there were
        arrays[f"{prefix}row"][:, layout.NEXT_ID] = 2**63 - 1
        arrays[f"{prefix}counters"][:] = 2**63 - 1
        for field in ("cash", "inventory", "fees", "volume"):
            arrays[f"{prefix}accounts"][field] = 2**63 - 1
    if config == LATE:
        arrays["sent"][:] = 2**62
        forgotten = 2**61 - arrays["row"][:, layout.LOG_BASE]
        arrays["row"][:, layout.LOG_BASE] += forgotten
        arrays["seen"] += forgotten[:, None]
    snapshot = Snapshot.from_bytes(pack(config, arrays))
    assert (snapshot.arrays["clocks"][:, layout.RECORDS] == 2**62).all()
    herd = run(2, 0, 2, config)
    herd.market, herd.steps = MarketSimulator.from_snapshot(snapshot), DONE
    for _ in range(6):
        herd.step()
        saved = herd.market.snapshot()
        assert Snapshot.from_bytes(saved.to_bytes()) == saved
        again = MarketSimulator.from_snapshot(saved).snapshot()
        assert again == saved or config == LATE  # news have other numbers then, and may come earlier
    assert (herd.market.tape.record_count > 2**62).all()
    assert (saved.arrays["clocks"][:, layout.RECORDS] == 2**62).all()


def test_latency_tables_of_many_seats_are_bounded():
    table, most = {"samples_ns": [1] * 600}, "allowed are 16777216 of all together"
    assert with_header(lambda header: header["config"].update(order_latency=table))
    for name in ("order_latency", "data_latency"):
        many = {"seats": 32_767, "self_trade": "off", name: table}
        with pytest.raises(ValueError, match=f"{name} has 600 entries for 32767 seats; {most}") as raised:
            Snapshot.from_bytes(with_header(lambda header, many=many: header["config"].update(many)))
        assert "\n" not in str(raised.value)


def test_what_this_machine_has_no_memory_for_is_refused_before_anything_is_allocated(monkeypatch):
    monkeypatch.setattr(memory, "machine_bytes", lambda: 2**26)
    monkeypatch.setattr(copies, "machine_bytes", lambda: 2**26)
    for sizes in ({"tape": 2**30}, {"fills": 2**30}, {"flow_queue": 2**24}, {"agent_queue": 2**24}, {"seats": 30_000}):
        config = replace(MarketConfig(tape=1, fills=1, data_latency=5 if "seats" in sizes else None), **sizes)
        with pytest.raises(ValueError, match=r"^num_markets is 1, and .* GiB; allowed is up to 0.0625 GiB, the memory"):
            MarketSimulator(1, config)
    small = replace(CONFIG, orders=4096, flow_ids=4096)
    one = MarketSimulator(1, small)
    for price in range(64, 4096 * 64, 64):  # each on a page of its own
        one.send(LIMIT, -1, price, 1)
    snapshot, many = Snapshot.from_bytes(one.snapshot().to_bytes()), MarketSimulator(64, small)
    before = many.snapshot()
    with pytest.raises(ValueError, match=r"a book of 4095 orders, and 64 with room for that take .* GiB; allowed"):
        many.restore(snapshot, [3])
    assert many.snapshot() == before
    assert MarketSimulator.from_snapshot(snapshot).snapshot() == snapshot
