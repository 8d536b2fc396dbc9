"""Pairs of texts: two towers, trained to find each other; recall@k is the mean of both directions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.data.aligned import TextPairs, load_aligned
from weince.lab.evaluation.geometry import geometry
from weince.lab.evaluation.retrieval import pair_outcomes
from weince.lab.tasks.heads import Heads, Judged
from weince.lab.tasks.recipe.pairs import NGRAMS, PairsRecipe
from weince.lab.training.frozen import Bags, character_ngrams, text_features
from weince.lab.training.heads import BagTower, Tower
from weince.setups import swapped, two_towers
from weince.shell.words import count

__all__ = ["Pairs"]

MOST = 2048
"""Test pairs that the geometry is measured on."""


class Pairs(Heads):
    """The task of a recipe.

    Raises:
        UserError: as `Heads`; or an encoder cannot be had.
    """

    metrics: Mapping[str, str] = {"recall_at_1": "recall@1", "recall_at_10": "recall@10"}

    def __init__(self, recipe: PairsRecipe) -> None:
        super().__init__(recipe)
        self.data = load_aligned(recipe)
        self.parts: dict[str, TextPairs] = dict(zip(("training", "validation", "test"), self.data[:3], strict=True))
        self.sides = [self._side(encoder, side) for side, encoder in
                      enumerate((recipe.left_encoder, recipe.right_encoder))]  # fmt: skip
        ids = self.parts["training"].ids()
        self.ids = None if ids is None else torch.from_numpy(ids).to(self.device)
        sizes = [len(pairs.left) for pairs in self.parts.values()]
        self.examples = sizes[0]
        again = "; equal texts are no negatives of each other" if ids is not None else ""
        self.facts = (
            f"{sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test pairs of {self.data.sides[0]} and "
            f"{self.data.sides[1]}{again}",
            f"{_told(recipe.left_encoder)} and {_told(recipe.right_encoder)}, {count(recipe.epochs, 'epoch')} of batch "
            f"{min(recipe.batch_size, sizes[0])}",
            *self.data.notes,
        )

    def _side(self, encoder: str, side: int) -> dict[str, Tensor | Bags]:
        """Part -> what the tower of a side takes."""
        if encoder == NGRAMS:
            return {part: character_ngrams(pairs[side]) for part, pairs in self.parts.items()}
        texts = [text for pairs in self.parts.values() for text in pairs[side]]
        found = torch.from_numpy(text_features(encoder, texts, self.kept, self.recipe.device)).to(self.device)
        sizes = [len(pairs[side]) for pairs in self.parts.values()]
        return dict(zip(self.parts, found.split(sizes), strict=True))

    def fingerprint(self) -> str:
        return f"{self.data.fingerprint} {self.recipe.left_encoder} {self.recipe.right_encoder}"

    def model(self, recipe: PairsRecipe) -> nn.Module:
        towers = []
        for side in self.sides:
            held = side["training"]
            towers.append(BagTower(held, recipe) if isinstance(held, Bags) else Tower(held, recipe))
        return nn.ModuleList(towers)

    def loss(self, model: nn.Module, criterion: nn.Module, rows: Tensor, rng: np.random.Generator) -> Tensor:
        left, right = (tower(rows) for tower in model.children())
        return criterion(left, right) if self.ids is None else criterion(left, right, ids=self.ids[rows])

    def embeddings(self, model: nn.Module, part: str) -> dict[str, np.ndarray]:
        rows = torch.arange(len(self.parts[part].left), device=self.device)
        return {name: tower(rows, side[part]).float().cpu().numpy()
                for name, tower, side in zip(("left", "right"), model.children(), self.sides, strict=True)}  # fmt: skip

    def judged(self, embeddings: Mapping[str, np.ndarray], part: str) -> Judged:
        left, right = (torch.from_numpy(embeddings[side]) for side in ("left", "right"))
        outcomes = pair_outcomes(left, right, self.parts[part].ids(), (1, 10))
        contest = two_towers(left[:MOST], right[:MOST])
        return Judged(outcomes, geometry([contest, swapped(contest)]))


def _told(encoder: str) -> str:
    return "learnt vectors of character 3- to 5-grams" if encoder == NGRAMS else f"{encoder}, frozen,"
