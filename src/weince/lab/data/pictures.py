"""Encoded images: parquet files and folders of pictures, decoded to bytes of RGB."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from weince.lab.data.images import Images, Parts
from weince.shell.errors import UserError

__all__ = ["class_folders", "parquet_files", "tiny_imagenet"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""Names of the test part beside a folder `train`, in this order."""
FOLDER_SIZE = 32
"""Edge length in pixels of the images of a folder, where none is asked for."""


def parquet_files(folder: Path, names: Sequence[str], size: int | None = None) -> Parts:
    """Images of NAME.parquet or NAME-*.parquet, one name for the training and one for the test part.

    The layout in which sets are commonly published: a column img or image of {bytes, path}, and a column label or
    fine_label of integers.

    Args:
        folder: holds the files.
        names: of both parts.
        size: edge length in pixels to which images are resized.

    Raises:
        UserError: no such file, not parquet, other columns, or a row that is no image.
    """
    return Parts(*(_parquet(folder, name, size) for name in names))


def _parquet(folder: Path, name: str, size: int | None) -> Images:
    import pyarrow
    import pyarrow.parquet as parquet

    paths = sorted(folder.glob(f"{name}.parquet")) or sorted(folder.glob(f"{name}-*.parquet"))
    if not paths:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) if folder.is_dir() else "no such folder"
        raise UserError(
            f"Setting `data_dir`: should hold {name}.parquet (or {name}-*.parquet). "
            f"Found in {folder}: {found or 'nothing'}."
        )
    images, labels = [], []
    for path in paths:
        try:
            table = parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
        image_column = next((c for c in ("img", "image") if c in table.column_names), None)
        label_column = next((c for c in ("label", "fine_label") if c in table.column_names), None)
        if image_column is None or label_column is None:
            raise UserError(f"{path} should have columns img or image, and label. Found {table.column_names}.")
        rows = table.column(image_column).to_pylist()
        for number, (row, label) in enumerate(zip(rows, table.column(label_column).to_pylist(), strict=True)):
            if not isinstance(label, int) or label < 0:
                raise UserError(f"{path}, row {number}: labels should be integers >= 0. Found {label!r}.")
            content = row.get("bytes") if isinstance(row, dict) else row
            images.append(_decode(content, f"{path}, row {number}", size))
            labels.append(label)
    return _stack(images, labels, folder)


def class_folders(folder: Path, size: int | None = None) -> Parts:
    """Images of CLASS/IMAGE, or of train/CLASS/IMAGE with a test part beside it; without one, the test part is None.

    Args:
        folder: holds the classes, or `train`.
        size: edge length in pixels to which the shorter edge is resized; the middle is kept.

    Raises:
        UserError: no classes, no images, or a file that is no image.
    """
    size = size or FOLDER_SIZE
    if not (folder / "train").is_dir():
        return Parts(_classes(folder, _subfolders(folder), size), None)
    test = next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)
    if test is None:
        raise UserError(
            f"Setting `data_dir`: {folder} holds train and should hold one of {', '.join(TEST_FOLDERS)} too. "
            "Found none; for a set without a test part, name the train folder itself."
        )
    classes = _subfolders(folder / "train")
    return Parts(_classes(folder / "train", classes, size), _classes(test, classes, size))


def tiny_imagenet(folder: Path, size: int | None = None) -> Parts:
    """Tiny-ImageNet as published: train/WNID/images/*.JPEG, and val/images with val/val_annotations.txt.

    A label is the place of the WNID among all of them, sorted. The published test images have no labels: as is usual,
    the validation images are the test part.

    Args:
        folder: tiny-imagenet-200.
        size: edge length in pixels to which images are resized.

    Raises:
        UserError: files are missing, or name a class that is not there.
    """
    classes = _subfolders(folder / "train")
    notes = folder / "val" / "val_annotations.txt"
    try:
        lines = [line.split("\t") for line in notes.read_text(encoding="utf-8").splitlines()]
    except OSError:
        raise UserError(f"Setting `data_dir`: {notes} should name the class of every validation image.") from None
    images, labels = [], []
    for number, line in enumerate(lines):
        if len(line) < 2 or line[1] not in classes:
            raise UserError(f"{notes}, line {number + 1}: a file and one of the {len(classes)} classes are expected.")
        path = folder / "val" / "images" / Path(line[0]).name
        images.append(_decode(path, str(path), size))
        labels.append(classes.index(line[1]))
    return Parts(_classes(folder / "train", classes, size), _stack(images, labels, folder))


def _subfolders(folder: Path) -> tuple[str, ...]:
    inside = folder.iterdir() if folder.is_dir() else ()
    classes = tuple(sorted(path.name for path in inside if path.is_dir() and not path.name.startswith(".")))
    if len(classes) < 2:
        raise UserError(
            "Setting `data_dir`: should hold one folder of images for each of at least two classes "
            f"(features are judged by labels). Found in {folder}: {', '.join(classes) or 'no folder'}."
        )
    return classes


def _classes(folder: Path, classes: Sequence[str], size: int | None) -> Images:
    images, labels = [], []
    for label, name in enumerate(classes):
        paths = [
            path
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()
        ]
        if not paths:
            raise UserError(
                f"Setting `data_dir`: {folder / name} should hold images. Found none of {', '.join(IMAGE_SUFFIXES)}."
            )
        images += [_decode(path, str(path), size) for path in paths]
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
        raise UserError(f"{name} is not a readable image: {error}") from None
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _stack(images: list[np.ndarray], labels: list[int], where: Path) -> Images:
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise UserError(f"Images in {where} should have one size. Found {sorted(shapes)[:4]}.")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(labels, dtype=torch.int64))
