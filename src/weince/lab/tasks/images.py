"""Images: an encoder trained on two views of each image, then frozen and judged by labels. What is done lies in files.

<folder of a trial>/
  history.csv, TensorBoard events, encoder.safetensors, projection.safetensors, kept/EPOCH.safetensors
  validation.json   it is finished when this is there        held_out.npz
  test.json         where it was reported
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from weince.lab.data.sets import Splits, load
from weince.lab.engine.outcomes import packed_all
from weince.lab.engine.task import Settings
from weince.lab.evaluation.features import extract, freeze
from weince.lab.evaluation.probes import INVERSE_PENALTIES, Labelled, fit_probe, held_out_contest, neighbour_outcomes
from weince.lab.evaluation.protocols import lightly_scores, published_scores
from weince.lab.launch import first_does, join, same_everywhere
from weince.lab.tasks.recipe.images import METRICS, ImagesRecipe
from weince.lab.training.contrastive import Encoded, build
from weince.lab.training.encoders import check_encoder
from weince.lab.training.fit import checkpoints, train
from weince.lab.training.settings import ImageSettings, Run, device_of
from weince.lab.training.views import make_views, two_views_of
from weince.processes.gather import world_size
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_bytes, write_json
from weince.shell.provenance import provenance
from weince.shell.words import count

__all__ = ["Images", "finish", "ready"]

HELD_OUT_IMAGES = 512
CURVES = ("loss", "gradient_norm", "weight", "slope", "rho_0")
"""Columns of history.csv that the page draws."""
SHORTFALLS = np.geomspace(1e-6, 2, 61)


class Images:
    """The task of a recipe.

    Raises:
        UserError: on every process: a GPU that is not there, images that cannot be read, or a batch that the processes
            cannot share evenly.
    """

    metrics: Mapping[str, str] = METRICS
    unit = "epochs"
    untrained = ""

    def __init__(self, recipe: ImagesRecipe) -> None:
        self.recipe = recipe
        self.splits = ready(recipe)
        parts = {part: len(images.labels) for part, images in self.splits._asdict().items()}
        training = f"{parts['training']:,} training"
        if self.splits.pretraining is not self.splits.training:
            training = f"{parts['pretraining']:,} images without labels, {training}"
        self.facts = (
            f"{training}, {parts['validation']:,} validation and {parts['test']:,} test images of {recipe.data} in "
            f"{len(self.splits.training.labels.unique())} classes",
            f"encoder {recipe.encoder}, {count(recipe.epochs, 'epoch')} of batch {recipe.batch_size}"
            + ("" if recipe.queue is None else f", a queue of {recipe.queue:,} keys of a momentum encoder"),
            *self.splits.notes,
        )

    def amount(self, settings: Settings) -> int:
        """Epochs."""
        return self.recipe.applied(settings)[0].epochs

    def fingerprint(self) -> str:
        """Of every pixel and label."""
        return self.splits.fingerprint

    def train(
        self, loss: str, settings: Settings, seed: int, folder: Path, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Train and validate; see `finish`."""
        own, temperature = self.recipe.applied(settings)
        return finish(own.image_settings(), Run(loss, temperature, seed), self.splits, folder, progress)

    def test(self, loss: str, settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
        """Scores on the test images, computed once and kept as test.json; evaluations asked for later are added."""
        own = self.recipe.applied(settings)[0]
        return first_does(lambda: _tested(own, seed, self.splits, folder))

    def untrained_scores(self) -> dict[str, dict[str, float]]:
        """None: nothing is compared with an encoder that has not been trained."""
        return {}


def ready(recipe: ImageSettings) -> Splits:
    """Meet the other processes of this training, if there are any, and read the images.

    Raises:
        UserError: on every process: a GPU that is not there, images that cannot be read, or a batch that is too large,
            or that the processes cannot share evenly.
    """
    join(device_of(recipe).type == "cuda")
    if recipe.batch_size % world_size():
        raise UserError(
            f"Setting `batch_size`: should be a multiple of the {world_size()} processes that share a batch. "
            f"Found {recipe.batch_size}."
        )
    splits = same_everywhere(lambda: load(recipe))
    if len(splits.pretraining.labels) < recipe.batch_size:
        raise UserError(
            f"Setting `batch_size`: should be at most the number of training images, {len(splits.pretraining.labels)}. "
            f"Found {recipe.batch_size}."
        )
    channels, size = splits.training.pixels.shape[1:3]
    same_everywhere(lambda: check_encoder(recipe, channels, size))
    return splits


def finish(
    recipe: ImageSettings, run: Run, splits: Splits, folder: Path, on_epoch: Callable[[int], None]
) -> dict[str, Any]:
    """Train a run and judge it on validation images, unless that is done.

    Args:
        recipe: of the run.
        run: which one.
        splits: the data of the recipe.
        folder: of this run; it is finished when validation.json is there.
        on_epoch: called with the number of epochs done.

    Returns:
        Content of validation.json.
    """
    done = folder / "validation.json"

    def judge() -> None:
        device = device_of(recipe)
        found = {"diverged": trained.diverged, "seconds": round(trained.seconds, 2), "made": _made(device)}
        if trained.diverged:  # it is not better than nothing, and the other runs go on
            found |= {"scores": dict.fromkeys(METRICS, 0.0), "inverse_penalty": None, "converged": True}
        else:
            found |= _scores(trained.model, splits, "validation", device)
            held_out, found["geometry"] = _held_out(recipe, trained.model, splits)
            write_bytes(folder / "held_out.npz", held_out)
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


def _made(device: torch.device) -> dict[str, Any]:
    return {**provenance(device), "processes": world_size()}


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
    judged = labelled[part]
    outcomes = {
        "linear_accuracy": probe.model.predict(judged.features) == judged.labels,
        **neighbour_outcomes(labelled["training"], judged),
    }
    return {
        "scores": {metric: float(values.mean()) for metric, values in outcomes.items()},
        **({"outcomes": packed_all(outcomes)} if part == "test" else {}),
        "inverse_penalty": probe.inverse_penalty,
        "converged": probe.converged,
    }


def _others(
    recipe: ImagesRecipe, protocols: Sequence[str], model: Encoded, splits: Splits
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


def _held_out(recipe: ImageSettings, model: Encoded, splits: Splits) -> tuple[bytes, dict[str, float]]:
    # Drawn, not the first ones: a folder's images come class by class.
    order = np.random.default_rng(recipe.split_seed).permutation(len(splits.validation.labels))
    pixels = splits.validation.take(order[:HELD_OUT_IMAGES]).pixels
    torch.manual_seed(recipe.split_seed)
    views = two_views_of(make_views(recipe.data, pixels.shape[-1]), pixels)
    buffer = io.BytesIO()
    found = held_out_contest(freeze(model.encoder).cpu(), model.projection, views)._asdict()
    measured = found.pop("geometry")
    np.savez(buffer, **found)
    return buffer.getvalue(), measured


def _tested(recipe: ImagesRecipe, seed: int, splits: Splits, folder: Path) -> dict[str, Any]:
    kept = folder / "test.json"
    found = read_json(kept) if kept.is_file() else {}
    missing = [protocol for protocol in recipe.protocols if protocol not in found.get("others", {})]
    if missing or not found:
        model = build(recipe, seed, splits.training)
        for name, half in model._asdict().items():
            half.load_state_dict(load_file(folder / f"{name}.safetensors"))
        if not found:
            chosen = read_json(folder / "validation.json")["inverse_penalty"]
            found = _scores(model, splits, "test", device_of(recipe), (chosen,))
        if missing:
            found["others"] = {**found.get("others", {}), **_others(recipe, missing, model, splits)}
        write_json(kept, found)
    return {**found, "curves": _curves(folder / "history.csv"), "histograms": _histograms(folder / "held_out.npz")}


def _curves(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(f"{float(row[name]):.6g}") for row in rows] for name in CURVES}


def _histograms(path: Path) -> dict[str, dict[str, list[float]]]:
    """Of the held-out contest: similarities of all negatives; and the shortfall of each anchor's hardest one."""
    with np.load(path, allow_pickle=False) as held:
        found = {
            "similarity of all negatives": (held["histogram"], np.linspace(-1, 1, len(held["histogram"]) + 1)),
            **{
                f"shortfall of {what}": (np.histogram(np.clip(1 - held[key], 1e-6, 2), SHORTFALLS)[0], SHORTFALLS)
                for key, what in (("hardest", "the hardest negative"), ("positive", "the positive"))
            },
        }
    return {
        name: {"counts": counts.astype(int).tolist(), "edges": [float(f"{edge:.6g}") for edge in edges]}
        for name, (counts, edges) in found.items()
    }
