"""Stress scenarios by name: what may be done to a background flow from a given event on, in plain numbers.

A scenario is a frozen dataclass whose fields are what a caller may set, and whose ``effect`` says in the numbers of
``Effect`` what happens; one of your own is such a class and an entry in ``SCENARIOS``. Events are counted as the flow
proposes them, from 0 at the reset. ``stressed.StressedFlow`` carries scenarios out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from tradefm_gym.arguments import numbers, shortened, whole
from tradefm_gym.flow.indicators import INDICATORS
from tradefm_gym.flow.protocol import FlowModel
from tradefm_gym.market.events import BUY, SELL

FOREVER = 1 << 62
MOST_TAKERS, MOST_CANCELS = 1 << 16, 240  # of a scenario; and at one instant, whom a market's queue must hold
_SIDES = {"buy": BUY, "sell": SELL}


class Effect(NamedTuple):
    """What a scenario does to one market. The default changes nothing.

    Attributes:
        start, stop: proposals of the flow, the first and the one after the last, that are concerned.
        takers: market orders before every ``every``-th of them.
        most_takers: in all.
        side: of the takers, 0 to draw it for each.
        lots: of each.
        every: see ``takers``.
        pace: factor of the waits between events.
        withheld: probability that an add may not rest.
        orders: of those nearest to the touch on each side, of which ...
        withdrawn: ... this share is cancelled at the start.
        indicators: class of each of ``INDICATORS`` that the flow's network is told, or added to its own.
        fixed: whether it is told instead of added.
    """

    start: int
    stop: int
    takers: int = 0
    most_takers: int = 0
    side: int = 0
    lots: int = 1
    every: int = 1
    pace: float = 1.0
    withheld: float = 0.0
    orders: int = 0
    withdrawn: float = 0.0
    indicators: tuple[tuple[str, int], ...] = ()
    fixed: bool = False


class Scenario(Protocol):
    """A named way to stress a market."""

    def check(self, flow: FlowModel) -> None:
        """Refuses parameters that are not allowed, and flows that it does not suit."""
        ...

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """What it does to a market of a flow in which ``scale`` () SCALE is usual."""
        ...


@dataclass(frozen=True)
class OneSidedBurst:
    """Events come ``factor`` times as fast, and all but one of ``factor`` are takers of one side."""

    side: str = "buy"
    start: int = 256  # number of the event before which it begins
    events: int = 128  # of the flow and of the burst together
    factor: int = 10
    size: float = 1.0  # of each taker, in usual order sizes

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        _check_window(self.start, self.events)
        _check_side(self.side)
        whole("factor", self.factor, 2, 64)
        _check_number("size", self.size, 0.0, 1000.0)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        own = -(-self.events // self.factor)
        return Effect(
            self.start, self.start + own, takers=self.factor - 1, most_takers=self.events - own,
            side=_SIDES[self.side], lots=_lots(self.size * scale["median_size"]), pace=1.0 / self.factor,
        )  # fmt: skip


@dataclass(frozen=True)
class VolatilityShock:
    """Large takers of either side, drawn by the market's own uniforms."""

    start: int = 256
    events: int = 256  # of the flow
    every: int = 8  # events of the flow for each taker
    size: float = 0.5  # in usual sizes of a touch

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        _check_window(self.start, self.events)
        whole("every", self.every, 1, 1024)
        _check_number("size", self.size, 0.0, 1000.0)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        return Effect(
            self.start, self.start + self.events, takers=1, most_takers=MOST_TAKERS, every=self.every,
            lots=_lots(self.size * scale["touch_size"]), pace=self.every / (self.every + 1.0),
        )  # fmt: skip


