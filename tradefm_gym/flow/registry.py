"""Flows by name: the one place that knows them all."""

import inspect
from collections.abc import Callable
from typing import Any

from tradefm_gym.arguments import known_names, shortened, whole
from tradefm_gym.flow.protocol import FlowModel


def _zero_intelligence() -> type:
    from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow

    return ZeroIntelligenceFlow


def _hawkes() -> type:
    from tradefm_gym.flow.hawkes import HawkesFlow

    return HawkesFlow


def _replay() -> type:
    from tradefm_gym.flow.replay import ReplayFlow

    return ReplayFlow


def _tradefm() -> type:
    from tradefm_gym.flow.tradefm import TradeFMFlow

    return TradeFMFlow


# name: (its class, the argument that PATH of "name:PATH" is). Imports are lazy: naming a flow loads only that one.
_FLOWS: dict[str, tuple[Callable[[], type], str | None]] = {
    "zero_intelligence": (_zero_intelligence, "parameters"),
    "hawkes": (_hawkes, "parameters"),
    "replay": (_replay, "source"),
    "tradefm": (_tradefm, "model"),
}
_PARTS = ("name", "version", "num_envs", "bank", "market_config", "reset", "next_events")  # of a FlowModel


def allowed_flows() -> str:
    """The names that ``make_flow`` understands, for messages."""
    return ", ".join(f"{name}, {name}:PATH" if path_argument else name for name, (_, path_argument) in _FLOWS.items())


def make_flow(flow: str | FlowModel, num_envs: int, **options: Any) -> FlowModel:
    """A background flow for ``num_envs`` markets.

    Args:
        flow: ``"zero_intelligence"``, ``"hawkes"``, ``"replay"`` (the bundled day), ``"tradefm"`` (the bundled model),
            each also with ``":PATH"`` of one's own parameters, day or model, or an object that is a ``FlowModel`` for
            that many markets.
        num_envs: markets N.
        **options: passed to the flow's class; none may be given beside an object.

    Raises:
        ValueError: if the name is not known, has a path it cannot use, or the object is for another N.
        TypeError: if the flow's class has no such option.
    """
    num_envs = whole("num_envs", num_envs, 1)
    if not isinstance(flow, str):
        return _checked(flow, num_envs, options)
    name, colon, path = flow.partition(":")
    load, path_argument = _FLOWS.get(name, (None, None))
    if load is None or (colon and (not path or path_argument is None)):
        raise ValueError(f"flow {shortened(flow)} is not known; allowed are {allowed_flows()}, or a FlowModel object")
    made = load()
    known_names(f"flow {name!r}", options, [key for key in inspect.signature(made).parameters if key != "num_envs"])
    if path_argument is not None and path:
        if path_argument in options:
            said = shortened(options[path_argument])
            raise ValueError(f"{path_argument} is {said}, but flow {shortened(flow)} names one; only one is allowed")
        options[path_argument] = path
    return made(num_envs=num_envs, **options)


def _checked(flow: Any, num_envs: int, options: dict[str, Any]) -> FlowModel:
    lacking = [name for name in _PARTS if not hasattr(flow, name)]
    if lacking:
        said = shortened(flow) if len(lacking) == len(_PARTS) else f"without {', '.join(lacking)}: {shortened(flow)}"
        raise ValueError(f"flow is {said}; allowed are {allowed_flows()}, or a FlowModel object")
    if options:
        raise ValueError(
            f"options {sorted(options)} were given beside a FlowModel object; they go into its constructor"
        )
    if flow.num_envs != num_envs:
        raise ValueError(f"flow is made for {flow.num_envs} markets; it must be made for num_envs, {num_envs}")
    return flow
