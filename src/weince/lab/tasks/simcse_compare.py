"""The comparison on sentences: every loss at every temperature from every seed, chosen on dev, reported once on test.

    <output>/<name>/
      recipe.toml          what was asked
      origin.json          digests of the text and of the encoder before training
      untrained.json       its Spearman on the dev and the test pairs
      runs/<run>/          scores.json (dev), history.csv, test_similarities.npy, test.json where it was chosen;
                           model/ with `keep_models`
      result.json          everything the report says; scores.csv the same scores as a tidy table
      temperatures.png     simcse.html

A run is finished when its scores.json is there; one that was killed half-way is repeated from its start. The cosine
similarities of the test pairs are kept beside each run, but met with people's scores only where the run was chosen, so
that encoders need not be kept.
"""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from weince.lab.data.text import Text, load_text
from weince.lab.engine.result import NAMES
from weince.lab.tasks.recipe import Run, read, write
from weince.lab.tasks.simcse_result import choose_text, judge_text, tidy_text
from weince.lab.tasks.text_recipe import TextRecipe
from weince.lab.training.simcse import (
    dev_spearman,
    load_encoder,
    place,
    similarities,
    spearman,
    told_apart,
    train_simcse,
    weights_digest,
)
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_bytes, write_csv, write_json, write_text
from weince.shell.provenance import provenance

__all__ = ["compare_text"]

Progress = Callable[[str, int, int], None]
LIBRARIES = ("sentence-transformers", "transformers", "tokenizers", "datasets", "accelerate")


def compare_text(recipe: TextRecipe, progress: Progress = lambda what, done, total: None) -> dict[str, Any]:
    """Carry out a comparison on sentences, or what is left of it, and write its results.

    Args:
        recipe: what to do.
        progress: told what is being done, steps done so far and steps in all.

    Returns:
        The content of result.json.

    Raises:
        UserError: before anything trains: unreadable text, an encoder that cannot be had or has no dropout, a GPU
            that is not there, or a folder that holds another comparison or is being written by another process.
            Afterwards: a loss that diverged at every temperature.
        KeyboardInterrupt: stopped; the same call continues.
    """
    place(recipe)
    text = load_text(recipe)
    encoder = load_encoder(recipe)
    if told_apart(encoder, text.sentences[0]) == 0.0:
        raise UserError(
            "Setting `dropout`: should be > 0, here or in the encoder: without it a sentence's two views are the same. "
            f"Found {'none in the encoder' if recipe.dropout is None else recipe.dropout}."
        )
    origin = {"text": text.fingerprint, "encoder": weights_digest(encoder)}
    with _claimed(recipe, origin):
        baseline = recipe.folder / "untrained.json"
        if not baseline.is_file():
            progress("The untrained encoder", 0, 1)
            found = {
                "dev": dev_spearman(encoder, text.dev),
                "test": spearman(similarities(encoder, text.test), text.test),
            }
            write_json(baseline, found)
        del encoder
        runs = [Run(*run) for run in itertools.product(recipe.losses, recipe.temperatures, recipe.seeds)]
        # Seeds outermost, so that a comparison that is stopped half-way has whole pairs.
        runs.sort(key=lambda run: recipe.seeds.index(run.seed))
        dev = {run: _finish(recipe, run, text, progress, at, len(runs)) for at, run in enumerate(runs)}
        return _reported(recipe, text, dev, read_json(baseline))


def _folder(recipe: TextRecipe, run: Run) -> Path:
    return recipe.folder / "runs" / run.slug


