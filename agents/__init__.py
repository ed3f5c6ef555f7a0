"""Reference policies and learners, on the public API only; installed as ``tradefm_gym.agents``."""

from tradefm_gym.agents.comparison import Controlled, Estimate, PolicySummary, bootstrap, compare, controlled
from tradefm_gym.agents.evaluation import Evaluator, evaluate
from tradefm_gym.agents.makers import GLFT, AvellanedaStoikov, FixedSpread, fill_intensities, making_policies
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
from tradefm_gym.agents.schedules import POV, VWAP, AlmgrenChriss
from tradefm_gym.agents.traders import Momentum, Noise, ZeroIntelligence, trading_policies

__all__ = [
    "GLFT",
    "POV",
    "VWAP",
    "AlmgrenChriss",
    "AvellanedaStoikov",
    "ConstantPolicy",
    "Controlled",
    "CrossingTWAP",
    "Estimate",
    "Evaluator",
    "FixedSpread",
    "Immediate",
    "Momentum",
    "Noise",
    "PassiveTWAP",
    "Policy",
    "PolicySummary",
    "PostAndWait",
    "Random",
    "ZeroIntelligence",
    "bootstrap",
    "compare",
    "controlled",
    "evaluate",
    "fill_intensities",
    "making_policies",
    "reference_policies",
    "trading_policies",
]
