"""Episodes drawn by a sampler: the seed decides, callers overrule, and what cannot be is named."""

import numpy as np
import pytest
from small_tradefm import everyone

from tradefm_gym import Between, EpisodeSampler
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.parallel_env import parallel_env
from tradefm_gym.envs.regimes import HALVES, REGIMES, regimes
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.flow.registry import make_flow

SAMPLER = EpisodeSampler(regimes=["wild", "calm"], side=["buy"], quantity=Between(10, 99), participation=[0.1, 0.5])


def session_of(num_envs, sampler=SAMPLER, seed=0, role=None, **options):
    session = TradingSession(
        num_envs, role or ExecutionRole(decisions=4), "zero_intelligence", sampler=sampler, **options
    )
    session.seed(everyone(num_envs), np.arange(seed, seed + num_envs))
    session.reset()
    return session


def drawn(session):
    info, state = session.start_info(), session.role.state
    columns = info["context"], info["regime"], state["side"], state["quantity"], state["participation"]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_draws_belong_to_seed_and_episode():
    many, few = session_of(200), session_of(3, seed=5)
    first = drawn(many)
    assert first[5:8] == drawn(few)
    many.reset()
    assert drawn(many)[5:8] != first[5:8]
    few.reset()
    assert drawn(many)[5:8] == drawn(few)
    many.seed(everyone(200), np.arange(200))
    many.reset()
    assert drawn(many) == first


def test_draws_cover_what_they_should():
    rows = drawn(session_of(400))
    assert {row[2] for row in rows} == {1}
    quantities = np.array([row[3] for row in rows])
    assert quantities.min() >= 10 and quantities.max() <= 99
    assert 0.4 < (quantities < np.sqrt(10 * 99)).mean() < 0.6  # equally likely on a logarithmic scale
    assert {row[4] for row in rows} == {0.1, 0.5}
    assert abs(np.corrcoef(quantities, [row[4] for row in rows])[0, 1]) < 0.2  # each is drawn on its own
    wild = np.array(["wild" in row[1] for row in rows])
    assert 0.4 < wild.mean() < 0.6
    assert len({row[0] for row in rows}) > 20


def test_regimes_part_the_contexts_in_halves():
    bank = make_flow("zero_intelligence", 1).bank
    contexts = bank.split("train")
    found = regimes(bank, contexts)
    assert set(found) == set(REGIMES)
    for _, lower, upper in HALVES:
        np.testing.assert_array_equal(found[lower], ~found[upper])
        assert 0.2 < found[upper].mean() <= 0.5
    moves = [np.abs(np.diff(bank.state(c).records["mid2"].astype(float))).mean() for c in contexts.tolist()]
    assert np.mean(np.array(moves)[found["wild"]]) > np.mean(np.array(moves)[found["calm"]])


def test_what_a_reset_fixes_stays():
    env = ExecutionEnv(flow="zero_intelligence", sampler=SAMPLER)
    _, info = env.reset(seed=1, options={"side": "sell", "context": 3})
    assert (info["side"], info["context"]) == (-1, 3)
    assert 10 <= info["quantity"] <= 99
    assert info["regime"]
    vector = ExecutionVectorEnv(3, flow="zero_intelligence", sampler=SAMPLER, decisions=1)
    _, infos = vector.reset(seed=1, options={"side": ["sell", None, "sell"]})
    assert infos["side"].tolist() == [-1, 1, -1]
    vector.step(np.zeros((3, 2)))
    _, _, _, _, infos = vector.step(np.zeros((3, 2)))  # the reset after it draws again
    assert infos["side"].tolist() == [1, 1, 1]


def test_contexts_and_other_roles():
    sampler = EpisodeSampler(contexts=[2, 4], inventory_limit=[7, 9])
    session = session_of(64, sampler, role=MarketMakingRole(size=3))
    assert set(session.context_of.tolist()) == {2, 4}
    assert set(session.role.state["limit"].tolist()) == {7, 9}
    env = parallel_env(["market_making", "execution"], flow="zero_intelligence", sampler=sampler)
    infos = env.reset(seed=3)[1]
    assert infos["maker_0"]["inventory_limit"] in (7, 9)
    assert infos["executor_0"]["context"] in (2, 4)


def test_copies_draw_alike():
    session = session_of(2)
    branch = session.branch()
    session.reset(), branch.reset()
    assert drawn(session) == drawn(branch)
    with pytest.raises(ValueError, match="EpisodeSampler"):
        session_of(2, None).restore(session.snapshot())


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: EpisodeSampler(regimes=["hot"]), ValueError, "regimes is 'hot'; it must be one of 'calm', 'wild'"),
        (lambda: EpisodeSampler(contexts=[]), ValueError, r"contexts of the sampler is \[\]; it must be a list"),
        (lambda: EpisodeSampler(side="buy"), ValueError, "side of the sampler is 'buy'; it must be a list of at least"),
        (lambda: Between(0, 3), ValueError, "low of Between is 0; it must be a positive number"),
        (lambda: Between(3, 2), ValueError, "low of Between is 3; it must be at most high, 2"),
        (lambda: EpisodeSampler(contexts=[-1]), ValueError, "contexts of the sampler has -1, which is no start"),
        (lambda: EpisodeSampler(contexts=[1000]), ValueError, "contexts of the sampler has 1000, which is no start"),
        (lambda: EpisodeSampler(colour=["red"]), TypeError, "the sampler has no argument 'colour'; allowed are .*side"),
        (lambda: EpisodeSampler(side=["up"]), ValueError, "side is 'up'; it must be"),
        (lambda: EpisodeSampler(quantity=Between(0.5, 7)), ValueError, "quantity is 0.5; it must be an integer"),
        (lambda: "calm", ValueError, "sampler is 'calm'; it must be an EpisodeSampler or None"),
    ],
)  # fmt: skip
def test_wrong_samplers_are_named(make, error, said):
    with pytest.raises(error, match=said):
        ExecutionEnv(flow="zero_intelligence", sampler=make())


def test_a_context_beside_a_sampler_is_refused():
    with pytest.raises(ValueError, match="context is 3; beside a sampler, which draws it, it must be None"):
        ExecutionEnv(flow="zero_intelligence", sampler=SAMPLER, context=3)
