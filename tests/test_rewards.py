"""Rewards put together by name: terms add up, benchmarks are what the tape says, and wrong ones are named."""

from dataclasses import dataclass

import numpy as np
import pytest
from quiet_flow import QuietFlow, quiet_bank
from small_tradefm import everyone

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, MarketMakingEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.seat import HALF_TICK
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.market.events import BUY, LIMIT

FEES = {"maker_fee": -150, "taker_fee": 250, "taker_rate": 7}


def session_of(role, flow="zero_intelligence", num_envs=4, **options):
    session = TradingSession(num_envs, role, flow, **options)
    session.seed(everyone(num_envs), np.arange(num_envs))
    session.reset()
    return session


def played(role, seed=0, **options):
    """The session after a whole episode of random actions, and what each decision brought."""
    session, generator, results = session_of(role, **(FEES | options)), np.random.default_rng(seed), []
    while session.running.any():
        results.append(session.step(generator.uniform(-1, 1, (session.num_envs, *role.action_space.shape))))
    return session, results


def worth(session):
    account, state = session.market.accounts[:, 0], session.role.state
    return account["cash"] + account["inventory"] * state["decision_mid2"] * HALF_TICK - account["fees"]


@pytest.mark.parametrize("make", [ExecutionRole, MarketMakingRole, TradingRole])
def test_every_term_adds_up_to_the_reward_and_leaves_the_market_alone(make):
    plain = played(make(decisions=10))
    every = played(make(decisions=10, reward=list(make.known_terms)))
    assert [plain[0].tape_hash(m) for m in range(4)] == [every[0].tape_hash(m) for m in range(4)]
    names, role = every[0].role.term_names, every[0].role
    assert names == tuple(make.known_terms)
    notional = role.notional(role.state)
    for one, other in zip(plain[1], every[1], strict=True):
        np.testing.assert_array_equal(other.terms[:, [names.index(name) for name in make.term_names]], one.terms)
        np.testing.assert_allclose(other.reward, 1e4 * role.sign * other.terms.sum(axis=1) / notional, rtol=1e-12)
    info = every[0].step_info()
    np.testing.assert_allclose(role.sign * sum(info["terms"].values()), every[1][-1].reward, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("make", "captured"), [(MarketMakingRole, "spread"), (TradingRole, "trading")])
def test_profits_are_the_account_and_its_parts_are_the_profit(make, captured):
    role = make(decisions=12, reward=["profit", "spread_captured", "adverse_selection", "holding", "fees", captured])
    session, generator = session_of(role, **FEES), np.random.default_rng(3)
    before, moved = worth(session), 0
    while session.running.any():
        terms = session.step(generator.uniform(-1, 1, (4, *role.action_space.shape))).terms
        np.testing.assert_array_equal(terms[:, 0], worth(session) - before)
        np.testing.assert_array_equal(terms[:, 1:5].sum(axis=1), terms[:, 0])
        before, moved = worth(session), moved + np.abs(terms[:, 2:4]).sum(axis=0)
    assert (moved > 0).all()


def test_shortfall_is_the_default_in_one_term():
    one, many = played(ExecutionRole(decisions=8, reward=["shortfall"])), played(ExecutionRole(decisions=8))
    for a, b in zip(one[1], many[1], strict=True):
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(a.terms[:, 0], b.terms.sum(axis=1))


def test_slippages_of_an_episode_are_against_the_averages_of_its_tape():
    names = ["twap_slippage", "vwap_slippage", "pov_slippage"]
    role = ExecutionRole(decisions=12, quantity=100, reward=names, participation=0.2)
    session, generator = session_of(role), np.random.default_rng(5)
    market, state = session.market, role.state
    start, mids, told = market.tape.fill_count.copy(), [], np.zeros((4, 3), np.int64)
    followed = [[] for _ in range(4)]  # lots and price of whoever participates, by decision
    read = start.copy()
    while session.running.any():
        active = session.running.copy()
        told += session.step(generator.uniform(-1, 0.2, (4, 2))).terms
        mids.append(np.where(active, state["decision_mid2"] / 2, np.nan))
        for m in np.flatnonzero(active):
            fills = market.tape.read_fills(m, int(read[m]))
            others = fills[(fills["maker"] != 0) & (fills["taker"] != 0)]
            followed[m].append((others["size"].sum(), (others["size"].astype(float) * others["price"]).sum()))
        read[:] = market.tape.fill_count
    for m in range(4):
        side, lots = int(state["side"][m]), int(state["executed"][m])
        paid = -side * int(market.accounts["cash"][m, 0]) / 1000
        volume, notional = np.array(followed[m]).T
        done = np.minimum(np.floor(0.2 * np.cumsum(volume)), 100)
        taken = np.diff(done, prepend=0)
        prices = np.divide(notional, volume, out=np.zeros(len(volume)), where=volume > 0)
        expected = [
            np.nanmean([one[m] for one in mids]),
            notional.sum() / volume.sum(),
            (taken * prices).sum() / done[-1],
        ]
        np.testing.assert_allclose(told[m] / 1000, [side * (paid - lots * price) for price in expected], atol=0.2)


