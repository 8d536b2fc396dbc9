"""Real processes, really killed. `make test` kills a few; `make test-faults` (FAULTS=full) as many as it takes."""

import os
import subprocess
import sys

import pytest

FULL = os.environ.get("FAULTS") == "full"


def start(*words, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-W", "ignore", "-m", "weince", *map(str, words)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def finished(*words):
    process = start(*words)
    said = process.communicate(timeout=200)[0]
    return process.returncode, said


@pytest.fixture(scope="session")
def full():
    return FULL
