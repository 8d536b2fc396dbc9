"""Student-t on the sphere: a power law with an offset from the cap."""

from __future__ import annotations

import torch
from torch import Tensor

from weince.checks import check_number
from weince.formula import shortfall
from weince.lab.rivals.rival import Rival, Rows

__all__ = ["StudentT"]


class StudentT(Rival):
    """InfoNCE with the log density of a Student-t distribution on the sphere as logit.

        logit_ij = -beta log(c + max(1 - s_ij, eps)),     eps = 1e-6

    c = 0 is `OneSlope`; c -> infinity with beta = c / tau is InfoNCE at tau; c = 1/2, beta = 1 is the Cauchy kernel of
    the distance between rows, 1 / (1 + |u - v|^2), up to a constant. Defined for every setup, several positives as in
    SupCon.

    Args:
        offset: c, >= 0.
        slope: beta, >= 0.

    Source: arXiv:2205.14814, arXiv:2210.09879 (Cauchy kernel).
    """

    def __init__(self, offset: float = 0.5, slope: float = 8.0) -> None:
        super().__init__()
        self.offset = check_number("offset", offset, "finite and >= 0", lambda v: v >= 0)
        self.slope = check_number("slope", slope, "finite and >= 0", lambda v: v >= 0)

    def per_anchor(self, rows: Rows) -> Tensor:
        return rows.softmax(-self.slope * torch.log(self.offset + shortfall(rows.similarity, self.options.eps)))
