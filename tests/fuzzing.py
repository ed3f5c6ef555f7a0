"""Long runs of the fuzzed tests: new cases for as long as is wanted, and every failure printed."""

import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

SLOWEST_S = 10.0  # for one case
_UNLIMITED_S = 1e9


def go_on(cases: SearchStrategy, run: Callable[[Any, float], None], outcomes: Counter, seconds: float) -> int:
    """Runs new cases for a while; 1 if one failed.

    Args:
        cases: what to draw from.
        run: runs one case, given how many seconds it may take.
        outcomes: what ``run`` counts.
        seconds: after which no case is begun.
    """
    started, number, failed = time.monotonic(), 0, 0
    while time.monotonic() - started < seconds:
        slowest = SLOWEST_S if number else _UNLIMITED_S  # the first ones wait for the compiler
        try:
            _round(cases, run, number, slowest, started + seconds)
        except Exception as failure:
            failed = 1
            traceback.print_exception(failure)
        number, elapsed = number + 1, time.monotonic() - started
        print(f"{elapsed:.0f} s, {sum(outcomes.values())} done: {dict(sorted(outcomes.items()))}", flush=True)
    return failed


def _round(cases: SearchStrategy, run: Callable[[Any, float], None], number: int, slowest: float, end: float) -> None:
    """Five hundred cases that no other number has."""

    @seed(number)
    @settings(
        max_examples=500, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases)
    def some(case):
        if time.monotonic() < end:
            run(case, slowest)

    some()
