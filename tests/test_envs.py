import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from quiet_flow import QuietFlow, quiet_bank
from small_day import cpu_flow, day_path
from small_tradefm import write_checkpoint
from test_execution import NO_ACTIONS

import tradefm_gym
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv

ID = "TradeFM/Execution-v0"
CPU_FLOWS = ("zero_intelligence", "replay")
ZERO = np.zeros(2, np.float32)
BIDS, ASKS = [(998, 100), (997, 200)], [(1002, 100), (1003, 200)]


def assert_same(one, two, path="info"):
    """Equal to the last bit, types included."""
    assert type(one) is type(two), path
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            assert_same(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype, path
        assert one.shape == two.shape, path
        if one.dtype == object:
            for i in range(len(one)):
                assert_same(one[i], two[i], f"{path}[{i}]")
        else:
            np.testing.assert_array_equal(one, two, err_msg=path)
    else:
        assert one == two, path


def actions_of(num_envs, steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, num_envs, 2)).astype(np.float32)


@pytest.mark.parametrize("flow", CPU_FLOWS)
@pytest.mark.parametrize("discrete", [False, True])
def test_gymnasium_check_env_without_a_warning(flow, discrete):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(ID, flow=cpu_flow(flow), discrete=discrete)
        check_env(env.unwrapped)
        env.close()


def test_stable_baselines3_check_env_without_a_warning():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    for discrete in (False, True):
        checker.check_env(ExecutionEnv(flow="zero_intelligence", discrete=discrete), warn=True)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_default_environment_passes_both_checkers_without_a_warning(discrete):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(ID, discrete=discrete)
        check_env(env.unwrapped)
        checker.check_env(env.unwrapped, warn=True)
        env.close()


def test_a_refused_reset_changes_nothing():
    env = ExecutionEnv(flow="zero_intelligence")
    env.reset(seed=3)
    seeds, episodes = env.session.seeds.copy(), env.session.episodes.copy()
    with pytest.raises(ValueError, match="side"):
        env.reset(seed=9, options={"side": "x"})
    assert np.array_equal(env.session.seeds, seeds) and np.array_equal(env.session.episodes, episodes)


def test_replay_says_how_many_recorded_outcomes_changed():
    env = ExecutionEnv(flow=cpu_flow("replay"), side="buy")
    env.reset(seed=3)
    ended = False
    while not ended:
        _, _, terminated, truncated, info = env.step(np.array([1.0, 1.0], np.float32))
        ended = terminated or truncated
    assert 0 <= info["replay_changed"] <= info["replayed"]


def test_make_in_a_new_process_that_has_not_imported_the_package():
    code = (
        "import gymnasium, sys\n"
        "env = gymnasium.make('tradefm_gym:TradeFM/Execution-v0', flow='zero_intelligence')\n"
        "env.reset(seed=1); env.step(env.action_space.sample()); env.close(); env.close()\n"
        "assert 'torch' not in sys.modules\n"
        "print(env.spec.id)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ID


def test_import_is_light():
    code = "import sys, tradefm_gym; print([m for m in ('torch', 'numba', 'stable_baselines3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_registration_is_idempotent_and_the_spec_is_json():
    tradefm_gym.register_environments()
    spec = gym.spec(ID)
    assert gym.envs.registration.EnvSpec.from_json(spec.to_json()) == spec
    gym.register_envs(tradefm_gym)


@pytest.mark.parametrize("num_envs", [1, 3, 64])
@pytest.mark.parametrize("flow", CPU_FLOWS)
def test_vector_rows_equal_single_environments_and_sync(flow, num_envs):
    seed, steps = 100, 70  # an episode of 64 decisions, and into the next one
    flow = cpu_flow(flow)
    vector = gym.make_vec(ID, num_envs=num_envs, flow=flow)
    assert isinstance(vector.unwrapped, ExecutionVectorEnv)
    sync = SyncVectorEnv([lambda: gym.make(ID, flow=flow, disable_env_checker=True)] * num_envs)
    one, two = vector.reset(seed=seed), sync.reset(seed=seed)
    assert_same(one[0], two[0])
    assert_same(one[1], two[1])
    for action in actions_of(num_envs, steps):
        one, two = vector.step(action), sync.step(action)
        for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one, two, strict=True):
            assert_same(a, b, name)
    for m, env in enumerate(sync.envs):
        assert vector.unwrapped.session.tape_hash(m) == env.unwrapped.session.tape_hash(0)
    vector.close(), sync.close()


