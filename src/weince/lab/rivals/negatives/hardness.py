"""Hardness weighting, as sentence-transformers has it."""

from __future__ import annotations

from torch import Tensor

from weince.checks import check_number
from weince.lab.rivals.rival import Rival, Rows
from weince.temperature import Temperature

__all__ = ["HardnessWeighted"]


class HardnessWeighted(Rival):
    """InfoNCE whose negatives weigh exp(alpha s), a weight without gradient.

        logit_i+ = s_i+ / tau
        logit_ij = s_ij / tau + alpha stop_grad(s_ij),     j in N(i)

    alpha = 0 is InfoNCE. Its value, though not its gradient, is InfoNCE's with the negatives at 1 / tau + alpha.
    Defined for every setup: a query's own negatives and those of the batch are weighed alike ("all_negatives" there),
    several positives as in SupCon.

    Args:
        temperature: tau, > 0.
        hardness: alpha, >= 0.

    Source: arXiv:2503.04812 (alpha = 9), arXiv:2509.20354 (alpha = 5).
    """

    def __init__(self, temperature: Temperature = 0.1, hardness: float = 5.0) -> None:
        super().__init__(temperature)
        self.hardness = check_number("hardness", hardness, "finite and >= 0", lambda v: v >= 0)

    def per_anchor(self, rows: Rows) -> Tensor:
        logits = rows.similarity / rows.temperature
        return rows.softmax(logits, logits + self.hardness * rows.similarity.detach())
