"""Copies of flows, roles, sessions and environments: they go on as the original does, to the last bit."""

import pickle

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from quiet_flow import QuietFlow, quiet_bank
from small_day import cpu_flow
from small_tradefm import everyone, write_checkpoint, zero_intelligence_bank
from test_envs import assert_same

from tradefm_gym.envs.counterfactual import Twin
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv, MarketMakingEnv, TradingEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.parallel_env import parallel_env
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.simulator import MarketSimulator

FLOWS = ("zero_intelligence", "hawkes", "replay", "tradefm")


@pytest.fixture(scope="module", name="make")
def _make(tmp_path_factory):
    """Makes a flow of a name for N markets."""
    folder, bank = write_checkpoint(tmp_path_factory.mktemp("model") / "small"), zero_intelligence_bank()
    bank.feature_state["followers"] = np.linspace(2, 9, 2 * len(bank)).reshape(-1, 2)

    def make(name, num_envs, **options):
        if name != "tradefm":
            return make_flow(cpu_flow(name), num_envs, **options)
        weighed = {"persistence": (0.1, 0.1), "following": 1.0, "restoring": 0.5}
        return TradeFMFlow(folder, num_envs, bank=bank, **(weighed | options))

    return make


class Loop:
    """A flow and its market, started on contexts and seeds that depend on the row only."""

    def __init__(self, flow):
        n = flow.num_envs
        self.flow, self.market = flow, MarketSimulator(n, flow.market_config())
        contexts, seeds = np.arange(n) % len(flow.bank), np.arange(n).astype(np.uint64)
        flow.reset(self.market, everyone(n), contexts, seeds, np.ones(n, np.uint32))

    def run(self, events):
        target = self.market.background_count + events
        while (starved := self.market.advance(until_count=target)).any():
            self.market.feed(self.flow.next_events(self.market, starved))
        return self


# --- Flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 3, 64])
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_goes_on_from_what_it_kept(make, name, num_envs):
    loop, events = Loop(make(name, num_envs)), 150 if num_envs < 64 else 90
    loop.run(75)
    market, state = loop.market.snapshot(), pickle.loads(pickle.dumps(loop.flow.snapshot()))
    loop.run(events)
    other = Loop(loop.flow.for_markets(num_envs)).run(13)
    assert other.flow.version == loop.flow.version
    other.market.restore(market)
    other.flow.restore(state)
    other.run(events)
    assert other.market.snapshot() == loop.market.snapshot()
    for array, same in zip(other.flow.snapshot().arrays.values(), loop.flow.snapshot().arrays.values(), strict=True):
        if array.dtype != object:
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", FLOWS)
def test_rows_of_a_flow_change_places(make, name):
    loop = Loop(make(name, 3)).run(75)
    market, state = loop.market.snapshot([2, 0]), loop.flow.snapshot(np.array([2, 0]))
    loop.run(40)
    other = Loop(make(name, 4)).run(13)
    other.market.restore(market, [1, 3])
    other.flow.restore(state, np.array([1, 3]))
    alone = Loop(make(name, 4)).run(53)
    other.run(40)
    assert other.market.snapshot([1, 3]) == loop.market.snapshot([2, 0])
    assert other.market.snapshot([0, 2]) == alone.market.snapshot([0, 2])


def test_what_a_flow_keeps_cannot_be_written_and_does_not_change(make):
    for name in FLOWS:
        loop = Loop(make(name, 2)).run(20)
        state = loop.flow.snapshot()
        before = {key: array.tobytes() for key, array in state.arrays.items() if array.dtype != object}
        loop.run(100)
        for key, content in before.items():
            assert state.arrays[key].tobytes() == content
            with pytest.raises(ValueError, match="read-only"):
                state.arrays[key][0] = 1


