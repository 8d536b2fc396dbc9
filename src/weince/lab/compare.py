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

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from weince.lab.data import Splits, load
from weince.lab.evaluate import INVERSE_PENALTIES, Labelled, fit_probe, held_out_contest, neighbour_scores
from weince.lab.features import extract, freeze
from weince.lab.files import write_bytes, write_csv, write_json, write_text
from weince.lab.provenance import provenance
from weince.lab.recipe import Recipe, RecipeError, Run, read, write
from weince.lab.result import METRICS, NAMES, choose, judge, tidy
from weince.lab.train import Encoded, build, checkpoints, device_of, train, two_views_of
from weince.lab.views import make_views

__all__ = ["Progress", "compare"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, epochs done so far and epochs in all."""

EXTENSIBLE = {"losses", "temperatures", "seeds", "output", "data_dir", "keep_every"}
"""Settings in which a continued comparison may differ: finished runs stay what they are. The images of another
`data_dir` must be the same ones, pixel by pixel."""
HELD_OUT_IMAGES = 512


def compare(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Carry out a comparison, or what is left of it, and write its results.

    Args:
        recipe: what to do.
        progress: told of every epoch.

    Returns:
        The content of result.json.

    Raises:
        RecipeError: before anything trains: contradictory settings, unreadable data, a GPU that is not there, or a
            folder that holds another comparison or is being written by another process. Afterwards: a loss that
            diverged at every temperature.
        KeyboardInterrupt: stopped; the same call continues.
    """
    device = device_of(recipe)
    splits = load(recipe)
    with _claimed(recipe, splits):
        runs = [Run(*run) for run in itertools.product(recipe.losses, recipe.temperatures, recipe.seeds)]
        # Seeds outermost, so that a comparison that is stopped half-way has whole pairs.
        runs.sort(key=lambda run: recipe.seeds.index(run.seed))
        for number, run in enumerate(runs):
            _finish(recipe, run, splits, device, progress, number, len(runs))
        validation = {run: _read(_folder(recipe, run) / "validation.json") for run in runs}
        rows = choose(recipe, validation)
        reported = [run for row in rows for run in row.runs(recipe)]
        tested = {}
        for number, run in enumerate(reported):
            total = len(runs) * recipe.epochs
            progress(f"Scoring on test images, {number + 1} of {len(reported)}", total, total)
            tested[run] = _tested(recipe, run, splits, device)
        result = {
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "made": provenance(device),
            "images": {part: len(images.labels) for part, images in splits._asdict().items()},
            "classes": len(splits.training.labels.unique()),
            **judge(recipe, rows, validation, tested),
        }
        other = {path.parent.name for path in recipe.folder.glob("runs/*/test.json")} - {run.slug for run in reported}
        if other:
            result["warnings"].append(
                f"{len(other)} runs that are not shown were scored on the test images by earlier commands: "
                "what is shown was chosen with the test images in sight."
            )
        write_json(recipe.folder / "result.json", result)
        write_csv(recipe.folder / "scores.csv", tidy(result))
    return result


def _folder(recipe: Recipe, run: Run) -> Path:
    return recipe.folder / "runs" / run.slug


@contextmanager
def _claimed(recipe: Recipe, splits: Splits) -> Iterator[None]:
    """The comparison's folder, for this process alone, known to hold this comparison and no other."""
    recipe.folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(recipe.folder / ".lock", timeout=0):
            _check_same(recipe, splits)
            write_text(recipe.folder / "recipe.toml", write(recipe))
            write_json(recipe.folder / "data.json", {"sha256": splits.fingerprint})
            yield
    except Timeout:
        raise RecipeError(
            f"{recipe.folder} is being written by another process: wait, or give another --name."
        ) from None


def _check_same(recipe: Recipe, splits: Splits) -> None:
    if not any(recipe.folder.glob("runs/*/validation.json")) and not any(recipe.folder.glob("runs/*/*.ckpt")):
        return  # nothing that another recipe could be mixed with
    stored = recipe.folder / "recipe.toml"
    try:
        held = Recipe(**read(stored))
    except RecipeError as error:
        raise RecipeError(
            f"{stored} was written by another version, or changed by hand:\n{error}\n"
            "Give another --name, or remove that folder."
        ) from None
    before, now = (r.model_dump(mode="json", exclude=EXTENSIBLE) for r in (held, recipe))
    other = [f"{key}: {before[key]!r} there, {now[key]!r} now" for key in now if before[key] != now[key]]
    data = recipe.folder / "data.json"
    if not other and data.is_file() and _read(data)["sha256"] != splits.fingerprint:
        other = ["the images themselves"]
    if other:
        raise RecipeError(
            f"{recipe.folder} holds a comparison with other settings ({'; '.join(other)}). "
            "Give another --name, or remove that folder."
        )


def _finish(
    recipe: Recipe, run: Run, splits: Splits, device: torch.device, progress: Progress, number: int, of: int
) -> None:
    """Train a run and judge it on validation data, unless that is done."""
    folder = _folder(recipe, run)
    what = f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}"

    def on_epoch(epoch: int) -> None:
        progress(what, number * recipe.epochs + epoch, of * recipe.epochs)

    if not (folder / "validation.json").is_file():
        on_epoch(0)
        trained = train(recipe, run, splits.training, folder, on_epoch)
        found = {"diverged": trained.diverged, "train_seconds": round(trained.seconds, 2), "made": provenance(device)}
        if trained.diverged:  # it is not better than nothing, and the other runs go on
            found |= {"scores": dict.fromkeys(METRICS, 0.0), "probe": {"inverse_penalty": None, "converged": True}}
        else:
            found |= _scores(trained.model, splits, "validation", device)
            write_bytes(folder / "held_out.npz", _held_out(recipe, trained.model, splits))
        write_json(folder / "validation.json", found)
    for path in checkpoints(folder):
        path.unlink()
    on_epoch(recipe.epochs)


