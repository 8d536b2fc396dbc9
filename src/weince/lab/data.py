"""The data: labelled images in memory as uint8, split into training, validation and test."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from weince.lab.recipe import Recipe, RecipeError

__all__ = ["Images", "Splits", "load"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TEST_SHARE = 0.25
"""Of data that comes without a test set."""


class Images(NamedTuple):
    """Labelled images: pixels uint8 (N, C, H, W), labels int64 (N,)."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: np.ndarray) -> Images:
        """The images at `index`, in its order."""
        rows = torch.from_numpy(index)
        return Images(self.pixels[rows], self.labels[rows])


class Splits(NamedTuple):
    """The three parts of a comparison's data, and the names of its classes."""

    training: Images
    validation: Images
    test: Images
    classes: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every pixel and label, so that a continued comparison can tell its data from other data."""
        digest = hashlib.sha256()
        for images in (self.training, self.validation, self.test):
            for part in images:
                digest.update(str(tuple(part.shape)).encode())
                digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def load(recipe: Recipe) -> Splits:
    """Read, subset and split the data of a recipe. The split depends on `split_seed` alone, never on a run's seed.

    Raises:
        RecipeError: the data is not there, not readable, or too small for what the recipe asks.
    """
    if recipe.data == "digits":
        whole, classes = _digits()
        rest, test = _parts(whole, TEST_SHARE, recipe, "the test share")
    elif recipe.data_dir is None:
        raise RecipeError(f'Setting `data_dir`: data "{recipe.data}" needs the folder that holds it. Found nothing.')
    elif recipe.data == "folder":
        rest, test, classes = _folders(recipe.data_dir, recipe)
    else:
        names = {"cifar10": ("train", "test"), "tiny-imagenet": ("train", "valid")}[recipe.data]
        rest, test = (_parquet(recipe.data_dir, name) for name in names)
        classes = _class_names(recipe, int(max(rest.labels.max(), test.labels.max())) + 1)
    if recipe.subset is not None:
        rest = _share(rest, recipe.subset, recipe, "subset")
    if recipe.test_subset is not None:
        test = _share(test, recipe.test_subset, recipe, "test_subset")
    training, validation = _parts(rest, recipe.validation_fraction, recipe, "`validation_fraction`")
    if len(training.labels) < recipe.batch_size:
        raise RecipeError(
            f"Setting `batch_size`: should be at most the number of training images, {len(training.labels)}. "
            f"Found {recipe.batch_size}."
        )
    return Splits(training, validation, test, classes)


def _digits() -> tuple[Images, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(np.asarray(labels)).long()), tuple("0123456789")


def _parquet(folder: Path, name: str) -> Images:
    import pyarrow
    import pyarrow.parquet as parquet

    paths = sorted(folder.glob(f"{name}.parquet")) or sorted(folder.glob(f"{name}-*.parquet"))
    if not paths:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) if folder.is_dir() else "no such folder"
        raise RecipeError(
            f"Setting `data_dir`: should hold {name}.parquet (or {name}-*.parquet). "
            f"Found in {folder}: {found or 'nothing'}."
        )
    images, labels = [], []
    for path in paths:
        try:
            table = parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise RecipeError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
        image_column = next((c for c in ("img", "image") if c in table.column_names), None)
        label_column = next((c for c in ("label", "fine_label") if c in table.column_names), None)
        if image_column is None or label_column is None:
            raise RecipeError(f"{path} should have columns img or image, and label. Found {table.column_names}.")
        encoded = (row["bytes"] for row in table.column(image_column).to_pylist())
        images += _decode(encoded, (f"{path}, row {row}" for row in range(table.num_rows)))
        labels += table.column(label_column).to_pylist()
    return _stack(images, labels, folder)


def _class_names(recipe: Recipe, count: int) -> tuple[str, ...]:
    if recipe.data == "cifar10":
        return ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert recipe.data_dir is not None
    listing = recipe.data_dir / "classes.txt"
    names = tuple(listing.read_text(encoding="utf-8").split()) if listing.is_file() else ()
    return names if len(names) == count else tuple(map(str, range(count)))


def _folders(folder: Path, recipe: Recipe) -> tuple[Images, Images, tuple[str, ...]]:
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes = _subfolders(folder / "train")
        return _folder(folder / "train", classes, recipe), _folder(folder / "test", classes, recipe), classes
    classes = _subfolders(folder)
    rest, test = _parts(_folder(folder, classes, recipe), TEST_SHARE, recipe, "the test share")
    return rest, test, classes


def _subfolders(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()
    if len(classes) < 2:
        raise RecipeError(
            "Setting `data_dir`: should hold one folder of images for each of at least two classes "
            f"(features are judged by labels). Found in {folder}: {', '.join(classes) or 'no folder'}."
        )
    return classes


def _folder(folder: Path, classes: Sequence[str], recipe: Recipe) -> Images:
    paths, labels = [], []
    for label, name in enumerate(classes):
        inside = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not inside:
            raise RecipeError(
                f"Setting `data_dir`: {folder / name} should hold images. Found none of {IMAGE_SUFFIXES}."
            )
        paths += inside
        labels += [label] * len(inside)
    images = _decode((path.read_bytes() for path in paths), map(str, paths), recipe.image_size or 32)
    return _stack(images, labels, folder)


def _decode(encoded: Iterable[bytes], names: Iterable[str], size: int | None = None) -> list[np.ndarray]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    images = []
    for content, name in zip(encoded, names, strict=True):
        try:
            image = Image.open(io.BytesIO(content)).convert("RGB")
        except (UnidentifiedImageError, OSError, TypeError, Image.DecompressionBombError) as error:
            raise RecipeError(f"{name} is not a readable image: {error}") from None
        if size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
        images.append(np.asarray(image))
    return images


def _stack(images: list[np.ndarray], labels: list[int], where: Path) -> Images:
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise RecipeError(f"Images in {where} should have one size. Found {sorted(shapes)[:4]}.")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(labels, dtype=torch.int64))


def _share(images: Images, count: int, recipe: Recipe, setting: str) -> Images:
    total = len(images.labels)
    if count > total:
        raise RecipeError(f"Setting `{setting}`: should be at most the {total} images there are. Found {count}.")
    return images if count == total else _parts(images, count, recipe, f"`{setting}`")[1]


def _parts(images: Images, size: float, recipe: Recipe, what: str) -> tuple[Images, Images]:
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
        raise RecipeError(f"The images cannot be split evenly over the classes by {what}: {error}") from None
    return images.take(np.sort(left)), images.take(np.sort(part))
