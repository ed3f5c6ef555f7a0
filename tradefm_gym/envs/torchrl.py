"""What TorchRL's ``PettingZooWrapper`` needs of a market with several agents; neither torch nor TorchRL is loaded here.

Its ``GymWrapper`` takes our single and vector environments as they are (``autoreset_mode="Disabled"``).
"""

from typing import Any

from pettingzoo.utils import BaseParallelWrapper


class ForTorchRL(BaseParallelWrapper):
    """A ``ParallelTradingEnv`` for ``PettingZooWrapper(ForTorchRL(env), use_mask=True, done_on_any=False)``.

    TorchRL makes tensors of all infos, of the same names at each step and for all agents of a group, and goes on
    sending actions of agents that have left. So of the infos the masks of numbered actions remain (``action_mask``),
    and such actions are dropped, which the environment itself refuses.
    """

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """As ``ParallelTradingEnv.reset``."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return observations, _masks(infos)

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """As ``ParallelTradingEnv.step``; actions of ``possible_agents`` that have left are dropped."""
        left = set(self.possible_agents) - set(self.agents)
        kept = {agent: action for agent, action in actions.items() if agent not in left}
        observations, rewards, terminated, truncated, infos = self.env.step(kept)
        return observations, rewards, terminated, truncated, _masks(infos)


def _masks(infos: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        agent: {name: value for name, value in info.items() if name == "action_mask"} for agent, info in infos.items()
    }
