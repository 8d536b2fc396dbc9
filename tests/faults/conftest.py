"""Real processes, really killed. `make test` kills a few; `make test-faults` (FAULTS=full) as many as it takes."""

import os

import pytest

FULL = os.environ.get("FAULTS") == "full"


@pytest.fixture(scope="session")
def full():
    return FULL
