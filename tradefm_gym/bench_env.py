"""How fast the environments are, beside what was aimed at: steps, resets, the loop around a flow, and many agents.

The suite "env"; what learns in the environments is in ``bench_learners``. Steps are those of the execution task, by
agents that keep to the schedule at random prices, so that episodes have all of their 64 decisions; a run of them is
whole episodes, the reset of each within the time. Where actions are random in both numbers, episodes end after eleven
decisions, and resets are most of the work: "execution-n256-random" tells what that costs.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from functools import lru_cache, partial

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from tradefm_gym.bench import Benchmark, Work, median_rate
from tradefm_gym.bench_learners import MANY, learner_benchmarks, whole_episodes
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.market.simulator import MarketSimulator

ZERO_INTELLIGENCE = "zero_intelligence"
EVENTS = 16  # of the background between two decisions, by default
FEW = 64  # markets
AGENTS = 16  # in one market
ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}
_ID = "TradeFM/Execution-v0"
_ASYNC = "import sys; from tradefm_gym.bench_env import async_rate; print(async_rate(*map(int, sys.argv[1:])))"


def env_benchmarks() -> list[Benchmark]:
    """All figures of the suite, with their targets."""
    steps, events, time_us = "steps/s", "events/s", "us"
    native = partial(Benchmark, prepare=partial(native_steps, MANY, EVENTS, 1), threads=2)
    alone = partial(Benchmark, threads=1, clock=time.process_time)
    resets = [
        alone(f"reset-{flow}", time_us, prepare=partial(resetting, flow), target=200.0, per_second=1e6)
        for flow in (ZERO_INTELLIGENCE, "hawkes", "replay")
    ]
    agents = [
        alone(
            f"agents-{AGENTS}-{role}",
            time_us,
            prepare=partial(agents_orders, role, AGENTS),
            beside=partial(agents_orders, role, 1),
            target=1.5,
            is_share=True,
            per_second=1e6,
        )
        for role in ROLES
    ]
    return [
        alone("execution-make-n1", steps, prepare=made_steps, target=20_000),
        native(f"execution-n{MANY}", steps, target=500_000),
        native(f"execution-n{MANY}-events", events, prepare=partial(native_steps, MANY, EVENTS, EVENTS), target=8e6),
        native(f"execution-n{MANY}-random", steps, prepare=partial(random_steps, MANY)),
        Benchmark(f"execution-100-events-n{FEW}", steps, 2, partial(native_steps, FEW, 100, 1), 100_000),
        native(
            f"execution-n{MANY}-over-sync",
            steps,
            beside=partial(sync_steps, MANY),
            target=20.0,
            is_share=True,
            repeats=5,
        ),
        native(f"execution-n{MANY}-over-async", steps, reference=partial(async_steps_rate, MANY)),
        alone("hawkes-market", events, prepare=partial(flow_events, "hawkes", FEW), target=1e6),
        Benchmark(
            f"tradefm-n{FEW}-over-engine",
            events,
            2,
            partial(model_events, FEW),
            0.8,
            is_share=True,
            beside=partial(engine_events, FEW),
            repeats=5,
        ),
        *resets,
        *agents,
        *learner_benchmarks(),
    ]


# --- Steps -----------------------------------------------------------------------------------------------


def made_steps(quick: bool) -> Work:
    """``step`` of the environment that ``gymnasium.make`` gives, with all of its wrappers."""
    environment = gymnasium.make(_ID, flow=ZERO_INTELLIGENCE)
    actions, steps = whole_episodes(1), 512 if quick else 4096
    environment.reset(seed=0)

    def run() -> int:
        for step in range(steps):
            *_, terminated, truncated, _ = environment.step(actions[step % len(actions), 0])
            if terminated or truncated:
                environment.reset()
        return steps

    return Work(run)


def native_steps(num_envs: int, interval: int, unit: int, quick: bool) -> Work:
    """``step`` of the native vector environment, each row's step being ``unit`` units."""
    environment = ExecutionVectorEnv(
        num_envs, autoreset_mode=AutoresetMode.SAME_STEP, flow=ZERO_INTELLIGENCE, interval=interval
    )
    return _vector_steps(environment, whole_episodes(num_envs), 1 if quick else 4, unit)


def random_steps(num_envs: int, quick: bool) -> Work:
    """The same with actions that are random in both numbers."""
    environment = ExecutionVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, flow=ZERO_INTELLIGENCE)
    actions = np.random.default_rng(0).uniform(-1, 1, (64, num_envs, 2)).astype(np.float32)
    return _vector_steps(environment, actions, 1 if quick else 4)


