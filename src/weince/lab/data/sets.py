"""The data: labelled images in memory as bytes, split into training, validation and test.

A set is one entry of `LAYOUTS`: the ways in which it is published, each with the file by which it is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from weince.lab.data.archives import cifar, npz_imagenet32, stl10
from weince.lab.data.folders import class_folders, tiny_imagenet
from weince.lab.data.images import Images, Parts, resized
from weince.lab.data.parquet import parquet_files
from weince.lab.data.settings import Data, ImageData
from weince.shell.errors import UserError

__all__ = ["LAYOUTS", "Images", "Layout", "Splits", "find", "load"]

TEST_SHARE = 0.25
"""Of data that comes without a test set."""


class Layout(NamedTuple):
    """A way in which a set is published.

    Attributes:
        file: a file of it, or a pattern of several, by which the layout is known.
        folder: the name that its archive gives the folder of these files.
        read: folder and edge length in pixels, or None for the set's own -> parts.
    """

    file: str
    folder: str
    read: Callable[[Path, int | None], Parts]


def _numbers(read: Callable[[Path], Parts]) -> Callable[[Path, int | None], Parts]:
    """Of a layout whose images are plain numbers, resized after they are read."""

    def sized(folder: Path, size: int | None) -> Parts:
        parts = read(folder)
        test, unlabelled = (part and resized(part, size) for part in (parts.test, parts.unlabelled))
        return Parts(resized(parts.training, size), test, unlabelled)

    return sized


def _parquet(*names: str) -> Layout:
    return Layout("train*.parquet", "data", lambda folder, size: parquet_files(folder, names, size))


LAYOUTS: dict[Data, tuple[Layout, ...]] = {
    "cifar10": (
        _parquet("train", "test"),
        Layout("data_batch_1", "cifar-10-batches-py", _numbers(lambda folder: cifar(folder, "CIFAR10"))),
    ),
    "cifar100": (
        _parquet("train", "test"),
        Layout("train", "cifar-100-python", _numbers(lambda folder: cifar(folder, "CIFAR100"))),
    ),
    "stl10": (Layout("unlabeled_X.bin", "stl10_binary", _numbers(stl10)),),
    "imagenet32": (
        Layout("train_data_batch_1.npz", "imagenet32", _numbers(npz_imagenet32)),
        _parquet("train", "validation"),
    ),
    "tiny-imagenet": (
        _parquet("train", "valid"),
        Layout("val/val_annotations.txt", "tiny-imagenet-200", tiny_imagenet),
    ),
}
UNREAD: dict[Data, tuple[str, str, str]] = {
    "cifar10": ("data_batch_1.bin", "cifar-10-batches-bin", "the binary version"),
    "cifar100": ("train.bin", "cifar-100-binary", "the binary version"),
    "imagenet32": ("train_data_batch_1", "imagenet32", "the Python version"),
}
"""File, folder and name of versions that are published too and are not read."""


class _Parts(NamedTuple):
    training: Images
    validation: Images
    test: Images
    pretraining: Images


class Splits(_Parts):
    """The parts of a comparison's data. `pretraining` is what the loss sees, without labels.

    `notes` says, in sentences, what was found beside the images and left out; it is no part, and not iterated over.
    """

    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every pixel and label, so that a continued comparison can tell its data from other data."""
        digest = hashlib.sha256()
        for images in self[:3] if self.pretraining is self.training else self:
            for part in images:
                digest.update(str(tuple(part.shape)).encode())
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def load(recipe: ImageData) -> Splits:
    """Read, subset and split the data of a recipe. The split depends on `split_seed` alone, never on a run's seed.

    Raises:
        UserError: the data is not there, not readable, or too small for what the recipe asks.
    """
    rest, test, unlabelled, notes = _published(recipe)
    if test is None:
        rest, test = _parts(rest, TEST_SHARE, recipe, "the test share")
    if recipe.subset is not None:
        rest = _share(rest, recipe.subset, recipe, "subset")
    if recipe.test_subset is not None:
        test = _share(test, recipe.test_subset, recipe, "test_subset")
    training, validation = _parts(rest, recipe.validation_fraction, recipe, "`validation_fraction`")
    if unlabelled is not None:
        pretraining = _drawn(unlabelled, recipe)
    else:
        pretraining = training if recipe.pretrain_on == "training" else rest
    splits = Splits(training, validation, test, pretraining)
    splits.notes = notes
    return splits


