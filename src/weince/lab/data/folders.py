"""Folders of images: one folder a class, as torchvision's `ImageFolder` reads them, and Tiny-ImageNet's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from weince.lab.data.images import Images, Parts
from weince.lab.data.pictures import decoded, stacked
from weince.shell.errors import UserError

__all__ = ["class_folders", "tiny_imagenet"]

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".avif",
)  # fmt: skip
TRAINING = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")
"""Names of the test part beside a training part, in any case; the first that holds classes is read."""
FOLDER_SIZE = 32
"""Edge length in pixels of the images of a folder, where none is asked for."""


def class_folders(folder: Path, size: int | None = None) -> Parts:
    """Images of CLASS/IMAGE, or of train/CLASS/IMAGE with a test part beside it; without one, the test part is None.

    Folders in a class and links are followed, hidden files and folders left out. What else is left out is noted.

    Args:
        folder: holds the classes, or the parts.
        size: edge length in pixels to which the shorter edge is resized; the middle is kept.

    Raises:
        UserError: no classes, no images, a file that is no image, one part without the other, or a class that only one
            part has.
    """
    size, left = size or FOLDER_SIZE, Counter[str]()
    inside = _subfolders(folder)
    training = [name for name in inside if name.lower() in TRAINING]
    tests = sorted((name for name in inside if name.lower() in TEST), key=lambda name: TEST.index(name.lower()))
    if not training and not tests:
        return Parts(_classes(folder, _known(folder), size, left), None, notes=_notes(left))
    test = next((name for name in tests if _subfolders(folder / name)), None)
    if len(training) != 1 or test is None:
        raise UserError(
            f"Setting `data_dir`: {folder} should hold one training part ({' or '.join(TRAINING)}) and a test part "
            f"({', '.join(TEST)}), each with its classes, or classes of other names. "
            f"Found {', '.join(inside)}. For a set without a test part, name the training folder itself."
        )
    one, other = folder / training[0], folder / test
    classes = _known(one)
    if alone := set(classes) ^ set(_subfolders(other)):
        told = ", ".join(f"{name} in {training[0] if name in classes else test} alone" for name in sorted(alone))
        raise UserError(f"Setting `data_dir`: both parts of {folder} should hold the same classes. Found {told}.")
    beside = [name for name in inside if name not in (training[0], test)]
    notes = (f"Beside {training[0]} and {test}, folders were left out: {', '.join(beside)}.",) if beside else ()
    parts = (_classes(one, classes, size, left), _classes(other, classes, size, left))
    return Parts(*parts, notes=notes + _notes(left))


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
    classes = _known(folder / "train")
    notes = folder / "val" / "val_annotations.txt"
    try:
        lines = [line.split("\t") for line in notes.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"Setting `data_dir`: {notes} should name the class of every validation image.") from None
    images, labels = [], []
    for number, line in enumerate(lines):
        if len(line) < 2 or line[1] not in classes:
            raise UserError(f"{notes}, line {number + 1}: a file and one of the {len(classes)} classes are expected.")
        path = folder / "val" / "images" / Path(line[0]).name
        images.append(decoded(path, str(path), size))
        labels.append(classes.index(line[1]))
    return Parts(_classes(folder / "train", classes, size, Counter()), stacked(images, labels, folder))


def _subfolders(folder: Path) -> tuple[str, ...]:
    inside = folder.iterdir() if folder.is_dir() else ()
    above = folder.resolve()
    names = (path.name for path in inside if path.is_dir() and not _leads_back(path, (above,)))
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _known(folder: Path) -> tuple[str, ...]:
    classes = _subfolders(folder)
    if len(classes) < 2:
        raise UserError(
            "Setting `data_dir`: should hold one folder of images for each of at least two classes "
            f"(features are judged by labels). Found in {folder}: {', '.join(classes) or 'no folder'}."
        )
    return classes


def _classes(folder: Path, classes: Sequence[str], size: int | None, left: Counter[str]) -> Images:
    from PIL import Image

    known = Image.registered_extensions()  # an older Pillow has no .avif
    suffixes = tuple(suffix for suffix in SUFFIXES if suffix in known)
    left["beside the classes"] += sum(path.is_file() and not path.name.startswith(".") for path in folder.iterdir())
    images, labels = [], []
    for label, name in enumerate(classes):
        paths = _files(folder / name, suffixes, left)
        if not paths:
            raise UserError(
                f"Setting `data_dir`: {folder / name} should hold images. Found none of {', '.join(suffixes)}."
            )
        images += [decoded(path, str(path), size) for path in paths]
        labels += [label] * len(paths)
    return stacked(images, labels, folder)


def _files(folder: Path, suffixes: Sequence[str], left: Counter[str]) -> list[Path]:
    """The images in and below a class's folder, sorted; counts what else there is."""
    found: list[Path] = []
    ahead: list[tuple[Path, tuple[Path, ...]]] = [(folder, (folder.resolve(), folder.parent.resolve()))]
    while ahead:
        place, above = ahead.pop()
        for path in place.iterdir():
            if path.name.startswith("."):
                continue
            if not path.is_dir():
                if path.suffix.lower() in suffixes:
                    found.append(path)
                else:
                    left[path.suffix.lower() or "without a suffix"] += 1
            elif _leads_back(path, above):
                left["linked to a folder above it"] += 1
            else:
                ahead.append((path, (*above, path.resolve())))
    return sorted(found)


def _leads_back(path: Path, above: Sequence[Path]) -> bool:
    """Whether a folder is a link to one of those above it, which would be read again without end."""
    real = path.resolve() if path.is_symlink() else None
    return real is not None and any(real == folder or real in folder.parents for folder in above)


def _notes(left: Counter[str]) -> tuple[str, ...]:
    if not left.total():
        return ()
    told = ", ".join(f"{count:,} {what}" for what, count in sorted(left.items()) if count)
    return (f"{left.total():,} files or links were left out: {told}.",)
