"""WEINCE as the authors' released code trains it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from weince import Gate, WEINCELoss
from weince.released import ReleasedTopMLoss

__all__ = ["Released"]


class Released(nn.Module):
    """The recipe of the authors' released code: slope 1, and the two extra terms."""

    def __init__(self, temperature: float, gate: Gate) -> None:
        super().__init__()
        # Every setting of the gate but the slope, which the released code fixes at 1.
        self.blend = WEINCELoss(temperature, replace(gate, slope="unit"), gather_distributed=True)
        self.extra = ReleasedTopMLoss(temperature, gather_distributed=True)

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.blend(z_a, z_b) + self.extra(z_a, z_b)
