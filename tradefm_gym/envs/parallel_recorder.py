"""A PettingZoo wrapper that records a market of several agents, from the viewpoint of each or of some of them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from tradefm_gym.arguments import shortened
from tradefm_gym.envs.episode import Episode
from tradefm_gym.envs.parallel_env import ParallelTradingEnv
from tradefm_gym.envs.recording import Recording


class ParallelEpisodeRecorder(BaseParallelWrapper):
    """Records what happens in a market of several agents; nothing of what they see or are paid changes.

    Each agent's file holds the whole market (books, tape, all fills), in which its own orders, fills, account and
    reward are told apart; the orders of the other agents are among those of everybody else. It ends when the agent
    leaves.

    Args:
        env: made by ``tradefm_gym.parallel_env``.
        folder: where each finished episode of an agent is written as ``SEED-EPISODE-AGENT.npz``; None: only where
            ``save`` says.
        agents: names of those to record; None: all.

    Raises:
        ValueError: if it is another environment, or has no such agent.
    """

    def __init__(
        self, env: ParallelEnv, folder: str | os.PathLike | None = None, *, agents: Sequence[str] | None = None
    ):
        super().__init__(env)
        face = env.unwrapped
        if not isinstance(face, ParallelTradingEnv):
            raise ValueError(f"env is {shortened(env)}; it must be one that tradefm_gym.parallel_env made")
        known = face.possible_agents
        chosen = known if agents is None else agents
        if isinstance(chosen, str) or not chosen or not all(agent in known for agent in chosen):
            raise ValueError(f"agents is {shortened(agents)}; it must be None or a list of some of {', '.join(known)}")
        self.session, environment = face.session, type(face).__name__
        self.recordings = {
            agent: Recording(self.session, environment, folder, seat=face.seat_of(agent), agent=agent)
            for agent in chosen
        }

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begins an episode, and forgets the one before."""
        answer = self.env.reset(seed=seed, options=options)
        for recording in self.recordings.values():
            recording.begin()
        return answer

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """One decision of all agents that are left; the episodes of those that leave are written."""
        answer = self.env.step(actions)
        _, rewards, terminated, truncated, _ = answer
        for agent, recording in self.recordings.items():
            if agent in rewards:
                recording.decided(actions[agent], rewards[agent], terminated[agent] or truncated[agent])
        return answer

    def episode(self, agent: str) -> Episode:
        """The episode of an agent as far as it has come.

        Raises:
            ValueError: if the agent is not recorded, or no episode has begun.
        """
        return self._of(agent).episode()

    def save(self, agent: str, path: str | os.PathLike) -> Path:
        """Writes the episode of an agent as far as it has come."""
        return self._of(agent).save(path)

    def _of(self, agent: str) -> Recording:
        if agent not in self.recordings:
            raise ValueError(f"agent is {shortened(agent)}; recorded are {', '.join(self.recordings)}")
        return self.recordings[agent]
