"""The features: what a frozen encoder says of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from weince.lab.training.views import as_float

__all__ = ["extract", "freeze"]


def freeze(encoder: nn.Module) -> nn.Module:
    """The same encoder in evaluation mode, no parameter of which takes a gradient."""
    return encoder.eval().requires_grad_(False)


@torch.no_grad()
def extract(encoder: nn.Module, pixels: Tensor, batch_size: int = 512) -> np.ndarray:
    """Features h (N, F), float32, of images (N, C, S, S) without augmentation.

    Args:
        encoder: frozen, see `freeze`.
        pixels: uint8 images; moved to the encoder's device batch by batch.
        batch_size: images at a time.

    Raises:
        AssertionError: the encoder is not frozen, or a weight or a running statistic has changed on the way.
    """
    if encoder.training or any(p.requires_grad for p in encoder.parameters()):
        raise AssertionError("features are judged with the encoder frozen: call `freeze` first")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    device = next(encoder.parameters()).device
    features = [encoder(as_float(part.to(device))).float().cpu() for part in pixels.split(batch_size)]
    for name, value in encoder.state_dict().items():
        if not torch.equal(before[name], value):
            raise AssertionError(f"the frozen encoder's `{name}` changed while its features were read")
    return torch.cat(features).numpy()