def test_tradefm_rows_equal_single_environments_at_an_equal_engine_batch(tmp_path):
    # An untrained network: what its market does is no matter, that it does it in every row alike is.
    task = {"flow": f"tradefm:{write_checkpoint(tmp_path / 'model')}", "context": day_path(), "engine_batch": 3}
    task |= {"decisions": 6, "interval": 8, "quantity": 300}
    vector = ExecutionVectorEnv(3, **task)
    sync = SyncVectorEnv([lambda: ExecutionEnv(**task)] * 3)
    one, two = vector.reset(seed=7), sync.reset(seed=7)
    assert_same(one[0], two[0])
    for action in actions_of(3, 9):
        one, two = vector.step(action), sync.step(action)
        for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one, two, strict=True):
            assert_same(a, b, name)


def test_single_environment_equals_its_row():
    m, seed = 2, 50
    vector, single = ExecutionVectorEnv(4, flow="zero_intelligence"), ExecutionEnv(flow="zero_intelligence")
    assert_same(vector.reset(seed=seed)[0][m], single.reset(seed=seed + m)[0])
    for action in actions_of(4, 64):
        observation, reward, terminated, truncated, _ = vector.step(action)
        other = single.step(action[m])
        assert_same(observation[m], other[0])
        assert (reward[m], terminated[m], truncated[m]) == other[1:4]
        assert type(other[1]) is float
        assert type(other[2]) is type(other[3]) is bool
        if other[2]:
            break
    assert terminated[m]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_modes_equal_gymnasiums_own(mode):
    num_envs, steps = 3, 30
    task = {"flow": "zero_intelligence", "decisions": 8}
    vector = ExecutionVectorEnv(num_envs, autoreset_mode=mode, **task)
    assert vector.metadata["autoreset_mode"] is vector.autoreset_mode is mode
    sync = SyncVectorEnv([lambda: ExecutionEnv(**task)] * num_envs, autoreset_mode=mode)
    vector.reset(seed=9), sync.reset(seed=9)
    ends = 0
    for action in actions_of(num_envs, steps):
        one, two = vector.step(action), sync.step(action)
        for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one, two, strict=True):
            assert_same(a, b, f"{mode} {name}")
        done = one[2] | one[3]
        ends += int(done.sum())
        if mode == AutoresetMode.DISABLED and done.any():
            with pytest.raises(ResetNeeded, match="step was called after row"):
                vector.step(action)
            a = vector.reset(options={"reset_mask": done.copy()})
            b = sync.reset(options={"reset_mask": done.copy()})
            assert_same(a[0], b[0])
            assert_same(a[1], b[1])
    assert ends >= num_envs


def test_autoreset_modes_may_be_named():
    for name, mode in (("SameStep", AutoresetMode.SAME_STEP), ("disabled", AutoresetMode.DISABLED)):
        env = gym.make_vec(ID, num_envs=2, flow="zero_intelligence", autoreset_mode=name)
        assert env.unwrapped.autoreset_mode is mode
        env.close()
    with pytest.raises(ValueError, match="autoreset_mode is 'never'; it must be one of 'NextStep'"):
        ExecutionVectorEnv(2, flow="zero_intelligence", autoreset_mode="never")


