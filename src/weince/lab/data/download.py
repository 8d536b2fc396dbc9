"""The downloads: published archives, fetched, checked and unpacked by torchvision."""

from __future__ import annotations

import shutil
import socket
import tarfile
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

from weince.shell.errors import UserError

__all__ = ["NAMES", "TINY_IMAGENET", "Archive", "fetch"]

PATIENCE_S = 30
"""Seconds without an answer after which a connection counts as lost; torchvision would wait for ever."""
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "cifar10": ("CIFAR10", {"train": False}),
    "cifar100": ("CIFAR100", {"train": False}),
    "stl10": ("STL10", {"split": "test"}),
}
"""torchvision's classes, and their smallest part."""


class Archive(NamedTuple):
    """A published archive: where it is, the MD5 of the whole file, and the folder that it unpacks to."""

    url: str
    md5: str
    folder: str


TINY_IMAGENET = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de", "tiny-imagenet-200"
)
NAMES = (*PUBLISHED, "tiny-imagenet")


def fetch(name: str, folder: Path) -> Path:
    """Download an archive, or take the one that lies in the folder, check it and unpack it.

    Args:
        name: one of `NAMES`.
        folder: it is unpacked into; made if it is not there.

    Returns:
        The unpacked folder. What is there and whole is left as it is.

    Raises:
        UserError: no connection, another checksum, or an archive that cannot be unpacked.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import calculate_md5

    if name in PUBLISHED:
        kind = getattr(datasets, PUBLISHED[name][0])
        archive = Archive(kind.url, kind.tgz_md5, kind.base_folder)
    else:
        kind, archive = None, TINY_IMAGENET
    file = folder / archive.url.rsplit("/", 1)[1]
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        if kind is None:
            _unpacked_whole(archive, folder)
        else:
            kind(folder, download=True, **PUBLISHED[name][1])
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
        if isinstance(error, HTTPError):
            error.close()
        if isinstance(error, RuntimeError) and file.is_file() and (found := calculate_md5(file)) != archive.md5:
            reason = f"{file} should have the MD5 {archive.md5}. Found {found}"
        raise UserError(
            f"{archive.url} could not be fetched into {folder}: {reason.rstrip('.')}. "
            f"The same command starts anew; or put {file.name} there by hand."
        ) from None
    finally:
        socket.setdefaulttimeout(before)
    return folder / archive.folder


def _unpacked_whole(archive: Archive, folder: Path) -> None:
    """torchvision has no class for this set that would notice half an unpacked folder: it is moved there when whole."""
    from torchvision.datasets.utils import download_and_extract_archive

    target, draft = folder / archive.folder, folder / f".{archive.folder}.draft"
    if target.is_dir():
        return
    shutil.rmtree(draft, ignore_errors=True)
    try:
        download_and_extract_archive(archive.url, folder, draft, md5=archive.md5)
        (draft / archive.folder).rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
