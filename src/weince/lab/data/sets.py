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

from weince.lab.data.archives import binary_cifar, binary_stl10, npz_imagenet32, pickled
from weince.lab.data.images import Images, Parts, resized
from weince.lab.data.pictures import class_folders, parquet_files, tiny_imagenet
from weince.lab.data.settings import Data, ImageData
from weince.shell.errors import UserError

__all__ = ["LAYOUTS", "Images", "Layout", "Splits", "find", "load"]

TEST_SHARE = 0.25
"""Of data that comes without a test set."""
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
IMAGENET_BATCHES = tuple(f"train_data_batch_{number}" for number in range(1, 11))


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
        return Parts(resized(parts.training, size), *(part and resized(part, size) for part in parts[1:]))

    return sized


LAYOUTS: dict[Data, tuple[Layout, ...]] = {
    "cifar10": (
        Layout("train*.parquet", "data", lambda f, size: parquet_files(f, ("train", "test"), size)),
        Layout(
            "data_batch_1.bin",
            "cifar-10-batches-bin",
            _numbers(lambda f: binary_cifar(f, [f"{name}.bin" for name in BATCHES], "test_batch.bin", 1)),
        ),
        Layout("data_batch_1", "cifar-10-batches-py", _numbers(lambda f: pickled(f, BATCHES, "test_batch", "labels"))),
    ),
    "cifar100": (
        Layout("train*.parquet", "data", lambda f, size: parquet_files(f, ("train", "test"), size)),
        Layout("train.bin", "cifar-100-binary", _numbers(lambda f: binary_cifar(f, ["train.bin"], "test.bin", 2))),
        Layout("train", "cifar-100-python", _numbers(lambda f: pickled(f, ["train"], "test", "fine_labels"))),
    ),
    "stl10": (Layout("unlabeled_X.bin", "stl10_binary", _numbers(binary_stl10)),),
    "imagenet32": (
        Layout("train_data_batch_1.npz", "imagenet32", _numbers(npz_imagenet32)),
        Layout("train*.parquet", "data", lambda f, size: parquet_files(f, ("train", "validation"), size)),
        Layout(
            "train_data_batch_1",
            "imagenet32",
            _numbers(lambda f: pickled(f, [n for n in IMAGENET_BATCHES if (f / n).is_file()], "val_data", "labels", 1)),
        ),
    ),
    "tiny-imagenet": (
        Layout("train*.parquet", "data", lambda f, size: parquet_files(f, ("train", "valid"), size)),
        Layout("val/val_annotations.txt", "tiny-imagenet-200", tiny_imagenet),
    ),
}


class Splits(NamedTuple):
    """The parts of a comparison's data. `pretraining` is what the loss sees, without labels."""

    training: Images
    validation: Images
    test: Images
    pretraining: Images

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how they were read."""
        return ()

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
    rest, test, unlabelled = _published(recipe)
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
    return Splits(training, validation, test, pretraining)


def find(data: Data, folder: Path) -> tuple[Layout, Path] | None:
    """The layout of a published set that a folder holds, and the folder of its files; None where it holds none."""
    for layout in LAYOUTS[data]:
        for place in (folder, folder / layout.folder):
            if any(path.is_file() for path in place.glob(layout.file)):
                return layout, place
    return None


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
    raise UserError(
        f"Setting `data_dir`: should hold {known}. Found in {folder}: {found or 'nothing'}. "
        f"`weince data {recipe.data} --data-dir {folder}` fetches it."
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

    try:
        left, part = train_test_split(
            np.arange(len(images.labels)),
            test_size=size,
            stratify=images.labels.numpy(),
            random_state=recipe.split_seed,
        )
    except ValueError as error:
        raise UserError(f"The images cannot be split evenly over the classes by {what}: {error}") from None
    return images.take(np.sort(left)), images.take(np.sort(part))