def test_vector_seeds():
    env = ExecutionVectorEnv(3, flow="zero_intelligence")
    first = env.reset(seed=5)[0]
    assert_same(env.reset(seed=[5, 6, 7])[0], first)
    again = env.reset()[0]
    assert not np.array_equal(first, again)
    assert_same(env.reset(seed=[5, None, 7])[0][[0, 2]], first[[0, 2]])
    assert env.session.episodes.tolist() == [0, 2, 0]
    with pytest.raises(ValueError, match="seed has 2 values; it must be an integer, None or a list of 3"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match=r"seed\[0\] is -1; it must be a non-negative integer or None"):
        env.reset(seed=[-1, 2, 3])


def test_unseeded_environments_differ():
    one, two = (ExecutionVectorEnv(2, flow="zero_intelligence") for _ in range(2))
    one.reset(), two.reset()
    assert len({*one.session.seeds.tolist(), *two.session.seeds.tolist()}) == 4


def test_reset_mask_is_checked():
    env = ExecutionVectorEnv(2, flow="zero_intelligence", autoreset_mode="Disabled")
    env.reset(seed=1)
    for mask, said in (
        (np.ones(2), "it must be a boolean array of length 2"),
        (np.array([True]), "it must be a boolean array of length 2"),
        ([True, False], "it must be a boolean array"),
        (np.zeros(2, bool), "has no true entry"),
    ):
        with pytest.raises(ValueError, match=said):
            env.reset(options={"reset_mask": mask})


def test_options_fix_the_task_and_unknown_ones_warn():
    env = ExecutionEnv(flow="zero_intelligence")
    _, info = env.reset(seed=3, options={"side": "sell", "quantity": 77, "context": 4})
    assert (info["side"], info["quantity"], info["context"]) == (-1, 77, 4)
    with pytest.warns(UserWarning, match="options has the unknown key 'colour'; known are side, quantity, pa"):
        env.reset(options={"colour": 1})


def test_final_info_names_the_whole_episode():
    env = ExecutionEnv(flow="zero_intelligence")
    env.reset(seed=0)
    total, ended = 0.0, False
    while not ended:
        _, reward, ended, _, info = env.step(ZERO)
        total += reward
        assert set(info["terms"]) == {"spread", "timing", "fees", "unfilled"}
        np.testing.assert_allclose(reward, -sum(info["terms"].values()), atol=1e-12)
    np.testing.assert_allclose(info["shortfall_bps"], -total, atol=1e-9)
    for key in ("flow", "flow_version", "context", "side", "quantity", "decisions", "reason", "shortfall_half_spreads"):
        assert key in info
    assert info["fill_rate"] == 1.0
    assert 0.0 <= info["maker_share"] <= 1.0
    assert all(type(value) in (int, float, str, dict) for value in info.values())


def test_steps_out_of_order_are_named():
    env = ExecutionEnv(flow="zero_intelligence", decisions=1)
    with pytest.raises(ResetNeeded, match="call reset first"):
        env.step(ZERO)
    env.reset(seed=0)
    assert env.step(ZERO)[2] is True
    with pytest.raises(ResetNeeded, match="call reset first"):
        env.step(ZERO)
    vector = ExecutionVectorEnv(2, flow="zero_intelligence")
    with pytest.raises(ResetNeeded, match="step was called before reset"):
        vector.step(np.zeros((2, 2), np.float32))


@pytest.mark.parametrize("discrete", [False, True])
def test_bad_actions_change_nothing(discrete):
    env = ExecutionEnv(flow="zero_intelligence", discrete=discrete)
    env.reset(seed=0)
    before = env.session.tape_hash(0), env.session.role.state.copy()
    rule = "an integer from 0 to 19" if discrete else "two numbers from -1 to 1, deviation and aggressiveness"
    wrong = [*NO_ACTIONS, True, [0.0], [0, 0, 0], [[0, 0]], 0.5, np.zeros((2, 2)), np.zeros((9, 2))]
    wrong += [-1, 20, 2**70, [1, 2]] if discrete else [3, [np.nan, 0.0], [0.0, 1.01], [1e300, 0.0]]
    for action in wrong:
        with pytest.raises(ValueError, match=f"^action is [^\n]*; it must be {rule}$"):
            env.step(action)
    assert env.session.tape_hash(0) == before[0]
    np.testing.assert_array_equal(env.session.role.state, before[1])


