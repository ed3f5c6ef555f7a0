"""What roles that hold a position share: limits, a ledger in basis points of the limit, liquidation at the end."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from tradefm_gym.arguments import one_of, whole
from tradefm_gym.envs.knowledge import rings
from tradefm_gym.envs.position_ledger import STATE, settle_interval
from tradefm_gym.envs.position_observation import POSITION_BLOCKS, fill_observations
from tradefm_gym.envs.position_orders import close_interval
from tradefm_gym.envs.reward import Term, booked
from tradefm_gym.envs.reward_terms import POSITION
from tradefm_gym.envs.seat import HALF_TICK, RESTING, oldest_orders
from tradefm_gym.envs.seat_role import SeatRole
from tradefm_gym.flow.protocol import ContextBank
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

MAX_LOTS = 2**30  # an order from one limit to the other still fits its field
MAX_PENALTY = 2**20
PENALTY_SHAPES = ("linear", "quadratic")


class PositionRole(SeatRole):
    """A seat that buys and sells for a number of decisions, within a limit, and then goes home flat.

    At the end of the last interval all own orders are cancelled and the position crosses at any price. What the book
    cannot take then is charged at one spread beyond all that was seen of it. If the flow ends before, the episode is
    truncated and the position stays as it is, marked to the mid.

    Args:
        interval: between two decisions, in units of the session's clock; None: 16 events, or what they usually take.
        decisions: decisions of an episode.
        inventory_penalty: 1/1000 ticks for each lot that is held after a decision; no money changes hands.
        penalty_shape: "linear", or "quadratic": for inventory^2 / limit lots, so that both are equal at the limit.
        discrete: offer ``presets`` by number instead of the box.
        reward: terms of which the reward is the sum: those of ``known_terms``, see ``reward.read_reward``; None for all
            that the ledger books.
        observation: "flat", or "dict" of the blocks by name.
        blocks: names of the blocks that are seen; None for ``POSITION_BLOCKS``.
        recent_events: events of the tape that are seen besides.

    Raises:
        ValueError: if an argument is not allowed.
    """

    blocks = POSITION_BLOCKS
    state_dtype = STATE
    settling = staticmethod(settle_interval)
    filling = staticmethod(fill_observations)
    quoting: bool  # what actions are: quotes, or a target
    spare = 2  # a bid and an ask

    def __init__(
        self,
        interval: int | None,
        decisions: int,
        inventory_penalty: int,
        penalty_shape: str,
        discrete: bool,
        reward: Any = None,
        observation: str = "flat",
        blocks: Any = None,
        recent_events: int = 0,
    ):
        super().__init__(interval, decisions, discrete, reward, observation, blocks, recent_events)
        self.inventory_penalty = whole("inventory_penalty", inventory_penalty, 0, MAX_PENALTY)
        self.penalty_shape = one_of("penalty_shape", penalty_shape, PENALTY_SHAPES)

    def attach(self, market: MarketSimulator, seat: int) -> None:
        """Allocates the state of the market's N rows."""
        super().attach(market, seat)
        for state in (self.state, self.seen.state):
            state["limit"], state["size"], state["arrival_mid2"] = 1, 1, 2

    def admit(self, bank: ContextBank, contexts: np.ndarray, plan: Any = None) -> str:
        """Every market will do: quotes and positions are measured by its usual order."""
        return ""

    @abstractmethod
    def limits(self, scale: np.ndarray, fixed: Any) -> tuple[int, int]:
        """Limit and largest quote (lots) of one row.

        Args:
            scale: () SCALE of its start context.
            fixed: what ``plan`` says of it.
        """

    def reset(self, rows: np.ndarray, scale: np.ndarray, draws: np.ndarray, plan: list) -> None:
        """Begins an episode in ``rows``; see ``Role.reset``."""
        chosen = np.flatnonzero(rows)
        usual = self.scale[chosen] = scale[chosen]
        paces = self.clock.events(self.interval, usual)
        state = np.zeros(len(chosen), STATE)
        for i, m in enumerate(chosen.tolist()):
            state["limit"][i], state["size"][i] = self.limits(usual[i], plan[m])
        state["decisions"] = self.decisions
        state["spread"] = np.maximum(1, np.rint(usual["spread"]))
        state["pace"] = paces
        state["variance"] = usual["volatility"] ** 2 * paces
        self.state[chosen], self.resting[chosen] = state, np.zeros((), RESTING)
        self._look_first(chosen)
        self._know_first(rows)

    def _close(self, market: Any, rows: np.ndarray) -> EventBlock:
        """Liquidates at the end, and crosses where that was asked for."""
        block, seen = self.block, (self.seen.state, self.seen.resting)
        clock, accounts = self.market.clock_ns, market.accounts
        close_interval(*seen, *rings(market), accounts, rows, clock, self.seat, block.events, block.count)
        return block

    @staticmethod
    def held(state: np.ndarray) -> np.ndarray:
        """Lots held, of either sign (N,)."""
        return np.abs(state["inventory"])

    @staticmethod
    def most(state: np.ndarray) -> np.ndarray:
        """The largest position, lots (N,)."""
        return state["limit"]

    @staticmethod
    def gained(state: np.ndarray) -> np.ndarray:
        """The profit so far, penalties included (N,) int64."""
        return state["profit"]

    def _catch_up(self, rows: np.ndarray, over: np.ndarray) -> None:
        super()._catch_up(rows, over)
        seen, live = self.seen.state, rows & ~over
        worth = seen["cash"] + seen["inventory"] * seen["decision_mid2"] * HALF_TICK - seen["fees"]
        seen["profit"][live] = worth[live]  # without a penalty, which would tell the market's present

    def _charges(self) -> tuple:
        return self.inventory_penalty, self.penalty_shape == "quadratic"

    def _manner(self) -> tuple:
        return (*self._charges(), self.quoting)

    def _queue_ahead(self) -> np.ndarray:
        """Lots ahead of the oldest own bid and ask (N, 2) int64; 0 or less where there is none."""
        oldest = np.empty((len(self.seen.state), 2), np.int64)
        oldest_orders(self.seen.state, self.seen.resting, oldest)
        if (oldest < 0).all():
            return oldest
        return np.maximum(self.view.queue_ahead(self.seat, oldest), 0)  # one on its way is nowhere

    def headline(self, row: int) -> str:
        """One line that says how far the task of a row is."""
        state = self.state[row]
        return (
            f"{self.agent_name} holds {state['inventory']:+d} of at most {state['limit']} lots, decision "
            f"{state['decision']} of {state['decisions']}, mid {state['decision_mid2'] / 2:g} (arrival "
            f"{state['arrival_mid2'] / 2:g}), profit {self._basis_points()[row] * state['profit']:.2f} bps"
        )

    def start_info(self) -> dict[str, np.ndarray]:
        """Decisions, the arrival mid, and what is usual in the start context, in ticks.

        These are the median spread (``usual_spread``) and the standard deviation of the mid's move between two
        decisions (``usual_move``).
        """
        state, scale = self.state, self.scale
        return {
            "decisions": state["decisions"].copy(),
            "arrival_mid": 0.5 * state["arrival_mid2"],
            "usual_spread": scale["spread"].copy(),
            "usual_move": scale["volatility"] * np.sqrt(state["pace"]),
        }

    def step_info(self) -> dict[str, np.ndarray | dict[str, np.ndarray]]:
        """Decisions made, lots held, bought and sold, the mid without own orders, and the terms in basis points."""
        state, basis_points = self.state, self._basis_points()
        return {
            "decision": state["decision"].copy(),
            "inventory": state["inventory"].copy(),
            "bought": state["bought"].copy(),
            "sold": state["sold"].copy(),
            "arrival_mid": 0.5 * state["arrival_mid2"],
            "mid": 0.5 * state["decision_mid2"],
            "terms": dict(zip(self.term_names, self.terms.T * basis_points, strict=True)),
        }

    def final_info(self) -> dict[str, np.ndarray]:
        """The episode: profit in basis points of the limit's arrival notional, lots traded, and how.

        ``maker_share`` is the part of them that was traded while resting, ``peak`` the largest position as part of
        the limit.
        """
        state = self.state
        return {
            "profit_bps": state["profit"] * self._basis_points(),
            "traded": state["executed"].copy(),
            "maker_share": state["made"] / np.maximum(state["executed"], 1),
            "peak": state["peak"] / state["limit"],
        }

    def _basis_points(self) -> np.ndarray:
        """What one unit of money is in basis points of the limit's arrival notional (N,)."""
        return 10_000.0 / self.notional(self.state)


def position_terms(names: tuple[str, ...]) -> dict[str, Callable[..., Term]]:
    """The terms that a role's reward may be made of, whose ledger has six of these names."""
    traded, liquidation = names[0], names[3]
    return {name: booked(name) for name in names} | {
        "profit": booked(*names[:4], name="profit"),
        "spread_captured": booked(traded, liquidation, name="spread_captured"),
        **POSITION,
    }


def usual_orders(scale: np.ndarray, number: int) -> int:
    """Lots of so many orders of the start context's median size, at least ``number``."""
    size = float(scale["median_size"])
    size = max(1.0, size) if math.isfinite(size) else 1.0
    return min(round(number * size), MAX_LOTS)


def lots(name: str, value: Any) -> int | None:
    """A number of lots, or None."""
    return None if value is None else whole(name, value, 1, MAX_LOTS)
