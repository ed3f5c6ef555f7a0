"""Who sits in a market of several agents: roles by name, by arguments or as objects, their names and their policies."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tradefm_gym.arguments import known_names, one_of, shortened
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.market_making import MarketMakingRole
from tradefm_gym.envs.roles import Role
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.envs.tasks import role_arguments
from tradefm_gym.envs.trading import TradingRole

LATENCIES = ("order_latency_ns", "data_latency_ns")
ROLES: dict[str, Callable[..., Role]] = {
    "execution": ExecutionRole,
    "market_making": MarketMakingRole,
    "trading": TradingRole,
}
FEWEST, MOST = 2, 16  # seats

Act = Callable[[np.ndarray, dict[str, np.ndarray]], Any]


class Seat(NamedTuple):
    """One place in the market."""

    name: str
    role: Role
    act: Act | None  # of a scripted opponent; None: an agent that is seen
    late: dict[str, Any]  # those of LATENCIES that are its own


def cast(roles: Any, interval: int | None, decisions: int) -> list[Seat]:
    """The seats that ``roles`` describes, in its order.

    Args:
        roles: 2 to 16 entries: a name of ``ROLES``, a role object, or a dict of ``role`` (a name or an object) and
            what else is to be said: ``name`` of the agent, ``policy`` of a scripted opponent, its own
            ``order_latency_ns`` and ``data_latency_ns``, and the arguments of the named role's class.
        interval: between two decisions, for named roles.
        decisions: of an episode, for named roles that do not say it.

    Raises:
        ValueError: if an entry is none of these, a name stands there twice, or nobody is left to be seen.
        TypeError: if a role has no such argument.
    """
    if isinstance(roles, (str, Mapping)) or not isinstance(roles, Sequence) or not FEWEST <= len(roles) <= MOST:
        said = f"{len(roles)} entries" if isinstance(roles, (list, tuple)) else shortened(roles)
        raise ValueError(f"roles is {said}; it must be a list of {FEWEST} to {MOST} roles")
    parts = [_read(f"roles[{i}]", entry, interval, decisions) for i, entry in enumerate(roles)]
    given = [name for name, *_ in parts if name is not None]
    for name in given:
        if given.count(name) > 1:
            raise ValueError(f"name {name!r} stands in roles {given.count(name)} times; names must differ")
    seats, taken = [], set(given)
    for name, role, act, late in parts:
        seats.append(Seat(_free(role, taken) if name is None else name, role, act, late))
        taken.add(seats[-1].name)
    if all(seat.act is not None for seat in seats):
        raise ValueError(f"roles is {shortened(roles)}; at least one must have no policy, or nobody is left to learn")
    return seats


def scripted_actions(session: TradingSession, seat: int, act: Act, observation: np.ndarray) -> Any:
    """What a scripted opponent does now.

    It is told its observations (N, obs) and columns (N,): ``seed``, ``decision`` and its role's ``start_info``.
    """
    decision = session.step_info(seat)["decision"]
    return act(observation, {"seed": session.seeds.copy(), "decision": decision, **session.start_info(seat)})


def seat_latencies(seats: list[Seat], common: dict[str, Any]) -> dict[str, Any]:
    """The latencies of all seats: their own, or else what is common to all."""
    own = {name for seat in seats for name in seat.late}
    return common | {name: [seat.late.get(name, common.get(name)) for seat in seats] for name in own}


def _read(
    where: str, entry: Any, interval: int | None, decisions: int
) -> tuple[str | None, Role, Act | None, dict[str, Any]]:
    words = dict(entry) if isinstance(entry, Mapping) else {"role": entry}
    kind, name, policy = words.pop("role", None), words.pop("name", None), words.pop("policy", None)
    late = {word: words.pop(word) for word in LATENCIES if word in words}
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(f"name of {where} is {shortened(name)}; it must be a word")
    act = None if policy is None else getattr(policy, "act", policy)
    if act is not None and not callable(act):
        raise ValueError(
            f"policy of {where} is {shortened(policy)}; it must be called with an observation and an info, or have a "
            "method act that is"
        )
    if not isinstance(kind, str) and hasattr(kind, "settle"):
        known_names(f"{where}, a role object beside which only name and policy stand,", words, ())
        return name, kind, act, late
    if not isinstance(kind, str):
        raise ValueError(
            f"{where} is {shortened(entry)}; it must be {', '.join(map(repr, ROLES))}, a role object, or a dict with a "
            "'role'"
        )
    made = ROLES[one_of(where, kind, tuple(ROLES))]
    known_names(f"role {kind!r} of {where}", words, role_arguments(made))
    return name, made(**{"interval": interval, "decisions": decisions, **words}), act, late


def _free(role: Role, taken: set[str]) -> str:
    """The role's agent name with the first number that nobody has."""
    number = 0
    while f"{role.agent_name}_{number}" in taken:
        number += 1
    return f"{role.agent_name}_{number}"
