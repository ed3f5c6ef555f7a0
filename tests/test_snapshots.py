"""Snapshots and forks of markets: they go on as their parents, and equal markets have equal bytes."""

import os
import pickle
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from forked_markets import CONFIG, LATE, LATER, Herd, dirty_events, go_on, run
from market_checks import JIT

from tradefm_gym.market import delays, layout
from tradefm_gym.market.book import Room
from tradefm_gym.market.events import BUY, CANCEL, CANCEL_RANDOM, HALT, LIMIT, MARKET, NO_LIMIT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator, Snapshot

ROUNDS = [(1, 1, 40), (1, 3, 40), (2, 1, 40), (3, 64, 120), (64, 2, 160), (7, 7, 200), (16, 5, 200), (64, 64, 200)]
assert sum(forks for *_, forks in ROUNDS) == 1000


@pytest.mark.parametrize("parents, children, forks", ROUNDS)
def test_random_forks_at_random_times_go_on_as_their_parents(parents, children, forks):
    parent = go_on_alike(parents, children, forks, CONFIG)
    if JIT:
        market = parent.market
        assert parents % 3 != 1 or market.book.orders.shape[1] - 1 == CONFIG.orders  # was widened
        assert market.book.page_bits.shape[1] > 1  # as well
        assert (market.tape.record_count > CONFIG.tape).all() and market.counters.any()


@pytest.mark.parametrize("config", [LATE, LATER])
@pytest.mark.parametrize("parents, children, forks", [(1, 3, 20), (3, 16, 60), (16, 5, 60), (7, 64, 60)])
def test_random_forks_with_orders_and_news_under_way_go_on_as_their_parents(parents, children, forks, config):
    market = go_on_alike(parents, children, forks, config).market
    if JIT:
        flying = np.array([market.in_flight(seat).count for seat in range(3)])
        unseen = np.array([market.unseen(seat).count for seat in config.late_seats])
        assert flying.any() and unseen.any() and market.book.row[:, layout.LOG_BASE].any()
        assert market.book.log.shape[1] > 64  # was widened


def go_on_alike(parents, children, forks, config):
    """Forks at random times and compares; returns the parents."""
    rng = np.random.default_rng([parents, children])
    forks = forks if JIT else 3
    parent = Herd(parents, config=config)
    if parents % 3 == 1:
        parent.crowd()
    child = run(children, int(rng.integers(0, 3)), 100, config)  # is in the middle of something else
    turn = 0
    while forks > 0:
        for _ in range(int(rng.integers(0, 5))):
            parent.step()
        if turn % 4 == 3:  # into a market in which nothing has happened, or one that is wide already
            child, room = Herd(children, config=config), rng.integers(1, (150, 90, 200, 300)).tolist()
            for market in (child.market, *child.market._transit.views.values()):
                market._widen(Room(*room[:3], room[3] * (market.book.log.shape[1] > 0)))
        count = int(rng.integers(1, min(parents, children, forks) + 1))
        rows, into = rng.permutation(parents)[:count], rng.permutation(children)[:count]
        copy(parent.market, rows, child.market, into, turn % 3)
        child.streams[into], child.steps = parent.streams[rows], parent.steps
        for _ in range(int(rng.integers(1, 4))):
            assert child.market.snapshot(into).to_bytes() == parent.market.snapshot(rows).to_bytes()
            for herd in (parent, child):
                herd.step()
        for m, n in zip(rows[:3], into[:3], strict=True):
            assert child.seen(n) == parent.seen(m)
        assert child.market.snapshot(into) == parent.market.snapshot(rows)
        forks, turn = forks - count, turn + 1
    return parent


def copy(market, rows, target, into, way):
    """As a fork, through a snapshot, or through bytes."""
    if way == 0:
        market.fork(rows, into, target)
        return
    snapshot = market.snapshot(rows)
    target.restore(Snapshot.from_bytes(snapshot.to_bytes()) if way == 2 else snapshot, into)