def find(data: Data, folder: Path) -> tuple[Layout, Path] | None:
    """The layout of a published set that a folder holds, and the folder of its files; None where it holds none."""
    for layout in LAYOUTS[data]:
        if (place := _holding(folder, layout.file, layout.folder)) is not None:
            return layout, place
    return None


def _holding(folder: Path, file: str, inner: str) -> Path | None:
    """The folder, or the inner one, that holds a file of that pattern."""
    places = (folder, folder / inner)
    return next((place for place in places if any(path.is_file() for path in place.glob(file))), None)


def _published(recipe: ImageData) -> Parts:
    if recipe.data == "digits":
        return Parts(_digits(), None)
    folder = recipe.data_dir
    if folder is None:
        raise UserError(f'Setting `data_dir`: data "{recipe.data}" needs the folder that holds it. Found nothing.')
    if recipe.data == "folder":
        return class_folders(folder, recipe.image_size)
    held = find(recipe.data, folder)
    if held is not None:
        layout, place = held
        return layout.read(place, recipe.image_size)
    found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) if folder.is_dir() else "no such folder"
    known = ", or ".join(f"{layout.file} (in it or in {layout.folder})" for layout in LAYOUTS[recipe.data])
    unread = UNREAD.get(recipe.data)
    place = unread and _holding(folder, unread[0], unread[1])
    told = f" {place} holds {unread[2]} ({unread[0]}), which is not read." if unread and place else ""
    raise UserError(
        f"Setting `data_dir`: should hold {known}. Found in {folder}: {found or 'nothing'}.{told} "
        f"`weince data {recipe.data} --data-dir {folder}` fetches it, or says who gives it."
    )


def _drawn(unlabelled: Images, recipe: ImageData) -> Images:
    total, count = len(unlabelled.labels), recipe.pretrain_subset
    if count is None or count == total:
        return unlabelled
    if count > total:
        raise UserError(
            f"Setting `pretrain_subset`: should be at most the {total} images without labels. Found {count}."
        )
    return unlabelled.take(np.sort(np.random.default_rng(recipe.split_seed).permutation(total)[:count]))


def _digits() -> Images:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(np.asarray(labels)).long())


def _share(images: Images, count: int, recipe: ImageData, setting: str) -> Images:
    total = len(images.labels)
    if count > total:
        raise UserError(f"Setting `{setting}`: should be at most the {total} images there are. Found {count}.")
    return images if count == total else _parts(images, count, recipe, f"`{setting}`")[1]


def _parts(images: Images, size: float, recipe: ImageData, what: str) -> tuple[Images, Images]:
    """What is left, and a stratified part of `size` (a share, or a count)."""
    from sklearn.model_selection import train_test_split

    labels = images.labels.numpy()
    try:
        left, part = train_test_split(
            np.arange(len(labels)), test_size=size, stratify=labels, random_state=recipe.split_seed
        )
    except ValueError as error:
        found = _class_by_class(labels, size if size < 1 else size / len(labels), recipe.split_seed)
        if found is None:
            raise UserError(f"The images cannot be split evenly over the classes by {what}: {error}") from None
        left, part = found
    return images.take(np.sort(left)), images.take(np.sort(part))


def _class_by_class(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The split where there are fewer images than scikit-learn needs: about that share of every class, at least one
    image on either side; None where a class has a single image, or where that is far from the share."""
    order = np.random.default_rng(seed).permutation(len(labels))
    away = []
    for label in np.unique(labels):
        own = order[labels[order] == label]
        if len(own) < 2:
            return None
        away.append(own[: min(max(1, round(share * len(own))), len(own) - 1)])
    part = np.concatenate(away)
    return (np.setdiff1d(np.arange(len(labels)), part), part) if abs(len(part) / len(labels) - share) <= 0.25 else None
