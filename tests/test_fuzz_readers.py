"""A few hundred damaged files; see fuzz_readers for the long run."""

import pytest

pytest.importorskip("polars", reason="needs the data extra")
pytest.importorskip("databento_dbn", reason="needs the databento extra")

import fuzz_readers
from hypothesis import HealthCheck, given, settings


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    fuzz_readers.warm_up()


@settings(max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(fuzz_readers.cases())
def test_damaged_files_end_with_rows_or_with_a_sentence(case):
    fuzz_readers.run(case)
