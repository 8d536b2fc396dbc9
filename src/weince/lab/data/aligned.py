"""Aligned texts: line i of one file and line i of another are a pair, as queries and documents, or two languages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weince.lab.data.settings import AlignedData
from weince.lab.data.tables import SUFFIXES, kind_of, lines_of, part_of, parts_in, table_of
from weince.shell.errors import UserError

__all__ = ["AlignedTexts", "TextPairs", "load_aligned"]

TEST_SHARE = 0.1
"""Of pairs that come without a test part."""

ASKING = ("en", "eng", "english", "query", "queries", "question", "questions", "anchor", "source", "src")
"""Names of a left side."""

Columns = tuple[list[str], list[str]]


class TextPairs(NamedTuple):
    """Texts of both sides; the i-th ones are a pair."""

    left: tuple[str, ...]
    right: tuple[str, ...]

    def ids(self) -> np.ndarray | None:
        """Numbers of the texts of both sides (N, 2), where any comes twice: such pairs are no negatives; None else."""
        if len(set(self.left)) == len(set(self.right)) == len(self.left):
            return None
        sides = [np.unique(np.array(side, dtype=object), return_inverse=True)[1] for side in self]
        return np.stack(sides, axis=1)


class AlignedTexts(NamedTuple):
    """The parts, what the sides are called, and in sentences what was left out."""

    training: TextPairs
    validation: TextPairs
    test: TextPairs
    sides: tuple[str, str]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts."""
        return hashlib.sha256(repr(self[:3]).encode()).hexdigest()


def load_aligned(recipe: AlignedData) -> AlignedTexts:
    """The pairs of a recipe. Splits depend on `split_seed` alone, never on a run's seed.

    A part that files hold is taken as it is; the others are drawn from the training pairs. A pair with an empty text
    is left out.

    Raises:
        UserError: no such files, sides that cannot be told, files of different length, or too few pairs.
    """
    assert recipe.data_dir is not None
    sides, read = _read(recipe.data_dir, recipe.left, recipe.right)
    notes, parts = [], {}
    for part, (left, right) in read.items():
        pairs = [pair for pair in zip(left, right, strict=True) if all(pair)]
        if len(pairs) < len(left):
            notes.append(f"{len(left) - len(pairs):,} {part} pairs have an empty text: left out")
        if len(pairs) < 8:
            raise UserError(f"Setting `data_dir`: should hold at least 8 {part} pairs. Found {len(pairs)}.")
        parts[part] = TextPairs(*(tuple(side) for side in zip(*pairs, strict=True)))
    rng = np.random.default_rng(recipe.split_seed)
    for part, share in (("test", TEST_SHARE), ("validation", recipe.validation_fraction)):
        if part not in parts:
            parts["training"], parts[part] = _split(parts["training"], share, rng)
            notes.append(f"there is no {part} part: {len(parts[part].left):,} pairs were drawn for it")
    training = parts["training"]
    if recipe.subset is not None and recipe.subset < len(training.left):
        training = _split(training, recipe.subset / len(training.left), rng)[1]
    return AlignedTexts(training, parts["validation"], parts["test"], sides, tuple(notes))


def _read(place: Path, left: str | None, right: str | None) -> tuple[tuple[str, str], dict[str, Columns]]:
    """What the sides are called, and part -> texts of both."""
    if place.is_dir():
        named = [_path(place, side) for side in (left, right)]
        if all(named):
            assert left is not None
            assert right is not None
            one, other = (path for path in named if path is not None)
            return (left, right), {"training": _aligned(one, other)}
        if any(path.is_file() and kind_of(path) in SUFFIXES for path in place.iterdir()):
            return _of_tables(place, left, right)
        return _of_files(place, left, right)
    return _of_tables(place, left, right)


def _path(folder: Path, name: str | None) -> Path | None:
    return next((path for path in (folder / name, Path(name)) if path.is_file()), None) if name else None


def _of_files(folder: Path, left: str | None, right: str | None) -> tuple[tuple[str, str], dict[str, Columns]]:
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        part, side = part_of(path), _side(path)
        if side and not (part is None and path.suffix.lower() == ".md"):
            files.setdefault(side, {}).setdefault(part or "training", path)
    # A side is what has training texts.
    found = [side for side, parts in files.items() if "training" in parts]
    for name, side in (("left", left), ("right", right)):
        if side is not None and side not in found:
            raise UserError(
                f"Setting `{name}`: {folder} holds no training texts called {side!r}. "
                f"Found {', '.join(found) or 'none'}."
            )
    others = [side for side in found if side not in (left, right)]
    if len(found) < 2 or ((left is None or right is None) and len(found) > 2):
        raise UserError(
            f"Settings `left` and `right`: should name the two sides in {folder}. Found texts called "
            f"{', '.join(found) or 'nothing'}."
        )
    left, right = _sides(left, right, others)
    both = [part for part in files[left] if part in files[right]]
    return (left, right), {part: _aligned(files[left][part], files[right][part]) for part in both}


def _side(path: Path) -> str:
    """What a file is called beside its part: its last word, or its name.

    Examples:
        >>> _side(Path("train.en.gz")), _side(Path("queries.txt"))
        ('en', 'queries')
    """
    name = path.name.removesuffix(".gz").removesuffix(".txt")
    return name.rpartition(".")[2] if part_of(path) is not None else name


def _sides(left: str | None, right: str | None, others: list[str]) -> tuple[str, str]:
    """Both sides; of those that are not given, the one that asks, or is English, is the left one."""
    others = sorted(others, key=lambda name: name.lower() not in ASKING)
    return left or others.pop(0), right or others.pop(0)


def _aligned(one: Path, other: Path) -> Columns:
    left, right = lines_of(one), lines_of(other)
    if len(left) != len(right):
        raise UserError(
            f"{one} and {other} should have equally many lines, a pair each. Found {len(left):,} and {len(right):,}."
        )
    return left, right


def _of_tables(place: Path, left: str | None, right: str | None) -> tuple[tuple[str, str], dict[str, Columns]]:
    read = {part: table_of(path) for part, path in parts_in(place, "data_dir").items()}
    columns = list(read["training"])
    for name, side in (("left", left), ("right", right)):
        if side is not None and side not in columns:
            raise UserError(f"Setting `{name}`: should be a column of {place}. Found {', '.join(columns)}.")
    others = [name for name in columns if name not in (left, right)]
    if len(columns) < 2 or ((left is None or right is None) and len(columns) > 2):
        raise UserError(f"Settings `left` and `right`: should name two columns of {place}. Found {', '.join(columns)}.")
    sides = _sides(left, right, others)
    parts = {}
    for part, table in read.items():
        if missing := [side for side in sides if side not in table]:
            raise UserError(f"Setting `data_dir`: the {part} table of {place} has no column {missing[0]!r}.")
        parts[part] = tuple(["" if text is None else str(text).strip() for text in table[side]] for side in sides)
    return sides, parts


def _split(pairs: TextPairs, share: float, rng: np.random.Generator) -> tuple[TextPairs, TextPairs]:
    """What is left, and about that share."""
    order = rng.permutation(len(pairs.left))
    away, left = np.split(order, [max(1, round(share * len(order)))])
    return _taken(pairs, left), _taken(pairs, away)


def _taken(pairs: TextPairs, places: np.ndarray) -> TextPairs:
    return TextPairs(*(tuple(side[at] for at in np.sort(places)) for side in pairs))
