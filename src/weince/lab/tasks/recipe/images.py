"""The recipe of images: an encoder trained by two views of each image, its frozen features judged by labels."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from weince.lab.engine.plan import Usual
from weince.lab.rivals import Loss, Setup
from weince.lab.settings import Name, Placed
from weince.lab.tasks.recipe.losses import SHOWN, TunedLosses
from weince.lab.training.settings import ImageSettings

__all__ = ["METRICS", "PAPER_TEMPERATURE", "ImageRun", "ImagesRecipe", "Metric", "preset"]

Metric = Literal["linear_accuracy", "knn_accuracy", "recall_at_1", "recall_at_5", "recall_at_10", "recall_at_20"]
Protocol = Literal["published", "lightly"]
METRICS: dict[str, str] = {
    "linear_accuracy": "linear accuracy",
    "knn_accuracy": "kNN accuracy",
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "recall_at_20": "recall@20",
}
PAPER_TEMPERATURE = 0.5
"""InfoNCE at this temperature is what the paper compares with."""


class ImagesRecipe(ImageSettings, TunedLosses):
    """Everything a comparison on images does. On a CPU, with the same number of threads, equal recipes give equal
    numbers.

    The images of another `data_dir` must be the same ones, pixel by pixel.
    """

    FREE: ClassVar = TunedLosses.FREE | ImageSettings.FREE | {"protocols", "drop_last"}
    PLACES: ClassVar = frozenset({"output", "data_dir"})
    USUAL: ClassVar = Usual(settings={"temperature": PAPER_TEMPERATURE}, whose="the paper's temperature")
    VARIED: ClassVar = frozenset(
        {"learning_rate", "batch_size", "epochs", "schedule", "encoder", "projection", "precision"}
    )

    task: Literal["images"] = "images"
    name: Name = "digits"
    """Folder of the results, under `output`."""
    losses: Annotated[tuple[Loss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared: each at every temperature, or over a grid of its own where it has other settings or none."""
    select_by: Metric = "linear_accuracy"
    """Validation score, averaged over seeds, by which each loss's settings are chosen."""
    protocols: tuple[Protocol, ...] = ()
    """Other evaluations of the reported runs, beside our own: the paper's as published, the field's as in lightly."""
    drop_last: bool = False
    """Whether the published protocol scores whole batches of 256 alone, as the released evaluation does."""

    @property
    def setup(self) -> Setup:
        """Two views, or a queue."""
        return "two-views" if self.queue is None else "queue"

    @property
    def evaluations(self) -> tuple[str, ...]:
        """The protocols."""
        return self.protocols


class ImageRun(ImageSettings, Placed):
    """One run of a comparison on images: train an encoder with one loss, and judge it on validation images."""

    name: Name = "digits"
    """Folder of the comparison that it belongs to, under `output`."""
    loss: Loss = "weince"
    """What trains it."""
    temperature: Annotated[float, Field(gt=0)] = PAPER_TEMPERATURE
    """Of the loss."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    """Of initial weights, order of data and views."""


def preset(data: str) -> dict[str, Any]:
    """Settings from which a comparison on `data` starts when no file is given."""
    shown = {"losses": SHOWN, "temperatures": (0.05, 0.1, 0.2, 0.5)}
    return {"name": data, "data": data, **shown} | ({} if data == "digits" else {"epochs": 100})
