"""Recorders of vector environments and of markets of several agents, beside that of the single environment."""

import re

import gymnasium as gym
import numpy as np
import pytest

import tradefm_gym
from tradefm_gym import comparing
from tradefm_gym.cli import main

FLOW, DECISIONS = "zero_intelligence", 6
ROLES = ["market_making", {"role": "execution", "side": "buy", "name": "buyer"}, {"role": "trading", "decisions": 4}]


def same(one, two):
    """Two episodes are equal to the last bit."""
    for name, value in vars(one).items():
        other = getattr(two, name)
        assert value == other if name == "about" else np.array_equal(value, other, equal_nan=True), name


def single(task, seed, actions):
    """The episodes of a recorded single environment under actions (T, act), by their number."""
    env, found = tradefm_gym.EpisodeRecorder(gym.make(task, flow=FLOW, decisions=DECISIONS)), []
    env.reset(seed=seed)
    for action in actions:
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            found.append(env.episode())
            env.reset()
    return found


@pytest.mark.parametrize("task", ["TradeFM/Execution-v0", "TradeFM/MarketMaking-v0"])
@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_a_row_is_recorded_as_the_single_environment_is(task, mode, tmp_path):
    plain = gym.make_vec(task, 3, flow=FLOW, decisions=DECISIONS, autoreset_mode=mode)
    env = tradefm_gym.VectorEpisodeRecorder(
        gym.make_vec(task, 3, flow=FLOW, decisions=DECISIONS, autoreset_mode=mode), tmp_path / "all", row=2
    )
    env.reset(seed=5), plain.reset(seed=5)
    generator, played, found, waiting = np.random.default_rng(0), [], [], False
    while len(found) < 2:
        actions = generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        one, two = env.step(actions), plain.step(actions)
        for a, b in zip(one[:4], two[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        if not waiting:
            played.append(actions[2])
        ended = one[2] | one[3]
        if ended[2]:
            found.append(env.episode())
        waiting = mode == "NextStep" and bool(ended[2])  # the next step is the reset
        if mode == "Disabled" and ended.any():
            for each in (env, plain):
                each.reset(options={"reset_mask": ended.copy()})
    for mine, alone in zip(found, single(task, 7, played), strict=True):
        same(mine, alone)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["7-0.npz", "7-1.npz"]
    same(tradefm_gym.Episode.load(tmp_path / "all" / "7-1.npz"), found[1])


def test_a_row_goes_on_while_others_are_reset():
    env = tradefm_gym.VectorEpisodeRecorder(
        gym.make_vec("TradeFM/Trading-v0", 2, flow=FLOW, decisions=DECISIONS, autoreset_mode="Disabled"), row=1
    )
    env.reset(seed=1)
    env.step(np.zeros((2, 2), np.float32))
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(np.zeros((2, 2), np.float32))
    assert len(env.episode().actions) == 2
    env.reset(options={"reset_mask": np.array([False, True])})
    assert len(env.episode().actions) == 0


def play(env, seed=3):
    generator, answers = np.random.default_rng(1), [env.reset(seed=seed)]
    while env.agents:
        shapes = {agent: env.action_space(agent).shape for agent in env.agents}
        actions = {agent: generator.uniform(-1, 1, shape).astype(np.float32) for agent, shape in shapes.items()}
        answers.append(env.step(actions))
    return answers


@pytest.fixture(scope="module", name="market")
def _market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("episodes")
    env = tradefm_gym.ParallelEpisodeRecorder(
        tradefm_gym.parallel_env(ROLES, flow=FLOW, decisions=DECISIONS, taker_fee=30), folder
    )
    return env, play(env), folder


def test_recording_a_market_of_several_changes_nothing(market):
    env, answers, _ = market
    plain = tradefm_gym.parallel_env(ROLES, flow=FLOW, decisions=DECISIONS, taker_fee=30)
    assert repr(play(plain)) == repr(answers)
    assert plain.session.tape_hash(0) == env.session.tape_hash(0)


def test_every_agent_has_an_episode_of_its_own_in_the_same_market(market):
    env, answers, folder = market
    names = {"maker_0": 6, "buyer": 6, "trader_0": 4}
    assert sorted(path.name for path in folder.iterdir()) == [f"3-0-{name}.npz" for name in sorted(names)]
    episodes = {name: tradefm_gym.Episode.load(folder / f"3-0-{name}.npz") for name in names}
    accounts = env.session.market.accounts
    for seat, (name, decisions) in enumerate(names.items()):
        episode = episodes[name]
        same(episode, env.episode(name))
        assert (episode.about["agent"], len(episode.actions)) == (name, decisions)
        assert episode.rewards.tolist() == [step[1][name] for step in answers[1:] if name in step[1]]
        assert [episode.inventory[-1], episode.fees[-1]] == [accounts[key][0, seat] for key in ("inventory", "fees")]
        mine = episode.fill_side != 0
        lots = (episode.fill_side * episode.fill_size.astype(np.int64))[mine]
        assert lots.sum() == episode.inventory[-1] and mine.any()
        assert -(lots * episode.fill_price[mine] * 1000).sum() == episode.cash[-1]
        assert np.allclose(episode.terms.sum(axis=1), episode.rewards * (-1 if name == "buyer" else 1))
        costs = comparing.costs(episode)
        assert costs["fees"] == episode.fees[-1]
    maker, buyer = episodes["maker_0"], episodes["buyer"]
    for column in ("prices", "sizes", "tape_price", "fill_price", "fill_size", "time_ns"):  # one market, two viewpoints
        np.testing.assert_array_equal(getattr(maker, column), getattr(buyer, column))
    assert not (maker.tape_own & buyer.tape_own).any() and maker.tape_own.any() and buyer.tape_own.any()
    both = (maker.fill_side != 0) & (buyer.fill_side != 0)  # what the two traded with each other
    np.testing.assert_array_equal(maker.fill_side[both], -buyer.fill_side[both])


def test_the_pages_of_a_market_of_several(market, tmp_path, capsys):
    folder = market[2]
    page = tmp_path / "page.html"
    assert main(["view", str(folder / "3-0-maker_0.npz"), "--out", str(page)]) == 0
    assert re.search(r"ParallelTrading against zero_intelligence, maker_0", page.read_text())
    pair = [str(folder / f"3-0-{name}.npz") for name in ("maker_0", "buyer")]
    assert main(["view", "--compare", *pair, "--out", str(page)]) == 2
    assert "episodes of agent 'maker_0' and 'buyer'" in capsys.readouterr().err


def test_some_agents_may_be_chosen_and_the_next_episode_replaces_the_last(tmp_path):
    env = tradefm_gym.ParallelEpisodeRecorder(
        tradefm_gym.parallel_env(ROLES, flow=FLOW, decisions=DECISIONS), tmp_path, agents=["buyer"]
    )
    play(env, 1), play(env, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0-buyer.npz", "1-1-buyer.npz"]
    assert env.episode("buyer").about["episode"] == 1
    assert env.save("buyer", tmp_path / "b.npz").is_file()
    with pytest.raises(ValueError, match="agent is 'maker_0'; recorded are buyer"):
        env.episode("maker_0")


def test_what_cannot_be_recorded_is_refused():
    vector = gym.make_vec("TradeFM/Trading-v0", 2, flow=FLOW)
    same_step = gym.make_vec("TradeFM/Trading-v0", 2, flow=FLOW, autoreset_mode="SameStep")
    market = tradefm_gym.parallel_env(ROLES, flow=FLOW)
    wrong = [
        (lambda: tradefm_gym.VectorEpisodeRecorder(same_step), "autoreset_mode of env is 'SameStep'; it must be"),
        (lambda: tradefm_gym.VectorEpisodeRecorder(vector, row=2), "row is 2; it must be an integer from 0 to 1"),
        (lambda: tradefm_gym.VectorEpisodeRecorder(gym.make_vec("CartPole-v1", 2)), "one of TradeFM's vector"),
        (lambda: tradefm_gym.ParallelEpisodeRecorder(market, agents=["seller"]), "agents is .*some of maker_0, buyer"),
        (lambda: tradefm_gym.ParallelEpisodeRecorder(market, agents="buyer"), "agents is 'buyer'; it must be None or"),
        (lambda: tradefm_gym.ParallelEpisodeRecorder(market).episode("buyer"), "no episode has begun; call reset"),
    ]
    for call, said in wrong:
        with pytest.raises(ValueError, match=said):
            call()