def _finish(recipe: TextRecipe, run: Run, text: Text, progress: Progress, number: int, of: int) -> dict[str, Any]:
    folder, steps = _folder(recipe, run), recipe.epochs * (len(text.sentences) // recipe.batch_size)

    def on_step(step: int) -> None:
        progress(f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}", number * steps + step, of * steps)

    if not (folder / "scores.json").is_file():
        on_step(0)
        trained = train_simcse(recipe, run, text, folder, on_step)
        if not trained.diverged:
            kept = io.BytesIO()
            np.save(kept, similarities(trained.encoder, text.test), allow_pickle=False)
            write_bytes(folder / "test_similarities.npy", kept.getvalue())
            if recipe.keep_models:
                shutil.rmtree(folder / "model", ignore_errors=True)
                trained.encoder.save(str(folder / "model"), create_model_card=False)
        found = {
            "diverged": trained.diverged,
            "spearman": 0.0 if trained.diverged else trained.dev,
            "step": trained.step,
            "mean_weight": trained.mean_weight,
            "train_seconds": round(trained.seconds, 2),
            "made": {**provenance(place(recipe)), **{name: version(name) for name in LIBRARIES}},
        }
        write_json(folder / "scores.json", found)
    on_step(steps)
    return read_json(folder / "scores.json")


def _reported(recipe: TextRecipe, text: Text, dev: dict[Run, dict[str, Any]], untrained: Any) -> dict[str, Any]:
    rows = choose_text(recipe, dev)
    shown = [Run(row.loss, row.temperature, seed) for row in rows for seed in recipe.seeds]
    test = {}
    for run in shown:
        folder = _folder(recipe, run)
        if not (folder / "test.json").is_file():
            kept = np.load(folder / "test_similarities.npy", allow_pickle=False)
            write_json(folder / "test.json", {"spearman": spearman(kept, text.test)})
        test[run] = read_json(folder / "test.json")
    result = {
        "recipe": recipe.told(),
        "made": dev[shown[-1]]["made"],
        "text": {"sentences": len(text.sentences), "dev": len(text.dev.scores), "test": len(text.test.scores)},
        **judge_text(recipe, rows, dev, test, untrained),
    }
    other = {path.parent.name for path in recipe.folder.glob("runs/*/test.json")} - {run.slug for run in shown}
    if other:
        result["warnings"].append(
            f"{len(other)} runs that are not shown were scored on the test pairs by earlier commands: "
            "what is shown was chosen with the test pairs in sight."
        )
    write_json(recipe.folder / "result.json", result)
    write_csv(recipe.folder / "scores.csv", tidy_text(result))
    return result


@contextmanager
def _claimed(recipe: TextRecipe, origin: dict[str, str]) -> Iterator[None]:
    """The folder of a recipe, for this command alone, known to hold runs of this recipe, text and encoder only."""
    recipe.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(recipe.folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{recipe.folder} is being written by another process: wait, or give another --name.") from None
    try:
        _check_same(recipe, origin)
        write_json(recipe.folder / "origin.json", origin)
        write_text(recipe.folder / "recipe.toml", write(recipe))
        yield
    finally:
        lock.release()


def _check_same(recipe: TextRecipe, origin: dict[str, str]) -> None:
    stored = recipe.folder / "recipe.toml"
    if not stored.is_file() and not any(recipe.folder.glob("runs/*")) and not (recipe.folder / "result.json").exists():
        return
    if not (recipe.folder / "origin.json").is_file():
        raise UserError(f"{recipe.folder} holds something else: give another --name, or remove that folder.")
    try:
        held = TextRecipe(**read(stored))
    except UserError as error:
        raise UserError(
            f"{stored} was written by another version, or changed by hand:\n{error}\n"
            "Give another --name, or remove that folder."
        ) from None
    known = read_json(recipe.folder / "origin.json")
    other = recipe.differences(held)
    other += [f"another {what}" for what in ("text", "encoder") if not other and known[what] != origin[what]]
    if other and any(recipe.folder.glob("runs/*/scores.json")):
        raise UserError(
            f"{recipe.folder} holds a comparison with other settings ({'; '.join(other)}). "
            "Give another --name, or remove that folder."
        )
    if other:
        (recipe.folder / "untrained.json").unlink(missing_ok=True)
