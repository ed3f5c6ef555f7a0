import pickle
from copy import copy as shallow
from copy import deepcopy

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.session import TradingSession

BIDS, ASKS = [(998, 100), (997, 200)], [(1002, 100), (1003, 200)]


def session_of(num_envs, seed=0, flow="zero_intelligence", role=None, **options):
    session = TradingSession(num_envs, role or ExecutionRole(decisions=12), flow, **options)
    session.seed(np.ones(num_envs, bool), np.arange(seed, seed + num_envs))
    return session


def quiet(num_envs=1, last=10**9, **options):
    return session_of(num_envs, flow=QuietFlow(num_envs, quiet_bank(BIDS, ASKS), last=last), **options)


def run(session, generator_seed=0, decisions=12):
    generator = np.random.default_rng(generator_seed)
    actions = generator.uniform(-1, 1, (decisions, session.num_envs, 2)).astype(np.float32)
    return [session.step(action) for action in actions]


def test_an_interval_is_a_count_of_background_events():
    session = quiet(3)
    session.reset()
    start = session.market.background_count.copy()
    session.step(np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(session.market.background_count - start, 16)
    session.advance(np.array([True, False, True]), 5)
    np.testing.assert_array_equal(session.market.background_count - start, [21, 16, 21])


def test_a_row_depends_on_its_seed_and_episode_only():
    together, alone = session_of(5, seed=40), session_of(1, seed=43)
    together.reset(), alone.reset()
    steps = run(together)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (12, 5, 2)).astype(np.float32)
    for step, action in zip(steps, actions, strict=True):
        other = alone.step(action[3:4])
        for one, two in zip(step, other, strict=True):
            np.testing.assert_array_equal(one[3], two[0])
    assert together.tape_hash(3) == alone.tape_hash(0)


def test_a_partial_reset_leaves_the_other_rows_alone():
    left, right = session_of(4), session_of(4)
    left.reset(), right.reset()
    run(left, decisions=3), run(right, decisions=3)
    left.reset(np.array([False, True, False, True]))
    for m in (0, 2):
        assert left.tape_hash(m) == right.tape_hash(m)
    np.testing.assert_array_equal(left.episodes, [0, 1, 0, 1])
    zeros = np.zeros((4, 2), np.float32)
    one, two = left.step(zeros), right.step(zeros)
    for m in (0, 2):
        np.testing.assert_array_equal(one.observation[m], two.observation[m])
        assert left.tape_hash(m) == right.tape_hash(m)


def test_episodes_of_a_seed_differ_and_come_back():
    session = session_of(2, seed=7)
    hashes = []
    for _ in range(2):
        session.seed(np.ones(2, bool), np.array([7, 8]))
        for _ in range(3):
            session.reset()
            run(session, decisions=2)
            hashes.append(session.tape_hash(0))
    assert hashes[:3] == hashes[3:]
    assert len(set(hashes)) == 3


def test_contexts_come_from_the_split_and_can_be_fixed():
    for split in ("train", "validation", "test"):
        session = session_of(32, split=split)
        session.reset()
        assert set(session.context_of) <= set(session.flow.bank.split(split))
        assert len(set(session.context_of)) > 4
    session.reset(options={"context": 3, "side": "sell", "quantity": 99})
    info = session.start_info()
    assert set(session.context_of) == {3}
    assert set(info["side"]) == {-1}
    assert set(info["quantity"]) == {99}
    fixed = session_of(2, context=5, role=ExecutionRole(side="buy"))
    fixed.reset()
    assert fixed.start_info()["context"].tolist() == [5, 5]
    assert fixed.start_info()["side"].tolist() == [1, 1]
    fixed.reset(options={"context": [None, 6], "side": [-1, None]})
    assert fixed.start_info()["context"].tolist() == [5, 6]
    assert fixed.start_info()["side"].tolist() == [-1, 1]


def test_both_sides_are_drawn():
    session = session_of(64)
    session.reset()
    assert 16 < (session.start_info()["side"] == 1).sum() < 48


def test_a_flow_that_ends_truncates():
    session = quiet(2, last=40)
    session.reset()
    zeros = np.zeros((2, 2), np.float32)
    for _ in range(2):
        result = session.step(zeros)
        assert not (result.truncated | result.terminated).any()
    result = session.step(zeros)
    assert result.truncated.all()
    assert not result.terminated.any()
    assert not session.running.any()
    assert np.isfinite(result.reward).all()
    idle = session.step(zeros)  # rows that ended take no part
    assert not idle.reward.any()
    assert not (idle.truncated | idle.terminated).any()


def test_results_are_fresh_arrays():
    session = session_of(2)
    seen = session.reset()
    first = session.step(np.zeros((2, 2), np.float32))
    kept = [array.copy() for array in first]
    session.step(np.ones((2, 2), np.float32))
    for array, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert not np.shares_memory(seen, first.observation)


