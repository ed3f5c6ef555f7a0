"""The ways in which ``examples/try_the_card.py`` breaks a day on purpose."""

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location(
    "try_the_card", Path(__file__).parents[1] / "examples" / "try_the_card.py"
)
example = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(example)
doubled_sizes, halved_spread, shuffled_waits = (
    example.doubled_sizes, example.halved_spread, example.shuffled_waits,
)  # fmt: skip
