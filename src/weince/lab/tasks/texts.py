"""Labelled texts: a head on a sentence encoder, trained with labels, judged by its nearest training texts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.data.labelled import load_labelled
from weince.lab.evaluation.geometry import geometry
from weince.lab.evaluation.probes import Labelled, neighbour_outcomes
from weince.lab.tasks.heads import Heads, Judged
from weince.lab.tasks.recipe.texts import TextsRecipe
from weince.lab.training.frozen import text_encoder, text_features
from weince.lab.training.heads import TextTower, Tower
from weince.setups import labelled
from weince.shell.words import count

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["Texts"]

AT_ONCE = 256
"""Texts that are embedded together."""
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
        self.texts = {part: list(texts.texts) for part, texts in parts.items()}
        sizes = [len(texts) for texts in self.texts.values()]
        self.examples = sizes[0]
        frozen = recipe.encoder_learning_rate is None
        _ = self.features if frozen else self.encoder  # what cannot be had is refused at once
        self.facts = (
            f"{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test texts with "
            f"{len(self.data.classes)} labels",
            f"encoder {recipe.encoder}, {'frozen' if frozen else 'trained too'}; two layers on it, "
            f"{count(recipe.epochs, 'epoch')} of batch {min(recipe.batch_size, sizes[0])}",
            *self.data.notes,
        )

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """What the frozen encoder says of each part."""
        everything = [text for texts in self.texts.values() for text in texts]
        found = torch.from_numpy(text_features(self.recipe.encoder, everything, self.kept, self.recipe.device))
        rows = found.split([len(texts) for texts in self.texts.values()])
        return {part: some.to(self.device) for part, some in zip(self.texts, rows, strict=True)}

    @cached_property
    def encoder(self) -> SentenceTransformer:
        """The encoder before training."""
        return text_encoder(self.recipe.encoder, self.recipe.device)

    def fingerprint(self) -> str:
        return f"{self.data.fingerprint} {self.recipe.encoder}"

    def model(self, recipe: TextsRecipe) -> nn.Module:
        if recipe.encoder_learning_rate is None:
            return Tower(self.features["training"], recipe)
        encoder = copy.deepcopy(self.encoder)
        width = encoder.get_embedding_dimension()
        assert width is not None
        return TextTower(encoder, self.texts["training"], width, recipe)

    def rates(self, model: nn.Module, recipe: TextsRecipe) -> dict[nn.Module, float]:
        rate = recipe.encoder_learning_rate
        return {model.encoder: rate} if rate is not None and isinstance(model, TextTower) else {}

    def loss(self, model: nn.Module, criterion: nn.Module, rows: Tensor, rng: np.random.Generator) -> Tensor:
        return criterion(model(rows), self.labels["training"].to(rows.device)[rows])

    def embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        of = self.texts if isinstance(model, TextTower) else self.features
        return {name: self._embedded(model, of[one]) for name, one in (("reference", "training"), ("query", part))}

    def _embedded(self, model: nn.Module, part: Tensor | list[str]) -> np.ndarray:
        rows = torch.arange(len(part), device=self.device)
        found = [model(some, part).float().cpu().numpy() for some in rows.split(AT_ONCE)]
        return np.concatenate(found)

    def judged(self, embeddings: Mapping[str, np.ndarray], part: str) -> Judged:
        reference = Labelled(embeddings["reference"], self.data.training.labels)
        query = Labelled(embeddings["query"], self.labels[part].numpy())
        found = neighbour_outcomes(reference, query, recall_at=(1,))
        some = np.random.default_rng(0).permutation(len(query.labels))[:MOST]
        contest = labelled(torch.from_numpy(query.features[some]), torch.from_numpy(query.labels[some]))
        return Judged({metric: found[metric] for metric in self.metrics}, geometry([contest]))
