"""What is seen and what can be done, chosen by argument, in every face."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pettingzoo.test import parallel_api_test
from small_tradefm import everyone
from test_envs import assert_same
from test_roles_envs import IDS, classes, drawn

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.observation import block_slices
from tradefm_gym.envs.parallel_env import parallel_env
from tradefm_gym.envs.recent_events import FIGURES
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.market.events import CANCEL

PRESETS = {
    "dict": {"observation": "dict"},
    "recent": {"recent_events": 5},
    "chosen": {"blocks": ["mid_move", "last_fill", "spread"], "observation": "dict", "recent_events": 2},
    "all": {
        "discrete": True, "clock": "time", "order_latency_ns": 10_000_000, "data_latency_ns": 5_000_000,
        "reward": ["fees", "mean_variance"], "observation": "dict", "blocks": ["spread"],
    },
    "volume": {"clock": "volume", "recent_events": 1, "reward": ["inventory_cvar", "order_to_trade"]},
}  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("env_id", IDS)
def test_both_checkers_pass_without_a_warning(env_id, preset):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(env_id, flow="zero_intelligence", decisions=6, **PRESETS[preset])
        check_env(env.unwrapped)
        if preset == "chosen":  # Stable-Baselines3 says of a stack of lines that it is no picture
            warnings.filterwarnings("ignore", message="Your observation .* has an unconventional shape")
        checker.check_env(env.unwrapped, warn=True)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("preset", ["chosen", "all"])
@pytest.mark.parametrize("env_id", IDS)
def test_vector_rows_equal_gymnasiums_own(env_id, preset, mode):
    num_envs, task = 2, {"flow": "zero_intelligence", "decisions": 3, **PRESETS[preset]}
    single, vector_type = classes(env_id)
    vector = vector_type(num_envs, autoreset_mode=mode, **task)
    sync = SyncVectorEnv([lambda: single(**task)] * num_envs, autoreset_mode=mode)
    one, two = vector.reset(seed=9), sync.reset(seed=9)
    assert_same({"seen": one[0], "info": one[1]}, {"seen": two[0], "info": two[1]})
    for action in drawn(vector.single_action_space, num_envs, 7):
        one, two = vector.step(action), sync.step(action)
        assert one[0] in vector.observation_space
        assert_same(dict(enumerate(one)), dict(enumerate(two)))
        done = one[2] | one[3]
        if mode == AutoresetMode.DISABLED and done.any():
            one, two = (env.reset(options={"reset_mask": done.copy()}) for env in (vector, sync))
            assert_same(dict(enumerate(one)), dict(enumerate(two)))


@pytest.mark.parametrize("preset", ["chosen", "all"])
def test_the_sb3_face_equals_dummy_vec_env(preset):
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    sb3 = pytest.importorskip("stable_baselines3")
    from tradefm_gym.envs.sb3 import ExecutionVecEnv

    task = {"flow": "zero_intelligence", "decisions": 3, **PRESETS[preset]}
    native, dummy = ExecutionVecEnv(2, step_infos=True, **task), vec_env.DummyVecEnv([lambda: ExecutionEnv(**task)] * 2)
    native.seed(11), dummy.seed(11)
    assert_same({"seen": dict(native.reset())}, {"seen": dict(dummy.reset())})
    for action in drawn(native.action_space, 2, 7):
        one, two = native.step(action), dummy.step(action)
        assert_same({"seen": dict(one[0]), "infos": one[3][0]}, {"seen": dict(two[0]), "infos": two[3][0]})
        np.testing.assert_array_equal(one[1], two[1])
        for a, b in zip(native.env_method("action_masks"), dummy.env_method("action_masks"), strict=True):
            np.testing.assert_array_equal(a, b)
    assert native.env_method("action_masks", indices=[1])[0].shape == (20,)
    sb3.PPO("MultiInputPolicy", native, n_steps=4, batch_size=8, n_epochs=1, device="cpu").learn(8)


def test_blocks_are_those_of_the_whole_vector_in_the_order_that_was_chosen():
    names = ["last_fill", "spread", "schedule"]
    flat, chosen = (ExecutionEnv(flow="hawkes", decisions=5, **task) for task in ({}, {"blocks": names}))
    by_name = ExecutionEnv(flow="hawkes", decisions=5, observation="dict")
    slices, seen = block_slices(), [env.reset(seed=2)[0] for env in (flat, chosen, by_name)]
    for _ in range(4):
        np.testing.assert_array_equal(np.concatenate([seen[0][slices[name]] for name in names]), seen[1])
        assert list(seen[2]) == list(slices)
        np.testing.assert_array_equal(np.concatenate(list(seen[2].values())), seen[0])
        seen = [env.step([0.3, 0.4])[0] for env in (flat, chosen, by_name)]


@pytest.mark.parametrize("late", [None, 30_000_000])
def test_recent_events_are_the_end_of_the_tape_that_is_seen(late):
    role = ExecutionRole(decisions=6, side="sell", quantity=60, recent_events=4)
    session = TradingSession(3, role, "hawkes", data_latency_ns=late)
    session.seed(everyone(3), np.arange(3))
    session.reset()
    for _ in range(4):
        lines = session.step(np.full((3, 2), 0.25)).observation[:, -4 * FIGURES :].reshape(3, 4, FIGURES)
        for m in range(3):
            tape = session.market.view(0).tape.read_records(m)[-5:]
            scale = role.scale[m]
            np.testing.assert_array_equal(lines[m, :, 3], -tape["side"][1:])  # a seller's own side is the asks
            np.testing.assert_array_equal(lines[m, :, 2], tape["kind"][1:] == CANCEL)
            np.testing.assert_array_equal(lines[m, :, 7], tape["owner"][1:] == 0)
            np.testing.assert_array_equal(lines[m, :, :3].sum(axis=1), 1)
            distance = -(tape["price"][1:] - tape["mid2"][1:] / 2) / scale["spread"]
            np.testing.assert_allclose(lines[m, :, 4], np.clip(distance, -10, 10), rtol=1e-5, atol=1e-6)
            lots = np.log1p(tape["size"][1:] / scale["median_size"])
            np.testing.assert_allclose(lines[m, :, 5], np.clip(lots, 0, 10), rtol=1e-5)
            passed = np.log1p(np.diff(tape["time_ns"]) / scale["event_ns"])
            np.testing.assert_allclose(lines[m, :, 6], passed, rtol=1e-5, atol=1e-6)


def test_recent_events_before_the_first_are_zero():
    role = TradingRole(recent_events=256)
    session = TradingSession(1, role, "replay")
    session.seed(everyone(1), np.zeros(1, np.uint64))
    lines = session.reset()[0, -256 * FIGURES :].reshape(256, FIGURES)
    known = min(256, int(session.market.tape.record_count[0]))
    assert not lines[: 256 - known].any()
    assert lines[256 - known :].any()


# --- Masks --------------------------------------------------------------------------------------------------------


def known_spread(role, spread, **state):
    session = TradingSession(1, role, "zero_intelligence")
    session.seed(everyone(1), np.zeros(1, np.uint64))
    session.reset()
    role.state["spread"] = spread
    for name, value in state.items():
        role.state[name] = value
    return role.action_masks()[0]


@pytest.mark.parametrize(("spread", "inside"), [(1, False), (2, True), (7, True)])
def test_the_touch_is_improved_only_where_there_is_a_price_between(spread, inside):
    for make in (ExecutionRole, TradingRole):
        role = make(discrete=True)
        between = (role.presets[:, 1] > 0) & (role.presets[:, 1] < 1)
        np.testing.assert_array_equal(known_spread(role, spread), ~between | inside)
    role = MarketMakingRole(discrete=True)
    between = role.presets[:, :2].min(axis=1) < 0
    np.testing.assert_array_equal(known_spread(role, spread), ~between | (spread >= 4))


def test_nobody_crosses_beyond_a_limit():
    role = ExecutionRole(discrete=True, side="buy", limit_price=2**20)
    known_spread(role, 5)
    ask = int(role.prices[0, 1, 0])
    crosses = role.presets[:, 1] == 1.0
    assert known_spread(role, 5, limit=ask)[crosses].all()
    assert not known_spread(role, 5, limit=ask - 1)[crosses].any()
    assert known_spread(role, 5, limit=ask - 1)[0]


def test_masks_are_in_the_infos_of_numbered_actions_and_sample():
    env = ExecutionEnv(flow="zero_intelligence", discrete=True, decisions=4)
    _, info = env.reset(seed=3)
    for _ in range(3):
        mask = info["action_mask"]
        assert mask.dtype == np.int8
        np.testing.assert_array_equal(mask, env.action_masks())
        assert mask[env.action_space.sample(mask=mask)]
        info = env.step(0)[-1]
    assert "action_mask" not in ExecutionEnv(flow="zero_intelligence").reset(seed=3)[1]


@pytest.mark.filterwarnings("ignore:options has the unknown key 'options'")  # the checker sends one
def test_pettingzoo_shows_dicts_and_masks():
    roles = [
        {"role": "market_making", "observation": "dict", "discrete": True},
        {"role": "trading", "recent_events": 3},
    ]
    env = parallel_env(roles, flow="zero_intelligence", decisions=4, clock="time", interval=50_000_000)
    seen, infos = env.reset(seed=1)
    assert seen["maker_0"] in env.observation_space("maker_0")
    assert infos["maker_0"]["action_mask"].shape == (17,)
    assert env.state() in env.state_space
    parallel_api_test(env, num_cycles=20)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"observation": "box"}, "observation is 'box'; it must be one of 'flat', 'dict'"),
        ({"blocks": "spread"}, "blocks is 'spread'; it must be None or a list of names"),
        ({"blocks": []}, r"blocks is \[\]; it must be None or a list of names"),
        ({"blocks": ["spread", "colour"]}, "blocks has 'colour'; known are schedule, quantity_left, .*, limit"),
        ({"blocks": ["spread", "spread"]}, "blocks has 'spread' 2 times; it must have each once"),
        ({"recent_events": -1}, "recent_events is -1; it must be an integer from 0 to 256"),
        ({"recent_events": True}, "recent_events is True"),
    ],
)
def test_wrong_layouts_are_named(task, said):
    with pytest.raises(ValueError, match=said):
        ExecutionEnv(flow="zero_intelligence", **task)
