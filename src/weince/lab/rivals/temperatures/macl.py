"""MACL: a temperature that grows with the alignment of the positives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weince.checks import check_number
from weince.lab.rivals.rival import Rival, Rows
from weince.temperature import Temperature

__all__ = ["MACL"]

LEAST_FACTOR = 0.01
"""Of the temperature: beyond alpha = 1 / (1 + A_0), positives that point away would make it negative."""
LEAST_LOST = 1e-8
"""Of 1 - p, as lightly adds to it."""


class MACL(Rival):
    """Model-aware contrastive loss: InfoNCE at a temperature of the whole batch, each anchor weighed by 1 / (1 - p).

        tau'   = tau (1 + alpha (A - A_0)),     A = mean positive similarity of the batch, without gradient
        loss_i = stop_grad(1 / (1 - p_i)) (-log p_i),     p_i = softmax_{j in P(i) + N(i)} (s_i. / tau') [i+]

    alpha = 0 has the gradient of `DCL` at tau, since 1 / (1 - p) is what the positive in the denominator takes from
    InfoNCE's. Defined for every setup: with several positives A takes each anchor's mean, and the loss is the mean of
    theirs. The factor 1 + alpha (A - A_0) is at least 0.01. Across processes A is that of all.

    Args:
        temperature: tau, > 0.
        alpha: how far the temperature follows the alignment, in [0, 1].
        threshold: A_0, in [0, 1].

    Source: arXiv:2207.07874.
    """

    def __init__(self, temperature: Temperature = 0.1, alpha: float = 0.5, threshold: float = 0.0) -> None:
        super().__init__(temperature)
        self.alpha = check_number("alpha", alpha, "in [0, 1]", lambda v: 0 <= v <= 1)
        self.threshold = check_number("threshold", threshold, "in [0, 1]", lambda v: 0 <= v <= 1)

    def per_anchor(self, rows: Rows) -> Tensor:
        factor = 1 + self.alpha * (self.alignment(rows) - self.threshold)
        logits = rows.similarity / (rows.temperature * factor.clamp_min(LEAST_FACTOR))
        positive = rows.roles.positives(logits, rows.nowhere)
        there, lost = positive > rows.nowhere, rows.lost(logits)
        if rows.roles.only is not None:  # keeps the digits of 1 - p, which is small once training goes well
            log_p = nn.functional.logsigmoid(positive - lost.unsqueeze(1))
        else:
            everyone = torch.logaddexp(torch.logsumexp(positive, dim=1), lost)
            log_p = torch.where(there, positive - everyone.unsqueeze(1), -1.0)
        weight = 1 / (-torch.expm1(log_p.detach())).clamp_min(LEAST_LOST)
        each = torch.where(there, -weight * log_p, 0.0).sum(dim=1)
        return each / there.sum(dim=1).clamp_min(1)

    @torch.no_grad()
    def alignment(self, rows: Rows) -> Tensor:
        """A, a scalar: the mean over the anchors of all processes that have a positive."""
        count = rows.roles.positive_count().squeeze(1)
        mean = rows.roles.positives(rows.similarity.detach(), 0.0).sum(dim=1) / count.clamp_min(1)
        total, anchors = self.options.processes.sum(torch.stack([mean.sum(), (count > 0).to(mean.dtype).sum()]))
        return total / anchors.clamp_min(1)
