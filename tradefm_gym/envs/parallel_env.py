"""The PettingZoo face: one market in which 2 to 16 agents of several roles meet each other and the background.

Importing this module registers ``TradeFM/Market-v0`` with ``pettingzoo.make`` where PettingZoo has a registry.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pettingzoo
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import parallel_to_aec

from tradefm_gym.arguments import known_names, numbers, shortened
from tradefm_gym.envs.casting import LATENCIES, cast, scripted_actions, seat_latencies
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.session_copies import SessionState
from tradefm_gym.envs.starts import MARKET_OPTIONS
from tradefm_gym.envs.tasks import (
    MARKET,
    check_open,
    check_started,
    draw,
    drawn_seed,
    history_for,
    known_options,
    market_session,
    plain_row,
    seed_words,
    whole_seed,
)

RENDER_MODES = ("human", "ansi", "rgb_array")
DEFAULT_ROLES = ("market_making", "execution")
_ONE = np.array([True])


class ParallelTradingEnv(ParallelEnv):
    """Agents of several roles trade with each other in one market, against the same background flow.

    ## Agents
    One for each entry of ``roles``: "execution", "market_making", "trading"; a dict such as
    ``{"role": "execution", "side": "buy", "name": "buyer"}`` with arguments of ``ExecutionRole``, ``MarketMakingRole``
    or ``TradingRole``; or an object of these classes. They are called ``executor_0``, ``maker_0``, ``trader_0`` and so
    on. An entry with a ``policy`` is a scripted opponent: it has a seat, but is no agent that is seen. A policy is
    called as ``policy(observation (1, obs), info)`` or has a method ``act`` (those of ``tradefm_gym.agents`` do).
    ``interval`` is common to all.

    ## Spaces
    Those of each agent's role, see ``ExecutionEnv``, ``MarketMakingEnv`` and ``TradingEnv``. What an agent sees of the
    book leaves out its own orders and holds those of the others. ``state()`` is the observations of all seats, scripted
    ones included, one after another (``state_space``).

    ## Turns
    All agents decide at the same time, then one interval of background events passes. Of their orders cancels come
    first, then the seats have turns in an order that is drawn anew for each instant; see ``TradingSession``.

    ## Rewards and end
    Those of each agent's role. An agent that terminates leaves ``agents``, the others go on; with the end of the flow
    all are truncated. The episode is over when ``agents`` is empty.

    ## Options
    ``reset(options=...)``: ``context``, the id of a start context, ``scenario`` (see ``flow.scenarios``), and for an
    agent's name a dict of what its role reads (``{"executor_0": {"side": "buy"}}``). Options that do not exist are
    warned of.

    Args:
        roles: 2 to 16 entries, see above.
        flow: as in ``ExecutionEnv``.
        interval: between two decisions, in units of ``clock``; None: 16 events, or what they usually take.
        decisions: decisions of an episode, for roles that do not say it themselves.
        render_mode: None, "human" (prints the ladder), "ansi" (the ladder as text) or "rgb_array" (the depth
            over time).
        **market: ``clock``, ``context``, ``split``, ``engine_batch``, ``maker_fee``, ``taker_fee``, ``maker_rate``,
            ``taker_rate``, ``order_latency_ns`` and ``data_latency_ns`` as in ``ExecutionEnv``. An entry of ``roles``
            that is a dict may have latencies of its own.

    Raises:
        TypeError: if there is no such argument.
        ValueError: if an argument is not allowed.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "name": "tradefm_v0", "render_modes": list(RENDER_MODES), "render_fps": 8, "is_parallelizable": True,
    }  # fmt: skip

    def __init__(
        self,
        roles: Sequence[str | Mapping[str, Any] | Role] = DEFAULT_ROLES,
        *,
        flow: Any = "tradefm",
        interval: int | None = None,
        decisions: int = 64,
        render_mode: str | None = None,
        **market: Any,
    ):
        if render_mode is not None and (not isinstance(render_mode, str) or render_mode not in RENDER_MODES):
            raise ValueError(
                f"render_mode is {shortened(render_mode)}; it must be None, {' or '.join(map(repr, RENDER_MODES))}"
            )
        known_names("parallel_env", market, MARKET)
        self.closed = False
        self.render_mode = render_mode
        seats = cast(roles, interval, decisions)
        market |= seat_latencies(seats, {name: market[name] for name in LATENCIES if name in market})
        self.session = market_session(1, [seat.role for seat in seats], flow=flow, **market)
        self.history = history_for(self.session, render_mode)
        self.possible_agents = [seat.name for seat in seats if seat.act is None]
        self.agents: list[str] = []
        self._names = [seat.name for seat in seats]
        self._seats = {seat.name: i for i, seat in enumerate(seats)}
        self._scripts = {i: seat.act for i, seat in enumerate(seats) if seat.act is not None}
        self._seen: tuple[np.ndarray, ...] = ()
        low, high = (np.concatenate([getattr(seat.role, name) for seat in seats]) for name in ("low", "high"))
        self.state_space = spaces.Box(low, high, dtype=np.float32)

    def observation_space(self, agent: str) -> spaces.Box | spaces.Dict:
        """What an agent of this name sees; the same object at each call."""
        return self._role(agent).observation_space

    def action_space(self, agent: str) -> spaces.Space:
        """What an agent of this name does; the same object at each call."""
        return self._role(agent).action_space

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Begins an episode: the first one of ``seed``, or the next one of the seed given before."""
        check_open(self, "reset")
        seed = None if seed is None else whole_seed("seed", seed)
        session, chosen = self.session, self._read_options(options)
        session.check_options(chosen)
        if seed is not None or not session.seeded[0]:
            session.seed(_ONE, seed_words([drawn_seed(np.random.default_rng()) if seed is None else seed]))
        self._seen = session.reset_roles(options=chosen)
        if self.history is not None:
            self.history.look()
        self.agents = list(self.possible_agents)
        infos = {agent: plain_row(session.start_info(self._seats[agent]), 0) for agent in self.agents}
        return self._observations(self.agents), infos

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[
        dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # fmt: skip
        """One decision of all agents that are left, and the interval after it.

        Args:
            actions: for each of ``agents`` an action of its space; nothing (or None) for others.
        """
        check_open(self, "step")
        if not self.agents:
            raise ResetNeeded("step was called before reset or after all agents had left; call reset first")
        session, acting = self.session, self.agents
        checked: list[np.ndarray | None] = [None] * len(self._seats)
        for agent, action in self._actions(actions).items():
            checked[self._seats[agent]] = self._checked(f"action of {agent!r}", self._seats[agent], action)
        for seat, act in self._scripts.items():
            if session.active[seat, 0]:
                action = scripted_actions(session, seat, act, self._seen[seat].copy())
                name = f"action of {self._names[seat]!r}, chosen by its policy,"
                checked[seat] = self._checked(name, seat, action, batched=True)
        results = session.step_roles(checked)
        if self.history is not None:
            self.history.look()
        self._seen = tuple(result.observation for result in results)
        mine = {agent: results[self._seats[agent]] for agent in acting}
        terminated = {agent: bool(result.terminated[0]) for agent, result in mine.items()}
        truncated = {agent: bool(result.truncated[0]) for agent, result in mine.items()}
        self.agents = [agent for agent in acting if not (terminated[agent] or truncated[agent])]
        rewards = {agent: float(result.reward[0]) for agent, result in mine.items()}
        infos = {agent: self._info(agent, agent not in self.agents) for agent in acting}
        return self._observations(acting), rewards, terminated, truncated, infos

    def state(self) -> np.ndarray:
        """The observations of all seats, in the order of ``roles``, one after another (state,) float32."""
        if not self._seen:
            raise ResetNeeded("state was called before reset; call reset first")
        return np.concatenate([observation[0] for observation in self._seen])

    def seat_of(self, agent: str) -> int:
        """Which of the session's roles an agent of this name plays."""
        self._role(agent)
        return self._seats[agent]

    def snapshot(self) -> SessionState:
        """All that the environment is at this moment, as a value; can be pickled.

        What a scripted opponent's policy remembers by itself is no part of it.
        """
        check_open(self, "snapshot")
        check_started(self.session, "snapshot")
        return self.session.snapshot()

    def restore(self, value: SessionState) -> dict[str, Any]:
        """Goes on from a snapshot of an environment of equal arguments, to the last bit, and in later episodes too.

        Returns:
            The observations of the agents that are left.

        Raises:
            ValueError: if the snapshot is of another configuration; nothing has changed then.
        """
        check_open(self, "restore")
        self.session.restore(value)
        self._seen = self.session.observe()
        self.agents = [agent for agent in self.possible_agents if self.session.active[self._seats[agent], 0]]
        return self._observations(self.agents)

    def render(self) -> Any:
        """The ladder or the depth over time with all agents' orders, as ``render_mode`` says."""
        if self.render_mode == "human":
            print(draw(self.session, 0, "ansi", None))
            return None
        return draw(self.session, 0, self.render_mode, self.history)

    def close(self) -> None:
        """Ends the environment: ``reset`` and ``step`` are refused from now on. May be called twice."""
        self.closed = True

    def _role(self, agent: Any) -> Role:
        if agent not in self.possible_agents:
            raise ValueError(f"agent is {shortened(agent)}; it must be one of {', '.join(self.possible_agents)}")
        return self.session.roles[self._seats[agent]]

    def _observations(self, agents: list[str]) -> dict[str, Any]:
        return {agent: self._role(agent).present(self._seen[self._seats[agent]][0].copy()) for agent in agents}

    def _info(self, agent: str, finished: bool) -> dict[str, Any]:
        seat = self._seats[agent]
        info = plain_row(self.session.step_info(seat), 0)
        return info | plain_row(self.session.final_info(seat), 0) if finished else info

    def _read_options(self, options: Any) -> Any:
        """Options as the session reads them."""
        if options is None or not isinstance(options, Mapping):
            return options
        known = known_options(options, (*MARKET_OPTIONS, *self.possible_agents), 4)
        own: list[dict[str, Any]] = [{} for _ in self._seats]
        for agent in self.possible_agents:
            words = known.pop(agent, {})
            if not isinstance(words, Mapping):
                raise ValueError(f"options[{agent!r}] is {shortened(words)}; it must be a dict")
            own[self._seats[agent]] = known_options(words, self._role(agent).option_names, 4)
        return {**known, "roles": own}

    def _actions(self, actions: Any) -> dict[str, Any]:
        """The actions of the agents that are left: of all of them and of nobody else."""
        if not isinstance(actions, Mapping):
            raise ValueError(f"actions is {shortened(actions)}; it must be a dict of an action for each agent")
        for agent, action in actions.items():
            if agent not in self.agents and action is not None:
                gone = "which has left" if agent in self.possible_agents else "which does not exist"
                raise ValueError(f"actions names {agent!r}, {gone}; agents are {', '.join(self.agents)}")
        for agent in self.agents:
            if actions.get(agent) is None:
                raise ValueError(f"actions lacks {agent!r}; it must have an action for {', '.join(self.agents)}")
        return {agent: actions[agent] for agent in self.agents}

    def _checked(self, name: str, seat: int, action: Any, batched: bool = False) -> np.ndarray:
        """An action as a batch of one row, once it is sure that its role takes it."""
        role = self.session.roles[seat]
        values = numbers(action, role.action_kinds)
        shape = role.action_space.shape or ()
        if values is None or values.shape != ((1, *shape) if batched else shape):
            raise ValueError(f"{name} is {shortened(action)}; it must be {role.action_rule}")
        values = values.reshape(1, *shape)
        try:
            role.check(values, _ONE)
        except ValueError as error:
            raise ValueError(str(error).replace("action", name, 1)) from None
        return values


def parallel_env(roles: Sequence[str | Mapping[str, Any] | Role] = DEFAULT_ROLES, **task: Any) -> ParallelTradingEnv:
    """Several agents in one market, as a PettingZoo ``ParallelEnv``; arguments as in ``ParallelTradingEnv``."""
    return ParallelTradingEnv(roles, **task)


def env(roles: Sequence[str | Mapping[str, Any] | Role] = DEFAULT_ROLES, **task: Any) -> pettingzoo.AECEnv:
    """The same as a PettingZoo ``AECEnv``, in which agents choose their actions one after another, unseen."""
    return parallel_to_aec(ParallelTradingEnv(roles, **task))


raw_env = ParallelTradingEnv

if hasattr(pettingzoo, "register") and "TradeFM/Market-v0" not in pettingzoo.parallel_registry:
    pettingzoo.register("parallel", "TradeFM/Market-v0", "tradefm_gym.envs.parallel_env:parallel_env")
    pettingzoo.register("aec", "TradeFM/Market-v0", "tradefm_gym.envs.parallel_env:env")
