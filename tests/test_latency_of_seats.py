"""Seats whose orders and news take time: what they may hold, what they see, and how their tasks end."""

import pickle

import numpy as np
import pytest
from played_sessions import ROLES, go_on, session_of
from quiet_flow import STEP_NS, QuietFlow, quiet_bank
from small_day import cpu_flow
from small_tradefm import everyone

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.parallel_env import parallel_env
from tradefm_gym.envs.seat import HALF_TICK
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.market.events import BUY, CANCEL, LIMIT

MS = 1_000_000
LATE = {
    "orders": {"order_latency_ns": 1_000},
    "long orders": {"order_latency_ns": 500 * MS},
    "drawn orders": {"order_latency_ns": {"median_ns": 2 * MS, "sigma": 1.0}},
    "news": {"data_latency_ns": 200 * MS},
    "both": {"order_latency_ns": 30 * MS, "data_latency_ns": {"samples_ns": [MS, 90 * MS]}},
    "each its own": {"order_latency_ns": [None, 10 * MS, 0], "data_latency_ns": (10 * MS, None, None)},
}
BIDS, ASKS = [(998, 100), (997, 200)], [(1002, 100), (1003, 200)]


def worth(session, seat):
    account, state = session.market.accounts[:, seat], session.roles[seat].state
    return account["cash"] + account["inventory"] * state["decision_mid2"] * HALF_TICK - account["fees"]


def play(num_envs, flow, **late):
    """Everything that three roles saw in the first two rows; limits and ledgers are looked at on the way."""
    roles = [ExecutionRole(decisions=9, quantity=100), MarketMakingRole(decisions=10), TradingRole(decisions=11)]
    session = TradingSession(num_envs, roles, flow, maker_fee=-100, taker_fee=200, **late)
    session.seed(everyone(num_envs), np.arange(num_envs))
    told = [one[:2].copy() for one in session.reset_roles()]
    generators = [np.random.default_rng(m) for m in range(num_envs)]
    before = [worth(session, seat) for seat in range(3)]
    while session.running.any():
        active = session.active.copy()
        drawn = [[g.uniform(-1, 1, role.action_space.shape) for role in roles] for g in generators]
        results = session.step_roles([np.array(column) for column in zip(*drawn, strict=True)])
        for seat in (1, 2):
            state, account = roles[seat].state, session.market.accounts[:, seat]
            now = worth(session, seat)
            gained = np.where(active[seat], now - before[seat], 0)
            np.testing.assert_array_equal(results[seat].terms[:, :4].sum(axis=1), gained)
            before[seat] = np.where(active[seat], now, before[seat])
            assert (np.abs(account["inventory"]) <= state["limit"]).all()
            both = active[seat] & (roles[seat].sizes[:, :, 0] > 0).all(axis=1)
            np.testing.assert_array_equal(state["decision_mid2"][both], session.market.mid2_excluding(seat)[both])
        state, account = roles[0].state, session.market.accounts[:, 0]
        assert (state["executed"] <= state["quantity"]).all()
        np.testing.assert_array_equal(state["side"] * account["inventory"], state["executed"])
        for role, result in zip(roles, results, strict=True):
            assert all(row in role.observation_space for row in result.observation)
            told += [result.observation[:2].copy(), result.reward[:2].copy()]
    for seat in range(3):
        assert session.market.in_flight(seat).count.sum() == 0
    assert (session.market.accounts["inventory"][:, 1:3] == 0).mean() > 0.8
    assert (roles[0].state["executed"] == 100).mean() > 0.8
    return [array.tolist() for array in told], [session.tape_hash(m) for m in range(2)]


@pytest.mark.parametrize("late", LATE.values(), ids=LATE)
def test_limits_and_ledgers_hold_and_no_row_depends_on_its_neighbours(late):
    assert play(2, "zero_intelligence", **late) == play(5, "zero_intelligence", **late)


@pytest.mark.parametrize("flow", ["hawkes", "replay"])
def test_other_flows_too(flow):
    assert play(2, cpu_flow(flow), **LATE["both"]) == play(3, cpu_flow(flow), **LATE["both"])


def test_no_time_at_all_is_no_latency():
    known = play(2, "zero_intelligence")
    assert play(2, "zero_intelligence", order_latency_ns=0, data_latency_ns=[0, None, 0]) == known
    assert play(2, "zero_intelligence", order_latency_ns=1)[1] != known[1]


def quiet(role, script=None, **late):
    session = TradingSession(1, role, QuietFlow(1, quiet_bank(BIDS, ASKS), script), context=0, **late)
    session.seed(everyone(1), np.zeros(1, np.uint64))
    return session


