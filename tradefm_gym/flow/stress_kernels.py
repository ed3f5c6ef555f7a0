"""What a scenario does to proposals, event by event: see ``scenarios.Effect`` and ``stressed``."""

import numpy as np
from numba import njit

from tradefm_gym.market.compiler import KERNEL, SERIAL
from tradefm_gym.market.events import BACKGROUND, BUY, INSERTED, LIMIT, MARKET, SELL
from tradefm_gym.rng import SCENARIO, bits

# Effect in numbers; ``gap_ns`` is the wait between takers.
EFFECT = np.dtype(
    [
        ("start", np.int64), ("stop", np.int64), ("takers", np.int64), ("most_takers", np.int64), ("every", np.int64),
        ("orders", np.int64), ("lots", np.int32), ("pace", np.float64), ("withheld", np.float64),
        ("withdrawn", np.float64), ("gap_ns", np.float64), ("side", np.int8), ("stressed", np.bool_),
    ],
    align=True,
)  # fmt: skip

# How far a row is: proposals passed on, takers before the next one and in all, orders withdrawn, the part of the other
# flow's block that is still to come, and when its last proposal and the last event passed on happened. ``begun``: 1
# during, 2 after.
PROGRESS = np.dtype(
    [
        ("made", np.int64), ("now", np.int64), ("taken", np.int64), ("withdrawn", np.int64), ("first", np.int64),
        ("left", np.int64),
        ("proposed_ns", np.int64), ("emitted_ns", np.int64), ("begun", np.int8),
    ],
    align=True,
)  # fmt: skip

# Indices of the scenario's own draws beside the numbers of proposals.
TAKERS, WITHDRAWALS = np.uint64(1) << np.uint64(61), np.uint64(1) << np.uint64(62)


@njit(**SERIAL)
def due(progress, effect):
    """Rows (N,) bool in which a taker comes before the next proposal."""
    out = np.zeros(len(progress), np.bool_)
    for m in range(len(progress)):
        out[m] = _taker_is_due(progress[m], effect[m])
    return out


@njit(**KERNEL)
def _taker_is_due(progress, effect):
    number = progress["made"] - effect["start"]
    within = number >= 0 and progress["made"] < effect["stop"]
    if not within or progress["taken"] >= effect["most_takers"] or progress["now"] >= effect["takers"]:
        return False
    return number % effect["every"] == 0


@njit(**SERIAL)
def emit(events, count, rows, pending, progress, effect, seeds, episodes, most, follows_tape):
    """Passes on pending proposals and what a scenario adds to them.

    Args:
        events: the block to write, (N, K) EVENT.
        count: (N,), events of each row that are written.
        rows: (N,) bool.
        pending: (N, P) EVENT, the other flow's last block.
        progress: (N,) PROGRESS.
        effect: (N,) EFFECT.
        seeds: (N,), of the markets.
        episodes: (N,), likewise.
        most: events a row, at most K.
        follows_tape: whether the other flow's waits count from the last background event, not its own last proposal.
    """
    for m in range(len(rows)):
        while rows[m] and count[m] < most:
            here, what = progress[m], effect[m]
            if here["begun"] == 0 and here["made"] >= what["start"] and count[m] > 0:
                break  # a scenario starts from the book that it meets
            if _taker_is_due(here, what):
                _insert(events[m, count[m]], here, what, seeds[m], episodes[m])
            elif here["left"] > 0:
                events[m, count[m]] = pending[m, here["first"]]
                _pass_on(events[m, count[m]], here, what, seeds[m], episodes[m], follows_tape)
            else:
                break
            count[m] += 1


@njit(**KERNEL)
def _insert(event, progress, effect, seed, episode):
    """A taker of the scenario's side."""
    side = effect["side"]
    if side == 0:
        word, _, _, _ = bits(seed, episode, TAKERS + np.uint64(progress["taken"]), SCENARIO)
        side = BUY if word & np.uint32(1) else SELL
    progress["emitted_ns"] += np.int64(effect["gap_ns"])
    progress["now"] += 1
    progress["taken"] += 1
    event["time_ns"], event["order_id"], event["owner"] = progress["emitted_ns"], INSERTED, BACKGROUND
    event["kind"], event["side"], event["size"], event["max_rest"] = MARKET, side, effect["lots"], 0


@njit(**KERNEL)
def _pass_on(event, progress, effect, seed, episode, follows_tape):
    """The other flow's next proposal, at the scenario's pace, and resting nowhere if the scenario says so."""
    proposed_ns = event["time_ns"]
    wait = proposed_ns - (progress["emitted_ns"] if follows_tape else progress["proposed_ns"])
    if effect["start"] <= progress["made"] < effect["stop"]:
        wait = np.int64(effect["pace"] * wait)
        if effect["withheld"] > 0.0 and event["kind"] == LIMIT:
            word, _, _, _ = bits(seed, episode, np.uint64(progress["made"]), SCENARIO)
            if word < effect["withheld"] * 4294967296.0:
                event["max_rest"] = 0
    progress["proposed_ns"] = proposed_ns
    progress["emitted_ns"] += max(wait, 0)
    event["time_ns"] = progress["emitted_ns"]
    progress["made"] += 1
    progress["now"] = 0
    progress["first"] += 1
    progress["left"] -= 1