def test_a_bad_action_of_one_row_is_told_from_the_others():
    envs = ExecutionVectorEnv(3, flow="zero_intelligence")
    envs.reset(seed=0)
    actions = np.zeros((3, 2))
    actions[1, 0] = -1.5
    with pytest.raises(ValueError, match=r"action of row 1 is \[-1.5, 0.0\]; it must be two numbers from -1 to 1"):
        envs.step(actions)
    with pytest.raises(ValueError, match=r"action is .*, for each of 3 markets, as an array of shape \(3, 2\)"):
        envs.step(actions[:2])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"decisions": 0}, "decisions is 0"),
        ({"flow": "nothing"}, "flow 'nothing' is not known; allowed are"),
        ({"render_mode": "hologram"}, "render_mode is 'hologram'; it must be None, 'ansi' or 'rgb_array'"),
        ({"clock": "wall"}, "clock is 'wall'; it must be one of 'events', 'time', 'volume'"),
        ({"split": "tomorrow"}, "split is 'tomorrow'"),
        ({"engine_batch": 8}, "engine_batch is 8; only flow 'tradefm' reads it"),
        ({"context": "a/day"}, "context is 'a/day'; only flow 'tradefm' reads it"),
        ({"context": Path("a/day")}, "context is .*'a/day'.*; only flow 'tradefm' reads it"),
        ({"context": ""}, "context is ''; it must be the id of a start context, a path or None"),
        ({"flow": "tradefm", "context": Path("a/day")}, "context path 'a/day' does not exist"),
        ({"render_mode": 3}, "render_mode is 3; it must be None, 'ansi' or 'rgb_array'"),
        ({"render_mode": np.array(["ansi", "x"])}, "render_mode is array"),
        ({"discrete": "yes"}, "discrete is 'yes'; it must be True or False"),
        ({"seats": 1.5}, "seats is 1.5; it must be an integer from 1"),
        ({"maker_fee": None}, "maker_fee is None; it must be an integer"),
    ],
)
def test_wrong_arguments_are_named(arguments, said):
    arguments = {"flow": "zero_intelligence"} | arguments
    for call in (lambda: ExecutionEnv(**arguments), lambda: ExecutionVectorEnv(2, **arguments)):
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            call()


@pytest.mark.parametrize("name", ["foo", "decision", "num_env"])
def test_unknown_arguments_are_named_with_those_that_exist(name):
    guess = {"foo": "", "decision": "; did you mean 'decisions'\\?", "num_env": "; did you mean 'num_envs'\\?"}[name]
    known = (
        "flow, clock, interval, decisions, side, quantity, schedule, participation, limit_bps, limit_price, reward, "
        "observation, blocks, recent_events, context, split, seats, engine_batch, maker_fee, taker_fee, maker_rate, "
        "taker_rate, order_latency_ns, data_latency_ns, sampler, counterfactual"
    )
    for call, said in (
        (
            lambda: gym.make(ID, **{name: 1}),
            f"^ExecutionEnv has no argument '{name}'; allowed are render_mode, {known}",
        ),
        (
            lambda: gym.make_vec(ID, num_envs=2, **{name: 1}),
            f"^ExecutionVectorEnv has no argument '{name}'; allowed are num_envs, .*{known}, discrete{guess}$",
        ),
    ):
        with pytest.raises(TypeError, match=said):
            call()


@pytest.mark.parametrize("mode", ["x", None, 3, True, np.array(["a", "b"])])
def test_wrong_autoreset_modes_are_named(mode):
    with pytest.raises(ValueError, match=r"autoreset_mode is .*; it must be one of 'NextStep', 'SameStep', 'Disabled'"):
        ExecutionVectorEnv(2, flow="zero_intelligence", autoreset_mode=mode)


