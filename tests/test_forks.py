"""Copies of sessions and environments: they go on as the original does, to the last bit."""

import pickle

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from played_sessions import DECISIONS, FLOWS, ROLES, episodes, flow_maker, go_on, session_of
from quiet_flow import QuietFlow, quiet_bank
from small_tradefm import everyone
from test_envs import assert_same

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, MarketMakingEnv, TradingEnv
from tradefm_gym.envs.parallel_env import parallel_env
from tradefm_gym.envs.session import TradingSession


@pytest.fixture(scope="module", name="make")
def _make(tmp_path_factory):
    return flow_maker(tmp_path_factory.mktemp("model") / "small")


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
    "StressedFlow": "calm",  # which is always of empty names
    "TradeFMFlow": (
        "active bits counts dense ends inputs queue reads scratch strength tokens unmoved uniforms youngest"
    ),
    **dict.fromkeys(("ExecutionRole", "MarketMakingRole", "TradingRole"), "ends scratch stage still until_count"),
}


def arrays_of(thing, n):
    """What an object has of arrays with a row for each of n markets."""
    found = {name for name, value in vars(thing).items() if isinstance(value, np.ndarray) and n in value.shape[:2]}
    return {name.removeprefix("_") for name in found} - set(WORK.get(type(thing).__name__, "").split())


@pytest.mark.parametrize("flow", FLOWS)
def test_nothing_that_a_row_has_is_left_out(make, flow):
    session = session_of(make(flow, 7), tuple(ROLES))
    own, of_flow, *of_roles = session.snapshot().parts
    stress = {f"stress_{name}" for name in arrays_of(session.stress, 7)}
    assert arrays_of(session, 7) | stress == set(own.arrays)
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
