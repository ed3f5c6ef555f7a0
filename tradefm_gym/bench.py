"""How fast the rooms are on this machine: the market, the engine, and the environments over each flow.

Every figure is the median over repeats after a warm-up, and all speak one format: a list of
``{name, value, unit, reference, ratio, target, met, hardware}``. A figure is a rate, and its target the least that it
should be; or, in a unit of time such as us, what a piece of work takes, and its target the most. Where other programs
share the machine, two things keep figures comparable: work of one thread may be timed by the processor time that it
takes, and a reference may be measured in turn with its figure, whose ratio is then the median over pairs of neighbours.
"""

import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core import config

from tradefm_gym.envs.gym_env import ExecutionEnv, ExecutionVectorEnv
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow
from tradefm_gym.market.events import EventBlock
from tradefm_gym.market.simulator import MarketSimulator

FLOWS = ("zero_intelligence", "hawkes", "replay", "tradefm")
MARKET_TARGET = 10e6  # events/s of one core
_ROUND = 256  # events a market takes in one feed: its default queue


class Work(NamedTuple):
    """What is timed: ``run`` does some work and says how much of the unit it was; ``rewind`` precedes it, untimed."""

    run: Callable[[], float]
    rewind: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Measurement:
    """One figure. ``reference`` is the same work done by something else on the same machine, where there is one."""

    name: str
    value: float
    unit: str
    hardware: dict[str, Any]
    reference: float | None = None
    target: float | None = None
    paired: float | None = None  # median ratio of runs next to each other, where they were taken in turn
    share: float | None = None  # what of the reference the target is, if it is a share
    is_time: bool = False  # the less the better: the target is the most that it should be

    @property
    def ratio(self) -> float | None:
        """The value as a share of the reference."""
        if self.paired is not None or self.reference is None:
            return self.paired
        return self.value / self.reference

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        found, wanted = self.value, self.target
        if self.share is not None and self.ratio is not None:
            found, wanted = self.ratio, self.share
        if wanted is None:
            return None
        return found <= wanted if self.is_time else found >= wanted

    def to_json(self) -> dict[str, Any]:
        """The one format of all benchmarks."""
        return {
            "name": self.name,
            "value": round(self.value, 1),
            "unit": self.unit,
            "reference": None if self.reference is None else round(self.reference, 1),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "target": self.target,
            "met": self.met,
            "hardware": self.hardware,
        }


@dataclass(frozen=True)
class Benchmark:
    """A figure that can be measured: ``prepare(quick)`` builds the work, which is then timed, or says its rate."""

    name: str
    unit: str
    threads: int
    prepare: Callable[[bool], Work | float]
    target: float | None = None
    reference: Callable[[bool], float | None] = lambda quick: None
    is_share: bool = False  # the target is a share of the reference
    beside: Callable[[bool], Work] | None = None  # builds the reference's work, which is then run in turn with this
    clock: Callable[[], float] = time.perf_counter
    repeats: int = 9  # at most 3 in a quick run
    accelerator: Callable[[], dict[str, Any]] = dict  # what else the hardware is
    per_second: float | None = None  # how many of the unit a second has, where it is one of time: see Measurement

    def measure(self, quick: bool) -> Measurement:
        """Runs it; raises ``ValueError``, ``OSError`` or ``ImportError`` where a part is not at hand."""
        repeats, paired = min(self.repeats, 3) if quick else self.repeats, None
        with thread_count(self.threads) as threads:
            work = self.prepare(quick)
            if not isinstance(work, Work):
                value, reference = work, self.reference(quick)
            elif self.beside is None:
                value, reference = median_rate(work, repeats, self.clock), self.reference(quick)
            else:
                value, reference, paired = paired_rates(work, self.beside(quick), repeats, self.clock)
            found = hardware(threads) | self.accelerator()
        if self.per_second is not None:
            value, reference, paired = _times(self.per_second, value, reference, paired)
        share = self.target if self.is_share else None
        target = share * reference if share and reference else self.target
        is_time = self.per_second is not None
        return Measurement(self.name, value, self.unit, found, reference, target, paired, share, is_time)


def benchmarks(only: str | None = None, suite: str = "rooms") -> list[Benchmark]:
    """All of a suite, or those whose name contains ``only``."""
    from tradefm_gym.bench_engine import engine_benchmarks, engines

    events, steps = "events/s", "steps/s"
    everything = [
        Benchmark("market-n1", events, 1, partial(_market, 1), clock=time.process_time),
        Benchmark("market-n256", events, 1, partial(_market, 256), MARKET_TARGET, clock=time.process_time),
        Benchmark(
            "market-n256-two-cores",
            events,
            2,
            partial(_market, 256),
            1.7,
            is_share=True,
            beside=partial(_one_core, 256),
        ),
        *engines(),
    ]
    for flow in FLOWS:
        everything.append(Benchmark(f"execution-{flow}-n1", steps, 1, partial(_single_environment, flow)))
        everything.append(Benchmark(f"execution-{flow}-n64", steps, 2, partial(_vector_environment, flow, 64)))
    if suite == "engine":
        everything = engine_benchmarks()
    if suite == "env":
        from tradefm_gym.bench_env import env_benchmarks

        everything = env_benchmarks()
    if suite == "book":
        from tradefm_gym.bench_book import book_benchmarks
        from tradefm_gym.bench_forks import fork_benchmarks

        everything = [
            *book_benchmarks(),
            *fork_benchmarks(),
            *(one for one in everything if one.name.startswith("market-n256")),
        ]
    chosen = [benchmark for benchmark in everything if only is None or (only and only in benchmark.name)]
    if not chosen:
        names = ", ".join(benchmark.name for benchmark in everything)
        raise ValueError(f"only is {only!r}; allowed is a name, or a part of one, of {names}")
    return chosen


