"""Options of the test run."""


def pytest_addoption(parser):
    """How long the comparison of the market with its reference is."""
    parser.addoption(
        "--market-events", type=int, default=1_000_000, help="random events compared with the reference book"
    )