def test_fees_reach_the_reward():
    free, dear = quiet(), quiet(taker_fee=250)
    costs = []
    for session in (free, dear):
        session.reset(options={"side": 1, "quantity": 120})
        result = session.step(np.array([[1.0, 1.0]], np.float32))
        costs.append(result.terms[0])
    np.testing.assert_array_equal(costs[1] - costs[0], [0, 0, 120 * 250, 0])


def test_rates_reach_the_reward_and_what_is_left_unfilled():
    terms = []
    for rate in (0, 400):
        session = quiet(role=ExecutionRole(decisions=1), taker_rate=rate)
        session.reset(options={"side": 1, "quantity": 5_000})  # more than there is
        terms.append(session.step(np.array([[1.0, 1.0]], np.float32)).terms[0])
    fills = session.market.tape.read_fills(0)
    notionals = fills["price"].astype(np.int64) * fills["size"]
    assert 0 < fills["size"].sum() < 5_000
    charged = sum(-(-int(notional) * 400 // 1_000) for notional in notionals)
    grown, left = terms[1] - terms[0], 5_000 - fills["size"].sum()
    beyond = 1_003 + 4  # the last price seen and the spread
    assert grown.tolist() == [0, 0, charged, -(-left * beyond * 400 // 1_000)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clock": "wall"}, "clock is 'wall'; it must be one of 'events', 'time', 'volume'"),
        ({"clock": np.array(["events"])}, r"clock is array\(\['events'\]"),
        ({"split": "future"}, "split is 'future'; it must be one of 'train', 'validation', 'test'"),
        ({"split": np.array(["train", "test"])}, "split is array"),
        ({"context": 10_000}, "context is 10000; flow 'zero_intelligence' has ids 0 to 95"),
        ({"context": 1.5}, "context is 1.5; it must be the id of a start context"),
        ({"seats": 0}, "seats is 0; it must be an integer from 1 to 32767"),
        ({"seats": 2**15}, "seats is 32768; it must be an integer from 1 to 32767"),
        ({"maker_fee": 0.5}, "maker_fee is 0.5; it must be an integer from -2147483648 to 2147483648"),
        ({"taker_fee": "x"}, "taker_fee is 'x'; it must be an integer"),
        ({"maker_rate": None}, "maker_rate is None; it must be an integer from -100000 to 100000"),
        ({"taker_rate": 200_000}, "taker_rate is 200000; it must be an integer from -100000 to 100000"),
        ({"flow_options": 3}, "flow_options is 3; it must be a dict or None"),
        ({"flow": "brownian"}, "flow 'brownian' is not known; allowed are"),
    ],
)
def test_wrong_arguments_are_named(options, said):
    arguments = {"flow": "zero_intelligence"} | options
    with pytest.raises(ValueError, match=said):
        TradingSession(1, ExecutionRole(), **arguments)


def test_rows_and_seeds_are_checked():
    session = session_of(2)
    session.reset()
    for rows in ([True, False], np.ones(3, bool), np.ones(2)):
        for call in (session.reset, lambda rows: session.seed(rows, np.zeros(2, np.uint64))):
            with pytest.raises(ValueError, match=r"rows is .*; it must be a boolean array of length 2"):
                call(rows)
        with pytest.raises(ValueError, match="rows is"):
            session.step(np.zeros((2, 2), np.float32), rows)
    for seeds in ([1], [1, -1], [0.5, 1.0], "ab"):
        with pytest.raises(ValueError, match=r"seeds is .*; it must be 2 non-negative integers"):
            session.seed(np.ones(2, bool), seeds)


@pytest.mark.parametrize("num_envs", [0, -1, 2.0, "2", None, True])
def test_wrong_numbers_of_markets_are_named(num_envs):
    with pytest.raises(ValueError, match="num_envs is"):
        TradingSession(num_envs, ExecutionRole(), "zero_intelligence")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 96}, "context is 96"),
        ({"context": [1]}, "context in options has 1 values; it must have one or 2"),
        ({"context": np.array(3)}, r"context is array\(3\); it must be the id of a start context"),
        (3, "options is 3; it must be a dict or None"),
        ([("side", "buy")], "options is .*; it must be a dict or None"),
        ({"side": "up"}, "side is 'up'"),
        ({"side": ["buy"] * 3}, "side in options has 3 values; it must have one or 2"),
        ({"quantity": 0}, "quantity is 0"),
    ],
)
def test_wrong_options_change_nothing(options, said):
    session = session_of(2)
    session.reset()
    before = session.tape_hash(0), session.episodes.copy(), session.role.state.copy()
    with pytest.raises(ValueError, match=said):
        session.reset(options=options)
    assert session.tape_hash(0) == before[0]
    np.testing.assert_array_equal(session.episodes, before[1])
    np.testing.assert_array_equal(session.role.state, before[2])


@pytest.mark.parametrize("copied", [deepcopy, shallow, pickle.dumps])
def test_a_session_is_not_copied_into_one_that_would_not_go_on(copied):
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copied(quiet())