def test_rows_fork_within_a_market_and_have_several_children():
    herd = run(5, 6)
    before = [herd.market.snapshot([m]) for m in range(5)]
    herd.market.fork([0, 1, 1], [1, 0, 4])  # parents are read before anything is written
    assert [herd.market.snapshot([m]) for m in range(5)] == [before[m] for m in (1, 0, 2, 3, 1)]
    herd.market.fork(2, [0, 1, 3, 4])
    herd.streams[:] = herd.streams[2]
    for _ in range(4):
        herd.step()
    assert len({herd.market.snapshot([m]) for m in range(5)}) == 1
    herd.market.fork([], [])
    assert len({herd.market.snapshot([m]) for m in range(5)}) == 1


@pytest.mark.parametrize("config", [CONFIG, LATE, LATER])
@pytest.mark.parametrize("compiler_off", ["0", "1"])
def test_a_saved_snapshot_goes_on_in_another_process(tmp_path, compiler_off, config):
    herd, path = run(4, 8 if JIT else 3, config=config), tmp_path / "market.bin"
    rows = [3, 1]
    snapshot = herd.market.snapshot(rows)
    snapshot.save(path)
    assert path.read_bytes() == snapshot.to_bytes() and list(tmp_path.iterdir()) == [path]
    expected = go_on(path, [3, 1], herd.steps, 4)
    call = f"from forked_markets import go_on; print(go_on({str(path)!r}, [3, 1], {herd.steps}, 4))"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": compiler_off}
    folder = Path(__file__).parent
    result = subprocess.run([sys.executable, "-c", call], env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for _ in range(4):
        herd.step()
    assert result.stdout.split()[-1] == expected == herd.market.snapshot(rows).digest != snapshot.digest


# --- Equal states, equal bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CONFIG, LATE, LATER])
def test_bytes_do_not_tell_of_widening_neighbours_or_what_was_before(config):
    plain, wide, used = (run(n, steps, config=config) for n, steps in ((1, 0), (3, 0), (1, 9 if JIT else 2)))
    wide.market._widen(Room(140, 70, 170, 500 if config.late_seats else 0))
    wide.streams[:] = 5, 0, 7
    wide.market.seed(wide.streams, 2)
    used.market.reset()
    used.steps = 0
    for herd in (plain, wide, used):
        for _ in range(7 if JIT else 2):
            herd.step()
    expected = plain.market.snapshot().to_bytes()
    assert wide.market.snapshot([1]).to_bytes() == used.market.snapshot().to_bytes() == expected
    assert wide.market.snapshot([0]).to_bytes() != expected
    for herd in (plain, used):
        herd.market.reset(seeds=0, episodes=0)
    empty = MarketSimulator(1, config).snapshot()
    assert plain.market.snapshot() == used.market.snapshot() == empty
    assert len(empty.to_bytes()) < 4096 * (1 + len(config.late_seats))


@pytest.mark.parametrize("config", [LATE, LATER])
def test_bytes_do_not_tell_who_has_looked_at_a_view_or_how_much_was_forgotten(config):
    one, other = run(2, 5 if JIT else 2, config=config), run(2, 5 if JIT else 2, config=config)
    for k in range(20):
        for herd in (one, other):
            herd.market.send(LIMIT, 1, 9_000, 1, k, time_ns=150 + 2 * k, row=1)
        other.market.view(0)
    transit, log = other.market._transit, other.market.book.log
    least = transit.seen.min(axis=1)
    assert (transit.seen > one.market._transit.seen).any()
    delays.forget_seen(log, other.market.book.row, least)
    assert (other.market.book.row[:, layout.LOG_BASE] != one.market.book.row[:, layout.LOG_BASE]).any()
    assert one.market.snapshot().to_bytes() == other.market.snapshot().to_bytes()
    for herd in (one, other):
        herd.step()
    assert one.seen(1) == other.seen(1)


def test_bytes_do_not_tell_when_the_last_order_came():
    markets = [MarketSimulator(1, MarketConfig(order_latency=10, tape=2)) for _ in range(2)]
    block = EventBlock.empty(1, 1)
    block.events["owner"], block.events["kind"], block.count[:] = 0, CANCEL, 1
    for market, sent_ns in zip(markets, (5, 3), strict=True):
        block.events["time_ns"] = sent_ns
        market.submit(block)
        for _ in range(3):
            market.send(CANCEL, 1, 0, 0, 7, time_ns=20)
            market.advance()
        assert market.in_flight(0).count[0] == 0 and market._transit.arrived[0, 0] == sent_ns + 10
    assert markets[0].snapshot() == markets[1].snapshot()
    for market in markets:
        market.submit(block)
    assert markets[0].in_flight(0).events.tolist() == markets[1].in_flight(0).events.tolist()
    assert markets[0].snapshot() == markets[1].snapshot()
    markets[0].submit(block)
    assert markets[0].snapshot() != markets[1].snapshot()


def test_bytes_do_not_tell_where_queues_begin_or_what_lies_between_fields():
    markets = [MarketSimulator(1, CONFIG) for _ in range(2)]
    for way, market in enumerate(markets):
        events = dirty_events(40) if way else np.zeros(40, dirty_events(1).dtype)
        events["owner"], events["size"], events["max_rest"], events["order_id"] = -1, 2, NO_LIMIT, np.arange(40)
        events["side"], events["price"], events["time_ns"] = 1, np.arange(40) % 5 + 100, np.arange(40)
        events["kind"][7::8], events["order_id"][7::8] = CANCEL, np.arange(7, 40, 8) - 3
        agents = events[:8].copy()
        agents["owner"], agents["kind"] = 0, LIMIT
        for part in np.array_split(events[:30], 3) if way else [events[:30]]:
            market.feed(EventBlock(np.ascontiguousarray(part)[None], np.array([len(part)], np.int32)))
            market.submit(EventBlock(agents[None, :4], np.full(1, 4 * (part["time_ns"][0] == 0), np.int32)))
            if way:
                market.advance()
        market.advance()
        market.feed(EventBlock(events[None, 30:], np.array([10], np.int32)))
        later = agents[4:].copy()
        later["time_ns"] += 1000
        market.submit(EventBlock(later[None], np.array([4], np.int32)))
    assert markets[0]._clocks[0, layout.FLOW_HEAD] == markets[1]._clocks[0, layout.FLOW_HEAD]
    assert markets[0].tape.record_count[0] == 34 and [int(n[0]) for n in markets[0].waiting()] == [10, 4]
    assert markets[0].snapshot().to_bytes() == markets[1].snapshot().to_bytes()


def test_the_names_of_draws_and_the_count_of_orders_are_state():
    herd = run(1, 3 if JIT else 1, config=LATE)
    digests = {herd.market.snapshot().digest}
    herd.market.seed(9)
    digests.add(herd.market.snapshot().digest)
    herd.market.seed(9, 1)
    digests.add(herd.market.snapshot().digest)
    herd.market._transit.sent[0, 1] += 1
    digests.add(herd.market.snapshot().digest)
    assert len(digests) == 4


def test_the_slot_of_an_order_is_state_since_a_random_cancel_finds_it():
    def market(first, second):
        one = MarketSimulator(1, CONFIG)
        for order_id in (first, second):
            one.send(LIMIT, 1, 100 + order_id, 1, order_id)
        one.send(CANCEL, 1, 0, 0, 7)
        return one

    one, other = market(0, 1), market(1, 0)
    assert (one.depth(3)[0] == other.depth(3)[0]).all()
    assert one.snapshot() != other.snapshot()
    for each in (one, other):
        each.send(CANCEL, 1, 0, 0, CANCEL_RANDOM)
    assert one.touch()[0] != other.touch()[0]


def test_whatever_is_state_changes_the_digest():
    herd = run(1, 5 if JIT else 2)
    market = herd.market
    digests = {market.snapshot().digest}
    for array, column in [(market.counters, c) for c in range(7)] + [
        (market._clocks, c) for c in (layout.CLOCK, layout.COUNT, layout.MID2, layout.OUTSIDE_MID2, layout.LAST_PRICE)
    ]:
        array[0, column] += 1
        digests.add(market.snapshot().digest)
    for field in market.accounts.dtype.names:
        market.accounts[field][0, 2] += 1
        digests.add(market.snapshot().digest)
    market.book.row[0, layout.NEXT_ID] += 1
    digests.add(market.snapshot().digest)
    market.send(HALT, 0, 0, 1 - int(market.halted[0]))
    digests.add(market.snapshot().digest)
    assert len(digests) == 1 + 7 + 5 + 4 + 2
    assert len({MarketSimulator(1, MarketConfig(seats=n)).snapshot().digest for n in range(3)}) == 3


# --- The value -------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_value():
    herd = run(3, 4 if JIT else 2)
    snapshot = herd.market.snapshot([2, 0])
    before = snapshot.to_bytes()
    herd.step()
    assert snapshot.to_bytes() == before and len(snapshot) == 2
    again = pickle.loads(pickle.dumps(snapshot))
    assert again == snapshot and hash(again) == hash(snapshot) and again is not snapshot
    assert snapshot != herd.market.snapshot([2, 0]) and snapshot != "snapshot"
    assert snapshot.digest[:12] in repr(snapshot) and before.hex().endswith(snapshot.digest)
    with pytest.raises(ValueError, match="read-only"):
        snapshot.arrays["clocks"][0, 0] = 1
    assert Snapshot(snapshot.config, snapshot.arrays) == snapshot
    assert len(herd.market.snapshot([])) == 0


def test_saving_replaces_at_once_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "market.bin"
    old, new = run(1, 1).market.snapshot(), run(1, 2).market.snapshot()
    old.save(path)
    new.save(str(path))
    assert Snapshot.load(str(path)) == new

    def broken(*_):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no room"):
        old.save(path)
    assert Snapshot.load(path) == new and list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_read_or_written_is_named_in_one_sentence(tmp_path):
    snapshot, file = MarketSimulator(1).snapshot(), tmp_path / "file.bin"
    snapshot.save(file)
    missing, below = tmp_path / "missing" / "market.bin", file / "market.bin"
    for path, kind in ((missing, FileNotFoundError), (tmp_path, IsADirectoryError), (below, NotADirectoryError)):
        for access, what in ((Snapshot.load, "read"), (snapshot.save, "written")):
            with pytest.raises(kind) as raised:
                access(str(path))
            assert str(raised.value).startswith(f"path {str(path)!r} cannot be {what} (")
            assert "; it must name a file" in str(raised.value) and "Errno" not in str(raised.value)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everybody may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "market.bin"
    MarketSimulator(1).snapshot().save(path)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"market\.bin' cannot be read \(Permission denied\); it must name"):
        Snapshot.load(path)


