"""Real processes, on gloo: what they compute together is what one computes alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def finished(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=220, check=False)


def together(counts: list[int], *parts: str) -> str:
    """What groups of so many processes say, one group after another."""
    done = finished(FOLDER / "same_as_one.py", ",".join(map(str, counts)), *parts)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count(f": {len(parts)} done") == sum(counts)
    return done.stdout


@pytest.mark.parametrize("count", [2, 3, 4])
def test_settings_are_those_of_one_process(count: int):
    """A quarter of all, another for each count: three quarters."""
    said = together([count], "a_quarter_of_settings", "statistics", "recomputed", "companion")
    assert said.count("168 setups agree") == count


@pytest.mark.exhaustive
@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_setting_is_that_of_one_process(count: int):
    assert together([count], "every_setting").count("672 setups agree") == count


def test_refusals_reach_every_process_and_one_row_each_is_enough():
    together([2, 3, 4], "refused", "one_row_each")


def test_bytes_and_products_are_those_of_the_formula():
    assert together([1, 2, 3, 4], "counted").count("counted") == 10


def test_a_group_is_a_batch_of_its_own():
    together([4], "groups")


def test_training_is_that_of_one_process():
    """Under DistributedDataParallel, with accumulated gradients and a learnable temperature, compiled too."""
    together([2], "trained")


def test_adapters_gather_as_their_libraries_do():
    together([2], "libraries")


def test_every_rival_is_that_of_one_process():
    assert together([2, 3], "rivals").count("21 losses agree") == 5


def test_lightning_trains_to_the_weights_of_one_process():
    """Under torchrun."""
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    done = finished(*run, FOLDER / "lightning_same.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the same weights" in done.stdout
