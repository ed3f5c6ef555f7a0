"""Gymnasium environments for limit order book trading against TradeFM, a generative market that reacts.

Importing this package registers the environments and loads neither torch nor a compiler; everything named in
``__all__`` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:  # what __getattr__ imports on first use
    from tradefm_gym.envs.episode import Episode
    from tradefm_gym.envs.execution import ExecutionRole
    from tradefm_gym.envs.gym_env import (
        ExecutionEnv,
        ExecutionVectorEnv,
        MarketMakingEnv,
        MarketMakingVectorEnv,
        TradingEnv,
        TradingVectorEnv,
    )
    from tradefm_gym.envs.market_making import MarketMakingRole
    from tradefm_gym.envs.parallel_env import env, parallel_env
    from tradefm_gym.envs.parallel_recorder import ParallelEpisodeRecorder
    from tradefm_gym.envs.recorder import EpisodeRecorder, VectorEpisodeRecorder
    from tradefm_gym.envs.sampler import Between, EpisodeSampler
    from tradefm_gym.envs.session import TradingSession
    from tradefm_gym.envs.trading import TradingRole
    from tradefm_gym.flow.protocol import ContextBank, FlowModel
    from tradefm_gym.flow.registry import make_flow
    from tradefm_gym.market.config import MarketConfig
    from tradefm_gym.market.simulator import MarketSimulator

__version__ = "0.1.0"

_DEFAULT_FLOW = "tradefm:mini-2@651a776a7a5c"  # the bundled model and its hash: an id always means the same market

_HOMES = {
    "Between": "tradefm_gym.envs.sampler",
    "ContextBank": "tradefm_gym.flow.protocol",
    "Episode": "tradefm_gym.envs.episode",
    "EpisodeRecorder": "tradefm_gym.envs.recorder",
    "EpisodeSampler": "tradefm_gym.envs.sampler",
    "ExecutionEnv": "tradefm_gym.envs.gym_env",
    "ExecutionRole": "tradefm_gym.envs.execution",
    "ExecutionVectorEnv": "tradefm_gym.envs.gym_env",
    "FlowModel": "tradefm_gym.flow.protocol",
    "MarketConfig": "tradefm_gym.market.config",
    "MarketMakingEnv": "tradefm_gym.envs.gym_env",
    "MarketMakingRole": "tradefm_gym.envs.market_making",
    "MarketMakingVectorEnv": "tradefm_gym.envs.gym_env",
    "MarketSimulator": "tradefm_gym.market.simulator",
    "ParallelEpisodeRecorder": "tradefm_gym.envs.parallel_recorder",
    "TradingEnv": "tradefm_gym.envs.gym_env",
    "TradingRole": "tradefm_gym.envs.trading",
    "TradingSession": "tradefm_gym.envs.session",
    "TradingVectorEnv": "tradefm_gym.envs.gym_env",
    "VectorEpisodeRecorder": "tradefm_gym.envs.recorder",
    "env": "tradefm_gym.envs.parallel_env",
    "make_flow": "tradefm_gym.flow.registry",
    "parallel_env": "tradefm_gym.envs.parallel_env",
}

_TASKS = ("Execution", "MarketMaking", "Trading")  # ids and classes are named by them

__all__ = [
    "Between",
    "ContextBank",
    "Episode",
    "EpisodeRecorder",
    "EpisodeSampler",
    "ExecutionEnv",
    "ExecutionRole",
    "ExecutionVectorEnv",
    "FlowModel",
    "MarketConfig",
    "MarketMakingEnv",
    "MarketMakingRole",
    "MarketMakingVectorEnv",
    "MarketSimulator",
    "ParallelEpisodeRecorder",
    "TradingEnv",
    "TradingRole",
    "TradingSession",
    "TradingVectorEnv",
    "VectorEpisodeRecorder",
    "__version__",
    "env",
    "make_flow",
    "parallel_env",
    "register_environments",
]


def register_environments() -> None:
    """Makes the ids known to Gymnasium; calling it again changes nothing."""
    for task in _TASKS:
        if f"TradeFM/{task}-v0" not in gymnasium.registry:
            gymnasium.register(
                id=f"TradeFM/{task}-v0",
                entry_point=f"tradefm_gym.envs.gym_env:{task}Env",
                vector_entry_point=f"tradefm_gym.envs.gym_env:{task}VectorEnv",
                kwargs={"flow": _DEFAULT_FLOW},
            )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tradefm_gym' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


register_environments()
