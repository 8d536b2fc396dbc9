"""The views: two random versions of a batch of images, made on the images' own device."""

from __future__ import annotations

import kornia.augmentation as augment
from torch import Tensor, nn

from weince.lab.recipe import Data

__all__ = ["as_float", "make_views"]


def as_float(pixels: Tensor) -> Tensor:
    """Pixels uint8 (N, C, H, W) as float32 in [0, 1]. No mean or deviation is removed, as published."""
    return pixels.float() / 255


def make_views(data: Data, size: int) -> nn.Module:
    """Random augmentation of a batch (N, C, size, size) in [0, 1], each image on its own. Call it once per view.

    Draws from PyTorch's global generator: seed that, and the views are the same again.

    Args:
        data: handwritten digits get crops, small rotations and shifts, and noise, since a digit has no colour and a
            flipped one is another sign. Everything else gets the published SimCLR set.
        size: edge length of the views in pixels.

    Source: arXiv:2002.05709, appendix A; arXiv:2606.00262, training protocol.
    """
    if data == "digits":
        return augment.AugmentationSequential(
            augment.RandomAffine(degrees=15.0, translate=(0.1, 0.1), p=1.0),
            augment.RandomResizedCrop((size, size), scale=(0.5, 1.0), cropping_mode="resample"),
            augment.RandomGaussianNoise(std=0.1, p=1.0),
        )
    return augment.AugmentationSequential(
        # "resample" crops the batch in one call; "slice" loops over its images.
        augment.RandomResizedCrop((size, size), scale=(0.08, 1.0), cropping_mode="resample"),
        augment.RandomHorizontalFlip(p=0.5),
        augment.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        augment.RandomGrayscale(p=0.2),
    )
