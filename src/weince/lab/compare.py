"""The comparison: every loss at every temperature from every seed, chosen on validation, reported once on test.

    <output>/<name>/
      recipe.toml          what was asked
      runs/<run>/          history.csv, TensorBoard events, encoder and projection weights, validation.json, test.json
      result.json          everything the report says; scores.csv the same scores as a tidy table
      figures/*.png        report.html

A run is finished when its validation.json is there, so the same command continues a stopped comparison.
"""

from __future__ import annotations

import io
import itertools
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from weince.lab.data import Splits, load
from weince.lab.evaluate import Labelled, fit_probe, held_out_tail, neighbour_scores
from weince.lab.features import extract, freeze
from weince.lab.files import write_bytes, write_csv, write_json, write_text
from weince.lab.recipe import Recipe, RecipeError, Run, read, write
from weince.lab.result import NAMES, choose, judge, tidy
from weince.lab.train import Encoded, build, checkpoints, train, two_views_of
from weince.lab.views import make_views

__all__ = ["Progress", "compare"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, epochs done so far and epochs in all."""

EXTENSIBLE = {"losses", "temperatures", "seeds", "select_by", "output"}
"""Settings in which a continued comparison may differ: finished runs stay what they are."""
HELD_OUT_IMAGES = 512


def compare(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Carry out a comparison, or what is left of it, and write its results.

    Args:
        recipe: what to do.
        progress: told of every epoch.

    Returns:
        The content of result.json.

    Raises:
        RecipeError: before anything trains: contradictory settings, unreadable data, or a folder that holds another
            comparison or is being written by another process.
        KeyboardInterrupt: stopped; the same call continues.
    """
    splits = load(recipe)
    with _claimed(recipe, splits):
        started = time.perf_counter()
        runs = [Run(*run) for run in itertools.product(recipe.losses, recipe.temperatures, recipe.seeds)]
        # Seeds outermost, so that a comparison that is stopped half-way has whole pairs.
        runs.sort(key=lambda run: recipe.seeds.index(run.seed))
        for number, run in enumerate(runs):
            _finish(recipe, run, splits, progress, number, len(runs))
        validation = {run: _read(recipe.folder / "runs" / run.slug / "validation.json") for run in runs}
        rows = choose(recipe, validation)
        tested = {run: _tested(recipe, run, splits) for row in rows for run in row.runs(recipe)}
        result = {
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "made": _made(recipe),
            "images": {part: len(getattr(splits, part).labels) for part in ("training", "validation", "test")},
            "classes": len(splits.classes),
            **judge(recipe, rows, validation, tested),
            "seconds": round(time.perf_counter() - started, 1),
        }
        write_json(recipe.folder / "result.json", result)
        write_csv(recipe.folder / "scores.csv", tidy(result))
    return result


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
    stored = recipe.folder / "recipe.toml"
    if not stored.is_file():
        return
    before, now = (r.model_dump(mode="json", exclude=EXTENSIBLE) for r in (Recipe(**read(stored)), recipe))
    other = [f"{key}: {before[key]!r} there, {now[key]!r} now" for key in now if before[key] != now[key]]
    data = recipe.folder / "data.json"
    if not other and data.is_file() and _read(data)["sha256"] != splits.fingerprint:
        other = ["the images themselves"]
    if other:
        raise RecipeError(
            f"{recipe.folder} holds a comparison with other settings ({'; '.join(other)}). "
            "Give another --name, or remove that folder."
        )


def _finish(recipe: Recipe, run: Run, splits: Splits, progress: Progress, number: int, of: int) -> None:
    """Train a run and judge it on validation data, unless that is done."""
    folder = recipe.folder / "runs" / run.slug
    what = f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}"

    def on_epoch(epoch: int) -> None:
        progress(what, number * recipe.epochs + epoch, of * recipe.epochs)

    if not (folder / "validation.json").is_file():
        on_epoch(0)
        started = time.perf_counter()
        model = train(recipe, run, splits.training, folder, on_epoch)
        seconds = time.perf_counter() - started
        scores = _scores(model, splits, "validation")
        write_bytes(folder / "held_out.npz", _held_out(recipe, run, model, splits))
        write_json(folder / "validation.json", {**scores, "train_seconds": round(seconds, 2)})
        for path in checkpoints(folder):
            path.unlink()
    on_epoch(recipe.epochs)


def _scores(model: Encoded, splits: Splits, part: str) -> dict[str, Any]:
    encoder = freeze(model.encoder)
    labelled = {
        name: Labelled(extract(encoder, images.pixels), images.labels.numpy())
        for name, images in (("training", splits.training), ("validation", splits.validation), ("test", splits.test))
        if name in ("training", "validation", part)
    }
    probe = fit_probe(labelled["training"], labelled["validation"])
    return {
        "scores": {
            "linear_accuracy": float(probe.model.score(*labelled[part])),
            **neighbour_scores(labelled["training"], labelled[part]),
        },
        "probe": {"inverse_penalty": probe.inverse_penalty, "converged": probe.converged},
    }


def _held_out(recipe: Recipe, run: Run, model: Encoded, splits: Splits) -> bytes:
    pixels = splits.validation.pixels[:HELD_OUT_IMAGES]
    torch.manual_seed(recipe.split_seed)
    views = two_views_of(make_views(recipe.data, pixels.shape[-1]), pixels)
    buffer = io.BytesIO()
    np.savez(buffer, **held_out_tail(freeze(model.encoder), model.projection, views, recipe.gate)._asdict())
    return buffer.getvalue()


def _tested(recipe: Recipe, run: Run, splits: Splits) -> dict[str, Any]:
    """Scores of a finished run on the test images; computed once, for the runs that are reported."""
    folder = recipe.folder / "runs" / run.slug
    if not (folder / "test.json").is_file():
        model = build(recipe, run.seed, splits.training)
        for name, half in model._asdict().items():
            half.load_state_dict(load_file(folder / f"{name}.safetensors"))
        write_json(folder / "test.json", _scores(model, splits, "test"))
    return _read(folder / "test.json")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _made(recipe: Recipe) -> dict[str, Any]:
    cuda = recipe.device != "cpu" and torch.cuda.is_available()
    cpu = f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": torch.cuda.get_device_name() if cuda else cpu,
        "python": platform.python_version(),
        **{name: version(name) for name in ("weince", "torch", "lightning", "kornia", "timm", "scikit-learn")},
    }


def _commit() -> str | None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
