"""The downloads: published archives, taken up where they were cut, checked, and unpacked whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from weince.shell.errors import UserError

__all__ = ["ARCHIVES", "Archive", "fetch"]

PIECE = 1 << 20
ATTEMPTS = 5
"""Times that a download is taken up again where the connection was cut."""
PATIENCE_S = 30
Progress = Callable[[str, int, int], None]


class Archive(NamedTuple):
    """A published archive.

    Attributes:
        url: where it is.
        md5: of the whole file, as published.
        folder: the one that it unpacks to.
    """

    url: str
    md5: str
    folder: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[1]


ARCHIVES: dict[str, Archive] = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-batches-bin",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-binary",
    ),
    "stl10": Archive(
        "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        "91f7769df0f17e558f3565bffb0c7dfb",
        "stl10_binary",
    ),
    "tiny-imagenet": Archive(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "90528d7ca1a48142e341f4ef8d21d0de",
        "tiny-imagenet-200",
    ),
}


def fetch(archive: Archive, folder: Path, progress: Progress = lambda what, done, total: None) -> Path:
    """Download an archive, or take the one that lies in the folder, check it and unpack it.

    What a cut leaves lies in FILE.part; the next call goes on from there. A connection that is cut is taken up again.

    Args:
        archive: which.
        folder: it is unpacked into; made if it is not there.
        progress: told what is done, bytes done and bytes in all.

    Returns:
        The unpacked folder. One that is there is left as it is.

    Raises:
        UserError: no connection, another checksum, or an archive that would write outside its folder.
    """
    target = folder / archive.folder
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / archive.file
    if not whole.is_file():
        part = folder / f"{archive.file}.part"
        _download(archive.url, part, progress)
        found = _md5(part, progress)
        if found != archive.md5:
            part.unlink()
            raise UserError(
                f"{archive.url} is not the published file: its MD5 should be {archive.md5}. Found {found}. "
                "What was downloaded has been removed."
            )
        part.rename(whole)
    elif (found := _md5(whole, progress)) != archive.md5:
        raise UserError(f"{whole} should have the MD5 {archive.md5}. Found {found}. Remove it, and it is fetched anew.")
    _unpack(whole, archive.folder, folder, progress)
    return target


def _download(url: str, part: Path, progress: Progress) -> None:
    reason: object = "nothing came"
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _go_on(url, part, before, progress)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and before:  # nothing is left to send
                return
            reason = error
            if error.code < 500:
                break
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
        # Another attempt as long as one brings something.
        if attempt and (part.stat().st_size if part.is_file() else 0) <= before:
            break
    raise UserError(
        f"{url} could not be fetched ({reason}). The same command goes on where it stopped; or put the file into "
        f"{part.parent} by hand."
    )


def _go_on(url: str, part: Path, before: int, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={before}-"} if before else {})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        if answer.status != 206:
            before = 0  # the server sends everything
        length = answer.headers.get("Content-Length")
        total = before + int(length) if length else 0
        with part.open("ab" if before else "wb") as file:
            done = before
            while piece := answer.read(PIECE):
                file.write(piece)
                done += len(piece)
                progress(f"Fetching {url.rsplit('/', 1)[1]}", done, total)
    if total and done < total:
        raise ConnectionError(f"the connection was cut after {done:,} of {total:,} bytes")


def _md5(path: Path, progress: Progress) -> str:
    progress("Checking", 0, 1)
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _unpack(whole: Path, name: str, folder: Path, progress: Progress) -> None:
    progress("Unpacking", 0, 1)
    draft = folder / f".{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if zipfile.is_zipfile(whole):
            with zipfile.ZipFile(whole) as held:
                held.extractall(draft)  # takes ".." and roots out of names
        else:
            with tarfile.open(whole) as held:
                held.extractall(draft, filter="data")
        if not (draft / name).is_dir():
            raise UserError(f"{whole} should unpack to {name}. Found {', '.join(p.name for p in draft.iterdir())}.")
        (draft / name).rename(folder / name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{whole} cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
