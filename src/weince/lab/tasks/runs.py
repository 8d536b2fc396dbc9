"""One run: trained, judged on validation images, judged on test images. What is done lies in files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from weince.lab.data.sets import Splits, load
from weince.lab.engine.result import METRICS
from weince.lab.evaluation.features import extract, freeze
from weince.lab.evaluation.probes import INVERSE_PENALTIES, Labelled, fit_probe, held_out_contest, neighbour_scores
from weince.lab.evaluation.protocols import lightly_scores, published_scores
from weince.lab.tasks.recipe import Recipe, Run, read, write
from weince.lab.training.contrastive import Encoded, build, device_of
from weince.lab.training.fit import checkpoints, train
from weince.lab.training.launch import first_does, join, same_everywhere
from weince.lab.training.views import make_views, two_views_of
from weince.processes.gather import world_size
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_bytes, write_json, write_text
from weince.shell.provenance import provenance

__all__ = ["claimed", "finish", "ready", "tested"]

HELD_OUT_IMAGES = 512


def ready(recipe: Recipe) -> Splits:
    """Meet the other processes of this training, if there are any, and read the images.

    Raises:
        UserError: on every process: a GPU that is not there, images that cannot be read, or a batch that the
            processes cannot share evenly.
    """
    join(device_of(recipe).type == "cuda")
    if recipe.batch_size % world_size():
        raise UserError(
            f"Setting `batch_size`: should be a multiple of the {world_size()} processes that share a batch. "
            f"Found {recipe.batch_size}."
        )
    return same_everywhere(lambda: load(recipe))


def finish(recipe: Recipe, run: Run, splits: Splits, folder: Path, on_epoch: Callable[[int], None]) -> dict[str, Any]:
    """Train a run and judge it on validation data, unless that is done.

    Args:
        recipe: of the run.
        run: which one.
        splits: the data of the recipe.
        folder: of this run; it is finished when validation.json is there.
        on_epoch: called with the number of epochs done.

    Returns:
        Content of validation.json: scores, probe, whether the run diverged, seconds, and where it was made.
    """
    done = folder / "validation.json"

    def judge() -> None:
        device = device_of(recipe)
        found = {"diverged": trained.diverged, "train_seconds": round(trained.seconds, 2), "made": provenance(device)}
        if trained.diverged:  # it is not better than nothing, and the other runs go on
            found |= {"scores": dict.fromkeys(METRICS, 0.0), "probe": {"inverse_penalty": None, "converged": True}}
        else:
            found |= _scores(trained.model, splits, "validation", device)
            write_bytes(folder / "held_out.npz", _held_out(recipe, trained.model, splits))
        write_json(done, found)

    def clear() -> dict[str, Any]:
        for path in checkpoints(folder):
            path.unlink()
        return read_json(done)

    if not first_does(done.is_file):
        on_epoch(0)
        trained = train(recipe, run, splits.pretraining, folder, on_epoch)
        first_does(judge)
    found = first_does(clear)
    on_epoch(recipe.epochs)
    return found


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


def _by_protocols(
    recipe: Recipe, protocols: Sequence[str], model: Encoded, splits: Splits
) -> dict[str, dict[str, float]]:
    device = device_of(recipe)
    encoder = freeze(model.encoder).to(device)
    training, validation, test = (Labelled(extract(encoder, part.pixels), part.labels.numpy()) for part in splits[:3])
    # Both protocols take the whole training set, and split it themselves where they do.
    whole = Labelled(*(np.concatenate(pair) for pair in zip(training, validation, strict=True)))
    found = {}
    for protocol in protocols:
        if protocol == "published":
            found[protocol] = published_scores(whole, test, device, drop_last=recipe.drop_last)
        else:
            found[protocol] = lightly_scores(whole, test, device)
    return found


def _held_out(recipe: Recipe, model: Encoded, splits: Splits) -> bytes:
    # Drawn, not the first ones: a folder's images come class by class.
    order = np.random.default_rng(recipe.split_seed).permutation(len(splits.validation.labels))
    pixels = splits.validation.take(order[:HELD_OUT_IMAGES]).pixels
    torch.manual_seed(recipe.split_seed)
    views = two_views_of(make_views(recipe.data, pixels.shape[-1]), pixels)
    buffer = io.BytesIO()
    np.savez(buffer, **held_out_contest(freeze(model.encoder).cpu(), model.projection, views)._asdict())
    return buffer.getvalue()


def tested(recipe: Recipe, run: Run, splits: Splits, folder: Path) -> dict[str, Any]:
    """Scores of a finished run on the test images, computed once and kept as test.json; protocols that are asked for
    later are added to it."""
    kept = folder / "test.json"
    found = read_json(kept) if kept.is_file() else {}
    missing = [protocol for protocol in recipe.protocols if protocol not in found.get("protocols", {})]
    if missing or not found:
        model = build(recipe, run.seed, splits.training)
        for name, half in model._asdict().items():
            half.load_state_dict(load_file(folder / f"{name}.safetensors"))
        if not found:
            chosen = read_json(folder / "validation.json")["probe"]["inverse_penalty"]
            found = _scores(model, splits, "test", device_of(recipe), (chosen,))
        if missing:
            found["protocols"] = {**found.get("protocols", {}), **_by_protocols(recipe, missing, model, splits)}
        write_json(kept, found)
    return found


@contextmanager
def claimed(recipe: Recipe, splits: Splits) -> Iterator[None]:
    """The folder of a recipe, for this command alone, known to hold runs of this recipe on these images and no other.

    Raises:
        UserError: another process writes it, or it holds another recipe's runs.
    """
    lock = FileLock(recipe.folder / ".lock", timeout=0)

    def claim() -> None:
        recipe.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(
                f"{recipe.folder} is being written by another process: wait, or give another --name."
            ) from None
        _check_same(recipe, splits)
        write_text(recipe.folder / "recipe.toml", write(recipe))
        write_json(recipe.folder / "data.json", {"sha256": splits.fingerprint})

    try:
        first_does(claim)
        yield
    finally:
        lock.release()


def _check_same(recipe: Recipe, splits: Splits) -> None:
    if not any(recipe.folder.glob("runs/*/validation.json")) and not any(recipe.folder.glob("runs/*/*.ckpt")):
        return  # nothing that another recipe could be mixed with
    stored = recipe.folder / "recipe.toml"
    try:
        held = Recipe(**read(stored))
    except UserError as error:
        raise UserError(
            f"{stored} was written by another version, or changed by hand:\n{error}\n"
            "Give another --name, or remove that folder."
        ) from None
    other = recipe.differences(held)
    data = recipe.folder / "data.json"
    if not other and data.is_file() and read_json(data)["sha256"] != splits.fingerprint:
        other = ["the images themselves"]
    if other:
        raise UserError(
            f"{recipe.folder} holds a comparison with other settings ({'; '.join(other)}). "
            "Give another --name, or remove that folder."
        )
