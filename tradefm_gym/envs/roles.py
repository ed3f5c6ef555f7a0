"""What an agent's seat is: actions become orders, the market becomes an observation and a reward."""

from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from tradefm_gym.envs.clocks import Clock
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.flow.row_state import RowState
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator


class Outcome(NamedTuple):
    """What one decision brought, for N markets. Rows that did not take part hold zeros.

    Attributes:
        reward: (N,) float64.
        terms: (N, k) int64, the named parts of the cost or gain in 1/1000 tick-lots.
        terminated: (N,) bool, the task is over.
    """

    reward: np.ndarray
    terms: np.ndarray
    terminated: np.ndarray


class StepResult(NamedTuple):
    """One decision of one role in N rows; rows that took no part hold zeros (their observation is their last state).

    Attributes:
        observation: (N, obs) float32.
        reward: (N,) float64.
        terms: (N, k) int64, 1/1000 tick-lots, named by ``role.term_names``.
        terminated: (N,) bool, the role's task is over.
        truncated: (N,) bool, the flow had nothing more to offer.
    """

    observation: np.ndarray
    reward: np.ndarray
    terms: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Role(Protocol):
    """One agent's seat in each of N markets. It decides what is seen, what is done and what is paid.

    A session attaches the role to its market once and then drives it: ``reset``, and for each decision
    ``orders``, the flow of one interval, ``closing``, ``settle``. ``observe`` may be called at any time.
    Other roles may sit in the same markets; what this one knows of their doing is on the tape.
    """

    agent_name: str  # what agents of this role are called, with a number behind it
    option_names: tuple[str, ...]  # what a reset may fix

    observation_space: spaces.Box | spaces.Dict
    low: np.ndarray  # (obs,) float32, the lowest values of what ``observe`` returns
    high: np.ndarray  # (obs,) float32
    action_space: spaces.Space
    term_names: tuple[str, ...]
    presets: np.ndarray  # (k, act) float32, the actions by number; number 0 is the zero action
    discrete: bool  # whether actions are given by number
    interval: int | None  # between two decisions, in units of the clock; None: what is usual
    clock: Clock  # set by the session
    action_kinds: str  # NumPy's letters for the kinds of numbers that an action may be
    action_rule: str  # what one row's action must be, for messages

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Takes seat ``seat`` (the owner of its orders) in every market."""
        ...

    def plan(self, options: dict[str, Any]) -> Any:
        """Reads and checks what a caller of ``reset`` fixes, before anything changes."""
        ...

    def admit(self, bank: ContextBank, contexts: np.ndarray, plan: Any = None) -> str:
        """Refuses start contexts in whose market this role would have nothing sensible to do.

        Args:
            bank: start states.
            contexts: (k,) int64, ids of it.
            plan: what ``plan`` returned, for rows of which the i-th would start in ``contexts[i]``; None: what the
                constructor fixes counts.

        Returns:
            A sentence where the task is a lesser one than was asked for, else "".

        Raises:
            ValueError: if there is no task; the message says what is needed.
        """
        ...

    def reset(self, rows: np.ndarray, scale: np.ndarray, draws: np.ndarray, plan: Any) -> None:
        """Begins an episode in the rows (N,) bool, whose start states the market holds already.

        Args:
            rows: (N,) bool.
            scale: (N,) SCALE, what is usual in each row's start context.
            draws: (N, 4) uint32, the random bits of each row's episode.
            plan: what ``plan`` returned.
        """
        ...

    def check(self, actions: Any, rows: np.ndarray) -> np.ndarray:
        """Actions as this role's kernels read them; raises a sentence where a row's action is not allowed."""
        ...

    def orders(self, rows: np.ndarray, actions: np.ndarray) -> EventBlock:
        """Orders that open the interval, cancels first."""
        ...

    def closing(self, rows: np.ndarray) -> EventBlock:
        """Orders that close it, cancels first; they meet the book before any further background event."""
        ...

    # Only other clocks than "events" need this.

    def follow(self, rows: np.ndarray) -> None:
        """Reads the tape in the midst of an interval, in rows in which it grows long."""
        ...

    # Only seats whose orders or news take time need these two.

    def ending(self, rows: np.ndarray) -> np.ndarray:
        """Those of the rows (N,) bool in which the last interval is over: all orders were taken back."""
        ...

    def finish(self, rows: np.ndarray) -> EventBlock:
        """Orders that end the task in these rows, in which nothing of the seat is on its way any more."""
        ...

    def settle(self, rows: np.ndarray) -> Outcome:
        """Books the interval: the reward, its terms and whether the task is over."""
        ...

    def observe(self) -> np.ndarray:
        """What the agent may see now (N, obs) float32, a fresh array."""
        ...

    def present(self, observation: np.ndarray) -> Any:
        """Observations (..., obs) in the form that ``observation_space`` has."""
        ...

    def action_masks(self) -> np.ndarray:
        """Which of ``presets`` can be done as they say now (N, k) bool."""
        ...

    def start_info(self) -> dict[str, np.ndarray]:
        """Columns (N,) that describe each row's task."""
        ...

    def step_info(self) -> dict[str, np.ndarray | dict[str, np.ndarray]]:
        """Columns (N,) that describe the last decision."""
        ...

    def final_info(self) -> dict[str, np.ndarray]:
        """Columns (N,) that describe the whole episode so far."""
        ...

    def resting_orders(self, row: int) -> dict[int, int]:
        """Own resting lots by price (ticks) in one row."""
        ...

    def headline(self, row: int) -> str:
        """One line that says how far the task of a row is."""
        ...

    # Only copies of a session need what follows, and that ``copy.copy`` of a role can be attached to another market.

    def snapshot(self, rows: np.ndarray) -> RowState:
        """What the role keeps of the rows (k,) int64, which may repeat, as a value."""
        ...

    def restore(self, state: RowState, rows: np.ndarray) -> None:
        """Writes to the rows (k,) int64 what ``RowState.check`` has passed."""
        ...
