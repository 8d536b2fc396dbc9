"""Images as numbers: CIFAR and STL-10 through torchvision's readers, and ImageNet-32's npz batches."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from weince.lab.data.images import Images, Parts
from weince.shell.errors import UserError

__all__ = ["cifar", "npz_imagenet32", "stl10"]


def cifar(folder: Path, name: Literal["CIFAR10", "CIFAR100"]) -> Parts:
    """CIFAR's Python version; of CIFAR-100, the fine labels.

    Args:
        folder: holds the files, cifar-10-batches-py or cifar-100-python.
        name: of torchvision's class.

    Raises:
        UserError: a file that is missing, or whose checksum is not the published one: nothing is unpickled then.
    """
    both = (_checked(name, folder, train=train) for train in (True, False))
    training, test = (_images(held.data.transpose(0, 3, 1, 2), held.targets) for held in both)
    return Parts(training, test)


def stl10(folder: Path) -> Parts:
    """STL-10's binary files.

    Args:
        folder: stl10_binary.

    Raises:
        UserError: a file that is missing, or whose checksum is not the published one.
    """
    # Both at once, because every reader compares the checksums of all files, 3 GB.
    training, test = _checked("STL10", folder, split="train+unlabeled"), _checked("STL10", folder, split="test")
    count = int((training.labels >= 0).sum())
    return Parts(
        _images(training.data[:count], training.labels[:count]),
        _images(test.data, test.labels),
        _images(training.data[count:], training.labels[count:]),
    )


def npz_imagenet32(folder: Path) -> Parts:
    """ImageNet-32's npz batches: `data` uint8 (N, 3072) and `labels` from 1, read without pickle.

    Args:
        folder: holds train_data_batch_1.npz to train_data_batch_10.npz (those that are there) and val_data.npz.

    Raises:
        UserError: a damaged file, or arrays of another kind.
    """
    paths = folder.glob("train_data_batch_*.npz")
    numbers = {path.stem.removeprefix("train_data_batch_"): path for path in paths}
    training = [_batch(numbers[number]) for number in sorted((n for n in numbers if n.isdigit()), key=int)]
    return Parts(Images(*(torch.cat(each) for each in zip(*training, strict=True))), _batch(folder / "val_data.npz"))


def _batch(path: Path) -> Images:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            data, labels = held["data"], held["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable npz file with data and labels: {error}") from None
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or labels.shape != (len(data),):
        raise UserError(
            f"{path} should hold data uint8 (N, 3072) and as many labels. "
            f"Found {data.dtype} {data.shape} and labels {labels.shape}."
        )
    if len(labels) and labels.min() < 1:
        raise UserError(f"{path}: labels should be numbers from 1. Found {labels.min()}.")
    return _images(data.reshape(-1, 3, 32, 32), labels.astype(np.int64) - 1)


def _checked(name: str, folder: Path, **which: Any) -> Any:
    """torchvision's reader, which compares the checksums of all files before it reads or unpickles one."""
    from torchvision import datasets
    from torchvision.datasets.utils import calculate_md5

    kind = getattr(datasets, name)
    try:
        with warnings.catch_warnings():
            # CIFAR was pickled by a NumPy whose way of naming a dtype NumPy 2.4 warns of.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            # Without its folder's name: the folder may be called anything.
            return type(name, (kind,), {"base_folder": ""})(folder, **which)
    except RuntimeError:
        meta = [(kind.meta["filename"], kind.meta["md5"])] if hasattr(kind, "meta") else []
        for file, expected in [*kind.train_list, *kind.test_list, *meta]:
            path = folder / file
            found = calculate_md5(path) if path.is_file() else "no such file"
            if found != expected:
                raise UserError(
                    f"{path} should be the published file, of MD5 {expected}, and is not read otherwise. Found {found}."
                ) from None
        raise


def _images(pixels: np.ndarray, labels: Any) -> Images:
    return Images(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(np.asarray(labels, dtype=np.int64)))
