"""Real processes, on gloo: what they compute together is what one computes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("same_as_one.py")


def together(count: int, *parts: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(SCRIPT), *parts], capture_output=True, text=True, env=environment, timeout=220, check=False
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_setting_is_that_of_one_process(count: int):
    done = together(count, "every_setting", "statistics", "refused")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("576 settings agree") == count
    assert done.stdout.count("done") == count


def test_training_is_that_of_one_process():
    """Under DistributedDataParallel, with accumulated gradients and a learnable temperature, compiled too."""
    done = together(2, "trained")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2
