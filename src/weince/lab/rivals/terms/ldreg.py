"""LDReg: InfoNCE, and a reward for local dimension."""

from __future__ import annotations

import torch
from torch import Tensor

from weince.checks import check_integer, check_number
from weince.formula import shortfall
from weince.lab.rivals.rival import Rival, Rows
from weince.tail import ROUNDING
from weince.temperature import Temperature

__all__ = ["LDReg"]


class LDReg(Rival):
    """InfoNCE less the mean log local intrinsic dimension of the anchors among their nearest negatives.

        loss_i = -log softmax_{j in P(i) + N(i)} (s_i. / tau) [i+]  -  alpha log LID_i
        LID_i  = m_i / (d_(k) - m_i),     m_i = mean_{l < k} d_(l),     d_ij = sqrt(2 max(1 - s_ij, eps))

    the method-of-moments estimate from the k nearest, d_(1) <= ... <= d_(k). The others' rows get no gradient from the
    second term, as in the source; unlike there it looks at the embeddings of the loss, not at the encoder's features,
    and never at a positive. An anchor with fewer than two negatives, or whose distances differ by no more than
    rounding, has no second term. alpha = 0 is InfoNCE. Defined for every setup, several positives as in SupCon.

    Args:
        temperature: tau, > 0.
        dimension_weight: alpha, >= 0.
        neighbours: k, >= 2; all negatives where there are fewer.

    Source: arXiv:2401.10474.
    """

    def __init__(self, temperature: Temperature = 0.1, dimension_weight: float = 0.01, neighbours: int = 64) -> None:
        super().__init__(temperature)
        self.dimension_weight = check_number("dimension_weight", dimension_weight, "finite and >= 0", lambda v: v >= 0)
        self.neighbours = check_integer("neighbours", neighbours, 2)

    def per_anchor(self, rows: Rows) -> Tensor:
        return rows.softmax(rows.similarity / rows.temperature) - self.dimension_weight * self.log_dimension(rows)

    def log_dimension(self, rows: Rows) -> Tensor:
        """log LID of each anchor, (A,), 0 where it has none; carries the anchors' gradient."""
        others = rows.contest._replace(
            candidates=rows.contest.candidates.detach(),
            own=None if rows.contest.own is None else rows.contest.own.detach(),
        )
        similarity = rows.roles.only_negatives(others.similarity(), float("-inf"))
        most = min(self.neighbours, similarity.shape[1])
        nearest = similarity.topk(most, dim=1).values
        number = rows.roles.negative_count().clamp_max(most)
        inside = torch.arange(most, device=nearest.device) < number
        distance = torch.sqrt(2 * shortfall(torch.where(inside, nearest, 0.0), self.options.eps))
        last = distance.gather(1, (number - 1).clamp_min(0)).squeeze(1)
        mean = torch.where(inside, distance, 0.0).sum(dim=1) - last
        mean = mean / (number.squeeze(1) - 1).clamp_min(1)
        gap = last - mean
        # Distances are rounded by half of what their squares are, over the distance.
        noise = ROUNDING * torch.finfo(last.dtype).eps / last.detach()
        known = (number.squeeze(1) > 1) & (gap > noise)
        return torch.where(known, mean, 1.0).log() - torch.where(known, gap, 1.0).log()
