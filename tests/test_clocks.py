"""What a decision waits for: events, time and volume, each market by itself."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from played_sessions import ROLES, flow_maker, go_on, session_of
from quiet_flow import STEP_NS, QuietFlow, quiet_bank
from small_day import cpu_flow
from small_tradefm import everyone

from tradefm_gym.envs.clocks import CLOCKS
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.market.events import BUY, LIMIT, SELL

FLOWS = ("zero_intelligence", "hawkes", "replay")
BIDS, ASKS = [(998, 100), (997, 200)], [(1002, 100), (1003, 200)]


def idle(num_envs, flow, clock, interval=None, decisions=8):
    session = TradingSession(num_envs, TradingRole(interval, decisions), flow, clock=clock)
    session.seed(everyone(num_envs), np.arange(num_envs))
    session.reset()
    return session


@pytest.mark.parametrize("flow", FLOWS)
def test_time_passes_to_the_nanosecond(flow):
    lapse = 250_000_000
    session = idle(4, cpu_flow(flow), "time", lapse)
    market, start = session.market, session.market.clock_ns.copy()
    for k in range(1, 6):
        session.step(np.zeros((4, 2)))
        np.testing.assert_array_equal(market.clock_ns, start + k * lapse)
        for m in range(4):
            assert market.tape.read_records(m)["time_ns"].max() <= market.clock_ns[m]
    assert len(set(market.background_count.tolist())) > 1 or flow == "replay"  # rows are not in step
    counts = market.background_count.copy()
    session.advance(everyone(4), 1)
    assert (market.background_count == counts + 1).all()
    assert (market.clock_ns > start + 5 * lapse).all()  # what comes next had not been due


@pytest.mark.parametrize("flow", FLOWS)
def test_volume_is_reached_by_the_last_event(flow):
    session = idle(3, cpu_flow(flow), "volume", 40)
    market = session.market
    for _ in range(4):
        before, fills = market.executed.copy(), market.tape.fill_count.copy()
        session.step(np.zeros((3, 2)))
        assert (market.executed - before >= 40).all()
        for m in range(3):
            made = market.tape.read_fills(m, int(fills[m]))
            last = made["taker_id"] == made["taker_id"][-1]
            assert made["size"].sum() == market.executed[m] - before[m]
            assert made["size"][~last].sum() < 40


def trajectory(clock, num_envs, flow="hawkes"):
    session = session_of(make_flow(cpu_flow(flow), num_envs), tuple(ROLES), 3, clock=clock)
    generators = [np.random.default_rng(m) for m in range(num_envs)]
    told = []
    while session.running.any():
        drawn = [[g.uniform(-1, 1, role.action_space.shape) for role in session.roles] for g in generators]
        for result in session.step_roles([np.array(column) for column in zip(*drawn, strict=True)]):
            told += [array[:2].tolist() for array in result]
    return told, [session.tape_hash(m) for m in range(2)]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("clock", ["time", "volume"])
def test_a_row_depends_neither_on_its_neighbours_nor_on_threads(clock, flow):
    assert trajectory(clock, 2, flow) == trajectory(clock, 5, flow)


@pytest.mark.parametrize("clock", ["time", "volume"])
def test_the_model_too(tmp_path, clock):
    make, told = flow_maker(tmp_path / "small"), []
    for num_envs in (2, 3):
        flow = make("tradefm", num_envs, engine_batch=3)
        session = session_of(flow, ("execution", "trading"), 5, clock=clock, order_latency_ns=1_000_000)
        told.append(go_on(session, [0, 1], 3, 1))
    assert told[0] == told[1]


def test_other_processes_and_threads_count_alike():
    code = "import test_clocks as t; print([t.trajectory(c, 70)[1] for c in ('time', 'volume')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, check=True,
        env=os.environ | {"NUMBA_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.stdout.strip() == str([trajectory(clock, 2)[1] for clock in ("time", "volume")])


def test_the_usual_interval_is_that_of_sixteen_events():
    session = idle(2, "zero_intelligence", "time")
    scale = session.flow.bank.scale[session.context_of]
    start = session.market.clock_ns.copy()
    session.step(np.zeros((2, 2)))
    np.testing.assert_array_equal(session.market.clock_ns - start, np.rint(16 * scale["event_ns"]))
    assert idle(1, "zero_intelligence", "events").interval == 16
    for clock in CLOCKS.values():
        np.testing.assert_allclose(clock.events(None, scale), 16, rtol=0.1)
        np.testing.assert_array_equal(clock.events(None, np.zeros(2, scale.dtype)), 16)


def test_observations_are_measured_by_what_an_interval_usually_brings():
    sixteen, time = idle(1, "zero_intelligence", "events", 16), idle(1, "zero_intelligence", "time")
    one, other = (session.observe()[0] for session in (sixteen, time))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("clock", ["time", "volume"])
def test_an_interval_longer_than_the_tape_is_read_in_parts(clock):
    script = {i: (LIMIT, BUY if i % 2 else SELL, 1100 if i % 2 else 900, 1) for i in range(10_000)}
    interval = 9_001 * STEP_NS if clock == "time" else 9_001
    flow = QuietFlow(1, quiet_bank([(998, 10**6)], [(1002, 10**6)]), script)
    session = TradingSession(1, ExecutionRole(interval, 3, "buy", 9), flow, clock=clock, context=0)
    session.seed(everyone(1), np.zeros(1, np.uint64))
    session.reset()
    session.step(np.array([[0.0, -1.0]]))
    state, tape = session.role.state[0], session.market.tape
    assert tape.record_count[0] > session.market.config.tape
    assert state["market_lots"] + state["executed"] == session.market.executed[0] == 9_001
    assert state["flow"] == -1  # sellers come first


def test_a_market_in_which_nothing_trades_decides_all_the_same(monkeypatch):
    monkeypatch.setattr("tradefm_gym.envs.session_time.MAX_EVENTS", 3_000)
    session = TradingSession(1, TradingRole(5, 3), QuietFlow(1, quiet_bank(BIDS, ASKS)), clock="volume", context=0)
    session.seed(everyone(1), np.zeros(1, np.uint64))
    session.reset()
    session.step(np.zeros((1, 2)))
    assert session.market.background_count[0] == 4_096  # looked at after each quarter of the tape


@pytest.mark.parametrize("clock", ["time", "volume"])
def test_copies_and_twins_keep_the_clock(clock):
    session = session_of(make_flow("hawkes", 2), ("trading", "execution"), 5, clock=clock, counterfactual=True)
    go_on(session, [0, 1], 4, 1)
    branch = session.branch([1, 0])
    told = go_on(session, [0, 1], 3, 2)
    assert branch.clock is session.clock
    other = session_of(make_flow("hawkes", 2), ("trading", "execution"), 5, clock=clock, counterfactual=True)
    go_on(other, [0, 1], 4, 1)
    assert go_on(other, [0, 1], 3, 2) == told
    np.testing.assert_array_equal(session.market.background_count, session.twin.session.market.background_count)
    events = session_of(make_flow("hawkes", 2), ("trading", "execution"), 5, counterfactual=True)
    with pytest.raises(ValueError, match=f"context None and clock '{clock}'; it must be"):
        events.restore(session.snapshot())
    resting = session_of(make_flow("hawkes", 2), ("trading",), clock=clock, counterfactual=True)
    for _ in range(4):
        resting.step(np.zeros((2, 2)))
        assert resting.tape_hash(0) == resting.twin.session.tape_hash(0)


@pytest.mark.parametrize("clock", ["time", "volume"])
def test_the_end_of_the_flow_truncates(clock):
    flow = QuietFlow(2, quiet_bank(BIDS, ASKS), last=30)
    session = TradingSession(2, TradingRole(20 * STEP_NS, 8), flow, clock=clock, context=0)
    session.seed(everyone(2), np.zeros(2, np.uint64))
    session.reset()
    ends = [session.step(np.zeros((2, 2))).truncated.tolist() for _ in range(2)]
    assert ends == ([[False] * 2, [True] * 2] if clock == "time" else [[True] * 2, [False] * 2])


def test_faces_take_clocks():
    task = {"flow": "zero_intelligence", "decisions": 4, "clock": "time", "interval": 100_000_000}
    single, vector = ExecutionEnv(**task), ExecutionVectorEnv(2, **task)
    one, two = single.reset(seed=3), vector.reset(seed=2)
    for _ in range(4):
        np.testing.assert_array_equal(one[0], two[0][1])
        one, two = single.step([0.1, -0.3]), vector.step(np.tile([0.1, -0.3], (2, 1)))


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"clock": "wall"}, "clock is 'wall'; it must be one of 'events', 'time', 'volume'"),
        ({"clock": None}, "clock is None; it must be one of 'events'"),
        ({"interval": 2**20 + 1}, "interval is 1048577; with clock 'events' it must be an integer from 1 to 1048576"),
        ({"interval": 2**31, "clock": "volume"}, "interval is 2147483648; with clock 'volume' it must be an integer"),
        ({"interval": 86_400 * 10**9 + 1, "clock": "time"}, "interval is 86400000000001; it must be an integer from 1"),
        ({"interval": 0.5, "clock": "time"}, "interval is 0.5; it must be an integer"),
        ({"interval": -3, "clock": "time"}, "interval is -3; it must be an integer from 1"),
    ],
)
def test_wrong_clocks_and_intervals_are_named(task, said):
    with pytest.raises(ValueError, match=said):
        ExecutionEnv(flow="zero_intelligence", **task)
