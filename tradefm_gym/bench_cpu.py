"""The processor's part of ``bench_engine``: what its memory and its arithmetic allow, and the closed loop.

Drawing an event reads the network's matrices, which rows of one tile share, and the row's keys and values, and it takes
two operations for each weight of a product and for each cached number that attention uses. The roofline is the faster
of neither: events whose bytes come at the rate of a copy of as many bytes as the engine holds, or whose operations come
at the rate of multiply-adds that stay in registers, whichever is slower. Both are measured in the same run.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numba import njit

from tradefm_gym.bench import Work, median_rate
from tradefm_gym.flow.halves import go_on
from tradefm_gym.flow.tradefm import TradeFMFlow
from tradefm_gym.market.simulator import MarketConfig, MarketSimulator
from tradefm_gym.model.config import ModelConfig
from tradefm_gym.model.numba_kernels import TILE
from tradefm_gym.model.numba_matrix import WIDE
from tradefm_gym.model.vectors import LANES, add, fill, multiply_add, sum_lanes
from tradefm_gym.threads import take, together

_BYTES = 4  # fp32
_ROUNDS = 1 << 16  # of twelve or six multiply-adds
_TASKS = 64
_CHAINS = 12 if WIDE else 6  # independent sums: enough to hide the latency, few enough for the registers


def weights_of_products(config: ModelConfig) -> int:
    """Weights that every event is multiplied by: all but the embeddings, which are looked up."""
    return config.parameter_count() - sum(config.embedding_tables.values()) * config.embedding_width


def event_bytes(config: ModelConfig, batch: int, length: float) -> float:
    """Bytes that an event must read with ``length`` keys and values in its row: the weights once a tile."""
    cached = 2 * config.layers * config.kv_heads * config.attention_width
    return _BYTES * (weights_of_products(config) / min(batch, TILE) + length * cached)


def event_operations(config: ModelConfig, length: float) -> float:
    """Operations of an event: 2 a weight, and 4 for each column of each query head and cached position."""
    attention = config.layers * config.heads * config.attention_width
    return 2.0 * weights_of_products(config) + 4.0 * length * attention


@lru_cache
def copy_rate(size: int, threads: int) -> float:
    """Bytes per second, read and written, of copies within ``size`` bytes that each thread's share is copied in."""
    half = max(1, size // (2 * threads))
    buffers = [np.zeros((2, half), np.uint8) for _ in range(threads)]
    times = max(1, (1 << 28) // half)
    counter = np.zeros(1, np.int64)

    def run() -> float:
        counter[0] = 0

        def work(thread: int) -> None:
            source, target = buffers[thread]
            while take_one(counter) < times:
                np.copyto(target, source)

        together(work, threads)
        return 2.0 * half * times

    return median_rate(Work(run), 5)


@lru_cache
def arithmetic_rate(threads: int) -> float:
    """Operations per second of multiply-adds on vectors in registers."""
    counter, out = np.zeros(1, np.int64), np.zeros(threads)

    def run() -> float:
        counter[0] = 0
        together(lambda thread: multiply_adds(counter, out, thread), threads)
        return 2.0 * LANES * _CHAINS * _ROUNDS * _TASKS

    return median_rate(Work(run), 5)


def roofline(config: ModelConfig, batch: int, threads: int) -> tuple[float, str]:
    """Events per second that memory or arithmetic allow while rows hold T/2 to T events, and which of them it is."""
    length = 0.75 * config.context
    held = int(_BYTES * weights_of_products(config) + batch * config.context * _BYTES
               * 2 * config.layers * config.kv_heads * config.attention_width)  # fmt: skip
    by_memory = copy_rate(held, threads) / event_bytes(config, batch, length)
    by_arithmetic = arithmetic_rate(threads) / event_operations(config, length)
    return (by_memory, "memory") if by_memory < by_arithmetic else (by_arithmetic, "arithmetic")


@njit(cache=True, nogil=True)
def take_one(counter):
    """The next number of a counter (1,) int64."""
    return take(counter)


@njit(cache=True, nogil=True)
def multiply_adds(counter, out, thread):
    """Takes tasks of ``_ROUNDS`` rounds of ``_CHAINS`` independent multiply-adds until none is left."""
    half, tiny = fill(np.float32(0.5)), fill(np.float32(1e-3))
    while take(counter) < _TASKS:
        a = b = c = d = e = f = tiny
        g = h = i = j = k = m = tiny
        for _ in range(_ROUNDS):
            a, b, c = multiply_add(a, half, tiny), multiply_add(b, half, tiny), multiply_add(c, half, tiny)
            d, e, f = multiply_add(d, half, tiny), multiply_add(e, half, tiny), multiply_add(f, half, tiny)
            if _CHAINS == 12:
                g, h, i = multiply_add(g, half, tiny), multiply_add(h, half, tiny), multiply_add(i, half, tiny)
                j, k, m = multiply_add(j, half, tiny), multiply_add(k, half, tiny), multiply_add(m, half, tiny)
        left, right = add(add(a, b), add(c, d)), add(add(e, f), add(g, h))
        out[thread] += sum_lanes(add(add(left, right), add(add(i, j), add(k, m))))


# --- The closed loop ---------------------------------------------------------------------------------------


def going_on(flow: TradeFMFlow, config: MarketConfig) -> Work:
    """As many markets as the flow has, moved by it and by nobody else: T/2 + 1 events each, refills among them."""
    batch, half = flow.num_envs, flow.config.context // 2
    market, rows = MarketSimulator(batch, config), np.arange(batch)
    flow.reset(market, np.ones(batch, np.bool_), rows % 16, rows.astype(np.uint64), np.zeros(batch, np.uint32))

    def run() -> int:
        go_on(market, flow, market.background_count + half + 1)
        return (half + 1) * batch

    return Work(run)


def closed_loop(model: str, batch: int, quick: bool) -> Work:
    """``TradeFMFlow`` on the processor with as many markets and no agents."""
    flow = TradeFMFlow(model, batch)
    return going_on(flow, flow.market_config(0))


def environment(num_envs: int, build: Callable, actions: np.ndarray, quick: bool) -> Work:
    """Events of the background in the native vector environment with agents that act at random, resets included."""
    environment, steps = build(num_envs, autoreset_mode="SameStep", flow="tradefm"), 4 if quick else 16
    environment.reset(seed=0)
    interval = environment.session.interval

    def run() -> int:
        for step in range(steps):
            environment.step(actions[step % len(actions)])
        return steps * num_envs * interval

    return Work(run)
