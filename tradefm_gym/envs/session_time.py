"""How time passes in a session: orders go out, the flow proposes what happens next, an interval comes to its end."""

import numpy as np
from numba import njit

from tradefm_gym.envs.clocks import EVENTS, MAX_EVENTS, USUAL_EVENTS, Clock
from tradefm_gym.envs.roles import Role
from tradefm_gym.flow.halves import go_on
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.flow.stressed import StressedFlow
from tradefm_gym.market.events import CANCEL, EVENT, EventBlock
from tradefm_gym.market.simulator import MarketSimulator

_READ = 4  # roles read the tape each time that this part of it may have been written


class SessionTime:
    """What a session does between two decisions. ``TradingSession`` is the class to use."""

    num_envs: int
    roles: tuple[Role, ...]
    flow: FlowModel
    stress: StressedFlow
    clock: Clock
    interval: int | None
    market: MarketSimulator
    context_of: np.ndarray
    running: np.ndarray
    active: np.ndarray
    _shared: EventBlock | None = None  # orders of all roles, where they write them into one array

    def submit(self, orders: EventBlock) -> None:
        """Hands orders of seats to the markets; they are due when they say."""
        if orders.count.any():
            self.market.submit(orders)

    def advance(self, rows: np.ndarray, events: int | np.ndarray) -> np.ndarray:
        """Lets ``events`` background events, one number or (N,), happen in the rows, and agents' orders that fall due.

        Returns:
            (N,) bool, rows whose flow ended before that.
        """
        return self._run(self.market.background_count + np.where(rows, events, 0))

    def _run(self, until: np.ndarray, starved: np.ndarray | None = None, **ends: np.ndarray) -> np.ndarray:
        """Goes on to a count of background events, or to another end that ``MarketSimulator.advance`` knows."""
        return go_on(self.market, self.stress, until, starved, None, **ends)

    def _pass_interval(self, rows: np.ndarray) -> np.ndarray:
        """Lets one interval pass in the rows; those (N,) bool whose flow ended before it was over."""
        if self.clock is EVENTS:
            return self.advance(rows, self.interval or USUAL_EVENTS)
        lapse = self.clock.lapse(self.interval, self.flow.bank.scale[self.context_of])
        return self._pass(rows, **self.clock.end(self.market, lapse))

    def _pass(self, rows: np.ndarray, **ends: np.ndarray) -> np.ndarray:
        """Goes on in the rows to their ends, or for ``MAX_EVENTS``; rows (N,) bool whose flow ended before.

        How many events that takes is not known: roles read the tape before it is written anew.
        """
        market, going, exhausted = self.market, rows.copy(), np.zeros(self.num_envs, np.bool_)
        start, part = market.background_count.copy(), max(1, market.config.tape // _READ)
        while going.any():
            until = market.background_count + np.where(going, part, 0)
            ended = self._run(until, **ends)
            exhausted |= ended
            going &= ~ended & (market.background_count >= until) & (market.background_count - start < MAX_EVENTS)
            if going.any():
                for role, active in zip(self.roles, self.active, strict=True):
                    role.follow(going & active)
        return exhausted

    def _finish(self, active: np.ndarray) -> None:
        """Ends the tasks of late seats whose last interval is over, once nothing of theirs is on its way."""
        ends = [role.ending(taking) for role, taking in zip(self.roles, active, strict=True)]
        if any(rows.any() for rows in ends):
            self._await(ends)
            self._send([role.finish(rows) for role, rows in zip(self.roles, ends, strict=True)])
            self.advance(self.running, 0)
            self._await(ends)

    def _await(self, ends: list[np.ndarray]) -> None:
        """Lets time pass until the orders that seats have on their way in rows (N,) bool of each have arrived."""
        until = self.market.clock_ns.copy()
        for seat, rows in enumerate(ends):
            block = self.market.in_flight(seat)
            due = np.arange(block.events.shape[1]) < np.where(rows, block.count, 0)[:, None]
            until = np.maximum(until, np.where(due, block.events["time_ns"], 0).max(axis=1, initial=0))
        self._pass(until > self.market.clock_ns, until_ns=until)

    def _send(self, blocks: list[EventBlock]) -> None:
        """Submits the orders of all roles; where there are several, their cancels happen before the rest.

        A single seat writes its cancels first anyway.
        """
        if len(blocks) == 1:
            self.submit(blocks[0])
            return
        shared = self._shared
        if shared is None or not all(block.events.base is shared.events for block in blocks):
            shared = _stacked(blocks)
        for cancels in (True, False):
            merged = EventBlock.empty(self.num_envs, shared.events.shape[0] * shared.events.shape[2])
            _merge(cancels, shared.events, shared.count, merged.events, merged.count)
            self.submit(merged)
            if cancels and merged.count.any():
                self.advance(self.running, 0)

    def _share_blocks(self) -> None:
        """Lets several roles write their orders into one array, from which they are merged at once."""
        blocks = [getattr(role, "block", None) for role in self.roles]
        shapes = {None if block is None else block.events.shape for block in blocks}
        if len(blocks) > 1 and len(shapes) == 1 and None not in shapes:
            self._shared = _stacked(blocks)  # type: ignore[arg-type]
            for role, events, count in zip(self.roles, *self._shared, strict=True):
                role.block = EventBlock(events, count)  # type: ignore[attr-defined]


def _stacked(blocks: list[EventBlock]) -> EventBlock:
    """The orders of all roles: events (A, N, K) and count (A, N)."""
    width = max(block.events.shape[1] for block in blocks)
    events = np.zeros((len(blocks), len(blocks[0].count), width), EVENT)
    for own, block in zip(events, blocks, strict=True):
        own[:, : block.events.shape[1]] = block.events
    return EventBlock(events, np.array([block.count for block in blocks], np.int32))


@njit(cache=True, nogil=True)
def _merge(cancels, events, count, out, out_count):
    """Writes those orders of all roles that are cancels, or those that are not, one role after the other."""
    for role in range(events.shape[0]):
        for m in range(events.shape[1]):
            for k in range(count[role, m]):
                if (events[role, m, k]["kind"] == CANCEL) == cancels:
                    out[m, out_count[m]] = events[role, m, k]
                    out_count[m] += 1