def sync_steps(num_envs: int, quick: bool) -> Work:
    """As many single environments in turn, as Gymnasium does it."""
    one = partial(ExecutionEnv, flow=ZERO_INTELLIGENCE)
    environment = SyncVectorEnv([one] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
    return _vector_steps(environment, whole_episodes(num_envs), 1)


def _vector_steps(environment: VectorEnv, actions: np.ndarray, rounds: int, unit: int = 1) -> Work:
    """So many rounds of the actions (64, N, 2), each step of a row being ``unit`` units."""
    environment.reset(seed=0)

    def run() -> int:
        for _ in range(rounds):
            for action in actions:
                environment.step(action)
        return rounds * actions.shape[0] * actions.shape[1] * unit

    return Work(run)


@lru_cache
def async_steps_rate(num_envs: int, quick: bool) -> float:
    """Steps a second of as many single environments in a process each.

    They are forked from a process of their own, which has compiled everything and runs no threads: one whose threads
    are those of OpenMP, as Numba's are where there is no TBB, cannot be forked.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError("this system cannot fork processes; AsyncVectorEnv would compile in each of them")
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _ASYNC, str(num_envs), "1" if quick else "5"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"AsyncVectorEnv failed: {(result.stderr.strip().splitlines() or ['without a word'])[-1]}")
    return float(result.stdout.split()[-1])


def async_rate(num_envs: int, repeats: int) -> float:
    """Steps a second of Gymnasium's ``AsyncVectorEnv``."""
    sync_steps(1, True).run()  # compiles, before there are processes
    one = partial(ExecutionEnv, flow=ZERO_INTELLIGENCE)
    environment = AsyncVectorEnv([one] * num_envs, context="fork", autoreset_mode=AutoresetMode.SAME_STEP)
    try:
        return median_rate(_vector_steps(environment, whole_episodes(num_envs), 1), repeats)
    finally:
        environment.close()


# --- Flows and resets ------------------------------------------------------------------------------------


def flow_events(name: str, num_markets: int, quick: bool) -> Work:
    """Events that a flow generates and the market matches, without agents or an environment."""
    flow = make_flow(name, num_markets)
    market, rows = MarketSimulator(num_markets, flow.market_config()), np.arange(num_markets)
    everyone, seeds = np.ones(num_markets, np.bool_), rows.astype(np.uint64)
    events = 1024 if quick else 8192

    def rewind() -> None:
        flow.reset(market, everyone, rows % len(flow.bank), seeds, np.zeros(num_markets, np.uint32))

    def run() -> int:
        until = market.background_count + events
        while (starved := market.advance(until_count=until)).any():
            market.feed(flow.next_events(market, starved))
        return events * num_markets

    return Work(run, rewind)


def model_events(num_envs: int, quick: bool) -> Work:
    """Events of the bundled model in the environment, all agents taking the zero action; resets are not timed."""
    environment = ExecutionVectorEnv(num_envs, flow="tradefm")
    actions, steps = np.zeros((num_envs, 2), np.float32), 24 if quick else 60  # an episode has 64

    def rewind() -> None:
        environment.reset(seed=0)

    def run() -> int:
        for _ in range(steps):
            environment.step(actions)
        return steps * num_envs * EVENTS

    return Work(run, rewind)


def engine_events(num_envs: int, quick: bool) -> Work:
    """Events that the model's engine draws and appends alone, from one refill of its rows to the next."""
    from tradefm_gym.bench_engine import serving
    from tradefm_gym.model.config import load_weights
    from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, make_engine

    return serving(make_engine(*load_weights(checkpoint(BUNDLED_MODEL)[0]), num_envs, "numba"), 1 if quick else 3)


def resetting(flow: str, quick: bool) -> Work:
    """``reset`` of one environment: a start context's book and tape loaded, the task drawn, the first look."""
    environment = ExecutionEnv(flow=flow)
    resets = 64 if quick else 512
    environment.reset(seed=0)

    def run() -> int:
        for _ in range(resets):
            environment.reset()
        return resets

    return Work(run)


# --- Many agents in one market ---------------------------------------------------------------------------


def agents_orders(role: str, agents: int, quick: bool) -> Work:
    """Orders and cancels of so many agents in one market, over whole episodes; resets are not timed."""
    session = TradingSession(1, [ROLES[role]() for _ in range(agents)], ZERO_INTELLIGENCE)
    size = session.role.action_space.shape or ()
    actions = np.random.default_rng(0).uniform(-1, 1, (64, agents, 1, *size)).astype(np.float32)
    if role == "execution":
        actions[..., 0] = 0.0  # as in ``whole_episodes``
    everyone = np.ones(1, np.bool_)

    def rewind() -> None:
        session.seed(everyone, np.zeros(1, np.uint64))
        session.reset_roles()

    def run() -> int:
        for action in actions:
            if not session.running[0]:
                break
            session.step_roles(list(action))
        return sum(int(one.state["messages"][0]) for one in session.roles)

    return Work(run, rewind)
