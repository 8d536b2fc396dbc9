"""The views: two random versions of a batch of images, made on the images' own device."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as augment
import torch
from torch import Tensor

from weince.lab.data.settings import Data
from weince.lab.training.augmentations import ColourJitter, Crop
from weince.processes.gather import rank, world_size

__all__ = ["as_float", "make_views", "own_views_of", "two_views_of"]


def as_float(pixels: Tensor) -> Tensor:
    """Pixels uint8 (N, C, H, W) as floats in [0, 1]. No mean or deviation is removed, as published."""
    return pixels.to(torch.get_default_dtype()) / 255


def two_views_of(views: augment.AugmentationSequential, pixels: Tensor) -> Tensor:
    """Both views of uint8 images (N, C, S, S), stacked: (2N, C, S, S), first all of view a."""
    images = as_float(pixels)
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        return torch.cat([views(images), views(images)])


def own_views_of(views: augment.AugmentationSequential, pixels: Tensor) -> Tensor:
    """`two_views_of` of this process's share of a batch: the views that one process would give these images.

    Every process draws the choices of the whole batch, which is cheap, and carries out those of its own images.
    """
    if world_size() == 1:
        return two_views_of(views, pixels)
    images, whole = as_float(pixels), torch.Size((world_size() * len(pixels), *pixels.shape[1:]))
    mine = slice(rank() * len(pixels), (rank() + 1) * len(pixels))
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        return torch.cat([views(images, params=_of(mine, views.forward_parameters(whole))) for _ in range(2)])


def _of(mine: slice, choices: list[Any]) -> list[Any]:
    """The choices for some of the images. Older versions of kornia: a step that skips images has none for those."""
    own = []
    for step in choices:
        taken = step.data["batch_prob"] > 0.5
        before, until = (int(taken[:place].sum()) for place in (mine.start, mine.stop))
        data = {}
        for name, value in step.data.items():
            if name == "forward_input_shape":
                data[name] = torch.tensor((mine.stop - mine.start, *value.tolist()[1:]))
            elif name == "order":  # of the steps of a colour jitter, the same for all images
                data[name] = value
            else:
                data[name] = value[mine] if len(value) == len(taken) else value[before:until]
        own.append(type(step)(step.name, data))
    return own


def make_views(data: Data, size: int) -> augment.AugmentationSequential:
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
            Crop(size, scale=(0.5, 1.0)),
            augment.RandomGaussianNoise(std=0.1, p=1.0),
        )
    return augment.AugmentationSequential(
        Crop(size, scale=(0.08, 1.0)),
        augment.RandomHorizontalFlip(p=0.5),
        ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        augment.RandomGrayscale(p=0.2),
    )
