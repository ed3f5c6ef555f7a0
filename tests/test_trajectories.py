"""Whole episodes of every id and of a market of several agents in every CPU flow: the same for any N and threads.

What each row sees, is paid and leaves on its tape becomes a hash. ``golden.json`` has those of rewards and tapes; a
change of one is explained in its commit. Observations are compared on this machine only.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from small_day import cpu_flow

from tradefm_gym import ExecutionRole, MarketMakingRole, TradingRole, TradingSession

SEVERAL = "several"
NAMES = (*(name for name in gym.registry if name.startswith("TradeFM/")), SEVERAL)
FLOWS = ("zero_intelligence", "hawkes", "replay")
CASES = [(name, flow) for name in NAMES for flow in FLOWS]
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SEED, ROWS = 2024, 3  # rows that everybody has
MANY = 80  # markets: so many are shared among threads, a few are not
DECISIONS, STEPS = 12, 30  # two whole episodes and the beginning of a third


class Told:
    """Hashes of what rows 0 to ``ROWS`` - 1 are told."""

    def __init__(self):
        self.paid, self.seen = ([hashlib.sha256() for _ in range(ROWS)] for _ in range(2))

    def see(self, observation):
        for row, total in enumerate(self.seen):
            total.update(np.ascontiguousarray(observation[row]).tobytes())

    def pay(self, reward, terminated, truncated):
        for row, total in enumerate(self.paid):
            total.update(np.float64(reward[row]).tobytes() + bytes([int(terminated[row]), int(truncated[row])]))

    def digest(self, session):
        tapes = [session.tape_hash(row) for row in range(ROWS)]
        return [[paid.hexdigest()[:16], tape[:16]] for paid, tape in zip(self.paid, tapes, strict=True)], [
            seen.hexdigest()[:16] for seen in self.seen
        ]


def actions_of(shapes, num_envs):
    """Random actions of each role for each step: those of a row do not depend on how many there are."""
    for step in range(STEPS):
        drawn = [np.random.default_rng([step, row]) for row in range(num_envs)]
        yield [np.float32([one.uniform(-1, 1, shape) for one in drawn]) for shape in shapes]


def one_agent(name, flow, num_envs):
    """A vector environment of an id, through its own resets."""
    env, told = gym.make_vec(name, num_envs, flow=cpu_flow(flow), decisions=DECISIONS), Told()
    told.see(env.reset(seed=SEED)[0])
    for (actions,) in actions_of([env.single_action_space.shape], num_envs):
        observation, reward, terminated, truncated, _ = env.step(actions)
        told.see(observation), told.pay(reward, terminated, truncated)
    return told.digest(env.unwrapped.session)


def several_agents(flow, num_envs):
    """A market of four, whose rows begin anew when all have finished."""
    roles = [MarketMakingRole(decisions=DECISIONS), ExecutionRole(decisions=DECISIONS)]
    roles += [TradingRole(decisions=DECISIONS - 5), MarketMakingRole(decisions=DECISIONS)]
    session, told = TradingSession(num_envs, roles, cpu_flow(flow)), Told()
    session.seed(np.ones(num_envs, bool), np.arange(SEED, SEED + num_envs))
    for observation in session.reset_roles():
        told.see(observation)
    for actions in actions_of([role.action_space.shape for role in roles], num_envs):
        for result in session.step_roles(actions):
            told.see(result.observation), told.pay(result.reward, result.terminated, result.truncated)
        if not session.running.all():
            session.reset_roles(~session.running)
    return told.digest(session)


def trajectories(name, flow, num_envs):
    return several_agents(flow, num_envs) if name == SEVERAL else one_agent(name, flow, num_envs)


def all_trajectories(num_envs):
    return {f"{name} {flow}": trajectories(name, flow, num_envs) for name, flow in CASES}


@pytest.fixture(scope="module", name="found")
def _found():
    return json.loads(json.dumps(all_trajectories(ROWS)))


@pytest.mark.parametrize(("name", "flow"), CASES)
def test_rewards_and_tapes_are_those_of_the_golden_file(found, name, flow):
    assert found[f"{name} {flow}"][0] == GOLDEN["trajectories"][f"{name} {flow}"]


def test_all_trajectories_differ(found):
    parts = [part for paid, seen in found.values() for part in [*(word for row in paid for word in row), *seen]]
    assert len(set(parts)) == len(parts) == len(CASES) * ROWS * 3


@pytest.mark.parametrize("threads", [1, 2])
def test_many_markets_in_a_new_process_with_other_threads(found, threads):
    code = f"import json, test_trajectories as t; print(json.dumps(t.all_trajectories({MANY})))"
    environment = os.environ | {"NUMBA_NUM_THREADS": str(threads), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == found
