"""TorchRL's PPO on the execution task: the native vector environment, 16 markets at once.

    pip install "tradefm-gym[torchrl]"
    python examples/torchrl_execution.py --rounds 50

A round is at least one episode in each market.
"""

import gymnasium
import torch
import tyro
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.envs import GymWrapper
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE


def make_env(flow: str, markets: int) -> GymWrapper:
    """TorchRL resets the rows that ended by itself, so autoreset is disabled."""
    name = "tradefm_gym:TradeFM/Execution-v0"
    return GymWrapper(gymnasium.make_vec(name, num_envs=markets, flow=flow, autoreset_mode="Disabled"))


def main(flow: str = "zero_intelligence", markets: int = 16, rounds: int = 2, epochs: int = 4) -> list[float]:
    """Trains; returns and prints the reward of a decision in each round, basis points on average."""
    env = make_env(flow, markets)
    seen, does = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    network = nn.Sequential(MLP(seen, 2 * does, num_cells=[64, 64]), NormalParamExtractor())
    chosen = TensorDictModule(network, ["observation"], ["loc", "scale"])
    policy = ProbabilisticActor(chosen, ["loc", "scale"], distribution_class=TanhNormal, return_log_prob=True)
    value = ValueOperator(MLP(seen, 1, num_cells=[64, 64]))
    advantage, loss = GAE(gamma=1.0, lmbda=0.95, value_network=value), ClipPPOLoss(policy, value)
    optimiser, rewards = torch.optim.Adam(loss.parameters(), lr=3e-4), []
    for number in range(rounds):
        with torch.no_grad():
            data = env.rollout(64, policy, break_when_any_done=False)
        rewards.append(data["next", "reward"].mean().item())
        print(f"{number}: {rewards[-1]:.3f} bps a decision, {int(data['next', 'done'].sum())} episodes")
        for _ in range(epochs):
            losses = loss(advantage(data))
            (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
            optimiser.step()
            optimiser.zero_grad()
    return rewards


if __name__ == "__main__":
    tyro.cli(main)
