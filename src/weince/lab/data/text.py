"""The text: sentences to train on, and the STS Benchmark's scored pairs to judge by."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from weince.lab.data.settings import SentenceData
from weince.shell.errors import UserError

__all__ = ["Pairs", "Text", "load_text", "read_pairs", "read_sentences"]

COLUMNS = 7
"""Genre, file, year, id, score, sentence 1, sentence 2; some rows carry two more."""
HIGHEST = 5.0


class Pairs(NamedTuple):
    """Pairs of sentences and how similar people found them, 0 to 5."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...]


class Text(NamedTuple):
    """What a comparison on sentences reads."""

    sentences: tuple[str, ...]
    dev: Pairs
    test: Pairs

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it, so that a continued comparison can tell its text from other text."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def load_text(recipe: SentenceData) -> Text:
    """The sentences and pairs of a recipe. The subset depends on `split_seed` alone, never on a run's seed.

    Raises:
        UserError: a file is not there or not readable, or there are too few sentences.
    """
    if recipe.stsb_dir is None:
        raise UserError(
            "Setting `stsb_dir`: needs the folder of sts-train.csv, sts-dev.csv and sts-test.csv. Found nothing."
        )
    dev, test = (read_pairs(recipe.stsb_dir / f"sts-{part}.csv") for part in ("dev", "test"))
    if recipe.sentences is None:
        train = read_pairs(recipe.stsb_dir / "sts-train.csv")
        # Pair by pair, not column by column: it is the order of the file.
        found = tuple(dict.fromkeys(text for pair in zip(train.first, train.second, strict=True) for text in pair))
    else:
        found = read_sentences(recipe.sentences)
    if recipe.subset is not None:
        if recipe.subset > len(found):
            raise UserError(
                f"Setting `subset`: should be at most the {len(found)} sentences there are. Found {recipe.subset}."
            )
        order = np.random.default_rng(recipe.split_seed).permutation(len(found))
        found = tuple(found[at] for at in np.sort(order[: recipe.subset]))
    return Text(found, dev, test)


def read_pairs(path: Path) -> Pairs:
    """The pairs of a file of the STS Benchmark: tab-separated, quotes mean nothing, further columns are left alone.

    Raises:
        UserError: no such file, or a line that is not such a pair, named.
    """
    rows = []
    for number, line in enumerate(_lines(path, "stsb_dir"), 1):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) < COLUMNS:
            raise UserError(
                f"{path}, line {number}: should have at least {COLUMNS} columns with tabs between them "
                f"(genre, file, year, id, score, two sentences). Found {len(fields)}."
            )
        rows.append((fields[5].strip(), fields[6].strip(), _score(fields[4], path, number)))
    if len(rows) < 2:
        raise UserError(f"{path} should hold scored pairs of sentences. Found {len(rows)}.")
    return Pairs(*(tuple(column) for column in zip(*rows, strict=True)))


def read_sentences(path: Path) -> tuple[str, ...]:
    """The lines of a text file, each once, empty ones left out.

    Raises:
        UserError: no such file, or not UTF-8.
    """
    return tuple(dict.fromkeys(line for raw in _lines(path, "sentences") if (line := raw.strip())))


def _lines(path: Path, setting: str) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"Setting `{setting}`: {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"Setting `{setting}`: {path} is not UTF-8 text: {error.reason}.") from None
    # Not splitlines(): the sentences of some corpora hold other line separators of Unicode.
    return text.split("\n")


def _score(field: str, path: Path, number: int) -> float:
    try:
        value = float(field)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= HIGHEST:
        raise UserError(f"{path}, line {number}: scores should be numbers from 0 to 5. Found {field!r}.")
    return value
