"""Does a point process explain what happened? By time rescaling: its residuals must be unit exponentials."""

from dataclasses import asdict, dataclass

import numpy as np

from tradefm_gym.flow.hawkes_process import HawkesProcess, Observed, time_rescaled

_QUANTILES = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


@dataclass(frozen=True)
class TypeFit:
    """How the residuals of one type compare with unit exponentials. JSON-able."""

    type: str
    events: int
    ks: float | None  # largest distance between the two distribution functions; None without events
    p_value: float | None  # of a distance at least as large, were the process the true one
    mean: float | None  # 1 for the true process
    expected: list[float]  # quantiles of the unit exponential at 1, 5, 10, 25, 50, 75, 90, 95 and 99%
    observed: list[float]  # quantiles of the residuals

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return asdict(self)


def goodness_of_fit(process: HawkesProcess, observed: Observed, names: tuple[str, ...]) -> list[TypeFit]:
    """Residuals of each type against the unit exponential, by Kolmogorov and Smirnov, and by quantiles.

    Args:
        process: the process in question.
        observed: events that it should explain.
        names: of its types.
    """
    residuals, types = time_rescaled(process, observed), observed.counted
    return [_type_fit(name, residuals[types == i]) for i, name in enumerate(names)]


def kolmogorov_smirnov(residuals: np.ndarray) -> tuple[float, float]:
    """Distance of residuals (n,) from the unit exponential, and the probability of a larger one (asymptotic)."""
    n = len(residuals)
    uniform = -np.expm1(-np.sort(residuals))
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - uniform).max(), (uniform - steps[:-1]).max()))
    x = distance * (np.sqrt(n) + 0.12 + 0.11 / np.sqrt(n))  # Stephens' correction for finite n
    k = np.arange(1, 101)
    tail = 2 * ((-1.0) ** (k - 1) * np.exp(-2 * (k * x) ** 2)).sum() if x > 0.2 else 1.0
    return distance, float(np.clip(tail, 0.0, 1.0))


def _type_fit(name: str, residuals: np.ndarray) -> TypeFit:
    expected = np.round(-np.log1p(-_QUANTILES), 4).tolist()
    if len(residuals) == 0:
        return TypeFit(name, 0, None, None, None, expected, [])
    distance, p_value = kolmogorov_smirnov(residuals)
    observed = np.round(np.quantile(residuals, _QUANTILES), 4).tolist()
    mean = round(float(residuals.mean()), 4)
    return TypeFit(name, len(residuals), round(distance, 4), round(p_value, 4), mean, expected, observed)
