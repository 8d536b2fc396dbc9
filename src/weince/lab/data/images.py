"""Images in memory: pixels as bytes, and labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["Images", "Parts", "resized"]


class Images(NamedTuple):
    """Labelled images: pixels uint8 (N, C, H, W), labels int64 (N,), -1 where there is none."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: np.ndarray) -> Images:
        """The images at `index`, in its order."""
        rows = torch.from_numpy(index)
        return Images(self.pixels[rows], self.labels[rows])


class Parts(NamedTuple):
    """A data set as published: training images, test images where it has any, and those without labels.

    `notes` says, in sentences, what was found beside the images and left out.
    """

    training: Images
    test: Images | None
    unlabelled: Images | None = None
    notes: tuple[str, ...] = ()


def resized(images: Images, size: int | None) -> Images:
    """The same images with edges of `size` pixels, averaged over what a pixel covers."""
    if size is None or images.pixels.shape[-1] == size:
        return images
    made = [
        torch.nn.functional.interpolate(part.float(), (size, size), mode="bilinear", antialias=True).round().byte()
        for part in images.pixels.split(4096)
    ]
    return images._replace(pixels=torch.cat(made))
