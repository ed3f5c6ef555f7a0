"""A few hundred sequences of strange orders; see fuzz_orders for the long run."""

import fuzz_orders
from hypothesis import HealthCheck, given, settings
from market_checks import JIT

QUICK = settings(
    max_examples=200 if JIT else 10, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@QUICK
@given(fuzz_orders.cases)
def test_strange_orders_are_taken_or_refused_and_leave_sound_books(case):
    fuzz_orders.run(case, slowest=1e9)  # it may have to compile
