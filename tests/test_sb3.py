import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")

from tradefm_gym.envs.gym_env import ExecutionEnv  # noqa: E402
from tradefm_gym.envs.sb3 import ExecutionVecEnv  # noqa: E402

TASK = {"flow": "zero_intelligence", "decisions": 8}


def actions_of(num_envs, steps):
    return np.random.default_rng(0).uniform(-1, 1, (steps, num_envs, 2)).astype(np.float32)


def test_equals_dummy_vec_env():
    native = ExecutionVecEnv(3, step_infos=True, **TASK)
    dummy = vec_env.DummyVecEnv([lambda: ExecutionEnv(**TASK)] * 3)
    assert native.seed(11) == dummy.seed(11)
    np.testing.assert_array_equal(native.reset(), dummy.reset())
    assert native.reset_infos == dummy.reset_infos
    ends = 0
    for action in actions_of(3, 25):
        one, two = native.step(action), dummy.step(action)
        for a, b in zip(one[:3], two[:3], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one[3], two[3], strict=True):
            assert a.keys() == b.keys()
            final = a.pop("terminal_observation", None)
            if final is not None:
                np.testing.assert_array_equal(final, b.pop("terminal_observation"))
                ends += 1
            assert a == b
        assert native.reset_infos == dummy.reset_infos
    assert ends >= 3


@pytest.mark.parametrize("step_infos", [False, True])
def test_infos_are_the_callers_to_change(step_infos):
    env = ExecutionVecEnv(3, seed=2, step_infos=step_infos, **TASK)
    with pytest.raises(ResetNeeded, match="step was called before reset"):
        env.step(np.zeros((3, 2), np.float32))
    env.reset()
    ended = 0
    for action in actions_of(3, 20):
        infos = env.step(action)[3]
        assert len({id(info) for info in infos}) == 3
        for m, info in enumerate(infos):
            assert "noted" not in info and "noted" not in info.get("terms", {})
            assert "noted" not in env.reset_infos[m]
            ended += "terminal_observation" in info
            info["noted"] = True  # as VecMonitor does
            info.get("terms", {})["noted"] = True
            if "terminal_observation" in info:
                env.reset_infos[m]["noted"] = True
                info["terminal_observation"][:] = np.nan
        for m in range(3):
            env.reset_infos[m].pop("noted", None)
        assert np.isfinite(env.env.session.observe()[0]).all()
    assert ended >= 3


def test_seeds_and_options_are_used_once():
    env = ExecutionVecEnv(2, seed=5, **TASK)
    env.set_options({"side": "sell", "quantity": 70})
    env.reset()
    assert [info["side"] for info in env.reset_infos] == [-1, -1]
    assert [info["quantity"] for info in env.reset_infos] == [70, 70]
    assert env.env.session.seeds.tolist() == [5, 6]
    env.reset()
    assert env.env.session.episodes.tolist() == [1, 1]
    assert env.reset_infos[0]["quantity"] != 70


@pytest.mark.parametrize("name", ["foo", "autoreset_mode", "decision"])
def test_unknown_arguments_are_named(name):
    with pytest.raises(
        TypeError, match=f"ExecutionVecEnv has no argument '{name}'; allowed are num_envs, seed, step_inf"
    ):
        ExecutionVecEnv(2, **{name: 1})


def test_wrong_arguments_are_named():
    for arguments, said in (
        ({"seed": -1}, "seed is -1; it must be a non-negative integer or None"),
        ({"seed": "x"}, "seed is 'x'; it must be a non-negative integer"),
        ({"seed": [1, 2]}, r"seed is \[1, 2\]; it must"),
        ({"step_infos": "yes"}, "step_infos is 'yes'; it must be True or False"),
        ({"num_envs": 2.0}, "num_envs is 2.0; it must be an integer"),
        ({"discrete": 1}, "discrete is 1; it must be True or False"),
    ):
        with pytest.raises(ValueError, match=said):
            ExecutionVecEnv(**({"num_envs": 2} | TASK | arguments))
    env = ExecutionVecEnv(2, **TASK)
    env.reset()
    for seed in (-1, 1.5, "x", True):
        with pytest.raises(ValueError, match=r"seed is .*; it must be a non-negative integer or None"):
            env.seed(seed)
    for options in (3, [1, 2], [{}], [{"side": "buy"}, 3]):
        with pytest.raises(ValueError, match=r"options is .*; it must be a dict, or a list of 2 dicts"):
            env.set_options(options)
    for action in ("buy", None, 1j, [[0, 0]], np.zeros((2, 3))):
        with pytest.raises(ValueError, match=r"action is .*; it must be two numbers from -1 to 1"):
            env.step(action)
    assert env.step(np.zeros((2, 2)))[0].shape[0] == 2


def test_attributes_methods_and_images():
    env = ExecutionVecEnv(2, render_mode="rgb_array", **TASK)
    env.reset()
    assert env.get_attr("render_mode") == ["rgb_array"] * 2
    assert env.has_attr("session")
    assert not env.has_attr("nothing_of_that_name")
    env.set_attr("label", 3)
    assert env.get_attr("label", [1]) == [3]
    with pytest.raises(ValueError, match="indices is 0"):
        env.set_attr("label", 3, 0)
    assert len(env.env_method("render")[0]) == 2
    assert env.env_is_wrapped(vec_env.VecMonitor) == [False, False]
    assert len(env.get_images()) == 2
    assert env.render().shape[2] == 3
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step(np.zeros((2, 2), np.float32))):
        with pytest.raises(ClosedEnvironmentError, match="was called after close"):
            call()
    assert ExecutionVecEnv(2, **TASK).get_images() == [None, None]


def test_wrappers_and_ppo_learn_a_little(tmp_path):
    from stable_baselines3 import PPO

    env = vec_env.VecNormalize(vec_env.VecMonitor(ExecutionVecEnv(4, seed=1, **TASK)))
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, device="cpu", seed=0)
    model.learn(128)
    assert len(model.ep_info_buffer) > 0
    env.save(str(tmp_path / "normalise.pkl"))
    action, _ = model.predict(env.reset(), deterministic=True)
    assert action.shape == (4, 2)
    env.close()
