"""Settings whose answers are known: optimal schedules and quotes, sums that are zero, and no profit from nothing."""

import copy
import math

import numba
import numpy as np
import pytest
from linear_flow import LinearFlow
from poisson_flow import FAR, MID, PoissonFlow
from tradefm_gym.agents import GLFT, AlmgrenChriss, AvellanedaStoikov, Momentum, ZeroIntelligence, making_policies

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession
from tradefm_gym.market.accounts import equity
from tradefm_gym.market.config import MarketConfig
from tradefm_gym.market.events import LIMIT, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

DECISIONS = 16
LOTS = np.arange(-12, 13)  # inventories of the markets with Poisson flow


@pytest.fixture(name="one_thread")
def _one_thread():
    """So short are the loops over a few hundred markets that threads would mostly wait for each other."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


def linear_market(schedules, temporary, permanent):
    """Cost of selling one order by schedules (M, n) of parts: a price that impact alone moves, trade by trade."""
    price, cost = np.zeros(len(schedules)), np.zeros(len(schedules))
    for part in schedules.T:
        cost += part * (temporary * part - price)
        price -= permanent * part
    return cost


@pytest.mark.parametrize(("risk_aversion", "permanent"), [(0.0, 0.0), (0.02, 0.0), (0.1, 4.0), (1.0, 12.0)])
def test_almgren_and_chriss_rank_first_among_a_thousand_schedules_under_linear_impact(risk_aversion, permanent):
    policy, generator = AlmgrenChriss(risk_aversion, 3.0, 10.0, permanent), np.random.default_rng(0)
    ours = -np.diff(policy.remaining(np.arange(DECISIONS + 1), np.full(DECISIONS + 1, DECISIONS)))
    assert ours.sum() == pytest.approx(1.0)
    far = generator.dirichlet(np.ones(DECISIONS), 500)
    near = np.abs(ours * (1.0 + generator.normal(0.0, 0.05, (499, DECISIONS))))
    schedules = np.concatenate([ours[None], far, near / near.sum(axis=1, keepdims=True)])
    left = 1.0 - np.cumsum(schedules, axis=1)
    score = linear_market(schedules, 10.0, permanent) + risk_aversion * 9.0 * (left**2).sum(axis=1)
    assert len(score) == 1000
    assert score.argmin() == 0


def executed_in_the_exchange(permanent, first, schedules, quantity):
    """What is left after each decision (M, n) of an order that the exchange carries out, and its shortfall in bps.

    Row 0 is played by the policy ``first``, the others by schedules (M - 1, n) of parts; each interval's lots cross at
    its end.
    """
    n = len(schedules) + 1
    role = ExecutionRole(side="buy", quantity=quantity, decisions=DECISIONS, interval=quantity)
    session = TradingSession(n, role, LinearFlow(n, permanent, quantity))
    session.seed(np.ones(n, bool), np.arange(n))
    observation, start, left = session.reset(), session.start_info(), []
    for j in range(DECISIONS):
        info = {name: column[:1] for name, column in start.items()} | {"decision": np.array([j])}
        factor = np.maximum(schedules[:, j] * DECISIONS, 1e-12)  # of a slice of TWAP's
        deviation = np.where(factor < 1.0, factor - 1.0, np.log(np.maximum(factor, 1.0)) / np.log(DECISIONS))
        others = np.stack([deviation, np.zeros(n - 1)], axis=1).astype(np.float32)
        observation = session.step(np.concatenate([first.act(observation[:1], info), others])).observation
        left.append(quantity - session.role.state["executed"])
    assert not session.running.any()
    return np.array(left).T, session.final_info()["shortfall_bps"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("risk", "permanent"), [(0.0, 0.0), (4.0, 0.0), (2.0, 0.25)])
def test_almgren_and_chriss_rank_first_among_a_thousand_in_an_exchange_with_linear_impact(risk, permanent):
    quantity, generator = 320, np.random.default_rng(0)
    # One tick is a basis point of the arrival mid; x lots at once cost half a tick for each pair of them.
    policy = AlmgrenChriss(risk, 1.0, 0.5 * quantity, permanent * quantity)
    ours = -np.diff(policy.remaining(np.arange(DECISIONS + 1), np.full(DECISIONS + 1, DECISIONS)))
    far = generator.dirichlet(np.ones(DECISIONS), 500)
    # Among schedules that are much nearer than this it is decided by rounding to whole lots and ticks.
    near = np.abs(ours * (1.0 + generator.normal(0.0, 0.2, (499, DECISIONS))))
    schedules = np.concatenate([far, near / near.sum(axis=1, keepdims=True)])
    halves = np.array_split(schedules, 4)
    played = [executed_in_the_exchange(permanent, policy, part, quantity) for part in halves]
    left, cost = (np.concatenate(column) for column in zip(*played, strict=True))
    lots = -np.diff(left, axis=1, prepend=quantity)
    before = np.cumsum(lots, axis=1) - lots
    ticks = (lots * (lots - 1) / 2 + lots * np.floor(permanent * before)).sum(axis=1) + quantity
    np.testing.assert_allclose(cost, ticks / quantity, rtol=1e-12)  # impact is linear, to the last lot
    score = cost + risk * ((left / quantity) ** 2).sum(axis=1)
    first = np.isin(np.arange(len(score)), np.cumsum([0, *(len(part) + 1 for part in halves[:-1])]))
    assert len(np.unique(score[first])) == 1 and (~first).sum() == 999
    assert score[first][0] < score[~first].min()


def poisson_generator(bids, asks, g, k, intensity, deviation):
    """Growth of the expected CARA utility per unit of time under quotes at these distances, (Q, Q).

    Of u = -exp(-g (cash + q S)) v(q): the mid diffuses, and quotes meet Poisson flow of intensity A exp(-k d). None
    buys at the largest inventory, none sells at the smallest.
    """
    buys, sells = intensity * np.exp(-k * bids), intensity * np.exp(-k * asks)
    buys[-1], sells[0] = 0.0, 0.0
    matrix = np.diag(0.5 * (g * deviation * LOTS) ** 2 - buys - sells)
    matrix += np.diag((buys * np.exp(-g * bids))[:-1], 1) + np.diag((sells * np.exp(-g * asks))[1:], -1)
    return matrix


def earned(half, lean, g, k, intensity, deviation):
    """Certainty equivalent per unit of time, far from the end, of quotes half + lean q and half - lean q away."""
    matrix = poisson_generator(half + lean * LOTS, half - lean * LOTS, g, k, intensity, deviation)
    return -np.linalg.eigvals(matrix).real.max() / g


def best_possible(g, k, intensity, deviation):
    """The same for the optimal quotes, whose equation is linear in v^(-k / g) (Gueant and others, proposition 1)."""
    matrix = np.diag(0.5 * k * g * (deviation * LOTS) ** 2)
    pay = intensity * (1.0 + g / k) ** -(1.0 + k / g)
    matrix -= pay * (np.eye(len(LOTS), k=1) + np.eye(len(LOTS), k=-1))
    return -np.linalg.eigvalsh(matrix).min() / k


@pytest.mark.parametrize(("g", "k", "intensity", "deviation"), [(0.1, 1.5, 5.0, 0.5), (0.05, 2.0, 0.8, 0.3)])
def test_glft_is_near_the_optimum_on_a_grid_under_poisson_flow(g, k, intensity, deviation):
    market = (g, k, intensity, deviation)
    half, lean = (float(value) for value in GLFT(g, k, intensity).quotes(np.array(deviation)))
    optimum, ours = best_possible(*market), earned(half, lean, *market)
    grid = [earned(h, s, *market) for h in np.linspace(0.3, 3.0, 28) * half for s in np.linspace(-1.0, 4.0, 26) * lean]
    assert max(grid) <= optimum * (1.0 + 1e-9)
    assert ours > 0.98 * max(grid)
    assert ours > 0.98 * optimum
    assert np.mean(np.array(grid) < ours) > 0.97
    assert earned(half, 0.0, *market) < ours
    assert earned(half, -lean, *market) < 0.5 * ours


def test_avellaneda_and_stoikov_are_near_the_optimum_of_a_session_on_a_grid_under_poisson_flow():
    g, k, intensity, deviation, steps = 0.1, 1.5, 140.0, 2.0, 2000  # the example of their paper, one unit of time

    def worth(quotes):
        value = np.ones(len(LOTS))
        for step in range(steps):  # backwards from the end
            half, lean = quotes((step + 0.5) / steps)
            bids, asks = np.maximum(half + lean * LOTS, 0.0), np.maximum(half - lean * LOTS, 0.0)  # none beyond the mid
            value = value + poisson_generator(bids, asks, g, k, intensity, deviation) @ value / steps
        return -math.log(value[len(LOTS) // 2]) / g

    policy, half = AvellanedaStoikov(g, k), math.log1p(g / k) / g
    ours = worth(lambda left: policy.quotes(deviation**2, left, 1))
    grid = [worth(lambda left, h=h, s=s: (h * half, s)) for h in (0.7, 1.0, 1.4, 2.0) for s in (0.0, 0.1, 0.2, 0.4)]
    assert ours > 0.95 * max(grid)
    assert ours > worth(lambda left: (policy.quotes(deviation**2, left, 1)[0], 0.0))  # the same spread about the mid


class Bent:
    """A maker's policy with other distances from the mid and another lean against the inventory."""

    def __init__(self, policy, half, lean):
        self.policy, self.factors = copy.copy(policy), (half, lean)
        self.policy.quotes = lambda *args: tuple(f * q for f, q in zip(self.factors, policy.quotes(*args), strict=True))

    def act(self, observation, info):
        return self.policy.act(observation, info)


