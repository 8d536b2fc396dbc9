"""The temperature: a number, a tensor, or a module that learns it within bounds."""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn

from weince.checks import check_number, is_readable

__all__ = ["LearnableTemperature", "Temperature", "check_temperature", "scale_of"]


class LearnableTemperature(nn.Module):
    """A temperature that learns, as CLIP's does: its logarithm is the parameter, kept within bounds.

        tau = exp(-logit_scale),     logit_scale in [-log(largest), -log(smallest)]

    A temperature that is itself the parameter can turn negative, and the loss goes on reversed. A step that leaves the
    bounds is taken back when the next loss is formed, so that no drift collects beyond them. Leave `logit_scale` out of
    weight decay.

    Args:
        initial: tau at the start.
        bounds: smallest and largest tau, > 0. The default is CLIP's clamp of 1 / tau at 100.

    Attributes:
        logit_scale: log(1 / tau), the parameter of that name in CLIP.

    Source: arXiv:2103.00020 (CLIP), section 2.5.

    Examples:
        >>> temperature = LearnableTemperature(0.07)
        >>> round(temperature().item(), 6), [name for name, _ in temperature.named_parameters()]
        (0.07, ['logit_scale'])
    """

    def __init__(self, initial: float = 0.07, bounds: tuple[float, float] = (0.01, 1.0)) -> None:
        super().__init__()
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise TypeError(f"Parameter `bounds` should be (smallest, largest). Found {bounds!r}.")
        low, high = (check_number("bounds", bound, "two finite numbers > 0", lambda v: v > 0) for bound in bounds)
        if low > high:
            raise ValueError(f"Parameter `bounds` should be (smallest, largest). Found {bounds!r}.")
        initial = check_number("initial", initial, f"in [{low:g}, {high:g}]", lambda v: low <= v <= high)
        self.bounds = (low, high)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(initial)))

    def forward(self) -> Tensor:
        """Tau, a scalar tensor with gradient."""
        low, high = self.bounds
        least, most = -math.log(high), -math.log(low)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.logit_scale.clamp_(least, most)
        inside = self.logit_scale.detach().clamp(least, most)
        # Its value is `inside`; the gradient goes straight through, since a clamp has none beyond its bounds.
        return torch.exp(-(inside + (self.logit_scale - self.logit_scale.detach())))

    def extra_repr(self) -> str:
        return f"bounds=({self.bounds[0]:g}, {self.bounds[1]:g})"


Temperature: TypeAlias = "float | Tensor | LearnableTemperature"
"""Tau, > 0: a number, a tensor with one element, or `LearnableTemperature`."""


def check_temperature(temperature: object, to_keep: bool = False) -> Temperature:
    """The temperature, a number as Python's, if it is one.

    Args:
        temperature: what was given.
        to_keep: whether it is kept for many steps, as a module does.

    Raises:
        TypeError: no number, no floating-point tensor, no `LearnableTemperature`.
        ValueError: not finite or not > 0 (of a tensor: where it can be read without waiting for a device), more than
            one element, or a graph that is kept.
    """
    if isinstance(temperature, LearnableTemperature):
        return temperature
    if not isinstance(temperature, Tensor):
        return check_number("temperature", temperature, "finite and > 0", lambda v: v > 0)
    if not temperature.is_floating_point():
        raise TypeError(f"Parameter `temperature` should have a floating-point dtype. Found {temperature.dtype}.")
    if temperature.numel() != 1:
        raise ValueError(f"Parameter `temperature` should be one number. Found shape {tuple(temperature.shape)}.")
    if to_keep and temperature.requires_grad and not isinstance(temperature, nn.Parameter):
        raise ValueError(
            "Parameter `temperature` should be a number, an nn.Parameter or LearnableTemperature() if it learns. "
            "Found a tensor with a gradient of its own, which would last for one step."
        )
    if is_readable(temperature):
        check_number("temperature", temperature.item(), "finite and > 0", lambda v: v > 0)
    return temperature


def scale_of(temperature: Tensor | float, like: Tensor) -> Tensor:
    """1 / tau as a scalar tensor of the dtype of `like`.

    Raises:
        ValueError: another device, or a number that the dtype cannot hold.
    """
    if not isinstance(temperature, Tensor):
        tiny = torch.finfo(like.dtype).tiny
        check_number(
            "temperature", temperature, f">= {tiny:.3g}, the least that {like.dtype} holds", lambda v: v >= tiny
        )
        return like.new_full((), 1 / temperature)
    if temperature.device != like.device:
        raise ValueError(f"Parameter `temperature` should be on {like.device}. Found {temperature.device}.")
    return 1 / temperature.to(like.dtype).reshape(())
