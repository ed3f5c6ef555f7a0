"""RLlib's PPO on the execution task; two processes of Ray sample.

    pip install "tradefm-gym[rllib]"  # in an environment of its own: RLlib pins gymnasium
    python examples/rllib_execution.py --iterations 50

On a cluster of machines that ``ray start`` has joined, ``RAY_ADDRESS=auto`` and more ``--runners`` use all of them.
"""

import gymnasium
import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env


def make_env(task: dict) -> gymnasium.Env:
    """What each process calls; the part before the colon imports the package there."""
    return gymnasium.make("tradefm_gym:TradeFM/Execution-v0", **task)


def configured(flow: str = "zero_intelligence", runners: int = 2, batch: int = 512, seed: int = 0) -> PPOConfig:
    """PPO with ``runners`` processes that sample ``batch`` decisions for an iteration."""
    register_env("execution", make_env)
    return (
        PPOConfig()
        .environment("execution", env_config={"flow": flow})
        .env_runners(num_env_runners=runners)
        .debugging(seed=seed)  # a process adds its number; without one RLlib's checker leaves several with the same
        .training(train_batch_size_per_learner=batch, minibatch_size=128, num_epochs=4, gamma=1.0, lr=3e-4)
    )


def main(
    flow: str = "zero_intelligence", runners: int = 2, batch: int = 512, seed: int = 0, iterations: int = 2
) -> None:
    """Trains, and prints what an episode earned on average."""
    algorithm = configured(flow, runners, batch, seed).build_algo()
    for iteration in range(iterations):
        sampled = algorithm.train()["env_runners"]
        print(f"{iteration}: {sampled['episode_return_mean']:.2f} bps, {sampled['num_episodes']} episodes")
    algorithm.stop()


if __name__ == "__main__":
    tyro.cli(main)
