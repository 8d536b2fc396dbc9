"""What the tasks of small models share, most of them on a frozen encoder: train, keep held-out embeddings, score.

<folder of a trial>/
  history.csv, embeddings.npz (float32, of the parts that scores need)
  validation.json   it is finished when this is there
  test.json         where it was reported
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.engine.outcomes import packed_all
from weince.lab.engine.task import Settings
from weince.lab.launch import launched
from weince.lab.rivals import make_criterion
from weince.lab.training.heads import train_head
from weince.lab.training.settings import device_of
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_bytes, write_json
from weince.shell.provenance import provenance

__all__ = ["Heads", "Judged"]

CURVES = ("loss", "gradient_norm", "weight", "slope", "validation")


class Judged(NamedTuple):
    """Of one part: metric -> outcomes (examples,) whose mean is the score, and what explains it."""

    outcomes: Mapping[str, np.ndarray]
    geometry: Mapping[str, float]

    @property
    def scores(self) -> dict[str, float]:
        """The means."""
        return {metric: float(np.mean(values)) for metric, values in self.outcomes.items()}


class Heads(ABC):
    """A task of a small model, on frozen features or on an encoder that is trained too.

    Raises:
        UserError: several processes, a GPU that is not there, or data that cannot be read.
    """

    metrics: Mapping[str, str]
    unit = "epochs"
    untrained = ""
    facts: tuple[str, ...]
    examples: int
    """How many are trained on."""

    def __init__(self, recipe: Any) -> None:
        if launched() is not None:
            raise UserError(f'Task "{recipe.task}" trains with one process: start it without torchrun.')
        self.recipe = recipe
        self.device = device_of(recipe)
        self.kept = recipe.output / "features"

    @abstractmethod
    def model(self, recipe: Any) -> nn.Module:
        """A new model, its weights drawn from PyTorch's generator."""

    def rates(self, model: nn.Module, recipe: Any) -> dict[nn.Module, float]:
        """Parts of the model with a learning rate of their own."""
        return {}

    @abstractmethod
    def loss(self, model: nn.Module, criterion: nn.Module, rows: Tensor, rng: np.random.Generator) -> Tensor:
        """Of a batch of training examples."""

    @abstractmethod
    def embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        """What a part is judged by."""

    @abstractmethod
    def judged(self, embeddings: Mapping[str, np.ndarray], part: str) -> Judged:
        """A part, from its embeddings."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Of data and encoders."""

    def amount(self, settings: Settings) -> int:
        """Epochs."""
        return self.recipe.applied(settings)[0].epochs

    def untrained_scores(self) -> dict[str, dict[str, float]]:
        """None: a head before training is no model that anybody would use."""
        return {}

    def train(
        self, loss: str, settings: Settings, seed: int, folder: Path, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Train from the start, keep the embeddings of the test part, and judge the validation part."""
        done = folder / "validation.json"
        if done.is_file():
            return read_json(done)
        own, temperature = self.recipe.applied(settings)
        progress(0)
        torch.manual_seed(seed)
        model = self.model(own).to(self.device)
        criterion = make_criterion(loss, temperature, own.gate, own.rivals, setup=self.recipe.setup).to(self.device)

        def validated() -> Judged:
            model.eval()
            return self.judged(self._embeddings(model, "validation"), "validation")

        trained = train_head(
            model, criterion, lambda rows, rng: self.loss(model, criterion, rows, rng), self.examples, own, seed,
            folder, progress, lambda: validated().scores[own.select_by], self.rates(model, own),
        )  # fmt: skip
        scores = dict.fromkeys(self.metrics, 0.0)
        if not trained.diverged:
            scores = validated().scores
            buffer = io.BytesIO()
            np.savez(buffer, allow_pickle=False, **self._embeddings(model, "test"))
            write_bytes(folder / "embeddings.npz", buffer.getvalue())
        found = {
            "diverged": trained.diverged, "scores": scores, "seconds": round(trained.seconds, 2),
            "made": provenance(self.device, ("sentence-transformers", "timm", "scikit-learn")),
        }  # fmt: skip
        write_json(done, found)
        return found

    @torch.no_grad()
    def _embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        return self.embeddings(model, part)

    def test(self, loss: str, settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
        """The kept embeddings of the test part, judged."""
        kept = folder / "test.json"
        if not kept.is_file():
            with np.load(folder / "embeddings.npz", allow_pickle=False) as held:
                found = self.judged(dict(held), "test")
            write_json(kept, {"scores": found.scores, "geometry": dict(found.geometry),
                              "outcomes": packed_all(found.outcomes)})  # fmt: skip
        return {**read_json(kept), "curves": _curves(folder / "history.csv")}


def _curves(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {name: [float(f"{float(row[name]):.6g}") for row in rows if row.get(name)] for name in CURVES}
    return {name: values for name, values in found.items() if values}