def test_states_of_other_flows_are_refused_before_anything_changes(make):
    flow = make("zero_intelligence", 2)
    Loop(flow)
    kept = flow.snapshot()
    bank = make("zero_intelligence", 1).bank
    other = ZeroIntelligenceFlow(2, bank=bank, parameters=None)
    other.version = "other"
    arrays = dict(kept.arrays)
    clock = arrays.pop("clock_ns")
    for state, said in [
        (other.snapshot(), "state is one of flow 'zero_intelligence' of version 'other'; it must be one of flow"),
        (make("hawkes", 2).snapshot(), "state is one of flow 'hawkes'"),
        (flow.snapshot(np.array([0])), r"has seeds of uint64 \(1,\); it must be uint64 \(2,\)"),
        (RowState(kept.owner, arrays), r"differs in its arrays \(clock_ns\); it must have the same"),
        (RowState(kept.owner, {**arrays, "clock_ns": clock.astype(float)}), "has clock_ns of float64"),
        (None, "state is None; it must be a RowState"),
    ]:
        with pytest.raises(ValueError, match=said):
            flow.restore(state)
    for rows, said in (([0, 0], "names a market twice"), ([2], "rows reach from 2 to 2"), ("x", "rows is 'x'")):
        with pytest.raises(ValueError, match=said):
            flow.restore(flow.snapshot(), rows)
    with pytest.raises(ValueError, match="state is one of flow 'tradefm:"):
        make("tradefm", 1).restore(make("tradefm", 1, following=0.0).snapshot())
    for key, array in flow.snapshot().arrays.items():
        assert array.tobytes() == kept.arrays[key].tobytes()


# --- Sessions ---------------------------------------------------------------------------------------------------

ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}
DECISIONS = 9


def session_of(flow, roles=("execution",), seed=0, **options):
    n, made = flow.num_envs, [ROLES[name](decisions=DECISIONS + i) for i, name in enumerate(roles)]
    session = TradingSession(n, made, flow, **options)
    session.seed(everyone(n), np.arange(seed, seed + n))
    session.reset_roles()
    return session


def go_on(session, rows, decisions, seed):
    """All that anybody is told of the rows within some decisions of random actions, and their tapes."""
    generator, told = np.random.default_rng(seed), []
    for _ in range(decisions):
        actions = []
        for role in session.roles:
            action = np.zeros((session.num_envs, *role.action_space.shape), np.float32)
            action[rows] = generator.uniform(-1, 1, (len(rows), *role.action_space.shape))
            actions.append(action)
        for i, result in enumerate(session.step_roles(actions)):
            told += [array[rows].copy() for array in result]
            told += columns({**session.start_info(i), **session.step_info(i), **session.final_info(i)}, rows)
    return [array.tolist() for array in told], [session.tape_hash(row) for row in rows]


def columns(info, rows):
    """The columns of an info, those in dicts too."""
    found = []
    for value in info.values():
        found += columns(value, rows) if isinstance(value, dict) else [value[rows].copy()]
    return found


def episodes(session, rows):
    """The rest of this episode and the beginning of the next one."""
    first = go_on(session, rows, DECISIONS - 3, 2)
    session.reset_roles(np.isin(np.arange(session.num_envs), rows))
    return first, go_on(session, rows, 2, 3)


CASES = [(flow, ("execution",), n) for flow in FLOWS for n in (1, 3, 64)]
CASES += [(flow, (role,), n) for flow in FLOWS for role, n in (("market_making", 3), ("trading", 3))]
CASES += [("zero_intelligence", (role,), n) for role in ("market_making", "trading") for n in (1, 64)]
CASES += [(flow, ("market_making", "execution", "trading"), 3) for flow in FLOWS]


@pytest.mark.parametrize(("flow", "roles", "num_envs"), CASES)
def test_a_session_goes_on_from_its_snapshot(make, flow, roles, num_envs):
    session, rows = session_of(make(flow, num_envs), roles), np.arange(num_envs)
    go_on(session, rows, 3, 1)
    value = pickle.loads(pickle.dumps(session.snapshot()))
    seen = [array.tolist() for array in session.observe()]
    expected = episodes(session, rows)
    other = session_of(make(flow, num_envs), roles, seed=900)
    go_on(other, rows, 2, 4)
    other.restore(value)
    assert [array.tolist() for array in other.observe()] == seen
    assert episodes(other, rows) == expected
    session.restore(value)  # back in time, in the same session
    assert episodes(session, rows) == expected