@dataclass(frozen=True)
class LiquidityWithdrawal:
    """Most orders near the touch are cancelled at one instant, and for a while fewer new ones come to rest."""

    start: int = 256
    events: int = 128  # of the flow, during which orders are withheld
    share: float = 0.8  # of the orders nearest to the touch that go
    orders: int = 80  # how many of them are looked at on each side
    withheld: float = 0.25  # probability that a new order may not rest

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        _not_recorded(self, flow, "the cancels of a record name the orders that would be gone")
        _check_window(self.start, self.events)
        _check_number("share", self.share, 0.0, 1.0)
        whole("orders", self.orders, 1, MOST_CANCELS // 2)
        _check_number("withheld", self.withheld, 0.0, 1.0)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        return Effect(
            self.start, self.start + self.events, orders=self.orders, withdrawn=self.share, withheld=self.withheld
        )


@dataclass(frozen=True)
class Thin:
    """A quiet market: the lowest class of liquidity, or events half as fast where no network is told of it."""

    start: int = 0
    events: int | None = None  # of the flow; None: to the end

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        _not_recorded(self, flow, "a record keeps its own pace")
        _check_window(self.start, self.events, endless=True)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        return _regime(flow, self.start, self.events, 0, 2.0)


@dataclass(frozen=True)
class Busy:
    """A lively market: the highest class of liquidity, or events twice as fast where no network is told of it."""

    start: int = 0
    events: int | None = None

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        _not_recorded(self, flow, "a record keeps its own pace")
        _check_window(self.start, self.events, endless=True)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        return _regime(flow, self.start, self.events, -1, 0.5)


@dataclass(frozen=True)
class Control:
    """Control indicators that a network is told otherwise than the tape shows; nothing else is touched.

    Each of ``indicators.INDICATORS`` is a number of classes that is added to what the tape shows, or with ``fixed``
    the class that is told instead.
    """

    liquidity: int | None = None
    spread: int | None = None
    fast: int | None = None
    slow: int | None = None
    level: int | None = None
    wide: int | None = None
    bid: int | None = None
    ask: int | None = None
    pace: int | None = None
    fixed: bool = False
    start: int = 0
    events: int | None = None

    def check(self, flow: FlowModel) -> None:
        """See ``Scenario``."""
        classes = indicators_of(flow)
        if not classes:
            raise ValueError(f"scenario 'control' cannot run on flow {flow.name!r}; it needs a flow of a network")
        told = self._told()
        if not told:
            raise ValueError(f"scenario 'control' names no indicator; allowed are {', '.join(classes)}")
        for name, value in told:
            if name not in classes:
                raise ValueError(
                    f"scenario 'control' names {name!r}, which flow {flow.name!r} is not told; allowed are "
                    f"{', '.join(classes)}"
                )
            most = classes[name] - 1
            whole(f"{name} of scenario 'control'", value, 0 if self.fixed else -most, most)
        _check_window(self.start, self.events, endless=True)

    def effect(self, flow: FlowModel, scale: np.ndarray) -> Effect:
        """See ``Scenario``."""
        return Effect(self.start, _stop(self.start, self.events), indicators=self._told(), fixed=self.fixed)

    def _told(self) -> tuple[tuple[str, int], ...]:
        return tuple((name, getattr(self, name)) for name in INDICATORS if getattr(self, name) is not None)


SCENARIOS: dict[str, type] = {
    "one_sided_burst": OneSidedBurst,
    "volatility_shock": VolatilityShock,
    "liquidity_withdrawal": LiquidityWithdrawal,
    "thin": Thin,
    "busy": Busy,
    "control": Control,
}


def read_scenario(value: Any, flow: FlowModel) -> Scenario | None:
    """A scenario as callers name it: its name, a dict of ``name`` and parameters, one of the classes, or None.

    Raises:
        ValueError: in one sentence, if there is no such scenario or parameter, or it does not suit the flow.
    """
    if value is None:
        return None
    scenario = value if type(value) in SCENARIOS.values() else _named(value)
    scenario.check(flow)
    return scenario


def read_scenarios(value: Any, flow: FlowModel, n: int) -> list[Scenario | None]:
    """The scenario of each of n markets: ``value`` is one for all, or a list with one for each."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        return [read_scenario(value, flow)] * n
    if len(value) != n:
        raise ValueError(f"scenario in options has {len(value)} values; it must have one or {n}")
    return [read_scenario(one, flow) for one in value]


def described(scenario: Scenario | None) -> str:
    """A scenario with every parameter that is not None, for people and for ``info``; "" for none."""
    if scenario is None:
        return ""
    made: Any = type(scenario)
    values = [(field.name, getattr(scenario, field.name)) for field in fields(made)]
    return f"{_name_of(scenario)}({', '.join(f'{name}={value}' for name, value in values if value is not None)})"


def indicators_of(flow: FlowModel) -> dict[str, int]:
    """The control indicators that a flow's network is told, and how many classes each has; none without a network."""
    return getattr(flow, "indicators", {})


def _named(value: Any) -> Any:
    words = {"name": value} if isinstance(value, str) else value
    name = words.get("name") if isinstance(words, Mapping) else None
    if not isinstance(name, str) or name not in SCENARIOS:
        raise ValueError(f"scenario is {shortened(value)}; allowed are {', '.join(SCENARIOS)}, or a dict with a name")
    made = SCENARIOS[name]
    known = [field.name for field in fields(made)]
    given = {key: one for key, one in words.items() if key != "name"}
    for key in given:
        if key not in known:
            raise ValueError(f"scenario {name!r} has no parameter {shortened(key)}; allowed are {', '.join(known)}")
    return made(**given)


def _name_of(scenario: Any) -> str:
    return next(name for name, made in SCENARIOS.items() if type(scenario) is made)


def _regime(flow: FlowModel, start: int, events: int | None, tier: int, pace: float) -> Effect:
    """The class ``tier`` of the liquidity (-1: the highest), or a pace where there is none."""
    classes = indicators_of(flow).get("liquidity")
    if classes is None:
        return Effect(start, _stop(start, events), pace=pace)
    return Effect(start, _stop(start, events), indicators=(("liquidity", tier % classes),), fixed=True)


def _stop(start: int, events: int | None) -> int:
    return FOREVER if events is None else start + events


def _lots(size: Any) -> int:
    return min(max(math.floor(float(size) + 0.5), 1), 1 << 24)


def _check_window(start: Any, events: Any, endless: bool = False) -> None:
    whole("start of a scenario", start, 0, 1 << 40)
    if events is not None or not endless:
        whole("events of a scenario", events, 1, 1 << 16)


def _check_side(side: Any) -> None:
    if not isinstance(side, str) or side not in _SIDES:
        raise ValueError(f"side of a scenario is {shortened(side)}; allowed are {', '.join(_SIDES)}")


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    given = numbers(value)
    if given is None or given.shape != () or not least <= given <= most:
        raise ValueError(f"{name} of a scenario is {shortened(value)}; it must be a number from {least:g} to {most:g}")


def _not_recorded(scenario: Any, flow: FlowModel, why: str) -> None:
    if getattr(flow, "recorded", False):
        raise ValueError(f"scenario {_name_of(scenario)!r} cannot run on flow {flow.name!r}: {why}")
