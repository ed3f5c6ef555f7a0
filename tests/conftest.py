"""Options of the test run."""

import importlib.util
import os

if "PYTEST_XDIST_WORKER" in os.environ and importlib.util.find_spec("torch"):
    import torch

    torch.set_num_threads(1)  # workers whose threads wait for one another's cores take many times as long


def pytest_addoption(parser):
    """How long the comparison of the market with its reference is."""
    parser.addoption(
        "--market-events", type=int, default=1_000_000, help="random events compared with the reference book"
    )
