"""Every reference policy as a scripted opponent of a market of several agents, alone and sixteen at once."""

import re
from pathlib import Path

import numpy as np
import pytest
from tradefm_gym.agents import (
    POV,
    VWAP,
    AlmgrenChriss,
    CrossingTWAP,
    Momentum,
    Noise,
    Random,
    ZeroIntelligence,
    making_policies,
    reference_policies,
)

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession, parallel_env

ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}
OPPONENTS = [
    *(("market_making", policy) for policy in making_policies()),
    *(("trading", policy) for policy in (Momentum(0.0), Noise(), ZeroIntelligence())),
    *(("execution", policy) for policy in (*reference_policies(), AlmgrenChriss(), VWAP(), POV(0.2), Random())),
]
DECISIONS = 16


def entry(role, policy):
    """Of ``roles``: an opponent, with what its policy asks of the role."""
    return {"role": role, "policy": policy, **getattr(policy, "task", {})}


@pytest.mark.parametrize(("role", "policy"), OPPONENTS, ids=lambda value: getattr(value, "name", value))
def test_an_opponent_does_what_its_policy_does_in_a_session(role, policy):
    env = parallel_env(["market_making", entry(role, policy)], flow="hawkes", decisions=DECISIONS)
    env.reset(seed=5)
    while env.agents:
        env.step({"maker_0": np.zeros(4, np.float32)})
    made = ROLES[role](decisions=DECISIONS, **getattr(policy, "task", {}))
    session, decision = TradingSession(1, [MarketMakingRole(decisions=DECISIONS), made], "hawkes"), 0
    session.seed(np.array([True]), np.array([5]))
    seen, start = session.reset_roles()[1], session.start_info(1)
    while session.running.any():
        info = {"seed": session.seeds, "decision": np.array([decision]), **start}
        action = policy.act(seen, info) if session.active[1, 0] else None
        seen, decision = session.step_roles([np.zeros((1, 4), np.float32), action])[1].observation, decision + 1
    assert env.session.tape_hash(0) == session.tape_hash(0)
    assert session.roles[1].state["messages"][0] > 0


def test_fifteen_opponents_and_one_learner():
    opponents = [entry(role, policy) for role, policy in OPPONENTS]
    opponents += [entry("execution", CrossingTWAP()) for _ in range(15 - len(opponents))]
    env = parallel_env(["trading", *opponents], flow="zero_intelligence", decisions=DECISIONS)
    assert env.possible_agents == ["trader_0"]
    env.reset(seed=1)
    while env.agents:
        *_, infos = env.step({"trader_0": np.array([1.0, 0.5], np.float32)})
    accounts = env.session.market.accounts
    assert accounts.shape[1] == 17 and (accounts["volume"][0, :-1] > 0).all()
    assert not accounts["cash"].sum() and not accounts["inventory"].sum()
    assert infos["trader_0"]["traded"] > 0


def test_the_page_about_several_agents_runs_as_written():
    text = (Path(__file__).parents[1] / "docs" / "multi-agent.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 2
    names = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "docs/multi-agent.md", "exec"), names)