def worth_in_the_exchange(policy, risk_aversion, inventory_limit, num_envs=512, decisions=48):
    """Certainty equivalent of an episode without its liquidation, in usual spreads x lots; quotes are one lot."""
    flow = PoissonFlow(num_envs, decisions, chance=0.15, reach=12, move=8)
    role = MarketMakingRole(size=1, inventory_limit=inventory_limit, decisions=decisions, interval=flow.block)
    session = TradingSession(num_envs, role, flow)
    session.seed(np.ones(num_envs, bool), np.arange(num_envs))
    observation, start, gained = session.reset(), session.start_info(), np.zeros(num_envs)
    while session.running.any():
        observation = session.step(policy.act(observation, start)).observation
        terms = session.step_info()["terms"]
        gained += terms["spread"] + terms["inventory"]
    gained *= inventory_limit * MID / 1e4 / (2 * FAR)
    return -np.log(np.exp(-risk_aversion * gained).mean()) / risk_aversion


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("policy", "inventory_limit"),
    # Distances count in usual spreads of 120 ticks. Avellaneda and Stoikov count inventory in limits: here one quote.
    [(AvellanedaStoikov(1.0, 10.0, size=1.0), 1), (GLFT(1.0, 10.0, 0.6, size=1.0), 10)],
    ids=lambda value: getattr(value, "name", value),
)
def test_makers_are_near_the_best_on_a_grid_in_an_exchange_with_poisson_flow(policy, inventory_limit):
    grid = {
        (half, lean): worth_in_the_exchange(Bent(policy, half, lean), 1.0, inventory_limit)
        for half in (0.6, 1.0, 1.6)
        for lean in (0.0, 0.5, 1.0, 2.0)
    }
    ours = grid.pop((1.0, 1.0))
    assert ours == worth_in_the_exchange(policy, 1.0, inventory_limit)
    assert ours > 0.97 * max(grid.values())
    assert sum(worth < ours for worth in grid.values()) >= len(grid) - 1
    assert grid[1.0, 0.0] < 0.9 * ours  # the same spread about the mid, whatever is held


