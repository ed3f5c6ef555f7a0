import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.market.events import BUY, LIMIT, SELL

BIDS, ASKS = [(998, 100), (997, 200), (996, 300)], [(1002, 100), (1003, 200), (1004, 300)]


def executors(*sides, decisions=12, quantity=60):
    return [ExecutionRole(decisions=decisions, side=side, quantity=quantity) for side in sides]


def session_of(num_envs, roles, flow="zero_intelligence", seed=0, **options):
    session = TradingSession(num_envs, roles, flow, **options)
    session.seed(np.ones(num_envs, bool), np.arange(seed, seed + num_envs))
    return session


def quiet(roles, num_envs=1, script=None, last=10**9, seed=0, **options):
    return session_of(num_envs, roles, QuietFlow(num_envs, quiet_bank(BIDS, ASKS), script, last), seed, **options)


def drawn(session, generator):
    """One random action for each role and row."""
    n = session.num_envs
    return [
        generator.integers(0, role.action_space.n, n)
        if role.discrete
        else generator.uniform(-1, 1, (n, *role.action_space.shape)).astype(np.float32)
        for role in session.roles
    ]


def play(session, seed=0):
    """Random actions until all is over: yields the results of each decision."""
    generator = np.random.default_rng(seed)
    session.reset_roles()
    while session.running.any():
        yield session.step_roles(drawn(session, generator))


def hashes(session):
    return [session.tape_hash(m) for m in range(session.num_envs)]


def test_one_role_in_a_list_is_that_role_alone():
    alone, listed = session_of(3, executors("buy")[0]), session_of(3, executors("buy"))
    np.testing.assert_array_equal(alone.reset(), listed.reset_roles()[0])
    generator = np.random.default_rng(0)
    while alone.running.any():
        action = generator.uniform(-1, 1, (3, 2)).astype(np.float32)
        for one, other in zip(alone.step(action), listed.step_roles([action])[0], strict=True):
            np.testing.assert_array_equal(one, other)
    assert hashes(alone) == hashes(listed)


def test_each_role_has_its_seat_and_cash_and_lots_balance_over_all_owners():
    session = session_of(4, executors("buy", "sell", "buy"), maker_fee=-100, taker_fee=300)
    assert [role.seat for role in session.roles] == [0, 1, 2]
    for _ in play(session):
        accounts = session.market.accounts
        assert accounts.shape == (4, 4)
        assert not accounts["cash"].sum(axis=1).any()
        assert not accounts["inventory"].sum(axis=1).any()
        for i, role in enumerate(session.roles):
            np.testing.assert_array_equal(role.state["side"] * accounts["inventory"][:, i], role.state["executed"])
    assert all(accounts["inventory"][:, i].any() for i in range(3))


def test_the_first_of_two_equal_agents_is_drawn():
    n = 400
    session = quiet(executors("buy", "buy", decisions=4), n)
    session.reset_roles()
    session.step_roles([np.tile(np.array([0.0, 0.0], np.float32), (n, 1))] * 2)
    records = [session.market.tape.read_records(m) for m in range(n)]
    first = [record["owner"][record["owner"] >= 0][0] for record in records]
    assert 0.4 < np.mean(first) < 0.6  # 4 standard deviations of 400 fair draws
    again = quiet(executors("buy", "buy", decisions=4), n)
    again.reset_roles()
    again.step_roles([np.zeros((n, 2), np.float32)] * 2)
    assert hashes(again) == hashes(session)


def test_turns_change_from_decision_to_decision():
    session = quiet(executors("buy", "buy", decisions=60))
    session.reset_roles()
    first = []
    for _ in range(40):
        before = session.market.tape.record_count[0]
        session.step_roles([np.tile(np.array([0.0, -0.1], np.float32), (1, 1))] * 2)
        owners = session.market.tape.read_records(0, before)["owner"]
        first.append(int(owners[owners >= 0][0]))
    assert 8 <= sum(first) <= 32


def test_cancels_come_before_others_orders_of_that_instant():
    # The buyer rests at 1000 and moves away while the seller crosses: whoever has the first turn, the seller meets
    # the book without the old order, and nobody buys more than its parent order.
    n = 60
    session = quiet(executors("buy", "sell", decisions=2, quantity=50), n)
    session.reset_roles()
    rests = np.tile(np.array([1.0, 0.5], np.float32), (n, 1))
    buyer = session.roles[0]
    session.submit(buyer.orders(np.ones(n, bool), rests))
    session.advance(np.ones(n, bool), 0)
    buyer.settle(np.zeros(n, bool))
    buyer.closing(np.ones(n, bool))  # reads the tape: 50 rest at 1000
    assert (buyer.state["resting"] == 50).all()
    crosses = np.tile(np.array([1.0, 1.0], np.float32), (n, 1))
    session.step_roles([np.tile(np.array([1.0, -1.0], np.float32), (n, 1)), crosses])
    assert (session.market.accounts["inventory"][:, 1] == -50).all()
    assert not session.market.accounts["inventory"][:, 0].any()
    fills = session.market.tape.fills[:, 0]
    assert (fills["price"] == 998).all()


def test_nobody_trades_more_than_its_parent_order_among_others():
    session = session_of(16, executors("buy", "sell", "buy", "sell", decisions=10, quantity=300), seed=7)
    for _ in play(session, 3):
        for role in session.roles:
            assert (role.state["executed"] <= role.state["quantity"]).all()
    assert all((role.final_info()["fill_rate"] == 1.0).mean() > 0.5 for role in session.roles)


