"""What the market of several agents refuses, and that nothing has changed then."""

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded
from test_parallel_env import TASK, nothing

from tradefm_gym import TradingRole, parallel_env


def test_wrong_actions_of_a_policy_are_named():
    for wrong in (None, np.zeros(2), np.full((1, 2), 3.0), "buy"):
        roles = ["execution", {"role": "trading", "name": "robot", "policy": lambda *_, wrong=wrong: wrong}]
        env = parallel_env(roles, flow="zero_intelligence")
        env.reset(seed=0)
        before = env.session.tape_hash(0)
        with pytest.raises(ValueError, match=r"^action of 'robot', chosen by its policy, is .*; it must be two"):
            env.step({"executor_0": np.zeros(2)})
        assert env.session.tape_hash(0) == before


def test_bad_options_and_seeds_change_nothing():
    env = parallel_env(**TASK)
    env.reset(seed=1)
    before = env.session.tape_hash(0), env.session.episodes.tolist(), env.session.seeds.tolist()
    for call, said in (
        ({"options": 3}, "options is 3; it must be a dict or None"),
        ({"options": {"context": "x"}}, "context is 'x'"),
        ({"options": {"executor_0": 3}}, r"options\['executor_0'\] is 3; it must be a dict"),
        ({"options": {"executor_0": {"side": 7}}, "seed": 4}, "side is 7"),
        ({"seed": -1}, "seed is -1; it must be a non-negative integer or None"),
        ({"seed": 1.5}, "seed is 1.5"),
    ):
        with pytest.raises(ValueError, match=said):
            env.reset(**call)
    assert before == (env.session.tape_hash(0), env.session.episodes.tolist(), env.session.seeds.tolist())


def test_bad_actions_are_named_and_change_nothing():
    env = parallel_env(**TASK)
    with pytest.raises(ResetNeeded, match="call reset first"):
        env.step({})
    env.reset(seed=1)
    good = {agent: np.zeros(env.action_space(agent).shape) for agent in env.agents} | {"quoter_0": 0}
    before = env.session.tape_hash(0)
    for actions, said in (
        (3, "actions is 3; it must be a dict of an action for each agent"),
        ({}, "actions lacks 'executor_0'; it must have an action for executor_0, maker_0, trader_0, quoter_0"),
        (good | {"nobody": 1}, "actions names 'nobody', which does not exist; agents are executor_0, maker_0"),
        (good | {"maker_0": np.zeros(3)}, "action of 'maker_0' is .*; it must be four numbers from -1 to 1"),
        (good | {"maker_0": np.full(4, np.nan)}, r"action of 'maker_0' is \[nan.*; it must be four numbers"),
        (good | {"maker_0": [0, 0, 0, 2]}, r"action of 'maker_0' is \[0.0, 0.0, 0.0, 2.0\]; it must be four"),
        (good | {"trader_0": "buy"}, "action of 'trader_0' is 'buy'; it must be two numbers"),
        (good | {"quoter_0": 17}, "action of 'quoter_0' is 17; it must be an integer from 0 to 16"),
        (good | {"quoter_0": 0.5}, "action of 'quoter_0' is 0.5; it must be an integer"),
    ):
        with pytest.raises(ValueError, match=said):
            env.step(actions)
    assert env.session.tape_hash(0) == before
    for _ in range(5):
        env.step({agent: good[agent] for agent in env.agents})
    assert "trader_0" not in env.agents
    with pytest.raises(ValueError, match="actions names 'trader_0', which has left; agents are executor_0"):
        env.step(good)
    env.step(good | {"trader_0": None})


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"roles": "execution"}, ValueError, "roles is 'execution'; it must be a list of 2 to 16 roles"),
        ({"roles": ["execution"]}, ValueError, "roles is 1 entries; it must be a list of 2 to 16"),
        ({"roles": ["execution"] * 17}, ValueError, "roles is 17 entries; it must be a list of 2 to 16"),
        ({"roles": ["execution", "gambler"]}, ValueError, r"roles\[1\] is 'gambler'; it must be one of 'execution'"),
        ({"roles": ["execution", 3]}, ValueError, r"roles\[1\] is 3; it must be 'execution', 'market_making', 'tr"),
        ({"roles": ["execution", {"side": "buy"}]}, ValueError, r"roles\[1\] is .*; it must be .* or a dict with a"),
        (
            {"roles": ["execution", {"role": "trading", "sise": 1}]},
            TypeError,
            "role 'trading' of roles.* has no",
        ),
        ({"roles": [{"role": "trading", "name": ""}] * 2}, ValueError, r"name of roles\[0\] is ''; it must be a word"),
        ({"roles": [{"role": "trading", "name": "a"}] * 2}, ValueError, "name 'a' stands in roles 2 times"),
        ({"roles": [{"role": "trading", "policy": 3}] * 2}, ValueError, r"policy of roles\[0\] is 3; it must be calle"),
        ({"roles": [{"role": "trading", "policy": nothing}] * 2}, ValueError, "at least one must have no policy"),
        ({"roles": [TradingRole(), {"role": TradingRole(), "size": 1}]}, TypeError, "beside which only name and pol"),
        ({"roles": ["execution", TradingRole(interval=3)]}, ValueError, r"interval of roles\[1\] is 3; it must be th"),
        ({"roles": [{"role": "execution", "side": "up"}, "trading"]}, ValueError, "side is 'up'"),
        ({"decisions": 0}, ValueError, "decisions is 0"),
        ({"render_mode": "x"}, ValueError, "render_mode is 'x'; it must be None, 'human' or 'ansi' or 'rgb_array'"),
        ({"colour": 1}, TypeError, "parallel_env has no argument 'colour'; allowed are clock, context"),
        ({"flow": "nothing"}, ValueError, "flow 'nothing' is not known"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, said):
    with pytest.raises(error, match=said):
        parallel_env(**({"flow": "zero_intelligence"} | arguments))


def test_unknown_agents_are_named_and_a_closed_market_stays_closed():
    env = parallel_env(**TASK)
    for call in (env.observation_space, env.action_space):
        with pytest.raises(ValueError, match="agent is 'x'; it must be one of executor_0, maker_0"):
            call("x")
    env.reset(seed=0)
    env.close()
    env.close()
    for name, call in (("step", lambda: env.step({})), ("reset", env.reset)):
        with pytest.raises(ClosedEnvironmentError, match=f"{name} was called after close"):
            call()