def test_without_risk_aversion_makers_quote_where_a_fill_times_its_distance_is_most():
    distances = np.linspace(0.05, 3.0, 1000)
    best = distances[(distances * np.exp(-2.0 * distances)).argmax()]
    half, lean = GLFT(1e-6, 2.0, 0.5).quotes(np.array(0.5))
    assert float(half) == pytest.approx(best, abs=0.01)
    assert float(lean) < 0.01
    assert float(AvellanedaStoikov(1e-6, 2.0).quotes(0.25, 1.0, 64)[0]) == pytest.approx(best, abs=0.01)


def many(session, policies):
    """Plays one episode of everybody in every market; yields after each decision."""
    seen, decision = session.reset_roles(), 0
    starts = [session.start_info(seat) for seat in range(len(policies))]
    while session.running.any():
        base = {"seed": session.seeds, "decision": np.full(session.num_envs, decision)}
        pairs = zip(policies, seen, starts, strict=True)
        seen = [r.observation for r in session.step_roles([p.act(one, base | start) for p, one, start in pairs])]
        decision += 1
        yield decision


def everybody(num_envs, flow, **options):
    policies = [*making_policies(), Momentum(), ZeroIntelligence(), AlmgrenChriss(aggressiveness=1.0)]
    roles = [*(MarketMakingRole(decisions=12) for _ in making_policies()), TradingRole(decisions=12)]
    roles += [TradingRole(decisions=12), ExecutionRole(decisions=12, quantity=200)]
    session = TradingSession(num_envs, roles, flow, **options)
    session.seed(np.ones(num_envs, bool), np.arange(num_envs))
    return session, policies


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes"])
def test_a_closed_market_is_a_game_of_sum_zero(flow):
    session, policies = everybody(8, flow)
    accounts = session.market.accounts
    for _ in many(session, policies):
        mid2 = session.roles[0].state["decision_mid2"]
        assert equity(accounts, np.repeat(mid2[:, None], accounts.shape[1], axis=1)).sum(axis=1).tolist() == [0] * 8
    assert (accounts["volume"][:, :-1].sum(axis=1) > 0).all()
    assert (equity(accounts, np.repeat(mid2[:, None], accounts.shape[1], axis=1)) != 0).any()