def _scores(
    model: Encoded,
    splits: Splits,
    part: str,
    device: torch.device,
    inverse_penalties: Sequence[float] = INVERSE_PENALTIES,
) -> dict[str, Any]:
    encoder = freeze(model.encoder).to(device)
    labelled = {
        name: Labelled(extract(encoder, images.pixels), images.labels.numpy())
        for name, images in splits._asdict().items()
        if name in ("training", "validation", part)
    }
    probe = fit_probe(labelled["training"], labelled["validation"], inverse_penalties)
    return {
        "scores": {
            "linear_accuracy": float(probe.model.score(*labelled[part])),
            **neighbour_scores(labelled["training"], labelled[part]),
        },
        "probe": {"inverse_penalty": probe.inverse_penalty, "converged": probe.converged},
    }


def _held_out(recipe: Recipe, model: Encoded, splits: Splits) -> bytes:
    # Drawn, not the first ones: a folder's images come class by class.
    order = np.random.default_rng(recipe.split_seed).permutation(len(splits.validation.labels))
    pixels = splits.validation.take(order[:HELD_OUT_IMAGES]).pixels
    torch.manual_seed(recipe.split_seed)
    views = two_views_of(make_views(recipe.data, pixels.shape[-1]), pixels)
    buffer = io.BytesIO()
    np.savez(buffer, **held_out_contest(freeze(model.encoder).cpu(), model.projection, views)._asdict())
    return buffer.getvalue()


def _tested(recipe: Recipe, run: Run, splits: Splits, device: torch.device) -> dict[str, Any]:
    """Scores of a finished run on the test images; computed once, for the runs that are reported."""
    folder = _folder(recipe, run)
    if not (folder / "test.json").is_file():
        model = build(recipe, run.seed, splits.training)
        for name, half in model._asdict().items():
            half.load_state_dict(load_file(folder / f"{name}.safetensors"))
        chosen = _read(folder / "validation.json")["probe"]["inverse_penalty"]
        write_json(folder / "test.json", _scores(model, splits, "test", device, (chosen,)))
    return _read(folder / "test.json")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RecipeError(f"{path} is damaged. Remove it: the same command makes it anew.") from None
