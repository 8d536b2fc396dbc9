"""The kernels, computed by Triton's interpreter in a process of its own: interpreted.py says what is compared."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "interpreted.py"

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="the interpreter is Triton's")


def agreements(*parts: str, seconds: int = 230) -> list[int]:
    """How many comparisons each part made."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, *parts], capture_output=True, text=True, env=environment, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.removesuffix(" agree").split(": ") for line in done.stdout.splitlines())
    return [int(said[part]) for part in parts]


# As many as two processes can share.
@pytest.mark.parametrize(
    "numbers",
    [
        {"settings": 11, "options": 6},
        {"gates": 14, "compiled": 2},
        {"several_tiles": 6, "sizes": 8, "units": 25},
        {"surrounded": 3, "edges": 24, "modules": 1},
    ],
    ids=lambda numbers: ", ".join(numbers),
)
def test_kernels_are_no_less_exact_than_the_readable_passes(numbers: dict[str, int]):
    assert agreements(*numbers) == [*numbers.values()]


@pytest.mark.exhaustive
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    ("part", "least"), [("every_setting", 71), ("every_row", 71), ("more_options", 7), ("embeddings", 6)]
)
def test_kernels_are_no_less_exact_anywhere(part: str, least: int):
    assert agreements(part, seconds=2900)[0] >= least
