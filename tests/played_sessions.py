"""Sessions of every flow and role, played by random actions: what tests of copies compare."""

import numpy as np
from small_day import cpu_flow
from small_tradefm import everyone, write_checkpoint, zero_intelligence_bank

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.trading import TradingRole
from tradefm_gym.flow.registry import make_flow
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.model.tokenizer import TradeTokenizer

FLOWS = ("zero_intelligence", "hawkes", "replay", "tradefm")
ROLES = {"execution": ExecutionRole, "market_making": MarketMakingRole, "trading": TradingRole}
DECISIONS = 9


def flow_maker(folder):
    """What makes a flow of a name for N markets; ``folder`` is where the network goes that TradeFM runs on."""
    write_checkpoint(folder)
    bank = zero_intelligence_bank()
    bank.feature_state["followers"] = np.linspace(2, 9, 2 * len(bank)).reshape(-1, 2)
    own = TradeTokenizer.load(folder).tables + np.linspace(0.0, 0.1, len(bank))[:, None, None, None]
    bank.feature_state["tables"][1:] = own[1:]  # the first is of no asset in particular

    def make(name, num_envs, **options):
        if name != "tradefm":
            return make_flow(cpu_flow(name), num_envs, **options)
        weighed = {"persistence": (0.1, 0.1), "following": 1.0, "answering": 0.5, "restoring": 0.5}
        return TradeFMFlow(folder, num_envs, bank=bank, **(weighed | options))

    return make


def session_of(flow, roles=("execution",), seed=0, **options):
    n, made = flow.num_envs, [ROLES[name](decisions=DECISIONS + i) for i, name in enumerate(roles)]
    session = TradingSession(n, made, flow, **options)
    session.seed(everyone(n), np.arange(seed, seed + n))
    session.reset_roles()
    return session


def go_on(session, rows, decisions, seed):
    """All that anybody is told of the rows within some decisions of random actions, and their tapes."""
    generator, told = np.random.default_rng(seed), []
    for _ in range(decisions):
        actions = []
        for role in session.roles:
            action = np.zeros((session.num_envs, *role.action_space.shape), np.float32)
            action[rows] = generator.uniform(-1, 1, (len(rows), *role.action_space.shape))
            actions.append(action)
        for i, result in enumerate(session.step_roles(actions)):
            told += [array[rows].copy() for array in result]
            told += columns({**session.start_info(i), **session.step_info(i), **session.final_info(i)}, rows)
    return [array.tolist() for array in told], [session.tape_hash(row) for row in rows]


def columns(info, rows):
    """The columns of an info, those in dicts too."""
    found = []
    for value in info.values():
        found += columns(value, rows) if isinstance(value, dict) else [value[rows].copy()]
    return found


def episodes(session, rows):
    """The rest of this episode and the beginning of the next one."""
    first = go_on(session, rows, DECISIONS - 3, 2)
    session.reset_roles(np.isin(np.arange(session.num_envs), rows))
    return first, go_on(session, rows, 2, 3)
