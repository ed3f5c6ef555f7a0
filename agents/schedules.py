"""Reference schedules for the execution task: volume's, a part of it, and that of Almgren and Chriss."""

import math
from typing import Any

import numpy as np
from tradefm_gym.agents.policies import ConstantPolicy

from tradefm_gym import ExecutionRole, TradingSession
from tradefm_gym.envs.observation import block_slices

CROSSES = 1.0
NOTHING = 1e-6  # a temporary impact of less (bps of the whole order) is rounding
SPREAD = block_slices()["spread"].start


class VWAP(ConstantPolicy):
    """Keeps to volume: after each interval the part of the order is done that the volume's part is expected to be.

    With v what others have traded so far, u the usual volume of an interval and m the intervals left, the part is
    (v + u) / (v + m u). What others trade is no part of the observation, so the role itself counts: make it with
    ``task``, ``{"schedule": "vwap"}``. With another schedule this is that schedule, unbent.

    Args:
        aggressiveness: from resting behind the touch (-1) to crossing (1).
    """

    def __init__(self, aggressiveness: float = 0.0):
        super().__init__("vwap", 0.0, aggressiveness)
        self.task: dict[str, Any] = {"schedule": "vwap"}


class POV(ConstantPolicy):
    """Trades a part of what others traded since the last decision; what that leaves at the deadline crosses.

    As with ``VWAP`` the role counts: make it with ``task``.

    Args:
        participation: that part.
        aggressiveness: from resting behind the touch (-1) to crossing (1).
    """

    def __init__(self, participation: float = 0.1, aggressiveness: float = 0.0):
        super().__init__("pov", 0.0, aggressiveness)
        self.task: dict[str, Any] = {"schedule": "pov", "participation": participation}


