"""A whole decision of a role in one loop over markets, where its seat is alone and in time."""

from abc import abstractmethod
from typing import Any

import numpy as np

from tradefm_gym.envs.knowledge import Knowledge
from tradefm_gym.envs.roles import Outcome
from tradefm_gym.envs.stages import OPENING, begin_decision
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.refusals import check_departed
from tradefm_gym.market.rows import ENDED, OVERRUN, REFUSED, STARVED
from tradefm_gym.market.simulator import MarketSimulator


class RoleSteps:
    """What does at once what the other methods of a ``SeatRole`` do one after the other, to the same end."""

    # Where it is that of this very class: a loop over markets, in this thread and over all. See ``execution_step``.
    deciding: tuple[Any, Any]
    term_names: tuple[str, ...]
    market: MarketSimulator
    seat: int
    interval: int | None
    discrete: bool
    late: bool
    reward: Any
    presets: np.ndarray
    true: Knowledge
    state: np.ndarray
    scale: np.ndarray
    block: EventBlock
    terms: np.ndarray
    _bounds: tuple[np.ndarray, np.ndarray]
    _scratch: np.ndarray
    _before: np.ndarray | None

    def _attach_steps(self, n: int) -> None:
        self.until_count = np.zeros(n, np.int64)  # background events by the end of the interval
        self.still = np.zeros((n, self.presets.shape[1]), np.float32)  # actions in the box that nobody reads
        self._stage, self._ends = np.zeros(n, np.int64), np.zeros(n, np.int64)  # see ``stages``, ``market.rows``

    @property
    def has_steps(self) -> bool:
        """Whether ``deciding`` does what the other methods do; a subclass may have changed those."""
        return "deciding" in vars(type(self)) and not self.late

    def begin_step(self, rows: np.ndarray, actions: Any, first: int = OPENING) -> None:
        """Begins a decision of the rows, which ``carry_on`` takes on: for a seat alone and in time.

        Args:
            rows: (N,) bool.
            actions: as ``check`` takes them.
            first: OPENING, or CLOSING where all orders were sent and the interval has passed (``still`` are actions).
        """
        n = len(self.state)
        if first == OPENING and not self._is_plain(actions):
            actions = np.require(self.check(actions, rows), requirements=["C", "A", "W"])
        if begin_decision(first, rows, actions, self._stage) < 0:
            self.check(actions, rows)  # which says what is wrong
        if self.reward is not None and first == OPENING:
            self._before = self.state.copy()
        outcome = Outcome(np.zeros(n), np.zeros((n, len(type(self).term_names)), np.int64), np.zeros(n, np.bool_))
        out = np.empty((n, len(self._bounds[0])), np.float32)
        self._decision = rows, outcome, out
        self._arguments = (
            self.market.config.agent_ids, self.seat, self.interval or 0, *self.true, self.scale, *self._bounds, actions,
            self._stage, self.until_count, self._ends, *self.block, *self._scratch, outcome.terms, outcome.reward,
            outcome.terminated, out, *self._manner(),
        )  # fmt: skip

    def _is_plain(self, actions: Any) -> bool:
        """Whether actions are the box's as kernels take them: only their values are left to check."""
        if self.discrete or type(actions) is not np.ndarray or actions.dtype != np.float32:
            return False
        return actions.shape == self.still.shape and actions.flags.carray

    def carry_on(self, until_count: np.ndarray | None = None, threads: bool = False) -> np.ndarray:
        """Takes the decision as far as events are there; rows (N,) bool that need more of them.

        Args:
            until_count: (N,) int64, background events by the end of the interval, where a flow has ended before.
            threads: over all threads.
        """
        market, ends = self.market, self._ends
        if until_count is not None:
            self.until_count[:] = until_count
        while (worst := self.deciding[threads](*market.parts, *self._arguments)) not in (ENDED, STARVED):
            if worst >= REFUSED:
                check_departed(self.block, ends, market)
            if (ends == OVERRUN).any():
                self._check_tape(self._decision[0])
            market.widen()
        return ends == STARVED

    def end_step(self) -> tuple[Outcome, np.ndarray]:
        """What the decision brought, and what is seen now."""
        rows, outcome, out = self._decision
        if self.reward is not None:
            outcome = self._rewarded(outcome, rows)
        self.terms = outcome.terms
        return outcome, self._composed(out)

    @abstractmethod
    def check(self, actions: Any, rows: np.ndarray) -> np.ndarray:
        """Actions as float32 (N, act); a sentence where one is not in the space."""

    @abstractmethod
    def _charges(self) -> tuple:
        """What ``settling`` takes besides the fees of the market."""

    def _manner(self) -> tuple:
        """What ``deciding`` takes besides what all do."""
        return self._charges()

    @abstractmethod
    def _check_tape(self, rows: np.ndarray) -> None:
        """An interval must not have overwritten what it wrote."""

    @abstractmethod
    def _rewarded(self, outcome: Outcome, rows: np.ndarray) -> Outcome:
        """The terms that were chosen in the place of those of the ledger."""

    @abstractmethod
    def _composed(self, out: np.ndarray) -> np.ndarray:
        """An observation, as the blocks that were chosen have it."""
