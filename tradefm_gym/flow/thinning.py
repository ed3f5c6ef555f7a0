"""Simulation of Hawkes processes by thinning (Ogata 1981), from draws that are named by their place."""

import numpy as np
from numba import njit

from tradefm_gym.flow.elementary import decayed, waiting
from tradefm_gym.flow.hawkes_process import HawkesProcess, Observed
from tradefm_gym.rng import THINNING, further_uniforms

_NS = 1_000_000_000


def edges_in_ns(process: HawkesProcess) -> np.ndarray:
    """Ends of the parts of the day on the clock: (B - 1,) int64."""
    return np.round(process.edges * _NS).astype(np.int64)


def jumps_of(process: HawkesProcess) -> np.ndarray:
    """What an event of type j adds at once to the intensity of type i, by decay: ``[j, i]`` (M, M, D), per second."""
    return np.ascontiguousarray((process.amplitudes * process.decays).transpose(1, 0, 2))


def simulate(process: HawkesProcess, events: int, seed: int, episode: int = 0) -> Observed:
    """So many events of a process that has seen none before; it is watched until the last one.

    Args:
        process: its times count from 0.
        events: how many.
        seed: names the path, with ``episode``.
        episode: read as uint32.
    """
    time_ns, types = np.zeros(events, np.int64), np.zeros(events, np.int64)
    excitement = np.zeros((process.types, len(process.decays)))
    _fill(
        time_ns, types, np.uint64(seed), np.uint32(episode), excitement, process.baseline, edges_in_ns(process),
        process.decays, jumps_of(process), process.floor,
    )  # fmt: skip
    seconds = time_ns / _NS
    return Observed(seconds, types, 0, 0.0, float(seconds[-1]))


@njit(cache=True, nogil=True)
def _fill(time_ns, types, seed, episode, excitement, baseline, edges_ns, decays, jumps, floor):
    kept = np.zeros(len(decays))
    clock_ns = np.int64(0)
    for k in range(len(types)):
        clock_ns, types[k] = next_arrival(
            seed, episode, k, clock_ns, excitement, kept, baseline, edges_ns, decays, floor
        )  # fmt: skip
        time_ns[k] = clock_ns
        excitement += jumps[types[k]]


@njit(cache=True, nogil=True)
def next_arrival(seed, episode, index, clock_ns, excitement, kept, baseline, edges_ns, decays, floor):
    """Time and type of the next event; ``excitement`` (M, D) has faded until then.

    Until something happens no intensity rises above its baseline and what excites it now: that bounds their sum.
    Candidate c of proposal ``index`` is block c of purpose THINNING there: the first uniform is the wait until it, the
    second accepts it and tells its type.
    """
    width, many = excitement.shape
    candidate = 0
    while True:
        part = 0
        while part < len(edges_ns) and edges_ns[part] <= clock_ns:
            part += 1
        bound = 0.0
        for i in range(width):
            intensity = baseline[i, part]
            for d in range(many):
                intensity += max(excitement[i, d], 0.0)
            bound += max(intensity, floor[i])
        # A proposal needs a few candidates; none comes near the 65,536 that have names.
        first, second = further_uniforms(seed, episode, index, THINNING, candidate & 0xFFFF)
        candidate += 1
        wait_ns = np.int64(min(waiting(1.0 - first) / bound * 1e9, 9e17))
        changes = part < len(edges_ns) and clock_ns + wait_ns >= edges_ns[part]
        if changes:  # the bound holds no longer: go on from there
            wait_ns = edges_ns[part] - clock_ns
        for d in range(many):
            kept[d] = decayed(decays[d] * (wait_ns * 1e-9))
        for i in range(width):
            for d in range(many):
                excitement[i, d] *= kept[d]
        clock_ns += wait_ns
        if changes:
            continue
        level, total = second * bound, 0.0
        for i in range(width):
            intensity = baseline[i, part]
            for d in range(many):
                intensity += excitement[i, d]
            total += max(intensity, floor[i])
            if level < total:
                return clock_ns, i