def test_wrong_seeds_and_options_change_nothing():
    single, vector = ExecutionEnv(flow="zero_intelligence"), ExecutionVectorEnv(2, flow="zero_intelligence")
    for env, seeds in ((single, ([1, 2],)), (vector, ([1, -1], [None, "x"], [1], np.array([0.5, 1.0]), {"a": 1}))):
        env.reset(seed=5)
        before = env.np_random.bit_generator.state, env.session.seeds.copy(), env.session.episodes.copy()
        for seed in (-1, 1.5, "x", True, np.array(3), *seeds):
            with pytest.raises(ValueError, match=r"seed.* (is|has) .*; it must be"):
                env.reset(seed=seed)
        for options in (3, "x", ["side"], [("side", "buy")], {"side": 0}, {"quantity": 1.5}, {"context": np.array(3)}):
            with pytest.raises(ValueError, match=r" is .*; it must be"):
                env.reset(seed=6, options=options)
        assert env.np_random.bit_generator.state == before[0]
        np.testing.assert_array_equal(env.session.seeds, before[1])
        np.testing.assert_array_equal(env.session.episodes, before[2])
    assert single.reset(seed=np.int64(3))[1] == single.reset(seed=3)[1]


def test_a_flow_object_is_accepted_and_its_end_truncates():
    env = ExecutionEnv(flow=QuietFlow(1, quiet_bank(BIDS, ASKS), last=20), quantity=64)
    env.reset(seed=0)
    assert env.step(ZERO)[2:4] == (False, False)
    _, _, terminated, truncated, info = env.step(ZERO)
    assert (terminated, truncated) == (False, True)
    assert "shortfall_bps" in info


@pytest.mark.parametrize("flow", ["zero_intelligence"])
def test_rendering(flow):
    text = gym.make(ID, flow=flow, render_mode="ansi")
    text.reset(seed=1)
    text.step(np.array([0.0, -0.5], np.float32))
    frame = text.render()
    assert "lots, decision 1 of 64" in frame
    assert " * " in frame
    picture = gym.make(ID, flow=flow, render_mode="rgb_array")
    picture.reset(seed=1)
    picture.step(np.array([0.0, -0.5], np.float32))
    frame = picture.render()
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert len(np.unique(frame.reshape(-1, 3), axis=0)) >= 4
    assert text.unwrapped.metadata["render_fps"] > 0
    vector = ExecutionVectorEnv(2, flow=flow, render_mode="ansi")
    vector.reset(seed=1)
    assert len(vector.render()) == 2
    assert ExecutionVectorEnv(2, flow=flow).render() is None
    for env in (text, picture, vector):
        env.close()
        env.close()


@pytest.mark.parametrize("make", [gym.make, gym.make_vec, partial(gym.make_vec, vectorization_mode="sync")])
def test_a_closed_environment_refuses_to_step_and_to_be_reset(make):
    env = make(ID, flow="zero_intelligence")
    env.reset(seed=1)
    action = env.action_space.sample()
    env.step(action)
    env.close()
    env.close()
    for name, call in (("step", lambda: env.step(action)), ("reset", lambda: env.reset(seed=1))):
        with pytest.raises(ClosedEnvironmentError, match=f"^{name} was called after close; make another environment$"):
            call()


def test_gymnasium_wrappers_accept_the_vector_environment():
    from gymnasium.wrappers.vector import NormalizeObservation, NormalizeReward, RecordEpisodeStatistics

    env = gym.make_vec(ID, num_envs=4, flow="zero_intelligence", decisions=6)
    env = NormalizeReward(NormalizeObservation(RecordEpisodeStatistics(env)))
    env.reset(seed=0)
    episodes = 0
    for action in actions_of(4, 20):
        infos = env.step(action)[4]
        episodes += int(infos["_episode"].sum()) if "episode" in infos else 0
    assert episodes >= 4
    env.close()