def test_what_fees_take_is_all_that_a_closed_market_loses():
    session, policies = everybody(8, "zero_intelligence", maker_fee=7, taker_fee=150)
    accounts = session.market.accounts
    for _ in many(session, policies):
        mid2 = session.roles[0].state["decision_mid2"]
        worth = equity(accounts, np.repeat(mid2[:, None], accounts.shape[1], axis=1)).sum(axis=1)
        np.testing.assert_array_equal(worth, -accounts["fees"].sum(axis=1))
    assert (accounts["fees"].sum(axis=1) > 0).all()


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes"])
def test_a_random_trader_makes_no_profit_after_costs(flow):
    session = TradingSession(64, TradingRole(decisions=24), flow, maker_fee=100, taker_fee=300)
    session.seed(np.ones(64, bool), np.arange(64))
    for _ in many(session, [ZeroIntelligence()]):
        pass
    profit = session.final_info()["profit_bps"]
    assert (session.final_info()["traded"] > 0).all()
    assert profit.mean() + 3.0 * profit.std(ddof=1) / 8.0 < 0.0


INSIDER, CROWD, MAKER = range(3)  # seats


def auction(market, order, crowd, price):
    """Clears an auction in each market: two orders (N,) lots meet each other at a price (N,), a maker takes the rest.

    Returns:
        What the accounts say of each seat: lots (N, 3) and money (N, 3), tick-lots.
    """
    market.reset()
    block = EventBlock.empty(len(order), 3)
    events, lots = block.events, np.stack([order, crowd, -(order + crowd)], axis=1)
    sent = np.argsort(lots == 0, axis=1, kind="stable")  # who has nothing to trade sends no order
    sizes = np.take_along_axis(np.abs(lots), sent, axis=1)
    events["owner"], events["size"], events["price"] = sent, sizes, price[:, None]
    events["side"], events["kind"], events["time_ns"] = np.sign(np.take_along_axis(lots, sent, axis=1)), LIMIT, 1
    block.count[:] = (lots != 0).sum(axis=1)
    market.execute(block, strict=True)
    accounts = market.accounts
    assert not accounts["inventory"][:, -1].any() and not accounts["cash"].sum(axis=1).any()
    return accounts["inventory"][:, :3], accounts["cash"][:, :3] / 1000


@pytest.mark.parametrize(("deviation", "noise"), [(1000, 1000), (2000, 500), (300, 3000)])
def test_best_responses_in_the_exchange_end_in_the_equilibrium_of_kyle(deviation, noise):
    """One period, Kyle (1985): slope sqrt(variance / noise variance) / 2, and half of the secret is told.

    Both sides answer what the exchange has booked in many auctions: the insider by the slope of the prices that were
    paid for the order flow, the maker by the regression of the value on the lots that it had to take.
    """
    generator, n, zero = np.random.default_rng(1), 16_384, 1_000_000
    value = np.rint(deviation * generator.standard_normal(n)).astype(np.int64)  # ticks above ``zero``
    crowd = np.rint(noise * generator.standard_normal(n)).astype(np.int64)
    market = MarketSimulator(n, MarketConfig(seats=3, levels=64, orders=4, flow_ids=1, agent_ids=1, tape=4, fills=4))
    quoted, met = 2.0 * deviation / noise, 2.0 * deviation / noise  # of the maker, and as the insider believes it
    for _ in range(20):
        order = np.rint(value / (2.0 * met)).astype(np.int64)  # what (value - met order) order is most at
        price = zero + np.rint(quoted * (order + crowd)).astype(np.int64)
        lots, cash = auction(market, order, crowd, price)
        flow = -lots[:, MAKER]
        assert (lots[:, INSIDER] == order).all() and (lots[:, CROWD] == crowd).all()
        traded = flow != 0
        paid = cash[traded, MAKER] / flow[traded] - zero
        met = float(paid @ flow[traded] / (flow @ flow))
        quoted = float(flow @ value / (flow @ flow))
    assert quoted == pytest.approx(0.5 * deviation / noise, rel=0.03)
    assert np.var(value - quoted * flow) == pytest.approx(0.5 * deviation**2, rel=0.04)
    gains = (cash + lots * (zero + value)[:, None]).mean(axis=0) / (0.5 * deviation * noise)
    assert gains.sum() == pytest.approx(0.0, abs=1e-9)
    assert gains[INSIDER] == pytest.approx(1.0, rel=0.05)  # all of it at the crowd's expense
    assert gains[CROWD] == pytest.approx(-1.0, rel=0.05)
    assert abs(gains[MAKER]) < 0.03
    for factor in (0.5, 0.8, 1.25, 2.0):  # no other order is worth more to the insider
        other = np.rint(factor * order).astype(np.int64)
        price = zero + np.rint(quoted * (other + crowd)).astype(np.int64)
        lots, cash = auction(market, other, crowd, price)
        worse = (cash[:, INSIDER] + lots[:, INSIDER] * (zero + value)).mean() / (0.5 * deviation * noise)
        assert worse < gains[INSIDER]
