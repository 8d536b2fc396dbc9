"""WEINCE as the authors' released code trains it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from weince import PAPER, Gate, WEINCELoss
from weince.lab.rivals.setups import Setup
from weince.released import ReleasedTopMLoss

__all__ = ["Released"]


class Released(nn.Module):
    """The recipe of the authors' released code: WEINCE of slope 1, and two extra terms (`ReleasedTopMLoss`).

        loss = WEINCE(slope = 1) + 0.5 CE[positive | top 50](-beta_t log(1 - s)) + 0.5 CE[positive | top 50](s / tau)

    Defined for two views, which it takes itself: its running slope is of their batch. With both shares 0 it would be
    WEINCE of slope 1.

    Args:
        temperature: tau, > 0.
        gate: of the blend, whose slope is replaced.

    Source: released reproduction of arXiv:2606.00262.
    """

    SETUPS: ClassVar[frozenset[Setup]] = frozenset({"two-views"})

    def __init__(self, temperature: float = 0.5, gate: Gate = PAPER) -> None:
        super().__init__()
        # Every setting of the gate but the slope, which the released code fixes at 1.
        self.blend = WEINCELoss(temperature, replace(gate, slope="unit"), gather_distributed=True)
        self.extra = ReleasedTopMLoss(temperature, gather_distributed=True)

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.blend(z_a, z_b) + self.extra(z_a, z_b)
