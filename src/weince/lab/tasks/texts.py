"""Labelled texts: a head on a frozen sentence encoder, trained with labels, judged by its nearest training texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.data.labelled import load_labelled
from weince.lab.evaluation.geometry import geometry
from weince.lab.evaluation.probes import Labelled, neighbour_outcomes
from weince.lab.tasks.heads import Heads, Judged
from weince.lab.tasks.recipe.texts import TextsRecipe
from weince.lab.training.frozen import text_features
from weince.lab.training.heads import Tower
from weince.setups import labelled
from weince.shell.words import count

__all__ = ["Texts"]

MOST = 4096
"""Test texts that the geometry is measured on."""


class Texts(Heads):
    """The task of a recipe.

    Raises:
        UserError: as `Heads`; or the encoder cannot be had.
    """

    metrics: Mapping[str, str] = {"recall_at_1": "recall@1", "knn_accuracy": "kNN accuracy"}

    def __init__(self, recipe: TextsRecipe) -> None:
        super().__init__(recipe)
        self.data = load_labelled(recipe)
        parts = dict(zip(("training", "validation", "test"), self.data[:3], strict=True))
        self.labels = {part: torch.from_numpy(texts.labels) for part, texts in parts.items()}
        everything = [text for texts in parts.values() for text in texts.texts]
        found = torch.from_numpy(text_features(recipe.encoder, everything, self.kept, recipe.device))
        sizes = [len(texts.texts) for texts in parts.values()]
        self.features = {part: rows.to(self.device) for part, rows in zip(parts, found.split(sizes), strict=True)}
        self.examples = sizes[0]
        self.facts = (
            f"{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test texts with "
            f"{len(self.data.classes)} labels",
            f"encoder {recipe.encoder}, frozen; two layers on it, {count(recipe.epochs, 'epoch')} of batch "
            f"{min(recipe.batch_size, sizes[0])}",
            *self.data.notes,
        )

    def fingerprint(self) -> str:
        return f"{self.data.fingerprint} {self.recipe.encoder}"

    def model(self, recipe: TextsRecipe) -> nn.Module:
        return Tower(self.features["training"], recipe)

    def loss(self, model: nn.Module, criterion: nn.Module, rows: Tensor, rng: np.random.Generator) -> Tensor:
        return criterion(model(rows), self.labels["training"].to(rows.device)[rows])

    def embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        parts = {"reference": self.features["training"], "query": self.features[part]}
        return {name: model(torch.arange(len(rows), device=self.device), rows).float().cpu().numpy()
                for name, rows in parts.items()}  # fmt: skip

    def judged(self, embeddings: Mapping[str, np.ndarray], part: str) -> Judged:
        reference = Labelled(embeddings["reference"], self.data.training.labels)
        query = Labelled(embeddings["query"], self.labels[part].numpy())
        found = neighbour_outcomes(reference, query, recall_at=(1,))
        some = np.random.default_rng(0).permutation(len(query.labels))[:MOST]
        contest = labelled(torch.from_numpy(query.features[some]), torch.from_numpy(query.labels[some]))
        return Judged({metric: found[metric] for metric in self.metrics}, geometry([contest]))
