"""A flow under stress: it passes on what another flow proposes, and does to it what a scenario says, row by row.

A row that no scenario concerns gets the other flow's proposals as they are. All draws are the market's own, named by
its seed, its episode and the number of the proposal (purpose SCENARIO), so the other flow's random numbers stay where
they were, and a row is the same whatever its neighbours do.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tradefm_gym import rng
from tradefm_gym.arguments import row_numbers
from tradefm_gym.flow.indicators import INDICATORS, UNTOLD
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.row_state import RowState, checked_state, owner_of_flow
from tradefm_gym.flow.scenarios import Effect, Scenario, described, indicators_of, read_scenario
from tradefm_gym.flow.stress_kernels import EFFECT, PROGRESS, WITHDRAWALS, due, emit
from tradefm_gym.market.events import BACKGROUND, BUY, CANCEL, EVENT, SELL, EventBlock
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator

_CALM, _AT_FIRST = np.zeros((), EFFECT), np.zeros((), PROGRESS)
_WIDTH = 64  # events a row that a call proposes at most, or the other flow's block if that is larger


class StressedFlow:
    """Another flow, with a scenario in each of its markets or none. Satisfies ``FlowModel``.

    Args:
        flow: for N markets.
        scenario: what every episode meets that ``choose`` does not say otherwise of (see ``scenarios.read_scenario``).

    Raises:
        ValueError: if there is no such scenario, it does not suit the flow, or the flow is under stress already.
    """

    def __init__(self, flow: FlowModel, scenario: Any = None):
        if isinstance(flow, StressedFlow):
            raise ValueError(f"flow {flow.name!r} is a StressedFlow; it must be the flow that this one is made of")
        self.flow, self.usual = flow, read_scenario(scenario, flow)
        self.indicators, self.recorded = indicators_of(flow), getattr(flow, "recorded", False)
        self.name, self.num_envs, self.bank = flow.name, flow.num_envs, flow.bank
        self.version = flow.version if self.usual is None else f"{flow.version} {described(self.usual)}"
        block = getattr(flow, "block", _WIDTH)
        self.block = max(_WIDTH, block)
        n = self.num_envs
        self._chosen = np.empty(n, object)  # the scenario of the next episode
        self._chosen[:] = self.usual
        self._scenario = np.empty(n, object)  # that of this one
        self._calm = np.full(n, "", object)
        self._effect = np.zeros(n, EFFECT)
        self._told = np.zeros((n, 2, len(INDICATORS)), np.int64)  # fixed and added classes
        self._progress = np.zeros(n, PROGRESS)
        self._pending = np.zeros((n, block), EVENT)
        self._seeds = np.zeros(n, np.uint64)
        self._episodes = np.zeros(n, np.uint32)

    def choose(self, rows: np.ndarray, scenarios: Sequence[Scenario | None]) -> None:
        """Sets the scenarios of the next episodes in rows (k,), each as ``read_scenario`` gave it; None: the usual."""
        for row, scenario in zip(rows.tolist(), scenarios, strict=True):
            self._chosen[row] = self.usual if scenario is None else scenario

    def running(self) -> np.ndarray:
        """The scenario of each row in words (see ``scenarios.described``), "" without one: (N,) object."""
        column = self._calm.copy()
        for row in self._effect["stressed"].nonzero()[0].tolist():
            column[row] = described(self._scenario[row])
        return column

    @property
    def withdrawn(self) -> np.ndarray:
        """Orders that scenarios have cancelled since the reset, (N,) int64; a copy."""
        return self._progress["withdrawn"].copy()

    def market_config(self, seats: int = 1) -> MarketConfig:
        """Capacities of a market for the other flow."""
        return self.flow.market_config(seats)

    def reset(
        self, market: MarketSimulator, rows: np.ndarray, contexts: np.ndarray, seeds: np.ndarray, episodes: np.ndarray
    ) -> None:
        """Loads start states and begins the chosen scenarios anew (see ``FlowModel.reset``)."""
        self.flow.reset(market, rows, contexts, seeds, episodes)
        chosen = rows.nonzero()[0]
        self._scenario[chosen] = self._chosen[chosen]
        self._seeds[chosen], self._episodes[chosen] = np.asarray(seeds)[chosen], np.asarray(episodes)[chosen]
        self._progress[chosen] = _AT_FIRST
        self._progress["emitted_ns"][chosen] = self._progress["proposed_ns"][chosen] = market.clock_ns[chosen]
        self._effect[chosen], self._told[chosen] = _CALM, 0
        for row in chosen.tolist():
            if self._scenario[row] is not None:
                scale = self.bank.scale[contexts[row]]
                self._enter(row, self._scenario[row].effect(self.flow, scale), float(scale["event_ns"]))

    def _enter(self, row: int, effect: Effect, event_ns: float) -> None:
        """Writes down what a scenario does to a row."""
        numbers = self._effect[row]
        for name in EFFECT.names or ():
            if name not in ("stressed", "gap_ns"):
                numbers[name] = getattr(effect, name)
        numbers["stressed"], numbers["gap_ns"] = True, effect.pace * event_ns
        self._told[row, 0], self._told[row, 1] = UNTOLD, 0
        for name, value in effect.indicators:
            self._told[row, 0 if effect.fixed else 1, INDICATORS.index(name)] = value

    @property
    def parts(self) -> int:
        """In how many parts the other flow likes its rows, see ``halves``."""
        return getattr(self.flow, "parts", 1)

    def begin(self, market: MarketSimulator, wanted: np.ndarray) -> None:
        """Lets the other flow begin, unless a scenario will have its say first."""
        if self.parts > 1 and not (wanted & self._effect["stressed"]).any():
            self.flow.begin(market, wanted)  # pyright: ignore[reportAttributeAccessIssue]

    def next_events(self, market: MarketSimulator, wanted: np.ndarray) -> EventBlock:
        """The next events of wanted rows (N,) bool, those that a scenario adds among them."""
        stressed = wanted & self._effect["stressed"]
        if not stressed.any():
            return self.flow.next_events(market, wanted)
        block = EventBlock.empty(self.num_envs, max(self.block, self._most_withdrawn()))
        self._begin(market, stressed, block)
        open_ = stressed & (block.count == 0)
        calm = wanted & ~stressed
        asked = calm | (open_ & (self._progress["left"] == 0) & ~due(self._progress, self._effect))
        if asked.any():
            self._take(self.flow.next_events(market, asked), asked & stressed, calm, block)
        follows = bool(getattr(self.flow, "follows_tape", False))
        emit(
            block.events, block.count, open_, self._pending, self._progress, self._effect, self._seeds,
            self._episodes, self.block, follows,
        )  # fmt: skip
        return block

    def _take(self, proposed: EventBlock, kept: np.ndarray, calm: np.ndarray, block: EventBlock) -> None:
        """Keeps the proposals of rows that ``emit`` goes through, and passes on those of the others."""
        width = proposed.events.shape[1]
        block.events[calm, :width], block.count[calm] = proposed.events[calm], proposed.count[calm]
        self._pending[kept] = proposed.events[kept]
        self._progress["first"][kept], self._progress["left"][kept] = 0, proposed.count[kept]

    def _begin(self, market: MarketSimulator, stressed: np.ndarray, block: EventBlock) -> None:
        """Where a scenario starts or stops: what the network is told, and orders that are withdrawn to ``block``."""
        made, effect, begun = self._progress["made"], self._effect, self._progress["begun"]
        starting = np.flatnonzero(stressed & (begun == 0) & (made >= effect["start"]))
        stopping = np.flatnonzero(stressed & (begun == 1) & (made >= effect["stop"]))
        begun[starting], begun[stopping] = 1, 2
        if hasattr(self.flow, "set_indicators"):
            self.flow.set_indicators(starting, self._told[starting, 0], self._told[starting, 1])  # type: ignore
            untold = np.full((len(stopping), len(INDICATORS)), UNTOLD)
            self.flow.set_indicators(stopping, untold, np.zeros_like(untold))  # type: ignore
        for row in starting.tolist():
            if effect["withdrawn"][row] > 0:
                self._withdraw(market, row, block)

    def _withdraw(self, market: MarketSimulator, row: int, block: EventBlock) -> None:
        """Cancels of a share of the background's orders nearest to the touch, at the time of the last event."""
        pool, effect, drawn = market.book.orders[row], self._effect[row], []
        for number, side in enumerate((BUY, SELL)):
            orders = pool[(pool["size"] > 0) & (pool["owner"] == BACKGROUND) & (pool["side"] == side)]
            orders = orders[np.lexsort((orders["order_id"], -side * orders["price"]))][: effect["orders"]]
            place = WITHDRAWALS + np.uint64(number)
            words = rng.bits_array(self._seeds[row], self._episodes[row], place, rng.SCENARIO, len(orders))[0]
            chosen = np.argsort(words, kind="stable")[: round(effect["withdrawn"] * len(orders))]
            drawn.append((words[chosen], orders[chosen]))
        words, gone = (np.concatenate(part) for part in zip(*drawn, strict=True))
        gone = gone[np.argsort(words, kind="stable")]  # the sides mixed: the last to go would look like news
        cancels = block.events[row, : len(gone)]
        cancels["time_ns"], cancels["kind"], cancels["side"] = self._progress["emitted_ns"][row], CANCEL, gone["side"]
        cancels["order_id"] = gone["order_id"]
        block.count[row] = self._progress["withdrawn"][row] = len(gone)

    def _most_withdrawn(self) -> int:
        return 2 * int(self._effect["orders"].max())

    # ---- copies --------------------------------------------------------------------------------

    def for_markets(self, num_envs: int) -> "StressedFlow":
        """Another flow of the same settings (see ``FlowModel.for_markets``)."""
        return StressedFlow(self.flow.for_markets(num_envs), self.usual)

    def snapshot(self, rows: np.ndarray | None = None) -> RowState:
        """What is remembered of rows, the other flow's memory included (see ``FlowModel.snapshot``)."""
        rows = row_numbers(rows, self.num_envs, repeats=True)
        own, other = RowState.of("", self.kept(), rows), self.flow.snapshot(rows)
        return RowState(f"{other.owner} under {owner_of_flow(self)}", {**other.arrays, **own.arrays})

    def restore(self, state: RowState, rows: np.ndarray | None = None) -> None:
        """Puts a snapshot into rows (see ``FlowModel.restore``)."""
        rows = row_numbers(rows, self.num_envs)
        checked_state(state).check(self.snapshot(rows[:0]), len(rows))
        own, like = self.kept(), self.flow.snapshot(rows[:0])
        others = {name: array for name, array in state.arrays.items() if name not in own}
        self.flow.restore(RowState(like.owner, others), rows)
        for name, array in own.items():
            array[rows] = state.arrays[name]

    def kept(self) -> dict[str, np.ndarray]:
        """What is remembered of each row beside the other flow's memory, by name; the arrays themselves."""
        names = ("chosen", "scenario", "effect", "told", "progress", "pending", "seeds", "episodes")
        return {f"stress_{name}": getattr(self, f"_{name}") for name in names}