def test_utilities_and_penalties_are_what_their_formulas_say():
    reward = [
        {"term": "inventory_linear", "rate": 7},
        {"term": "inventory_quadratic", "rate": 7},
        {"term": "inventory_cvar", "level": 0.9},
        {"term": "mean_variance", "aversion": 0.5},
        {"term": "cara", "aversion": 0.1},
        {"term": "holding", "weight": -2},
    ]
    role = TradingRole(decisions=6, reward=reward)
    session, generator, wealth = session_of(role), np.random.default_rng(1), []
    total = np.zeros((4, 6), np.int64)
    while session.running.any():
        before = role.state.copy()
        terms = session.step(generator.uniform(-1, 1, (4, 2))).terms
        total += terms
        state, unit = role.state, role.notional(role.state) / 1e4
        held, deviation = np.abs(state["inventory"]), 1000 * np.abs(state["inventory"]) * np.sqrt(state["variance"])
        np.testing.assert_array_equal(terms[:, 0], -7 * held)
        np.testing.assert_allclose(terms[:, 1], -7 * held**2 / state["limit"], atol=0.5)
        np.testing.assert_allclose(terms[:, 2], -1.7549833 * deviation, rtol=1e-6, atol=0.5)
        np.testing.assert_allclose(terms[:, 3] / unit, -0.5 * (deviation / unit) ** 2, atol=1 / unit.min())
        move = (state["decision_mid2"] - before["decision_mid2"]) * HALF_TICK
        np.testing.assert_array_equal(terms[:, 5], -2 * before["inventory"] * move)
    wealth = state["profit"] / unit
    np.testing.assert_allclose(total[:, 4] / unit, (1 - np.exp(-0.1 * wealth)) / 0.1, rtol=1e-6, atol=1e-3)


def test_habits_and_completion():
    reward = [{"term": "completion", "bonus": 3}, {"term": "order_to_trade", "charge": 0.5, "ratio": 1}]
    session, results = played(ExecutionRole(decisions=6, quantity=50, reward=reward))
    state, terms = session.role.state, sum(result.terms for result in results)
    unit = session.role.notional(state) / 1e4
    np.testing.assert_allclose(terms[:, 0] / unit, np.where(state["executed"] == 50, -3, 0), atol=1 / unit.min())
    excess = np.maximum(state["messages"] - 1 - state["trades"], 0)
    np.testing.assert_allclose(terms[:, 1] / unit, 0.5 * excess, atol=1 / unit.min())
    for m in range(4):
        tape = session.market.tape
        assert state["messages"][m] == (tape.read_records(m)["owner"] == 0).sum()
        fills = tape.read_fills(m)
        assert state["trades"][m] == ((fills["maker"] == 0) | (fills["taker"] == 0)).sum()
    flow = QuietFlow(1, quiet_bank([(998, 5)], [(1002, 5)]))  # a book that cannot fill it
    _, results = played(ExecutionRole(decisions=2, quantity=50, reward=reward), flow=flow, num_envs=1, context=0)
    assert sum(result.terms for result in results)[0, 0] == 0


def test_marks_leave_out_own_orders():
    script = {5: (LIMIT, BUY, 990, 1)}
    flow = QuietFlow(1, quiet_bank([(998, 100)], [(1002, 100)]), script)
    session = session_of(
        ExecutionRole(decisions=4, side="buy", quantity=40, reward=["twap_slippage"]), flow, 1, context=0
    )
    session.step(np.array([[0.0, 0.75]]))  # rests at 1001: the best bid is its own
    assert session.role.state["mid2_sum"][0] == 2000