class AlmgrenChriss:
    """The schedule of least mean + ``risk_aversion`` x variance of the cost under linear impact.

    Almgren and Chriss, "Optimal execution of portfolio transactions", Journal of Risk 3 (2000), equations 15 to 20.
    With one decision as the unit of time and n of them, what is left after j is the part
    sinh(k (n - j)) / sinh(k n) of the order, where 2 (cosh k - 1) = risk_aversion x volatility^2 / (temporary -
    permanent / 2). Without risk aversion this is TWAP. Costs are counted in basis points of the arrival notional, and
    lots as parts of the parent order, so that one set of parameters suits all start contexts.

    Args:
        risk_aversion: for each basis point.
        volatility: standard deviation of the mid's move between two decisions, basis points.
        temporary: what a lot costs more, in basis points, if the whole order instead of nothing is traded in one
            decision.
        permanent: how far the whole order moves the mid for good, basis points.
        aggressiveness: from resting behind the touch (-1) to crossing (1).

    Raises:
        ValueError: if a parameter is not allowed; under so much permanent impact there is no optimal schedule.
    """

    name = "almgren_chriss"

    def __init__(
        self,
        risk_aversion: float = 0.001,
        volatility: float = 1.0,
        temporary: float = 10.0,
        permanent: float = 0.0,
        aggressiveness: float = 0.0,
    ):
        for name, value in (("risk_aversion", risk_aversion), ("volatility", volatility), ("permanent", permanent)):
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}; it must be a finite number of at least 0")
        if not permanent / 2.0 < temporary < math.inf:
            raise ValueError(f"temporary is {temporary!r}; it must be more than half of permanent, {permanent / 2.0!r}")
        self.risk_aversion, self.volatility = risk_aversion, volatility
        self.temporary, self.permanent, self.aggressiveness = temporary, permanent, aggressiveness

    @property
    def urgency(self) -> float:
        """The k of the schedule, for each decision."""
        squared = self.risk_aversion * self.volatility**2 / (self.temporary - 0.5 * self.permanent)
        return math.acosh(1.0 + 0.5 * squared)

    def remaining(self, decision: np.ndarray, decisions: np.ndarray) -> np.ndarray:
        """Part of the order (n,) float64 that is left after so many of all decisions, both (n,)."""
        left, whole = np.maximum(decisions - decision, 0.0), np.asarray(decisions, np.float64)
        k = self.urgency
        if k * whole.max(initial=0.0) < 1e-6:
            return left / whole
        # sinh(k left) / sinh(k whole), in a form that does not overflow.
        return np.exp(k * (left - whole)) * np.expm1(-2.0 * k * left) / np.expm1(-2.0 * k * whole)

    def act(self, observation: np.ndarray, info: dict[str, np.ndarray]) -> np.ndarray:
        """Actions (n, 2) float32 of an executor with TWAP's schedule; ``info`` has ``decision`` and ``decisions``."""
        done, decisions = np.asarray(info["decision"]), np.asarray(info["decisions"])
        part = self.remaining(done, decisions) - self.remaining(done + 1, decisions)
        factor = np.maximum(part * decisions, 0.0)  # of TWAP's slice
        faster = np.log(np.maximum(factor, 1.0)) / np.log(np.maximum(decisions, 2))
        deviation = np.where(factor < 1.0, factor - 1.0, faster)
        actions = np.stack([deviation, np.full(len(done), self.aggressiveness)], axis=1)
        return np.clip(actions, -1.0, 1.0).astype(np.float32)

    @classmethod
    def fit(
        cls,
        flow: Any = "zero_intelligence",
        risk_aversion: float = 0.001,
        *,
        num_envs: int = 64,
        seed: int = 0,
        aggressiveness: float = 0.0,
        **task: Any,
    ) -> "AlmgrenChriss":
        """Measures impact and volatility with crossing orders of random size in markets of this flow.

        What a lot costs against the mid at the decision is explained by the spread of that moment and the part of the
        order that was traded, whose slope is the temporary impact. Permanent impact is the slope of the mid's move
        until the next decision over that part, and the volatility what is left of these moves. A slope of the mid
        below 0 counts as 0. So does one of twice the temporary impact or more, as others who follow may cause: then the
        model in discrete time has no optimum, and the schedule is that of continuous time, in which all schedules pay
        the permanent impact alike.

        Args:
            flow: name of a flow, or one made for ``num_envs`` markets.
            risk_aversion: for each basis point.
            num_envs: markets, one episode each.
            seed: of the first market and the sizes.
            aggressiveness: of the policy; what is measured always crosses.
            **task: arguments of ``ExecutionRole``.

        Raises:
            ValueError: if ``task`` has other blocks than the usual ones, or larger orders cost no more.
        """
        part, cost, move, spread = _measure(flow, num_envs, seed, task)
        traded = part > 0
        weight = np.sqrt(part[traded])  # a cost for each lot is an average over so many
        causes = np.stack([spread[traded], part[traded]], axis=1) * weight[:, None]
        temporary = np.linalg.lstsq(causes, cost[traded] / weight, rcond=None)[0][1]
        permanent, drift = np.polyfit(part, move, 1)
        volatility = float((move - drift - permanent * part).std())
        if temporary < NOTHING:
            raise ValueError(
                f"flow is {getattr(flow, 'name', flow)!r}, in which larger orders cost no more; nothing can be fitted"
            )
        if not 0.0 <= permanent < 2.0 * temporary:
            permanent = 0.0
        return cls(risk_aversion, volatility, float(temporary), float(permanent), aggressiveness)


def _measure(flow: Any, num_envs: int, seed: int, task: dict[str, Any]) -> np.ndarray:
    """Of all decisions but the last ones (4, M): part of the order, cost and move of the mid (bps), usual spreads.

    Costs and moves are positive where they run against the agent; the spread is that before the orders.
    """
    if task.get("blocks") is not None or task.get("observation", "flat") != "flat":
        raise ValueError("task has its own blocks or observation; the fit reads the usual flat ones")
    session = TradingSession(num_envs, ExecutionRole(**task), flow)
    session.seed(np.ones(num_envs, np.bool_), np.arange(seed, seed + num_envs))
    observation = session.reset()
    start, before = session.start_info(), session.step_info()
    generator, found = np.random.default_rng(seed), []
    while session.running.any():
        actions = np.stack([generator.uniform(-1.0, 0.6, num_envs), np.full(num_envs, CROSSES)], axis=1)
        spread = observation[:, SPREAD]
        observation = session.step(actions.astype(np.float32)).observation
        now, still = session.step_info(), session.running
        part = (now["executed"] - before["executed"]) / start["quantity"]
        move = 1e4 * start["side"] * (now["mid"] - before["mid"]) / now["arrival_mid"]
        found.append(np.stack([part, now["terms"]["spread"], move, spread])[:, still])
        before = now
    return np.concatenate(found, axis=1)
