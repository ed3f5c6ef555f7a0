"""Flows by name: the one place that knows them all."""

from collections.abc import Callable
from typing import Any

from tradefm_gym.flow.protocol import FlowModel


def _zero_intelligence(num_envs: int, path: str | None, **options: Any) -> FlowModel:
    from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow

    return ZeroIntelligenceFlow(num_envs, **options)


def _replay(num_envs: int, path: str | None, **options: Any) -> FlowModel:
    from tradefm_gym.flow.replay import ReplayFlow

    return ReplayFlow(num_envs, path, **options)


def _tradefm(num_envs: int, path: str | None, **options: Any) -> FlowModel:
    from tradefm_gym.flow.tradefm import TradeFMFlow

    if path is not None:
        options["model"] = path
    return TradeFMFlow(num_envs=num_envs, **options)


# name: (how it is made, whether "name:PATH" is allowed). Imports are lazy: naming a flow loads only that one.
_FLOWS: dict[str, tuple[Callable[..., FlowModel], bool]] = {
    "zero_intelligence": (_zero_intelligence, False),
    "replay": (_replay, True),
    "tradefm": (_tradefm, True),
}


def allowed_flows() -> str:
    """The names that ``make_flow`` understands, for messages."""
    return ", ".join(f"{name}, {name}:PATH" if with_path else name for name, (_, with_path) in _FLOWS.items())


def make_flow(flow: str | FlowModel, num_envs: int, **options: Any) -> FlowModel:
    """A background flow for ``num_envs`` markets.

    Args:
        flow: ``"zero_intelligence"``, ``"replay"`` (the bundled day), ``"replay:PATH"``, ``"tradefm"`` (the
            bundled model), ``"tradefm:PATH"``, or an object that is a ``FlowModel`` for that many markets.
        num_envs: markets N.
        **options: passed to the flow's class; none may be given beside an object.

    Raises:
        ValueError: if the name is not known, has a path it cannot use, or the object is for another N.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}; it must be at least 1")
    if not isinstance(flow, str):
        return _checked(flow, num_envs, options)
    name, colon, path = flow.partition(":")
    if name not in _FLOWS or (colon and (not path or not _FLOWS[name][1])):
        raise ValueError(f"flow {flow!r} is not known; allowed are {allowed_flows()}, or a FlowModel object")
    return _FLOWS[name][0](num_envs, path or None, **options)


def _checked(flow: FlowModel, num_envs: int, options: dict[str, Any]) -> FlowModel:
    lacking = [name for name in ("name", "bank", "num_envs", "reset", "next_events") if not hasattr(flow, name)]
    if lacking:
        raise ValueError(f"flow is a {type(flow).__name__} without {lacking}; allowed are {allowed_flows()}, "
                         "or a FlowModel object")  # fmt: skip
    if options:
        raise ValueError(
            f"options {sorted(options)} were given beside a FlowModel object; they go into its constructor"
        )
    if flow.num_envs != num_envs:
        raise ValueError(f"flow is made for {flow.num_envs} markets; it must be made for num_envs, {num_envs}")
    return flow
