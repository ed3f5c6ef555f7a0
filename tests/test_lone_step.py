"""A lone seat's decision in one loop is what the roles' own methods do one after the other, to the bit."""

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank
from small_day import cpu_flow

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession
from tradefm_gym.market.layout import LOG_END


class SlowExecution(ExecutionRole):
    """Goes the long way, as whatever is derived from a role does."""


class SlowMaking(MarketMakingRole):
    """The same."""


class SlowTrading(TradingRole):
    """The same."""


ROLES = {
    "execution": (ExecutionRole, SlowExecution, {}),
    "vwap with a limit": (ExecutionRole, SlowExecution, {"schedule": "vwap", "limit_bps": 3.0, "recent_events": 4}),
    "discrete execution": (ExecutionRole, SlowExecution, {"discrete": True}),
    "terms": (ExecutionRole, SlowExecution, {"reward": ["shortfall", {"term": "order_to_trade"}]}),
    "making": (MarketMakingRole, SlowMaking, {"inventory_penalty": 3, "penalty_shape": "quadratic"}),
    "discrete making": (MarketMakingRole, SlowMaking, {"discrete": True}),
    "trading": (TradingRole, SlowTrading, {}),
}


def both(name, n, flow, **market):
    fast, slow, settings = ROLES[name]
    return [TradingSession(n, role(decisions=9, **settings), flow(), **market) for role in (fast, slow)]


def assert_alike(one, two):
    for own, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(own, other)


def actions_of(random, session):
    role, n = session.role, session.num_envs
    if role.discrete:
        return random.integers(0, len(role.presets), n)
    return random.uniform(-1, 1, (n, role.presets.shape[1])).astype(np.float32)


@pytest.mark.parametrize("n", [1, 3, 80])
@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes", "replay"])
@pytest.mark.parametrize("name", ROLES)
def test_both_ways_lead_to_the_same(name, flow, n):
    fast, slow = both(name, n, lambda: cpu_flow(flow), taker_fee=3, maker_fee=-1, taker_rate=40)
    assert fast._alone and not slow._alone
    random = np.random.default_rng(n)
    seeds = np.arange(n).astype(np.uint64)
    for session in (fast, slow):
        session.seed(np.ones(n, np.bool_), seeds)
    assert_alike(fast.reset_roles(), slow.reset_roles())
    for step in range(30):
        rows = random.random(n) < 0.8 if step % 3 == 0 else None
        actions = actions_of(random, fast)
        assert_alike(fast.step(actions, rows), slow.step(actions, rows))
        assert_alike((fast.running, fast.active), (slow.running, slow.active))
        assert_alike(fast.role._kept().values(), slow.role._kept().values())
        ended = ~fast.running
        if ended.any():
            assert_alike(fast.reset_roles(ended), slow.reset_roles(ended))
    assert [fast.tape_hash(m) for m in range(n)] == [slow.tape_hash(m) for m in range(n)]
    assert fast.market.snapshot() == slow.market.snapshot()


@pytest.mark.parametrize("name", ["execution", "making", "trading"])
@pytest.mark.parametrize("rests", [127, 128])
def test_books_widen_in_the_midst_of_a_decision(name, rests):
    """A book begins with room for 128 orders: the seat's own ones, or those that close its interval, need more."""
    side = rests // 2
    bank = quiet_bank([(1000 - i, 5) for i in range(rests - side)], [(1002 + i, 5) for i in range(side)])
    fast, slow = both(name, 2, lambda: QuietFlow(2, bank))
    assert_alike(fast.reset_roles(), slow.reset_roles())
    assert fast.market.book.orders.shape[1] == 129
    actions = np.full((2, fast.role.presets.shape[1]), 0.5, np.float32)
    for aggressiveness in (-1.0, 1.0, 0.0, 0.5, -0.5, 1.0, 0.0, 0.0, 0.0):
        actions[:, -1] = aggressiveness
        assert_alike(fast.step(actions), slow.step(actions))
    assert fast.market.book.orders.shape[1] > 129
    assert fast.market.snapshot() == slow.market.snapshot()


def test_a_pause_and_a_closing_order_that_does_not_fit_at_first():
    bank = quiet_bank([(1000 - i, 5) for i in range(64)], [(1002 + i, 5) for i in range(64)])
    sessions = [TradingSession(1, role(decisions=1), QuietFlow(1, bank)) for role in (ExecutionRole, SlowExecution)]
    results = []
    for session in sessions:
        session.reset()
        results.append(session.step(np.array([[-1.0, -1.0]], np.float32)))  # nothing but the order at the deadline
    assert_alike(*results)
    assert sessions[0].market.executed[0] > 0 and sessions[0].market.book.orders.shape[1] > 129


def test_a_flow_that_ends_within_the_interval_truncates():
    bank = quiet_bank([(1000, 500)], [(1002, 500)])
    for result in [session.step(np.zeros((3, 2), np.float32)) for session in _begun(bank)]:
        assert result.truncated.all() and not result.terminated.any()


def _begun(bank):
    for role in (ExecutionRole, SlowExecution):
        session = TradingSession(3, role(), QuietFlow(3, bank, last=10))
        session.reset()
        yield session


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -np.inf])
def test_a_wrong_action_changes_nothing(wrong):
    session = TradingSession(3, MarketMakingRole(), "zero_intelligence")
    session.reset()
    before = session.snapshot()
    actions = np.zeros((3, 4), np.float32)
    actions[1, 2] = wrong
    with pytest.raises(ValueError, match="action of row 1 is"):
        session.step(actions)
    after = session.snapshot()
    assert after.market == before.market
    for one, two in zip(after.parts, before.parts, strict=True):
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], two.arrays[name])
    session.step(actions, np.array([True, False, True]))  # what takes no part is not read


def test_actions_of_any_layout_are_taken():
    plain, other = (TradingSession(4, TradingRole(), "zero_intelligence") for _ in range(2))
    for session in (plain, other):
        session.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32)
    for form in (
        actions.astype(np.float64),
        np.asfortranarray(actions),
        np.repeat(actions, 2, 0)[::2],
        _frozen(actions),
    ):
        assert_alike(plain.step(actions), other.step(form))


def _frozen(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def test_a_seat_beside_one_whose_news_are_late_goes_the_long_way():
    """Such a market logs all that happens, and must see to room for it: orders past the log's end went elsewhere."""
    late = {"seats": 2, "data_latency_ns": [None, 10**12]}
    fast, slow = both("making", 3, lambda: "zero_intelligence", **late)
    assert not fast._alone
    random = np.random.default_rng(0)
    for session in (fast, slow):
        session.reset()
    for _ in range(60):
        actions = actions_of(random, fast)
        assert_alike(fast.step(actions), slow.step(actions))
        for session in (fast, slow):
            assert session.market.book.row[:, LOG_END].max() <= session.market.book.log.shape[1]
            if not session.running.all():
                session.reset(~session.running)


def test_a_role_that_sits_elsewhere_is_copied():
    role = ExecutionRole(decisions=10, side="buy", quantity=500)
    one, two = (TradingSession(1, role, "zero_intelligence") for _ in range(2))
    alone = TradingSession(1, ExecutionRole(decisions=10, side="buy", quantity=500), "zero_intelligence")
    assert one.role is role and two.role is not role
    action = np.array([[0.5, 1.0]], np.float32)
    for session in (one, two, alone):
        session.seed(np.ones(1, np.bool_), np.array([1 if session is not two else 2], np.uint64))
        session.reset()
    before = two.tape_hash(0)
    assert_alike(one.step(action), alone.step(action))
    assert two.tape_hash(0) == before
