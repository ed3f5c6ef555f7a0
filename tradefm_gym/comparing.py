"""Two recorded episodes of one seed: where their actions part, and what each paid for."""

from typing import Any

import numpy as np

from tradefm_gym.envs.episode import Episode

_TASK = ("flow", "flow_version", "context", "scenario", "side", "quantity", "inventory_limit", "max_position")
MONEY = 1000  # of one tick-lot


def first_difference(a: Episode, b: Episode) -> int | None:
    """The first decision at which actions differ, or at which one of the two has ended; None where neither is so.

    Raises:
        ValueError: if the two are not of one seed and task.
    """
    check_comparable(a, b)
    shared = min(len(a.actions), len(b.actions))
    differ = np.flatnonzero((a.actions[:shared] != b.actions[:shared]).any(axis=1))
    if len(differ):
        return int(differ[0])
    return None if len(a.actions) == len(b.actions) else shared


def check_comparable(a: Episode, b: Episode) -> None:
    """Refuses two episodes that did not begin alike."""
    for name in ("environment", "agent", "seed", "episode"):
        _equal(name, a.about.get(name), b.about.get(name))
    for name in _TASK:
        _equal(name, a.about["start"].get(name), b.about["start"].get(name))
    if a.actions.shape[1] != b.actions.shape[1]:
        raise ValueError(
            f"actions have {a.actions.shape[1]} and {b.actions.shape[1]} numbers; they must be of one action space"
        )


def _equal(name: str, one: Any, other: Any) -> None:
    if one != other:
        raise ValueError(f"compare has two episodes of {name} {one!r} and {other!r}; they must be of one seed and task")


def costs(episode: Episode) -> dict[str, int]:
    """What the agent's trades cost, in money; what was gained is negative.

    With m the mid just before a trade (own orders among it), a the arrival mid and p the price, a lot that is bought
    costs (p - m) + (m - a): ``spread_paid`` as taker, ``spread_earned`` as maker, and ``timing``, what the market moved
    in the meantime, whoever moved it. These and ``fees`` are all that was paid beyond the arrival mid, exactly.

    What the market did after a trade, until the next decision, is no part of that sum: ``adverse_selection`` is how far
    it went against what was traded as maker; ``impact`` how far it followed what was taken. Where the market without
    the agent was recorded (``counterfactual``), ``impact_on_twin`` is the part of ``timing`` by which the mid stood
    above the one there at the decision before. All are marks of single paths.
    """
    own = episode.fill_side != 0
    event, made = episode.fill_event[own], episode.fill_made[own]
    lots = episode.fill_side[own].astype(np.int64) * episode.fill_size[own]
    before2 = np.concatenate([episode.mid2[:1], episode.tape_mid2])[event].astype(np.int64)
    next_look = np.minimum(np.searchsorted(episode.event, event, side="right"), len(episode.event) - 1)
    after2 = episode.mid2[next_look].astype(np.int64)
    seen2 = np.rint(2 * episode.twin_mid[np.searchsorted(episode.event, event, side="right") - 1])
    arrival2 = round(2 * episode.mid[0])
    half = MONEY // 2
    spread = lots * (2 * episode.fill_price[own].astype(np.int64) - before2) * half
    moved = lots * (after2 - before2) * half
    twin = {}
    if not np.isnan(seen2).any():
        twin["impact_on_twin"] = int((lots * (before2 - seen2.astype(np.int64))).sum() * half)
    return {
        "spread_paid": int(spread[~made].sum()),
        "spread_earned": int(spread[made].sum()),
        "timing": int((lots * (before2 - arrival2)).sum() * half),
        "fees": int(episode.fees[-1] - episode.fees[0]),
        "adverse_selection": -int(moved[made].sum()),
        "impact": int(moved[~made].sum()),
        **twin,
    }


PAID = ("spread_paid", "spread_earned", "timing", "fees")  # of ``costs`` those that add up to what was paid


def in_basis_points(episode: Episode, money: float) -> float:
    """Money as a part of what the episode's rewards are measured by."""
    return money / episode.about["basis_point"]