@dataclass(frozen=True)
class Messages:
    """A term of a user's own."""

    name: str = "messages"

    def gain(self, interval):
        return interval.before["messages"] - interval.after["messages"]


def test_a_term_of_ones_own_and_environments():
    env = ExecutionEnv(flow="zero_intelligence", decisions=4, side="sell", reward=["fees", Messages()], taker_fee=5)
    env.reset(seed=1)
    _, reward, *_, info = env.step([0.0, 1.0])
    assert set(info["terms"]) == {"fees", "messages"}
    np.testing.assert_allclose(reward, -sum(info["terms"].values()))
    other = ExecutionEnv(flow="zero_intelligence", decisions=4, side="sell", reward=["fees"])
    with pytest.raises(ValueError, match="it must be one of role ExecutionRole"):
        other.restore(env.snapshot())


@pytest.mark.parametrize(
    ("reward", "error", "said"),
    [
        ("fees", ValueError, "reward is 'fees'; it must be None or a list of terms"),
        ([], ValueError, r"reward is \[\]; it must be None or a list of terms"),
        (["gain"], ValueError, "reward has the term 'gain'; this role knows spread, inventory, fees, .*, profit, "),
        ([3], ValueError, "reward has the term 3; this role knows"),
        ([{"rate": 3}], ValueError, "reward has the term None; this role knows"),
        (["fees", "fees"], ValueError, "reward has the term 'fees' 2 times; it must have each once"),
        (["fees", {"term": "fees", "weight": 2}], ValueError, "reward has the term 'fees' 2 times"),
        ([{"term": "cara", "aversoin": 3}], TypeError, "term 'cara' of reward has no argument 'aversoin'; allowed"),
        ([{"term": "fees", "rate": 3}], TypeError, "term 'fees' of reward has no argument 'rate'"),
        ([{"term": "cara", "aversion": 0}], ValueError, "aversion of term 'cara' is 0; it must be a number from"),
        ([{"term": "inventory_cvar", "level": np.nan}], ValueError, "level of term 'inventory_cvar' is nan; it must"),
        ([{"term": "fees", "weight": "2"}], ValueError, "weight of term 'fees' is '2'; it must be a number"),
        (["twap_slippage"], ValueError, "reward has the term 'twap_slippage'; this role knows"),
    ],
)  # fmt: skip
def test_wrong_rewards_are_named(reward, error, said):
    with pytest.raises(error, match=said):
        MarketMakingEnv(flow="zero_intelligence", reward=reward)


class Told:
    """A term that says what it is told to."""

    name = "told"

    def __init__(self, values):
        self.values = values

    def gain(self, interval):
        return self.values


@pytest.mark.parametrize("values", [np.array([0.5]), np.array([np.nan]), np.zeros(7, np.int64), 3])
def test_what_a_term_says_is_looked_at(values):
    session = TradingSession(1, ExecutionRole(reward=[Told(values)]), "zero_intelligence")
    session.reset()
    with pytest.raises(ValueError, match=r"gain of term 'told' is an array of shape .* it must be 1 integers"):
        session.step(np.zeros((1, 2), np.float32))


def test_a_term_without_a_name_is_refused():
    class Nameless:
        def gain(self, interval):
            return np.zeros(1, np.int64)

    with pytest.raises(ValueError, match=r"reward has the term .*, which has no name"):
        ExecutionRole(reward=[Nameless()])


def test_snapshots_pass_between_sessions_with_terms_of_ones_own():
    one, two = (TradingSession(1, ExecutionRole(reward=[Told(np.array([4]))]), "zero_intelligence") for _ in range(2))
    for session in (one, two):
        session.reset()
    one.step(np.zeros((1, 2), np.float32))
    two.restore(one.snapshot())
    other = TradingSession(1, ExecutionRole(reward=[Told(np.array([5]))], decisions=9), "zero_intelligence")
    other.reset()
    with pytest.raises(ValueError, match="state is one of role ExecutionRole") as refusal:
        other.restore(one.snapshot())
    assert len(str(refusal.value)) < 600 and "decisions=64" in str(refusal.value)
