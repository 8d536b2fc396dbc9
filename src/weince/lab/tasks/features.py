"""Images with a pretrained encoder: a head on its frozen features of augmented views, judged as images are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.data.sets import Images, load
from weince.lab.evaluation.geometry import geometry
from weince.lab.evaluation.probes import Labelled, fit_probe, neighbour_outcomes
from weince.lab.tasks.heads import Heads, Judged
from weince.lab.tasks.recipe.features import FeaturesRecipe
from weince.lab.training.frozen import kept, pretrained_images, views_of
from weince.lab.training.heads import Tower
from weince.lab.training.views import make_views
from weince.setups import two_views
from weince.shell.words import count

__all__ = ["Features"]

HELD_OUT = 1024
"""Validation images of which two views explain the scores."""


class Features(Heads):
    """The task of a recipe.

    Raises:
        UserError: as `Heads`; or the encoder cannot be had.
    """

    metrics: Mapping[str, str] = {
        "knn_accuracy": "kNN accuracy", "recall_at_1": "recall@1", "linear_accuracy": "linear accuracy",
    }  # fmt: skip

    def __init__(self, recipe: FeaturesRecipe) -> None:
        super().__init__(recipe)
        self.splits = load(recipe)
        self.encoder, self.digest = pretrained_images(recipe.encoder)
        self.encoder.to(self.device)
        training = self.splits.training
        self.views = self._features(training, recipe.views)
        parts = {part: getattr(self.splits, part) for part in ("training", "validation", "test")}
        held_out = np.arange(min(HELD_OUT, len(parts["validation"].labels)))
        self.held_out = self._features(parts["validation"].take(held_out), 2)
        self.plain = {part: self._features(images, 0) for part, images in parts.items()}
        self.labels = {part: images.labels.numpy() for part, images in parts.items()}
        self.examples = len(training.labels)
        sizes = {part: len(rows) for part, rows in self.plain.items()}
        self.facts = (
            f"{sizes['training']:,} training, {sizes['validation']:,} validation and {sizes['test']:,} test images of "
            f"{recipe.data} in {len(training.labels.unique())} classes",
            f"encoder {recipe.encoder}, pretrained on ImageNet and frozen, at {recipe.encoder_size} px; two layers on "
            f"its features of {recipe.views} views of each image, {count(recipe.epochs, 'epoch')} of batch "
            f"{min(recipe.batch_size, self.examples)}",
            *(["ImageNet holds Tiny-ImageNet's classes: the encoder has seen their labels"]
              if recipe.data == "tiny-imagenet" else []),
            *self.splits.notes,
        )  # fmt: skip

    def _features(self, images: Images, views: int) -> Tensor:
        """(N, V, D), or (N, D) of the images as they are."""
        recipe = self.recipe
        augment = make_views(recipe.data, images.pixels.shape[-1]) if views else None
        key = (recipe.encoder, self.digest, recipe.encoder_size, views, recipe.data, recipe.split_seed, _digest(images))
        found = kept(self.kept, repr(key), lambda: views_of(
            self.encoder, images.pixels.to(self.device), recipe.encoder_size, max(views, 1), recipe.split_seed, augment
        ))  # fmt: skip
        held = torch.from_numpy(found).to(self.device)
        return held if views else held[:, 0]

    def fingerprint(self) -> str:
        return f"{self.splits.fingerprint} {self.digest}"

    def model(self, recipe: FeaturesRecipe) -> nn.Module:
        return Tower(self.views, recipe)

    def loss(self, model: nn.Module, criterion: nn.Module, rows: Tensor, rng: np.random.Generator) -> Tensor:
        # Two different views of each image.
        first = rng.integers(self.recipe.views, size=len(rows))
        second = (first + rng.integers(1, self.recipe.views, size=len(rows))) % self.recipe.views
        flat = self.views.flatten(0, 1)
        one, other = (model(rows * self.recipe.views + torch.from_numpy(view).to(rows.device), flat)
                      for view in (first, second))  # fmt: skip
        return criterion(one, other)

    def embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        flat = {"training": self.plain["training"], "query": self.plain[part], "validation": self.plain["validation"],
                "views": self.held_out.flatten(0, 1)}  # fmt: skip
        return {name: model(torch.arange(len(rows), device=self.device), rows).float().cpu().numpy()
                for name, rows in flat.items()}  # fmt: skip

    def judged(self, embeddings: Mapping[str, np.ndarray], part: str) -> Judged:
        reference = Labelled(embeddings["training"], self.labels["training"])
        query = Labelled(embeddings["query"], self.labels[part])
        found = neighbour_outcomes(reference, query, recall_at=(1,))
        if part == "test":
            probe = fit_probe(reference, Labelled(embeddings["validation"], self.labels["validation"]))
            found["linear_accuracy"] = probe.model.predict(query.features) == query.labels
        views = torch.from_numpy(embeddings["views"])
        return Judged(found, geometry([two_views(views[0::2], views[1::2])]))


def _digest(images: Images) -> str:
    import hashlib

    return hashlib.sha256(images.pixels.numpy().tobytes()).hexdigest()