def run(chosen: list[Benchmark], quick: bool, skipped: Callable[[str, str], None]) -> Iterator[Measurement]:
    """Measures one after the other; what cannot run here, or fails, is told to ``skipped(name, reason)``."""
    for benchmark in chosen:
        try:
            yield benchmark.measure(quick)
        except (ValueError, OSError, ImportError) as error:
            skipped(benchmark.name, str(error))
        except Exception:  # a fault of ours: the others are measured all the same
            skipped(benchmark.name, traceback.format_exc())


def median_rate(work: Work, repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Units per second: the median of ``repeats`` runs after one that compiles and warms the caches."""
    return statistics.median([_rate(work, clock) for _ in range(repeats + 1)][1:])


def paired_rates(
    work: Work, other: Work, repeats: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Median rates of two works that take turns, and the median ratio of runs next to each other."""
    pairs = [(_rate(work, clock), _rate(other, clock)) for _ in range(repeats + 1)][1:]
    mine, others = zip(*pairs, strict=True)
    return statistics.median(mine), statistics.median(others), statistics.median(a / b for a, b in pairs)


def _times(
    per_second: float, value: float, reference: float | None, paired: float | None
) -> tuple[float, float | None, float | None]:
    """What a piece of work takes where it is done at these rates, and the ratio of the times."""
    return per_second / value, reference and per_second / reference, paired and 1.0 / paired


def _rate(work: Work, clock: Callable[[], float]) -> float:
    work.rewind()
    start = clock()
    done = work.run()
    return done / (clock() - start)


@contextmanager
def thread_count(wanted: int) -> Iterator[int]:
    """Numba's threads set to ``wanted``, or to as many as there are; yields how many."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(wanted, config.NUMBA_NUM_THREADS))
    try:
        yield numba.get_num_threads()
    finally:
        numba.set_num_threads(before)


def hardware(threads: int) -> dict[str, Any]:
    """Processor, cores that this process may use, threads that were used, load of the last minute, day and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: version(name) for name in ("tradefm-gym", "numba", "numpy", "torch")}
    return {
        "cpu": _processor(),
        "cores": cores,
        "threads": threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "date": date.today().isoformat(),
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def version(package: str) -> str | None:
    """The installed version, None without."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --- The market: book, accounts and tape -----------------------------------------------------------------


def _market(num_markets: int, quick: bool) -> Work:
    """Zero-intelligence events, drawn before, through feed and advance; the same ones in every run."""
    rounds = (16 if quick else 256) if num_markets == 1 else (2 if quick else 16)
    flow = ZeroIntelligenceFlow(num_markets)
    market = MarketSimulator(num_markets, flow.market_config())
    everyone = np.ones(num_markets, np.bool_)
    seeds, contexts = np.arange(num_markets, dtype=np.uint64), np.arange(num_markets) % len(flow.bank)
    flow.reset(market, everyone, contexts, seeds, np.zeros(num_markets, np.uint32))
    start = market.snapshot()
    blocks = [_draw_round(flow, market, everyone) for _ in range(rounds)]

    def run() -> int:
        for block in blocks:
            market.feed(block)
            market.advance()
        return rounds * _ROUND * num_markets

    return Work(run, partial(market.restore, start))


def _one_core(num_markets: int, quick: bool) -> Work:
    """The same in one thread, whatever the number of threads around it."""
    work = _market(num_markets, quick)

    def run() -> float:
        with thread_count(1):
            return work.run()

    return Work(run, work.rewind)


def _draw_round(flow: ZeroIntelligenceFlow, market: MarketSimulator, everyone: np.ndarray) -> EventBlock:
    """The flow's next ``_ROUND`` events of every row as one block (N, _ROUND); the market goes on to their end."""
    blocks = []
    for _ in range(_ROUND // flow.block):
        blocks.append(flow.next_events(market, everyone))
        market.feed(blocks[-1])
        market.advance()
    events = np.concatenate([block.events for block in blocks], axis=1)
    return EventBlock(events, np.stack([block.count for block in blocks]).sum(axis=0, dtype=np.int32))


# --- The environments ------------------------------------------------------------------------------------


def _single_environment(flow: str, quick: bool) -> Work:
    """``step`` of one environment with random actions; resets are part of the time."""
    environment = ExecutionEnv(flow=flow)
    actions, steps = _actions(1), 128 if quick else 1024
    environment.reset(seed=0)

    def run() -> int:
        for step in range(steps):
            *_, terminated, truncated, _ = environment.step(actions[step % len(actions), 0])
            if terminated or truncated:
                environment.reset()
        return steps

    return Work(run)


def _vector_environment(flow: str, num_envs: int, quick: bool) -> Work:
    """``step`` of the native vector environment, which resets rows as they end."""
    environment = ExecutionVectorEnv(num_envs, autoreset_mode="SameStep", flow=flow)
    actions, steps = _actions(num_envs), 16 if quick else 128
    environment.reset(seed=0)

    def run() -> int:
        for step in range(steps):
            environment.step(actions[step % len(actions)])
        return steps * num_envs

    return Work(run)


def _actions(num_envs: int) -> np.ndarray:
    """Random actions (64, N, 2) float32."""
    return np.random.default_rng(0).uniform(-1, 1, (64, num_envs, 2)).astype(np.float32)
