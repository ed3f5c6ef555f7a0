"""Reference policies and learners, on the public API only; installed as ``tradefm_gym.agents``."""

from tradefm_gym.agents.comparison import Estimate, PolicySummary, bootstrap, compare
from tradefm_gym.agents.evaluation import Evaluator, evaluate
from tradefm_gym.agents.policies import (
    ConstantPolicy,
    CrossingTWAP,
    Immediate,
    PassiveTWAP,
    Policy,
    PostAndWait,
    Random,
    reference_policies,
)

__all__ = [
    "ConstantPolicy",
    "CrossingTWAP",
    "Estimate",
    "Evaluator",
    "Immediate",
    "PassiveTWAP",
    "Policy",
    "PolicySummary",
    "PostAndWait",
    "Random",
    "bootstrap",
    "compare",
    "evaluate",
    "reference_policies",
]
