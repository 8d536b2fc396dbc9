"""The similarity's log odds as logit: no temperature."""

from __future__ import annotations

import torch
from torch import Tensor

from weince.formula import shortfall
from weince.lab.rivals.rival import Rival, Rows

__all__ = ["Atanh"]


class Atanh(Rival):
    """InfoNCE with the log odds of (1 + s) / 2 as logit.

        logit_ij = 2 atanh(s_ij) = log(max(1 + s_ij, eps)) - log(max(1 - s_ij, eps)),     eps = 1e-6

    For small s it is InfoNCE at temperature 1/2; near the cap `OneSlope` with beta = 1. Defined for every setup,
    several positives as in SupCon. The floor is ours: without it equal rows have an infinite logit.

    Source: arXiv:2501.17683.
    """

    def __init__(self) -> None:
        super().__init__()

    def per_anchor(self, rows: Rows) -> Tensor:
        near, far = (shortfall(side * rows.similarity, self.options.eps) for side in (1, -1))
        return rows.softmax(torch.log(far) - torch.log(near))
