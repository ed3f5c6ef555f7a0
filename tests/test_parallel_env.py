import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pettingzoo
import pytest
from gymnasium.error import ResetNeeded
from pettingzoo.test import (
    api_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec
from quiet_flow import QuietFlow, quiet_bank
from small_day import cpu_flow

import tradefm_gym
from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession, parallel_env
from tradefm_gym.envs.parallel_env import ParallelTradingEnv

BIDS, ASKS = [(998, 100), (997, 200), (996, 300)], [(1002, 100), (1003, 200), (1004, 300)]
ROLES = [
    "execution",
    "market_making",
    {"role": "trading", "decisions": 5},
    {"role": "market_making", "discrete": True, "name": "quoter_0"},
]
TASK = {"roles": ROLES, "flow": "zero_intelligence", "decisions": 12}


def nothing(observation, info):
    """A scripted trader that stays flat."""
    return np.zeros((len(observation), 2), np.float32)


def drawn(env, generator):
    """A random action for each agent that is left."""
    spaces = {agent: env.action_space(agent) for agent in env.agents}
    return {
        agent: int(generator.integers(space.n))
        if hasattr(space, "n")
        else generator.uniform(-1, 1, space.shape).astype(np.float32)
        for agent, space in spaces.items()
    }


def play(env, seed=3, generator_seed=0):
    """A whole episode of random actions; what was seen, earned and told at each step."""
    generator = np.random.default_rng(generator_seed)
    steps = [env.reset(seed=seed)]
    while env.agents:
        steps.append(env.step(drawn(env, generator)))
    return steps


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes", "replay"])
def test_pettingzoos_own_tests(flow):
    task = TASK | {"flow": cpu_flow(flow)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "options has the unknown key 'options'")  # what the first test sends
        warnings.filterwarnings("ignore", "Agents have different|Observations are different|The class of")
        parallel_api_test(parallel_env(**task), num_cycles=100)
        parallel_seed_test(lambda: parallel_env(**task), num_cycles=30)
        api_test(tradefm_gym.env(**task), num_cycles=60)
        seed_test(lambda: tradefm_gym.env(**task), num_cycles=30)


def test_equal_roles_pass_without_any_further_warning():
    task = TASK | {"roles": ["trading"] * 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "options has the unknown key 'options'")
        api_test(tradefm_gym.env(**task), num_cycles=60)
        seed_test(lambda: tradefm_gym.env(**task), num_cycles=30)


def test_pettingzoos_tests_of_state_and_rendering(capsys):
    render_test(lambda render_mode=None: tradefm_gym.env(**TASK, render_mode=render_mode))
    capsys.readouterr()
    env = parallel_env(**TASK)
    env.reset(seed=1)
    state_test(tradefm_gym.env(**TASK), env)


def test_the_default_market_of_the_model_passes():
    parallel = parallel_env(decisions=4)
    assert parallel.possible_agents == ["maker_0", "executor_0"]
    with pytest.warns(UserWarning, match="options has the unknown key 'options'; known are context, scenario, maker_0"):
        parallel_api_test(parallel, num_cycles=6)
    parallel_seed_test(lambda: parallel_env(decisions=4), num_cycles=6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api_test(tradefm_gym.env(decisions=4), num_cycles=12)
        seed_test(lambda: tradefm_gym.env(decisions=4), num_cycles=6)
    env = parallel_env(decisions=4)
    env.reset(seed=1)
    state_test(tradefm_gym.env(decisions=4), env)


def test_agents_have_the_names_and_spaces_of_their_roles():
    env = parallel_env([*ROLES, "execution", "trading"], flow="zero_intelligence")
    assert env.possible_agents == ["executor_0", "maker_0", "trader_0", "quoter_0", "executor_1", "trader_1"]
    assert env.agents == []
    env.reset(seed=0)
    assert env.agents == env.possible_agents
    for agent, shape in (("executor_0", (2,)), ("maker_0", (4,)), ("trader_1", (2,)), ("quoter_0", ())):
        assert env.action_space(agent).shape == shape
        assert env.action_space(agent) is env.action_space(agent)
        assert env.observation_space(agent) is env.observation_space(agent)
    assert env.max_num_agents == 6


def test_agents_leave_one_by_one():
    env = parallel_env(**TASK)
    env.reset(seed=5)
    generator, left = np.random.default_rng(1), []
    while env.agents:
        before = list(env.agents)
        seen, rewards, terminated, truncated, infos = env.step(drawn(env, generator))
        for answer in (seen, rewards, terminated, truncated, infos):
            assert list(answer) == before
        for agent in before:
            assert type(rewards[agent]) is float
            assert type(terminated[agent]) is type(truncated[agent]) is bool
            assert seen[agent] in env.observation_space(agent)
            assert (agent in env.agents) == (not terminated[agent])
        left += [agent for agent in before if agent not in env.agents]
    assert sorted(left) == sorted(env.possible_agents)
    assert left[0] in ("trader_0", "executor_0")
    assert "profit_bps" in infos["maker_0"]


def test_equals_a_session_of_the_same_roles():
    env = parallel_env([{"role": "execution", "side": "buy"}, "market_making"], flow="hawkes", decisions=6)
    roles = [ExecutionRole(decisions=6, side="buy"), MarketMakingRole(decisions=6)]
    session = TradingSession(2, roles, "hawkes")  # row 1 has the seed of the environment
    session.seed(np.ones(2, bool), np.array([8, 9], np.uint64))
    seen, _ = env.reset(seed=9)
    one = session.reset_roles()
    generator = np.random.default_rng(0)
    while env.agents:
        for agent, observation in zip(env.possible_agents, one, strict=True):
            if agent in env.agents:
                np.testing.assert_array_equal(seen[agent], observation[1])
        actions = drawn(env, generator)
        batch = [np.stack([actions[a]] * 2) if a in actions else None for a in env.possible_agents]
        if session.active[0, 0] and batch[0] is None:
            batch[0] = np.zeros((2, 2), np.float32)
        seen, rewards, *_ = env.step(actions)
        results = session.step_roles(batch)
        one = [result.observation for result in results]
        for i, agent in enumerate(env.possible_agents):
            assert rewards.get(agent, 0.0) == results[i].reward[1]
    assert env.session.tape_hash(0) == session.tape_hash(1)


def test_seeds_name_episodes():
    first, again, other = (play(parallel_env(**TASK), seed) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        for a, b in zip(one, two, strict=True):
            assert repr(a) == repr(b)
    assert repr(first[0][0]) != repr(other[0][0])
    env = parallel_env(**TASK)
    env.reset(seed=3)
    second = env.reset()[0]
    env.reset(seed=3)
    assert repr(env.reset()[0]) == repr(second) != repr(first[0][0])
    unseeded = [parallel_env(**TASK) for _ in range(2)]
    for one in unseeded:
        one.reset()
    assert unseeded[0].session.seeds[0] != unseeded[1].session.seeds[0]


def test_equal_episodes_in_another_process():
    env = parallel_env(**TASK)
    play(env)
    code = "import test_parallel_env as t; e = t.parallel_env(**t.TASK); t.play(e); print(e.session.tape_hash(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == env.session.tape_hash(0)


def test_the_aec_form_is_the_same_market():
    parallel, aec = parallel_env(**TASK), tradefm_gym.env(**TASK)
    assert aec_to_parallel(aec).possible_agents == parallel.possible_agents
    assert isinstance(parallel_to_aec(parallel), pettingzoo.AECEnv)
    generator = np.random.default_rng(2)
    parallel.reset(seed=1), aec.reset(seed=1)
    for _ in range(3):
        actions = drawn(parallel, generator)
        _, rewards, *_ = parallel.step(actions)
        for agent in actions:
            assert aec.agent_selection == agent
            aec.step(actions[agent])
        assert all(aec.rewards[agent] == rewards[agent] for agent in actions)
    assert aec.unwrapped.session.tape_hash(0) == parallel.session.tape_hash(0)


def test_what_is_returned_belongs_to_the_caller():
    env, other = parallel_env(**TASK), parallel_env(**TASK)
    for one in (env, other):
        one.reset(seed=2)
    generators = [np.random.default_rng(3) for _ in range(2)]
    for _ in range(4):
        answers = env.step(drawn(env, generators[0]))
        expected = other.step(drawn(other, generators[1]))
        assert repr(answers) == repr(expected)
        for agent, observation in answers[0].items():
            observation[:] = -7
            for answer in answers[1:]:
                answer[agent] = None
        env.state()[:] = -7
    np.testing.assert_array_equal(env.state(), other.state())


def test_state_holds_what_all_seats_see():
    env = parallel_env(["execution", {"role": "trading", "policy": nothing}], flow="zero_intelligence")
    with pytest.raises(ResetNeeded, match="state was called before reset"):
        env.state()
    seen, _ = env.reset(seed=0)
    assert env.state() in env.state_space
    assert env.state().dtype == np.float32
    np.testing.assert_array_equal(env.state()[:41], seen["executor_0"])
    assert env.state().shape == (41 + 45,)


def test_scripted_opponents_have_a_seat_but_are_not_seen():
    calls = []

    class Buyer:
        def act(self, observation, info):
            assert observation.shape == (1, 45)
            np.testing.assert_array_equal(observation[0], env.state()[45:])  # the second seat's
            calls.append({name: column[0] for name, column in info.items()})
            return np.array([[1.0, 1.0]], np.float32)

    roles = ["market_making", {"role": TradingRole(decisions=3, max_position=40), "policy": Buyer()}]
    env = parallel_env(roles, flow="zero_intelligence", decisions=6)
    assert env.possible_agents == ["maker_0"]
    env.reset(seed=11)
    held = []
    while env.agents:
        answers = env.step({"maker_0": np.zeros(4, np.float32)})
        assert list(answers[0]) == ["maker_0"]
        held.append(int(env.session.market.accounts["inventory"][0, 1]))
    assert held == [40, 40, 0, 0, 0, 0]
    assert [call["decision"] for call in calls] == [0, 1, 2]
    assert calls[0]["seed"] == 11
    assert calls[0]["max_position"] == 40
    assert calls[0]["usual_spread"] > 0


def test_options_fix_the_start_and_single_agents():
    env = parallel_env(**TASK)
    options = {"context": 4, "executor_0": {"side": "sell", "quantity": 77}, "quoter_0": {"size": 3}}
    _, infos = env.reset(seed=1, options=options)
    assert {info["context"] for info in infos.values()} == {4}
    assert (infos["executor_0"]["side"], infos["executor_0"]["quantity"]) == (-1, 77)
    assert infos["quoter_0"]["size"] == 3 != infos["maker_0"]["size"]
    for unknown in ({"colour": 1}, {"side": "buy"}, {"executor_0": {"size": 1}}, {"roles": 3}):
        with pytest.warns(UserWarning, match="options has the unknown key"):
            env.reset(options=unknown)


def test_the_end_of_the_flow_truncates_all_that_are_left():
    flow = QuietFlow(1, quiet_bank(BIDS, ASKS), last=40)
    env = parallel_env([{"role": "execution", "quantity": 5}, "trading"], flow=flow, decisions=9)
    env.reset(seed=0)
    env.step({"executor_0": np.ones(2), "trader_0": np.zeros(2)})
    assert env.agents == ["trader_0"]
    env.step({"trader_0": np.zeros(2)})
    *_, terminated, truncated, infos = env.step({"trader_0": np.zeros(2)})
    assert (terminated, truncated, env.agents) == ({"trader_0": False}, {"trader_0": True}, [])
    assert "profit_bps" in infos["trader_0"]


def test_the_ladder_shows_the_orders_of_all():
    flow = QuietFlow(1, quiet_bank(BIDS, ASKS))
    env = parallel_env(["market_making", "trading"], flow=flow, render_mode="ansi")
    env.reset(seed=0)
    env.step({"maker_0": np.array([-1, 0.5, 0, 0]), "trader_0": np.array([-0.5, -0.25])})
    text = env.render()
    assert "maker holds +0" in text and "trader holds +0" in text
    assert text.count("*") == 3


def test_sixteen_agents_share_one_market():
    env = parallel_env(["execution", "market_making", "trading", "market_making"] * 4, flow="hawkes", decisions=5)
    steps = play(env)
    assert len(env.possible_agents) == len(set(env.possible_agents)) == 16
    assert len(steps) == 6
    accounts = env.session.market.accounts
    assert not accounts["cash"].sum() and not accounts["inventory"].sum()
    assert (accounts["volume"][0] > 0).all()


@pytest.mark.skipif(not hasattr(pettingzoo, "make"), reason="this PettingZoo has no registry")
def test_pettingzoo_makes_it_by_name():
    made = pettingzoo.make("parallel", "TradeFM/Market-v0", **TASK)
    assert isinstance(made, ParallelTradingEnv)
    assert isinstance(pettingzoo.make("aec", "TradeFM/Market-v0", **TASK), pettingzoo.AECEnv)
