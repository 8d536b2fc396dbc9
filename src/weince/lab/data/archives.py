"""Images as numbers: the binary, npz and pickle layouts in which CIFAR, STL-10 and ImageNet-32 are published."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weince.lab.data.images import Images, Parts
from weince.lab.data.unpickle import arrays_of
from weince.shell.errors import UserError

__all__ = ["binary_cifar", "binary_stl10", "npz_imagenet32", "pickled"]


def binary_cifar(folder: Path, training: Sequence[str], test: str, labels: int) -> Parts:
    """CIFAR's binary version: records of `labels` label bytes, the last of which counts, and 3,072 pixel bytes.

    Args:
        folder: cifar-10-batches-bin or cifar-100-binary.
        training, test: names of the files.
        labels: 1 for CIFAR-10, 2 for CIFAR-100 (coarse, fine).

    Raises:
        UserError: a file whose size is no whole number of records.
    """

    def read(names: Sequence[str]) -> Images:
        records = [_whole(folder / name, labels + 3072).reshape(-1, labels + 3072) for name in names]
        every = np.concatenate(records)
        return _images(every[:, labels:].reshape(-1, 3, 32, 32), every[:, labels - 1], folder)

    return Parts(read(training), read([test]))


def binary_stl10(folder: Path) -> Parts:
    """STL-10's binary files: images of 3 x 96 x 96 bytes, column by column, and labels from 1.

    Args:
        folder: stl10_binary.

    Raises:
        UserError: a file whose size is no whole number of images, or as many labels as images.
    """

    def read(part: str) -> Images:
        pixels = _whole(folder / f"{part}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96).swapaxes(2, 3)
        if part == "unlabeled":
            return _images(pixels, np.full(len(pixels), -1), folder)
        return _images(pixels, _whole(folder / f"{part}_y.bin", 1).astype(np.int64) - 1, folder / f"{part}_X.bin")

    return Parts(read("train"), read("test"), read("unlabeled"))


def npz_imagenet32(folder: Path) -> Parts:
    """ImageNet-32's npz batches: `data` uint8 (N, 3072) and `labels` from 1, read without pickle.

    Args:
        folder: holds train_data_batch_1.npz to train_data_batch_10.npz (those that are there) and val_data.npz.

    Raises:
        UserError: a damaged file, or arrays of another kind.
    """

    def read(path: Path) -> Images:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                return _batch({"data": held["data"], "labels": held["labels"]}, path, 1)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a readable npz file with data and labels: {error}") from None

    return Parts(_joined([read(path) for path in _batches(folder, ".npz")]), read(folder / "val_data.npz"))


def pickled(folder: Path, training: Sequence[str], test: str, labels: str, first: int = 0) -> Parts:
    """Python pickles with `data` uint8 (N, 3072) and labels, read as data (`weince.lab.data.unpickle`).

    Args:
        folder: holds the files.
        training, test: their names.
        labels: key of the labels.
        first: the smallest label.

    Raises:
        UserError: a file that holds anything but data.
    """

    def read(name: str) -> Images:
        held = arrays_of(folder / name)
        if "data" not in held or labels not in held:
            raise UserError(f"{folder / name} should hold data and {labels}. Found {', '.join(map(str, held))}.")
        return _batch({"data": held["data"], "labels": held[labels]}, folder / name, first)

    return Parts(_joined([read(name) for name in training]), read(test))


def _batches(folder: Path, suffix: str) -> list[Path]:
    """Training batches, in the order of their numbers."""
    paths = folder.glob(f"train_data_batch_*{suffix}")
    numbers = {path.name.removeprefix("train_data_batch_").removesuffix(suffix): path for path in paths}
    return [numbers[number] for number in sorted((n for n in numbers if n.isdigit()), key=int)]


def _batch(held: dict[str, Any], path: Path, first: int) -> Images:
    data, labels = np.asarray(held["data"]), np.asarray(held["labels"])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or labels.shape != (len(data),):
        raise UserError(
            f"{path} should hold data uint8 (N, 3072) and as many labels. "
            f"Found {data.dtype} {data.shape} and labels {labels.shape}."
        )
    return _images(data.reshape(-1, 3, 32, 32), labels.astype(np.int64) - first, path)


def _joined(parts: list[Images]) -> Images:
    return Images(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _whole(path: Path, record: int) -> np.ndarray:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    if not len(content) or len(content) % record:
        raise UserError(f"{path} should hold a whole number of records of {record:,} bytes. Found {len(content):,}.")
    return content


def _images(pixels: np.ndarray, labels: np.ndarray, path: Path) -> Images:
    if len(labels) != len(pixels):
        raise UserError(f"{path}: as many labels as images are expected. Found {len(labels)} of {len(pixels)}.")
    if len(labels) and labels.min() < -1:
        raise UserError(f"{path}: labels are smaller than expected: {labels.min()}.")
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels.astype(np.int64)))