@pytest.mark.parametrize("flow", FLOWS)
def test_rows_go_on_elsewhere_and_leave_the_others_alone(make, flow):
    session, other, alone = (session_of(make(flow, n), seed=s) for n, s in ((3, 0), (5, 50), (5, 50)))
    go_on(session, np.arange(3), 3, 1)
    session.fork([2, 0], [4, 1], other)
    branch = session.branch([2, 0, 2])
    session.fork(2, [1])
    assert session.tape_hash(1) == session.tape_hash(2)
    expected = episodes(session, np.array([2, 0]))
    assert episodes(other, np.array([4, 1])) == expected
    assert episodes(branch, np.array([0, 1])) == expected
    assert branch.num_envs == 3 and branch.tape_hash(2) != branch.tape_hash(0)  # the third one idled
    rest = np.array([0, 2, 3])
    other.restore(other.snapshot([0]), [4])  # by itself
    assert other.tape_hash(4) == other.tape_hash(0)
    for run in (other, alone):
        run.seed(everyone(5), np.arange(5))
        run.reset_roles()
    assert go_on(other, rest, 2, 5) == go_on(alone, rest, 2, 5)


def test_a_torch_engine_goes_on_in_the_same_rows_of_an_equal_batch(make):
    pytest.importorskip("torch", reason="needs the torch extra")
    session, other = (session_of(make("tradefm", 3, backend="torch"), seed=s, counterfactual=True) for s in (0, 70))
    rows = np.arange(3)
    go_on(session, rows, 3, 1)
    value, branch = session.snapshot(), session.branch()
    expected = episodes(session, rows)
    other.restore(value)
    assert episodes(other, rows) == episodes(branch, rows) == expected
    with pytest.raises(ValueError, match=r"state is one of flow .* on TorchEngine \(cpu\); it must be .* NumbaEngine"):
        session_of(make("tradefm", 3), counterfactual=True).restore(value)


def test_a_branch_has_the_settings_of_its_parent(make):
    options = {"split": "test", "seats": 2, "maker_fee": -2, "taker_fee": 3, "maker_rate": -4, "taker_rate": 5}
    for more in ({}, {"context": 90}):
        session = session_of(make("hawkes", 2), ("market_making",), **options, **more)
        branch = session.branch()
        assert branch.market.config == session.market.config and branch.split == "test"
        assert episodes(branch, np.arange(2)) == episodes(session, np.arange(2))


def test_rows_that_nobody_forks_do_not_change(make):
    session, alone = session_of(make("tradefm", 4)), session_of(make("tradefm", 4))
    for run in (session, alone):
        go_on(run, np.arange(4), 2, 1)
    session.fork([3, 0], [0, 1])
    assert session.seeds.tolist() == [3, 0, 2, 3]
    rest = np.array([2, 3])
    assert go_on(session, rest, 4, 2) == go_on(alone, rest, 4, 2)