def test_what_does_not_fit_is_refused_and_nothing_changes():
    herd = run(3, 3 if JIT else 1)
    market, two = herd.market, herd.market.snapshot([0, 1])
    before = market.snapshot()
    other = MarketSimulator(2, MarketConfig())
    wrongs = (
        (lambda: market.restore(two), "snapshot holds 2 rows for 3"),
        (lambda: market.restore(two, [0, 3]), "rows reach from 0 to 3"),
        (lambda: market.restore(two.to_bytes(), [0, 1]), "it must be a Snapshot"),
        (lambda: other.restore(two), "another MarketConfig"),
        (lambda: market.fork(0, [1], other), "another MarketConfig"),
        (lambda: market.fork([0, 1], [2]), r"rows is \[0, 1\]; allowed is one, or one for each of 1"),
        (lambda: market.fork(3, [1]), "rows reach from 3 to 3"),
        (lambda: market.fork("x", [1]), "rows is 'x'; allowed is one"),
        (lambda: market.fork(0, [1, 1]), "names a market twice"),
        (lambda: market.fork(0, [1], "market"), "market is 'market'; it must be a MarketSimulator"),
        (lambda: MarketSimulator.from_snapshot("x"), "snapshot is 'x'; it must be a Snapshot"),
        (lambda: MarketSimulator.from_snapshot(market.snapshot([])), "num_markets is 0"),
        (lambda: Snapshot({}, two.arrays), "config is {}; it must be a MarketConfig"),
    )
    for call, message in wrongs:
        with pytest.raises(ValueError, match=message):
            call()
    assert market.snapshot() == before


@pytest.mark.parametrize("copied", [deepcopy, lambda market: pickle.loads(pickle.dumps(market))])
def test_copied_and_pickled_markets_go_on_as_their_original(copied):
    market = MarketSimulator(2, MarketConfig(seats=1))
    for away in range(1, 6):
        for side in (BUY, SELL):
            market.send(LIMIT, side, 1_000 - side * away, 5)
    other = copied(market)
    assert other.snapshot() == market.snapshot()
    for one in (market, other):
        one.send(MARKET, BUY, 0, 12)
    assert market.executed[0] == other.executed[0] == 12
    assert other.snapshot() == market.snapshot()
