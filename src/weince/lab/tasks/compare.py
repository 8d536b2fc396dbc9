"""The comparison: every loss at every temperature from every seed, chosen on validation, reported once on test.

    <output>/<name>/
      recipe.toml          what was asked
      runs/<run>/          history.csv, TensorBoard events, encoder and projection weights, validation.json, test.json;
                           kept/<epoch>.safetensors with `keep_every`
      result.json          everything the report says; scores.csv the same scores as a tidy table
      figures/*.png        report.html

A run is finished when its validation.json is there, so the same command continues a stopped comparison.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weince.lab.data.sets import Splits
from weince.lab.engine.result import NAMES, choose, judge, tidy
from weince.lab.tasks.recipe import Recipe, Run
from weince.lab.tasks.runs import claimed, finish, ready, tested
from weince.lab.training.contrastive import device_of
from weince.lab.training.launch import first_does
from weince.processes.gather import world_size
from weince.shell.files import write_csv, write_json
from weince.shell.provenance import provenance

__all__ = ["Progress", "compare", "train_one"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, epochs done so far and epochs in all."""


def compare(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Carry out a comparison, or what is left of it, and write its results.

    Several processes (torchrun, srun) train each run together; the first one judges and writes.

    Args:
        recipe: what to do.
        progress: told of every epoch.

    Returns:
        The content of result.json.

    Raises:
        UserError: before anything trains: contradictory settings, unreadable data, a GPU that is not there, or a
            folder that holds another comparison or is being written by another process. Afterwards: a loss that
            diverged at every temperature.
        KeyboardInterrupt: stopped; the same call continues.
    """
    splits = ready(recipe)
    with claimed(recipe, splits):
        runs = [Run(*run) for run in itertools.product(recipe.losses, recipe.temperatures, recipe.seeds)]
        # Seeds outermost, so that a comparison that is stopped half-way has whole pairs.
        runs.sort(key=lambda run: recipe.seeds.index(run.seed))
        validation = {run: _finish(recipe, run, splits, progress, at, len(runs)) for at, run in enumerate(runs)}
        return first_does(lambda: _reported(recipe, splits, validation, progress))


def train_one(recipe: Recipe, run: Run, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Carry out one run of a recipe, or what is left of it. A comparison of the recipe finds it finished.

    Args:
        recipe: what to do; its losses, temperatures and seeds are not looked at.
        run: which.
        progress: told of every epoch.

    Returns:
        The content of the run's validation.json.

    Raises:
        UserError: as in `compare`.
        KeyboardInterrupt: stopped; the same call continues.
    """
    splits = ready(recipe)
    with claimed(recipe, splits):
        return _finish(recipe, run, splits, progress, 0, 1)


def _folder(recipe: Recipe, run: Run) -> Path:
    return recipe.folder / "runs" / run.slug


def _finish(recipe: Recipe, run: Run, splits: Splits, progress: Progress, number: int, of: int) -> dict[str, Any]:
    what = f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}"

    def on_epoch(epoch: int) -> None:
        progress(what, number * recipe.epochs + epoch, of * recipe.epochs)

    return finish(recipe, run, splits, _folder(recipe, run), on_epoch)


def _reported(
    recipe: Recipe, splits: Splits, validation: dict[Run, dict[str, Any]], progress: Progress
) -> dict[str, Any]:
    rows = choose(recipe, validation)
    shown = [run for row in rows for run in row.runs(recipe)]
    test = {}
    for number, run in enumerate(shown):
        total = len(validation) * recipe.epochs
        progress(f"Scoring on test images, {number + 1} of {len(shown)}", total, total)
        test[run] = tested(recipe, run, splits, _folder(recipe, run))
    result = {
        "recipe": recipe.told(),
        "made": {**provenance(device_of(recipe)), "processes": world_size()},
        "images": {part: len(images.labels) for part, images in splits._asdict().items()},
        "classes": len(splits.training.labels.unique()),
        **judge(recipe, rows, validation, test),
    }
    other = {path.parent.name for path in recipe.folder.glob("runs/*/test.json")} - {run.slug for run in shown}
    if other:
        result["warnings"].append(
            f"{len(other)} runs that are not shown were scored on the test images by earlier commands: "
            "what is shown was chosen with the test images in sight."
        )
    write_json(recipe.folder / "result.json", result)
    write_csv(recipe.folder / "scores.csv", tidy(result))
    return result
