"""Paired evaluation: every policy meets the very same episodes, in one batch of markets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tradefm_gym.agents.policies import Policy

from tradefm_gym import ExecutionVectorEnv

PLAN = np.dtype([("seed", np.uint64), ("context", np.int64), ("side", np.int64)])
EPISODE = np.dtype(
    [
        ("seed", np.uint64),
        ("context", np.int64),
        ("side", np.int64),  # 1 buys, -1 sells
        ("quantity", np.int64),  # parent order, lots
        ("steps", np.int64),  # decisions until the end
        ("shortfall_bps", np.float64),  # of the arrival notional; positive is a cost
        ("shortfall_half_spreads", np.float64),  # per lot, in half of the context's usual spread
        ("spread_bps", np.float64),  # the shortfall's terms
        ("timing_bps", np.float64),
        ("fees_bps", np.float64),
        ("unfilled_bps", np.float64),
        ("fill_rate", np.float64),  # part of the parent order
        ("maker_share", np.float64),  # part of what was filled
        ("truncated", np.bool_),  # the flow ended before the task
    ]
)
_TERMS = ("spread", "timing", "fees", "unfilled")


@dataclass
class Evaluator:
    """Runs policies on planned episodes in one native vector environment, which it makes once and keeps.

    Args:
        task: arguments of ``ExecutionEnv``, ``split`` among them (default "test"). A fixed ``side`` or
            ``context`` is kept.
        num_envs: markets that run at once.
    """

    task: dict[str, Any]
    num_envs: int = 64
    session: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.task = {"split": "test", **self.task}
        self.session = ExecutionVectorEnv(self.num_envs, **self.task).session

    def plan(self, episodes: int, seed: int = 0) -> np.ndarray:
        """Which episodes to run, (episodes,) PLAN: contexts in turn, each seed once as a buyer and once as a seller.

        The two sides of a pair share seed and context, so that the drift of the market's price, which says
        nothing about a policy, largely cancels between them.
        """
        if episodes < 1:
            raise ValueError(f"episodes is {episodes}; it must be at least 1")
        plan = np.zeros(episodes, PLAN)
        number = np.arange(episodes)
        side, context = self.session.role.side, self.session.context
        pair = number // 2 if side is None else number
        plan["seed"] = seed + pair
        plan["side"] = np.where(number % 2 == 0, 1, -1) if side is None else side
        contexts = self.session.contexts
        plan["context"] = contexts[pair % len(contexts)] if context is None else context
        return plan

    def run(
        self,
        policies: Sequence[Policy],
        plan: np.ndarray,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs every policy on every episode of the plan.

        Args:
            policies: their names must differ.
            plan: (episodes,) PLAN.
            progress: called with the number of episodes that ended and of all.

        Returns:
            By policy's name: (episodes,) EPISODE in the plan's order, so that equal rows are equal episodes.
        """
        names = [policy.name for policy in policies]
        if len(set(names)) != len(names):
            raise ValueError(f"policies are named {', '.join(names)}; their names must differ")
        results = np.zeros((len(policies), len(plan)), EPISODE)
        results["seed"], results["context"], results["side"] = plan["seed"], plan["context"], plan["side"]
        queue = _Queue(results.shape, self.num_envs)
        observation = self._begin(queue, plan, queue.assign())
        terms, done = np.zeros((self.num_envs, len(_TERMS))), 0
        while queue.busy.any():
            actions = self._act(policies, queue, observation)
            queue.steps[queue.busy] += 1
            result = self.session.step(actions, queue.busy)
            info, observation = self.session.step_info(), result.observation
            for i, name in enumerate(_TERMS):
                terms[:, i] += np.where(queue.busy, info["terms"][name], 0.0)
            ended = queue.busy & (result.terminated | result.truncated)
            if ended.any():
                self._book(results, queue, ended, terms, result.truncated)
                terms[ended] = 0.0
                done += int(ended.sum())
                queue.busy &= ~ended
                begun = queue.assign()
                if begun.any():
                    observation = self._begin(queue, plan, begun)
                if progress is not None:
                    progress(done, results.size)
        return dict(zip(names, results, strict=True))

    def _begin(self, queue: "_Queue", plan: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Starts the rows' (N,) bool next episodes."""
        chosen = plan[queue.episode]
        self.session.seed(rows, chosen["seed"])
        # A row that takes no part is not reset; what is said about it is not used.
        return self.session.reset(rows, {"context": chosen["context"].tolist(), "side": chosen["side"].tolist()})

    def _act(self, policies: Sequence[Policy], queue: "_Queue", observation: np.ndarray) -> np.ndarray:
        info = {"seed": self.session.seeds, "decision": queue.steps}
        start = self.session.start_info()
        info |= {name: start[name] for name in ("side", "quantity", "decisions", "context")}
        actions = np.zeros((self.num_envs, 2), np.float32)
        for number, policy in enumerate(policies):
            rows = np.flatnonzero(queue.busy & (queue.policy == number))
            if len(rows):
                actions[rows] = policy.act(observation[rows], {name: column[rows] for name, column in info.items()})
        return actions

    def _book(
        self, results: np.ndarray, queue: "_Queue", rows: np.ndarray, terms: np.ndarray, truncated: np.ndarray
    ) -> None:
        final = self.session.final_info()
        for m in np.flatnonzero(rows).tolist():
            entry = results[queue.policy[m], queue.episode[m]]
            for name in ("quantity", "shortfall_bps", "shortfall_half_spreads", "fill_rate", "maker_share"):
                entry[name] = final[name][m]
            for i, name in enumerate(_TERMS):
                entry[f"{name}_bps"] = terms[m, i]
            entry["steps"], entry["truncated"] = queue.steps[m], truncated[m]


def evaluate(
    policies: Policy | Sequence[Policy],
    task: dict[str, Any] | None = None,
    *,
    episodes: int = 500,
    split: str = "test",
    num_envs: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Runs every policy on the same episodes: same seeds, start contexts and sides.

    Args:
        policies: one or several.
        task: arguments of ``ExecutionEnv``, such as ``{"flow": "zero_intelligence"}``.
        episodes: how many each policy gets.
        split: part of the start contexts.
        num_envs: markets that run at once; for a TradeFM flow results are compared at equal numbers.
        seed: of the first pair of episodes.
        progress: called with the number of episodes that ended and of all.

    Returns:
        By policy's name: (episodes,) EPISODE, rows in the same order.
    """
    evaluator = Evaluator({**(task or {}), "split": split}, num_envs)
    several = policies if isinstance(policies, Sequence) else [policies]
    return evaluator.run(several, evaluator.plan(episodes, seed), progress)


class _Queue:
    """Which policy and episode each market works on; free markets take the next in line."""

    def __init__(self, shape: tuple[int, int], num_envs: int):
        self.shape, self.next = shape, 0
        self.busy = np.zeros(num_envs, np.bool_)
        self.policy = np.zeros(num_envs, np.int64)
        self.episode = np.zeros(num_envs, np.int64)
        self.steps = np.zeros(num_envs, np.int64)

    def assign(self) -> np.ndarray:
        """Gives work to free markets; returns those that got some (N,) bool."""
        free = np.flatnonzero(~self.busy)[: self.shape[0] * self.shape[1] - self.next]
        numbers = self.next + np.arange(len(free))
        self.policy[free], self.episode[free] = numbers // self.shape[1], numbers % self.shape[1]
        self.next += len(free)
        self.steps[free] = 0
        begun = np.zeros(len(self.busy), np.bool_)
        begun[free] = True
        self.busy |= begun
        return begun