def test_agents_finish_and_leave_on_their_own():
    session = quiet(executors("buy", "sell", decisions=6, quantity=20), 2)
    session.reset_roles()
    now, later = np.ones((2, 2), np.float32), np.full((2, 2), -1.0, np.float32)
    done, going = session.step_roles([now, later])
    assert done.terminated.all() and not going.terminated.any()
    assert session.running.all()
    assert session.active.tolist() == [[False, False], [True, True]]
    for _ in range(5):
        gone, going = session.step_roles([None, later])
        assert not gone.reward.any() and not gone.terms.any() and not gone.terminated.any()
    assert going.terminated.all() and not session.running.any()


def test_the_end_of_the_flow_ends_all_that_are_left():
    session = quiet(executors("buy", "sell", decisions=6, quantity=20), last=40)
    session.reset_roles()
    still, now = np.full((1, 2), -1.0, np.float32), np.ones((1, 2), np.float32)
    session.step_roles([now, still])
    session.step_roles([None, still])
    gone, cut = session.step_roles([None, still])
    assert (gone.truncated[0], cut.truncated[0], session.running[0]) == (False, True, False)


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes"])
def test_a_row_does_not_depend_on_its_neighbours(flow):
    sides = ("buy", "sell", "buy")
    together, alone = session_of(5, executors(*sides), flow, 40), session_of(1, executors(*sides), flow, 43)
    together.reset_roles(), alone.reset_roles()
    generator = np.random.default_rng(0)
    while together.running.any():
        actions = drawn(together, generator)
        many = together.step_roles(actions)
        if alone.running.any():
            few = alone.step_roles([action[3:4] for action in actions])
            for one, other in zip(many, few, strict=True):
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a[3], b[0])
    assert together.tape_hash(3) == alone.tape_hash(0)


def test_a_gone_role_is_no_reader_of_the_tape():
    # 5,000 lines of the tape that nobody of the seat reads; its ring holds fewer.
    script = {i: (LIMIT, BUY if i % 2 else SELL, 900 if i % 2 else 1100, 1) for i in range(40_000)}
    session = quiet(executors("buy", "sell", decisions=8, quantity=20), script=script)
    session.roles[0].interval = session.roles[1].interval = session.interval = 2000
    session.reset_roles()
    session.step_roles([np.ones((1, 2), np.float32), np.full((1, 2), -1.0, np.float32)])
    for _ in range(6):
        session.step_roles([None, np.full((1, 2), -1.0, np.float32)])
    assert session.market.tape.record_count[0] > session.market.config.tape


def test_sides_of_several_executors_are_drawn_each_on_its_own():
    session = session_of(64, [ExecutionRole(quantity=10), ExecutionRole(quantity=10)])
    session.reset_roles()
    one, other = (role.state["side"] for role in session.roles)
    assert 0.2 < (one == other).mean() < 0.8


def test_options_reach_all_roles_or_one():
    session = session_of(2, [ExecutionRole(), ExecutionRole()])
    session.reset_roles(options={"quantity": 7, "roles": [{"side": "buy"}, {"side": ["sell", "buy"], "quantity": 9}]})
    assert [role.state["quantity"].tolist() for role in session.roles] == [[7, 7], [9, 9]]
    assert [role.state["side"].tolist() for role in session.roles] == [[1, 1], [-1, 1]]
    before = hashes(session)
    for wrong, said in (
        ({"roles": [{}]}, "roles in options is .*; it must be a list of 2 dicts"),
        ({"roles": {}}, "roles in options is {}; it must be a list of 2 dicts"),
        ({"roles": [{}, {"side": "up"}]}, "side is 'up'"),
    ):
        with pytest.raises(ValueError, match=said):
            session.reset_roles(options=wrong)
    assert hashes(session) == before


def test_wrong_roles_and_actions_are_named():
    role = ExecutionRole()
    for roles, said in (
        ([], r"roles is \[\]; it must be a role, or a list of at least one"),
        ("execution", "roles is 'execution'; it must be a role"),
        ([role, 3], "it must be a role, or a list"),
        ([role, role], "an object may stand in it once"),
        ([role, ExecutionRole(interval=8)], r"interval of roles\[1\] is 8; it must be that of roles\[0\], 16"),
    ):
        with pytest.raises(ValueError, match=said):
            TradingSession(1, roles, "zero_intelligence")
    with pytest.raises(ValueError, match="seats is 1; it must be an integer from 2"):
        TradingSession(1, executors("buy", "sell"), "zero_intelligence", seats=1)
    session = quiet(executors("buy", "sell"))
    session.reset_roles()
    before = hashes(session), [role.state.copy() for role in session.roles]
    zero = np.zeros((1, 2), np.float32)
    for actions, said in (
        ([zero], "actions has 1 entries; it must have one for each of 2 roles"),
        ([zero, None], "action is None; it must be two numbers"),
        ([zero, np.full((1, 2), 2.0)], r"action is \[2.0, 2.0\]"),
    ):
        with pytest.raises(ValueError, match=said):
            session.step_roles(actions)
    with pytest.raises(ValueError, match="step was called on a session of 2 roles; call step_roles"):
        session.step(zero)
    assert hashes(session) == before[0]
    for role, state in zip(session.roles, before[1], strict=True):
        np.testing.assert_array_equal(role.state, state)
