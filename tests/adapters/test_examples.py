"""Every example runs, and its loss falls."""

from __future__ import annotations

import pytest

from examples import FOLDER, load

RUNS = {  # steps, and after how many the memory of earlier batches is full: until then the task grows
    "plain_moco": (40, 10),
    "lightly_simclr": (25, 0),
    "metric_learning_labels": (25, 5),
    "open_clip_digits": (25, 0),
    "sentence_transformers_simcse": (6, 0),
}


def test_all_are_run_here_or_in_the_tests_of_their_adapter():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"digits"}
    assert scripts == {*RUNS, "lightning_monitor", "compare_own_loop"}


@pytest.mark.parametrize("name", RUNS)
def test_an_example_learns(name: str):
    steps, full = RUNS[name]
    losses = load(name).main(steps=steps)
    assert len(losses) == steps
    few = max(1, (steps - full) // 4)
    assert sum(losses[-few:]) < sum(losses[full : full + few])


def test_lightly_with_a_memory_bank():
    losses = load("lightly_simclr").main(steps=10, memory_bank_size=(512, 32))
    assert all(0 < loss < 20 for loss in losses)
