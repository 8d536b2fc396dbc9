"""The data: labelled images in memory as uint8, split into training, validation and test."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
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
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""Names of the test part beside a folder `train`, in this order."""


class Images(NamedTuple):
    """Labelled images: pixels uint8 (N, C, H, W), labels int64 (N,)."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: np.ndarray) -> Images:
        """The images at `index`, in its order."""
        rows = torch.from_numpy(index)
        return Images(self.pixels[rows], self.labels[rows])


class Splits(NamedTuple):
    """The three parts of a comparison's data."""

    training: Images
    validation: Images
    test: Images

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every pixel and label, so that a continued comparison can tell its data from other data."""
        digest = hashlib.sha256()
        for images in self:
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
        rest, test = _parts(_digits(), TEST_SHARE, recipe, "the test share")
    elif recipe.data_dir is None:
        raise RecipeError(f'Setting `data_dir`: data "{recipe.data}" needs the folder that holds it. Found nothing.')
    elif recipe.data == "folder":
        rest, test = _folders(recipe.data_dir, recipe)
    else:
        names = {"cifar10": ("train", "test"), "tiny-imagenet": ("train", "valid")}[recipe.data]
        rest, test = (_parquet(recipe.data_dir, name, recipe.image_size) for name in names)
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
    return Splits(training, validation, test)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Images(torch.from_numpy(pixels), torch.from_numpy(np.asarray(labels)).long())


def _parquet(folder: Path, name: str, size: int | None) -> Images:
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
        rows = table.column(image_column).to_pylist()
        for number, (row, label) in enumerate(zip(rows, table.column(label_column).to_pylist(), strict=True)):
            if not isinstance(label, int) or label < 0:
                raise RecipeError(f"{path}, row {number}: labels should be integers >= 0. Found {label!r}.")
            content = row.get("bytes") if isinstance(row, dict) else row
            images.append(_decode(content, f"{path}, row {number}", size))
            labels.append(label)
    return _stack(images, labels, folder)


def _folders(folder: Path, recipe: Recipe) -> tuple[Images, Images]:
    if not (folder / "train").is_dir():
        return _parts(_folder(folder, _subfolders(folder), recipe), TEST_SHARE, recipe, "the test share")
    test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    if test is None:
        raise RecipeError(
            f"Setting `data_dir`: {folder} holds train and should hold one of {', '.join(TEST_FOLDERS)} too. "
            "Found none; for a set without a test part, name the train folder itself."
        )
    classes = _subfolders(folder / "train")
    return _folder(folder / "train", classes, recipe), _folder(test, classes, recipe)


def _subfolders(folder: Path) -> tuple[str, ...]:
    inside = folder.iterdir() if folder.is_dir() else ()
    classes = tuple(sorted(path.name for path in inside if path.is_dir() and not path.name.startswith(".")))
    if len(classes) < 2:
        raise RecipeError(
            "Setting `data_dir`: should hold one folder of images for each of at least two classes "
            f"(features are judged by labels). Found in {folder}: {', '.join(classes) or 'no folder'}."
        )
    return classes


def _folder(folder: Path, classes: Sequence[str], recipe: Recipe) -> Images:
    images, labels = [], []
    for label, name in enumerate(classes):
        paths = [
            path
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
        ]
        if not paths:
            raise RecipeError(
                f"Setting `data_dir`: {folder / name} should hold images. Found none of {', '.join(IMAGE_SUFFIXES)}."
            )
        images += [_decode(path, str(path), recipe.image_size or 32) for path in paths]
        labels += [label] * len(paths)
    return _stack(images, labels, folder)


def _decode(source: Path | bytes | None, name: str, size: int | None = None) -> np.ndarray:
    """RGB pixels of an encoded image, upright, transparency laid on white."""
    from PIL import Image, ImageOps

    try:
        content = source.read_bytes() if isinstance(source, Path) else source
        if not isinstance(content, bytes):
            raise ValueError("it holds no bytes")
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ValueError(f"its pixels have mode {image.mode}; 8 bits a channel are expected")
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("RGB")
    except (OSError, ValueError, TypeError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise RecipeError(f"{name} is not a readable image: {error}") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


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