def test_results_that_were_handed_out_stay_as_they_are(make):
    session = session_of(make("zero_intelligence", 2))
    value = session.snapshot()
    result = session.step(np.ones((2, 2), np.float32))
    before = [array.copy() for array in result]
    assert before[2].any()
    session.restore(value)
    for array, copy in zip(result, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_snapshots_of_other_sessions_are_refused_before_anything_changes(make):
    session = session_of(make("zero_intelligence", 2))
    go_on(session, np.arange(2), 2, 1)
    before = session.snapshot()
    versioned = make("zero_intelligence", 2)
    versioned.version = "other"
    buying = TradingSession(2, ExecutionRole(decisions=DECISIONS, side="buy"), make("zero_intelligence", 2))
    for other, said in [
        (session_of(make("hawkes", 2)), "state is one of flow 'hawkes' of version .*; it must be one of flow 'zero"),
        (session_of(versioned), "state is one of flow 'zero_intelligence' of version 'other'; it must be"),
        (session_of(make("zero_intelligence", 2), ("trading",)), r"state is one of role TradingRole\(interval=16, "),
        (buying, r"state is one of role ExecutionRole\(interval=16, decisions=9, side=1, .*; it must be one of role"),
        (session_of(make("zero_intelligence", 2), split="test"), "a session of split 'test' and context None; it"),
        (session_of(make("zero_intelligence", 2), context=3), "a session of split 'train' and context 3; it must"),
        (session_of(make("zero_intelligence", 2), taker_fee=3), "a market of another MarketConfig; allowed is"),
        (session_of(make("zero_intelligence", 2), seats=2), "a market of another MarketConfig; allowed is"),
        (session_of(make("zero_intelligence", 2), ("execution", "trading")), "a session of 2 roles; it must be of 1"),
        (session_of(make("zero_intelligence", 3)), r"has seeds of uint64 \(3,\); it must be uint64 \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=said) as caught:
            session.restore(other.snapshot())
        assert "\n" not in str(caught.value) and str(caught.value).count(". ") == 0
        if other.num_envs == 2:
            with pytest.raises(ValueError, match=said):
                other.fork([0, 1], [0, 1], session)
    for value in (None, before.market, before.parts, 3):
        with pytest.raises(ValueError, match=r"value is .*; it must be a SessionState"):
            session.restore(value)
    for call in (lambda: session.snapshot([2]), lambda: session.restore(before, [0, 2]), lambda: session.branch([-1])):
        with pytest.raises(ValueError, match=r"rows reach from .*; allowed is 0 to 1"):
            call()
    for call, said in [
        (lambda: session.restore(before, [0, 0]), "rows names a market twice"),
        (lambda: session.fork([0, 1, 1], [0, 1]), "allowed is one, or one for each of 2"),
        (lambda: session.fork(0.5, [0]), "rows is 0.5; allowed is one"),
        (lambda: session.fork(0, [1], "there"), "session is 'there'; it must be a TradingSession or None"),
        (lambda: session.branch([]), "it must name at least one"),
    ]:
        with pytest.raises(ValueError, match=said):
            call()
    after = session.snapshot()
    assert after.market == before.market
    for one, two in zip(after.parts, before.parts, strict=True):
        for name in one.arrays:
            np.testing.assert_array_equal(one.arrays[name], two.arrays[name])


def test_a_flow_that_cannot_be_copied_says_so():
    session = session_of(QuietFlow(1, quiet_bank([(998, 100)], [(1002, 100)])))
    for call in (session.snapshot, session.branch, lambda: session.fork(0, [0])):
        with pytest.raises(ValueError, match="flow 'quiet' has no snapshot and restore; without them a session cannot"):
            call()


WORK = {  # arrays of a row each that nothing reads before it has written them
    "TradeFMFlow": "active bits dense inputs queue scratch strength tilt uniforms youngest",
}


def arrays_of(thing, n):
    """What an object has of arrays with a row for each of n markets."""
    found = {name for name, value in vars(thing).items() if isinstance(value, np.ndarray) and n in value.shape[:2]}
    return {name.removeprefix("_") for name in found} - set(WORK.get(type(thing).__name__, "").split())


@pytest.mark.parametrize("flow", FLOWS)
def test_nothing_that_a_row_has_is_left_out(make, flow):
    session = session_of(make(flow, 7), tuple(ROLES))
    own, of_flow, *of_roles = session.snapshot().parts
    assert arrays_of(session, 7) == set(own.arrays)
    if flow != "hawkes":  # whose state is a tuple of its own
        assert arrays_of(session.flow, 7) == set(of_flow.arrays) - {"cache"}
    for role, kept in zip(session.roles, of_roles, strict=True):
        assert arrays_of(role, 7) == set(kept.arrays)


# --- Environments -----------------------------------------------------------------------------------------------


def assert_told_alike(one, two):
    assert_same(dict(enumerate(one)), dict(enumerate(two)))


@pytest.mark.parametrize("env_type", [ExecutionEnv, MarketMakingEnv, TradingEnv])
@pytest.mark.parametrize("flow", FLOWS)
def test_an_environment_goes_on_from_its_snapshot_and_forks(make, env_type, flow):
    env, other = (env_type(flow=make(flow, 1), decisions=8) for _ in range(2))
    with pytest.raises(ResetNeeded, match="snapshot was called before reset"):
        env.snapshot()
    env.reset(seed=3), env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    for action in actions[:3]:
        seen = env.step(action)[0]
    value, session = env.snapshot(), env.fork(2)
    np.testing.assert_array_equal(session.observe()[0], np.stack([seen, seen]))
    np.testing.assert_array_equal(other.restore(value), seen)
    while True:
        action = actions.pop()
        told, result = env.step(action), session.step(np.stack([action, -action]))
        assert_told_alike(told, other.step(action))
        np.testing.assert_array_equal(result.observation[0], told[0])
        assert (result.reward[0], result.terminated[0]) == (told[1], told[2])
        if told[2]:
            break
    assert session.tape_hash(0) == env.session.tape_hash(0) == other.session.tape_hash(0) != session.tape_hash(1)
    assert_told_alike(env.reset(), other.reset())
    assert_told_alike(env.step(actions[0]), other.step(actions[0]))
    with pytest.raises(ValueError, match="k is 0; it must be an integer of at least 1"):
        env.fork(0)
    with pytest.raises(ValueError, match="state is one of role"):
        env_type(flow=make(flow, 1), decisions=7).restore(value)


def test_agents_of_a_market_go_on_from_a_snapshot_some_of_them_gone(make):
    roles = [{"role": "execution", "decisions": 3}, "market_making", {"role": "trading", "decisions": 6}]
    envs = [parallel_env(roles, flow=make("tradefm", 1), decisions=9) for _ in range(2)]
    with pytest.raises(ResetNeeded, match="snapshot was called before reset"):
        envs[0].snapshot()
    seen, _ = envs[0].reset(seed=1)
    generator = np.random.default_rng(0)

    def acted(env):
        return {name: env.action_space(name).low * generator.uniform() for name in env.agents}

    while len(envs[0].agents) == 3:
        seen = envs[0].step(acted(envs[0]))[0]
    value, state = envs[0].snapshot(), envs[0].state()
    seen.pop("executor_0")
    assert_same(envs[1].restore(value), seen)
    assert_same(envs[1].state(), state)
    while envs[0].agents:
        assert envs[0].agents == envs[1].agents
        actions = acted(envs[0])
        assert_told_alike(envs[0].step(actions), envs[1].step(actions))
    assert_told_alike(envs[0].reset(), envs[1].reset())


# --- Counterfactuals --------------------------------------------------------------------------------------------

IDLE = {"market_making": (0.0, 0.0, 0.0, -1.0), "trading": (0.0, 0.0), "execution": (-1.0, 0.0)}


def idle(session, decisions):
    for _ in range(decisions):
        actions = [np.tile(np.float32(IDLE[name_of(role)]), (session.num_envs, 1)) for role in session.roles]
        results = session.step_roles(actions)
    return results


def name_of(role):
    return next(name for name, kind in ROLES.items() if type(role) is kind)


@pytest.mark.parametrize(
    ("flow", "roles"),
    [(flow, (role,)) for flow in FLOWS for role in ROLES] + [(flow, ("trading", "market_making")) for flow in FLOWS],
)
def test_without_an_order_the_twin_is_the_market_itself(make, flow, roles):
    session = session_of(make(flow, 3), roles, counterfactual=True)
    for episode in range(2):
        # An execution's deadline sends what is left, whatever the agent does.
        results = idle(session, DECISIONS - 1 if roles == ("execution",) else DECISIONS + len(roles) - 1)
        assert session.market.accounts["volume"][:, 0].max() == 0
        assert session.tape_hash(0) != session.tape_hash(1)
        for row in range(3):
            assert session.tape_hash(row) == session.twin.session.tape_hash(row)
        assert session.market.snapshot() == session.twin.session.market.snapshot()
        assert session.final_info()["impact_sample_bps"].tolist() == [0.0] * 3
        assert results[-1].terminated.all() == (roles != ("execution",))
        session.reset_roles(np.array([True, episode == 1, True]))
        session.reset_roles()


@pytest.mark.parametrize("flow", FLOWS)
def test_the_twin_is_the_market_of_somebody_who_does_nothing(make, flow):
    session = session_of(make(flow, 3), ("trading",), counterfactual=True)
    without = session_of(make(flow, 3), ("trading",))
    generator = np.random.default_rng(0)
    for reset in (None, np.array([True, False, True]), np.ones(3, bool)):
        if reset is not None:
            for run in (session, without):
                run.reset_roles(reset)
        arrival = session.market.mid2_excluding(None)
        for _ in range(3):
            session.step(generator.uniform(0, 1, (3, 2)).astype(np.float32))
            idle(without, 1)
            assert session.step_info()["twin_mid"].tolist() == (0.5 * without.market.mid2).tolist()
            assert [session.twin.session.tape_hash(m) for m in range(3)] == [without.tape_hash(m) for m in range(3)]
            assert (session.twin.session.market.background_count == session.market.background_count).all()
    moved = session.market.mid2_excluding(None) - without.market.mid2
    assert session.final_info()["impact_sample_bps"].tolist() == (1e4 * moved / arrival).tolist()
    assert len({session.tape_hash(m) for m in range(3)} & {without.tape_hash(m) for m in range(3)}) == 0


def test_a_twin_can_be_made_by_hand_and_follows_each_row(make):
    session, without = session_of(make("hawkes", 3), ("trading",)), session_of(make("hawkes", 3), ("trading",))
    for _ in range(2):
        for run in (session, without):
            run.step(np.ones((3, 2), np.float32))
    twin = Twin(session)
    assert twin.impact_sample_bps().tolist() == [0.0] * 3
    for rows in (everyone(3), np.array([True, False, True]), np.array([True, False, False])):
        session.step(-np.ones((3, 2), np.float32), rows)
    twin.follow()
    without.advance(everyone(3), np.array([48, 16, 32]))
    assert [twin.session.tape_hash(m) for m in range(3)] == [without.tape_hash(m) for m in range(3)]
    assert twin.mid().tolist() == (0.5 * without.market.mid2_excluding(None)).tolist()
    twin.depart([1])
    assert twin.session.tape_hash(1) == session.tape_hash(1) and twin.impact_sample_bps()[1] == 0.0


def test_a_buyer_moves_the_market_on_average():
    n = 64
    session = TradingSession(n, ExecutionRole(decisions=8, side="buy", quantity=4_000), "zero_intelligence",
                             counterfactual=True)  # fmt: skip
    session.seed(everyone(n), np.arange(n))
    session.reset()
    for _ in range(8):
        session.step(np.tile(np.float32([0, 1]), (n, 1)))
    samples = session.final_info()["impact_sample_bps"]
    error = samples.std(ddof=1) / np.sqrt(n)
    assert samples.mean() > 4 * error and samples.std() > 0


def test_a_twin_goes_along_with_snapshots_forks_and_branches(make):
    session = session_of(make("tradefm", 3), counterfactual=True)
    rows = np.arange(3)
    go_on(session, rows, 3, 1)
    value = pickle.loads(pickle.dumps(session.snapshot()))
    branch, other = session.branch([2, 1]), session_of(make("tradefm", 3), seed=60, counterfactual=True)
    plain = session_of(make("tradefm", 3), seed=60)
    other.fork(1, [0])
    session.fork(0, [2], other)
    assert other.twin.session.tape_hash(2) == session.twin.session.tape_hash(0)
    expected = episodes(session, rows)
    assert any(abs(sample) > 0 for sample in session.final_info()["impact_sample_bps"])
    other.restore(value)
    assert episodes(other, rows) == expected
    session.restore(value)
    go_on(session, np.array([2, 1]), 4, 9), go_on(branch, np.array([0, 1]), 4, 9)
    for key in ("twin_mid", "mid"):
        assert branch.step_info()[key].tolist() == session.step_info()[key][[2, 1]].tolist()
    for call in (lambda: other.restore(plain.snapshot()), lambda: plain.fork(0, [0], other)):
        with pytest.raises(ValueError, match="value is of a session without counterfactual; it must be of one with it"):
            call()
    plain.restore(value)
    assert "twin_mid" not in plain.step_info()


def test_environments_take_counterfactual(make):
    env = TradingEnv(flow=make("hawkes", 1), decisions=3, counterfactual=True)
    env.reset(seed=4)
    infos = [env.step(np.float32([0, 0]))[4] for _ in range(3)]
    assert [info["twin_mid"] for info in infos] == [info["mid"] for info in infos]
    assert infos[-1]["impact_sample_bps"] == 0.0 and "impact_sample_bps" not in infos[0]
    vector = ExecutionVectorEnv(3, flow=make("hawkes", 3), decisions=3, counterfactual=True)
    vector.reset(seed=4)
    for _ in range(9):
        info = vector.step(np.ones((3, 2), np.float32))[4]
        assert ("impact_sample_bps" in info) == ("shortfall_bps" in info)
    quiet = QuietFlow(1, quiet_bank([(998, 100)], [(1002, 100)]))
    for flow, value, said in [
        ("hawkes", "yes", "counterfactual is 'yes'; it must be True or False"),
        (quiet, True, "flow 'quiet' has no snapshot and restore; without them a session cannot be copied"),
    ]:
        with pytest.raises(ValueError, match=said):
            TradingEnv(flow=flow, counterfactual=value)
