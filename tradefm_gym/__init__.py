"""Gymnasium environments for limit order book trading against TradeFM, a generative market that reacts.

Importing this package registers the environments and loads neither torch nor a compiler; everything named in
``__all__`` is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:  # what __getattr__ imports on first use
    from tradefm_gym.envs.execution import ExecutionRole
    from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
    from tradefm_gym.envs.session import TradingSession
    from tradefm_gym.flow.protocol import ContextBank, FlowModel
    from tradefm_gym.flow.registry import make_flow
    from tradefm_gym.market.config import MarketConfig
    from tradefm_gym.market.simulator import MarketSimulator

__version__ = "0.1.0"

_DEFAULT_FLOW = "tradefm:mini-2@c27615ba859a"  # the bundled model and its hash: an id always means the same market

_HOMES = {
    "ContextBank": "tradefm_gym.flow.protocol",
    "ExecutionEnv": "tradefm_gym.envs.gym_env",
    "ExecutionRole": "tradefm_gym.envs.execution",
    "ExecutionVectorEnv": "tradefm_gym.envs.gym_env",
    "FlowModel": "tradefm_gym.flow.protocol",
    "MarketConfig": "tradefm_gym.market.config",
    "MarketSimulator": "tradefm_gym.market.simulator",
    "TradingSession": "tradefm_gym.envs.session",
    "make_flow": "tradefm_gym.flow.registry",
}

__all__ = [
    "ContextBank",
    "ExecutionEnv",
    "ExecutionRole",
    "ExecutionVectorEnv",
    "FlowModel",
    "MarketConfig",
    "MarketSimulator",
    "TradingSession",
    "__version__",
    "make_flow",
    "register_environments",
]


def register_environments() -> None:
    """Makes the ids known to Gymnasium; calling it again changes nothing."""
    if "TradeFM/Execution-v0" not in gymnasium.registry:
        gymnasium.register(
            id="TradeFM/Execution-v0",
            entry_point="tradefm_gym.envs.gym_env:ExecutionEnv",
            vector_entry_point="tradefm_gym.envs.gym_env:ExecutionVectorEnv",
            kwargs={"flow": _DEFAULT_FLOW},
        )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tradefm_gym' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


register_environments()
