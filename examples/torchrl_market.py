"""Policy gradients with TorchRL for a market maker and two executors in one market, a policy for each role.

    pip install "tradefm-gym[torchrl]"
    python examples/torchrl_market.py --rounds 50

An agent that is done leaves the market; what would have come after is masked.
"""

import torch
import tyro
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.envs import PettingZooWrapper
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal

from tradefm_gym import parallel_env
from tradefm_gym.envs.torchrl import ForTorchRL

ROLES = ["market_making", {"role": "execution", "side": "buy"}, {"role": "execution", "side": "sell"}]


def make_env(flow: str) -> PettingZooWrapper:
    """Agents are grouped by role; ``mask`` says who is left, and the market goes on until all have left."""
    return PettingZooWrapper(ForTorchRL(parallel_env(ROLES, flow=flow)), use_mask=True, done_on_any=False)


def policy_of(env: PettingZooWrapper, role: str) -> ProbabilisticActor:
    """One network for all agents of a role."""
    seen, does = env.observation_spec[role, "observation"].shape[-1], env.action_spec[role, "action"].shape[-1]
    network = nn.Sequential(MLP(seen, 2 * does, num_cells=[64, 64]), NormalParamExtractor())
    chosen = TensorDictModule(network, [(role, "observation")], [(role, "loc"), (role, "scale")])
    drawn_from = {"loc": (role, "loc"), "scale": (role, "scale")}
    return ProbabilisticActor(chosen, drawn_from, [(role, "action")], distribution_class=TanhNormal)


def main(flow: str = "zero_intelligence", rounds: int = 2, episodes: int = 4) -> list[dict[str, float]]:
    """Trains; returns and prints what an episode earned an agent of each role, basis points on average."""
    env = make_env(flow)
    policies = {role: policy_of(env, role) for role in env.group_map}
    together = TensorDictSequential(*policies.values())
    optimiser, earned = torch.optim.Adam(together.parameters(), lr=3e-4), []
    for number in range(rounds):
        with torch.no_grad():
            played = [env.rollout(64, together) for _ in range(episodes)]
        rewards = {role: [data["next", role, "reward"][..., 0] for data in played] for role in policies}
        earned.append(
            {role: float(torch.stack([each.sum(0).mean() for each in rewards[role]]).mean()) for role in policies}
        )
        print(f"{number}: " + ", ".join(f"{role} {mean:.2f} bps" for role, mean in earned[-1].items()))
        for role, policy in policies.items():
            left = torch.cat([data[role, "mask"] for data in played])
            to_come = torch.cat([each.flip(0).cumsum(0).flip(0) for each in rewards[role]])[left]
            likely = torch.cat([policy.get_dist(data).log_prob(data[role, "action"]) for data in played])[left]
            (-(to_come - to_come.mean()) * likely).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    return earned


if __name__ == "__main__":
    tyro.cli(main)
