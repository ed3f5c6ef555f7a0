"""Every account reconciles at every step, whatever clock, latencies, schedule, limit, fees and terms are chosen."""

import numpy as np
import pytest
from small_tradefm import everyone

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.seat import HALF_TICK
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole

N = 24
MARKETS = (
    {},
    {"order_latency_ns": 100_000_000},
    {"data_latency_ns": {"median_ns": 50_000_000, "sigma": 1.0}},
    {"clock": "time", "order_latency_ns": 1_000_000, "data_latency_ns": 1_000_000},
    {"clock": "volume"},
)


def company(generator):
    """Four roles whose settings are drawn."""

    def made(make, **task):
        reward = list(make.known_terms) if generator.integers(2) else None
        return make(decisions=int(generator.integers(2, 9)), reward=reward, **task)

    return [
        made(
            ExecutionRole,
            quantity=int(generator.integers(1, 400)),
            schedule=str(generator.choice(["twap", "vwap", "pov"])),
            limit_bps=float(generator.uniform(-5, 20)) if generator.integers(2) else None,
        ),
        made(MarketMakingRole, inventory_penalty=int(generator.integers(300)), size=int(generator.integers(1, 30))),
        made(TradingRole),
        made(MarketMakingRole),
    ]


def worth(session, seat):
    account, state = session.market.accounts[:, seat], session.roles[seat].state
    return account["cash"] + account["inventory"] * state["decision_mid2"] * HALF_TICK - account["fees"]


@pytest.mark.parametrize("flow", ["zero_intelligence", "hawkes"])
@pytest.mark.parametrize("market", MARKETS, ids=lambda market: "+".join(market) or "plain")
def test_every_account_reconciles(market, flow):
    generator = np.random.default_rng([MARKETS.index(market), len(flow)])
    fees = {"maker_fee": int(generator.integers(-300, 300)), "taker_fee": 200, "taker_rate": 20}
    session = TradingSession(N, company(generator), flow, **fees, **market)
    session.seed(everyone(N), generator.integers(0, 2**60, N).astype(np.uint64))
    session.reset_roles()
    before = [worth(session, seat) for seat in range(4)]
    while session.running.any():
        active = session.active.copy()
        actions = [generator.uniform(-1, 1, (N, *role.action_space.shape)) for role in session.roles]
        results = session.step_roles(actions)
        assert not session.market.accounts["cash"].sum(axis=1).any()
        for seat, (role, result) in enumerate(zip(session.roles, results, strict=True)):
            check(session, seat, role, result, np.where(active[seat], worth(session, seat) - before[seat], 0))
            before[seat] = np.where(active[seat], worth(session, seat), before[seat])
    flat = session.market.accounts["inventory"][:, 1:4] == 0
    assert flat.mean() > 0.8  # now and then others have emptied the book


def check(session, seat, role, result, gained):
    """One decision of a seat, of which its account has ``gained`` so much (N,)."""
    account, state, names = session.market.accounts[:, seat], role.state, role.term_names
    ledger = result.terms[:, [names.index(name) for name in type(role).term_names]]
    notional = role.notional(state)
    np.testing.assert_allclose(
        result.reward, 1e4 * role.sign * result.terms.sum(axis=1) / notional, rtol=1e-9, atol=1e-12
    )
    assert ((role.low <= result.observation) & (result.observation <= role.high)).all()
    if seat == 0:
        np.testing.assert_array_equal(state["side"] * account["inventory"], state["executed"])
        assert (state["executed"] <= state["quantity"]).all()
        return
    np.testing.assert_array_equal(ledger[:, :4].sum(axis=1), gained)
    assert (np.abs(account["inventory"]) <= state["limit"]).all()
    if "profit" in names:
        np.testing.assert_array_equal(result.terms[:, names.index("profit")], gained)
