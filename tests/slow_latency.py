"""Latencies once more in plain Python: the draw of one message, and what a channel does with many."""

import math

import numpy as np

from tradefm_gym import rng
from tradefm_gym.market.latency import Lognormal, Quantiles, Samples

LATENCIES = (
    None,
    5,
    Lognormal(40, 0.7),
    Lognormal(30, 1.5, floor_ns=10),
    Quantiles((3, 5, 9, 30, 200)),
    Quantiles((7,)),
    Samples((50, 1, 20)),
)


def draw_ns(latency, seed, episode, seat, number, purpose):
    """The latency of a seat's message ``number``."""
    if latency is None or isinstance(latency, int):
        return latency or 0
    first, second = (float(u) for u in rng.uniforms(np.uint64(seed), episode, seat * 2**48 + number, purpose))
    if isinstance(latency, Lognormal):
        normal = math.sqrt(-2 * math.log(1 - first)) * math.cos(2 * math.pi * second)
        return int(max(latency.median_ns * math.exp(latency.sigma * normal), latency.floor_ns) + 0.5)
    if isinstance(latency, Samples):
        return latency.samples_ns[int(first * len(latency.samples_ns))]
    table = latency.quantiles_ns
    place = first * (len(table) - 1)
    below = min(int(place), max(len(table) - 2, 0))
    return int(table[below] + (place - below) * (table[min(below + 1, len(table) - 1)] - table[below]) + 0.5)


class Channel:
    """One direction between a seat and its market: first in, first out."""

    def __init__(self, latency, seed, episode, seat, purpose):
        self.latency, self.name, self.purpose = latency, (seed, episode, seat), purpose
        self.number = self.last = 0

    def arrival(self, leaves):
        """When the next message arrives."""
        if not self.latency:
            return leaves
        self.last = max(self.last, leaves + draw_ns(self.latency, *self.name, self.number, self.purpose))
        self.number += 1
        return self.last
