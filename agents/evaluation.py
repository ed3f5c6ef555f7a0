"""Paired evaluation: every policy meets the very same episodes, in one batch of markets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tradefm_gym.agents.policies import ConstantPolicy, Policy

from tradefm_gym import ExecutionVectorEnv

PLAN = np.dtype([("seed", np.uint64), ("context", np.int64), ("side", np.int64)])
CONTROLS = 4  # parts of an episode
_COIN = 7  # mixed with the seeds that sides are drawn from
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
        ("move_bps", np.float64),  # of the mid, from arrival to the end; positive is against the agent
    ]
)
# With the moves of the market without the agent, see ``Evaluator.run``.
CONTROLLED_EPISODE = np.dtype([*EPISODE.descr, ("control_bps", np.float64, CONTROLS)])
NOBODY = ConstantPolicy("nobody", -1.0, 0.0)  # trades nothing before the deadline
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

    def plan(self, episodes: int, seed: int = 0, paired: bool = True) -> np.ndarray:
        """Which episodes to run, (episodes,) PLAN: contexts in turn, each seed once as a buyer and once as a seller.

        The two sides of a pair share seed and context, so that the drift of the market's price, which says
        nothing about a policy, largely cancels between them. Without pairs each seed is played on one side, a fair
        coin of that seed: as many different markets as episodes.
        """
        if episodes < 1:
            raise ValueError(f"episodes is {episodes}; it must be at least 1")
        plan = np.zeros(episodes, PLAN)
        number = np.arange(episodes)
        side, context = self.session.role.side, self.session.context
        pair = number // 2 if side is None and paired else number
        plan["seed"] = seed + pair
        if paired:
            drawn = np.where(number % 2 == 0, 1, -1)
        else:
            drawn = np.array([2 * np.random.default_rng([_COIN, seed + k]).integers(2) - 1 for k in pair.tolist()])
        plan["side"] = drawn if side is None else side
        contexts = self.session.contexts
        plan["context"] = contexts[pair % len(contexts)] if context is None else context
        return plan

    def run(
        self,
        policies: Sequence[Policy],
        plan: np.ndarray,
        progress: Callable[[int, int], None] | None = None,
        control: bool = False,
    ) -> dict[str, np.ndarray]:
        """Runs every policy on every episode of the plan.

        With ``control`` nobody plays every episode as well, once for all policies: the same market, without an order
        of the agent. How far its mid is from the arrival mid, against the side that the episode would have had, is
        written to ``control_bps``, as a mean over the decisions of each of ``CONTROLS`` equal parts of the episode.
        That path does not know the side. So where sides are drawn by a fair coin (``plan(..., paired=False)``) the
        expectation of each of these numbers is exactly 0, whatever the market's drift is: ``comparison.controlled``
        takes the luck of the path out of means, and adds no bias. In pairs of both sides it cancels already.

        Args:
            policies: their names must differ.
            plan: (episodes,) PLAN.
            progress: called with the number of episodes that ended and of all.
            control: also write ``control_bps``.

        Returns:
            By policy's name: (episodes,) EPISODE in the plan's order, so that equal rows are equal episodes;
            CONTROLLED_EPISODE with ``control``.

        Raises:
            ValueError: if two policies have one name, or a control is wanted and all episodes are on one side.
        """
        if control and len(np.unique(plan["side"])) < 2:
            raise ValueError("plan has one side only; with control it must have both, drawn by a fair coin")
        policies = [*policies, NOBODY] if control else policies
        names = [policy.name for policy in policies]
        if len(set(names)) != len(names):
            raise ValueError(f"policies are named {', '.join(names)}; their names must differ")
        results = np.zeros((len(policies), len(plan)), CONTROLLED_EPISODE if control else EPISODE)
        results["seed"], results["context"], results["side"] = plan["seed"], plan["context"], plan["side"]
        queue = _Queue(results.shape, self.num_envs)
        observation = self._begin(queue, plan, queue.assign())
        terms, done, path = np.zeros((self.num_envs, len(_TERMS))), 0, _Path(self.num_envs)
        while queue.busy.any():
            if control:
                path.look(self.session, queue)
            actions = self._act(policies, queue, observation)
            queue.steps[queue.busy] += 1
            result = self.session.step(actions, queue.busy)
            info, observation = self.session.step_info(), result.observation
            for i, name in enumerate(_TERMS):
                terms[:, i] += np.where(queue.busy, info["terms"][name], 0.0)
            ended = queue.busy & (result.terminated | result.truncated)
            if ended.any():
                self._book(results, queue, ended, terms, result.truncated)
                if control:
                    path.book(results, queue, ended)
                terms[ended] = 0.0
                done += int(ended.sum())
                queue.busy &= ~ended
                begun = queue.assign()
                if begun.any():
                    observation = self._begin(queue, plan, begun)
                if progress is not None:
                    progress(done, results.size)
        found = dict(zip(names, results, strict=True))
        if control:
            nobody = found.pop(NOBODY.name)
            for rows in found.values():
                rows["control_bps"] = nobody["control_bps"]
        return found

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
        final, now = self.session.final_info(), self.session.step_info()
        moved = 1e4 * final["side"] * (now["mid"] / now["arrival_mid"] - 1.0)
        for m in np.flatnonzero(rows).tolist():
            entry = results[queue.policy[m], queue.episode[m]]
            for name in ("quantity", "shortfall_bps", "shortfall_half_spreads", "fill_rate", "maker_share"):
                entry[name] = final[name][m]
            for i, name in enumerate(_TERMS):
                entry[f"{name}_bps"] = terms[m, i]
            entry["steps"], entry["truncated"], entry["move_bps"] = queue.steps[m], truncated[m], moved[m]


def evaluate(
    policies: Policy | Sequence[Policy],
    task: dict[str, Any] | None = None,
    *,
    episodes: int = 500,
    split: str = "test",
    num_envs: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    control: bool = False,
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
        control: play each seed on one side only, drawn, and record how the market went there without the agent:
            ``compare`` then takes the luck of the path out of its means. Takes as long as one policy more.

    Returns:
        By policy's name: (episodes,) EPISODE, or CONTROLLED_EPISODE with ``control``, rows in the same order.
    """
    evaluator = Evaluator({**(task or {}), "split": split}, num_envs)
    several = policies if isinstance(policies, Sequence) else [policies]
    return evaluator.run(several, evaluator.plan(episodes, seed, paired=not control), progress, control)


class _Path:
    """How far the mids of the markets are from those at arrival, as means over the parts of the episode."""

    def __init__(self, num_envs: int):
        self.sums, self.counts = np.zeros((2, num_envs, CONTROLS))

    def look(self, session: Any, queue: "_Queue") -> None:
        """Adds where the mids are at this decision."""
        start, now = session.start_info(), session.step_info()
        moved = 1e4 * start["side"] * (now["mid"] / np.maximum(now["arrival_mid"], 1.0) - 1.0)
        rows = np.flatnonzero(queue.busy)
        part = queue.steps[rows] * CONTROLS // start["decisions"][rows]
        self.sums[rows, part] += moved[rows]
        self.counts[rows, part] += 1.0

    def book(self, results: np.ndarray, queue: "_Queue", ended: np.ndarray) -> None:
        """Writes down those of the rows that ended and forgets them."""
        rows = np.flatnonzero(ended)
        means = self.sums[rows] / np.maximum(self.counts[rows], 1.0)
        results["control_bps"][queue.policy[rows], queue.episode[rows]] = means
        self.sums[rows], self.counts[rows] = 0.0, 0.0


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
