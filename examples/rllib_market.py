"""RLlib's PPO for a market maker and two executors in one market: a policy for each role, two processes that sample.

    pip install "tradefm-gym[rllib]"  # in an environment of its own: RLlib pins gymnasium
    python examples/rllib_market.py --iterations 50

An agent that is done leaves the market, and the others go on.
"""

import tyro
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from tradefm_gym import parallel_env

ROLES = ["market_making", {"role": "execution", "side": "buy"}, {"role": "execution", "side": "sell"}]


def make_env(task: dict) -> ParallelPettingZooEnv:
    """What each process calls."""
    return ParallelPettingZooEnv(parallel_env(ROLES, **task))


def configured(flow: str = "zero_intelligence", runners: int = 2, batch: int = 512, seed: int = 0) -> PPOConfig:
    """PPO with ``runners`` processes that sample ``batch`` decisions for an iteration."""
    register_env("market", make_env)
    return (
        PPOConfig()
        .environment("market", env_config={"flow": flow})
        .env_runners(num_env_runners=runners)
        .debugging(seed=seed)  # a process adds its number; without one RLlib's checker leaves several with the same
        .multi_agent(policies={"maker", "executor"}, policy_mapping_fn=lambda agent, *_, **__: agent.split("_")[0])
        .training(train_batch_size_per_learner=batch, minibatch_size=128, num_epochs=4, gamma=1.0, lr=3e-4)
    )


def main(
    flow: str = "zero_intelligence", runners: int = 2, batch: int = 512, seed: int = 0, iterations: int = 2
) -> None:
    """Trains, and prints what an episode earned each agent on average."""
    algorithm = configured(flow, runners, batch, seed).build_algo()
    for iteration in range(iterations):
        earned = algorithm.train()["env_runners"]["agent_episode_returns_mean"]
        print(f"{iteration}: " + ", ".join(f"{agent} {mean:.2f} bps" for agent, mean in sorted(earned.items())))
    algorithm.stop()


if __name__ == "__main__":
    tyro.cli(main)
