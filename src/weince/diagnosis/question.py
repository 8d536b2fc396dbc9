"""The question that `weince diagnose` is asked: its options, each checked before a file is opened."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from weince.shell.errors import UserError

__all__ = ["Question", "check_output"]

MARKS = ("diagnosis.json", "training.json")
OURS = {
    *MARKS, "anchors.csv", "thresholds.csv", "exceedances.csv", "duplicates.csv", "training.csv", "figures",
    "report.html",
}  # fmt: skip
"""All that lies in a folder of ours: one that holds anything else is not replaced."""


@dataclass(frozen=True)
class Question:
    """Is the tail of these embeddings Weibull, with an end at 1? Figures and a verdict; nothing is trained.

    Attributes:
        file: embeddings, (M, D): .npy, .npz, .parquet, .safetensors or .pt; or the folder of a comparison that kept
            epochs (`weince compare --keep-every`), for the tail through training.
        corpus: of a second tower: the rows of `file` are anchors, these are the candidates.
        key: name of the array (or column) in `file`, where it holds several.
        corpus_key: the same for `corpus`.
        labels: one for each row: a file, or an array of `file`. Rows that share one are known positives, not negatives.
        corpus_labels: the same for `corpus`.
        ids: like labels, for what each row is: rows with equal ids are duplicates.
        corpus_ids: the same for `corpus`.
        paired: row i of `file` and row i of `corpus` are a positive pair.
        anchors: rows that are drawn as anchors; all candidates are searched for each.
        tail: largest number of hardest negatives in one anchor's tail.
        exceedances: pairs in the tail of all pairs, at most a hundredth of them.
        temperature: tau, for the effective temperature.
        seed: of the draws.
        output: folder of the results; runs/diagnosis-NAME where none is given.
        data_dir: of a comparison's images, where they have moved.
    """

    file: Annotated[Path, tyro.conf.Positional]
    corpus: Path | None = None
    key: str | None = None
    corpus_key: str | None = None
    labels: str | None = None
    corpus_labels: str | None = None
    ids: str | None = None
    corpus_ids: str | None = None
    paired: bool = False
    anchors: int = 2000
    tail: int = 256
    exceedances: int = 20_000
    temperature: float = 0.1
    seed: int = 0
    output: Path | None = None
    data_dir: Path | None = None

    def __post_init__(self) -> None:
        for name, least in (("anchors", 20), ("tail", 10), ("exceedances", 200), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"Parameter `{name}` should be an integer >= {least}. Found {getattr(self, name)}.")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"Parameter `temperature` should be finite and > 0. Found {self.temperature}.")
        if self.corpus is None:
            for name in ("corpus_key", "corpus_labels", "corpus_ids", "paired"):
                if getattr(self, name):
                    raise UserError(f"Parameter `{name}` needs a `corpus`. Found none.")
        for name in ("labels", "ids"):
            if self.corpus is not None and (getattr(self, name) is None) != (getattr(self, f"corpus_{name}") is None):
                raise UserError(f"Parameters `{name}` and `corpus_{name}` should be given together. Found one of them.")

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.output or Path("runs") / f"diagnosis-{self.file.resolve().stem}"


def check_output(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier diagnosis.

    Raises:
        UserError: it does, or it is a file.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_dir() and found <= OURS and (not found or found & set(MARKS)):
        return
    if folder.exists():
        raise UserError(
            f"Parameter `output` should be a new folder, or one that holds an earlier diagnosis. Found {folder}."
        )
