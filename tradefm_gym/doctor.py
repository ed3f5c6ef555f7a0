"""Is this installation sound? Versions, the compiler's cache, bundled files, and rollouts, one of known outcome."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from tradefm_gym.bench import version
from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.flow.recorded_starts import BUNDLED_DAY
from tradefm_gym.market.kernels import advance
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, model_hash
from tradefm_gym.threads import loops_layer

PACKAGES = ("tradefm-gym", "gymnasium", "numpy", "numba", "pettingzoo", "safetensors", "tyro", "rich")
EXTRAS = ("torch", "stable-baselines3", "tensorboard", "polars", "pyarrow", "databento-dbn", "matplotlib", "scipy")

# The tape of one episode: zero intelligence, seed 0, the zero action throughout. It changes only with the rules
# of the market, of the flow or of the role, never with the machine.
EXPECTED_TAPE = "1034fee117699ad72f9a39b96e1f645f42f2290d6989b32e8e67e9963b5223dc"


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    value: str
    sound: bool = True


def examine() -> Iterator[Finding]:
    """Looks at everything, cheapest first."""
    for package in PACKAGES:
        found = version(package)
        yield Finding(package, found or "not installed", found is not None)
    for package in EXTRAS:
        yield Finding(package, version(package) or "not installed (optional)")
    yield _compiler_cache()
    threads = f"{numba.get_num_threads()} of {os.cpu_count()} processors"
    yield Finding("threads", f"{threads}; loops over them by {loops_layer()}")
    yield _bundled_model()
    yield Finding("bundled day", BUNDLED_DAY.name if BUNDLED_DAY.is_file() else "missing", BUNDLED_DAY.is_file())
    tape = reference_tape()
    said = "as expected" if tape == EXPECTED_TAPE else f"{tape[:12]} instead of {EXPECTED_TAPE[:12]}"
    yield Finding("zero-intelligence rollout", said, tape == EXPECTED_TAPE)
    yield _rollout("hawkes")
    yield _rollout("tradefm")


def reference_tape() -> str:
    """Hash of the tape of the one episode that is the same everywhere."""
    return _episode("zero_intelligence")[0].tape_hash(0)


def _episode(flow: str) -> tuple[TradingSession, float]:
    """One episode of the zero action on a flow, and its reward."""
    session = TradingSession(1, ExecutionRole(side="buy"), flow, context=0)
    session.seed(np.array([True]), np.zeros(1, np.uint64))
    session.reset()
    reward = 0.0
    while session.running.any():
        reward += float(session.step(np.zeros((1, 2), np.float32)).reward[0])
    return session, reward


def _rollout(flow: str) -> Finding:
    """An episode on a flow that reckons with floats: it must come to a sound end, its tape may be the processor's."""
    name = f"{flow} rollout"
    try:
        session, reward = _episode(flow)
    except (ValueError, OSError, ImportError) as error:
        return Finding(name, str(error), False)
    market = session.market
    balanced = market.accounts["inventory"].sum() == 0
    sound = bool(balanced and np.isfinite(reward) and np.min(market.touch()) > 0)
    said = f"reward {reward:.3f} bps, tape {session.tape_hash(0)[:12]}"
    return Finding(name, said if sound else f"accounts or book that no market has: {said}", sound)


def _compiler_cache() -> Finding:
    stats = getattr(advance, "stats", None)  # a plain function when the compiler is switched off
    if stats is None or stats.cache_path is None:
        return Finding("compiler's cache", "none: kernels are compiled in every process, or not at all", False)
    folder = Path(stats.cache_path)
    files = len(list(folder.glob("*.nbc")))
    return Finding("compiler's cache", f"{folder} ({files} kernels of market/)", os.access(folder, os.W_OK))


def _bundled_model() -> Finding:
    try:
        return Finding("bundled model", f"{BUNDLED_MODEL} {model_hash(checkpoint(BUNDLED_MODEL)[0])}")
    except (ValueError, OSError) as error:
        return Finding("bundled model", str(error), False)