def test_orders_arrive_when_their_latency_says():
    session = quiet(ExecutionRole(decisions=4, side="buy", quantity=40), order_latency_ns=5 * STEP_NS)
    session.reset()
    session.step(np.array([[0.0, -0.5]]))
    tape = session.market.tape.read_records(0)
    assert tape["time_ns"][tape["owner"] == 0].tolist() == [5 * STEP_NS]
    # The 10 lots that rest are taken back and might be met before that: of the 40 wanted at the touch 30 may go out.
    block = session.role.orders(everyone(1), np.array([[1.0, 0.0]], np.float32))
    assert block.events["kind"][0, : block.count[0]].tolist() == [CANCEL, LIMIT]
    assert block.events["size"][0, 1] == 30
    # Nothing is taken back twice, and all 40 lots are out.
    block = session.role.orders(everyone(1), np.array([[1.0, 0.5]], np.float32))
    assert block.events["kind"][0, : block.count[0]].tolist() == [CANCEL]
    assert block.events["order_id"][0, 0] == 2


def test_a_late_seat_ends_its_task_after_its_last_orders():
    session = quiet(ExecutionRole(decisions=2, side="buy", quantity=40), order_latency_ns=5 * STEP_NS)
    session.reset()
    session.step(np.array([[0.0, -0.5]]))
    result = session.step(np.array([[0.0, -0.5]]))
    assert result.terminated[0]
    assert session.role.state["executed"][0] == 40
    tape = session.market.tape.read_records(0)
    own = tape[tape["owner"] == 0]
    # Sent after 16 events (which takes 16 steps) and 32; at the deadline cancels first, and what crosses once they are
    # there.
    assert (own["time_ns"] // STEP_NS).tolist() == [5, 21, 37, 37, 42]
    assert own["kind"].tolist() == [LIMIT, LIMIT, CANCEL, CANCEL, 1]
    assert session.market.background_count[0] == 42


def test_a_seat_with_late_news_sees_the_past():
    script = {10: (LIMIT, BUY, 1000, 50)}  # a better bid, 11 steps after the start
    seen = []
    for late in (None, 20 * STEP_NS):
        session = quiet(ExecutionRole(decisions=8, side="buy", quantity=8), script, data_latency_ns=late)
        role = session.role
        session.reset()
        bids = []
        for _ in range(3):
            session.step(np.array([[-1.0, 0.0]]))
            bids.append((int(role.seen.prices[0, 0, 0]), int(role.prices[0, 0, 0])))
        seen.append(bids)
    assert seen[0] == [(1000, 1000)] * 3
    assert seen[1] == [(998, 1000), (1000, 1000), (1000, 1000)]


@pytest.mark.parametrize("late", ["both", "each its own"])
def test_copies_go_on_as_their_parents(late):
    session = session_of(make_flow("hawkes", 2), tuple(ROLES), 5, **LATE[late])
    other = session_of(make_flow("hawkes", 3), tuple(ROLES), 90, **LATE[late])
    go_on(session, [0, 1], 4, 1)
    kept, branch = pickle.loads(pickle.dumps(session.snapshot())), session.branch()
    told = go_on(session, [0, 1], 4, 2)
    assert go_on(branch, [0, 1], 4, 2) == told
    other.restore(kept, [0, 2])
    assert go_on(other, [0, 2], 4, 2) == told
    late_too = TradingSession(2, [ROLES[name]() for name in ROLES], make_flow("hawkes", 2))
    with pytest.raises(ValueError, match=r"differs in|must be"):
        late_too.restore(kept)


def test_the_twin_of_somebody_late_who_does_nothing_is_the_market_itself():
    session = session_of(make_flow("hawkes", 2), ("trading",), counterfactual=True, **LATE["both"])
    for _ in range(5):
        session.step(np.zeros((2, 2)))
        assert [session.tape_hash(m) for m in range(2)] == [session.twin.session.tape_hash(m) for m in range(2)]


def test_faces_take_latencies():
    task = {"flow": "zero_intelligence", "decisions": 4, "order_latency_ns": 7, "data_latency_ns": 9}
    single, vector = ExecutionEnv(**task), ExecutionVectorEnv(2, **task)
    one, two = single.reset(seed=3)[0], vector.reset(seed=2)[0][1]
    for _ in range(4):
        np.testing.assert_array_equal(one, two)
        one, two = single.step([0.1, -0.3])[0], vector.step(np.tile([0.1, -0.3], (2, 1)))[0][1]
    roles = ["market_making", {"role": "trading", "order_latency_ns": 50}, {"role": TradingRole(), "name": "x"}]
    env = parallel_env(roles, flow="zero_intelligence", order_latency_ns=20, data_latency_ns=3)
    config = env.session.market.config
    assert config.order_latencies == (20, 50, 20)
    assert config.data_latencies == (3, 3, 3)


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ({"order_latency_ns": -1}, "order_latency_ns is -1; allowed are integers from 0 to"),
        ({"data_latency_ns": "1ms"}, "data_latency_ns is '1ms'; allowed are integers"),
        ({"order_latency_ns": [1, 2]}, "order_latency_ns has 2 latencies for 1 seats"),
        ({"data_latency_ns": {"median_ns": 3}}, "data_latency_ns has the keys"),
    ],
)
def test_wrong_latencies_are_named(late, said):
    with pytest.raises(ValueError, match=said):
        ExecutionEnv(flow="zero_intelligence", **late)
