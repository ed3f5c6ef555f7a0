"""How fast the engines and the training of TradeFM are: on the processor, and on a GPU where there is one.

"Mini-class" is the bundled model's shape. The larger presets have random weights: the speed is the same.
"""

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache, partial

import numpy as np

from tradefm_gym import bench_cpu as cpu
from tradefm_gym import bench_gpu as gpu
from tradefm_gym.bench import Benchmark, Work, _actions, median_rate
from tradefm_gym.envs.gym_env import ExecutionVectorEnv
from tradefm_gym.model.config import PRESETS, load_weights, random_weights
from tradefm_gym.model.serving import BUNDLED_MODEL, checkpoint, make_engine


def engines() -> list[Benchmark]:
    """The Numba engine beside the torch engine, as all rooms are measured."""
    return [
        Benchmark("engine-n1", "events/s", 1, partial(_engine, "numba", 1), 3_000, partial(torch_rate, 1, 1)),
        Benchmark("engine-n64", "events/s", 2, partial(_engine, "numba", 64), 8_000, partial(torch_rate, 64, 2)),
    ]


def engine_benchmarks() -> list[Benchmark]:
    """Both engines on the processor; then the torch engine, the closed loop and training on a GPU."""
    events = "events/s"
    found = []
    for batch, threads, target, over_torch in ((1, 1, 6_000, 10.0), (64, 2, 15_000, 1.8)):
        one = partial(Benchmark, unit=events, threads=threads, prepare=partial(_engine, "numba", batch))
        torch = partial(torch_rate, batch, threads)
        found.append(one(f"engine-mini-{batch}", target=target, reference=torch))
        found.append(one(f"engine-mini-{batch}-over-torch", target=over_torch, is_share=True, reference=torch))
        limit = partial(_roofline, batch, threads)
        found.append(Benchmark(f"engine-mini-{batch}-roofline", events, threads, limit, repeats=1))
        found.append(one(f"engine-mini-{batch}-over-roofline", reference=limit))
    alone = partial(_engine, "numba", 64)
    found.append(
        Benchmark(
            "closed-mini-64", events, 2, partial(cpu.closed_loop, BUNDLED_MODEL, 64), 0.8, is_share=True, beside=alone
        )
    )
    environment = partial(cpu.environment, 64, ExecutionVectorEnv, _actions(64))
    found.append(Benchmark("environment-mini-64", events, 2, environment, beside=alone))

    on_gpu = partial(Benchmark, unit=events, threads=16, repeats=3, accelerator=gpu.accelerator)
    found.append(on_gpu("gpu-copy", unit="GB/s", prepare=gpu.copying))
    for batch, share, reference in (
        (1, 5.0, gpu.generate_rate),
        (64, 5.0, gpu.generate_rate),
        (512, 0.6, gpu.roofline),
    ):
        prepare, reference = partial(gpu.decoding, "paper", batch), partial(reference, "paper", batch)
        found += [
            on_gpu(f"gpu-roofline-paper-{batch}", prepare=partial(gpu.roofline, "paper", batch), repeats=1),
            on_gpu(f"gpu-engine-paper-{batch}", prepare=prepare, target=share, is_share=True, reference=reference),
        ]
    return [
        *found,
        on_gpu("gpu-generate-paper-512", prepare=partial(gpu.generate_rate, "paper", 512), repeats=1),
        on_gpu("gpu-served-paper-512", prepare=partial(gpu.served_rate, "paper", 512), repeats=1),
        on_gpu("gpu-served-mini-8192", prepare=partial(gpu.served_rate, "mini", 8192), repeats=1),
        on_gpu(
            "gpu-closed-paper-512",
            prepare=partial(gpu.closed_loop, "paper", 512, 1),
            repeats=1,
            target=0.85,
            is_share=True,
            reference=partial(gpu.served_rate, "paper", 512),
        ),
        on_gpu(
            "gpu-closed-mini-8192",
            prepare=partial(gpu.closed_loop, "mini", 8192, 1),
            target=1e6,
            reference=partial(gpu.served_rate, "mini", 8192),
        ),
        on_gpu("gpu-halves-paper-512", prepare=partial(gpu.closed_loop, "paper", 512, 2), repeats=1),
        on_gpu("gpu-halves-mini-8192", prepare=partial(gpu.closed_loop, "mini", 8192, 2), repeats=1),
        on_gpu("gpu-ppo-mini-8192", unit="steps/s", prepare=partial(gpu.learning, 8192), target=50_000, repeats=1),
        *(
            on_gpu(f"gpu-train-{preset}", unit=gpu.MFU, prepare=partial(gpu.training, preset, *sizes), target=target)
            for preset, sizes, target in (
                ("20m", (256, 128), None),
                ("125m", (128, 64), None),
                ("paper", (64, 32), 40.0),
            )
        ),
    ]


def _network():
    """The bundled model, or one of its shape with random weights: the speed is the same."""
    try:
        return load_weights(checkpoint(BUNDLED_MODEL)[0])
    except ValueError:
        return PRESETS["mini"], random_weights(PRESETS["mini"])


def _roofline(batch: int, threads: int, quick: bool) -> float:
    """Events per second that the processor's memory and arithmetic would allow."""
    return cpu.roofline(_network()[0], batch, threads)[0]


def _engine(backend: str, batch: int, quick: bool) -> Work:
    """The bundled model's engine, drawing and appending; torch and quick runs do one round from refill to refill."""
    network, weights = _network()
    return serving(make_engine(network, weights, batch, backend), 1 if quick or backend == "torch" else 4)


def serving(engine, rounds: int) -> Work:
    """Draw and append, as the flow does: a full row is filled again from its last T/2 events, which counts as well."""
    batch, half, sizes = engine.batch, engine.context // 2, engine.config.input_sizes
    rows, active = np.arange(batch), np.ones(batch, np.bool_)
    steps = (half + 1) * rounds  # whole rounds from one refill to the next
    generator = np.random.default_rng(0)
    words = generator.integers(0, 2**32, (steps, batch, 5), np.uint32)
    inputs = np.stack([generator.integers(0, size, (steps, batch)) for size in (*sizes[:3], 1)], -1).astype(np.int32)
    history = list(inputs[:half])
    engine.prefill(rows, list(np.stack(history, 1)))

    def run() -> int:
        for step in range(steps):
            event = inputs[step]
            event[:, 3] = engine.sample(words[step], active)
            history.append(event.copy())
            del history[0]
            if engine.lengths[0] == engine.context:
                engine.prefill(rows, list(np.stack(history, 1)))
            else:
                engine.append(event, active)
        return steps * batch

    return Work(run)


def torch_engine_rate(batch: int, repeats: int) -> float:
    """Events per second of the torch engine on the same weights, with the threads that torch was told to use."""
    return median_rate(_engine("torch", batch, True), repeats)


@lru_cache
def torch_rate(batch: int, threads: int, quick: bool) -> float | None:
    """The torch engine's rate in a process of its own: torch takes its threads once, and this one stays free of it."""
    if importlib.util.find_spec("torch") is None:
        return None
    call = f"from tradefm_gym.bench_engine import torch_engine_rate as rate; print(rate({batch}, {2 if quick else 5}))"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    result = subprocess.run([sys.executable, "-c", call], env=environment, capture_output=True, text=True)
    if result.returncode:
        raise ValueError(f"the torch engine failed: {result.stderr.strip().splitlines()[-1]}")
    return float(result.stdout.split()[-1])
