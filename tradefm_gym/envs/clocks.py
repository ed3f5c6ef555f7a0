"""What a decision waits for: background events, time, or lots traded. A further clock is one class and one line.

A clock says how much of it an interval is and when a market has come to its end. Each market has its own: of two rows,
one may see twice as many events within a second as the other.
"""

from typing import Protocol

import numpy as np

from tradefm_gym.arguments import one_of, shortened, whole
from tradefm_gym.market.latency import MAX_NS
from tradefm_gym.market.simulator import MarketSimulator

USUAL_EVENTS = 16  # an interval where nobody says how long it is
MAX_EVENTS = 2**20  # within one interval: a tape of them takes some 300 MB a market
MAX_LOTS = 2**31 - 1
LONGEST = MAX_NS  # of all clocks, in their units


class Clock(Protocol):
    """What separates decisions."""

    name: str
    unit: str  # of an interval
    most: int  # units

    def lapse(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """Units of each row's interval (N,) int64.

        Args:
            interval: units, None for what ``USUAL_EVENTS`` background events usually take of them.
            scale: (N,) SCALE, what is usual in each row's market.
        """
        ...

    def events(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """Background events that usually happen within an interval (N,) float64."""
        ...

    def end(self, market: MarketSimulator, lapse: np.ndarray) -> dict[str, np.ndarray]:
        """What ``MarketSimulator.advance`` is told for rows whose interval begins now and is ``lapse`` (N,) int64."""
        ...


class EventClock:
    """Counts background events: rows stay in step, and nothing that an agent does brings the next decision nearer."""

    name, unit, most = "events", "events", MAX_EVENTS

    def lapse(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.lapse``."""
        return np.full(len(scale), USUAL_EVENTS if interval is None else interval, np.int64)

    def events(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.events``."""
        return self.lapse(interval, scale).astype(np.float64)

    def end(self, market: MarketSimulator, lapse: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Clock.end``."""
        return {"until_count": market.background_count + lapse}


class TimeClock:
    """Measures the time of the market in nanoseconds."""

    name, unit, most = "time", "ns", MAX_NS

    def lapse(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.lapse``."""
        return _units(interval, scale["event_ns"], self.most)

    def events(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.events``."""
        return _events(self.lapse(interval, scale), scale["event_ns"])

    def end(self, market: MarketSimulator, lapse: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Clock.end``."""
        return {"until_ns": market.clock_ns + lapse}


class VolumeClock:
    """Counts lots that are traded in the market, by whomever: those of the agents as well."""

    name, unit, most = "volume", "lots", MAX_LOTS

    def lapse(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.lapse``."""
        return _units(interval, scale["lots_per_event"], self.most)

    def events(self, interval: int | None, scale: np.ndarray) -> np.ndarray:
        """See ``Clock.events``."""
        return _events(self.lapse(interval, scale), scale["lots_per_event"])

    def end(self, market: MarketSimulator, lapse: np.ndarray) -> dict[str, np.ndarray]:
        """See ``Clock.end``."""
        return {"until_volume": market.executed + lapse}


EVENTS = EventClock()
CLOCKS: dict[str, Clock] = {clock.name: clock for clock in (EVENTS, TimeClock(), VolumeClock())}


def clock_of(name: object, interval: int | None) -> Clock:
    """The clock of a name, which takes such an interval.

    Raises:
        ValueError: if there is no such clock, or the interval is none of its.
    """
    clock = CLOCKS[one_of("clock", name, tuple(CLOCKS))]
    if interval is not None and not 1 <= interval <= clock.most:
        allowed = f"an integer from 1 to {clock.most} ({clock.unit})"
        raise ValueError(f"interval is {shortened(interval)}; with clock {clock.name!r} it must be {allowed}")
    return clock


def checked_interval(interval: object) -> int | None:
    """An interval that some clock takes, or None."""
    return None if interval is None else whole("interval", interval, 1, LONGEST)


def _units(interval: int | None, each: np.ndarray, most: int) -> np.ndarray:
    """Units of each row's interval, where a background event usually takes ``each`` (N,) of them."""
    if interval is not None:
        return np.full(len(each), interval, np.int64)
    return np.clip(np.rint(USUAL_EVENTS * np.nan_to_num(each)), 1, most).astype(np.int64)


def _events(lapse: np.ndarray, each: np.ndarray) -> np.ndarray:
    """Events in so many units (N,) float64; a market of which nothing is known passes for a usual one."""
    known = np.isfinite(each) & (each > 0)
    events = lapse / np.where(known, each, 1.0)
    return np.clip(np.where(known, events, USUAL_EVENTS), 1e-3, MAX_EVENTS)
