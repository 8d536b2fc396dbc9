"""Labelled texts: an ordinary table with a column of texts and one of labels, split into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weince.lab.data.settings import LabelledData
from weince.lab.data.tables import SUFFIXES, Table, kind_of, parts_in, table_of, text_of
from weince.shell.errors import UserError

__all__ = ["LabelledTexts", "Texts", "load_labelled"]

TEXTS = ("text", "sentence", "query", "question", "utterance", "content", "title", "review", "message", "input")
LABELS = ("label", "category", "intent", "class", "topic", "target", "labels", "label_text", "output")
TEST_SHARE = 0.25
"""Of a table that comes without a test part."""


class Texts(NamedTuple):
    """Texts and the number of each one's label (N,)."""

    texts: tuple[str, ...]
    labels: np.ndarray


class LabelledTexts(NamedTuple):
    """The parts, the names of the labels, and in sentences what was left out."""

    training: Texts
    validation: Texts
    test: Texts
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all texts and labels."""
        kept = [(part.texts, part.labels.tolist()) for part in self[:3]]
        return hashlib.sha256(repr((kept, self.classes)).encode()).hexdigest()


def load_labelled(recipe: LabelledData) -> LabelledTexts:
    """The texts of a recipe. Splits depend on `split_seed` alone, never on a run's seed.

    A part that a file holds is taken as it is; the others are drawn from the training table, the same share of every
    label: a quarter for testing, `validation_fraction` of the rest. `shots` leaves so many of each label to train on.

    Raises:
        UserError: no such table, columns that cannot be told, or too few texts.
    """
    assert recipe.data_dir is not None
    tables, notes = _tables(recipe.data_dir)
    read = {part: _columns(path, table, recipe, notes) for part, (path, table) in tables.items()}
    classes = tuple(sorted(set(read["training"][1])))
    if len(classes) < 2:
        raise UserError(f"Setting `data_dir`: texts should have at least two labels. Found {', '.join(classes)}.")
    parts: dict[str, Texts] = {}
    for part, (texts, labels) in read.items():
        known = [at for at, label in enumerate(labels) if label in classes]
        if len(known) < len(labels):
            notes.append(f"{len(labels) - len(known):,} {part} texts have labels that no training text has: left out.")
        number = {name: at for at, name in enumerate(classes)}
        parts[part] = Texts(tuple(texts[at] for at in known), np.array([number[labels[at]] for at in known], int))
    rng = np.random.default_rng(recipe.split_seed)
    if "test" not in parts:
        parts["training"], parts["test"] = _split(parts["training"], TEST_SHARE, rng)
        notes.append("there is no test table: a quarter of the texts is kept for testing")
    if recipe.test_subset is not None and recipe.test_subset < len(parts["test"].texts):
        parts["test"] = _split(parts["test"], recipe.test_subset / len(parts["test"].texts), rng)[1]
    if "validation" not in parts:
        parts["training"], parts["validation"] = _split(parts["training"], recipe.validation_fraction, rng)
    training = parts["training"]
    if recipe.subset is not None and recipe.subset < len(training.texts):
        training = _split(training, recipe.subset / len(training.texts), rng)[1]
    if recipe.shots is not None:
        training = _taken(training, [at for own in _by_label(training, rng) for at in own[: recipe.shots]])
    if min(len(part.texts) for part in (training, parts["validation"], parts["test"])) < 2:
        sizes = ", ".join(f"{len(part.texts)}" for part in (training, parts["validation"], parts["test"]))
        raise UserError(f"Setting `data_dir`: every part should hold texts. Found {sizes} to train, validate and test.")
    return LabelledTexts(training, parts["validation"], parts["test"], classes, tuple(notes))


def _tables(folder: Path) -> tuple[dict[str, tuple[Path, Table]], list[str]]:
    """Part -> its table; a JSON file may hold all parts, as CLINC150 does: {"train": [[text, label], ...], ...}."""
    paths = parts_in(folder, "data_dir")
    if list(paths) == ["training"] and kind_of(paths["training"]) == ".json":
        found = _parts_of_json(paths["training"])
        if found is not None:
            return found
    return {part: (path, table_of(path)) for part, path in paths.items()}, []


def _parts_of_json(path: Path) -> tuple[dict[str, tuple[Path, Table]], list[str]] | None:
    import json

    try:
        content = json.loads(text_of(path))
    except (json.JSONDecodeError, RecursionError):
        return None  # `table_of` says what is wrong
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        return None
    names = {"train": "training", "val": "validation", "validation": "validation", "dev": "validation", "test": "test"}
    left = [name for name in content if name not in names]
    tables = {names[name]: (path, _pairs(path, name, rows)) for name, rows in content.items() if name in names}
    return tables, [f"of {path.name}, {', '.join(left)} were left out"] if left else []


def _pairs(path: Path, name: str, rows: Any) -> Table:
    if rows and all(isinstance(row, Mapping) for row in rows):
        return {key: [row.get(key) for row in rows] for key in rows[0]}
    if not rows or not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise UserError(f"{path}: {name!r} should hold pairs of a text and a label.")
    return {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}


def _columns(path: Path, table: Table, recipe: LabelledData, notes: list[str]) -> tuple[list[str], list[str]]:
    text = _named(path, table, "text_column", recipe.text_column, TEXTS)
    label = _named(path, table, "label_column", recipe.label_column, LABELS)
    if len(table) == 2:
        # Labels come again and again.
        fewer, more = sorted(table, key=lambda name: len(set(map(str, table[name]))))
        if text is None:
            text = more if label in (None, fewer) else fewer
        if label is None:
            label = fewer if text == more else more
    if text is None or label is None or text == label:
        wanted = "text_column" if text is None else "label_column"
        raise UserError(
            f"Setting `{wanted}`: should name a column of {path} ({', '.join(SUFFIXES)}). Found {', '.join(table)}."
        )
    rows = [(str(one).strip(), str(other).strip()) for one, other in zip(table[text], table[label], strict=True)
            if one is not None and other is not None]  # fmt: skip
    kept = [row for row in rows if row[0] and row[1]]
    if len(kept) < len(table[text]):
        notes.append(f"{len(table[text]) - len(kept):,} rows of {path.name} have no text or no label: left out.")
    return [row[0] for row in kept], [row[1] for row in kept]


def _named(path: Path, table: Table, setting: str, given: str | None, usual: Sequence[str]) -> str | None:
    if given is not None:
        if given not in table:
            raise UserError(f"Setting `{setting}`: {path} has no column {given!r}. Found {', '.join(table)}.")
        return given
    by_name = {name.lower(): name for name in table}
    return next((by_name[name] for name in usual if name in by_name), None)


def _by_label(part: Texts, rng: np.random.Generator) -> list[np.ndarray]:
    """Places of the texts of each label, in a drawn order."""
    order = rng.permutation(len(part.labels))
    labels = part.labels[order]
    return [order[labels == label] for label in np.unique(labels)]


def _split(part: Texts, share: float, rng: np.random.Generator) -> tuple[Texts, Texts]:
    """What is left, and about that share of every label; at least one of each stays."""
    away = [at for own in _by_label(part, rng) for at in own[: min(round(share * len(own)), len(own) - 1)]]
    left = np.setdiff1d(np.arange(len(part.labels)), away)
    return _taken(part, left), _taken(part, away)


def _taken(part: Texts, places: Sequence[int] | np.ndarray) -> Texts:
    kept = np.sort(np.asarray(places, int))
    return Texts(tuple(part.texts[at] for at in kept), part.labels[kept])
