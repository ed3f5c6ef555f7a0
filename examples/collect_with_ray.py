"""Rollouts from several processes, or machines, by Ray: each actor is a session with its own engine.

    pip install ray
    python examples/collect_with_ray.py --flow tradefm --actors 2 --markets 32

Market m is seeded with seed + m wherever it is played, so one actor and many collect the same (for ``tradefm`` if the
rows of each engine are as many). With ``--gpus-each 0.25`` four actors share a GPU.
"""

import time
from dataclasses import dataclass

import numpy as np
import tyro

from tradefm_gym import ExecutionRole, TradingSession


@dataclass
class Arguments:
    """What to collect."""

    flow: str = "tradefm"
    actors: int = 2
    markets: int = 32  # of each actor
    decisions: int = 16
    seed: int = 7
    gpus_each: float = 0.0  # share of a GPU for each actor; 0: on the CPU


class Collector:
    """A session of markets seeded ``first_seed``, ``first_seed + 1`` ..."""

    def __init__(self, flow: str, markets: int, decisions: int, first_seed: int, on_gpu: bool = False):
        options = {"device": "cuda"} if on_gpu else {}
        role = ExecutionRole(decisions=decisions)
        self.session = TradingSession(markets, role, flow, flow_options=options)
        self.seeds = first_seed + np.arange(markets)
        self.session.seed(np.ones(markets, bool), self.seeds)

    def collect(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """One episode of a linear policy ``weights (obs, act)`` with noise, each array (T, N, ...)."""
        noise = [np.random.default_rng([int(seed), 1]) for seed in self.seeds]
        seen, steps = self.session.reset(), []
        while self.session.running.any():
            drawn = np.stack([generator.standard_normal(weights.shape[1]) for generator in noise])
            # Row by row: a product of matrices may round a row by its neighbours.
            actions = np.tanh(np.stack([row @ weights for row in seen]) + 0.3 * drawn).astype(np.float32)
            playing, result = self.session.running.copy(), self.session.step(actions)
            steps.append((seen, actions, result.reward, playing))
            seen = result.observation
        names = ("observations", "actions", "rewards", "playing")
        return {name: np.stack(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}


def collect(arguments: Arguments, weights: np.ndarray) -> dict[str, np.ndarray]:
    """An episode in the markets of all actors, in the order of their seeds."""
    import ray

    share = {"num_cpus": 1, "num_gpus": arguments.gpus_each}
    made = ray.remote(**share)(Collector)
    first_seeds = arguments.seed + arguments.markets * np.arange(arguments.actors)
    fixed = (arguments.flow, arguments.markets, arguments.decisions)
    actors = [made.remote(*fixed, int(first), arguments.gpus_each > 0) for first in first_seeds]
    sent = ray.put(weights)  # once, for all
    parts = ray.get([actor.collect.remote(sent) for actor in actors])
    longest = max(len(part["rewards"]) for part in parts)
    return {name: np.concatenate([_to_length(part[name], longest) for part in parts], 1) for name in parts[0]}


def _to_length(array: np.ndarray, steps: int) -> np.ndarray:
    return np.concatenate([array, np.zeros((steps - len(array), *array.shape[1:]), array.dtype)])


def main(arguments: Arguments) -> None:
    """Collects and says how fast."""
    try:
        import ray
    except ImportError:
        raise SystemExit("This example needs Ray: pip install ray") from None

    ray.init(include_dashboard=False)
    told = int(np.prod(ExecutionRole().observation_space.shape or ()))
    weights = np.zeros((told, 2), np.float32)
    start = time.perf_counter()
    steps = collect(arguments, weights)
    seconds = time.perf_counter() - start
    print(f"{int(steps['playing'].sum()):,} decisions in {seconds:.1f} s, start of the actors included")
    ray.shutdown()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
