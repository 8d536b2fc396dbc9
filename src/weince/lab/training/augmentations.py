"""The crop and the colour jitter: kornia's choices, carried out with fewer passes over the images."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as augment
import torch
from torch import Tensor, nn

__all__ = ["ColourJitter", "Crop", "shift_hue"]

GREY = (0.299, 0.587, 0.114)


class Crop(augment.RandomResizedCrop):
    """kornia's `RandomResizedCrop`, the same boxes and the same images to rounding, five times as quick on a CPU.

    A box is parallel to the axes, so the place of an output pixel is known without solving for a perspective:

        x_j = x_first + j (x_last - x_first) / (width - 1),  y likewise; bilinear between pixels

    Args:
        size: edge length of the output in pixels.
        scale: range of the box's share of the image's area.
    """

    def __init__(self, size: int, scale: tuple[float, float]) -> None:
        super().__init__((size, size), scale=scale, cropping_mode="resample")

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        """Of points and boxes, which nobody has here."""
        return self.identity_matrix(input)

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """The boxes of (N, C, H, W), resized."""
        height, width = flags["size"]
        first, last = params["src"][:, 0].to(input), params["src"][:, 2].to(input)  # corners (x, y), both inside
        grid = input.new_empty(len(input), height, width, 2)
        for axis, (out, size) in enumerate(((width, input.shape[3]), (height, input.shape[2]))):
            way = torch.linspace(0, 1, out, device=input.device, dtype=input.dtype)
            place = torch.lerp(first[:, axis, None], last[:, axis, None], way) * (2 / (size - 1)) - 1
            grid[..., axis] = place.unsqueeze(2 if axis else 1)
        return nn.functional.grid_sample(input, grid, padding_mode="border", align_corners=True)


def shift_hue(image: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue of images, value and saturation as they are.

        V = max(r, g, b),  C = V - min(r, g, b),  h = hue in sixths of a turn
        channel = V - C * clamp(2 - |h + 6 turns + n - 2|, 0, 1),   n = 5, 3, 1,   the distance taken around the circle

    Args:
        image: (N, 3, H, W), in [0, 1].
        turns: (N,), any number.

    Returns:
        (N, 3, H, W).

    Source: the hexagonal HSV model of Smith 1978, doi:10.1145/965139.807361, solved for each channel.

    Examples:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1)
        >>> shift_hue(red, torch.tensor([1 / 3])).flatten().tolist()
        [0.0, 1.0, 0.0]
    """
    red, green, blue = image.unbind(dim=1)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Products with 0 and 1: a choice by `where` is ten times as slow on a CPU.
    is_red = (red == value).to(image.dtype)
    is_green = (green == value).to(image.dtype).mul_(1 - is_red)
    is_blue = (1 - is_red).sub_(is_green)
    hue = (green - blue).mul_(is_red).addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    hue.div_(chroma.clamp_min(torch.finfo(image.dtype).tiny)).add_(is_green, alpha=2).add_(is_blue, alpha=4)
    hue.add_(6 * turns[:, None, None])
    from_full = hue.unsqueeze(1) + hue.new_tensor([3.0, 1.0, -1.0])[:, None, None]
    from_full.sub_((from_full * (1 / 6)).round_().mul_(6)).abs_().neg_().add_(2).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), from_full, chroma.unsqueeze(1), value=-1)


class ColourJitter(augment.ColorJitter):
    """kornia's `ColorJitter`, the same choices and the same images to rounding; quicker on a CPU."""

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Brightness, contrast, saturation and hue, in the order that was drawn."""
        if input.device.type != "cpu" or input.shape[1] != 3:
            return super().apply_transform(input, params, flags, transform)
        steps = (_brighten, _contrast, _saturate, shift_hue)
        names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
        image = input
        for number in params["order"].tolist():
            image = steps[number](image, params[names[number]].to(image.dtype))
        return image


def _brighten(image: Tensor, factor: Tensor) -> Tensor:
    return (image * factor[:, None, None, None]).clamp_(0, 1)


def _contrast(image: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(image).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(image), image, factor[:, None, None, None]).clamp_(0, 1)


def _saturate(image: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(image).expand_as(image), image, factor[:, None, None, None]).clamp_(0, 1)


def _grey(image: Tensor) -> Tensor:
    red, green, blue = image.unbind(dim=1)
    return (GREY[0] * red).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).unsqueeze(1)
