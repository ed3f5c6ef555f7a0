"""Every id in every face: one sweep over the registered environments."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from small_day import cpu_flow
from test_envs import assert_same

import tradefm_gym

IDS = tuple(name for name in gym.registry if name.startswith("TradeFM/"))
CPU_FLOWS = ("zero_intelligence", "hawkes", "replay")


def classes(env_id):
    """The single and the vector environment of an id."""
    task = env_id.removeprefix("TradeFM/").removesuffix("-v0")
    return getattr(tradefm_gym, f"{task}Env"), getattr(tradefm_gym, f"{task}VectorEnv")


def drawn(space, num_envs, steps, seed=0):
    """Random actions, one batch for each step."""
    generator = np.random.default_rng(seed)
    if isinstance(space, gym.spaces.Discrete):
        return generator.integers(0, space.n, (steps, num_envs))
    return generator.uniform(-1, 1, (steps, num_envs, *space.shape)).astype(np.float32)


def test_the_ids_are_those_of_the_roles():
    assert IDS == ("TradeFM/Execution-v0", "TradeFM/MarketMaking-v0", "TradeFM/Trading-v0")


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("env_id", IDS)
def test_both_checkers_without_a_warning(env_id, discrete):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for flow in (*map(cpu_flow, CPU_FLOWS), None):
            task = {"discrete": discrete} | ({} if flow is None else {"flow": flow})
            env = gym.make(env_id, **task)
            assert isinstance(env.action_space, gym.spaces.Discrete) == discrete
            check_env(env.unwrapped)
            checker.check_env(env.unwrapped, warn=True)
            env.close()


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("flow", CPU_FLOWS)
@pytest.mark.parametrize("env_id", IDS)
def test_vector_rows_equal_single_environments_and_sync(env_id, flow, discrete):
    num_envs, task = 3, {"flow": cpu_flow(flow), "decisions": 20, "discrete": discrete}
    vector = gym.make_vec(env_id, num_envs=num_envs, **task)
    assert isinstance(vector.unwrapped, classes(env_id)[1])
    sync = SyncVectorEnv([lambda: gym.make(env_id, disable_env_checker=True, **task)] * num_envs)
    one, two = vector.reset(seed=100), sync.reset(seed=100)
    assert_same(one[0], two[0])
    assert_same(one[1], two[1])
    for action in drawn(vector.single_action_space, num_envs, 25):
        one, two = vector.step(action), sync.step(action)
        for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one, two, strict=True):
            assert_same(a, b, name)
    for m, env in enumerate(sync.envs):
        assert vector.unwrapped.session.tape_hash(m) == env.unwrapped.session.tape_hash(0)
    vector.close(), sync.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_autoreset_modes_equal_gymnasiums_own(env_id, mode):
    num_envs, task = 2, {"flow": "zero_intelligence", "decisions": 5}
    single, vector_type = classes(env_id)
    vector = vector_type(num_envs, autoreset_mode=mode, **task)
    sync = SyncVectorEnv([lambda: single(**task)] * num_envs, autoreset_mode=mode)
    vector.reset(seed=9), sync.reset(seed=9)
    ends = 0
    for action in drawn(vector.single_action_space, num_envs, 14):
        one, two = vector.step(action), sync.step(action)
        for name, a, b in zip(("observation", "reward", "terminated", "truncated", "info"), one, two, strict=True):
            assert_same(a, b, f"{mode} {name}")
        done = one[2] | one[3]
        ends += int(done.sum())
        if mode == AutoresetMode.DISABLED and done.any():
            with pytest.raises(ResetNeeded, match="step was called after row"):
                vector.step(action)
            a, b = (env.reset(options={"reset_mask": done.copy()}) for env in (vector, sync))
            assert_same(a[0], b[0])
            assert_same(a[1], b[1])
    assert ends >= num_envs


@pytest.mark.parametrize("env_id", IDS)
def test_the_sb3_face_equals_dummy_vec_env(env_id):
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    from tradefm_gym.envs import sb3

    single = classes(env_id)[0]
    task = {"flow": "zero_intelligence", "decisions": 6}
    native = getattr(sb3, single.__name__.removesuffix("Env") + "VecEnv")(3, step_infos=True, **task)
    dummy = vec_env.DummyVecEnv([lambda: single(**task)] * 3)
    assert native.seed(11) == dummy.seed(11)
    np.testing.assert_array_equal(native.reset(), dummy.reset())
    assert native.reset_infos == dummy.reset_infos
    ends = 0
    for action in drawn(native.action_space, 3, 14):
        one, two = native.step(action), dummy.step(action)
        for a, b in zip(one[:3], two[:3], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one[3], two[3], strict=True):
            final = a.pop("terminal_observation", None)
            if final is not None:
                np.testing.assert_array_equal(final, b.pop("terminal_observation"))
                ends += 1
            assert a == b
    assert ends >= 3


@pytest.mark.parametrize("env_id", IDS[1:])
def test_rewards_of_an_episode_add_up_to_its_profit(env_id):
    env = gym.make(env_id, flow="hawkes", taker_fee=100)
    env.reset(seed=4)
    total, ended = 0.0, False
    for action in drawn(env.action_space, 1, 64)[:, 0]:
        _, reward, ended, truncated, info = env.step(action)
        np.testing.assert_allclose(reward, sum(info["terms"].values()), atol=1e-9)
        total += reward
    assert (ended, truncated) == (True, False)
    np.testing.assert_allclose(info["profit_bps"], total, atol=1e-9)
    assert info["inventory"] == 0
    assert info["traded"] > 0
    assert 0 <= info["maker_share"] <= 1


@pytest.mark.parametrize(
    ("env_id", "options", "key"),
    [
        (IDS[1], {"size": 3, "inventory_limit": 9, "context": 4}, "size, inventory_limit, context"),
        (IDS[2], {"max_position": 7, "context": 5}, "max_position, context"),
    ],
)
def test_options_fix_the_task_and_unknown_ones_warn(env_id, options, key):
    env = gym.make(env_id, flow="zero_intelligence").unwrapped
    info = env.reset(seed=1, options=options)[1]
    assert options.items() <= info.items()
    with pytest.warns(UserWarning, match=f"options has the unknown key 'quantity'; known are {key}"):
        env.reset(options={"quantity": 1})
    with pytest.warns(UserWarning, match="options has the unknown key 'roles'"):
        env.reset(options={"roles": 3})


@pytest.mark.parametrize("env_id", IDS)
def test_unknown_arguments_are_named(env_id):
    for make, name in zip((gym.make, gym.make_vec), classes(env_id), strict=True):
        with pytest.raises(TypeError, match=f"^{name.__name__} has no argument 'size_'; allowed are .*, flow, clock"):
            make(env_id, size_=1)


@pytest.mark.parametrize("env_id", IDS[1:])
def test_rendering(env_id):
    text, picture = (gym.make(env_id, flow="zero_intelligence", render_mode=mode) for mode in ("ansi", "rgb_array"))
    action = np.zeros(text.action_space.shape, np.float32)
    action[:2] = 0.5, -0.5  # a maker's quotes, and a trader that waits
    for env in (text, picture):
        env.reset(seed=1)
        env.step(action)
    frame = text.render()
    assert "lots, decision 1 of 64" in frame
    assert " * " in frame
    assert picture.render().ndim == 3


@pytest.mark.parametrize("env_id", IDS)
def test_a_short_learning_run(env_id):
    sb3 = pytest.importorskip("stable_baselines3")
    from tradefm_gym.envs import sb3 as faces

    name = classes(env_id)[0].__name__.removesuffix("Env")
    env = getattr(faces, f"{name}VecEnv")(4, seed=1, flow="zero_intelligence", decisions=8)
    model = sb3.PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu", seed=0)
    model.learn(64)
    env.close()
