"""Real processes, on gloo: what they compute together is what one computes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def together(count: int, *parts: str, script: str = "same_as_one.py") -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*run, str(FOLDER / script), *parts]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=220, check=False)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_setting_is_that_of_one_process(count: int):
    done = together(count, "every_setting", "statistics", "refused", "one_row_each", "recomputed", "companion")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("672 setups agree") == count
    assert done.stdout.count("done") == count


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_bytes_and_products_are_those_of_the_formula(count: int):
    done = together(count, "counted")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("counted") == count


def test_a_group_is_a_batch_of_its_own():
    done = together(4, "groups")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 4


def test_training_is_that_of_one_process():
    """Under DistributedDataParallel, with accumulated gradients and a learnable temperature, compiled too."""
    done = together(2, "trained")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2


def test_adapters_gather_as_their_libraries_do():
    done = together(2, script="adapters_same.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done") == 2


def test_lightning_trains_to_the_weights_of_one_process():
    done = together(2, script="lightning_same.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same weights" in done.stdout
