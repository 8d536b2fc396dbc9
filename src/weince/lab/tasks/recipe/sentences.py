"""The recipe of sentences: SimCSE, two views of a sentence by dropout alone, judged by the STS Benchmark."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.lab.engine.plan import Usual
from weince.lab.rivals import Loss
from weince.lab.settings import Name
from weince.lab.tasks.recipe.losses import TunedLosses
from weince.lab.training.settings import SentenceSettings

__all__ = ["SentencesRecipe"]


class SentencesRecipe(SentenceSettings, TunedLosses):
    """Everything a comparison on sentences does. On a CPU, with as many threads, equal recipes give equal numbers.

    The sentences and pairs of another place must be the same ones.
    """

    FREE: ClassVar = TunedLosses.FREE | SentenceSettings.FREE
    PLACES: ClassVar = frozenset({"output", "stsb_dir", "sentences"})
    SETUP: ClassVar = "retrieval"
    # arXiv:2104.08821
    USUAL: ClassVar = Usual(settings={"temperature": 0.05}, whose="SimCSE's temperature")
    VARIED: ClassVar = frozenset({
        "learning_rate", "batch_size", "epochs", "schedule", "encoder", "pooling", "head", "dropout", "max_length",
        "precision",
    })  # fmt: skip

    task: Literal["sentences"] = "sentences"
    name: Name = "simcse"
    """Folder of the results, under `output`."""
    losses: Annotated[tuple[Loss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared: each at every temperature, or over a grid of its own where it has other settings or none."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.03, 0.05, 0.1, 0.2, 0.5,
    )  # fmt: skip
    """Every loss is tried at every one of these."""
    select_by: Literal["spearman"] = "spearman"
    """Score on the dev pairs by which settings are chosen."""
