"""The recipe of sentences: SimCSE, two views of a sentence by dropout alone, judged by the STS Benchmark."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.gate import Gate
from weince.lab.engine.plan import Usual
from weince.lab.engine.recipe import Comparison
from weince.lab.settings import Name
from weince.lab.training.settings import SentenceSettings

__all__ = ["SentencesRecipe"]

TextLoss = Literal["infonce", "weince"]


class SentencesRecipe(SentenceSettings, Comparison):
    """Everything a comparison on sentences does. On a CPU, with as many threads, equal recipes give equal numbers.

    The sentences and pairs of another place must be the same ones.
    """

    FREE: ClassVar = Comparison.FREE | SentenceSettings.FREE
    PLACES: ClassVar = frozenset({"output", "stsb_dir", "sentences"})
    TITLES: ClassVar = {"infonce": "InfoNCE", "weince": "WEINCE"}
    # arXiv:2104.08821
    USUAL: ClassVar = Usual(settings={"temperature": 0.05}, whose="SimCSE's temperature")
    VARIED: ClassVar = frozenset({
        "learning_rate", "batch_size", "epochs", "schedule", "encoder", "pooling", "head", "dropout", "max_length",
        "precision",
    })  # fmt: skip
    TABLES: ClassVar = {"gate": Gate}

    task: Literal["sentences"] = "sentences"
    name: Name = "simcse"
    """Folder of the results, under `output`."""
    losses: Annotated[tuple[TextLoss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared, each loss at every temperature."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.03, 0.05, 0.1, 0.2, 0.5,
    )  # fmt: skip
    """Every loss is tried at every one of these."""
    select_by: Literal["spearman"] = "spearman"
    """Score on the dev pairs by which settings are chosen."""
